"""Colours for class maps and depth maps, shared by training, reports and demos."""

import colorsys

import numpy as np
import numpy.typing as npt

IGNORE_INDEX = 255

# Anchors of Turbo (Mikhailov 2019, public), near to far from red to blue.
TURBO = np.array(
    [
        [122, 4, 3], [180, 25, 2], [221, 61, 8], [245, 105, 24], [254, 155, 45], [240, 199, 58], [205, 236, 52],
        [164, 252, 60], [109, 254, 98], [50, 242, 152], [24, 214, 203], [41, 171, 243], [70, 125, 245],
        [70, 80, 190], [48, 18, 59],
    ],
    np.float32,
)  # fmt: skip


def class_palette(num_classes: int) -> list[tuple[int, int, int]]:
    """Distinct RGB colours, the same for the same class index whatever the number of classes.

    Hues step by the golden ratio, so that neighbouring indices are far apart; lightness cycles in threes.
    """
    colours = []
    for index in range(num_classes):
        hue = (0.08 + index * 0.61803398875) % 1.0
        lightness = (0.52, 0.68, 0.38)[index % 3]
        red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.62)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return colours


def colour_classes(class_map: npt.NDArray[np.integer], palette: list[tuple[int, int, int]]) -> npt.NDArray[np.uint8]:
    """Class indices [H,W] -> uint8 [H,W,3]; indices outside the palette (such as 255) become black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    return table[class_map]


def overlay_classes(
    image: npt.NDArray[np.uint8], class_map: npt.NDArray[np.integer], palette: list[tuple[int, int, int]]
) -> npt.NDArray[np.uint8]:
    """uint8 [H,W,3] image with half-transparent class colours; ignored pixels keep the image."""
    colour = colour_classes(class_map, palette).astype(np.float32)
    mixed = 0.45 * image.astype(np.float32) + 0.55 * colour
    known = (class_map < len(palette))[..., None]
    return np.where(known, mixed, image).astype(np.uint8)


def colour_depth(depth_m: npt.NDArray[np.floating], near_m: float, far_m: float) -> npt.NDArray[np.uint8]:
    """Metres [H,W] -> uint8 [H,W,3], red near to dark blue far; black where there is no reading (0)."""
    position = np.clip((depth_m - near_m) / max(far_m - near_m, 1e-6), 0, 1) * (len(TURBO) - 1)
    low = np.minimum(position.astype(np.intp), len(TURBO) - 2)
    fraction = (position - low)[..., None].astype(np.float32)
    colour = TURBO[low] * (1 - fraction) + TURBO[low + 1] * fraction
    return np.where((depth_m > 0)[..., None], colour + 0.5, 0).astype(np.uint8)
