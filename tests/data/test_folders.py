"""Bad data is found before training, by file, with what was expected of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.data.folders import check_folder, read_class_labels
from tests.conftest import run_module, write_labelled_folder

SIZE = 64
IMAGE, MASK = Path("images/training/1.png"), Path("annotations/training/1.png")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A good folder with PNG images."""
    root = write_labelled_folder(tmp_path / "own")
    for path in list(root.glob("images/*/*.jpg")):
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    return root


def config(root: Path, **changes: object) -> FinetuneConfig:
    return FinetuneConfig(data=root, out=root.parent / "run", crop_size_px=(64, 64), **changes)  # type: ignore[arg-type]


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    Image.fromarray(pixels, mode).save(path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated image": (lambda root: truncate(root / IMAGE), r"images/training/1\.png: image: cannot be decoded"),
    "grayscale image": (
        lambda root: save(root / IMAGE, np.zeros((SIZE, SIZE), np.uint8)),
        r"images/training/1\.png: image mode: found 'L', expected 'RGB'",
    ),
    "RGBA image": (
        lambda root: save(root / IMAGE, np.zeros((SIZE, SIZE, 4), np.uint8)),
        r"images/training/1\.png: image mode: found 'RGBA'",
    ),
    "16-bit image": (
        lambda root: save(root / IMAGE, np.zeros((SIZE, SIZE), np.uint16)),
        r"images/training/1\.png: image mode: found 'I;16'",
    ),
    "not an image": (
        lambda root: (root / IMAGE).write_text("hello"),
        r"images/training/1\.png: image: not an image file",
    ),
    "mask of another size": (
        lambda root: save(root / MASK, np.zeros((SIZE, 32), np.uint8)),
        r"annotations/training/1\.png: size: found 64x32, expected 64x64",
    ),
    "RGB mask": (
        lambda root: save(root / MASK, np.zeros((SIZE, SIZE, 3), np.uint8)),
        r"annotations/training/1\.png: annotation: found mode 'RGB', expected an 8-bit single-channel PNG",
    ),
    "truncated mask": (
        lambda root: truncate(root / MASK),
        r"annotations/training/1\.png: annotation: cannot be decoded",
    ),
    "missing mask": (
        lambda root: (root / MASK).unlink(),
        r"annotations/training/1\.png: annotation of 1\.png: no such",
    ),
    "empty folder": (
        lambda root: [path.unlink() for path in (root / "images/validation").iterdir()],
        r"images/validation: found no \.jpg or \.png",
    ),
    "mixed suffixes": (
        lambda root: (root / IMAGE).rename(root / IMAGE.with_suffix(".jpg")),
        r"images: found both \.jpg and \.png",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_bad_file_is_named_before_training(own: Path, name: str) -> None:
    break_it, message = BREAKS[name]
    break_it(own)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        check_folder(config(own))


def test_a_label_out_of_range_is_named(own: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("floor\nwall\n")
    with pytest.raises(ValueError, match=r"\.png: labels: found 2, expected at most 1 for 2 classes"):
        check_folder(config(own, class_names=names))


def test_a_good_folder_is_described(own: Path) -> None:
    found = check_folder(config(own))
    assert found.class_names == ("class 0", "class 1", "class 2")
    assert (found.image_suffix, found.num_train, found.num_val) == (".png", 4, 2)


def test_ade20k_labels_lose_their_zero(tmp_path: Path) -> None:
    save(tmp_path / "mask.png", np.array([[0, 1], [150, 2]], np.uint8))
    np.testing.assert_array_equal(read_class_labels(tmp_path / "mask.png", True), [[255, 0], [149, 1]])
    np.testing.assert_array_equal(read_class_labels(tmp_path / "mask.png", False), [[0, 1], [150, 2]])


def test_depth_in_other_units_is_noticed(tmp_path: Path) -> None:
    root = tmp_path / "nyu"
    for split in ("train", "test"):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(root / "images" / split / "1.jpg")
        save(root / "annotations" / split / "1.png", np.full((64, 64), 60000, np.uint16))
    with pytest.raises(ValueError, match=r"1\.png: depth: found 60 to 60 m, .* check --depth-units-per-m"):
        check_folder(config(root, task="depth"))
    check_folder(config(root, task="depth", depth_units_per_m=10000.0))


def test_the_command_line_says_it_in_one_line_and_leaves_nothing(own: Path) -> None:
    truncate(own / IMAGE)
    run = own.parent / "run"
    done = run_module("mobileclip_dense", "finetune", "nano-segment", "--data", own, "--out", run, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr
    assert "1.png: image: cannot be decoded" in done.stderr
    assert not run.exists()
