"""Inputs of the demos: photographs, folders, patterns, videos and cameras."""

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobileclip_dense.artifact.hidden import is_hidden
from mobileclip_dense.artifact.images import IMAGE_SUFFIXES

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
Kind = Literal["image", "video", "camera"]


@dataclass(frozen=True, kw_only=True)
class Input:
    """One image, video or camera.

    Attributes:
        source: path of a file, or camera:INDEX. kind: how it is read.
        name: unique name for its results, without a suffix; may contain folders.
    """

    source: str
    kind: Kind
    name: str


def find_inputs(arguments: Sequence[str], out: Path) -> tuple[list[Input], dict[str, str]]:
    """Find all inputs of the arguments in order, each file once, and an error message for each unusable argument.

    A folder stands for the images in it and in its subfolders, a pattern (`*`, `?`, `[...]`, `**`) for the images and
    videos that match it. Both are sorted and skip hidden files and files inside `out`.
    """
    inputs: list[Input] = []
    problems: dict[str, str] = {}
    seen: set[str] = set()
    taken: set[str] = set()
    for argument in arguments:
        try:
            found = list(_expand(argument, out.resolve()))
        except (ValueError, OSError) as error:  # OSError: a name that is too long, a folder that may not be read
            problems[argument] = str(error)
            continue
        for source, kind, wanted in found:
            identity = source if kind == "camera" else str(Path(source).resolve())
            if identity not in seen:
                seen.add(identity)
                inputs.append(Input(source=source, kind=kind, name=_unused(wanted, taken)))
    return inputs, problems


def _expand(argument: str, out: Path) -> Iterator[tuple[str, Kind, str]]:
    """Source, kind and preferred name of each input of one argument."""
    path = Path(argument)
    if camera := re.fullmatch(r"camera:(.*)", argument):
        if not re.fullmatch("[0-9]{1,2}", camera[1]):
            raise ValueError(f"{argument}: camera: found {camera[1]!r}, expected its number, such as camera:0, at most "
                             f"camera:99")  # fmt: skip
        yield argument, "camera", f"camera-{camera[1]}"
    elif path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if _wanted(file, path, out, IMAGE_SUFFIXES)]
        if not files:
            _refuse_results(argument, path, out)
            raise ValueError(f"{argument}: found no images in this folder, expected {', '.join(IMAGE_SUFFIXES)}")
        for file in files:
            yield str(file), "image", file.relative_to(path).with_suffix("").as_posix()
    elif glob.has_magic(argument) and not path.exists():
        root = _fixed_part(path)
        matches = sorted(Path(match) for match in glob.glob(argument, recursive=True))  # noqa: PTH207 (absolute ones too)
        files = [file for file in matches if _wanted(file, root, out, IMAGE_SUFFIXES + VIDEO_SUFFIXES)]
        if not files:
            _refuse_results(argument, root, out)
            raise ValueError(f"{argument}: no image or video matches this pattern")
        for file in files:
            yield str(file), _kind(file), file.relative_to(root).with_suffix("").as_posix()
    elif not path.is_file():
        raise ValueError(f"{argument}: no such file; expected an image, a video, a folder, a pattern or camera:0")
    else:
        yield argument, _kind(path), path.stem


def _kind(path: Path) -> Kind:
    return "video" if path.suffix.lower() in VIDEO_SUFFIXES else "image"


def _wanted(file: Path, root: Path, out: Path, suffixes: tuple[str, ...]) -> bool:
    hidden = is_hidden(str(file.relative_to(root)))
    return file.suffix.lower() in suffixes and not hidden and file.is_file() and out not in file.resolve().parents


def _refuse_results(argument: str, folder: Path, out: Path) -> None:
    if out in (folder.resolve(), *folder.resolve().parents):
        raise ValueError(f"{argument}: lies in --out, whose pictures are taken for results; choose another --out")


def _fixed_part(pattern: Path) -> Path:
    """The folders of a pattern before its first wildcard."""
    root = pattern.parent
    while glob.has_magic(str(root)):
        root = root.parent
    return root


def _unused(wanted: str, taken: set[str]) -> str:
    """`wanted`, with a number appended if the name is taken, as by a.jpg beside a.png."""
    name, number = wanted, 2
    while name.lower() in taken:
        name, number = f"{wanted}-{number}", number + 1
    taken.add(name.lower())
    return name
