"""Files of torch.save, read with `weights_only=True` alone; what is damaged or of another kind is told in words."""

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
    """The contents of a file of torch.save, on the CPU: tensors and plain values only.

    torch does not compare the checksums that it writes (2.11: a file with zeros in its middle loads), so this does.

    Args:
        stand_ins: full name of a class or function in the file -> what is called in its place. Nothing of that name is
            imported.

    Raises:
        OSError: the file cannot be read. ValueError: it is damaged, of another kind, or holds other objects; the
            message says so, and the caller names the file.
    """
    with path.open("rb") as file:
        start = file.read(64)
    _verify_kind(start)
    if start.startswith(b"PK"):
        _verify_archive(path)
    try:
        with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in (stand_ins or {}).items()]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the unpickler fail in any way: KeyError, AssertionError, ...
        if _is_from_the_disk(error):
            raise
        raise ValueError(_reason(error)) from None


def _is_from_the_disk(error: Exception) -> bool:
    """Not from damaged contents, which give places to seek that no file has."""
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
    """Of the ZIP archive that torch.save writes: complete, and each member as its checksum says."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _verify_members([member.filename for member in members])
            for member in members:
                if member.CRC:  # torch can be told to write none
                    with archive.open(member) as data:
                        while data.read(_MEGABYTE):
                            pass
    except ValueError as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # BadZipFile, and whatever else zipfile makes of damaged bytes
        if _is_from_the_disk(error):
            raise
        raise ValueError(f"the file is damaged or cut short: {error or type(error).__name__}") from None


def _verify_members(names: list[str]) -> None:
    inside = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inside:
        raise ValueError("found a TorchScript archive; where it was made, save its state dict: "
                         "torch.save(torch.jit.load(FILE).state_dict(), NEW)")  # fmt: skip
    if "archive_format" in inside:
        raise ValueError("found an archive of torch.export; where it was made, save its state dict: "
                         "torch.save(torch.export.load(FILE).state_dict, NEW)")  # fmt: skip
    if any(name.endswith(".npy") for name in names):
        raise ValueError("found NumPy's .npz")
    if "data.pkl" not in inside:
        raise ValueError("found a ZIP archive that torch.save did not write")


def _reason(error: Exception) -> str:
    text = str(error)
    if found := re.search(r"GLOBAL ([\w.]+)", text):
        return (f"found an object of {found[1]}; a file of weights has tensors only: where it was made, save "
                "torch.save(model.state_dict(), NEW)")  # fmt: skip
    lines = text.splitlines() or [type(error).__name__]
    if "legacy .tar" in text or "Weights only load failed" in lines[0]:
        lines = ["its pickle cannot be read"]
    return f"the file is damaged or no file of torch.save: {lines[0]}"
