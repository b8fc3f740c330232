import io
import tarfile
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from mobileclip_dense.contract.preprocess import Normalization
from mobileclip_dense.data.shards import CaptionedImages, list_shards
from mobileclip_dense.models.clip import build_clip

UNIT = Normalization(mean=(0, 0, 0), std=(1, 1, 1))


def write_shards(folder: Path, count: int, *, broken: bool = False) -> Path:
    """`count` shards of 6 plain samples (jpg, txt)."""
    from PIL import Image

    (folder / "train").mkdir(parents=True)
    for shard in range(count):
        with tarfile.open(folder / "train" / f"{shard:05d}.tar", "w") as tar:
            for index in range(6):
                buffer = io.BytesIO()
                Image.new("RGB", (48, 40), (shard * 40, index * 30, 90)).save(buffer, "JPEG")
                image = buffer.getvalue()[:100] if broken and index == 3 else buffer.getvalue()
                for suffix, data in (("jpg", image), ("txt", f"picture {shard} {index}".encode())):
                    info = tarfile.TarInfo(f"{shard:03d}{index:03d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return folder


def stream(folder: Path, **changes: int) -> CaptionedImages:
    _, tokenizer, _ = build_clip("nano", 32)
    position = {"rank": 0, "world_size": 1, "first_batch": 0, "seed": 0} | changes
    return CaptionedImages(
        list_shards(folder, "train"), tokenizer, UNIT, image_size_px=32, crop_scale_min=0.5, batch_size=4, **position
    )


def batches(dataset: CaptionedImages, count: int, num_workers: int) -> list[list[torch.Tensor]]:
    return list(islice(DataLoader(dataset, batch_size=4, num_workers=num_workers), count))


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_a_resumed_stream_continues_exactly(tmp_path: Path, num_workers: int) -> None:
    folder = write_shards(tmp_path, 4)
    whole = batches(stream(folder), 8, num_workers)
    for first in (1, 2, 3):
        rest = batches(stream(folder, first_batch=first), 8 - first, num_workers)
        for found, expected in zip(rest, whole[first:], strict=True):
            assert torch.equal(found[0], expected[0])
            assert torch.equal(found[1], expected[1])


def test_processes_see_different_shards_and_together_all(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, 4)
    texts = [
        {tuple(tokens.tolist()) for _, tokens in islice(stream(folder, rank=rank, world_size=2), 12)} for rank in (0, 1)
    ]
    assert not texts[0] & texts[1]
    assert len(texts[0] | texts[1]) == 24


def test_too_few_shards_for_the_processes_is_an_error(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, 1)
    with pytest.raises(ValueError, match="shards: found 1, expected at least one for each of 2 processes"):
        next(iter(stream(folder, world_size=2)))


def test_a_truncated_image_is_named_with_its_shard(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, 1, broken=True)
    with pytest.raises(ValueError, match=r"00000\.tar: sample 000003: image: cannot be decoded"):
        list(islice(stream(folder), 6))


def test_a_folder_without_shards_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train: shards: found no \*\.tar"):
        list_shards(tmp_path, "train")
