"""Reinforcing on a Ray cluster: one task per shard, which restarts on another worker if its worker dies."""

import io
import logging
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import lru_cache
from typing import Any

from mobileclip_dense.config import ReinforceConfig
from mobileclip_dense.pretraining.reinforced_shard import Counts, Job, Progress, Workshop, reinforce_shard

_CPUS_PER_GPU_TASK = 8  # for the loader processes of a task with a GPU


def reinforce_on_ray(
    config: ReinforceConfig, jobs: list[Job], open_folder: Callable[[dict[str, Any]], None], progress: Progress
) -> Counts:
    """Reinforce `jobs` on the cluster at RAY_ADDRESS, or on a temporary local cluster without that variable.

    The folders must have the same path on every machine of the cluster.

    Args:
        open_folder: called with the record of a worker (`Workshop.describe`) before the first shard is started.
        progress: called after each complete shard.

    Returns:
        The counts summed over all shards.

    Raises:
        ValueError: Ray is not installed, or an error of `reinforce_shard`.
        ChildProcessError: the worker of a shard died more than `config.max_retries` times.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise ValueError("--engine ray: Ray is not installed; pip install 'mobileclip-dense[ray]'") from None
    from ray.exceptions import RayError, RayTaskError

    total = Counts()
    ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    try:
        gpus = config.gpus_per_task
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        cpus = max(1, (config.num_workers if config.num_workers is not None else _CPUS_PER_GPU_TASK) if gpus else 1)
        options = {"num_gpus": gpus, "num_cpus": cpus, "max_retries": config.max_retries}
        # Ray prints a paragraph about each dead worker to stdout, into the progress bar. The final table counts them.
        with redirect_stdout(io.StringIO()):
            record = ray.get(ray.remote(_describe).options(**options).remote(config))
            open_folder(record)
            task = ray.remote(_reinforce).options(**options)
            running = {task.remote(config, job, record): job for job in jobs}
            while running:
                (ready,), _ = ray.wait(list(running), num_returns=1)
                job, counts = running.pop(ready), ray.get(ready)
                progress(counts.images, job.shard.stat().st_size)
                total.add(counts)
        return total
    except RayTaskError as error:
        if isinstance(error.cause, ValueError | OSError):
            raise error.cause from None
        raise
    except RayError as error:
        raise ChildProcessError(
            f"a worker died {config.max_retries + 1} times on the same shard ({type(error).__name__}); if it ran out "
            f"of memory, lower --batch-size or --num-workers. Repeat the command to resume; complete shards are kept"
        ) from None
    finally:
        ray.shutdown()


@lru_cache(maxsize=1)
def _workshop(config: ReinforceConfig) -> Workshop:
    """The workshop, loaded once per worker process: Ray reuses a process for further tasks."""
    return Workshop(config)


def _describe(config: ReinforceConfig) -> dict[str, Any]:
    return _workshop(config).describe()


def _reinforce(config: ReinforceConfig, job: Job, record: dict[str, Any]) -> Counts:
    workshop = _workshop(config)
    if workshop.describe() != record:
        raise ValueError(f"{job.shard}: teachers or captions: found {workshop.describe()} on this machine, expected "
                         f"{record} as on the others; copy the same files to all machines")  # fmt: skip
    if job.out.exists():  # an earlier worker died after renaming the shard
        return Counts()
    return reinforce_shard(job, workshop)
