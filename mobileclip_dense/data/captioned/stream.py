"""An endless, seeded stream of training batches from shards, with exact resuming.

Each worker of each process reads one shard after another. Without weights, these are its share of a permutation of all
shards, which changes in every pass. With weights, it samples a source by weight and then a shard of that source. The
worker fills a block of raw samples, shuffles it, yields it, and fills the next block. Every random choice is seeded by
its place in the stream (pass, block, index of the sample). A position therefore consists of a few numbers, and resuming
reads at most one shard and one block again.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from mobileclip_dense.data.captioned.augmentation import crop_and_resize, from_param_aug, replay, sample_crop
from mobileclip_dense.data.captioned.caption_text import has_words
from mobileclip_dense.data.captioned.reinforced import (
    check_rows,
    read_augmentations,
    read_embeddings,
    read_synthetic_captions,
)
from mobileclip_dense.data.captioned.resize import Pixels
from mobileclip_dense.data.captioned.samples import BadSample, read_captions, read_image, read_sample
from mobileclip_dense.data.captioned.shards import Sample, read_samples

Tokenizer = Callable[[list[str]], torch.Tensor]  # captions -> int64 [B,context_length]

_MIN_SAMPLES_TO_JUDGE = 500  # the share of bad samples is not checked earlier
_ORDER, _BLOCK, _SAMPLE = range(3)  # purpose of a random generator; part of its seed

Position = dict[str, Any]
Place = tuple[int, int]  # index of the shard in the worker's sequence, number of its samples already read


class Batch(NamedTuple):
    """A batch of B pairs.

    Attributes:
        images: uint8 [B,3,S,S], channels last in memory.
        texts: tokens int64 [B,L] of an original caption (without reinforcement: of any caption).
        synthetic_texts: tokens int64 [B,L] of a synthetic caption; None without reinforcement.
        teacher_images, teacher_texts, teacher_synthetic_texts: the teachers' embeddings float32 [B,D] of images, texts
            and synthetic_texts; None without reinforcement.
        captions: the strings of texts and, with reinforcement, of synthetic_texts, B each.
        keys: keys of the samples.
        position: position of this worker after this batch, see `CaptionStream`.
    """

    images: torch.Tensor
    texts: torch.Tensor
    synthetic_texts: torch.Tensor | None
    teacher_images: torch.Tensor | None
    teacher_texts: torch.Tensor | None
    teacher_synthetic_texts: torch.Tensor | None
    captions: tuple[list[str], ...]
    keys: list[str]
    position: Position

    @property
    def token_sets(self) -> tuple[torch.Tensor, ...]:
        """The caption sets: texts and, with reinforcement, synthetic_texts."""
        return (self.texts,) if self.synthetic_texts is None else (self.texts, self.synthetic_texts)


class PreparedSample(NamedTuple):
    """A prepared sample: pixels uint8 [S,S,3], captions, and the teachers' embeddings float32 [D] of the image, the
    caption and the synthetic caption. `synthetic` and `rows` are None without reinforcement."""

    key: str
    pixels: Pixels
    caption: str
    synthetic: str | None
    rows: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None


class StreamError(ValueError):
    """An error in the data. The message is one line, without the traceback that a DataLoader worker adds."""

    def __init__(self, message: str):
        super().__init__(message.rpartition(f"{StreamError.__qualname__}: ")[2].strip())


class CaptionStream(IterableDataset[Batch]):
    """An endless dataset of batches, for a DataLoader with `batch_size=None`.

    Worker w of W yields batches w, w+W, w+2W, ... of its process. To resume after n batches, pass `first_batch=n` and
    as `positions[w]` the `Batch.position` of the last consumed batch of worker w (None: none). Batch i comes from
    worker i % W.

    A position is a dict of plain values: draw and sample (start of the block), block, index (next sample of the block),
    width (of the embeddings; None: not known yet), seen, bad (kind -> count), bad_by_shard (shard -> count).
    """

    def __init__(
        self, sources: Sequence[Sequence[str]], tokenizer: Tokenizer, *, image_size_px: int, batch_size: int,
        use_reinforcement: bool, crop_scale_min: float, shuffle_block: int, max_bad_share: float,
        weights: Sequence[float] | None = None, embedding_width: int | None = None, seed: int = 0,
        rank: int = 0, world_size: int = 1, positions: Sequence[Position | None] | None = None, first_batch: int = 0,
    ):  # fmt: skip
        """
        Args:
            sources: the shards of each source.
            tokenizer: captions -> int64 [B,L].
            image_size_px: S.
            batch_size: B.
            use_reinforcement: whether to replay stored augmentations and return the teachers' embeddings. A sample
                without them is then bad. Otherwise a sample gets a random crop and any of its captions.
            crop_scale_min: minimum share of the image area in a random crop, 0..1.
            shuffle_block: number of raw samples that are kept in memory and shuffled together.
            max_bad_share: maximum share of bad samples, 0..1.
            weights: sampling weight of each source; shards are then drawn with replacement. None: each pass reads every
                shard once.
            embedding_width: D; None: that of the first reinforced sample.
            rank, world_size: rank and number of the training processes.
            positions, first_batch: see the class.

        Raises:
            ValueError: the weights do not match the sources.
            StreamError: while iterating: too many bad samples, fewer shards than workers, or another number of workers
                than in `positions`.
        """
        self.sources, self.tokenizer = [list(shards) for shards in sources], tokenizer
        if weights is not None and (len(weights) != len(sources) or min(weights) <= 0):
            raise ValueError(
                f"--data-weights: found {list(weights)}, expected a positive weight for each of {len(sources)} sources"
            )
        self.weights = None if weights is None else np.asarray(weights, np.float64) / sum(weights)
        self.image_size_px, self.batch_size, self.crop_scale_min = image_size_px, batch_size, crop_scale_min
        self.use_reinforcement, self.embedding_width = use_reinforcement, embedding_width
        self.shuffle_block, self.max_bad_share = shuffle_block, max_bad_share
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.positions, self.first_batch = positions, first_batch

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        num_workers = 1 if info is None else info.num_workers
        if info is not None:
            cv2.setNumThreads(0)  # OpenCV's thread pool does not survive a fork
        if self.positions is not None and len(self.positions) != num_workers:
            raise StreamError(
                f"--num-workers: found {num_workers}, expected {len(self.positions)} as in the run that is resumed"
            )
        # The DataLoader asks worker 0 first. On resuming, it takes the role of the worker that is next.
        worker = 0 if info is None else (info.id + self.first_batch) % num_workers
        position = (self.positions[worker] if self.positions else None) or {
            "draw": 0, "sample": 0, "block": 0, "index": 0, "width": self.embedding_width, "seen": 0, "bad": {},
            "bad_by_shard": {},
        }  # fmt: skip
        return self._batches(worker, num_workers, position)

    def _batches(self, worker: int, num_workers: int, position: Position) -> Iterator[Batch]:
        visits: list[PreparedSample] = []
        bad, bad_by_shard = Counter[str](position["bad"]), Counter[str](position["bad_by_shard"])
        width, seen = position["width"], position["seen"]
        for sample, place in self._shuffled(worker, num_workers, position):
            rng = np.random.default_rng([_SAMPLE, self.seed, self.rank, worker, seen])
            seen += 1
            try:
                visit = self._prepare(sample, rng, width)
            except BadSample as error:
                bad[error.kind] += 1
                bad_by_shard[sample.shard] += 1
                passed = place["draw"] >= self._shards_per_pass(worker, num_workers)
                if (seen >= _MIN_SAMPLES_TO_JUDGE or passed) and bad.total() > self.max_bad_share * seen:
                    raise StreamError(self._too_many(seen, bad, bad_by_shard, sample, error)) from None
                continue
            width = len(visit.rows[0]) if visit.rows else width
            visits.append(visit)
            if len(visits) == self.batch_size:
                state = {"width": width, "seen": seen, "bad": dict(bad), "bad_by_shard": dict(bad_by_shard)}
                yield self._collate(visits, place | state)
                visits = []

    def _shuffled(self, worker: int, num_workers: int, position: Position) -> Iterator[tuple[Sample, Position]]:
        """Raw samples in training order, each with the position of the next sample."""
        start, first = (position["draw"], position["sample"]), position["index"]
        raw = self._raw(worker, num_workers, *start)
        for block in count(position["block"]):
            items: list[tuple[Sample, Place] | None] = list(islice(raw, self.shuffle_block))
            assert items[-1] is not None
            end = items[-1][1]
            order = np.random.default_rng([_BLOCK, self.seed, self.rank, worker, block]).permutation(len(items))
            for index in range(first, len(items)):
                item = items[order[index]]
                assert item is not None
                items[order[index]] = None  # frees memory
                last = index + 1 == len(items)
                draw, read = end if last else start
                place = {"draw": draw, "sample": read, "block": block + last, "index": 0 if last else index + 1}
                yield item[0], place
            start, first = end, 0

    def _raw(self, worker: int, num_workers: int, draw: int, skip: int) -> Iterator[tuple[Sample, Place]]:
        """Samples in shard order, from sample `skip` of shard `draw` on, each with the place of the next sample."""
        for number in count(draw):
            read = skip if number == draw else 0
            for sample in read_samples(self._shard(number, worker, num_workers), read):
                read += 1
                yield sample, ((number, read) if sample.fault is None else (number + 1, 0))

    def _shards_per_pass(self, worker: int, num_workers: int) -> int:
        shards, places = sum(map(len, self.sources)), self.world_size * num_workers
        if self.weights is not None:
            return shards  # weighted sampling has no passes; the bad share is checked after this many shards
        return -(-(shards - self.rank * num_workers - worker) // places)

    def _shard(self, number: int, worker: int, num_workers: int) -> str:
        """The shard at index `number` of a worker's sequence."""
        if self.weights is not None:
            rng = np.random.default_rng([_ORDER, self.seed, self.rank, worker, number])
            source = self.sources[rng.choice(len(self.sources), p=self.weights)]
            return source[rng.integers(len(source))]
        shards = [shard for source in self.sources for shard in source]
        own = self._shards_per_pass(worker, num_workers)
        if self.world_size * num_workers > len(shards):
            raise StreamError(f"shards: found {len(shards)}, expected at least one for each of {self.world_size} "
                              f"processes x {num_workers} workers; lower --num-workers")  # fmt: skip
        order = np.random.default_rng([_ORDER, self.seed, number // own]).permutation(len(shards))
        place, places = self.rank * num_workers + worker, self.world_size * num_workers
        return shards[order[place::places][number % own]]

    def _prepare(self, sample: Sample, rng: np.random.Generator, embedding_width: int | None) -> PreparedSample:
        """Decode, crop and resize a sample. Raises BadSample if it cannot be used."""
        if sample.fault is not None:
            raise BadSample("shard", sample.fault)
        if self.use_reinforcement:
            return self._prepare_reinforced(sample, rng, embedding_width)
        image, captions = read_sample(sample.members)
        height, width = image.shape[:2]
        # No flips: captions mention left and right.
        crop = sample_crop(height, width, rng, scale=(self.crop_scale_min, 1.0), ratio=(0.8, 1.25))
        caption = _text(captions[rng.integers(len(captions))])
        return PreparedSample(sample.key, crop_and_resize(image, crop, self.image_size_px), caption, None, None)

    def _prepare_reinforced(self, sample: Sample, rng: np.random.Generator, width: int | None) -> PreparedSample:
        captions = read_captions(sample.members)
        try:
            embeddings = read_embeddings(sample.members)
            if embeddings is None:
                raise BadSample(
                    "members", f"embeddings: found {', '.join(sorted(sample.members))}, expected pth.gz or npz"
                )
            entries, synthetic = read_augmentations(sample.members), read_synthetic_captions(sample.members)
            check_rows(embeddings, len(entries), len(synthetic))
            images, texts = embeddings
            if len(texts) != len(captions) + len(synthetic) or images.shape[1] != (width or images.shape[1]):
                raise ValueError(f"text_emb: found {list(texts.shape)}, expected {len(captions)} + {len(synthetic)} "
                                 f"rows of {width or 'any width'}")  # fmt: skip
            a, c, s = (int(i) for i in rng.integers((len(entries), len(captions), len(synthetic))))
            rows = (images[a].float(), texts[c].float(), texts[len(captions) + s].float())
            if not all(torch.isfinite(row).all() for row in rows):
                raise ValueError("embeddings: found values that are not finite")
            augmentation = from_param_aug(entries[a])
            image = read_image(sample.members)
            pixels = replay(image, augmentation, self.image_size_px)
        except BadSample:
            raise
        except (ValueError, OverflowError, RecursionError) as error:  # too large numbers, deeply nested lists
            raise BadSample("reinforcement", str(error)) from None
        return PreparedSample(sample.key, pixels, _text(captions[c]), _text(synthetic[s]), rows)

    def _collate(self, visits: list[PreparedSample], position: Position) -> Batch:
        images = torch.from_numpy(np.stack([visit.pixels for visit in visits])).permute(0, 3, 1, 2)
        keys, captions = [visit.key for visit in visits], [visit.caption for visit in visits]
        texts = self.tokenizer(captions)
        if not self.use_reinforcement:
            return Batch(images, texts, None, None, None, None, (captions,), keys, position)
        synthetic = [visit.synthetic or "" for visit in visits]
        image, real, other = (torch.stack(row) for row in zip(*(v.rows for v in visits if v.rows), strict=True))
        others = self.tokenizer(synthetic)
        return Batch(images, texts, others, image, real, other, (captions, synthetic), keys, position)

    def _too_many(self, seen: int, bad: Counter[str], by_shard: Counter[str], sample: Sample, error: BadSample) -> str:
        kinds = ", ".join(f"{number} {kind}" for kind, number in bad.most_common())
        shard, number = by_shard.most_common(1)[0]
        return (f"data: found {bad.total()} bad samples in {seen} ({kinds}), expected at most "
                f"{self.max_bad_share:.1%}; worst shard: {shard} ({number}); the last: {sample.shard}: sample "
                f"{sample.key}: {error}")  # fmt: skip


def _text(caption: str) -> str:
    if not has_words(caption):
        raise BadSample("caption", "caption: found no text")
    return caption


def count_bad(positions: Sequence[Position | None]) -> dict[str, int]:
    """Number of samples skipped so far, by kind, from the last positions of all workers of all processes."""
    return dict(sum((Counter(position["bad"]) for position in positions if position is not None), Counter()))


def summarise_bad(positions: Sequence[Position | None], num_shards: int = 5) -> str:
    """A summary of the skipped samples for the end of a run: counts by kind and the worst shards; "" if there are none.

    Args:
        positions: the last positions of all workers of all processes.
        num_shards: number of worst shards to list.
    """
    known = [position for position in positions if position is not None]
    bad = Counter(count_bad(positions))
    by_shard: Counter[str] = sum((Counter(position["bad_by_shard"]) for position in known), Counter())
    if not bad:
        return ""
    seen = sum(position["seen"] for position in known)
    lines = [f"skipped {bad.total()} of {seen} samples ({bad.total() / seen:.2%}):"]
    lines += [f"  {number:>8} {kind}" for kind, number in bad.most_common()]
    lines += ["worst shards:", *(f"  {number:>8} {shard}" for shard, number in by_shard.most_common(num_shards))]
    return "\n".join(lines) + "\n"
