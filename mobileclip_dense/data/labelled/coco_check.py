"""Check of a data set in COCO's layout: every image and annotation is opened once before training."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.data.labelled.coco import (
    SPLITS,
    CocoSet,
    Split,
    considered_places,
    describe_coco,
    read_annotations,
    usable_images,
    without_crowds,
)
from mobileclip_dense.data.labelled.coco_annotations import is_id, wrong_annotation, wrong_image_entry
from mobileclip_dense.data.scan_cache import Stamp, scan_with_cache, stamp_of

_SHOWN = 10
_VERSION = 2  # of the checks of an image; a new version invalidates the cache


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An image or annotation that cannot be used: its index in the file's list, and the reason as a message."""

    kind: Literal["images", "annotations"]
    place: int
    message: str


def check_coco(config: FinetuneConfig, splits: tuple[Split, ...] = SPLITS) -> CocoSet:
    """The data set at `config.data`, after opening and checking every image and annotation of `splits`.

    Args:
        config: settings of fine-tuning.
        splits: splits to check. The others may be missing; evaluation needs ("val",) only.

    Raises:
        FileNotFoundError: a folder or file of the layout is missing.
        ValueError: an annotation file is damaged, the splits have different categories, or images or annotations cannot
            be used. The message lists the first ten by file and id. With `config.skip_bad` they are skipped and
            counted instead, unless none remain.
    """
    contents = {split: read_annotations(config.data, split) for split in splits}
    coco = describe_coco(config.data, contents, config.max_train_images)
    problems = {split: _find_problems(coco, split, contents[split]) for split in splits}
    messages = [problem.message for split in splits for problem in problems[split]]
    if messages and not config.skip_bad:
        more = [f"... and {len(messages) - _SHOWN} more"] if len(messages) > _SHOWN else []
        listed = "\n  ".join(messages[:_SHOWN] + more)
        raise ValueError(
            f"{config.data}: {len(messages)} images or annotations cannot be used; correct them, or skip "
            f"them with --skip-bad:\n  {listed}"
        )
    left_out = frozenset((split, problem.kind, problem.place) for split in splits for problem in problems[split])
    coco = replace(coco, left_out=left_out)
    usable = {split: usable_images(coco, split, contents[split]) for split in splits}
    if messages:
        _report(coco, problems)
    for split in splits:
        if not any(without_crowds(annotations) for _, annotations in usable[split]):
            raise ValueError(
                f"{coco.annotation_file(split)}: annotations: found no usable object (crowds do not count), expected "
                f"at least one in the images of {coco.image_folder(split)}"
            )
    _verify_visible(coco, config, usable.get("train", []))
    return replace(coco, num_train=len(usable.get("train", ())), num_val=len(usable.get("val", ())))


def _verify_visible(
    coco: CocoSet, config: FinetuneConfig, images: list[tuple[dict[str, Any], list[dict[str, Any]]]]
) -> None:
    """Raises ValueError if training would resize every object to less than a pixel."""
    largest_px = config.scale_range[1] * min(config.crop_size_px)  # of the short side
    sides_px = [
        min(annotation["bbox"][2:]) * largest_px / min(image["height"], image["width"])
        for image, annotations in images
        for annotation in without_crowds(annotations)
    ]
    if sides_px and max(sides_px) < 1:
        raise ValueError(
            f"{coco.annotation_file('train')}: bbox: found no object of at least one pixel after resizing the short "
            f"side of the images to {largest_px:g} pixels; are the boxes in pixels? If so, raise --crop-size-px"
        )


def _report(coco: CocoSet, problems: dict[Split, list[Problem]]) -> None:
    for split, found in problems.items():
        for kind in ("images", "annotations"):
            messages = [problem.message for problem in found if problem.kind == kind]
            if messages:
                print(f"{coco.annotation_file(split)}: skipped {len(messages)} {kind}, the first: {messages[0]}")


def _find_problems(coco: CocoSet, split: Split, contents: dict[str, Any]) -> list[Problem]:
    """The problems of the considered images of a split, and of their annotations."""
    path = coco.annotation_file(split)
    problems: list[Problem] = []
    places: dict[int, int] = {}
    for place in considered_places(contents, split, coco.max_train_images):
        image = contents["images"][place]
        if (wrong := wrong_image_entry(image)) is None and image["id"] in places:
            wrong = f"id: found {image['id']} twice, expected unique ids"
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
        else:  # of a skipped or unknown image
            wrong = None if number in known else f"image_id: found {number!r}, expected the id of an image"
        if wrong is not None:
            name = f"annotation {annotation.get('id')!r}"
            problems.append(Problem(kind="annotations", place=place, message=f"{path}: {name}: {wrong}"))
    folder = coco.image_folder(split)
    entries = [contents["images"][place] for place in places.values()]
    answers = scan_with_cache(
        entries, lambda entry: _wrong_image(folder, entry), stamps=[_stamp(folder, entry) for entry in entries],
        from_json=lambda answer: answer if isinstance(answer, str) else None, is_good=lambda answer: not answer,
        cache_key=f"{_VERSION} {folder.resolve()}", progress=f"check {folder.name}",
    )  # fmt: skip
    return problems + [
        Problem(kind="images", place=place, message=answer)
        for place, answer in zip(places.values(), answers, strict=True)
        if answer
    ]


def _stamp(folder: Path, entry: dict[str, Any]) -> Stamp | None:
    of_file = stamp_of(folder / entry["file_name"])
    return None if of_file is None else [*of_file, entry["height"], entry["width"]]


def _wrong_image(folder: Path, entry: dict[str, Any]) -> str:
    """The problem of an image file, as a message; an empty string if there is none."""
    path = folder / entry["file_name"]
    try:
        height, width = load_image(path).shape[:2]
    except (OSError, ValueError) as error:
        return str(error)
    if (height, width) != (entry["height"], entry["width"]):
        return f"{path}: size: found {height}x{width}, expected {entry['height']}x{entry['width']} as annotated"
    return ""
