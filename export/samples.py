"""Images of a run's own data, at the size of the exported model: for golden examples, calibration and evaluation."""

from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from mobileclip_dense.config import Config, FinetuneConfig, PretrainConfig
from mobileclip_dense.contract.preprocess import load_image, resize_image
from mobileclip_dense.data import samples
from mobileclip_dense.data.folders import SPLITS, list_pairs
from mobileclip_dense.data.shards import list_shards

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
    pairs = list(islice(samples.read_pairs(list_shards(config.data, split)), count))
    crops = [_crop(Image.fromarray(image), size_px) for image, _ in pairs]
    return np.stack(crops), [captions[0] for _, captions in pairs]


def _crop(image: Image.Image, size_px: tuple[int, int]) -> npt.NDArray[np.uint8]:
    height, width = size_px
    scale = max(height / image.height, width / image.width)
    resized = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (resized.width - width) // 2, (resized.height - height) // 2
    return np.asarray(resized.crop((left, top, left + width, top + height)))
