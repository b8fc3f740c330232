"""Reading of text files written by users: UTF-8, one entry per line."""

from pathlib import Path


def decode_text(data: bytes) -> str:
    """Decode UTF-8 and remove the byte order mark that Windows programs write.

    Raises:
        ValueError: the data is not UTF-8, or contains NUL bytes.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError("found UTF-16, expected UTF-8 text; save it again as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"found byte {data[error.start]:#04x} at {error.start}, expected UTF-8 text; save it again as "
                         "UTF-8") from None  # fmt: skip
    if "\0" in text:
        raise ValueError("found NUL bytes (as in UTF-16), expected UTF-8 text; save it again as UTF-8")
    return text


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a text file without line ends (LF or CR LF). Empty lines are kept, except at the end.

    `str.splitlines` is not used, as it also splits at U+2028, form feeds and others, which captions may contain.

    Args:
        path: the file.
        what: name of the list in errors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not UTF-8, or its lines end with CR only.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {what}: no such file")
    try:
        text = decode_text(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {what}: {error}") from None
    if "\r" in (body := text.rstrip("\r\n")) and "\n" not in body:
        raise ValueError(f"{path}: {what}: found line ends of CR only, expected LF or CR LF; save it again with those")
    # Files joined with `cat` may have a byte order mark before any line.
    lines = [line.removesuffix("\r").removeprefix("\ufeff") for line in text.split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines
