"""Checks of caption text, shared by shards, caption files, training and analysis."""

import json
import unicodedata
from typing import Any

from mobileclip_dense.artifact.text import decode_text

_SILENT = {"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"}  # Unicode categories: control, format, surrogates, separators


def has_words(caption: str) -> bool:
    """Whether a caption contains anything but spaces, control and format characters."""
    return any(unicodedata.category(character) not in _SILENT for character in caption)


def verify_characters(caption: str, where: str) -> None:
    """Check that a caption has no characters that tokenizers fail on or treat as words.

    Args:
        where: location of the caption, for the error message.

    Raises:
        ValueError: the caption contains a NUL (UTF-16 read as UTF-8) or half of a surrogate pair.
    """
    if "\0" in caption:
        raise ValueError(f"{where}: found NUL characters in {caption[:40]!r}, expected text (is it UTF-16?)")
    if any("\ud800" <= character <= "\udfff" for character in caption):
        raise ValueError(f"{where}: found half a surrogate pair in {caption[:40]!r}, expected text")


def read_json(data: bytes, name: str) -> Any:
    """The value of a sample's JSON member.

    Raises:
        ValueError: the data is not UTF-8 or not JSON. The message begins with `name`.
    """
    try:
        return json.loads(decode_text(data))
    except (ValueError, RecursionError) as error:  # RecursionError: deeply nested lists
        raise ValueError(f"{name}: not valid JSON ({error})") from None
