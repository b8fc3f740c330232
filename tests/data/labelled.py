"""Tiny labelled sets in the layouts of the published ones."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mobileclip_dense.config import FinetuneConfig

SIDE = 8


def settings(root: Path, **changes: Any) -> FinetuneConfig:
    return FinetuneConfig(data=root, out=root.parent / "run", crop_size_px=(32, 32), **changes)


def save(path: Path, pixels: npt.NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def photograph(path: Path, side: int = SIDE) -> Path:
    return save(path, np.full((side, side, 3), 90, np.uint8))


def mask(path: Path, *values: int, side: int = SIDE) -> Path:
    """Write stripes of the values."""
    return save(path, np.resize(np.array(values, np.uint8), (side, side)))


def depth(path: Path, *values: int, side: int = 32) -> Path:
    return save(path, np.resize(np.array(values, np.uint16), (side, side)))


def own_folder(root: Path, num_train: int = 3, num_val: int = 2) -> Path:
    """Write images and masks in the layout of the user's own data: classes 0, 1, 2 and 255."""
    for split, count in (("training", num_train), ("validation", num_val)):
        for index in range(count):
            photograph(root / "images" / split / f"{index}.jpg")
            mask(root / "annotations" / split / f"{index}.png", 0, 1, 2, 255)
    return root


def depth_folder(root: Path, num_train: int = 2) -> Path:
    """Write images and depth maps in mmsegmentation's layout, 1 to 3 m in millimetres."""
    for split, count in (("train", num_train), ("test", 1)):
        for index in range(count):
            photograph(root / "images" / split / f"{index}.jpg", side=32)
            depth(root / "annotations" / split / f"{index}.png", 0, 1000, 2000, 3000)
    return root
