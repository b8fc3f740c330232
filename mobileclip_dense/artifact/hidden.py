"""Hidden files and folders, which operating systems and programs create in data sets."""

from pathlib import PurePosixPath


def is_hidden(name: str) -> bool:
    """Whether a path in a data set is hidden or in a hidden folder.

    Hidden are `__MACOSX` (macOS) and all names that begin with a dot: `.ipynb_checkpoints` (Jupyter), `._NAME` and
    `.DS_Store` (macOS), and others.

    Args:
        name: path relative to the data set, since folders above it may be hidden.
    """
    return any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in PurePosixPath(name).parts)
