"""The preparation of samples for the teachers: decoding, and drawing and applying augmentations."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision.transforms import v2

from mobileclip_dense.config import ReinforceConfig
from mobileclip_dense.data.captioned.augmentation import Augmentation, replay, sample_augmentation
from mobileclip_dense.data.captioned.reinforced import read_synthetic_captions
from mobileclip_dense.data.captioned.samples import BadSample, read_captions, read_image
from mobileclip_dense.data.captioned.shards import read_samples
from mobileclip_dense.pretraining.captioner import FROM_SHARD

Members = dict[str, bytes]


class DamagedShard(ValueError):
    """A shard cannot be read to its end. The message names it."""


@dataclass(frozen=True, kw_only=True)
class PreparedSample:
    """A sample from a loader process.

    Attributes:
        key: key of the sample.
        members: contents of its files in the shard, by suffix.
        problem: kind of problem that makes the sample unusable, None if it is usable.
        captions: original captions.
        present: captions in its syn.json.
        augmentations: A augmentations.
        views: augmented images uint8 [A,3,S,S], for each input size S of the teachers.
        plain: image without augmentation for the captioner, uint8 [3,S,S].
    """

    key: str
    members: Members
    problem: str | None = None
    captions: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    augmentations: tuple[Augmentation, ...] = ()
    views: dict[int, torch.Tensor] = field(default_factory=dict)
    plain: torch.Tensor | None = None


class ShardSamples:
    """The loader's sampler: the raw samples of the current shard, read in this process in file order."""

    path: Path

    def __iter__(self) -> Iterator[tuple[str, str, Members]]:
        for sample in read_samples(str(self.path)):
            if sample.fault is not None:
                raise DamagedShard(f"{self.path}: after sample {sample.key or 'none'}: {sample.fault}")
            yield self.path.stem, sample.key, sample.members


class Prepare(Dataset[PreparedSample]):
    """Decodes a raw sample, draws its augmentations and applies them at every size. Runs in the loader processes."""

    def __init__(self, config: ReinforceConfig, sizes_px: list[int], plain_size_px: int | None):
        self.seed, self.num_augmentations = config.seed, config.num_augmentations
        self.wants_present = config.captions == FROM_SHARD
        self.drawn_for_px, self.sizes_px, self.plain_size_px = sizes_px[0], sorted(set(sizes_px)), plain_size_px

    def __getitem__(self, raw: tuple[str, str, Members]) -> PreparedSample:
        shard, key, members = raw
        try:
            image, captions = read_image(members), read_captions(members)
            present = read_synthetic_captions(members) if self.wants_present and "syn.json" in members else []
        except BadSample as bad:
            return PreparedSample(key=key, members=members, problem=bad.kind)
        except ValueError:
            return PreparedSample(key=key, members=members, problem="syn.json")
        height, width = image.shape[:2]
        rng = generator_of(self.seed, shard, key, "augmentations")
        augmentations = tuple(
            sample_augmentation(height, width, rng, teacher_size_px=self.drawn_for_px)
            for _ in range(self.num_augmentations)
        )
        views = {
            size: torch.from_numpy(np.stack([replay(image, a, size) for a in augmentations])).permute(0, 3, 1, 2)
            for size in self.sizes_px
        }
        plain = None
        if self.plain_size_px is not None:
            resize = v2.Compose([v2.Resize(self.plain_size_px, v2.InterpolationMode.BICUBIC, antialias=True),
                                 v2.CenterCrop(self.plain_size_px)])  # fmt: skip
            plain = resize(torch.from_numpy(image).permute(2, 0, 1))
        return PreparedSample(key=key, members=members, captions=captions, present=present,
                              augmentations=augmentations, views=views, plain=plain)  # fmt: skip


def generator_of(seed: int, shard: str, key: str, purpose: str) -> np.random.Generator:
    """The random generator of a sample for a purpose ("augmentations", "captions")."""
    digest = sha256(f"{seed}\0{shard}\0{key}\0{purpose}".encode(errors="surrogateescape")).digest()
    return np.random.default_rng(list(digest))
