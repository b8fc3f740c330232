"""Settings of `mobileclip-dense analyze`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mobileclip_dense.config.check import require, require_numbers


@dataclass(frozen=True, kw_only=True)
class CaptionsConfig:
    """Analyze the captions of data sets (figure 1 of arXiv 2405.08911): length, vocabulary, parts of speech, similarity
    to the images, duplicates and boilerplate. Writes a page with a contact sheet, and the figures as JSON."""

    shards: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Sources of webdataset shards, in the form of `pretrain --data`. Each source is a column of the table."""
    out: Path = Path("captions.html")
    """The page to write. The figures are written next to it, with the suffix .json."""
    clip: str | None = None
    """Model that measures the similarity of image and caption: a pretraining run, or MODEL:TAG or MODEL:FILE of
    open_clip. None: similarities are not measured."""
    max_samples: int = 10_000
    """Maximum number of samples to read from each source."""
    num_pictures: int = 24
    """Number of images per source on the contact sheet, spread over the range of similarities."""
    force: bool = False
    """Replace the page if it exists."""

    def __post_init__(self) -> None:
        require(self, "shards", self.shards != (), "at least one source of shards")
        require_numbers(self, "max_samples", at_least=1)
        require_numbers(self, "num_pictures", at_least=0)


@dataclass(frozen=True, kw_only=True)
class AttentionDistanceConfig:
    """Measure how far attention reaches (figure 3 of arXiv 2405.08911). For a ViT: the mean attention distance of each
    layer and head, in pixels. For an MCi, which has attention in the last stage only: the effective receptive field."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of pretraining or fine-tuning runs. Each run is a curve."""
    images: Path
    """Folder of images to measure on."""
    out: Path = Path("attention-distance.png")
    """The picture to write. The figures are written next to it, with the suffix .json."""
    max_images: int = 32
    """Maximum number of images."""
    force: bool = False
    """Replace the picture if it exists."""

    def __post_init__(self) -> None:
        require(self, "runs", self.runs != (), "at least one run")
        require_numbers(self, "max_images", at_least=1)


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """Visualize an encoder's features: the first three principal components of each map of its pyramid, as colours over
    the image."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a pretraining or fine-tuning run."""
    image: Annotated[Path, tyro.conf.Positional]
    """A photograph."""
    out: Path = Path("features.png")
    """The picture to write."""
    force: bool = False
    """Replace the picture if it exists."""
