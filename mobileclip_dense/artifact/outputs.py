"""Rules for replacing an output folder, shared by all commands that write one.

A folder is replaced only with --force, only if its files show that it is the same kind of output and contains nothing
else, and only if it is not an input of the command, does not contain one and is not inside one. Otherwise an error is
raised, so that a wrong --out never deletes data.
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
        name: name with article, for messages.
        markers: files that identify the kind. Even an incomplete folder contains at least one of them.
        contents: patterns of all files that the folder may contain (`*` also matches slashes).
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
    """Check that `out` may be written. Returns whether it exists and will be replaced.

    Args:
        out: the folder to write.
        kind: its kind.
        force: whether an existing folder may be replaced.
        inputs: inputs of the command, by flag; None for a flag that was not given.
        own: a folder inside an input that belongs to this command, such as RUN/evaluation.

    Raises:
        FileExistsError: `out` exists, and `force` is off or it must not be replaced.
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
            raise FileExistsError(f"{refusal} it contains {flag}, {path}; choose another name")
        if source in place.parents and (own is None or place != own.resolve()):
            raise FileExistsError(f"{refusal} it is inside {flag}, {path}; choose another name")
    if (foreign := _foreign_file(out, kind)) is not None:
        raise FileExistsError(f"{refusal} found {foreign}, expected only {kind.name}; move it away, or choose "
                              "another name")  # fmt: skip
    return True


def _foreign_file(folder: Path, kind: OutputKind) -> str | None:
    """A file that shows that a folder is not of a kind, or `no MARKER`; None if the folder is of that kind."""
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
    """Delete a folder that `claim_folder` allows to replace. Call it after all inputs are opened."""
    shutil.rmtree(set_aside(out))  # renamed first, so that a partly deleted folder is never visible


def set_aside(out: Path) -> Path:
    """Rename a folder that will be replaced to a hidden name next to it. Returns the new path."""
    aside = out.with_name(f".{out.name}.replaced-{os.getpid()}")
    out.rename(aside)
    return aside


@contextmanager
def staged_folder(
    out: Path, kind: OutputKind, *, force: bool = False, inputs: Mapping[str, Path | None], own: Path | None = None
) -> Iterator[Path]:
    """A temporary folder next to `out`. It is renamed to `out` if the block succeeds, and deleted if it fails.

    A folder that is replaced is deleted last. A folder that another process creates at `out` meanwhile is not changed.

    Args:
        out, kind, force, inputs, own: see `claim_folder`.

    Raises:
        FileExistsError: see `claim_folder`; or another process created `out` during the block.
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
            claim_folder(out, kind, force=force, inputs=inputs, own=own)  # again, as its contents may have changed
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
        if os.path.lexists(out):  # a rename would replace an empty folder
            raise FileExistsError
        staging.rename(out)
    except OSError as error:
        if not os.path.lexists(out):
            raise
        raise FileExistsError(f"{out}: was created by another process in the meantime and is not replaced; this output "
                              "was deleted; choose another name, or run the command again") from error  # fmt: skip
