"""Masks of COCO's objects, and checks of single images and objects in its annotation files.

pycocotools does not check its input. It reads past the end of run-length encodings that are too short, which gives
random masks, and takes minutes for polygons that extend far beyond the image.
"""

from typing import Any

from pycocotools import mask as coco_mask

_TOLERANCE_PX = 1.0  # published boxes exceed their image by hundredths of a pixel
_COMPARABLE_PX = 8  # boxes and masks of at least this height and width must agree
_PLAY_PX = 4  # tolerance on each side for smaller boxes and masks, whose differences may come from rounding
_SHARES_UP_TO = 1.01  # coordinates up to this are shares of the image size, not pixels
_SHARES = "all within 0..1, expected pixels; multiply x by the width of the image and y by its height"
_LARGEST = 1e12


def to_rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Convert polygons or a run-length encoding of either kind to pycocotools' compressed run-length encoding."""
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return segmentation


def is_id(value: Any) -> bool:
    """Whether a value is an int, the type of COCO's ids. True and 1.0 are not."""
    return type(value) is int


def wrong_image_entry(image: dict[str, Any]) -> str | None:
    """The problem of an entry in the list of images, as a message; None if it is valid."""
    if not is_id(image.get("id")):
        return f"id: found {image.get('id')!r}, expected a whole number"
    if not isinstance(image.get("file_name"), str):
        return f"file_name: found {image.get('file_name')!r}, expected a file name"
    for name in ("height", "width"):
        if type(image.get(name)) is not int or image[name] < 1:
            return f"{name}: found {image.get(name)!r}, expected a positive number of pixels"
    return None


def wrong_annotation(annotation: dict[str, Any], image: dict[str, Any], categories: set[int]) -> str | None:
    """The problem of an annotation of an image, as a message; None if it is valid."""
    category, height, width = annotation.get("category_id"), image["height"], image["width"]
    if type(category) is not int or category not in categories:
        return f"category_id: found {category!r}, expected an id in categories"
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_finite, box)):
        return f"bbox: found {box!r}, expected [x, y, width, height]"
    if box[2] <= 0 or box[3] <= 0:
        return f"bbox: found {box}, expected a width and a height above 0"
    right, bottom = box[0] + box[2], box[1] + box[3]
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, list) and max(right, bottom) <= _SHARES_UP_TO:
        return f"bbox: found {box}, {_SHARES}"
    if min(box[:2]) < -_TOLERANCE_PX or right > width + _TOLERANCE_PX or bottom > height + _TOLERANCE_PX:
        return f"bbox: found {box} outside of {width}x{height}, expected [x, y, width, height] inside the image"
    if annotation.get("iscrowd", 0) not in (0, 1):
        return f"iscrowd: found {annotation['iscrowd']!r}, expected 0 or 1"
    largest_area = (height + 2 * _TOLERANCE_PX) * (width + 2 * _TOLERANCE_PX)
    if not _is_finite(annotation.get("area", 0)) or not 0 <= annotation.get("area", 0) <= largest_area:
        return f"area: found {annotation['area']!r}, expected square pixels, at most {width}x{height}"
    if (wrong := wrong_segmentation(segmentation, height, width)) is not None:
        return f"segmentation: {wrong}"
    return _wrong_place(box, [float(v) for v in coco_mask.toBbox(to_rle(segmentation, height, width))])


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _LARGEST  # false for nan


def wrong_segmentation(segmentation: Any, height: int, width: int) -> str | None:
    """The problem of a segmentation, as a message; None if it is valid."""
    if not segmentation:
        return f"found {segmentation!r}, expected polygons or a run-length encoding"
    if isinstance(segmentation, list):
        wrong = next(filter(None, (_wrong_polygon(polygon, height, width) for polygon in segmentation)), None)
        if wrong is None and max(map(max, segmentation)) <= _SHARES_UP_TO:
            return f"found a polygon {str(segmentation[0])[:60]}, {_SHARES}"
        return wrong
    if not isinstance(segmentation, dict) or segmentation.get("size") != [height, width]:
        found = segmentation.get("size") if isinstance(segmentation, dict) else segmentation
        return f"found size {found!r}, expected [{height}, {width}]"
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        counts = _counts_of_string(counts)
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        return "counts: not a run-length encoding of COCO"
    if sum(counts) != height * width:
        return f"counts: found runs of {sum(counts)} pixels in total, expected {height * width}"
    return None


def _wrong_polygon(polygon: Any, height: int, width: int) -> str | None:
    shown = str(polygon)[:60]
    if not isinstance(polygon, list) or not all(map(_is_finite, polygon)) or len(polygon) < 6 or len(polygon) % 2:
        return f"found a polygon {shown}, expected x, y of at least three corners"
    right, bottom = max(polygon[::2]), max(polygon[1::2])
    if min(polygon) < -_TOLERANCE_PX or right > width + _TOLERANCE_PX or bottom > height + _TOLERANCE_PX:
        return f"found a polygon {shown} outside of the image of {width}x{height}"
    return None


def _counts_of_string(text: str) -> list[int] | None:
    """Decode the runs of a compressed encoding (pycocotools, maskApi.c, rleFrString); None if the text is invalid.

    A run is a signed number in groups of five bits, lowest group first. The sixth bit is set if another group follows.
    From the fourth run on, the number is the difference to the run two before.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            value -= (1 << shift) if bits & 0x10 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return None if shift else counts


def _wrong_place(box: list[float], mask_box: list[float]) -> str | None:
    """The problem of a box that does not match its mask (often two corners instead of x, y, width, height); or None."""
    if max(mask_box[2:]) == 0:  # polygons thinner than a pixel: harmless if the box is small
        if max(box[2:]) < _COMPARABLE_PX:
            return None
        return f"segmentation: covers no pixel, expected the object of bbox {box}"
    margin = 0 if min(box[2:] + mask_box[2:]) >= _COMPARABLE_PX else _PLAY_PX
    grown = [[x - margin, y - margin, width + 2 * margin, height + 2 * margin]
             for x, y, width, height in (box, mask_box)]  # fmt: skip
    if coco_mask.iou(grown[:1], grown[1:], [0])[0][0] < 0.5:
        return f"bbox: found {box}, expected {mask_box} around the segmentation; is it x, y, width, height, in pixels?"
    return None
