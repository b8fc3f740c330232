"""Settings of `mobileclip-dense analyze`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mobileclip_dense.config.check import require, require_numbers


@dataclass(frozen=True, kw_only=True)
class CaptionsConfig:
    """What captions are like (figure 1 of arXiv 2405.08911): length, vocabulary, parts of speech, similarity to their
    images, duplicates, boilerplate; one page with a contact sheet, and the figures as JSON."""

    shards: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Sources of webdataset shards, as for `pretrain --data`; each is a column of the table."""
    out: Path = Path("captions.html")
    """The page to write; its figures go beside it, with the suffix .json."""
    clip: str | None = None
    """Model for the similarity of image and caption: a pretraining run, or MODEL:TAG or MODEL:FILE of open_clip;
    None: no similarities."""
    max_samples: int = 10_000
    """Look at most at so many samples of each source."""
    num_pictures: int = 24
    """Images on the contact sheet, per source, spread over the range of similarities."""
    force: bool = False
    """Replace the page if it exists."""

    def __post_init__(self) -> None:
        require(self, "shards", self.shards != (), "at least one source of shards")
        require_numbers(self, "max_samples", at_least=1)
        require_numbers(self, "num_pictures", at_least=0)


@dataclass(frozen=True, kw_only=True)
class AttentionDistanceConfig:
    """How far attention reaches (figure 3 of arXiv 2405.08911): mean distance per layer and head of a ViT, in pixels;
    effective receptive field of an MCi, whose attention is in the last stage only."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of pretraining or fine-tuning runs; each is a curve."""
    images: Path
    """Folder of images to look at."""
    out: Path = Path("attention-distance.png")
    """The picture to write; its figures go beside it, with the suffix .json."""
    max_images: int = 32
    """Look at most at so many images."""
    force: bool = False
    """Replace the picture if it exists."""

    def __post_init__(self) -> None:
        require(self, "runs", self.runs != (), "at least one run")
        require_numbers(self, "max_images", at_least=1)


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """What an encoder sees: the three principal components of each map of its pyramid, as colours over the image."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a pretraining or fine-tuning run."""
    image: Annotated[Path, tyro.conf.Positional]
    """A photograph."""
    out: Path = Path("features.png")
    """The picture to write."""
    force: bool = False
    """Replace the picture if it exists."""
