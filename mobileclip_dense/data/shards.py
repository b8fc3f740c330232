"""Captioned images from webdataset shards: what img2dataset and DataCompDR write.

A sample's captions are its `syn.json` {"syn_text": [...]} where there is one, else its `txt`.
"""

import io
import json
import random
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset as wds
from PIL import Image, UnidentifiedImageError
from torch.utils.data import IterableDataset, get_worker_info
from torchvision.transforms import v2

from mobileclip_dense.contract.preprocess import Normalization
from mobileclip_dense.models.clip import Tokenizer

_SHUFFLE_BUFFER = 1000

Pair = tuple[torch.Tensor, torch.Tensor]  # image float32 [3,H,W], text int64 [L]


def list_shards(folder: Path, split: str) -> list[str]:
    """The *.tar of `folder/split`, sorted.

    Raises:
        FileNotFoundError: the folder is missing or holds no shard.
    """
    shards = sorted(str(path) for path in (folder / split).glob("*.tar"))
    if not shards:
        raise FileNotFoundError(f"{folder / split}: shards: found no *.tar; expected a folder of webdataset shards "
                                f"with train/ and val/, as `mobileclip-dense scenes` writes under shards/")  # fmt: skip
    return shards


def decode_sample(sample: dict[str, Any]) -> tuple[Image.Image, list[str]]:
    """RGB image and captions of a raw webdataset sample.

    Raises:
        ValueError: a member is missing, or the image cannot be decoded; names shard and key.
    """
    where = f"{sample.get('__url__')}: sample {sample.get('__key__')}"
    data = next((sample[suffix] for suffix in ("jpg", "jpeg", "png", "webp") if suffix in sample), None)
    if data is None:
        raise ValueError(f"{where}: image: found members {sorted(k for k in sample if k[0] != '_')}, expected jpg")
    try:
        image = Image.open(io.BytesIO(data)).convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{where}: image: cannot be decoded ({error}); repair or remove it") from None
    if "syn.json" in sample:
        captions = json.loads(sample["syn.json"])["syn_text"]
    elif "txt" in sample:
        captions = [sample["txt"].decode("utf-8")]
    else:
        raise ValueError(f"{where}: caption: found neither syn.json nor txt")
    return image, captions


class CaptionedImages(IterableDataset[Pair]):
    """An endless, seeded stream of augmented images and tokens; the same position always gives the same pair.

    Shards are dealt to processes and their loader workers anew in every epoch. Worker w of W yields every W-th batch,
    so a stream that starts at batch n is exactly what is left of one that started at 0.
    """

    def __init__(
        self, shards: list[str], tokenizer: Tokenizer, normalization: Normalization, *, image_size_px: int,
        crop_scale_min: float, batch_size: int, seed: int, rank: int, world_size: int, first_batch: int,
    ):  # fmt: skip
        self.shards, self.tokenizer = shards, tokenizer
        self.batch_size, self.seed, self.first_batch = batch_size, seed, first_batch
        self.rank, self.world_size = rank, world_size
        # No flips: captions speak of left and right.
        self.augment = v2.Compose(
            [
                v2.RandomResizedCrop(image_size_px, scale=(crop_scale_min, 1.0), ratio=(0.8, 1.25)),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(normalization.mean, normalization.std),
            ]
        )

    def __iter__(self) -> Iterator[Pair]:
        info = get_worker_info()
        num_workers = 1 if info is None else info.num_workers
        # The loader asks worker 0 first: it takes the part of the worker whose turn it is.
        worker = 0 if info is None else (info.id + self.first_batch) % num_workers
        done = max(0, -(-(self.first_batch - worker) // num_workers)) * self.batch_size
        samples = islice(enumerate(self._raw_samples(worker, num_workers)), done, None)
        return (self._prepare(sample, index, worker) for index, sample in samples)

    def _raw_samples(self, worker: int, num_workers: int) -> Iterator[dict[str, Any]]:
        place, places = self.rank * num_workers + worker, self.world_size * num_workers
        if places > len(self.shards):
            raise ValueError(f"shards: found {len(self.shards)}, expected at least one for each of "
                             f"{self.world_size} processes x {num_workers} workers; lower --num-workers")  # fmt: skip
        for epoch in count():
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.shards))
            own = [self.shards[i] for i in order[place::places]]
            shuffle = wds.shuffle(_SHUFFLE_BUFFER, rng=random.Random(f"{self.seed}/{epoch}/{place}"))
            yield from wds.DataPipeline(wds.SimpleShardList(own), wds.tarfile_to_samples(), shuffle)

    def _prepare(self, sample: dict[str, Any], index: int, worker: int) -> Pair:
        image, captions = decode_sample(sample)
        drawn = np.random.default_rng([self.seed, self.rank, worker, index]).integers(2**31, size=2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(drawn[0]))  # torchvision's transforms draw from the global generator
            pixels = self.augment(image)
        return pixels, self.tokenizer([captions[int(drawn[1]) % len(captions)]])[0]
