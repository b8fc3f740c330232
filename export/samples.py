"""Images of a run's own data, at the size of the exported model: for golden examples, calibration and evaluation."""

from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import webdataset as wds

from mobileclip_dense.config import Config, FinetuneConfig, PretrainConfig
from mobileclip_dense.contract.preprocess import crop_image, load_image, resize_image
from mobileclip_dense.data.folders import SPLITS, list_pairs
from mobileclip_dense.data.shards import decode_sample, list_shards

Split = Literal["train", "val"]


def sample_images(config: Config, split: Split, count: int, size_px: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The first images of a split, prepared as `Artifact.preprocessing` says: uint8 [N,H,W,3].

    Raises:
        FileNotFoundError, ValueError: the run's data is gone, or an image of it cannot be read.
    """
    if isinstance(config, PretrainConfig):
        return read_pairs(config, split, count, size_px)[0]
    pairs = list_dense_pairs(config, split, count)
    return np.stack([resize_image(load_image(image), *size_px) for image, _ in pairs])


def list_dense_pairs(config: FinetuneConfig, split: Split, count: int) -> list[tuple[Path, Path]]:
    """The first images of a split with their annotations."""
    return list_pairs(config.data, SPLITS[config.task][0 if split == "train" else 1])[:count]


def read_pairs(
    config: PretrainConfig, split: Split, count: int, size_px: tuple[int, int]
) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """The first pairs of a split: images uint8 [N,H,W,3], short side resized and centre cropped; their captions."""
    samples = wds.DataPipeline(wds.SimpleShardList(list_shards(config.data, split)), wds.tarfile_to_samples())
    pairs = [decode_sample(sample) for sample in islice(samples, count)]
    images = np.stack([crop_image(np.asarray(image), *size_px) for image, _ in pairs])
    return images, [captions[0] for _, captions in pairs]
