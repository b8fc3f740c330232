"""Reinforcement of one shard. Loader processes decode and augment, teachers encode batches, samples stay in order.

The random numbers of a sample depend only on the seed, the shard's name and the sample's key, and batches are counted
from the start of the shard. The bytes of a shard are therefore reproducible by any process and after any interruption,
on the same kind of device with the same number of threads (which change the last bits of matrix products).
"""

import os
import tarfile
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from mobileclip_dense.artifact.files import staged_file
from mobileclip_dense.config import ReinforceConfig
from mobileclip_dense.data.captioned.caption_text import has_words
from mobileclip_dense.data.captioned.reinforced import EMBEDDING_MEMBERS, Reinforcement, write_reinforcement
from mobileclip_dense.data.captioned.tar import add_sample, member_size
from mobileclip_dense.pretraining.captioner import Captioner, load_captioner
from mobileclip_dense.pretraining.prepared import (
    DamagedShard,
    Prepare,
    PreparedSample,
    ShardSamples,
    generator_of,
)
from mobileclip_dense.pretraining.teachers import Teacher, join_embeddings

_WORKERS_BESIDE_A_GPU = 8
_UNCAPTIONED = "no synthetic caption"
_REPLACED = {"syn.json", "paug.json", *EMBEDDING_MEMBERS}

Progress = Callable[[int, int], None]  # called with the images and the bytes of the shard done since the last call


@dataclass(frozen=True, kw_only=True)
class Job:
    """A shard to reinforce and the path of the result."""

    shard: Path
    out: Path


@dataclass(kw_only=True)
class Counts:
    """The counts of samples and shards.

    Attributes:
        images: number of images written.
        left_out: numbers of samples left out, by kind of problem.
        damaged: messages about shards that cannot be read to their end. They are not written.
        begun_again: number of shards restarted after an interruption.
    """

    images: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    damaged: list[str] = field(default_factory=list)
    begun_again: int = 0

    def add(self, other: "Counts") -> None:
        """Add the counts of `other`."""
        self.images += other.images
        self.left_out += other.left_out
        self.damaged += other.damaged
        self.begun_again += other.begun_again


class Workshop:
    """The objects shared by all shards of a process: teachers, captioner, loader processes and threads.

    Attributes:
        config: the settings.
        device: device of the models.
        teachers, captioner: the models.
        source: reads the samples of the current shard.
        loader: loader of `PreparedSample`.
        threads: threads that run the models.
    """

    def __init__(self, config: ReinforceConfig):
        """Load the models onto this process's device (cuda:LOCAL_RANK, or the CPU).

        Raises:
            ValueError, OSError: see `Teacher` and `load_captioner`.
        """
        self.config = config
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
        self.teachers = [Teacher(name, self.device, config.temperature) for name in config.teachers]
        self.captioner: Captioner = load_captioner(config.captions, config.num_captions, self.device)
        self.source = ShardSamples()
        prepare = Prepare(config, [teacher.image_size_px for teacher in self.teachers], self.captioner.image_size_px)
        num_workers = config.num_workers
        if num_workers is None:
            num_workers = _WORKERS_BESIDE_A_GPU if cuda else 0
        self.loader = DataLoader(
            prepare, sampler=self.source, batch_size=None, collate_fn=_as_it_is, num_workers=num_workers,
            persistent_workers=num_workers > 0,
        )  # fmt: skip
        # With a GPU, a second thread tokenizes and copies while the first waits for its kernels.
        self.threads = ThreadPoolExecutor(max_workers=2 if cuda else 1)

    def describe(self) -> dict[str, Any]:
        """The record for reinforcement.json: everything that the embeddings depend on, and their widths and scales."""
        return {
            "teachers": [teacher.describe() for teacher in self.teachers],
            "num_augmentations": self.config.num_augmentations,
            "num_captions": self.config.num_captions,
            "captions": self.captioner.describe(),
            "storage": self.config.storage,
            "seed": self.config.seed,
        }

    def close(self) -> None:
        """Stop the threads. The loader processes stop when this object is deleted."""
        self.threads.shutdown()


def _as_it_is(sample: Any) -> Any:
    return sample


def remove_partials(path: Path) -> bool:
    """Remove temporary files of killed attempts to write `path`. No attempt may be running.

    Returns:
        Whether there were any.
    """
    partials = list(path.parent.glob(f".{escape(path.stem)}.partial-*{escape(path.suffix)}"))
    for partial in partials:
        partial.unlink()
    return bool(partials)


def reinforce_shard(job: Job, workshop: Workshop, progress: Progress = lambda images, size: None) -> Counts:
    """Reinforce one shard: write the members and the reinforcement of each usable sample, in the same order.

    The shard is written to a temporary file and renamed at the end. Only one process may work on a shard at a time.

    Returns:
        The counts of the samples. A damaged shard is only named in the counts, so that the other shards continue.

    Raises:
        ValueError: no sample of the shard is usable.
    """
    try:
        return _reinforce_shard(job, workshop, progress)
    except DamagedShard as damaged:
        return Counts(damaged=[str(damaged)])


def _reinforce_shard(job: Job, workshop: Workshop, progress: Progress) -> Counts:
    counts, left = Counts(begun_again=int(remove_partials(job.out))), job.shard.stat().st_size
    with staged_file(job.out) as staging:
        with tarfile.open(staging, "w", format=tarfile.PAX_FORMAT) as tar:
            for sample, reinforcement in _reinforcements(job.shard, workshop, counts):
                unchanged = {suffix: data for suffix, data in sample.members.items() if suffix not in _REPLACED}
                added = write_reinforcement(reinforcement, storage=workshop.config.storage)
                add_sample(tar, sample.key, unchanged | added)
                counts.images += 1
                size = sum(member_size(len(data)) for data in sample.members.values())
                left -= size
                progress(1, size)
        if not counts.images:
            found = ", ".join(f"{number} {kind}" for kind, number in counts.left_out.items()) or "it is empty"
            hint = "; set --captions to a file or a model with captions" if counts.left_out[_UNCAPTIONED] else ""
            raise ValueError(f"{job.shard}: found no sample that can be reinforced: {found}{hint}")
    progress(0, left)
    return counts


def _reinforcements(shard: Path, workshop: Workshop, counts: Counts) -> Iterator[tuple[PreparedSample, Reinforcement]]:
    """The usable samples in order. While the teachers encode a batch, the loader prepares the next one."""
    workshop.source.path = shard
    in_flight: deque[Future[list[tuple[PreparedSample, Reinforcement | None]]]] = deque()
    try:
        for batch in _batches(iter(workshop.loader), workshop.config, counts):
            in_flight.append(workshop.threads.submit(_encode, batch, shard.stem, workshop))
            if len(in_flight) > 2:
                yield from _with_captions(in_flight.popleft().result(), counts)
        while in_flight:
            yield from _with_captions(in_flight.popleft().result(), counts)
    finally:
        for future in in_flight:
            future.cancel()


def _batches(
    samples: Iterator[PreparedSample], config: ReinforceConfig, counts: Counts
) -> Iterator[list[PreparedSample]]:
    """Batches of usable samples with `batch_size` views in total, and at least one sample."""
    images_per_batch = max(1, config.batch_size // config.num_augmentations)
    batch = []
    for sample in samples:
        if sample.problem is not None:
            counts.left_out[sample.problem] += 1
            continue
        batch.append(sample)
        if len(batch) == images_per_batch:
            yield batch
            batch = []
    if batch:
        yield batch


def _with_captions(
    results: list[tuple[PreparedSample, Reinforcement | None]], counts: Counts
) -> Iterator[tuple[PreparedSample, Reinforcement]]:
    for sample, reinforcement in results:
        if reinforcement is None:
            counts.left_out[_UNCAPTIONED] += 1
        else:
            yield sample, reinforcement


@torch.inference_mode()
def _encode(
    batch: list[PreparedSample], shard: str, workshop: Workshop
) -> list[tuple[PreparedSample, Reinforcement | None]]:
    """The captions and embeddings of a batch, on the CPU. None for a sample without synthetic captions."""
    synthetic = _caption(batch, shard, workshop)
    teachers = workshop.teachers
    views = {size: _joined([sample.views[size] for sample in batch], workshop.device) for size in batch[0].views}
    images = join_embeddings([teacher.encode_images(views[teacher.image_size_px]) for teacher in teachers])
    captions = [[*sample.captions, *written] for sample, written in zip(batch, synthetic, strict=True)]
    texts = [caption for several in captions for caption in several]
    text_rows = join_embeddings([teacher.encode_texts(texts) for teacher in teachers])
    image_parts = torch.split(images, workshop.config.num_augmentations)
    text_parts = torch.split(text_rows, [len(several) for several in captions])
    results: list[tuple[PreparedSample, Reinforcement | None]] = []
    for sample, written, image_part, text_part in zip(batch, synthetic, image_parts, text_parts, strict=True):
        reinforcement = Reinforcement(
            augmentations=sample.augmentations, image_embeddings=image_part, text_embeddings=text_part,
            synthetic_captions=tuple(written),
        )  # fmt: skip
        results.append((sample, reinforcement if written else None))
    return results


def _caption(batch: list[PreparedSample], shard: str, workshop: Workshop) -> list[list[str]]:
    """At most `num_captions` synthetic captions for each sample, without empty ones."""
    config = workshop.config
    plain = [sample.plain for sample in batch if sample.plain is not None]
    draws = [generator_of(config.seed, shard, sample.key, "captions") for sample in batch]
    written = workshop.captioner.write(
        [sample.key for sample in batch], [sample.present for sample in batch],
        torch.stack(plain) if plain else None, draws,
    )  # fmt: skip
    return [[caption for caption in captions if has_words(caption)][: config.num_captions] for captions in written]


def _joined(tensors: list[torch.Tensor], device: torch.device) -> torch.Tensor:
    joined = torch.cat(tensors)
    return joined.pin_memory() if device.type == "cuda" else joined
