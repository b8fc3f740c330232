"""All bad files are reported by name before training; good ones are not opened a second time."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobileclip_dense.__main__ import main
from mobileclip_dense.artifact.files import cache_folder
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.data.labelled import pair_scan
from mobileclip_dense.data.labelled.layouts import find_set
from mobileclip_dense.data.labelled.scan import check_pairs, check_set
from tests.data.labelled import SIDE, depth, depth_folder, mask, own_folder, save, settings

IMAGE, MASK = Path("images/training/1.jpg"), Path("annotations/training/1.png")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def noise(path: Path) -> Path:
    return save(path, np.random.default_rng(0).integers(0, 3, (64, 64), dtype=np.uint8))


def two_bits(path: Path) -> None:
    """Write a 2-bit grey PNG, which Pillow cannot write."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"".join(b"\0" + bytes([0b00011011] * (SIDE // 4)) for _ in range(SIDE)))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 2, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


BREAKS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "truncated image": (lambda root: truncate(root / IMAGE), "unusable image", r"1\.jpg: image: cannot be decoded"),
    "GIF named .jpg": (
        lambda root: Image.new("RGB", (SIDE, SIDE)).save(root / IMAGE, "GIF"),
        "unusable image",
        r"1\.jpg: image: found GIF, expected JPEG, PNG, WebP or BMP; convert it first",
    ),
    "not an image": (lambda root: (root / IMAGE).write_text("hello"), "unusable image", r"1\.jpg: image: not an image"),
    "mask of another size": (
        lambda root: save(root / MASK, np.zeros((SIDE, 4), np.uint8)),
        "other size",
        r"training/1\.png: size: found 8x4, expected 8x8 like 1\.jpg",
    ),
    "RGB mask": (
        lambda root: save(root / MASK, np.zeros((SIDE, SIDE, 3), np.uint8)),
        "colour mask",
        r"training/1\.png: mask: found mode 'RGB', .* looks like a colour image: convert it to class indices",
    ),
    "16-bit mask": (
        lambda root: save(root / MASK, np.zeros((SIDE, SIDE), np.uint16)),
        "16-bit mask",
        r"training/1\.png: mask: found mode 'I;16'.* convert it to 8 bits",
    ),
    "2-bit mask": (lambda root: two_bits(root / MASK), "mask format", r"training/1\.png: mask: found mode 'L;2'"),
    "truncated mask": (
        lambda root: truncate(noise(root / MASK)),
        "unreadable mask",
        r"1\.png: mask: cannot be decoded",
    ),
    "missing mask": (lambda root: (root / MASK).unlink(), "no mask", r"training/1\.png: mask: no such file"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_bad_file_is_named_before_training(tmp_path: Path, name: str) -> None:
    break_it, kind, message = BREAKS[name]
    root = own_folder(tmp_path / "own")
    break_it(root)
    with pytest.raises(ValueError, match=rf"1 of 5 pairs cannot be used: 1 {kind}\n.*{message}"):
        check_set(settings(root))


DEPTHS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "8 bits": (lambda path: mask(path, 1, 2, side=32), "8-bit depth", "found mode 'L', expected a 16-bit PNG"),
    "no reading": (lambda path: depth(path, 0), "no depth reading", "found only zeros"),
    "tenths of millimetres": (lambda path: depth(path, 20000, 60000), "depth scale", r"found 20 to 60 m.*units-per-m"),
    "one in a thousand within": (
        lambda path: depth(path, *[30000] * 999, 5000),
        "depth scale",
        r"found 5 to 30 m with a median of 30 m",
    ),
    "metres": (lambda path: depth(path, 1, 2, 3), "depth scale", r"found 0\.001 to 0\.003 m.*\(now 1000\)"),
    "another size": (lambda path: depth(path, 1000, side=48), "other size", "found 48x48, expected 32x32"),
}


@pytest.mark.parametrize("name", DEPTHS)
def test_a_bad_depth_map_is_named_before_training(tmp_path: Path, name: str) -> None:
    write, kind, message = DEPTHS[name]
    root = depth_folder(tmp_path / "nyu")
    write(root / "annotations" / "train" / "1.png")
    with pytest.raises(ValueError, match=rf"1 of 3 pairs cannot be used: 1 {kind}\n.*train/1\.png: .*{message}"):
        check_set(settings(root, task="depth"))


def test_another_unit_of_depth_can_be_said(tmp_path: Path) -> None:
    root = depth_folder(tmp_path / "nyu")
    for path in root.glob("annotations/*/*.png"):
        depth(path, 0, 20000, 60000)
    check_set(settings(root, task="depth", depth_units_per_m=10000.0))
    with pytest.raises(ValueError, match="3 depth scale"):
        check_set(settings(root, task="depth"))


def test_a_depth_image_smaller_than_the_crop_is_named(tmp_path: Path) -> None:
    root = depth_folder(tmp_path / "nyu")
    config = FinetuneConfig(data=root, out=tmp_path / "run", task="depth", crop_size_px=(64, 32))
    with pytest.raises(ValueError, match=r"2 of 3 pairs.*\n.*0\.jpg: size: found 32x32, expected at least .* 64 32"):
        check_set(config)


def test_labels_beyond_the_class_list_are_named(tmp_path: Path) -> None:
    root, names = own_folder(tmp_path / "own"), tmp_path / "names.txt"
    names.write_text("floor\nwall\n")
    with pytest.raises(ValueError, match=r"5 label out of range\n.*labels: found 2, expected at most 1 for 2 classes"):
        check_set(settings(root, class_names=names))


def test_masks_of_a_single_class_are_refused(tmp_path: Path) -> None:
    root = own_folder(tmp_path / "own")
    for path in root.glob("annotations/*/*.png"):
        mask(path, 0, 255)  # as many tools write masks of two classes
    (tmp_path / "names.txt").write_text("background\nforeground\n")
    for names in (None, tmp_path / "names.txt"):
        with pytest.raises(ValueError, match=r"labels: found only class 0 in all 3 training masks \(255"):
            check_set(settings(root, class_names=names))


def test_masks_without_a_label_are_used_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = own_folder(tmp_path / "own")
    mask(root / MASK, 255)
    assert len(check_set(settings(root)).train) == 3
    assert "warning: in 1 of 5 masks every pixel is ignored" in capsys.readouterr().err


def test_masks_with_gaps_are_indices_if_the_classes_are_named(tmp_path: Path) -> None:
    root = own_folder(tmp_path / "own")
    for path in root.glob("annotations/*/*.png"):
        mask(path, 0, 100, 200)
    with pytest.raises(
        ValueError, match=r"found 3 values in all masks \(0, 100, 200\), .* or name all 201 with --class-"
    ):
        check_set(settings(root))
    (tmp_path / "names.txt").write_text("".join(f"thing {index}\n" for index in range(201)))
    assert len(check_set(settings(root, class_names=tmp_path / "names.txt")).class_names) == 201
    for path in root.glob("annotations/*/*.png"):
        mask(path, 1, 3)  # a class that does not occur is none of these
    assert len(check_set(settings(root)).class_names) == 4


def test_held_out_masks_without_a_label_are_refused(tmp_path: Path) -> None:
    """Without labels there is nothing to train or evaluate on, which is reported before training."""
    for split, what in (("validation", "2 held-out"), ("training", "3 training")):
        root = own_folder(tmp_path / split)
        for path in (root / "annotations" / split).iterdir():
            mask(path, 255)
        with pytest.raises(ValueError, match=f"found no class in any of {what} masks: every pixel is ignored"):
            check_set(settings(root))
    with pytest.raises(ValueError, match="found no class in any of 2 held-out masks"):
        check_pairs(replace(find_set(tmp_path / "validation", "segment"), train=()), settings(root))


@pytest.mark.parametrize("shape", [(SIDE, SIDE), (SIDE, SIDE, 4)], ids=["grey", "transparent"])
def test_photographs_in_other_modes_than_rgb_are_used(tmp_path: Path, shape: tuple[int, ...]) -> None:
    root = own_folder(tmp_path / "own")
    (root / IMAGE).unlink()
    save((root / IMAGE).with_suffix(".png"), np.zeros(shape, np.uint8))
    assert len(check_set(settings(root)).train) == 3


def test_ten_are_named_and_the_others_counted(tmp_path: Path) -> None:
    root = own_folder(tmp_path / "own", num_train=13)
    for path in (root / "annotations" / "training").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="13 of 15 pairs cannot be used: 13 no mask") as caught:
        check_set(settings(root))
    lines = str(caught.value).splitlines()
    assert sum("no such file" in line for line in lines) == 10
    assert lines[-2:] == ["  ... and 3 more", "Correct them, or skip them with --skip-bad."]


def test_bad_pairs_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = own_folder(tmp_path / "own", num_train=5)
    (root / "annotations" / "training" / "0.png").unlink()
    (root / "annotations" / "validation" / "1.png").unlink()
    truncate(root / IMAGE)
    found = check_set(settings(root, skip_bad=True))
    assert [pair.image.stem for pair in found.train] == ["2", "3", "4"]
    assert [pair.image.stem for pair in found.val] == ["0"]
    assert found.num_skipped == 3
    assert "skipped 3 of 7 pairs: 2 no mask, 1 unusable image" in capsys.readouterr().out
    (root / "annotations" / "validation" / "0.png").unlink()
    with pytest.raises(ValueError, match="Without them, 3 training and 0 held-out images remain"):
        check_set(settings(root, skip_bad=True))


def test_held_out_pairs_are_checked_alone_against_the_classes_of_a_run(tmp_path: Path) -> None:
    root = own_folder(tmp_path / "own", num_train=0)
    found = find_set(root, "segment")
    checked = check_pairs(replace(found, class_names=("a", "b", "c")), settings(root))
    assert (checked.num_train, checked.num_val, checked.class_names) == (0, 2, ("a", "b", "c"))
    with pytest.raises(ValueError, match=r"2 label out of range\n.*expected at most 1 for 2 classes"):
        check_pairs(replace(found, class_names=("a", "b")), settings(root))
    with pytest.raises(ValueError, match="found folder of your own without an image"):
        check_pairs(replace(found, val=()), settings(root))


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list of the images that are opened from now on."""
    names: list[str] = []
    load_image = pair_scan.load_image

    def counted(path: Path) -> object:
        names.append(path.name)
        return load_image(path)

    monkeypatch.setattr(pair_scan, "load_image", counted)
    return names


def test_a_second_start_opens_only_what_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root, names = own_folder(tmp_path / "own"), opened(monkeypatch)
    first = check_set(settings(root))
    assert len(names) == 5
    names.clear()
    assert check_set(settings(root)) == first
    assert check_set(settings(root, max_train_images=2)).train == first.train[:2]
    assert names == []
    mask(root / MASK, 0, 3)
    os.utime(root / "images" / "training" / "2.jpg", ns=(1, 1))
    assert check_set(settings(root)).class_names[-1] == "class 3"
    assert sorted(names) == ["1.jpg", "2.jpg"]
    names.clear()
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    with pytest.raises(ValueError, match="1 label out of range"):  # other settings, other answers
        check_set(settings(root, class_names=tmp_path / "names.txt"))
    assert len(names) == 5


def test_a_share_that_was_away_for_a_moment_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = own_folder(tmp_path / "own")

    def away(path: Path) -> object:
        raise ValueError(f"{path}: cannot be read (Input/output error)")

    with monkeypatch.context() as patch:
        patch.setattr(pair_scan, "load_image", away)
        with pytest.raises(ValueError, match="5 of 5 pairs cannot be used: 5 unusable image"):
            check_set(settings(root))
    assert len(check_set(settings(root)).train) == 3


@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"%s": [1]}', '{"%s": [["x"], 5]}'])
def test_a_damaged_cache_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = own_folder(tmp_path / "own")
    first = check_set(settings(root))
    (kept,) = (cache_folder() / "scans").iterdir()
    assert tmp_path in kept.parents
    kept.write_text(damage.replace("%s", str((root / IMAGE).absolute())))
    names = opened(monkeypatch)
    assert check_set(settings(root)) == first
    assert len(names) == 5


def test_a_cache_that_cannot_be_written_is_told_and_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(check_set(settings(own_folder(tmp_path / "own"))).train) == 3
    assert "cannot write the cache of the data scan" in capsys.readouterr().err


def test_the_command_line_says_it_without_a_traceback_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = own_folder(tmp_path / "own"), tmp_path / "run"
    truncate(root / IMAGE)
    line = ["mobileclip-dense", "finetune", "nano-segment", "--data", str(root), "--out", str(run)]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert "1.jpg: image: cannot be decoded" in capsys.readouterr().err
    assert not run.exists()


def test_photographs_keep_their_sides(tmp_path: Path) -> None:
    """Height and width are not confused: a mask rotated by 90 degrees is reported."""
    root = own_folder(tmp_path / "own")
    save(root / IMAGE, np.zeros((4, SIDE, 3), np.uint8))
    save(root / MASK, np.zeros((SIDE, 4), np.uint8))
    with pytest.raises(ValueError, match=r"size: found 8x4, expected 4x8"):
        check_set(settings(root))
