"""Image preprocessing, shared by training, export and the demos."""

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
    """Resize uint8 [H,W,3] to uint8 [height_px,width_px,3]: bilinear, antialiased."""
    if image.shape[:2] == (height_px, width_px):
        return image
    return np.asarray(Image.fromarray(image).resize((width_px, height_px), Image.Resampling.BILINEAR))


def cut_ends(image: npt.NDArray[np.uint8], height_px: int, width_px: int) -> npt.NDArray[np.uint8]:
    """Crop uint8 [H,W,3] centrally if a side is more than 16 times as long as needed for the frame.

    Otherwise an image of 65000x1 pixels would be resized to 16.6 million columns, of which a frame of 256 shows 256.
    """
    height, width = image.shape[:2]
    most_height, most_width = 16 * -(-height_px * width // width_px), 16 * -(-width_px * height // height_px)
    top, left = max(0, height - most_height) // 2, max(0, width - most_width) // 2
    return image[top : top + most_height, left : left + most_width]


def crop_image(image: npt.NDArray[np.uint8], height_px: int, width_px: int) -> npt.NDArray[np.uint8]:
    """Resize to the smallest size that covers the frame (bilinear, antialiased), then centre crop, as CLIP expects.

    uint8 [H,W,3] -> uint8 [height_px,width_px,3]. For a square frame, the result is identical to torchvision's Resize
    and CenterCrop: the longer side is rounded down, the margin to nearest, ties to even.
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
    """RGB uint8 [B,H,W,3] -> float32 [B,3,H,W] in 0..1, the input of models with float pixels."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
