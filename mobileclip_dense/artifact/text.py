"""Lists that people write: UTF-8, one entry to a line."""

from pathlib import Path


def decode_text(data: bytes) -> str:
    """UTF-8, without the byte order mark that Windows puts in front.

    Raises:
        ValueError: not UTF-8, or with NUL bytes, which text has none of; says what it looks like.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError("found UTF-16, expected UTF-8 text; save it again as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"found byte {data[error.start]:#04x} at {error.start}, expected UTF-8 text; save it again as "
                         "UTF-8") from None  # fmt: skip
    if "\0" in text:
        raise ValueError("found NUL bytes, as UTF-16 has them, expected UTF-8 text; save it again as UTF-8")
    return text


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a text file, without their ends (LF or CR LF); empty lines too, but for those at the end.

    Only these two end a line: `str.splitlines` also cuts at U+2028, form feeds and others, which captions may hold.

    Args:
        what: names the list in errors.

    Raises:
        FileNotFoundError: no such file. ValueError: not UTF-8, or the lines end with CR alone.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {what}: no such file")
    try:
        text = decode_text(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {what}: {error}") from None
    if "\r" in (body := text.rstrip("\r\n")) and "\n" not in body:
        raise ValueError(f"{path}: {what}: found line ends of CR alone, expected LF or CR LF; save it again with those")
    # Files put together with `cat` may have a byte order mark before any line.
    lines = [line.removesuffix("\r").removeprefix("\ufeff") for line in text.split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines
