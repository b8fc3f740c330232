"""Lists that people write: UTF-8, one entry to a line."""

from pathlib import Path


def decode_text(data: bytes) -> str:
    """UTF-8, without the byte order mark that Windows puts in front.

    Raises:
        ValueError: not UTF-8; says what it looks like.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError("found UTF-16, expected UTF-8 text; save it again as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"found byte {data[error.start]:#04x} at {error.start}, expected UTF-8 text; save it again as "
                         "UTF-8") from None  # fmt: skip


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a text file, without their ends (LF or CR LF); empty lines too, but for those at the end.

    Only these two end a line: `str.splitlines` also cuts at U+2028, form feeds and others, which captions may hold.

    Args:
        what: names the list in errors.

    Raises:
        FileNotFoundError: no such file. ValueError: not UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {what}: no such file")
    try:
        text = decode_text(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {what}: {error}") from None
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines
