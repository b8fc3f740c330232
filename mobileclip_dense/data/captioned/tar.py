"""Byte for byte reproducible tars of webdataset samples."""

import io
import tarfile
from collections.abc import Mapping

_BLOCK = 512  # bytes: a member's header, and what its contents are filled up to


def add_sample(tar: tarfile.TarFile, key: str, members: Mapping[str, bytes]) -> None:
    """Append the members of a sample, by suffix, as KEY.SUFFIX. Owner, mode and time are constants."""
    for suffix, data in members.items():
        info = tarfile.TarInfo(f"{key}.{suffix}")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def padded_size(num_bytes: int) -> int:
    """Bytes that contents of `num_bytes` take up in a tar."""
    return -(-num_bytes // _BLOCK) * _BLOCK


def member_size(num_bytes: int) -> int:
    """The same with the member's header."""
    return _BLOCK + padded_size(num_bytes)
