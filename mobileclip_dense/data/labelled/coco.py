"""COCO as it is published: what is in it, and whether it can be trained on.

    ROOT/train2017/*.jpg   ROOT/annotations/instances_train2017.json
    ROOT/val2017/*.jpg     ROOT/annotations/instances_val2017.json

Boxes are x, y, width, height in pixels. An object's segmentation is a list of polygons, or a run-length encoding in
columns, its counts a list of numbers or pycocotools' compressed string; `iscrowd` marks groups that nobody counted.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pycocotools import mask as coco_mask

from mobileclip_dense.artifact.files import read_json
from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.data.labelled.coco_annotations import is_id, to_rle, wrong_annotation, wrong_image_entry
from mobileclip_dense.data.scan_cache import Stamp, look_once, stamp_of

Split = Literal["train", "val"]
SPLITS: tuple[Split, Split] = ("train", "val")
_SHOWN = 10
_VERSION = 2  # of what is asked of an image; another one makes what is kept void


@dataclass(frozen=True, kw_only=True)
class CocoSet:
    """A data set in COCO's layout.

    Attributes:
        root: its folder. class_names: names of the labels 1..N. category_ids: the file's ids for them, gaps and all.
        num_train: images to train on: those with objects, the first `max_train_images` of them. num_val: held out.
        left_out: what training and evaluation pass over, as (split, "images" or "annotations", place in that list of
            the split's file).
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


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with an image or an annotation: where it is in its list, and the reason in words."""

    kind: Literal["images", "annotations"]
    place: int
    message: str


def find_coco(root: Path, max_train_images: int | None = None) -> CocoSet:
    """What is in a folder of COCO's layout, by its annotation files; the images are not opened.

    Raises:
        FileNotFoundError: a folder or a file of the layout is missing.
        ValueError: an annotation file is damaged, or the splits have different categories.
    """
    return _describe(root, {split: _read_file(root, split) for split in SPLITS}, max_train_images)


def check_coco(config: FinetuneConfig, splits: tuple[Split, ...] = SPLITS) -> CocoSet:
    """Open every image and annotation once, before anything is trained on them, or measured.

    Args:
        splits: what is needed; to measure, ("val",): the rest need not be there.

    Raises:
        FileNotFoundError: see `find_coco`.
        ValueError: see `find_coco`; or some cannot be used: the first ten by file and id, with what was expected.
            With --skip-bad those are left out and counted instead, if anything is left.
    """
    contents = {split: _read_file(config.data, split) for split in splits}
    coco = _describe(config.data, contents, config.max_train_images)
    problems = {split: _find_problems(coco, split, contents[split]) for split in splits}
    messages = [problem.message for split in splits for problem in problems[split]]
    if messages and not config.skip_bad:
        more = [f"... and {len(messages) - _SHOWN} more"] if len(messages) > _SHOWN else []
        listed = "\n  ".join(messages[:_SHOWN] + more)
        raise ValueError(f"{config.data}: {len(messages)} images or annotations cannot be used; correct them, or leave "
                         f"them out with --skip-bad:\n  {listed}")  # fmt: skip
    left_out = frozenset((split, problem.kind, problem.place) for split in splits for problem in problems[split])
    coco = replace(coco, left_out=left_out)
    usable = {split: usable_images(coco, split, contents[split]) for split in splits}
    if messages:
        _report(coco, problems)
    for split in splits:
        if not any(_objects(annotations) for _, annotations in usable[split]):
            raise ValueError(f"{coco.annotation_file(split)}: annotations: found no object that can be used (crowds do "
                             f"not count), expected some in {coco.image_folder(split)}")  # fmt: skip
    _verify_visible(coco, config, usable.get("train", []))
    return replace(coco, num_train=len(usable.get("train", ())), num_val=len(usable.get("val", ())))


def read_images(coco: CocoSet, split: Split) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The images of a split to train on or to measure on, each with its annotations, crowds among them.

    `iscrowd` and `area` (that of the mask) are filled in where the file has none.
    """
    return usable_images(coco, split, _read_file(coco.root, split))


def usable_images(
    coco: CocoSet, split: Split, contents: dict[str, Any]
) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """`read_images` of a file that is read already."""
    annotations: dict[Any, list[dict[str, Any]]] = {}
    for place, annotation in enumerate(contents["annotations"]):
        if (split, "annotations", place) not in coco.left_out:
            annotations.setdefault(annotation["image_id"], []).append(annotation)
    images = []
    for place in _considered(contents, split, coco.max_train_images):
        if (split, "images", place) in coco.left_out:
            continue
        image = contents["images"][place]
        complete = [_complete(annotation, image) for annotation in annotations.get(image["id"], ())]
        if split == "val" or _objects(complete):
            images.append((image, complete))
    return images


def _objects(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [annotation for annotation in annotations if not annotation["iscrowd"]]


def _verify_visible(
    coco: CocoSet, config: FinetuneConfig, images: list[tuple[dict[str, Any], list[dict[str, Any]]]]
) -> None:
    """Raises ValueError where training would resize every object to less than a pixel, and so learn nothing."""
    largest_px = config.scale_range[1] * min(config.crop_size_px)  # of the short side
    sides_px = [
        min(annotation["bbox"][2:]) * largest_px / min(image["height"], image["width"])
        for image, annotations in images
        for annotation in _objects(annotations)
    ]
    if sides_px and max(sides_px) < 1:
        raise ValueError(f"{coco.annotation_file('train')}: bbox: found no object of at least one pixel when the short "
                         f"side of its image has {largest_px:g}, to which it is resized; are the boxes in pixels? "
                         "If so, raise --crop-size-px")  # fmt: skip


def _annotation_file(root: Path, split: Split) -> Path:
    return root / "annotations" / f"instances_{split}2017.json"


def _read_file(root: Path, split: Split) -> dict[str, Any]:
    """An annotation file whose three lists hold objects."""
    path = _annotation_file(root, split)
    for folder in (root, root / f"{split}2017"):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; expected train2017/, val2017/ and annotations/ of COCO "
                                    "inside --data")  # fmt: skip
    contents = read_json(path)
    for name in ("images", "annotations", "categories"):
        entries = contents.get(name)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(f"{path}: {name}: found {type(entries).__name__}, expected a list of objects; these are "
                             "not COCO's instances")  # fmt: skip
    return contents


def _describe(root: Path, contents: dict[Split, dict[str, Any]], max_train_images: int | None) -> CocoSet:
    found = {split: _categories(_annotation_file(root, split), contents[split]) for split in contents}
    first, *others = found
    categories = found[first]
    for split in others:
        if found[split] != categories:
            raise ValueError(f"{_annotation_file(root, split)}: categories: found others than in "
                             f"{_annotation_file(root, first).name} (such as "
                             f"{sorted(categories.items() ^ found[split].items())[:3]}), expected "
                             "the same")  # fmt: skip
    num_images = {split: len(_considered(contents[split], split, max_train_images)) for split in contents}
    return CocoSet(
        root=root, class_names=tuple(categories.values()), category_ids=tuple(categories),
        max_train_images=max_train_images, num_train=num_images.get("train", 0), num_val=num_images.get("val", 0),
    )  # fmt: skip


def _categories(path: Path, contents: dict[str, Any]) -> dict[int, str]:
    """Names by id, in the order of the ids."""
    names: dict[int, str] = {}
    for entry in contents["categories"]:
        number, name = entry.get("id"), entry.get("name")
        if type(number) is not int or not isinstance(name, str) or number in names:
            raise ValueError(f"{path}: categories: found {entry}, expected an id of its own and a name")
        names[number] = name
    if not names:
        raise ValueError(f"{path}: categories: found none, expected at least one")
    return dict(sorted(names.items()))


def _considered(contents: dict[str, Any], split: Split, max_train_images: int | None) -> list[int]:
    """Places of the images that a split is made of: to train on only those with objects, and the first so many."""
    if split == "val":
        return list(range(len(contents["images"])))
    with_objects = {entry.get("image_id") for entry in contents["annotations"]
                    if not entry.get("iscrowd") and is_id(entry.get("image_id"))}  # fmt: skip
    places = [
        place
        for place, image in enumerate(contents["images"])
        if not is_id(image.get("id")) or image["id"] in with_objects  # what has no id is a problem, not empty
    ]
    return places[:max_train_images]


def _complete(annotation: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    if "area" in annotation and "iscrowd" in annotation:
        return annotation
    rle = to_rle(annotation["segmentation"], image["height"], image["width"])
    return {"iscrowd": 0, "area": float(coco_mask.area(rle)), **annotation}


def _report(coco: CocoSet, problems: dict[Split, list[Problem]]) -> None:
    for split, found in problems.items():
        for kind in ("images", "annotations"):
            messages = [problem.message for problem in found if problem.kind == kind]
            if messages:
                print(f"{coco.annotation_file(split)}: left out {len(messages)} {kind}, the first: {messages[0]}")


def _find_problems(coco: CocoSet, split: Split, contents: dict[str, Any]) -> list[Problem]:
    """Everything wrong with the images of a split that count, and with their annotations."""
    path = coco.annotation_file(split)
    problems: list[Problem] = []
    places: dict[int, int] = {}
    for place in _considered(contents, split, coco.max_train_images):
        image = contents["images"][place]
        if (wrong := wrong_image_entry(image)) is None and image["id"] in places:
            wrong = f"id: found {image['id']} twice, expected an id of its own"
        if wrong is None:
            places[image["id"]] = place
        else:
            problems.append(Problem(kind="images", place=place, message=f"{path}: images[{place}]: {wrong}"))
    known = {image.get("id") for image in contents["images"] if is_id(image.get("id"))}
    categories = set(coco.category_ids)
    for place, annotation in enumerate(contents["annotations"]):
        number = annotation.get("image_id")
        image_place = places.get(number) if is_id(number) else None
        if image_place is not None:
            wrong = wrong_annotation(annotation, contents["images"][image_place], categories)
        else:  # of an image that is left out, or of none
            wrong = None if number in known else f"image_id: found {number!r}, which is not among the images"
        if wrong is not None:
            name = f"annotation {annotation.get('id')!r}"
            problems.append(Problem(kind="annotations", place=place, message=f"{path}: {name}: {wrong}"))
    folder = coco.image_folder(split)
    entries = [contents["images"][place] for place in places.values()]
    answers = look_once(
        entries, lambda entry: _wrong_image(folder, entry), stamps=[_stamp(folder, entry) for entry in entries],
        recall=lambda answer: answer if isinstance(answer, str) else None, is_good=lambda answer: not answer,
        question=f"{_VERSION} {folder.resolve()}", progress=f"check {folder.name}",
    )  # fmt: skip
    return problems + [
        Problem(kind="images", place=place, message=answer)
        for place, answer in zip(places.values(), answers, strict=True) if answer
    ]  # fmt: skip


def _stamp(folder: Path, entry: dict[str, Any]) -> Stamp | None:
    of_file = stamp_of(folder / entry["file_name"])
    return None if of_file is None else [*of_file, entry["height"], entry["width"]]


def _wrong_image(folder: Path, entry: dict[str, Any]) -> str:
    """What is wrong with an image in words; nothing: an empty string."""
    path = folder / entry["file_name"]
    try:
        height, width = load_image(path).shape[:2]
    except (OSError, ValueError) as error:
        return str(error)
    if (height, width) != (entry["height"], entry["width"]):
        return f"{path}: size: found {height}x{width}, expected {entry['height']}x{entry['width']} as annotated"
    return ""
