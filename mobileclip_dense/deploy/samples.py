"""Images of a run's data at the size of the exported model, for golden examples, calibration and evaluation."""

from itertools import islice
from typing import Literal

import numpy as np
import numpy.typing as npt

from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.artifact.preprocess import crop_image, resize_image
from mobileclip_dense.config import Config, FinetuneConfig, PretrainConfig
from mobileclip_dense.data.captioned import samples
from mobileclip_dense.data.captioned.shards import list_shards
from mobileclip_dense.data.labelled.pairs import Pair
from mobileclip_dense.data.labelled.scan import usable_set
from mobileclip_dense.pretraining.evaluation import list_held_out

Split = Literal["train", "val"]


def sample_images(config: Config, split: Split, count: int, size_px: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The first `count` images of a split, preprocessed as in `Artifact.preprocessing`: uint8 [N,H,W,3].

    Raises:
        FileNotFoundError, ValueError: the run's data is missing, or an image cannot be read.
    """
    if isinstance(config, PretrainConfig):
        return read_pairs(config, split, count, size_px)[0]
    pairs = list_dense_pairs(config, split, count)
    return np.stack([resize_image(load_image(image), *size_px) for image, _ in pairs])


def list_dense_pairs(config: FinetuneConfig, split: Split, count: int) -> list[Pair]:
    """The first `count` images of a split with their masks or depth maps.

    Raises:
        FileNotFoundError: the data is missing, or the split has no images.
    """
    found = usable_set(config)
    pairs = found.train if split == "train" else found.val
    if not pairs:
        raise FileNotFoundError(f"{config.data}: found {found.layout} without {split} images")
    return list(pairs[:count])


def read_pairs(
    config: PretrainConfig, split: Split, count: int, size_px: tuple[int, int]
) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """The first `count` pairs of a split: images uint8 [N,H,W,3], short side resized and centre cropped; captions.

    If there are no held-out pairs, those of train are used.

    Raises:
        FileNotFoundError, ValueError: the shards are missing, a sample cannot be used, or there are no samples.
    """
    held_out = list_held_out(config) if split == "val" else []
    pairs = list(islice(samples.read_pairs(held_out or list_shards(config.data[0], "train")), count))
    if not pairs:
        raise ValueError(f"{config.data[0]}: found no pair of image and caption, expected at least one")
    images = np.stack([crop_image(image, *size_px) for image, _ in pairs])
    return images, [captions[0] for _, captions in pairs]
