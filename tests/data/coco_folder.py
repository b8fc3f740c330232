"""A small data set in COCO's layout."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 40, 60
CATEGORIES = [{"id": 90, "name": "cup"}, {"id": 3, "name": "dog"}, {"id": 7, "name": "fern"}]  # dog 1, fern 2, cup 3


def polygon(left: float, top: float, width: float, height: float) -> list[list[float]]:
    """A rectangle as one polygon."""
    right, bottom = left + width, top + height
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotation(number: int, image_id: int, category_id: int, box: list[float], **changes: Any) -> dict[str, Any]:
    """A rectangular object."""
    return {"id": number, "image_id": image_id, "category_id": category_id, "bbox": box, "iscrowd": 0,
            "area": box[2] * box[3], "segmentation": polygon(*box), **changes}  # fmt: skip


def write_coco(root: Path, annotations: dict[str, list[dict[str, Any]]], num_images: int = 3) -> Path:
    """Write noise images 0, 1, ... to both splits, with these annotations."""
    rng = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        folder = root / f"{split}2017"
        folder.mkdir()
        images = []
        for number in range(num_images):
            name = f"{number:012d}.jpg"
            Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(folder / name)
            images.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
        contents = {"images": images, "annotations": annotations[split], "categories": CATEGORIES}
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(contents))
    return root
