"""Decoding of a webdataset sample's image and captions."""

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
    """A sample that cannot be used; bad samples are counted by `kind`."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def read_sample(members: dict[str, bytes]) -> tuple[Pixels, list[str]]:
    """RGB image uint8 [H,W,3] and its captions: those of syn.json that have words, or `read_captions` without one.

    Raises:
        BadSample: a member is missing, or cannot be decoded; or no caption of syn.json has words.
    """
    image = read_image(members)
    if "syn.json" not in members:
        return image, read_captions(members)
    captions = read_synthetic(members)
    if not captions:
        raise BadSample("caption", "syn.json: found no words in any caption")
    return image, captions


def read_synthetic(members: dict[str, bytes]) -> list[str]:
    """The captions of syn.json that have words; none without a syn.json.

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
        BadSample: there is neither, it is not UTF-8, or a caption in it has no words.
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
    """The image as uint8 [H,W,3] RGB, see `decode_image`; not turned upright, since stored crops count on that.

    Raises:
        BadSample: there is no image, or `decode_image` refuses it.
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
