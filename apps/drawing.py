"""What the demos draw around their maps: a legend of classes, a scale of metres."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mobileclip_dense.contract.palette import colour_depth

_BACKGROUND, _INK = (255, 255, 255), (30, 30, 30)


def add_legend(
    picture: npt.NDArray[np.uint8], shares: list[tuple[str, tuple[int, int, int], float]]
) -> npt.NDArray[np.uint8]:
    """Append a strip with a swatch, name and share (0..1) for each class, as many to a row as fit."""
    font = _font(picture.shape[1])
    line = int(font.size * 1.6)
    entries = [(f"{name} {share * 100:.0f}%", colour) for name, colour, share in shares]
    column = max((int(font.getlength(text)) for text, _ in entries), default=0) + 2 * line
    per_row = max(1, picture.shape[1] // column)
    height = line * -(-len(entries) // per_row) + line // 2
    strip = Image.new("RGB", (picture.shape[1], height), _BACKGROUND)
    draw = ImageDraw.Draw(strip)
    for index, (text, colour) in enumerate(entries):
        x, y = (index % per_row) * column + line // 3, (index // per_row) * line + line // 4
        draw.rectangle((x, y + line // 8, x + line * 3 // 4, y + line * 7 // 8), fill=colour)
        draw.text((x + line, y + line // 8), text, fill=_INK, font=font)
    return np.concatenate([picture, np.asarray(strip)])


def add_depth_scale(picture: npt.NDArray[np.uint8], near_m: float, far_m: float) -> npt.NDArray[np.uint8]:
    """Append a bar from `near_m` to `far_m` with its ends and middle in metres."""
    font = _font(picture.shape[1])
    line, width = int(font.size * 1.6), picture.shape[1]
    ramp = np.linspace(near_m, far_m, width, dtype=np.float32)[None].repeat(line, axis=0)
    strip = Image.new("RGB", (width, 2 * line + line // 2), _BACKGROUND)
    strip.paste(Image.fromarray(colour_depth(np.maximum(ramp, 1e-3), near_m, far_m)), (0, line // 4))
    draw = ImageDraw.Draw(strip)
    for share, anchor in ((0.0, "la"), (0.5, "ma"), (1.0, "ra")):
        text = f"{near_m + share * (far_m - near_m):.1f} m"
        draw.text((4 + share * (width - 8), line * 1.35), text, fill=_INK, font=font, anchor=anchor)
    return np.concatenate([picture, np.asarray(strip)])


def _font(width_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=max(10, width_px // 40))
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
