"""An image and what it is labelled with."""

from pathlib import Path
from typing import NamedTuple

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


class Pair(NamedTuple):
    """An image, and its mask or depth map (which need not exist: the scan says so)."""

    image: Path
    label: Path


def pair_by_name(images: Path, labels: Path) -> tuple[Pair, ...]:
    """The images of a folder (.jpg, .jpeg, .png in any case), sorted by name, each with the label of the same name.

    Labels are .png in any case. A label without an image is left alone; none at all where `images` is no folder.
    """
    if not images.is_dir():
        return ()
    found = {path.stem: path for path in _visible(labels) if path.suffix.lower() == ".png"} if labels.is_dir() else {}
    return tuple(
        Pair(image, found.get(image.stem, labels / f"{image.stem}.png"))
        for image in sorted(_visible(images))
        if image.suffix.lower() in _IMAGE_SUFFIXES
    )


def _visible(folder: Path) -> list[Path]:
    """Without what a Mac leaves behind in archives, ._NAME.jpg."""
    return [path for path in folder.iterdir() if not path.name.startswith(".")]
