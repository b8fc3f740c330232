"""What in a file tells of the machine and the code that made it."""

import getpass
import re
import socket
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.conftest import REPOSITORY

_PACKAGES = ("mobileclip_dense", "export", "apps", "benchmarks")
_FOLDERS = (Path.home(), REPOSITORY, Path(sys.prefix), Path(sys.base_prefix), Path(tempfile.gettempdir()))
_TEXT = re.compile(rb"[\x20-\x7e]{16,}")  # runs of printable characters; shorter ones turn up by chance in weights


def find_traces(folder: Path) -> list[str]:
    """Paths, names of our Python modules, stack traces, user and host names in the files of `folder`, with the file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [f"{path.relative_to(folder)}: {trace}" for path in files for trace in _traces_in(path)]


def _traces_in(path: Path) -> list[str]:
    text = "\n".join(run.decode("ascii") for run in _TEXT.findall(_contents(path)))
    names = [getpass.getuser(), socket.gethostname()] if path.name != "tokenizer.json" else []  # a list of words
    modules = [
        ".".join(source.relative_to(REPOSITORY).with_suffix("").parts)
        for package in _PACKAGES
        for source in (REPOSITORY / package).rglob("*.py")
        if source.name != "__init__.py"
    ]
    needles = [re.escape(str(folder)) for folder in _FOLDERS if len(folder.parts) > 1]
    needles += [rf"\b{re.escape(name)}\b" for name in (*names, *modules)]
    needles += ['File "', "stack_trace", "Traceback", "site-packages"]
    return re.findall("|".join(needles), text)


def _contents(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return b"\n".join(archive.read(name) for name in archive.namelist())
