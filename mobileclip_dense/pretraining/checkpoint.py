"""What a pretraining run must remember to go on as if it had never been interrupted."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from open_clip.model import CLIP, CustomTextCLIP
from timm.utils import ModelEmaV3

from mobileclip_dense.data.captioned.stream import Position
from mobileclip_dense.pretraining.randomness import random_states, set_random_states
from mobileclip_dense.run.checkpoints import checkpoint_file, load_checkpoint, save_checkpoint

FIELDS = ("model", "optimizer", "step", "processes")  # of a training state; "average" where there is one


def save_training(
    run: Path, clip: CLIP | CustomTextCLIP, average: ModelEmaV3 | None, optimizer: torch.optim.Optimizer, *, step: int,
    positions: list[Position | None],
) -> None:  # fmt: skip
    """Write the checkpoint; every process calls this, the first one writes.

    Args:
        average: moving average of the weights. step: optimizer steps done.
        positions: of this process's loader workers after the batches that were trained on.
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
    """Load the checkpoint of a run, if there is one: steps done, and where each loader worker of this process stands.

    Raises:
        ValueError: it was written by another number of processes or loader workers, which read other samples; or not
            all processes find it; or it is of another model.
    """
    path = checkpoint_file(run)
    state = load_checkpoint(path) if path.exists() else None
    steps = gather_objects(0 if state is None else int(state["step"]))
    if len(set(steps)) > 1:  # they would train on, each by its own schedule, and the last wait for ever
        raise ValueError(f"{path}: found at step {' and '.join(map(str, sorted(set(steps))))} by different processes; "
                         f"--out has to be a folder that all machines share")  # fmt: skip
    if state is None:
        return 0, [None] * max(1, num_workers)
    written = (len(state["processes"]), len(state["processes"][0]["positions"]))
    if written != (world_size, max(1, num_workers)):
        raise ValueError(
            f"{path}: written by {written[0]} processes x {written[1]} loader workers, found {world_size} x "
            f"{max(1, num_workers)}; resume with as many, or start over with --force"
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
    """`value` of every process, in the order of their ranks."""
    if not dist.is_initialized():
        return [value]
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, value)
    return everyone
