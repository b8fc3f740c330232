"""What happens to an image before a model sees it: one definition for training, export and the demos."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """(pixel / 255 - mean) / std, per RGB channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def resize_image(image: npt.NDArray[np.uint8], height_px: int, width_px: int) -> npt.NDArray[np.uint8]:
    """Bilinear, antialiased resize of uint8 [H,W,3] to uint8 [height_px,width_px,3]."""
    if image.shape[:2] == (height_px, width_px):
        return image
    return np.asarray(Image.fromarray(image).resize((width_px, height_px), Image.Resampling.BILINEAR))


def cut_ends(image: npt.NDArray[np.uint8], height_px: int, width_px: int) -> npt.NDArray[np.uint8]:
    """uint8 [H,W,3] without the ends of a side that is longer than 16 times what the frame needs.

    A line of 65000x1 pixels would else be resized to 16.6 million columns, of which a frame of 256 shows 256.
    """
    height, width = image.shape[:2]
    most_height, most_width = 16 * -(-height_px * width // width_px), 16 * -(-width_px * height // height_px)
    top, left = max(0, height - most_height) // 2, max(0, width - most_width) // 2
    return image[top : top + most_height, left : left + most_width]


def crop_image(image: npt.NDArray[np.uint8], height_px: int, width_px: int) -> npt.NDArray[np.uint8]:
    """Resize until the frame is just filled (bilinear, antialiased), then cut its centre out: what CLIP's towers take.

    uint8 [H,W,3] -> uint8 [height_px,width_px,3]; for a square, bit for bit what torchvision's Resize and CenterCrop
    give: the longer side is rounded down, the margin to the nearest, halves to the even one.
    """
    image = cut_ends(image, height_px, width_px)
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
