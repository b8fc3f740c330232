"""Hidden files and folders, which operating systems and programs leave among data."""

from pathlib import PurePosixPath


def is_hidden(name: str) -> bool:
    """Whether a path inside a data set is hidden, or in a hidden folder.

    `.ipynb_checkpoints` (Jupyter), `._NAME`, `.DS_Store` and `__MACOSX` (macOS), and everything else that begins with
    a dot.

    Args:
        name: relative to the data set: what lies above is the user's own.
    """
    return any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in PurePosixPath(name).parts)
