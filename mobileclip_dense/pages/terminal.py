"""Text of unknown origin on a terminal: file names, prompts, messages of libraries."""


def printable(text: str) -> str:
    """The text on one line that every terminal can print.

    Line feeds, control characters and what UTF-8 cannot say (file names of another encoding) become escapes.
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )
