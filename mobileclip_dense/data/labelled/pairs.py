"""Pairs of an image and its label file."""

from pathlib import Path
from typing import NamedTuple

from mobileclip_dense.artifact.hidden import is_hidden
from mobileclip_dense.artifact.images import IMAGE_SUFFIXES

# Suffixes of other image formats. These files are paired too, so that the scan reports unsupported formats instead of
# silently skipping them. Some of them contain a JPEG.
_OTHER_SUFFIXES = (".jfif", ".jpe", ".tif", ".tiff", ".gif", ".apng", ".heic", ".heif", ".avif", ".jxl", ".jp2",
                   ".j2k", ".ppm", ".pgm", ".pnm", ".tga", ".pcx", ".qoi", ".ico", ".psd", ".dng", ".cr2", ".nef",
                   ".arw", ".exr", ".hdr")  # fmt: skip


class Pair(NamedTuple):
    """An image and its mask or depth map. The files may be missing; the scan reports that."""

    image: Path
    label: Path


def pair_by_name(images: Path, labels: Path) -> tuple[Pair, ...]:
    """Pair the images of a folder, sorted by name, with the labels of the same name.

    Images are recognised by their suffix, labels by .png, both in any case. Labels without an image are ignored. Images
    in unsupported formats (raw files, for example) are ignored if there is a supported image of the same name. The
    result is empty if `images` is not a folder.
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
    """Pair root/images/SPLIT and root/annotations/SPLIT by name, for both splits."""
    pairs = [pair_by_name(root / "images" / split, root / "annotations" / split) for split in (train, val)]
    return pairs[0], pairs[1]


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not is_hidden(path.name)]
