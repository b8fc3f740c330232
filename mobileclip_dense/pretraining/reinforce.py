"""`mobileclip-dense reinforce`: add teacher embeddings and synthetic captions to shards, in DataCompDR's format.

The output folder has a shard for each input shard, and reinforcement.json with the settings and models. Each shard is
written to a temporary file and renamed when it is complete, so that the shards in the folder are always complete.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mobileclip_dense.artifact.files import read_json, staged_file, write_json
from mobileclip_dense.artifact.lock import LOCK_NAME, locked_folder
from mobileclip_dense.artifact.outputs import REINFORCED, claim_folder, remove_claimed
from mobileclip_dense.config import ReinforceConfig
from mobileclip_dense.data.captioned.reinforced import SIDECAR
from mobileclip_dense.data.captioned.shards import list_shards
from mobileclip_dense.pages.progress import TrackedProgress
from mobileclip_dense.pretraining.reinforced_shard import Counts, Job, Workshop, reinforce_shard, remove_partials

_TIMEOUT_S = 1800  # for rank 0 to load its teachers and write reinforcement.json


def reinforce(config: ReinforceConfig) -> Counts:
    """Reinforce the shards of `config.data`/train that `config.out` lacks, and copy the shards of val.

    Under torchrun, each process takes its share of the shards. With `--engine ray`, each shard is a task.

    Raises:
        FileNotFoundError: there are no shards.
        FileExistsError: the folder was made with other settings, another process writes to it, or --force must not
            replace it (see `claim_folder`).
        ValueError: a teacher, a caption file or all samples of a shard are unusable; or --force is used under torchrun;
            or, after all other shards are complete, some shards are damaged.
        ChildProcessError: on Ray, the worker of a shard died repeatedly.
    """
    started = time.time()
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if config.force and world_size > 1:
        raise ValueError("--force: found several processes of torchrun, expected one; delete the folder yourself, or "
                         "choose another --out")  # fmt: skip
    shards = [Path(shard).absolute() for shard in list_shards(config.data, "train")]
    val_shards = list_shards(config.data, "val") if (config.data / "val").is_dir() else []
    jobs = [Job(shard=shard, out=config.out.absolute() / "train" / shard.name) for shard in shards]
    own = jobs[rank::world_size]
    todo = [job for job in own if config.force or not job.out.exists()]
    bar = _Bar(todo, shown=rank == 0)
    counts = _on_ray(config, todo, bar) if config.engine == "ray" else _in_process(config, todo, rank, bar)
    bar.close()
    if rank == 0:
        for shard in map(Path, val_shards):
            _copy(shard, config.out / "val" / shard.name)
    _print(config, counts, len(todo) - len(counts.damaged), len(own) - len(todo), time.time() - started)
    if counts.damaged:
        raise ValueError(f"{len(counts.damaged)} shards cannot be read to their end and were skipped; repair or "
                         f"remove them and repeat the command:\n" + "\n".join(counts.damaged))  # fmt: skip
    return counts


def _in_process(config: ReinforceConfig, jobs: list[Job], rank: int, bar: "_Bar") -> Counts:
    total, workshop = Counts(), Workshop(config)
    try:
        with _opened(config, workshop.describe(), rank):
            bar.begin()
            for job in jobs:
                total.add(reinforce_shard(job, workshop, bar.advance))
    finally:
        workshop.close()
    return total


def _on_ray(config: ReinforceConfig, jobs: list[Job], bar: "_Bar") -> Counts:
    from mobileclip_dense.pretraining.ray_engine import reinforce_on_ray

    with ExitStack() as until_the_end:

        def begin(record: dict[str, Any]) -> None:
            until_the_end.enter_context(_opened(config, record, rank=0))
            bar.begin()

        return reinforce_on_ray(config, jobs, begin, bar.advance)


@contextmanager
def _opened(config: ReinforceConfig, record: dict[str, Any], rank: int) -> Iterator[None]:
    """Open and lock `config.out` for the block, so that no other command writes to it."""
    if rank:
        open_folder(config.out, record, rank)
        yield
        return
    if config.force:
        _remove(config)
    config.out.mkdir(parents=True, exist_ok=True)
    with locked_folder(config.out):
        open_folder(config.out, record, rank)
        yield


def _remove(config: ReinforceConfig) -> None:
    """Delete the output of an earlier command, if `claim_folder` allows it."""
    sources = {"--data": config.data}
    files = {"--captions": config.captions, **{f"--teachers {name}": name for name in config.teachers}}
    for flag, name in files.items():  # a path, MODEL:FILE, or not a path
        found = [Path(part) for part in (name, name.partition(":")[2]) if part and Path(part).exists()]
        if found:
            sources[flag] = found[0]
    if claim_folder(config.out, REINFORCED, force=True, inputs=sources):
        with locked_folder(config.out):
            remove_claimed(config.out)


def open_folder(folder: Path, record: dict[str, Any], rank: int) -> None:
    """Create the output folder and its reinforcement.json, or verify that an existing one has the same settings.

    A folder with other settings but without shards is reused. Only rank 0 writes; the other ranks wait for
    reinforcement.json and compare it.

    Raises:
        FileExistsError: the folder has shards made with other settings, or was not made by `reinforce`.
        TimeoutError: rank 0 did not write reinforcement.json in time.
    """
    path = folder / SIDECAR
    deadline = time.monotonic() + _TIMEOUT_S
    while rank and not (path.exists() and (_holds_shards(folder) or not _changes(path, record))):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path}: rank {rank} waited {_TIMEOUT_S} s for rank 0 to write this file; see the "
                               "output of rank 0")  # fmt: skip
        time.sleep(0.1)
    if not path.exists():
        remove_partials(path)
        if folder.exists() and {inside.name for inside in folder.iterdir()} - {LOCK_NAME}:
            raise FileExistsError(f"{folder}: exists and was not made by `reinforce`; choose another --out")
        write_json(path, record)
    elif changes := _changes(path, record):
        if _holds_shards(folder):
            raise FileExistsError(f"{folder}: started with other settings ({changes}); use the same settings, choose "
                                  f"another --out, or pass --force to replace the folder")  # fmt: skip
        write_json(path, record)


def _holds_shards(folder: Path) -> bool:
    return any((folder / "train").glob("[!.]*.tar"))


def _changes(path: Path, record: dict[str, Any]) -> str:
    """The differences between the settings in a reinforcement.json and `record`; "" if there are none."""
    old, new = _settings(read_json(path)), _settings(json.loads(json.dumps(record)))
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return "; ".join(f"{name}: {_short(old.get(name))} -> {_short(new.get(name))}" for name in names)


def _settings(record: dict[str, Any]) -> dict[str, Any]:
    """The settings without the names of models and files, which may have moved; their hashes identify them."""
    teachers = [{k: v for k, v in teacher.items() if k != "name"} for teacher in record.get("teachers", [])]
    captions = dict(record.get("captions", {}))
    if len(captions) > 1:
        del captions["source"]
    return record | {"teachers": teachers, "captions": captions}


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_short(item) for item in value)
    if isinstance(value, dict):
        return " ".join(str(item)[:40] for item in value.values() if not isinstance(item, list))
    return str(value)


def _copy(shard: Path, out: Path) -> None:
    """Copy a held-out shard unchanged, because its pairs are only used for evaluation."""
    remove_partials(out)
    if not out.exists():
        with staged_file(out) as staging:
            shutil.copyfile(shard, staging)


class _Bar:
    """A progress bar over the bytes of shards (their numbers of images are unknown), with images per second."""

    def __init__(self, jobs: list[Job], shown: bool):
        self._images, self._started = 0, time.perf_counter()
        total = sum(job.shard.stat().st_size for job in jobs)
        self._progress = TrackedProgress("reinforce", total, shown=shown)

    def begin(self) -> None:
        """Start the clock of the rate and the remaining time, after the models are loaded."""
        self._started = time.perf_counter()
        self._progress.begin()

    def advance(self, num_images: int, num_bytes: int) -> None:
        """Add completed images and bytes."""
        self._images += num_images
        rate = self._images / (time.perf_counter() - self._started)
        self._progress.advance(num_bytes)
        self._progress.report(f"{self._images:,} images, {rate:.1f} images/s")

    def close(self) -> None:
        """End the progress bar."""
        self._progress.close()


def _print(config: ReinforceConfig, counts: Counts, num_shards: int, num_present: int, seconds: float) -> None:
    views = counts.images * config.num_augmentations
    rows = [("shards reinforced", num_shards), ("shards already complete", num_present),
            ("images", counts.images), ("views", views),
            *([("shards restarted after a kill", counts.begun_again)] if counts.begun_again else []),
            *((f"left out: {kind}", number) for kind, number in sorted(counts.left_out.items()))]  # fmt: skip
    width = max(len(name) for name, _ in rows)
    share = f" (rank {os.environ['RANK']})" if "RANK" in os.environ else ""
    print(f"{config.out}{share}: {seconds:.0f} s\n" + "\n".join(f"  {name:<{width}}  {n:>10,}" for name, n in rows))
