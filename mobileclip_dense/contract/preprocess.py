"""What happens to an image before a model sees it: one definition for training, export and the demos."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_ORIENTATION = 0x0112  # the tag of EXIF 2.32, 4.6.4
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """(pixel / 255 - mean) / std, per RGB channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def load_image(path: Path, *, shades: bool = False) -> npt.NDArray[np.uint8]:
    """Read an image as uint8 [H,W,3] RGB, EXIF orientation applied.

    Args:
        shades: take 8-bit grayscale, too, as three equal channels: ADE20K and COCO have a few such photographs.

    Raises:
        ValueError: the file is no image, is truncated, is beyond Pillow's limit of pixels, or is not 8-bit RGB (the
            message names the file, the mode found and what to do). Grayscale, alpha, palette and 16-bit images are
            refused and not converted in silence: a model trained on one kind gives quietly wrong results on another.
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: image: no such file")
    try:
        with Image.open(path) as image:
            image.load()
            # ImageOps.exif_transpose also writes the other tags anew, and fails for a camera that wrote one wrongly.
            turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
            mode, upright = image.mode, image if turn is None else image.transpose(turn)
            if shades and mode == "L":
                mode, upright = "RGB", upright.convert("RGB")
    except Image.DecompressionBombError:
        raise ValueError(f"{path}: image: found more pixels than {2 * (Image.MAX_IMAGE_PIXELS or 0):,}, which is taken "
                         f"for an attack; scale it down first") from None  # fmt: skip
    except UnidentifiedImageError:
        raise ValueError(f"{path}: image: not an image file; expected one of {', '.join(IMAGE_SUFFIXES)}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: image: cannot be decoded ({error}); the file is truncated or damaged") from None
    if mode != "RGB":
        raise ValueError(
            f"{path}: image mode: found {mode!r}, expected 'RGB' with 8 bits per channel; "
            f"convert it first, e.g. `convert {path.name} -depth 8 -type TrueColor rgb-{path.stem}.png`"
        )
    return np.asarray(upright)


def resize_image(image: npt.NDArray[np.uint8], height_px: int, width_px: int) -> npt.NDArray[np.uint8]:
    """Bilinear, antialiased resize of uint8 [H,W,3] to uint8 [height_px,width_px,3]."""
    if image.shape[:2] == (height_px, width_px):
        return image
    return np.asarray(Image.fromarray(image).resize((width_px, height_px), Image.Resampling.BILINEAR))


def crop_image(image: npt.NDArray[np.uint8], height_px: int, width_px: int) -> npt.NDArray[np.uint8]:
    """Resize until the frame is just filled (bilinear, antialiased), then cut its centre out: what CLIP's towers take.

    uint8 [H,W,3] -> uint8 [height_px,width_px,3]; for a square, bit for bit what torchvision's Resize and CenterCrop
    give: the longer side is rounded down, the margin to the nearest, halves to the even one.
    """
    height, width = image.shape[:2]
    if height_px * width >= width_px * height:
        resized = resize_image(image, height_px, max(width_px, int(height_px * width / height)))
    else:
        resized = resize_image(image, max(height_px, int(width_px * height / width)), width_px)
    top, left = round((resized.shape[0] - height_px) / 2), round((resized.shape[1] - width_px) / 2)
    return resized[top : top + height_px, left : left + width_px]


def unit_planes(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """uint8 [B,H,W,3] RGB -> float32 [B,3,H,W] in 0..1: what models of float pixels take."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
