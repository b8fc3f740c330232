"""Reading of images, for training, evaluation, export and the demos. The web page has the same behaviour.

The formats are JPEG, PNG, WebP and BMP, recognised by their first bytes, not by their names. All pixel formats are
converted to 8-bit RGB:

    grey                  three equal channels
    16 bits per channel   the high byte
    palette               its colours
    CMYK                  Pillow's conversion, without colour profiles
    transparency          composited on white
    several images        the first one

Damaged files raise an error, even if a lenient decoder could fill the missing part with grey.
"""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MAX_PIXELS = 178_956_970  # half a gigabyte of RGB; above this limit Pillow assumes a decompression bomb

Pixels = npt.NDArray[np.uint8]

_ACCEPTED = "JPEG, PNG, WebP or BMP"
_FOREIGN = ((b"GIF8", "GIF"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"\0\0\1\0", "ICO"), (b"qoif", "QOI"),
            (b"8BPS", "PSD"), (b"%PDF", "PDF"), (b"<svg", "SVG"), (b"<?xml", "XML or SVG"), (b"<!DO", "HTML"),
            (b"<htm", "HTML"), (b"\xff\x0a", "JPEG XL"), (b"\0\0\0\x0cJXL ", "JPEG XL"),
            (b"\0\0\0\x0cjP  ", "JPEG 2000"))  # fmt: skip
_PNG_START = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112  # the tag of EXIF 2.32, 4.6.4
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns above half of its limit, which photographs of 108 megapixels exceed.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class TooManyPixels(ValueError):
    """An image has more than MAX_PIXELS."""


def load_image(path: Path) -> Pixels:
    """Read an image file as RGB uint8 [H,W,3] and apply its EXIF orientation.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: see `decode_image`. The message names the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: image: no such file")
    try:
        return decode_image(path.read_bytes())
    except ValueError as error:
        raise type(error)(f"{path}: {error}") from None


def decode_image(data: bytes, *, upright: bool = True) -> Pixels:
    """Decode an image to RGB uint8 [H,W,3].

    Args:
        data: contents of the file.
        upright: whether to apply the EXIF orientation (not that of XMP, which browsers and OpenCV ignore too). Turn it
            off if there are coordinates for the stored image, as in DataCompDR.

    Raises:
        TooManyPixels: the image has more than MAX_PIXELS.
        ValueError: the data is empty, truncated, damaged or in another format.
    """
    kind = _format_of(data)
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            check_num_pixels(image.height, image.width)
            pixels = _decode_jpeg(data, image) if kind == "JPEG" else None
            if kind == "PNG":
                check_png(data)
            if pixels is None:
                pixels = to_rgb(image)
            turn = _TURNS.get(_orientation(image)) if upright else None  # in a PNG, EXIF may follow the pixels
    except (TooManyPixels, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise TooManyPixels(f"image: found more than {MAX_PIXELS:,} pixels, which is taken for an attack; scale it "
                            "down first") from None  # fmt: skip
    except Exception as error:  # decoders raise exceptions of any type for damaged files
        raise ValueError(f"image: cannot be decoded ({kind}: {error}); the file is truncated or damaged") from None
    return pixels if turn is None else np.asarray(Image.fromarray(pixels).transpose(turn))


def check_num_pixels(height: int, width: int) -> None:
    """Raises TooManyPixels above MAX_PIXELS."""
    if height * width > MAX_PIXELS:
        raise TooManyPixels(f"image: found {height}x{width}, expected at most {MAX_PIXELS:,} pixels; scale it down "
                            "first")  # fmt: skip


def is_png(data: bytes) -> bool:
    """Whether the data begins like a PNG."""
    return data.startswith(_PNG_START)


def check_png(data: bytes) -> None:
    """Raises ValueError if a critical chunk of a PNG is truncated or does not match its checksum.

    Pillow does not verify the checksums of pixels and returns damaged masks without an error.
    """
    at = len(_PNG_START)
    kind = b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise ValueError("it ends before its last chunk")
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            raise ValueError(f"chunk {kind!r} is cut short")
        (stored,) = struct.unpack_from(">I", data, at + 8 + length)
        is_critical = not kind[0] & 0x20  # PNG 1.2, 3.3: an upper-case first letter
        if is_critical and zlib.crc32(memoryview(data)[at + 4 : at + 8 + length]) != stored:
            raise ValueError(f"the checksum of chunk {kind!r} does not fit")
        at += 12 + length


def to_rgb(image: Image.Image) -> Pixels:
    """Decode an image of any Pillow mode to RGB uint8 [H,W,3], see the table above."""
    image.load()
    if image.mode.startswith("I"):  # 16 bits of grey
        values = np.asarray(image).astype(np.uint16)
        grey = (values >> 8).astype(np.uint8)
        grey[values == image.info.get("transparency", -1)] = 255
        return grey[..., None].repeat(3, 2)
    if "A" in image.getbands() or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def _format_of(data: bytes) -> str:
    """Pillow's name of the image format. Raises ValueError if it is not supported."""
    if not data:
        raise ValueError(f"image: the file is empty, expected {_ACCEPTED}")
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if is_png(data):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:2] == b"BM":
        return "BMP"
    found = next((name for start, name in _FOREIGN if data.startswith(start)), None)
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("ascii", "replace")
        found = (
            "AVIF" if brand.startswith("avi") else "HEIC" if brand[:3] in ("hei", "hev", "mif") else f"a {brand!r} file"
        )
    if found is None:
        raise ValueError(f"image: not an image file; expected {_ACCEPTED}")
    raise ValueError(f"image: found {found}, expected {_ACCEPTED}; convert it first")


def _decode_jpeg(data: bytes, image: Image.Image) -> Pixels | None:
    """Decode a JPEG strictly. None if the colours need Pillow's conversion; the file is then verified, too.

    Both decoders use libjpeg-turbo and give the same pixels, but Pillow ignores the warnings for damaged data.
    """
    colours = simplejpeg.decode_jpeg_header(data)[2]
    if colours in ("YCbCr", "Gray"):
        pixels: Pixels = simplejpeg.decode_jpeg(data)
        return pixels
    simplejpeg.decode_jpeg(data, colorspace="CMYK" if image.mode == "CMYK" else "RGB")
    return None


def _orientation(image: Image.Image) -> int:
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return int(exif.get(_ORIENTATION, 1))
    except Exception:  # invalid metadata must not make the image unusable
        return 1
