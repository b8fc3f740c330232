"""The checkpoint of a pretraining run: everything needed to resume it exactly."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from open_clip.model import CLIP, CustomTextCLIP
from timm.utils import ModelEmaV3

from mobileclip_dense.data.captioned.stream import Position
from mobileclip_dense.pretraining.randomness import random_states, set_random_states
from mobileclip_dense.run.checkpoints import checkpoint_file, load_checkpoint, save_checkpoint

FIELDS = ("model", "optimizer", "step", "processes")  # of a checkpoint; "average" is optional


def save_training(
    run: Path, clip: CLIP | CustomTextCLIP, average: ModelEmaV3 | None, optimizer: torch.optim.Optimizer, *, step: int,
    positions: list[Position | None],
) -> None:  # fmt: skip
    """Write the checkpoint. Every process must call this function; the first process writes the file.

    Args:
        run: folder of the run.
        average: moving average of the weights, None without one.
        step: number of completed optimizer steps.
        positions: for each loader worker of this process, its position after the last batch trained on.
    """
    processes = gather_objects({"positions": positions, "random": random_states(clip.logit_scale.device)})
    if dist.is_initialized() and dist.get_rank() != 0:
        return
    state = {"model": clip.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "processes": processes}
    if average is not None:
        state["average"] = average.module.state_dict()
    save_checkpoint(checkpoint_file(run), state)


def resume_training(
    run: Path, clip: CLIP | CustomTextCLIP, average: ModelEmaV3 | None, optimizer: torch.optim.Optimizer, *,
    rank: int, world_size: int, num_workers: int,
) -> tuple[int, list[Position | None]]:  # fmt: skip
    """Load the checkpoint of a run if it exists.

    Returns:
        The number of completed steps, and the position of each loader worker of this process.

    Raises:
        ValueError: the numbers of processes or loader workers differ from those of the checkpoint (the workers would
            read other samples); or the processes do not all find the same checkpoint; or it is of another model.
    """
    path = checkpoint_file(run)
    state = load_checkpoint(path) if path.exists() else None
    steps = gather_objects(0 if state is None else int(state["step"]))
    if len(set(steps)) > 1:  # processes with different numbers of remaining steps would end in a deadlock
        raise ValueError(f"{path}: found at step {' and '.join(map(str, sorted(set(steps))))} by different processes; "
                         f"--out has to be a folder that all machines share")  # fmt: skip
    if state is None:
        return 0, [None] * max(1, num_workers)
    written = (len(state["processes"]), len(state["processes"][0]["positions"]))
    if written != (world_size, max(1, num_workers)):
        raise ValueError(
            f"{path}: processes: found {world_size} with {max(1, num_workers)} loader workers each, expected "
            f"{written[0]} with {written[1]} as in the checkpoint; resume with those, or start over with --force"
        )
    own = state["processes"][rank]
    try:
        clip.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.module.load_state_dict(state["average"])
        set_random_states(clip.logit_scale.device, own["random"])
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: checkpoint: does not fit this run ({reason}); start over with --force") from None
    return steps[0], own["positions"]


def gather_objects(value: Any) -> list[Any]:
    """The `value` of every process, in rank order."""
    if not dist.is_initialized():
        return [value]
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, value)
    return everyone
