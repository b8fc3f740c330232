"""Who may replace a folder: the one rule that every command follows which writes one.

A folder is replaced only with --force, only where it is known by its files as the same kind of output and holds nothing
else, and only where no input of the command is it, lies in it or has it inside. Everything else is refused, so that a
wrong --out costs a message and no data.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from mobileclip_dense.artifact.files import naming_full_disk
from mobileclip_dense.artifact.lock import LOCK_NAME


@dataclass(frozen=True, kw_only=True)
class OutputKind:
    """A kind of folder that a command writes.

    Attributes:
        name: with its article, for messages. markers: files of which at least one is in every such folder, however
            early it was left. contents: patterns of all that may be in it (`*` also stands for slashes).
    """

    name: str
    markers: tuple[str, ...]
    contents: tuple[str, ...]


RUN = OutputKind(
    name="a run",
    markers=("config.json",),
    contents=("config.json", "run.json", "metrics.jsonl", "metrics.damaged.jsonl", "weights.safetensors",
              "structure.json", "open_clip_config.json", "checkpoints/*", "evaluation/*", "tensorboard/*"),
)  # fmt: skip
EVALUATION = OutputKind(
    name="an evaluation",
    markers=("evaluation.json",),
    contents=("evaluation.json", "evaluation.html", "*.png", "worst/*.png"),
)
SCENES = OutputKind(
    name="a set of generated scenes",
    markers=("scenes.json",),
    contents=("scenes.json", "shards/*.tar", "ade/images/*.jpg", "ade/annotations/*.png", "ade/objectInfo150.csv",
              "nyu/images/*.jpg", "nyu/annotations/*.png", "coco/*.jpg", "coco/annotations/instances_*2017.json",
              "classify/*.jpg", "classify/class_names.txt"),
)  # fmt: skip
JOINED = OutputKind(
    name="joined shards", markers=("index.sqlite", "join.json"), contents=("index.sqlite*", "join.json", "*.tar")
)
REINFORCED = OutputKind(
    name="reinforced shards",
    markers=("reinforcement.json",),
    contents=("reinforcement.json", "train/*.tar", "val/*.tar"),
)
CONVERTED = OutputKind(
    name="converted weights",
    markers=("open_clip_config.json",),
    contents=("open_clip_config.json", "weights.safetensors"),
)
UNPACKED = OutputKind(
    name="an unpacked NYUv2", markers=("source.json",), contents=("source.json", "images/*", "annotations/*")
)
WEB_PAGE = OutputKind(
    name="a page of the demos",
    markers=("models/index.json",),
    contents=("index.html", "assets/*", "models/*", "samples/*"),
)

_LEFT_BY_WRITERS = (LOCK_NAME, ".*.partial-*", "*/.*.partial-*", ".DS_Store", "*/.DS_Store")


def claim_folder(
    out: Path, kind: OutputKind, *, force: bool, inputs: Mapping[str, Path | None], own: Path | None = None
) -> bool:
    """Whether `out` is there and may be replaced; False where nothing is there.

    Args:
        inputs: what the command reads, by flag; None where a flag was not given.
        own: a place inside an input that is this command's own, such as RUN/evaluation.

    Raises:
        FileExistsError: there is something, and --force was not given or it must not be replaced.
    """
    if not os.path.lexists(out):
        return False
    if not force:
        raise FileExistsError(f"{out}: already exists; choose another name, or pass --force to replace it")
    refusal = f"{out}: is not replaced:"
    if out.is_symlink() or not out.is_dir():
        raise FileExistsError(f"{refusal} found a {'link' if out.is_symlink() else 'file'}, expected {kind.name}; "
                              "choose another name")  # fmt: skip
    place = out.resolve()
    for flag, path in inputs.items():
        source = None if path is None else path.resolve()
        if source is None or not source.exists():
            continue
        if place == source:
            raise FileExistsError(f"{refusal} it is {flag} itself; choose another name")
        if place in source.parents:
            raise FileExistsError(f"{refusal} it holds {flag}, {path}; choose another name")
        if source in place.parents and (own is None or place != own.resolve()):
            raise FileExistsError(f"{refusal} it lies in {flag}, {path}; choose another name")
    if (foreign := _foreign_file(out, kind)) is not None:
        raise FileExistsError(f"{refusal} found {foreign}, which is not of {kind.name}; move it away, or choose "
                              "another name")  # fmt: skip
    return True


def _foreign_file(folder: Path, kind: OutputKind) -> str | None:
    """Something in a folder that tells that it is not of a kind, None where it is."""
    files = [path.relative_to(folder).as_posix() for path in _walk(folder)]
    for name in files:
        if not any(fnmatchcase(name, pattern) for pattern in kind.contents + _LEFT_BY_WRITERS):
            return name
    own = [name for name in files if not any(fnmatchcase(name, pattern) for pattern in _LEFT_BY_WRITERS)]
    if any(name in kind.markers for name in own) or not own:
        return None
    return f"no {' or '.join(kind.markers)}"


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        yield from (Path(root) / name for name in files)
        yield from (Path(root) / name for name in folders if (Path(root) / name).is_symlink())


def remove_claimed(out: Path) -> None:
    """Delete a folder that `claim_folder` allows to be replaced; call it when all inputs were opened."""
    shutil.rmtree(set_aside(out))  # renamed first, so that nobody meets half of it


def set_aside(out: Path) -> Path:
    """Give a folder that is to be replaced a hidden name beside it; returns that name."""
    aside = out.with_name(f".{out.name}.replaced-{os.getpid()}")
    out.rename(aside)
    return aside


@contextmanager
def staged_folder(
    out: Path, kind: OutputKind, *, force: bool = False, inputs: Mapping[str, Path | None], own: Path | None = None
) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its name when the block ends well and vanishes when it does not.

    What is replaced is deleted last. What appeared at `out` meanwhile, by another process, is not touched.

    Args: as of `claim_folder`.

    Raises:
        FileExistsError: see `claim_folder`; or `out` appeared or changed while the block ran.
    """
    seen = _identity(out) if claim_folder(out, kind, force=force, inputs=inputs, own=own) else None
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = out.with_name(f".{out.name}.partial-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        with naming_full_disk(out):
            yield staging
        if seen is not None and _identity(out) == seen:
            claim_folder(out, kind, force=force, inputs=inputs, own=own)  # with what was put into it meanwhile
            replaced = set_aside(out)
            staging.rename(out)
            shutil.rmtree(replaced)
        else:
            _rename_to_free(staging, out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _rename_to_free(staging: Path, out: Path) -> None:
    try:
        if os.path.lexists(out):  # an empty folder, which a rename would replace
            raise FileExistsError
        staging.rename(out)
    except OSError as error:
        if not os.path.lexists(out):
            raise
        raise FileExistsError(f"{out}: appeared while it was being written, by another process; that one is kept and "
                              "this one dropped; choose another name, or repeat the command") from error  # fmt: skip
