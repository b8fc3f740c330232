"""Groups of local gloo processes, forked from a process that has already imported torch."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch


def run_world(job: Callable[..., Any], world_size: int, folder: Path, *arguments: Any) -> list[Any]:
    """Run `job(rank, *arguments)` in each process of a new default process group, and return the results."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mobileclip_dense.pretraining.loop", "mobileclip_dense.dense.training.train",
                                    "tests.frozen"])  # fmt: skip
    rendezvous = str(folder / f"world{world_size}")
    with ProcessPoolExecutor(world_size, mp_context=context) as pool:
        return [each.result() for each in [pool.submit(_join, rank, world_size, rendezvous, job, arguments)
                                           for rank in range(world_size)]]  # fmt: skip


def _join(rank: int, world_size: int, rendezvous: str, job: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size,
                                         timeout=timedelta(seconds=60))  # fmt: skip
    try:
        return job(rank, *arguments)
    finally:
        torch.distributed.destroy_process_group()
