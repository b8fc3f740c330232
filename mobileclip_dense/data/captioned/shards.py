"""Webdataset shards, local and remote: listing shards, and reading samples from any position in a shard.

A shard is an uncompressed tar. Consecutive files with the same path up to the first dot of their name (the key) are the
members of a sample. The rest of the name is the member's suffix: jpg, txt, json (img2dataset), syn.json, paug.json,
pth.gz (DataCompDR).
"""

import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, Self
from urllib.parse import urlparse

import fsspec
from webdataset.gopen import gopen, gopen_schemes
from webdataset.shardlists import expand_urls

from mobileclip_dense.artifact.hidden import is_hidden

_READ_AHEAD = 1 << 20
UNREADABLE = (OSError, EOFError, ValueError, tarfile.TarError, zlib.error)


class Sample(NamedTuple):
    """A raw sample, or the error that ended the reading of a shard.

    Attributes:
        shard: path or URL of the shard.
        key: key of the sample.
        members: contents by suffix; empty if the shard could not be read further.
        fault: the error in the shard; None for a sample.
    """

    shard: str
    key: str
    members: dict[str, bytes]
    fault: str | None = None


class StrictHeader(tarfile.TarInfo):
    """A tar header that raises if it is damaged or missing. tarfile's own treats that as the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error or 'no end marker'} at byte {tarfile_.offset}") from None


def list_shards(source: str | Path, split: str) -> list[str]:
    """Shards of a source: a folder with SPLIT/*.tar (for "train" also plain *.tar), or files or URLs with brace ranges.

    Args:
        source: e.g. `scenes/shards`, `DIR/{00000..00127}.tar`, `s3://bucket/{00000..00127}.tar`, `pipe:COMMAND`.
            Everything but a folder is split "train".
        split: "train" or "val".

    Raises:
        FileNotFoundError: the folder or a local shard is missing, or the split has no shards.
        ValueError: no installed library supports the URL's scheme. The message says what to install.
    """
    text = str(source)
    expected = (
        "expected a folder of webdataset shards with train/ and val/ (see shards/ of `mobileclip-dense scenes`), or a "
        "brace range of shards (DIR/{00000..00127}.tar)"
    )
    if Path(text).is_dir():
        folders = [Path(text) / split, *([Path(text)] if split == "train" else [])]
        for folder in folders:
            if shards := sorted(str(path) for path in folder.glob("[!.]*.tar")):  # hidden ones are incomplete
                return shards
        raise FileNotFoundError(f"{folders[0]}: shards: found no *.tar; {expected}")
    if not _scheme(text) and not text.endswith(".tar"):
        raise FileNotFoundError(f"{Path(text) / split}: shards: no such folder; {expected}")
    if split != "train":
        raise FileNotFoundError(f"{text}: shards: a list of shards has no {split} split; pass a folder")
    shards = [text] if text.startswith("pipe:") and "{" not in text else list(expand_urls(text))
    missing = [shard for shard in shards if not _scheme(shard) and not Path(shard).is_file()]
    if missing:
        raise FileNotFoundError(f"{missing[0]}: shards: no such file ({len(missing)} of {len(shards)} are missing)")
    for scheme in {_scheme(shard) for shard in shards} - {"", *gopen_schemes}:
        try:
            fsspec.get_filesystem_class(scheme)
        except (ImportError, ValueError) as error:
            raise ValueError(f"{text}: shards: {error}") from None
    return shards


def _scheme(shard: str) -> str:
    scheme = urlparse(shard).scheme
    return "" if len(scheme) < 2 else scheme  # a single letter is a Windows drive


def open_shard(shard: str) -> IO[bytes]:
    """Open a shard for reading: locally, with webdataset (http, https, gs, hf, pipe), or with fsspec (s3 and others).

    Raises:
        OSError: the shard cannot be opened.
        ValueError: no installed library supports the URL's scheme.
    """
    scheme = _scheme(shard)
    if scheme in ("", "file"):
        return Path(shard.removeprefix("file://")).open("rb", buffering=_READ_AHEAD)
    if scheme in gopen_schemes:
        return gopen(shard)
    return open_seekable(shard)


def open_seekable(shard: str) -> IO[bytes]:
    """Open a shard for random access, with fsspec (local files included, pipes not).

    Raises:
        OSError: the shard cannot be opened.
        ValueError: no installed library supports the URL's scheme.
    """
    try:
        return fsspec.open(shard, "rb").open()
    except ImportError as error:
        raise ValueError(f"{shard}: {error}") from None


def read_samples(shard: str, start: int = 0) -> Iterator[Sample]:
    """The samples of a shard, from index `start` on.

    If the shard cannot be opened, is truncated or has no samples, the last item is a `Sample` with a fault.
    """
    number, key = 0, ""  # `number` counts the samples, the current one included
    members: dict[str, bytes] = {}
    try:
        for name, read in _iterate_members(shard):
            found_key, suffix = split_name(name)
            if found_key != key:
                if members:
                    yield Sample(shard, key, members)
                number, key, members = number + 1, found_key, {}
            if number > start:
                members[suffix] = read()
    except UNREADABLE as error:
        yield Sample(shard, key, {}, f"{type(error).__name__}: {error}")
        return
    if members:
        yield Sample(shard, key, members)
    if not number:
        yield Sample(shard, "", {}, "no sample in it")


def split_name(name: str) -> tuple[str, str]:
    """Key and suffix of a member's name: `a/b.syn.json` -> (`a/b`, `syn.json`)."""
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return folder + slash + stem, suffix.lower()


def _iterate_members(shard: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The name of each file in a tar (hidden ones excluded), and a function that reads it.

    The function must be called before the iterator advances.
    """
    file = open_shard(shard)
    try:
        seekable = getattr(file, "seekable", lambda: False)()  # webdataset's pipes have no such method
        with tarfile.open(fileobj=file, mode="r:" if seekable else "r|", tarinfo=StrictHeader) as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # otherwise tarfile keeps all headers in memory
                if info.isfile() and not is_hidden(info.name):
                    yield info.name, partial(_read_member, tar, info)
    finally:
        with suppress(OSError):  # raised by a pipe that is closed early
            file.close()


def _read_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(info)
    assert content is not None
    return content.read()
