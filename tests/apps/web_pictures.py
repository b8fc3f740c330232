"""Pictures of every kind that the reader of pictures takes or refuses, as bytes, for the page's tests."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

HEIGHT_PX, WIDTH_PX = 37, 53
_XMP = (b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
        )  # fmt: skip


def accepted_pictures() -> dict[str, bytes]:
    """By file name; `alpha` in a name stands for transparency, `cmyk` for those colours."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT_PX, :WIDTH_PX]
    smooth = np.stack([columns * 255 // WIDTH_PX, rows * 255 // HEIGHT_PX, (rows + columns) * 2], -1)
    rgb = (smooth + rng.integers(-20, 20, smooth.shape)).clip(0, 255).astype(np.uint8)
    grey, alpha = rgb[..., 0], rng.integers(0, 256, rgb.shape[:2], dtype=np.uint8)
    palette = Image.fromarray(rgb).quantize(32)
    cmyk = np.asarray(Image.fromarray(rgb).convert("CMYK")).copy()
    cmyk[..., 3] = rng.integers(0, 200, alpha.shape)
    deep = rng.integers(0, 65536, (*alpha.shape, 4), dtype=np.uint16)
    key = struct.pack(">HHH", *map(int, rgb[3, 3]))
    pictures = {
        "rgb.png": _encode(rgb, "PNG"), "grey.png": _encode(grey, "PNG"), "bits.png": _encode(grey > 128, "PNG"),
        "palette.png": _encode(palette, "PNG"),
        "alpha.png": _encode(np.dstack([rgb, alpha]), "PNG"),
        "grey-alpha.png": _encode(np.dstack([grey, alpha]), "PNG"),
        "palette-alpha.png": _encode(palette, "PNG", transparency=bytes(range(0, 256, 8))),
        "key-alpha.png": write_png(rgb, 2, (b"tRNS", key)),
        "grey-16.png": write_png(deep[..., 0], 0), "rgb-16.png": write_png(deep[..., :3], 2),
        "grey-alpha-16.png": write_png(deep[..., :2], 4), "alpha-16.png": write_png(deep, 6),
        "rgb.jpg": _encode(rgb, "JPEG", quality=90), "grey.jpg": _encode(grey, "JPEG"),
        "444.jpg": _encode(rgb, "JPEG", subsampling=0), "progressive.jpg": _encode(rgb, "JPEG", progressive=True),
        "cmyk.jpg": _encode(Image.fromarray(cmyk, "CMYK"), "JPEG", quality=92),
        "xmp.jpg": _encode(rgb, "JPEG", xmp=_XMP), "xmp.webp": _encode(rgb, "WEBP", lossless=True, xmp=_XMP),
        "lossy.webp": _encode(rgb, "WEBP"), "lossless.webp": _encode(rgb, "WEBP", lossless=True),
        "alpha.webp": _encode(np.dstack([rgb, alpha]), "WEBP", lossless=True, exact=True),
        "moving.webp": _encode(rgb, "WEBP", lossless=True, save_all=True, append_images=[Image.fromarray(255 - rgb)]),
        "rgb.bmp": _encode(rgb, "BMP"), "palette.bmp": _encode(palette, "BMP"), "grey.bmp": _encode(grey, "BMP"),
        "png-called.jpg": _encode(rgb, "PNG"),
    }  # fmt: skip
    for turn in range(2, 9):
        pictures[f"exif-{turn}.jpg"] = _encode(rgb, "JPEG", exif=_exif(turn))
        pictures[f"exif-{turn}.webp"] = _encode(rgb, "WEBP", lossless=True, exif=_exif(turn))
    pictures["exif-6.png"] = _encode(rgb, "PNG", exif=_exif(6))
    return pictures


def refused_pictures() -> dict[str, bytes]:
    """By file name, whose first part is what both sides must name."""
    rgb = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    png, heic = _encode(rgb, "PNG"), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    huge = png[:8] + _chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 30_000, 8, 2, 0, 0, 0)) + png[33:]
    at = png.index(b"IDAT") + 30
    return {
        "GIF.jpg": _encode(rgb, "GIF"), "TIFF.jpg": _encode(rgb, "TIFF"), "AVIF.jpg": _encode(rgb, "AVIF"),
        "ICO.png": _encode(rgb, "ICO"), "HEIC.jpg": heic + bytes(100), "SVG.png": b"<svg></svg>",
        "JPEG XL.jpg": b"\xff\x0a" + bytes(50), "JPEG 2000.jpg": b"\0\0\0\x0cjP  \r\n\x87\n", "empty.png": b"",
        "pixels.png": huge, "cut.png": png[:-7], "damaged.png": png[:at] + bytes([png[at] ^ 1]) + png[at + 1 :],
    }  # fmt: skip


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def write_png(pixels: npt.NDArray[np.unsignedinteger[Any]], colour_type: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 8 or 16 bits a channel, which Pillow cannot write in all types; [H,W] or [H,W,C]."""
    height, width = pixels.shape[:2]
    bits = pixels.dtype.itemsize * 8
    rows = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">")).reshape(height, -1)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    every = ((b"IHDR", header), *chunks, (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in every)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _encode(picture: Image.Image | npt.NDArray[Any], kind: str, **options: Any) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
