"""Small shards for tests: plain, img2dataset's, reinforced, damaged."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mobileclip_dense.data.captioned.augmentation import from_param_aug, sample_augmentation
from mobileclip_dense.data.captioned.reinforced import (
    Reinforcement,
    check_rows,
    read_augmentations,
    read_embeddings,
    read_synthetic_captions,
    write_reinforcement,
)

WIDTH = 12  # of the embeddings


def tokenize(captions: list[str]) -> torch.Tensor:
    """Captions as code points, int64 [B,40], so that a test can decode them."""
    padded = [list(caption.encode())[:40] + [0] * (40 - len(caption.encode())) for caption in captions]
    return torch.tensor(padded, dtype=torch.int64)


def text_of(tokens: torch.Tensor) -> str:
    return bytes(int(token) for token in tokens if token).decode()


def jpeg(seed: int, height: int = 40, width: int = 48) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height)).save(buffer, "JPEG")
    return buffer.getvalue()


def plain_members(number: int) -> dict[str, bytes]:
    return {"jpg": jpeg(number), "txt": f"picture {number}".encode()}


def reinforced_members(number: int) -> dict[str, bytes]:
    """A sample with recognisable embeddings: row a of the images is 10 number + a, row r of the texts its negative."""
    rng = np.random.default_rng(number)
    rows = 10.0 * number + torch.arange(6)[:, None] + torch.zeros(6, WIDTH)
    reinforcement = Reinforcement(
        augmentations=tuple(sample_augmentation(40, 48, rng) for _ in range(4)), image_embeddings=rows[:4],
        text_embeddings=-rows[:3], synthetic_captions=(f"synthetic {number} 0", f"synthetic {number} 1"),
    )  # fmt: skip
    return {**plain_members(number), **write_reinforcement(reinforcement, storage="fp16")}


def write_shard(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    """Write a tar of samples (key -> members)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, members in samples.items():
            for suffix, data in members.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def write_shards(folder: Path, num_shards: int, *, size: int = 6, reinforced: bool = False) -> Path:
    """Write `train/*.tar` with `size` samples each, numbered consecutively."""
    make = reinforced_members if reinforced else plain_members
    for shard in range(num_shards):
        samples = {f"{shard:03d}{i:03d}": make(shard * size + i) for i in range(size)}
        write_shard(folder / "train" / f"{shard:05d}.tar", samples)
    return folder


def record(**values: object) -> bytes:
    return json.dumps(values).encode()


def read_reinforcement(members: dict[str, bytes]) -> Reinforcement | None:
    """Read the members of a sample, by suffix; None if there is no `pth.gz` and no `npz` among them.

    Raises:
        ValueError: a member is missing or damaged, or the numbers of rows do not fit together.
    """
    embeddings = read_embeddings(members)
    if embeddings is None:
        return None
    entries, captions = read_augmentations(members), read_synthetic_captions(members)
    check_rows(embeddings, len(entries), len(captions))
    return Reinforcement(
        augmentations=tuple(from_param_aug(entry) for entry in entries), image_embeddings=embeddings[0],
        text_embeddings=embeddings[1], synthetic_captions=tuple(captions),
    )  # fmt: skip
