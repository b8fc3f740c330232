"""Deterministic tars of webdataset samples."""

import io
import tarfile
from collections.abc import Mapping

_BLOCK = 512  # bytes of a member's header; contents are padded to a multiple of it


def add_sample(tar: tarfile.TarFile, key: str, members: Mapping[str, bytes]) -> None:
    """Append the members of a sample (suffix -> contents) as KEY.SUFFIX. Owner, mode and time are constant."""
    for suffix, data in members.items():
        info = tarfile.TarInfo(f"{key}.{suffix}")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def padded_size(num_bytes: int) -> int:
    """Size in a tar, in bytes, of contents of `num_bytes`."""
    return -(-num_bytes // _BLOCK) * _BLOCK


def member_size(num_bytes: int) -> int:
    """Size in a tar, in bytes, of a member with contents of `num_bytes`, header included."""
    return _BLOCK + padded_size(num_bytes)
