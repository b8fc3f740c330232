"""Damaged files, drawn from a seed, and decoders of other projects that tell whether one is really whole."""

import io
import os
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from PIL import Image

NUM_DAMAGED = 300


def damaged_copies(data: bytes, seed: int, num: int = NUM_DAMAGED) -> Iterator[bytes]:
    """Cut short, bits flipped, runs zeroed, parts doubled or removed, noise inserted or in place of all."""
    rng = np.random.default_rng(seed)
    for number in range(num):
        at, length = int(rng.integers(0, len(data))), int(rng.integers(1, 64))
        noise = rng.bytes(length)
        yield (
            data[:at],
            data[:at] + bytes([data[at] ^ (1 << int(rng.integers(0, 8)))]) + data[at + 1 :],
            data[:at] + bytes(min(length, len(data) - at)) + data[at + length :],
            data[:at] + data[at : at + length] + data[at:],
            data[:at] + data[at + length :],
            data[:at] + noise + data[at:],
            noise,
            data[: int(rng.integers(0, 16))],
        )[number % 8]


def strict_pixels(data: bytes) -> np.ndarray[Any, Any] | None:
    """Pixels by OpenCV as they are stored, RGB or one channel; None where it or Pillow's `verify` finds damage.

    OpenCV goes on where libjpeg warns, and writes the warning to the process's standard error.
    """
    with tempfile.TemporaryFile() as told:
        kept = os.dup(2)
        os.dup2(told.fileno(), 2)
        try:
            found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error:
            found = None
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        told.seek(0)
        complaint = told.read()
    if found is None or complaint:
        return None
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            image.verify()  # of a PNG, all checksums
    except Exception:
        return None
    return found[..., ::-1] if found.ndim == 3 else found


def zip_is_whole(data: bytes) -> bool:
    """Whether every member of a zip archive (npz, torch's files) has its checksum."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.testzip() is None
    except Exception:
        return False
