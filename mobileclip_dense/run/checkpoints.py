"""The training checkpoints of a run: checkpoints/last.pt, and previous.pt, the one before. Both are kept on disk."""

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mobileclip_dense.artifact.files import staged_file
from mobileclip_dense.run.torch_file import load_torch_file


def checkpoint_file(run: Path) -> Path:
    """The path of a run's newest checkpoint."""
    return run / "checkpoints" / "last.pt"


@contextmanager
def staged_checkpoint(path: Path) -> Iterator[Path]:
    """A temporary path that replaces last.pt if the block succeeds. The old last.pt becomes previous.pt.

    There is a complete checkpoint at any time: if the process is killed between the two renames, previous.pt remains,
    and `settle_checkpoints` uses it. Incomplete files of killed processes are deleted.
    """
    for stale in path.parent.glob(f".{path.stem}.partial-*"):
        stale.unlink(missing_ok=True)
    with staged_file(path) as staging:
        yield staging
        with staging.open("rb+") as file:
            # If the rename reached the disk before the contents, a power loss would leave zeros.
            os.fsync(file.fileno())
        if path.exists():
            path.replace(_previous(path))


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a training state (tensors and plain values) as last.pt. The old last.pt becomes previous.pt.

    Raises:
        OSError: the disk is full. The checkpoints are unchanged.
    """
    with staged_checkpoint(path) as staging:
        try:
            torch.save(state, staging)
        except RuntimeError as error:  # torch reports a failed write as RuntimeError
            raise OSError(f"{path}: checkpoint: could not be written ({error}); is the disk full?") from None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a training state (tensors and plain values) that `save_checkpoint` wrote.

    Raises:
        ValueError: the file is damaged or is not a training state.
    """
    try:
        state = load_torch_file(path)
    except ValueError as error:
        raise ValueError(f"{path}: checkpoint: {error}") from None
    if not isinstance(state, dict):
        raise ValueError(f"{path}: checkpoint: found a {type(state).__name__}, expected a training state")
    return state


def settle_checkpoints(run: Path, fields: Collection[str]) -> None:
    """Make sure that last.pt of an incomplete run is readable, if the run has checkpoints.

    If last.pt is damaged or missing, previous.pt replaces it, with a warning on stderr.

    Args:
        run: the run folder.
        fields: the fields of a training state of this command.

    Raises:
        ValueError: neither last.pt nor previous.pt is readable.
    """
    last = checkpoint_file(run)
    previous = _previous(last)
    if (run / "run.json").exists() or not (last.exists() or previous.exists()):
        return
    fault = _fault_of(last, fields)
    if fault is None:
        return
    other = _fault_of(previous, fields)
    if other is not None:
        raise ValueError(f"{fault}; {other}; there is no other checkpoint to resume from; start over with --force, or "
                         "choose another --out")  # fmt: skip
    previous.replace(last)
    print(f"warning: {fault}; resuming from the checkpoint before it, {previous}", file=sys.stderr)


def _previous(last: Path) -> Path:
    return last.with_name("previous.pt")


def _fault_of(checkpoint: Path, fields: Collection[str]) -> str | None:
    if not checkpoint.exists():
        return f"{checkpoint}: checkpoint: no such file"
    try:
        missing = sorted(set(fields) - set(load_checkpoint(checkpoint)))
    except ValueError as error:
        return str(error)
    return f"{checkpoint}: checkpoint: fields missing: {', '.join(missing)}" if missing else None
