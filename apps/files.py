"""The loop that both command-line demos share: each image in, its picture out, bad files named and passed over."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from mobileclip_dense.contract.files import refuse_existing, staged_file
from mobileclip_dense.contract.preprocess import load_image

Draw = Callable[[npt.NDArray[np.uint8]], tuple[npt.NDArray[np.uint8], str]]


def draw_each(images: tuple[Path, ...], out: Path, suffix: str, force: bool, draw: Draw) -> None:
    """Write `out/STEM-suffix.png` for each image and print what `draw` says about it.

    Args:
        draw: uint8 [H,W,3] -> the picture uint8 [H',W',3], and a line of text.

    Raises:
        ValueError: at the end, if any image could not be used; the others are done.
    """
    if not images:
        raise ValueError("IMAGE: found none, expected at least one image file")
    failed, lines = [], []
    for path in tqdm(images, unit="image"):
        target = out / f"{path.stem}-{suffix}.png"
        try:
            refuse_existing(target, force)
            image = load_image(path)
        except (ValueError, OSError) as error:
            failed.append(path)
            print(f"error: {error}", file=sys.stderr)
            continue
        begin = time.perf_counter()
        picture, text = draw(image)
        milliseconds = (time.perf_counter() - begin) * 1000
        with staged_file(target) as staging:
            Image.fromarray(picture).save(staging)
        lines.append(f"{target}: {text}; {milliseconds:.0f} ms")
    print("\n".join(lines))
    if failed:
        raise ValueError(f"{len(failed)} of {len(images)} images could not be drawn (see above); the others were")
