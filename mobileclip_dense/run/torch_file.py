"""Safe reading of torch.save files (`weights_only=True`), with clear errors for damaged files and other formats."""

import errno
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

_MEGABYTE = 1 << 20
_OTHER_FILES = (
    (b"version https://git-lfs", "a pointer of Git LFS; fetch the file itself with `git lfs pull`"),
    (b"<", "a web page; download the file itself"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"\x89HDF", "an HDF5 file; save its state dict with torch.save"),
)


def load_torch_file(path: Path, *, stand_ins: Mapping[str, Callable[..., Any]] | None = None) -> Any:
    """Load tensors and plain values from a torch.save file, on the CPU.

    The checksums in the file are verified. torch does not do that (2.11 loads a file with zeros in the middle).

    Args:
        path: the file.
        stand_ins: full name of a class or function in the file -> replacement that is called instead. The original is
            not imported.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged, has another format, or contains other objects. The message does not name the
            file.
    """
    with path.open("rb") as file:
        start = file.read(64)
    _verify_kind(start)
    if start.startswith(b"PK"):
        _verify_archive(path)
    try:
        with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in (stand_ins or {}).items()]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises exceptions of any type for damaged files
        if _is_from_the_disk(error):
            raise
        raise ValueError(_reason(error)) from None


def _is_from_the_disk(error: Exception) -> bool:
    """Whether an error is a disk error. Damaged contents lead to seeks to invalid positions (EINVAL)."""
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def _verify_kind(start: bytes) -> None:
    if not start:
        raise ValueError("the file is empty")
    if not start.strip(b"\0"):
        raise ValueError("the file begins with zeros; it was damaged when it was written or copied")
    for magic, kind in _OTHER_FILES:
        if start.startswith(magic):
            raise ValueError(f"found {kind}")


def _verify_archive(path: Path) -> None:
    """Check that the ZIP archive is complete, is one of torch.save, and that all checksums match."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _verify_members([member.filename for member in members])
            for member in members:
                if member.CRC:  # torch can be configured to write none
                    with archive.open(member) as data:
                        while data.read(_MEGABYTE):
                            pass
    except ValueError as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # zipfile raises exceptions of any type for damaged files
        if _is_from_the_disk(error):
            raise
        raise ValueError(f"the file is damaged or cut short: {error or type(error).__name__}") from None


def _verify_members(names: list[str]) -> None:
    inside = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inside:
        raise ValueError("found a TorchScript archive; save its state dict where it was created: "
                         "torch.save(torch.jit.load(FILE).state_dict(), NEW)")  # fmt: skip
    if "archive_format" in inside:
        raise ValueError("found an archive of torch.export; save its state dict where it was created: "
                         "torch.save(torch.export.load(FILE).state_dict, NEW)")  # fmt: skip
    if any(name.endswith(".npy") for name in names):
        raise ValueError("found NumPy's .npz")
    if "data.pkl" not in inside:
        raise ValueError("found a ZIP archive that torch.save did not write")


def _reason(error: Exception) -> str:
    text = str(error)
    if found := re.search(r"GLOBAL ([\w.]+)", text):
        return (f"found an object of {found[1]}, expected tensors only; save the state dict where it was created: "
                "torch.save(model.state_dict(), NEW)")  # fmt: skip
    lines = text.splitlines() or [type(error).__name__]
    if "legacy .tar" in text or "Weights only load failed" in lines[0]:
        lines = ["its pickle cannot be read"]
    return f"the file is damaged or not a file of torch.save: {lines[0]}"
