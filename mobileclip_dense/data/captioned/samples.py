"""Decoding of the image and captions of a webdataset sample."""

from collections.abc import Iterable, Iterator
from typing import Any

from mobileclip_dense.artifact.images import TooManyPixels, decode_image
from mobileclip_dense.artifact.text import decode_text
from mobileclip_dense.data.captioned.caption_text import has_words, read_json, verify_characters
from mobileclip_dense.data.captioned.reinforced import read_synthetic_captions
from mobileclip_dense.data.captioned.resize import Pixels
from mobileclip_dense.data.captioned.shards import read_samples

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")


class BadSample(ValueError):
    """A sample cannot be used. `kind` is the category under which it is counted."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def read_sample(members: dict[str, bytes]) -> tuple[Pixels, list[str]]:
    """The RGB image, uint8 [H,W,3], and the captions: those of syn.json that have words, else `read_captions`.

    Raises:
        BadSample: a member is missing or cannot be decoded, or no caption of syn.json has words.
    """
    image = read_image(members)
    if "syn.json" not in members:
        return image, read_captions(members)
    captions = read_synthetic(members)
    if not captions:
        raise BadSample("caption", "syn.json: found no words in any caption")
    return image, captions


def read_synthetic(members: dict[str, bytes]) -> list[str]:
    """The captions of syn.json that have words; an empty list without syn.json.

    Raises:
        BadSample: see `read_synthetic_captions`.
    """
    if "syn.json" not in members:
        return []
    try:
        return [caption for caption in read_synthetic_captions(members) if has_words(caption)]
    except ValueError as error:
        raise BadSample("caption", str(error)) from None


def read_pairs(shards: Iterable[str]) -> Iterator[tuple[Pixels, list[str]]]:
    """Image and captions (see `read_sample`) of every sample of the shards, in order.

    Raises:
        ValueError: a sample cannot be used. The message names shard and key.
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
    """The original captions: txt, or else `caption` (a string or a list of strings) of img2dataset's json.

    Raises:
        BadSample: both are missing, the text is not UTF-8, or a caption has no words.
    """
    captions: Any
    try:
        if "txt" in members:
            captions = [decode_text(members["txt"])]
        elif "json" in members:
            record = read_json(members["json"], "json")
            captions = record.get("caption") if isinstance(record, dict) else None
            captions = captions if isinstance(captions, list) else [captions]
        else:
            raise BadSample("members", f"caption: found {_names(members)}, expected txt or json")
        if not captions or not all(isinstance(caption, str) and has_words(caption) for caption in captions):
            raise BadSample("caption", f"caption: found {repr(captions)[:80]}, expected text")
        for caption in captions:
            verify_characters(caption, "caption")
    except BadSample:
        raise
    except ValueError as error:
        raise BadSample("caption", f"caption: {error}") from None
    return captions


def read_image(members: dict[str, bytes]) -> Pixels:
    """The image as RGB uint8 [H,W,3], see `decode_image`. EXIF orientation is ignored, as stored crops do not have it.

    Raises:
        BadSample: there is no image, or it cannot be decoded.
    """
    data = next((members[suffix] for suffix in IMAGE_SUFFIXES if suffix in members), None)
    if data is None:
        raise BadSample("members", f"image: found {_names(members)}, expected one of {', '.join(IMAGE_SUFFIXES)}")
    try:
        return decode_image(data, upright=False)
    except TooManyPixels as error:
        raise BadSample("image size", str(error)) from None
    except ValueError as error:
        raise BadSample("image", str(error)) from None


def _names(members: dict[str, bytes]) -> str:
    return ", ".join(sorted(members)) or "nothing"
