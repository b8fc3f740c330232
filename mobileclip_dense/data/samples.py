"""From the members of a webdataset sample to its picture and its captions."""

import io
import json
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from mobileclip_dense.data.reinforced import read_synthetic_captions
from mobileclip_dense.data.resize import Pixels
from mobileclip_dense.data.shards import read_samples

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
MAX_PIXELS = 89_478_485  # Pillow's own bound: a quarter of a gigabyte of RGB


class BadSample(ValueError):
    """A sample that cannot be used; `kind` is what bad samples are counted by."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def read_sample(members: dict[str, bytes]) -> tuple[Pixels, list[str]]:
    """RGB image uint8 [H,W,3] and captions: those of syn.json where there is one, else those of `read_captions`.

    Raises:
        BadSample: a member is missing, or cannot be decoded.
    """
    image = read_image(members)
    if "syn.json" not in members:
        return image, read_captions(members)
    try:
        return image, read_synthetic_captions(members)
    except ValueError as error:
        raise BadSample("caption", str(error)) from None


def read_pairs(shards: Iterable[str]) -> Iterator[tuple[Pixels, list[str]]]:
    """`read_sample` of every sample of shards, in order.

    Raises:
        ValueError: one of them cannot be used; names shard and key.
    """
    for shard in shards:
        for sample in read_samples(shard):
            try:
                if sample.fault is not None:
                    raise BadSample("shard", sample.fault)
                yield read_sample(sample.members)
            except BadSample as error:
                raise ValueError(f"{shard}: sample {sample.key}: {error}") from None


def read_captions(members: dict[str, bytes]) -> list[str]:
    """The original captions: txt, or where there is none the `caption` (text or list of texts) of img2dataset's json.

    Raises:
        BadSample: there is neither, or no text in it.
    """
    captions: Any
    if "txt" in members:
        captions = [members["txt"].decode("utf-8", errors="replace")]
    elif "json" in members:
        try:
            record = json.loads(members["json"])
        except ValueError as error:
            raise BadSample("caption", f"json: not valid JSON ({error})") from None
        captions = record.get("caption") if isinstance(record, dict) else None
        captions = captions if isinstance(captions, list) else [captions]
    else:
        raise BadSample("members", f"caption: found {_names(members)}, expected txt or json")
    if not captions or not all(isinstance(caption, str) and caption.strip() for caption in captions):
        raise BadSample("caption", f"caption: found {repr(captions)[:80]}, expected text")
    return captions


def read_image(members: dict[str, bytes]) -> Pixels:
    """The image as uint8 [H,W,3] RGB, as Pillow decodes it and without turning it: stored crops count on that.

    Raises:
        BadSample: there is no image, it is larger than MAX_PIXELS, or it cannot be decoded.
    """
    data = next((members[suffix] for suffix in IMAGE_SUFFIXES if suffix in members), None)
    if data is None:
        raise BadSample("members", f"image: found {_names(members)}, expected one of {', '.join(IMAGE_SUFFIXES)}")
    if data[:2] == b"\xff\xd8":
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            if colours in ("YCbCr", "Gray"):
                _check_size(height, width)
                decoded: Pixels = simplejpeg.decode_jpeg(data)  # libjpeg-turbo as in Pillow, without its detours
                return decoded
        except BadSample:
            raise
        except ValueError:
            pass  # what libjpeg calls a recoverable error, Pillow may read
    return _decode_with_pillow(data)


def _decode_with_pillow(data: bytes) -> Pixels:
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            _check_size(image.height, image.width)
            return np.asarray(image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise BadSample("image size", f"image: {error}") from None
    except BadSample:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise BadSample("image", f"image: cannot be decoded ({error}); repair or remove it") from None


def _check_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise BadSample("image size", f"image: found {height}x{width}, expected at most {MAX_PIXELS} pixels")


def _names(members: dict[str, bytes]) -> str:
    return ", ".join(sorted(members)) or "nothing"
