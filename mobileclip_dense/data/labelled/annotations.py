"""Reading and checking of stored masks and depth maps."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mobileclip_dense.artifact.images import check_png, is_png
from mobileclip_dense.artifact.palette import IGNORE_INDEX

_SCALED = ("L;2", "L;4")  # Pillow scales 2-bit and 4-bit grey levels to 0..255, so they are no class indices


class UnusableFile(ValueError):
    """A file cannot be used for training. `kind` is a short name of the problem, under which it is counted."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def read_class_labels(path: Path, reduce_zero_label: bool, ignored_label: int = IGNORE_INDEX) -> npt.NDArray[np.uint8]:
    """Read a class map, uint8 [H,W]. Pixels without a class are IGNORE_INDEX.

    Args:
        path: a PNG.
        reduce_zero_label: ADE20K's convention: 0 is "other" and ignored, 1 is the first class.
        ignored_label: another index that is ignored, besides IGNORE_INDEX.

    Raises:
        UnusableFile: the file is not a single-channel image of 8-bit class indices (with or without a palette).
    """
    labels = _read(path, "mask", "an 8-bit single-channel PNG of class indices", ("L", "P", "1")).astype(np.uint8)
    if ignored_label != IGNORE_INDEX:
        labels[labels == ignored_label] = IGNORE_INDEX
    # uint8 wraps around: 0 - 1 is 255, so ADE20K's "other" becomes ignored. 255 must stay 255.
    return np.where(labels == IGNORE_INDEX, labels, labels - np.uint8(1)) if reduce_zero_label else labels


def read_depth_m(path: Path, units_per_m: float) -> npt.NDArray[np.float32]:
    """Read a depth map, float32 [H,W] in metres. Pixels without a measurement are 0.

    Args:
        path: a PNG.
        units_per_m: value of one metre in the PNG.

    Raises:
        UnusableFile: the file is not a 16-bit single-channel PNG.
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
    except Exception as error:  # decoders raise exceptions of any type for damaged files
        raise UnusableFile(
            f"unreadable {what}",
            f"{path}: {what}: cannot be decoded ({error}); the file is truncated or damaged",
        ) from None
    if raw in _SCALED:
        mode = str(raw)
    if mode not in modes:
        kind, advice = _describe_mode(what, mode)
        raise UnusableFile(kind, f"{path}: {what}: found mode {mode!r}, expected {expected}; {advice}")
    return values


def _describe_mode(what: str, mode: str) -> tuple[str, str]:
    """The kind of problem of an unsupported image mode, and advice."""
    if what == "depth":
        if mode in ("L", "P", "RGB", "RGBA"):
            return "8-bit depth", "8 bits are too few for distances: export the depth again with 16 bits"
        return "depth format", "export the depth again with 16 bits"
    if mode in ("RGB", "RGBA"):
        return "colour mask", "it looks like a colour image: convert it to class indices"
    if mode.startswith("I"):
        return "16-bit mask", "convert it to 8 bits"
    return "mask format", "convert it to 8 bits without scaling the values"
