"""Pairs of an image and its label file."""

from pathlib import Path
from typing import NamedTuple

from mobileclip_dense.artifact.hidden import is_hidden
from mobileclip_dense.artifact.images import IMAGE_SUFFIXES

# What other pictures are called. They are paired too, so that the scan names them: a picture of a format that is not
# read must not be passed over in silence, and some hold a JPEG under another name.
_OTHER_SUFFIXES = (".jfif", ".jpe", ".tif", ".tiff", ".gif", ".apng", ".heic", ".heif", ".avif", ".jxl", ".jp2",
                   ".j2k", ".ppm", ".pgm", ".pnm", ".tga", ".pcx", ".qoi", ".ico", ".psd", ".dng", ".cr2", ".nef",
                   ".arw", ".exr", ".hdr")  # fmt: skip


class Pair(NamedTuple):
    """An image and its mask or depth map; the scan reports files that are missing."""

    image: Path
    label: Path


def pair_by_name(images: Path, labels: Path) -> tuple[Pair, ...]:
    """Images of a folder, sorted by name, each with the label of the same name.

    Images are told by their suffix, labels are .png, both in any case. Labels without an image are ignored. So are
    pictures of unsupported formats, such as raw files, that have a supported picture of the same name beside them.
    Empty where `images` is no folder.
    """
    if not images.is_dir():
        return ()
    found = {path.stem: path for path in _visible(labels) if path.suffix.lower() == ".png"} if labels.is_dir() else {}
    pictures = sorted(_visible(images))
    read = [path for path in pictures if path.suffix.lower() in IMAGE_SUFFIXES]
    names = {path.stem for path in read}
    others = [path for path in pictures if path.suffix.lower() in _OTHER_SUFFIXES and path.stem not in names]
    return tuple(Pair(image, found.get(image.stem, labels / f"{image.stem}.png")) for image in sorted(read + others))


def pair_splits(root: Path, train: str, val: str) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Pairs of root/images/SPLIT and root/annotations/SPLIT by name, of both splits."""
    pairs = [pair_by_name(root / "images" / split, root / "annotations" / split) for split in (train, val)]
    return pairs[0], pairs[1]


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not is_hidden(path.name)]
