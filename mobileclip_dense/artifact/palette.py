"""Colours of class maps and depth maps, shared by training, reports and demos."""

import colorsys

import numpy as np
import numpy.typing as npt
from PIL import Image

IGNORE_INDEX = 255

# Anchors of the Turbo colour map (Mikhailov 2019, public), from red (near) to blue (far).
TURBO = np.array(
    [
        [122, 4, 3], [180, 25, 2], [221, 61, 8], [245, 105, 24], [254, 155, 45], [240, 199, 58], [205, 236, 52],
        [164, 252, 60], [109, 254, 98], [50, 242, 152], [24, 214, 203], [41, 171, 243], [70, 125, 245],
        [70, 80, 190], [48, 18, 59],
    ],
    np.float32,
)  # fmt: skip
_NUM_SHADES = 1024  # finer than visible; a table is several times faster than interpolating every pixel
_ANCHORS = np.linspace(0, _NUM_SHADES - 1, len(TURBO))
_SHADES = np.zeros((_NUM_SHADES + 1, 3), np.uint8)  # the last is black, for no measurement
for _channel in range(3):
    _SHADES[:-1, _channel] = np.rint(np.interp(np.arange(_NUM_SHADES), _ANCHORS, TURBO[:, _channel]))


def class_palette(num_classes: int) -> list[tuple[int, int, int]]:
    """Distinct RGB colours by class index. They do not depend on the number of classes.

    Hues advance by the golden ratio, so that consecutive indices differ clearly; lightness cycles through three levels.
    """
    colours = []
    for index in range(num_classes):
        hue = (0.08 + index * 0.61803398875) % 1.0
        lightness = (0.52, 0.68, 0.38)[index % 3]
        red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.62)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return colours


def colour_classes(class_map: npt.NDArray[np.integer], palette: list[tuple[int, int, int]]) -> npt.NDArray[np.uint8]:
    """Class indices [H,W] -> colours uint8 [H,W,3]. Indices outside the palette (such as 255) are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    return np.take(table, class_map, axis=0)


def overlay_classes(
    image: npt.NDArray[np.uint8], class_map: npt.NDArray[np.integer], palette: list[tuple[int, int, int]]
) -> npt.NDArray[np.uint8]:
    """Blend an image uint8 [H,W,3] with the colours of its class map [H,W]. Ignored pixels show the image."""
    colour = Image.fromarray(colour_classes(class_map, palette))
    mixed = np.asarray(Image.blend(Image.fromarray(image), colour, 0.55))
    unknown = (class_map >= len(palette))[..., None]
    return np.where(unknown, image, mixed) if unknown.any() else mixed


def colour_depth(depth_m: npt.NDArray[np.floating], near_m: float, far_m: float) -> npt.NDArray[np.uint8]:
    """Depth in metres [H,W] -> colours uint8 [H,W,3], red (near) to dark blue (far). 0 (no measurement) is black."""
    position = np.clip((depth_m - near_m) / max(far_m - near_m, 1e-6), 0, 1) * (_NUM_SHADES - 1)
    shade = np.where(depth_m > 0, np.rint(position).astype(np.int16), _NUM_SHADES)
    return np.take(_SHADES, shade, axis=0)
