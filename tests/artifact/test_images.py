"""Images of every kind are decoded to the expected RGB, and damaged ones raise an error."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mobileclip_dense.artifact import images
from mobileclip_dense.artifact.images import TooManyPixels, decode_image, load_image

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (24, 36, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (24, 36), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (24, 36), dtype=np.uint16)
ALPHA = RNG.integers(0, 256, (24, 36, 1), dtype=np.uint8)
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha.astype(np.float64) / 255
    return np.round(colours * share + 255 * (1 - share))


def palette_picture(**options: object) -> tuple[bytes, np.ndarray]:
    indices = (GREY % 4).astype(np.uint8)
    picture = Image.fromarray(indices, "P")
    colours = np.array([[250, 10, 20], [0, 200, 30], [90, 80, 70], [1, 2, 3]], np.uint8)
    picture.putpalette(colours.tobytes())
    return encoded(picture, "PNG", **options), colours[indices]


def expected_pixels() -> dict[str, tuple[bytes, np.ndarray]]:
    """Bytes of an image and its pixels, computed by hand."""
    palette, palette_colours = palette_picture()
    holes, _ = palette_picture(transparency=0)
    hole_colours = palette_colours.copy()
    hole_colours[(palette_colours == [250, 10, 20]).all(-1)] = 255
    rgba = np.concatenate([COLOURS, ALPHA], -1)
    grey_alpha = Image.fromarray(np.concatenate([GREY[..., None], ALPHA], -1), "LA")
    film = {"save_all": True, "append_images": [Image.fromarray(GREY)]}
    deep_colours = RNG.integers(0, 65536, (24, 36, 3), dtype=np.uint16)
    return {
        "colour": (encoded(Image.fromarray(COLOURS), "PNG"), COLOURS),
        "BMP": (encoded(Image.fromarray(COLOURS), "BMP"), COLOURS),
        "WebP": (encoded(Image.fromarray(COLOURS), "WEBP", lossless=True), COLOURS),
        "grey": (encoded(Image.fromarray(GREY), "PNG"), GREY[..., None].repeat(3, 2)),
        "one bit": (encoded(Image.fromarray(GREY > 99), "PNG"), np.where(GREY[..., None] > 99, 255, 0).repeat(3, 2)),
        "16-bit grey": (encoded(Image.fromarray(DEEP), "PNG"), (DEEP[..., None] // 256).repeat(3, 2)),
        "16-bit colour": (cv2.imencode(".png", deep_colours[..., ::-1])[1].tobytes(), deep_colours // 256),
        "palette": (palette, palette_colours),
        "palette with a transparent colour": (holes, hole_colours),
        "RGBA": (encoded(Image.fromarray(rgba), "PNG"), on_white(COLOURS, ALPHA)),
        "RGBA in WebP": (encoded(Image.fromarray(rgba), "WEBP", lossless=True, exact=True), on_white(COLOURS, ALPHA)),
        "grey with alpha": (encoded(grey_alpha, "PNG"), on_white(GREY[..., None], ALPHA).repeat(3, 2)),
        "several pictures": (encoded(Image.fromarray(COLOURS), "PNG", **film), COLOURS),
    }  # fmt: skip


@pytest.mark.parametrize("name", expected_pixels())
def test_every_kind_of_pixel_becomes_the_rgb_that_it_means(name: str) -> None:
    data, expected = expected_pixels()[name]
    found = decode_image(data)
    assert (found.dtype, found.shape) == (np.uint8, (24, 36, 3))
    assert np.abs(found.astype(int) - expected).max() <= (
        1 if "alpha" in name or "RGBA" in name or "WebP" in name else 0
    )


def test_the_colours_of_print_become_those_of_a_screen() -> None:
    """CMYK in Photoshop's form: full cyan has no red, full black is black."""
    inks = np.zeros((16, 32, 4), np.uint8)
    inks[:, :16, 0], inks[:, 16:, 3] = 255, 255
    found = decode_image(encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100))
    assert np.abs(found[8, 4].astype(int) - [0, 255, 255]).max() < 4
    assert found[8, 28].max() < 4


def test_a_phones_photograph_with_a_second_picture_behind_it_is_read(tmp_path: Path) -> None:
    first, second = Image.fromarray(COLOURS), Image.fromarray(COLOURS[::2, ::2])
    first.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[second])
    assert load_image(tmp_path / "x.jpg").shape == (24, 36, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pictures_are_turned_upright_unless_their_coordinates_are_needed(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(COLOURS), kind, exif=exif)
    assert decode_image(data).shape == (36, 24, 3)
    np.testing.assert_array_equal(decode_image(data), np.rot90(decode_image(data, upright=False), -1))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_orientation_in_xmp_alone_is_left_alone_as_browsers_do(kind: str) -> None:
    if kind == "JPEG":
        data = encoded(Image.fromarray(COLOURS), "JPEG", xmp=XMP)
    else:
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", XMP.decode())
        data = encoded(Image.fromarray(COLOURS), "PNG", pnginfo=text)
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif().get(0x0112) == 6  # Pillow does read it
    assert decode_image(data).shape == (24, 36, 3)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "ICO", "AVIF", "QOI", "PCX", "TGA", "PPM"])
def test_other_formats_are_refused_whatever_the_name(tmp_path: Path, kind: str) -> None:
    (tmp_path / "x.jpg").write_bytes(encoded(Image.fromarray(COLOURS), kind))
    with pytest.raises(ValueError, match=r"x\.jpg: image: .*expected JPEG, PNG, WebP or BMP") as caught:
        load_image(tmp_path / "x.jpg")
    if kind not in ("PCX", "TGA", "PPM"):  # which have no mark at their beginning
        assert f"found {kind}" in str(caught.value)


def test_an_iphones_format_is_refused_by_its_name() -> None:
    for brand in (b"heic", b"mif1", b"heix"):
        with pytest.raises(ValueError, match="found HEIC, expected JPEG"):
            decode_image(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0" + bytes(50))


def test_an_empty_file_and_a_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"x\.png: image: the file is empty"):
        load_image(tmp_path / "x.png")
    with pytest.raises(FileNotFoundError, match="image: no such file"):
        load_image(tmp_path)


def lenient(data: bytes) -> np.ndarray | None:
    """Pillow's pixels of damaged bytes; None if Pillow raises an error too."""
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except Exception:
        return None


def strict(data: bytes) -> np.ndarray | None:
    try:
        return decode_image(data)
    except ValueError as error:
        assert "truncated or damaged" in str(error) or "not an image file" in str(error)
        return None


def with_one_byte_changed(data: bytes, num: int) -> list[bytes]:
    places = np.random.default_rng(1).choice(len(data), num, replace=False)
    return [data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :] for at in places]


def test_a_png_with_a_changed_byte_is_never_taken_for_another_picture() -> None:
    smooth = Image.fromarray(GREY).resize((160, 120))
    damaged = with_one_byte_changed(encoded(smooth, "PNG"), 600)
    whole = np.asarray(smooth.convert("RGB"))
    taken = [pixels for data in damaged if (pixels := strict(data)) is not None]
    assert all(np.array_equal(pixels, whole) for pixels in taken)


def test_the_checksum_of_a_pngs_pixels_is_compared() -> None:
    data = encoded(Image.fromarray(GREY), "PNG")
    wrong = data.replace(data[-16:-12], b"\0\0\0\0")  # before the 12 bytes of IEND
    assert lenient(wrong) is not None
    with pytest.raises(ValueError, match="the checksum of chunk b'IDAT' does not fit"):
        decode_image(wrong)


def test_a_jpeg_is_refused_where_libjpeg_warns_of_damage() -> None:
    damaged = with_one_byte_changed(encoded(Image.fromarray(COLOURS).resize((160, 120)), "JPEG"), 300)
    refused = sum(strict(data) is None for data in damaged if lenient(data) is not None)
    assert refused > 10  # where Pillow fills the rest with grey


def test_gigantic_pictures_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 24 * 36 - 1)
    for kind in ("JPEG", "PNG", "WEBP", "BMP"):
        with pytest.raises(TooManyPixels, match="image: found 24x36, expected at most 863 pixels"):
            decode_image(encoded(Image.fromarray(COLOURS), kind))
