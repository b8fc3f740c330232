"""Reading of COCO (Lin 2014) in its published layout.

    ROOT/train2017/*.jpg   ROOT/annotations/instances_train2017.json
    ROOT/val2017/*.jpg     ROOT/annotations/instances_val2017.json

Boxes are x, y, width, height in pixels. The segmentation of an object is a list of polygons or a column-major
run-length encoding, with counts as a list of numbers or as pycocotools' compressed string. `iscrowd` marks groups of
objects that are annotated as one.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pycocotools import mask as coco_mask

from mobileclip_dense.artifact.files import read_json
from mobileclip_dense.data.labelled.coco_annotations import is_id, to_rle
from mobileclip_dense.data.labelled.labelled_set import Layout

Split = Literal["train", "val"]
SPLITS: tuple[Split, Split] = ("train", "val")


@dataclass(frozen=True, kw_only=True)
class CocoSet:
    """A data set in COCO's layout.

    Attributes:
        root: folder of the data set.
        class_names: names of the labels 1..N.
        category_ids: category ids of the labels in the annotation files, which may have gaps.
        num_train: number of training images: those with objects, at most `max_train_images`.
        num_val: number of held-out images.
        max_train_images: maximum number of training images; None: all.
        left_out: entries that training and evaluation skip, as (split, "images" or "annotations", index in that list
            of the annotation file).
    """

    root: Path
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    num_train: int
    num_val: int
    max_train_images: int | None = None
    left_out: frozenset[tuple[str, str, int]] = field(default=frozenset(), repr=False)

    def image_folder(self, split: Split) -> Path:
        return self.root / f"{split}2017"

    def annotation_file(self, split: Split) -> Path:
        return _annotation_file(self.root, split)


def read_images(coco: CocoSet, split: Split) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The usable images of a split, each with its annotations, crowds included.

    Missing `iscrowd` and `area` (of the mask) are filled in.
    """
    return usable_images(coco, split, read_annotations(coco.root, split))


def usable_images(
    coco: CocoSet, split: Split, contents: dict[str, Any]
) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The result of `read_images` for given contents of the annotation file."""
    annotations: dict[Any, list[dict[str, Any]]] = {}
    for place, annotation in enumerate(contents["annotations"]):
        if (split, "annotations", place) not in coco.left_out:
            annotations.setdefault(annotation["image_id"], []).append(annotation)
    images = []
    for place in considered_places(contents, split, coco.max_train_images):
        if (split, "images", place) in coco.left_out:
            continue
        image = contents["images"][place]
        complete = [_complete(annotation, image) for annotation in annotations.get(image["id"], ())]
        if split == "val" or without_crowds(complete):
            images.append((image, complete))
    return images


def without_crowds(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The annotations of single objects, without crowds."""
    return [annotation for annotation in annotations if not annotation["iscrowd"]]


def _annotation_file(root: Path, split: Split) -> Path:
    return root / "annotations" / f"instances_{split}2017.json"


def read_annotations(root: Path, split: Split) -> dict[str, Any]:
    """The contents of an annotation file, whose images, annotations and categories are checked to be lists of objects.

    Raises:
        FileNotFoundError: a folder or file of the layout is missing.
        ValueError: the file is damaged.
    """
    path = _annotation_file(root, split)
    for folder in (root, root / f"{split}2017"):
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder}: no such folder; expected train2017/, val2017/ and annotations/ of COCO inside --data"
            )
    contents = read_json(path)
    for name in ("images", "annotations", "categories"):
        entries = contents.get(name)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(
                f"{path}: {name}: found {type(entries).__name__}, expected a list of objects as in COCO's instances "
                "files"
            )
    return contents


def describe_coco(root: Path, contents: dict[Split, dict[str, Any]], max_train_images: int | None) -> CocoSet:
    """The data set of annotation files. Images are not opened.

    Args:
        root: folder of the data set.
        contents: contents of the annotation files (see `read_annotations`) by split.
        max_train_images: maximum number of training images; None: all.

    Raises:
        ValueError: the splits have different categories, or a category is damaged.
    """
    found = {split: _categories(_annotation_file(root, split), contents[split]) for split in contents}
    first, *others = found
    categories = found[first]
    for split in others:
        if found[split] != categories:
            raise ValueError(
                f"{_annotation_file(root, split)}: categories: found differences from "
                f"{_annotation_file(root, first).name} (e.g. {sorted(categories.items() ^ found[split].items())[:3]}), "
                "expected the same categories"
            )
    num_images = {split: len(considered_places(contents[split], split, max_train_images)) for split in contents}
    return CocoSet(
        root=root, class_names=tuple(categories.values()), category_ids=tuple(categories),
        max_train_images=max_train_images, num_train=num_images.get("train", 0), num_val=num_images.get("val", 0),
    )  # fmt: skip


def _categories(path: Path, contents: dict[str, Any]) -> dict[int, str]:
    """Category names by id, sorted by id."""
    names: dict[int, str] = {}
    for entry in contents["categories"]:
        number, name = entry.get("id"), entry.get("name")
        if type(number) is not int or not isinstance(name, str) or number in names:
            raise ValueError(f"{path}: categories: found {entry}, expected a unique id and a name")
        names[number] = name
    if not names:
        raise ValueError(f"{path}: categories: found none, expected at least one")
    return dict(sorted(names.items()))


def considered_places(contents: dict[str, Any], split: Split, max_train_images: int | None) -> list[int]:
    """Indices of the images of a split in the annotation file. Training: at most `max_train_images` with objects."""
    if split == "val":
        return list(range(len(contents["images"])))
    with_objects = {entry.get("image_id") for entry in contents["annotations"]
                    if not entry.get("iscrowd") and is_id(entry.get("image_id"))}  # fmt: skip
    places = [
        place
        for place, image in enumerate(contents["images"])
        if not is_id(image.get("id")) or image["id"] in with_objects  # images without an id are reported later
    ]
    return places[:max_train_images]


def _complete(annotation: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    if "area" in annotation and "iscrowd" in annotation:
        return annotation
    rle = to_rle(annotation["segmentation"], image["height"], image["width"])
    return {"iscrowd": 0, "area": float(coco_mask.area(rle)), **annotation}


COCO = Layout(
    name="COCO 2017",
    task="detect",
    recognised_by="train2017, val2017, annotations/instances_{train,val}2017.json",
    find=None,
    data_set="coco",
    sources=(
        "http://images.cocodataset.org/zips/train2017.zip",
        "http://images.cocodataset.org/zips/val2017.zip",
        "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
    ),
    licence="images under the terms of use of Flickr, annotations CC BY 4.0",
    num_images=(117_266, 5_000),  # training images with objects; train2017 has 118,287 images
)
