"""Drawing of objects over a photograph: masks in the colours of their classes, boxes, names and scores."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

_MASK_ALPHA = 0.45


def draw_detections(
    image: npt.NDArray[np.uint8],
    boxes: npt.NDArray[np.floating],
    masks: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.integer],
    scores: npt.NDArray[np.floating] | None,
    class_names: Sequence[str],
    palette: Sequence[tuple[int, int, int]],
) -> npt.NDArray[np.uint8]:
    """Draw objects over an image, those with the highest scores on top.

    Args:
        image: uint8 [H,W,3].
        boxes: float [N,4], corners x, y, x, y in pixels.
        masks: bool [N,H,W].
        labels: int [N], 1..num_classes.
        scores: float [N], 0..1. None for true objects, which are drawn in the given order without scores.
        class_names: names of the classes 1..num_classes.
        palette: RGB colours of the classes 1..num_classes.

    Returns:
        uint8 [H,W,3]
    """
    order = range(len(labels)) if scores is None else np.argsort(scores, kind="stable")
    mixed = image.astype(np.float32)
    for index in order:
        mask, tint = masks[index].astype(bool), np.array(palette[labels[index] - 1], np.float32)
        mixed[mask] = (1 - _MASK_ALPHA) * mixed[mask] + _MASK_ALPHA * tint
    picture = Image.fromarray(np.rint(mixed).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    height, width = image.shape[:2]
    size_px = max(10, min(height, width) // 30)
    font, line_px = ImageFont.load_default(size_px), max(1, size_px // 8)
    for index in order:
        colour = palette[labels[index] - 1]
        left, top, right, bottom = np.clip(boxes[index], 0, [width - 1, height - 1] * 2)
        draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=line_px)
        text = class_names[labels[index] - 1] + ("" if scores is None else f" {scores[index]:.2f}")
        around = draw.textbbox((left, top), text, font=font, anchor="lb" if top >= 1.3 * size_px else "lt")
        draw.rectangle(around, fill=colour)
        dark = sum(colour) > 3 * 127  # black letters on a bright colour, white letters on a dark one
        draw.text(around[:2], text, fill=(0, 0, 0) if dark else (255, 255, 255), font=font, anchor="lt")
    return np.asarray(picture)
