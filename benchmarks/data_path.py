"""`python -m benchmarks.data_path SHARDS --out FILE`: reinforced samples per second and core, ours against a plain one.

Both loaders read the same shards, decode, replay a stored augmentation, tokenize two captions, select the teachers'
rows and stack a batch. They run in turn, batch after batch, in one process with one thread. The plain loader is the
obvious implementation: webdataset, Pillow, torchvision's transforms on Pillow images, ToTensor and `torch.load` of the
whole pth.gz.
"""

import gzip
import io
import json
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import tyro
import webdataset as wds
from PIL import Image
from torch.nn.functional import normalize
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F
from torchvision.transforms.autoaugment import _apply_op

from benchmarks.harness import ResultSettings, provenance, save_result
from mobileclip_dense.artifact.files import refuse_existing
from mobileclip_dense.artifact.outputs import REINFORCED, staged_folder
from mobileclip_dense.command import run_with_settings
from mobileclip_dense.config.check import MAX_SIDE_PX, require_numbers
from mobileclip_dense.data.captioned.augmentation import from_param_aug, replay, sample_augmentation
from mobileclip_dense.data.captioned.reinforced import Reinforcement, read_augmentations, write_reinforcement
from mobileclip_dense.data.captioned.samples import read_image
from mobileclip_dense.data.captioned.shards import list_shards, read_samples
from mobileclip_dense.data.captioned.stream import CaptionStream
from mobileclip_dense.data.captioned.tar import add_sample
from mobileclip_dense.data.scenes.writer import make_example
from mobileclip_dense.models.clip import Tokenizer, build_clip
from mobileclip_dense.pages.progress import progress_bar
from mobileclip_dense.runtime.device import device_name
from mobileclip_dense.runtime.timing import time_in_turn

_NUM_AUGMENTATIONS, _WIDTH, _TEACHERS = 30, 1536, 2  # DataCompDR-12M
_NUM_COMPARED = 100
_VERSIONED = ("torch", "torchvision", "webdataset", "pillow", "simplejpeg", "opencv-python", "numba", "numpy")


@dataclass(frozen=True, kw_only=True)
class DataPathConfig(ResultSettings):
    """Measure the loading of reinforced samples: this package against webdataset, Pillow, torchvision, torch.load."""

    shards: Annotated[Path, tyro.conf.Positional]
    """Folder of reinforced shards (jpg, txt, syn.json, paug.json, pth.gz). If it is missing, shards of generated
    512-pixel scenes are written to it."""
    out: Path = Path("results/data-path.json")
    image_size_px: int = 256
    """Height and width of the training images, pixels."""
    batch_size: int = 32
    """Samples per batch."""
    batches: int = 40
    """Timed batches of each loader."""
    num_scenes: int = 256
    """Number of scenes to generate if there are no shards."""
    seed: int = 0
    """Seed of scenes, embeddings and choices."""

    def __post_init__(self) -> None:
        require_numbers(self, "batch_size", "batches", at_least=1)
        require_numbers(self, "num_scenes", at_least=1)
        require_numbers(self, "image_size_px", at_least=32, at_most=MAX_SIDE_PX)
        require_numbers(self, "seed", at_least=0)


def measure_data_path(config: DataPathConfig) -> dict[str, Any]:
    """Write and return the result.

    Raises:
        FileNotFoundError, ValueError: the shards cannot be read. FileExistsError: the result exists.
    """
    refuse_existing(config.out, config.force)
    if not config.shards.exists():
        _write_reinforced_scenes(config.shards, config.num_scenes, config.seed)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    shards = list_shards(config.shards, "train")
    _, tokenizer, _ = build_clip("nano", 64)
    ways = (_our_batches(shards, tokenizer, config), _plain_batches(shards, tokenizer, config))
    times_ms = time_in_turn(
        [partial(next, batches) for batches in ways],
        config.batches,
        num_warmup=1,
        clock_ns=time.process_time_ns,
        progress="data path",
    )
    rates = {
        name: config.batch_size / (float(np.median(times)) / 1e3)
        for name, times in zip(("ours", "plain"), times_ms, strict=True)
    }
    result = {
        **provenance(device_name(), *_VERSIONED),
        "threads": 1,
        "seed": config.seed,
        "image_size_px": config.image_size_px,
        "batch_size": config.batch_size,
        "batches": config.batches,
        "samples_per_s": rates,
        "ms_per_sample": {name: 1e3 / rate for name, rate in rates.items()},
        "speedup": rates["ours"] / rates["plain"],
        "largest_grey_level_difference": _largest_difference(shards, config),
    }
    return save_result(
        config.out,
        result,
        f"{rates['ours']:.0f} samples/s against {rates['plain']:.0f}: {result['speedup']:.2f}x; images differ by at "
        f"most {result['largest_grey_level_difference']} grey levels",
    )


def _our_batches(shards: list[str], tokenizer: Tokenizer, config: DataPathConfig) -> Iterator[Any]:
    """Endless batches of this package's loader."""
    return iter(
        CaptionStream(
            [shards],
            tokenizer,
            image_size_px=config.image_size_px,
            batch_size=config.batch_size,
            seed=config.seed,
            use_reinforcement=True,
            crop_scale_min=1.0,
            shuffle_block=config.batch_size,
            max_bad_share=0.0,
        )
    )


def _plain_batches(shards: list[str], tokenizer: Tokenizer, config: DataPathConfig) -> Iterator[list[torch.Tensor]]:
    """Endless batches of the plain loader."""
    rng = np.random.default_rng(config.seed)
    rows: list[tuple[torch.Tensor, ...]] = []
    while True:
        for sample in wds.DataPipeline(wds.SimpleShardList(shards), wds.tarfile_to_samples()):
            entries = json.loads(sample["paug.json"])["param_aug"]
            entries = json.loads(entries) if isinstance(entries, str) else entries
            synthetic = json.loads(sample["syn.json"])["syn_text"]
            a, s = int(rng.integers(len(entries))), int(rng.integers(len(synthetic)))
            tables = torch.load(io.BytesIO(gzip.decompress(sample["pth.gz"])), weights_only=True)
            image = F.to_tensor(_plain_replay(sample["jpg"], entries[a], config.image_size_px))
            captions = tokenizer([sample["txt"].decode()])[0], tokenizer([synthetic[s]])[0]
            texts = tables["text_emb"]
            embeddings = tables["image_emb"][a], texts[0], texts[len(texts) - len(synthetic) + s]
            rows.append((image, *captions, *(embedding.float() for embedding in embeddings)))
            if len(rows) == config.batch_size:
                yield [torch.stack(column) for column in zip(*rows, strict=True)]
                rows = []


def _plain_replay(jpeg: bytes, entry: list[Any], size_px: int) -> Image.Image:
    """Apply a stored augmentation in DataCompDR's format to a Pillow image."""
    augmentation = from_param_aug(entry)
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    image = F.resized_crop(image, *augmentation.crop, [size_px, size_px], InterpolationMode.BICUBIC)
    for name, magnitude in augmentation.operations:
        image = _apply_op(image, name, magnitude or 0.0, interpolation=InterpolationMode.NEAREST, fill=None)
    return image


def _largest_difference(shards: list[str], config: DataPathConfig) -> int:
    """The largest difference in grey levels between images of the loaders, for one random augmentation per sample."""
    rng, largest = np.random.default_rng(config.seed), 0
    samples = (sample for shard in shards for sample in read_samples(shard))
    for _, sample in zip(range(_NUM_COMPARED), samples, strict=False):
        entries = read_augmentations(sample.members)
        entry = entries[int(rng.integers(len(entries)))]
        ours = replay(read_image(sample.members), from_param_aug(entry), config.image_size_px)
        plain = np.asarray(_plain_replay(sample.members["jpg"], entry, config.image_size_px))
        largest = max(largest, int(np.abs(ours.astype(np.int16) - plain).max()))
    return largest


def _write_reinforced_scenes(folder: Path, count: int, seed: int) -> None:
    """Write one shard of 512-pixel scenes in DataCompDR's format, with random embeddings."""
    generator = torch.Generator().manual_seed(seed)

    def embeddings(rows: int) -> torch.Tensor:
        drawn = torch.randn(rows, _TEACHERS, _WIDTH // _TEACHERS, generator=generator)
        return normalize(drawn, dim=-1).flatten(1)

    with staged_folder(folder, REINFORCED, inputs={}) as staging, tarfile.open(staging / "00000.tar", "w") as tar:
        for index in progress_bar(range(count), "scenes", unit="scene"):
            example = make_example(seed, 512, "reinforced", index)
            rng = np.random.default_rng([seed, index, 2])
            reinforcement = Reinforcement(
                augmentations=tuple(sample_augmentation(512, 512, rng) for _ in range(_NUM_AUGMENTATIONS)),
                image_embeddings=embeddings(_NUM_AUGMENTATIONS),
                text_embeddings=embeddings(1 + len(example.synthetic_captions)),
                synthetic_captions=tuple(example.synthetic_captions),
            )
            members = {"jpg": example.jpeg, "txt": example.caption.encode()}
            add_sample(tar, f"{index:09d}", members | write_reinforcement(reinforcement, storage="bf16"))


if __name__ == "__main__":
    run_with_settings(DataPathConfig, measure_data_path, "python -m benchmarks.data_path")
