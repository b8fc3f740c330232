"""Reading of stored masks and depth maps, and the checks that they must pass."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mobileclip_dense.artifact.images import check_png, is_png
from mobileclip_dense.artifact.palette import IGNORE_INDEX

_SCALED = ("L;2", "L;4")  # Pillow spreads 2 and 4 bits of gray over 0..255, which is not what a class index means


class UnusableFile(ValueError):
    """A file that cannot be trained on; `kind` names the problem in two or three words, for counting."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def read_class_labels(path: Path, reduce_zero_label: bool, ignored_label: int = IGNORE_INDEX) -> npt.NDArray[np.uint8]:
    """Class map uint8 [H,W] with IGNORE_INDEX where there is no class.

    Args:
        reduce_zero_label: ADE20K's convention: 0 is "other" and ignored, 1 is the first class.
        ignored_label: the index that means "no class", beside IGNORE_INDEX.

    Raises:
        UnusableFile: not a single-channel image of 8-bit class indices (a palette may give them colours).
    """
    labels = _read(path, "mask", "an 8-bit single-channel PNG of class indices", ("L", "P", "1")).astype(np.uint8)
    if ignored_label != IGNORE_INDEX:
        labels[labels == ignored_label] = IGNORE_INDEX
    # uint8 wraps around: 0 - 1 is 255, ADE20K's "other" becomes ignored; 255 has to stay what it is.
    return np.where(labels == IGNORE_INDEX, labels, labels - np.uint8(1)) if reduce_zero_label else labels


def read_depth_m(path: Path, units_per_m: float) -> npt.NDArray[np.float32]:
    """Depth float32 [H,W] in metres, 0 where there is no reading.

    Raises:
        UnusableFile: not a 16-bit single-channel PNG.
    """
    stored = _read(path, "depth", f"a 16-bit PNG with {units_per_m:g} units per metre", ("I;16", "I;16B", "I"))
    return stored.astype(np.float32) / np.float32(units_per_m)


def _read(path: Path, what: str, expected: str, modes: tuple[str, ...]) -> npt.NDArray[np.integer]:
    if not path.is_file():
        raise UnusableFile(f"no {what}", f"{path}: {what}: no such file; add it or remove the image")
    data = path.read_bytes()
    if not is_png(data):
        raise UnusableFile(f"unreadable {what}", f"{path}: {what}: not a PNG; expected {expected}")
    try:
        check_png(data)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            raw = image.tile[0][3] if image.tile else None
            image.load()
            mode, values = image.mode, np.asarray(image)
    except Exception as error:  # on damaged bytes decoders fail in any way there is
        raise UnusableFile(
            f"unreadable {what}",
            f"{path}: {what}: cannot be decoded ({error}); the file is truncated or damaged",
        ) from None
    if raw in _SCALED:
        mode = str(raw)
    if mode not in modes:
        kind, advice = _of_mode(what, mode)
        raise UnusableFile(kind, f"{path}: {what}: found mode {mode!r}, expected {expected}; {advice}")
    return values


def _of_mode(what: str, mode: str) -> tuple[str, str]:
    """The kind of problem that an image mode is, and advice."""
    if what == "depth":
        if mode in ("L", "P", "RGB", "RGBA"):
            return "8-bit depth", "8 bits have lost the distances: export the depth again with 16"
        return "depth format", "export the depth again with 16 bits"
    if mode in ("RGB", "RGBA"):
        return "colour mask", "it looks like a picture in colours: convert it to class indices"
    if mode.startswith("I"):
        return "16-bit mask", "convert it to 8 bits"
    return "mask format", "convert it to 8 bits without scaling the values"
