"""The training states of a run: checkpoints/last.pt, and previous.pt, the one before. A run takes the space of both."""

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
    """The newest checkpoint of a run."""
    return run / "checkpoints" / "last.pt"


@contextmanager
def staged_checkpoint(path: Path) -> Iterator[Path]:
    """A temporary name beside last.pt that replaces it when the block ends well; what was last.pt is then previous.pt.

    At every moment one of the three is a complete checkpoint: whoever is killed between the two renames leaves
    previous.pt alone, from which `settle_checkpoints` goes on. What a killed process left half-written is removed.
    """
    for stale in path.parent.glob(f".{path.stem}.partial-*"):
        stale.unlink(missing_ok=True)
    with staged_file(path) as staging:
        yield staging
        with staging.open("rb+") as file:
            # A rename that reaches the disk before the contents leaves zeros after a power loss.
            os.fsync(file.fileno())
        if path.exists():
            path.replace(_previous(path))


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a training state (tensors and plain values) as last.pt, and keep the one before as previous.pt.

    Raises:
        OSError: the disk is full; the checkpoints are untouched.
    """
    with staged_checkpoint(path) as staging:
        try:
            torch.save(state, staging)
        except RuntimeError as error:  # torch reports a failed write as RuntimeError
            raise OSError(f"{path}: checkpoint: could not be written ({error}); is the disk full?") from None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; tensors and plain values only.

    Raises:
        ValueError: the file is damaged, or is no training state.
    """
    try:
        state = load_torch_file(path)
    except ValueError as error:
        raise ValueError(f"{path}: checkpoint: {error}") from None
    if not isinstance(state, dict):
        raise ValueError(f"{path}: checkpoint: found a {type(state).__name__}, expected a training state")
    return state


def settle_checkpoints(run: Path, fields: Collection[str]) -> None:
    """Make last.pt of a run the newest checkpoint that can be read; there may be none.

    A damaged last.pt is replaced by previous.pt, with a warning on stderr; so is one that is not there. Nothing is done
    to a complete run.

    Args:
        fields: what a training state of this kind holds.

    Raises:
        ValueError: last.pt is damaged, and previous.pt is too, or is not there.
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
        raise ValueError(f"{fault}; {other}; there is no other checkpoint to resume from: start over with --force, or "
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
    return f"{checkpoint}: checkpoint: {', '.join(missing)} missing: no training state" if missing else None
