"""Legends of the demos: classes with their shares, a depth scale in metres, bars of probabilities."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mobileclip_dense.artifact.palette import colour_depth

Pixels = npt.NDArray[np.uint8]  # [H,W,3] RGB
Entry = tuple[str, tuple[int, int, int], float]  # name, colour, share 0..1
_BACKGROUND, _INK = (255, 255, 255), (30, 30, 30)
_BAR, _TRACK = (70, 125, 190), (228, 228, 228)
_FONTS = ("DejaVuSans.ttf", "Arial.ttf", "arial.ttf")  # on Linux, macOS and Windows
_NARROWEST_PX = 160  # narrower pictures are padded, so that their texts fit


def add_legend(picture: Pixels, shares: Sequence[Entry], num_rows: int | None = None) -> Pixels:
    """Append a strip with a swatch, name and share for each class, as many per row as fit.

    Args:
        num_rows: fixed number of rows; classes that do not fit are left out. None: as many rows as needed.
    """
    picture, font, line = _widen(picture)
    width = picture.shape[1]
    widest = (
        max(_NARROWEST_PX, width / 3) - 2 * line
    )  # of a text: one long name must not give every other name a row of its own
    texts = [_fit(name, f" {_percent(share)}", font, widest) for name, _, share in shares]
    column = max((int(font.getlength(text)) for text in texts), default=0) + 2 * line
    per_row = max(1, width // column)
    rows = -(-len(texts) // per_row) if num_rows is None else num_rows
    strip = Image.new("RGB", (width, line * rows + line // 2), _BACKGROUND)
    draw = ImageDraw.Draw(strip)
    for index, (text, (_, colour, _)) in enumerate(zip(texts[: rows * per_row], shares, strict=False)):
        x, y = (index % per_row) * (width // per_row) + line // 3, (index // per_row) * line + line // 4
        draw.rectangle((x, y + line // 8, x + line * 3 // 4, y + line * 7 // 8), fill=colour)
        draw.text((x + line, y + line // 2), text, fill=_INK, font=font, anchor="lm")
    return np.concatenate([picture, np.asarray(strip)])


def add_depth_scale(picture: Pixels, near_m: float, far_m: float) -> Pixels:
    """Append a colour bar from `near_m` to `far_m`, labelled in metres at both ends and in the middle."""
    picture, font, line = _widen(picture)
    width = picture.shape[1]
    ramp = np.linspace(near_m, far_m, width, dtype=np.float32)[None].repeat(line, axis=0)
    strip = Image.new("RGB", (width, 2 * line + line // 2), _BACKGROUND)
    strip.paste(Image.fromarray(colour_depth(np.maximum(ramp, 1e-3), near_m, far_m)), (0, line // 4))
    draw = ImageDraw.Draw(strip)
    decimals = 1 if far_m - near_m >= 1 else 2
    for share, anchor in ((0.0, "la"), (0.5, "ma"), (1.0, "ra")):
        text = f"{near_m + share * (far_m - near_m):.{decimals}f} m"
        draw.text((4 + share * (width - 8), line * 1.35), text, fill=_INK, font=font, anchor=anchor)
    return np.concatenate([picture, np.asarray(strip)])


def add_bars(picture: Pixels, shares: Sequence[tuple[str, float]]) -> Pixels:
    """Append one row per name, with a bar proportional to its share (0..1)."""
    picture, font, line = _widen(picture)
    width = picture.shape[1]
    strip = Image.new("RGB", (width, line * len(shares) + line // 2), _BACKGROUND)
    draw = ImageDraw.Draw(strip)
    number = int(font.getlength("100 % "))
    bar = width // 4
    for row, (name, share) in enumerate(shares):
        y = row * line + line // 4
        draw.text((number, y + line // 2), _percent(share), fill=_INK, font=font, anchor="rm")
        left = number + line // 3
        draw.rectangle((left, y + line // 5, left + bar, y + line * 4 // 5), fill=_TRACK)
        draw.rectangle((left, y + line // 5, left + max(1, round(bar * share)), y + line * 4 // 5), fill=_BAR)
        text = _fit(name, "", font, width - left - bar - line)
        draw.text((left + bar + line // 2, y + line // 2), text, fill=_INK, font=font, anchor="lm")
    return np.concatenate([picture, np.asarray(strip)])


def describe_shares(shares: Mapping[str, float], num: int) -> str:
    """The largest shares in words."""
    largest = sorted(shares.items(), key=lambda one: -one[1])[:num]
    return ", ".join(f"{name} {_percent(share)}" for name, share in largest)


def _percent(share: float) -> str:
    return "<1 %" if 0 < share < 0.005 else f"{share * 100:.0f} %"


def _widen(picture: Pixels) -> tuple[Pixels, ImageFont.FreeTypeFont, int]:
    """The picture, padded at the right if it is too narrow for text; a font; the height of a line in pixels."""
    margin = max(0, _NARROWEST_PX - picture.shape[1])
    if margin:
        picture = np.pad(picture, ((0, 0), (0, margin), (0, 0)), constant_values=_BACKGROUND[0])
    font = _font(max(10, min(picture.shape[:2]) // 32))
    return picture, font, int(font.size * 1.6)


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    path = _font_path()
    font = ImageFont.load_default(size=size_px) if path is None else ImageFont.truetype(path, size_px)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


@cache
def _font_path() -> str | None:
    """A system font, because Pillow's own covers English letters only; None if there is none."""
    for name in _FONTS:
        try:
            return str(ImageFont.truetype(name).path)
        except OSError:
            continue
    return None


def _fit(text: str, rest: str, font: ImageFont.FreeTypeFont, width_px: float) -> str:
    """The text on one line followed by `rest`; the text is shortened until both fit the width."""
    text = " ".join(text.split())  # Pillow cannot measure several lines
    if font.getlength(text + rest) <= width_px:
        return text + rest
    kept = bisect_right(range(1, len(text) + 1), width_px, key=lambda num: font.getlength(f"{text[:num]}…{rest}"))
    return f"{text[:kept]}…{rest}"
