import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobileclip_dense.artifact import images
from mobileclip_dense.data.captioned.samples import BadSample, read_captions, read_image, read_pairs, read_sample
from tests.data.shards import jpeg, plain_members, record, write_shard


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (33, 41, 3), dtype=np.uint8))
ROTATED = Image.Exif()
ROTATED[0x0112] = 6
PICTURES = {
    "colour": ("jpg", encoded(NOISE, "JPEG")),
    "full chroma": ("jpg", encoded(NOISE, "JPEG", subsampling=0)),
    "progressive": ("jpeg", encoded(NOISE, "JPEG", progressive=True)),
    "grey": ("jpg", encoded(NOISE.convert("L"), "JPEG")),
    "cmyk": ("jpg", encoded(NOISE.convert("CMYK"), "JPEG")),
    "with an orientation": ("jpg", encoded(NOISE, "JPEG", exif=ROTATED)),
    "with junk after it": ("jpg", encoded(NOISE, "JPEG") + b"junk"),
    "png": ("png", encoded(NOISE, "PNG")),
    "png with alpha": ("png", encoded(NOISE.convert("RGBA"), "PNG")),
    "palette": ("png", encoded(NOISE.quantize(16), "PNG")),
    "webp": ("webp", encoded(NOISE, "WEBP", lossless=True)),
    "a png called jpg": ("jpg", encoded(NOISE, "PNG")),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_decode_as_pillow_decodes_them_and_are_not_turned(name: str) -> None:
    suffix, data = PICTURES[name]
    found = read_image({suffix: data})
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize(
    ("members", "kind", "message"),
    [
        ({"jpg": jpeg(0)[:-40]}, "image", "cannot be decoded"),
        ({"jpg": jpeg(0)[:30]}, "image", "cannot be decoded"),
        ({"jpg": b""}, "image", "the file is empty"),
        ({"png": encoded(NOISE, "PNG")[:-60]}, "image", "cannot be decoded"),
        ({"txt": b"x"}, "members", "image: found txt, expected one of jpg"),
    ],
)
def test_a_damaged_picture_is_a_bad_sample(members: dict[str, bytes], kind: str, message: str) -> None:
    with pytest.raises(BadSample, match=message) as caught:
        read_image(members)
    assert caught.value.kind == kind


def test_a_gigantic_picture_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    bomb += encoded(NOISE, "PNG")[33:]
    with pytest.raises(BadSample) as caught:
        read_image({"png": bomb})
    assert caught.value.kind == "image size"
    monkeypatch.setattr(images, "MAX_PIXELS", 48 * 40 - 1)
    with pytest.raises(BadSample, match="found 40x48, expected at most 1,919 pixels"):
        read_image({"jpg": jpeg(0)})


def test_captions_come_from_txt_then_from_img2datasets_record() -> None:
    assert read_captions({"txt": b"one", "json": record(caption="other")}) == ["one"]
    assert read_captions({"json": record(caption="d\u00e9j\u00e0 vu")}) == ["d\u00e9j\u00e0 vu"]
    assert read_captions({"json": record(caption=["a", "b"])}) == ["a", "b"]


def test_synthetic_captions_are_preferred_in_a_plain_sample() -> None:
    members = plain_members(0) | {"syn.json": json.dumps({"syn_text": ["x", "y"]}).encode()}
    assert read_sample(members)[1] == ["x", "y"]


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        ({}, "members"), ({"txt": b" \n"}, "caption"), ({"json": b"{"}, "caption"), ({"json": b"[]"}, "caption"),
        ({"json": record(caption=None)}, "caption"), ({"json": record(caption=[])}, "caption"),
    ],
)  # fmt: skip
def test_a_sample_without_a_caption_is_bad(members: dict[str, bytes], kind: str) -> None:
    with pytest.raises(BadSample) as caught:
        read_captions(members)
    assert caught.value.kind == kind


WORDS = "un caf\u00e9 \u00e0 Paris"


@pytest.mark.parametrize(
    "members",
    [
        *({"txt": WORDS.encode(encoding)} for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1")),
        {"txt": "\u6771\u4eac\u30bf\u30ef\u30fc".encode("shift-jis")},
        {"txt": b"one\0two"}, {"txt": b"\x01\x02\x7f"}, {"txt": "\u200b\ufeff\u2028 \x85".encode()},
        {"json": json.dumps({"caption": WORDS}, ensure_ascii=False).encode("utf-16")},
        {"json": json.dumps({"caption": WORDS}, ensure_ascii=False).encode("latin-1")},
        {"json": record(caption="one\0two")}, {"json": record(caption="\x1f\x0c")}, {"json": record(caption="\ud83d")},
        {"json": b"[" * 100_000},
    ],
)  # fmt: skip
def test_what_is_no_text_in_utf_8_is_a_bad_sample_and_not_a_caption(members: dict[str, bytes]) -> None:
    with pytest.raises(BadSample) as caught:
        read_captions(members)
    assert caught.value.kind == "caption"


@pytest.mark.parametrize("caption", [WORDS, "two\u2028lines", "\u6771\u4eac", "\U0001f600", "tab\there", "7"])
def test_text_is_read_as_it_was_written(caption: str) -> None:
    for mark in (b"", b"\xef\xbb\xbf"):
        assert read_captions({"txt": mark + caption.encode()}) == [caption]
        assert read_captions({"json": mark + record(caption=caption)}) == [caption]
        assert read_sample({"jpg": jpeg(0), "syn.json": mark + record(syn_text=[caption])})[1] == [caption]


def test_synthetic_captions_that_are_no_text_are_left_out_or_make_the_sample_bad() -> None:
    def read(data: bytes) -> list[str]:
        return read_sample(plain_members(0) | {"syn.json": data})[1]

    assert read(record(syn_text=["one", " ", "\u200b", "two"])) == ["one", "two"]
    for data in (
        record(syn_text=["", "\x1f"]), record(syn_text=["one", "t\0w\0o\0"]), record(syn_text=["one", "\udc00"]),
        json.dumps({"syn_text": [WORDS]}, ensure_ascii=False).encode("latin-1"),
        record(syn_text=["x"]).decode().encode("utf-16"),
    ):  # fmt: skip
        with pytest.raises(BadSample) as caught:
            read(data)
        assert caught.value.kind == "caption"


def test_a_bad_sample_of_a_strict_reading_is_named_with_its_shard(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", {"good": plain_members(0), "bad": {"jpg": jpeg(1)[:90], "txt": b"x"}})
    pairs = read_pairs([str(shard)])
    assert next(pairs)[1] == ["picture 0"]
    with pytest.raises(ValueError, match=r"0\.tar: sample bad: image: cannot be decoded"):
        next(pairs)
