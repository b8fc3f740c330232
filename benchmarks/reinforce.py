"""`python -m benchmarks.reinforce DATA`: the throughput of `reinforce` against its teachers' forward passes alone.

It compares the views per second of reinforcing a shard (read, decode, augment, encode, write) with those of only the
forward passes, on the same batches, already augmented and tokenized. Both run in turn, round after round.
"""

import dataclasses
import statistics
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import tyro

from benchmarks.harness import ResultSettings, compute_device_name, provenance, save_result
from mobileclip_dense.artifact.files import refuse_existing
from mobileclip_dense.command import run_with_settings
from mobileclip_dense.config import ReinforceConfig
from mobileclip_dense.config.check import MAX_PARALLEL, require_numbers
from mobileclip_dense.data.captioned.shards import list_shards, read_samples
from mobileclip_dense.models.clip import build_clip
from mobileclip_dense.pretraining.reinforced_shard import Job, Workshop, reinforce_shard
from mobileclip_dense.pretraining.teachers import join_embeddings
from mobileclip_dense.runtime.timing import time_in_turn


@dataclass(frozen=True, kw_only=True)
class ThroughputConfig(ResultSettings):
    """Measure `reinforce` against the forward passes of its teachers, in turn."""

    data: Annotated[Path, tyro.conf.Positional]
    """Folder of shards with synthetic captions, as for `reinforce --data`. The first shard of train is used."""
    models: tuple[str, ...] = ("ViT-B-32",)
    """open_clip models used as teachers, with random weights."""
    images: int = 16
    """Number of images to reinforce."""
    num_augmentations: int = 8
    """Views per image."""
    batch_size: int = 32
    """Views per forward pass."""
    num_workers: int | None = None
    """Processes that decode and augment. None: the default of `reinforce`."""
    threads: int = 2
    """Threads of torch on a CPU."""
    rounds: int = 5
    """Timed rounds, after one warm-up round."""
    out: Path = Path("results/reinforce.json")

    def __post_init__(self) -> None:
        require_numbers(self, "images", "num_augmentations", "batch_size", "rounds", at_least=1)
        require_numbers(self, "threads", at_least=1, at_most=MAX_PARALLEL)
        require_numbers(self, "num_workers", at_least=0, at_most=MAX_PARALLEL)


def measure_throughput(config: ThroughputConfig) -> dict[str, Any]:
    """Write and return the result.

    Raises:
        FileNotFoundError, ValueError: the data or a model cannot be used.
        FileExistsError: the result exists and --force was not given.
    """
    refuse_existing(config.out, config.force)
    torch.set_num_threads(config.threads)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shard = _first_images(config, folder / "shard.tar")
        workshop = Workshop(
            ReinforceConfig(
                data=config.data,
                out=folder / "out",
                teachers=tuple(_random_teachers(config.models, folder)),
                num_augmentations=config.num_augmentations,
                batch_size=config.batch_size,
                num_workers=config.num_workers,
            )
        )
        reinforced = Job(shard=shard, out=folder / "out" / "shard.tar")
        forward, num_texts = _forward_passes(shard, config, workshop)
        actions = [lambda: reinforce_shard(reinforced, workshop), forward]
        times_ms = time_in_turn(actions, config.rounds, num_warmup=1, progress="reinforce")
        num_workers = workshop.loader.num_workers
        workshop.close()
    seconds = [[time_ms / 1e3 for time_ms in times] for times in times_ms]
    result = _record(config, workshop, seconds, num_texts, num_workers)
    return save_result(
        config.out,
        result,
        f"{', '.join(config.models)}: reinforce {result['views_per_s']['reinforce']:.1f} views/s, the teachers alone "
        f"{result['views_per_s']['teachers']:.1f}: {result['share_of_teachers_percent']:.1f} %",
    )


def _first_images(config: ThroughputConfig, out: Path) -> Path:
    """A shard of the first `config.images` samples."""
    first = Path(list_shards(config.data, "train")[0])
    keys = [sample.key for sample in read_samples(str(first))][: config.images]
    if len(keys) < config.images:
        raise ValueError(f"--images: found {config.images}, expected at most {len(keys)}, the number in {first}")
    with tarfile.open(first) as source, tarfile.open(out, "w") as target:
        for member in source:
            if member.name.split(".")[0] in keys:
                target.addfile(member, source.extractfile(member))
    return out


def _random_teachers(models: tuple[str, ...], folder: Path) -> list[str]:
    names = []
    for model in models:
        torch.save(build_clip(model)[0].state_dict(), folder / f"{model}.pt")
        names.append(f"{model}:{folder / model}.pt")
    return names


def _forward_passes(shard: Path, config: ThroughputConfig, workshop: Workshop) -> tuple[Callable[[], object], int]:
    """A function that runs only the teachers' forward passes on the shard, and the number of captions."""
    workshop.source.path = shard
    prepared = list(workshop.loader)
    texts = [caption for sample in prepared for caption in (*sample.captions, *sample.present)]
    per_batch = max(1, config.batch_size // config.num_augmentations)
    num_batches = -(-len(prepared) // per_batch)
    sizes = {teacher.image_size_px for teacher in workshop.teachers}
    views = {size: torch.cat([sample.views[size] for sample in prepared]) for size in sizes}
    tokens = [teacher.tokenize(texts).tensor_split(num_batches) for teacher in workshop.teachers]
    batches = {size: torch.split(stacked, per_batch * config.num_augmentations) for size, stacked in views.items()}

    def forward() -> None:
        for i in range(num_batches):
            images = [teacher.encode_images(batches[teacher.image_size_px][i]) for teacher in workshop.teachers]
            captions = [teacher.encode_tokens(tokens[k][i]) for k, teacher in enumerate(workshop.teachers)]
            join_embeddings(images), join_embeddings(captions)

    return forward, len(texts)


def _record(
    config: ThroughputConfig, workshop: Workshop, seconds: list[list[float]], num_texts: int, num_workers: int
) -> dict[str, Any]:
    num_views = config.images * config.num_augmentations
    ours, teachers = (statistics.median(values) for values in seconds)
    cuda = workshop.device.type == "cuda"
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in ("data", "out", "force", "num_workers")}
    return {
        **settings,
        "models": list(config.models),
        "num_workers": num_workers,
        "num_captions": num_texts,
        "image_size_px": [teacher.image_size_px for teacher in workshop.teachers],
        **provenance(compute_device_name(), "torch", "open_clip_torch", "timm", "pillow"),
        "precision": "bf16" if cuda else "fp32",
        "seconds": {"reinforce": seconds[0], "teachers": seconds[1]},
        "views_per_s": {"reinforce": num_views / ours, "teachers": num_views / teachers},
        "share_of_teachers_percent": teachers / ours * 100,
    }


if __name__ == "__main__":
    run_with_settings(ThroughputConfig, measure_throughput, "python -m benchmarks.reinforce")
