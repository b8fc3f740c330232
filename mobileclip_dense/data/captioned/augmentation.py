"""DataCompDR's image augmentation: sampled once, stored with the teacher's embedding of the result, replayed exactly.

A stored augmentation is one entry of `paug.json`: `[[top, left, height, width], [[operation, magnitude], ...]]`. These
are the parameters of torchvision's RandomResizedCrop, in pixels of the original image, and of RandAugment, with final,
signed magnitudes (MobileCLIP, arXiv 2311.17049, section 3.1). The settings are those published with DataCompDR:
bicubic, 224 px, two operations of magnitude 9 out of 31, nearest neighbour, black outside. Replay crops, resizes and
applies the operations on uint8 with Pillow's results.
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

# The index of a name is the number that DataCompDR stores for the operation.
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
    """A crop and the operations that follow it.

    Attributes:
        crop: top, left, height, width in pixels of the original image.
        operations: name (from OPERATIONS) and final signed magnitude of each operation, in the order of application.
            The magnitude is None for operations without one.
    """

    crop: tuple[int, int, int, int]
    operations: tuple[Operation, ...]


def from_param_aug(entry: Any) -> Augmentation:
    """Parse one entry of `param_aug`.

    Operations are numbers (as published) or names. Operations that are null are ignored; the list may be missing.

    Raises:
        ValueError: the entry has another form.
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
    """The entries of `param_aug`: a list or, as in published shards, a list as a JSON string.

    Raises:
        ValueError: the value is no list, or is empty.
    """
    try:
        entries = json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError as error:
        raise ValueError(f"param_aug: found {_excerpt(value)}, expected a JSON list ({error})") from None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"param_aug: found {_excerpt(entries)}, expected a list of augmentations")
    return entries


def to_param_aug(augmentation: Augmentation) -> list[Any]:
    """An augmentation as an entry of `param_aug`: operations as numbers, 0.0 for a magnitude of None."""
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
    """Sample an augmentation from DataCompDR's distribution: area 0.08..1 of the image, aspect ratio 3/4..4/3, two
    operations.

    Args:
        height_px, width_px: size of the original image.
        rng: the only source of randomness.
        teacher_size_px: height and width of the teacher's input. Translations are stored in pixels of it.
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
    """Sample top, left, height, width as torchvision's RandomResizedCrop: ten tries, then the largest central crop.

    Args:
        scale: range of the crop's share of the image area.
        ratio: range of width / height.
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
    """Crop, resize and augment an image with exactly the result of the published transform on Pillow images.

    Translations are applied in the stored number of pixels even if `size_px` is not the teacher's size, as in the
    published training.

    Args:
        image: the original image, uint8 [H,W,3].
        size_px: height and width of the result (the teacher's input: 224).

    Returns:
        uint8 [size_px,size_px,3].

    Raises:
        ValueError: the crop exceeds the image, so the augmentation belongs to another image.
    """
    pixels = crop_and_resize(image, augmentation.crop, size_px)
    for name, magnitude in augmentation.operations:
        pixels = _APPLY[name](pixels, 0.0 if magnitude is None else magnitude)
    return pixels


def crop_and_resize(image: Pixels, crop: tuple[int, int, int, int], size_px: int) -> Pixels:
    """Crop uint8 [H,W,3] to (top, left, height, width) and resize to uint8 [size_px,size_px,3], antialiased bicubic.

    Raises:
        ValueError: the crop exceeds the image.
    """
    top, left, height, width = crop
    if top + height > image.shape[0] or left + width > image.shape[1]:
        raise ValueError(
            f"crop: found rows {top} to {top + height} and columns {left} to {left + width}, expected within "
            f"{image.shape[0]}x{image.shape[1]}; the crop belongs to an image of another size"
        )
    return resize_bicubic(np.ascontiguousarray(image[top : top + height, left : left + width]), size_px)


def _affine(image: Pixels, matrix: tuple[float, float, float, float, float, float]) -> Pixels:
    """Warp with the inverse matrix (output to input): nearest neighbour, black outside."""
    height, width = image.shape[:2]
    return np.asarray(Image.fromarray(image).transform((width, height), Image.Transform.AFFINE, matrix))


def _shear_x(image: Pixels, magnitude: float) -> Pixels:
    return _affine(image, (1, math.tan(math.atan(magnitude)), 0, 0, 1, 0))  # around the top left corner


def _shear_y(image: Pixels, magnitude: float) -> Pixels:
    return _affine(image, (1, 0, 0, math.tan(math.atan(magnitude)), 1, 0))


def _translate_x(image: Pixels, magnitude: float) -> Pixels:
    return _affine(image, (1, 0, -int(magnitude), 0, 1, 0))


def _translate_y(image: Pixels, magnitude: float) -> Pixels:
    return _affine(image, (1, 0, 0, 0, 1, -int(magnitude)))


def _rotate(image: Pixels, magnitude: float) -> Pixels:
    return np.asarray(Image.fromarray(image).rotate(magnitude))


def _look_up(image: Pixels, table: npt.NDArray[Any]) -> Pixels:
    """Map levels through a table: [256] for all channels, or [256,3]."""
    looked_up: Pixels = cv2.LUT(image, table.astype(np.uint8).reshape(256, 1, -1))  # type: ignore[assignment]
    return looked_up


def _blend_levels(background: float, factor: float) -> npt.NDArray[np.float32]:
    """Pillow's blend of all levels with a constant, in float32 as in Pillow. The conversion to uint8 truncates."""
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
    """Blend with Pillow's SMOOTH filter: 3x3 mean with weight five in the centre; border pixels stay unchanged."""
    total = cv2.boxFilter(image, cv2.CV_16U, (3, 3), normalize=False) + np.uint16(4) * image
    smooth = image.copy()
    smooth[1:-1, 1:-1] = ((total + np.uint16(6)) // np.uint16(13))[1:-1, 1:-1]  # + 6: rounds to nearest
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
