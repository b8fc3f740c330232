"""DataCompDR's image augmentation: drawn once, stored beside the teacher's embedding of the result, replayed exactly.

A stored augmentation is one entry of `paug.json`: `[[top, left, height, width], [[operation, magnitude], ...]]`, the
parameters of torchvision's RandomResizedCrop (of the original image, never a resized one) and RandAugment with final,
signed magnitudes (MobileCLIP, arXiv 2311.17049, section 3.1; the settings are those published with DataCompDR:
bicubic, 224 px, two operations of magnitude 9 out of 31, nearest neighbour, black outside). Replay is crop, resize,
operations, all on uint8 as Pillow does them.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from mobileclip_dense.data.captioned.resize import Pixels, resize_bicubic

# The place of a name is the number under which DataCompDR stores the operation.
OPERATIONS = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
    "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip
_WITHOUT_MAGNITUDE = ("Identity", "AutoContrast", "Equalize")
_TEACHER_SIZE_PX = 224
_NUM_OPERATIONS = 2
_STRENGTH = 9 / 30  # magnitude 9 of 31 levels
_LEVELS = np.arange(256, dtype=np.float32)

Operation = tuple[str, float | None]


@dataclass(frozen=True)
class Augmentation:
    """One random crop and its operations.

    Attributes:
        crop: top, left, height, width in pixels of the original image.
        operations: name (of OPERATIONS) and final signed magnitude, in the order in which they are applied; None for
            operations without one.
    """

    crop: tuple[int, int, int, int]
    operations: tuple[Operation, ...]


def from_param_aug(entry: Any) -> Augmentation:
    """Read one entry of `param_aug`. Operations are numbers (as published) or names; null or absent ones are none.

    Raises:
        ValueError: the entry is something else; the message shows what was found.
    """
    if not isinstance(entry, list | tuple) or not 1 <= len(entry) <= 2:
        raise ValueError(f"param_aug: found {_excerpt(entry)}, expected [[top, left, height, width], [[op, mag], ...]]")
    crop = entry[0]
    is_crop = isinstance(crop, list | tuple) and len(crop) == 4 and all(_is_whole(value) for value in crop)
    if not is_crop or min(crop[:2]) < 0 or min(crop[2:]) < 1:
        raise ValueError(f"param_aug: crop: found {_excerpt(crop)}, expected [top, left, height, width] in pixels")
    operations = entry[1] if len(entry) == 2 and entry[1] is not None else []
    if not isinstance(operations, list | tuple):
        raise ValueError(f"param_aug: operations: found {_excerpt(operations)}, expected [[op, mag], ...]")
    top, left, height, width = (int(value) for value in crop)
    return Augmentation((top, left, height, width), tuple(_operation(item) for item in operations if item is not None))


def read_param_aug(value: Any) -> list[Any]:
    """The entries of `param_aug`, which is a list or, in published shards, a JSON string of one.

    Raises:
        ValueError: it is something else or empty.
    """
    try:
        entries = json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError as error:
        raise ValueError(f"param_aug: found {_excerpt(value)}, expected a JSON list ({error})") from None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"param_aug: found {_excerpt(entries)}, expected a list of augmentations")
    return entries


def to_param_aug(augmentation: Augmentation) -> list[Any]:
    """The inverse of `from_param_aug`, with operations as numbers and 0.0 where there is no magnitude."""
    operations = [[OPERATIONS.index(name), magnitude or 0.0] for name, magnitude in augmentation.operations]
    return [list(augmentation.crop), operations]


def _operation(item: Any) -> Operation:
    name: Any
    magnitude: Any
    if not isinstance(item, list | tuple) or not 1 <= len(item) <= 2:
        raise ValueError(f"param_aug: operation: found {_excerpt(item)}, expected [op, mag]")
    name, magnitude = item[0], item[1] if len(item) == 2 else None
    if _is_whole(name) and 0 <= name < len(OPERATIONS):
        name = OPERATIONS[int(name)]
    if name not in OPERATIONS:
        raise ValueError(f"param_aug: operation: found {_excerpt(name)}, expected 0 to {len(OPERATIONS) - 1} or one of "
                         f"{', '.join(OPERATIONS)}")  # fmt: skip
    if name in _WITHOUT_MAGNITUDE:
        return name, None
    low, high = (1, 9) if name == "Posterize" else (-math.inf, math.inf)
    is_number = isinstance(magnitude, int | float) and not isinstance(magnitude, bool)
    if not is_number or not math.isfinite(magnitude) or not low <= magnitude < high:
        expected = "1 to 8 bits" if name == "Posterize" else "a finite number"
        raise ValueError(f"param_aug: {name}: magnitude: found {_excerpt(magnitude)}, expected {expected}")
    return name, float(magnitude)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1


def _excerpt(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def sample_augmentation(
    height_px: int, width_px: int, rng: np.random.Generator, *, teacher_size_px: int = _TEACHER_SIZE_PX
) -> Augmentation:
    """Draw an augmentation as DataCompDR's were: area 0.08..1 of the image, aspect ratio 3/4..4/3, two operations.

    Args:
        height_px, width_px: of the original image. rng: the only source of randomness.
        teacher_size_px: side of the teacher's input: translations are stored in its pixels.
    """
    crop = sample_crop(height_px, width_px, rng, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    magnitudes = {
        **dict.fromkeys(("ShearX", "ShearY"), 0.3 * _STRENGTH),
        **dict.fromkeys(("TranslateX", "TranslateY"), 150 / 331 * teacher_size_px * _STRENGTH),
        "Rotate": 30 * _STRENGTH,
        **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), 0.9 * _STRENGTH),
    }
    unsigned = {"Posterize": 8.0 - round(4 * _STRENGTH), "Solarize": 255 * (1 - _STRENGTH)}
    operations: list[Operation] = []
    for number, sign in rng.integers((len(OPERATIONS), 2), size=(_NUM_OPERATIONS, 2)):
        name = OPERATIONS[number]
        signed = magnitudes[name] * (-1.0 if sign else 1.0) if name in magnitudes else None
        operations.append((name, unsigned.get(name, signed)))
    return Augmentation(crop, tuple(operations))


def sample_crop(
    height_px: int, width_px: int, rng: np.random.Generator, *, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Top, left, height, width of torchvision's RandomResizedCrop: ten tries, then the largest central crop.

    Args:
        scale: least and greatest share of the area. ratio: least and greatest width / height.
    """
    shares = rng.uniform(*scale, size=10)
    ratios = np.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1]), size=10))
    for share, aspect in zip(shares, ratios, strict=True):
        area = height_px * width_px * share
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= width_px and 0 < height <= height_px:
            top, left = rng.integers((height_px - height + 1, width_px - width + 1))
            return int(top), int(left), height, width
    width = min(width_px, max(1, round(height_px * ratio[1])))
    height = min(height_px, max(1, round(width_px / ratio[0])))
    return (height_px - height) // 2, (width_px - width) // 2, height, width


def replay(image: Pixels, augmentation: Augmentation, size_px: int) -> Pixels:
    """Crop, resize and augment exactly as the published transform does on Pillow images.

    Translations stay as stored, in pixels, also at another size than the teacher's: as in the published training.

    Args:
        image: uint8 [H,W,3], the original image. size_px: side of the result; the teacher's was 224.

    Returns:
        uint8 [size_px,size_px,3].

    Raises:
        ValueError: the crop does not lie within the image: it is not the one that was augmented.
    """
    pixels = crop_and_resize(image, augmentation.crop, size_px)
    for name, magnitude in augmentation.operations:
        pixels = _APPLY[name](pixels, 0.0 if magnitude is None else magnitude)
    return pixels


def crop_and_resize(image: Pixels, crop: tuple[int, int, int, int], size_px: int) -> Pixels:
    """The crop (top, left, height, width) of uint8 [H,W,3], resized to uint8 [size_px,size_px,3]: antialiased bicubic.

    Raises:
        ValueError: the crop does not lie within the image.
    """
    top, left, height, width = crop
    if top + height > image.shape[0] or left + width > image.shape[1]:
        raise ValueError(
            f"crop: found rows {top} to {top + height} and columns {left} to {left + width}, expected within "
            f"{image.shape[0]}x{image.shape[1]}; it was drawn for an image of another size"
        )
    return resize_bicubic(np.ascontiguousarray(image[top : top + height, left : left + width]), size_px)


def _affine(image: Pixels, matrix: tuple[float, float, float, float, float, float]) -> Pixels:
    """Nearest neighbour through the inverse matrix (output to input), black outside."""
    height, width = image.shape[:2]
    return np.asarray(Image.fromarray(image).transform((width, height), Image.Transform.AFFINE, matrix))


def _shear_x(image: Pixels, magnitude: float) -> Pixels:
    return _affine(image, (1, math.tan(math.atan(magnitude)), 0, 0, 1, 0))  # about the top left corner


def _shear_y(image: Pixels, magnitude: float) -> Pixels:
    return _affine(image, (1, 0, 0, math.tan(math.atan(magnitude)), 1, 0))


def _translate_x(image: Pixels, magnitude: float) -> Pixels:
    return _affine(image, (1, 0, -int(magnitude), 0, 1, 0))


def _translate_y(image: Pixels, magnitude: float) -> Pixels:
    return _affine(image, (1, 0, 0, 0, 1, -int(magnitude)))


def _rotate(image: Pixels, magnitude: float) -> Pixels:
    return np.asarray(Image.fromarray(image).rotate(magnitude))


def _look_up(image: Pixels, table: npt.NDArray[Any]) -> Pixels:
    """Replace every level by the table's: [256], or one for each channel [256,3]."""
    looked_up: Pixels = cv2.LUT(image, table.astype(np.uint8).reshape(256, 1, -1))  # type: ignore[assignment]
    return looked_up


def _blend_levels(background: float, factor: float) -> npt.NDArray[np.float32]:
    """Pillow's blend of every level with a constant, in its float32 arithmetic; truncated when it becomes uint8."""
    return np.clip(np.float32(background) + np.float32(factor) * (_LEVELS - np.float32(background)), 0, 255)


def _brightness(image: Pixels, magnitude: float) -> Pixels:
    return _look_up(image, _blend_levels(0, 1 + magnitude))


def _contrast(image: Pixels, magnitude: float) -> Pixels:
    grey = np.asarray(Image.fromarray(image).convert("L"))
    return _look_up(image, _blend_levels(int(grey.sum() / grey.size + 0.5), 1 + magnitude))


def _color(image: Pixels, magnitude: float) -> Pixels:
    colours = Image.fromarray(image)
    return np.asarray(Image.blend(colours.convert("L").convert("RGB"), colours, 1 + magnitude))


def _sharpness(image: Pixels, magnitude: float) -> Pixels:
    """Blend with Pillow's SMOOTH: the 3x3 neighbourhood with the pixel itself counted five times, edges kept."""
    total = cv2.boxFilter(image, cv2.CV_16U, (3, 3), normalize=False) + np.uint16(4) * image
    smooth = image.copy()
    smooth[1:-1, 1:-1] = ((total + np.uint16(6)) // np.uint16(13))[1:-1, 1:-1]  # rounds: thirteenths are never halves
    return np.asarray(Image.blend(Image.fromarray(smooth), Image.fromarray(image), 1 + magnitude))


def _posterize(image: Pixels, magnitude: float) -> Pixels:
    return _look_up(image, np.arange(256) & ~(2 ** (8 - int(magnitude)) - 1))


def _solarize(image: Pixels, magnitude: float) -> Pixels:
    return _look_up(image, np.where(magnitude > _LEVELS, _LEVELS, 255 - _LEVELS))


def _auto_contrast(image: Pixels, magnitude: float) -> Pixels:
    tables = []
    extrema: Any = Image.fromarray(image).getextrema()
    for low, high in extrema:
        scale = 255.0 / (high - low) if high > low else 1.0
        offset = -low * scale if high > low else 0.0
        tables.append(np.clip(np.arange(256) * scale + offset, 0, 255))
    return _look_up(image, np.stack(tables, axis=1))


def _equalize(image: Pixels, magnitude: float) -> Pixels:
    tables = []
    for counts in np.array(Image.fromarray(image).histogram()).reshape(3, 256):
        step = int(counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        before = np.cumsum(counts) - counts  # pixels darker than each level
        tables.append((step // 2 + before) // step if step else np.arange(256))
    return _look_up(image, np.minimum(np.stack(tables, axis=1), 255))


_APPLY: dict[str, Callable[[Pixels, float], Pixels]] = {
    "Identity": lambda image, _: image,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": _rotate,
    "Brightness": _brightness,
    "Color": _color,
    "Contrast": _contrast,
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
}
