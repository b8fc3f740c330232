"""The one reader of pictures, for training, evaluation, export and the demos; the browser's page mirrors it.

JPEG, PNG, WebP and BMP, told apart by their first bytes and not by their names. Every kind of pixel becomes 8-bit RGB:

    grey                  three equal channels
    16 bits a channel     the high byte
    palette               its colours
    CMYK                  as Pillow converts it, without colour profiles
    transparency          composited on white
    several pictures      the first one

A file that a strict decoder finds damaged is refused, also where a lenient one would fill the rest with grey.
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
MAX_PIXELS = 178_956_970  # half a gigabyte of RGB; Pillow's own limit, above which a file is taken for an attack

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

# Pillow warns from half of its limit on; photographs of 108 megapixels are that large.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class TooManyPixels(ValueError):
    """A picture beyond MAX_PIXELS."""


def load_image(path: Path) -> Pixels:
    """Read a picture as uint8 [H,W,3] RGB, EXIF orientation applied.

    Raises:
        FileNotFoundError: there is no such file. ValueError: see `decode_image`; the message names the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: image: no such file")
    try:
        return decode_image(path.read_bytes())
    except ValueError as error:
        raise type(error)(f"{path}: {error}") from None


def decode_image(data: bytes, *, upright: bool = True) -> Pixels:
    """The bytes of a picture -> uint8 [H,W,3] RGB.

    Args:
        upright: apply the EXIF orientation (EXIF alone: browsers and OpenCV do not read XMP's either). Off where
            coordinates of the stored picture go with it, as in DataCompDR's crops.

    Raises:
        TooManyPixels: more than MAX_PIXELS. ValueError: empty, another format, truncated or damaged. The messages say
            what was found, what was expected and what to do.
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
            turn = _TURNS.get(_orientation(image)) if upright else None  # of a PNG, known after its pixels only
    except (TooManyPixels, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise TooManyPixels(f"image: found more than {MAX_PIXELS:,} pixels, which is taken for an attack; scale it "
                            "down first") from None  # fmt: skip
    except Exception as error:  # on damaged bytes decoders fail in any way there is
        raise ValueError(f"image: cannot be decoded ({kind}: {error}); the file is truncated or damaged") from None
    return pixels if turn is None else np.asarray(Image.fromarray(pixels).transpose(turn))


def check_num_pixels(height: int, width: int) -> None:
    """Raises TooManyPixels above MAX_PIXELS."""
    if height * width > MAX_PIXELS:
        raise TooManyPixels(f"image: found {height}x{width}, expected at most {MAX_PIXELS:,} pixels; scale it down "
                            "first")  # fmt: skip


def is_png(data: bytes) -> bool:
    """Whether the bytes are a PNG's."""
    return data.startswith(_PNG_START)


def check_png(data: bytes) -> None:
    """Raises ValueError where a PNG's necessary chunks are cut short or differ from their checksums.

    Pillow does not look at the checksums of pixels, and gives what is left of a damaged mask as if it were whole.
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
        is_necessary = not kind[0] & 0x20  # PNG 1.2, 3.3: an upper-case first letter
        if is_necessary and zlib.crc32(memoryview(data)[at + 4 : at + 8 + length]) != stored:
            raise ValueError(f"the checksum of chunk {kind!r} does not fit")
        at += 12 + length


def to_rgb(image: Image.Image) -> Pixels:
    """A picture of any of Pillow's modes -> uint8 [H,W,3] RGB, as the table above says. Decodes it."""
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
    """Pillow's name of an accepted format."""
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
    """Pixels by the strict decoder; None where colours need Pillow's conversion, once the file was found whole.

    Both are libjpeg-turbo and agree bit for bit; but Pillow passes over its warnings, which damaged data cause.
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
    except Exception:  # what a camera wrote wrongly beside the picture does not spoil it
        return 1
