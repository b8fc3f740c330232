"""Settings of the commands that make, join and reinforce data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobileclip_dense.config.check import MAX_PARALLEL, require, require_numbers

CaptionQuality = Literal["alt", "clean", "reinforced"]


@dataclass(frozen=True, kw_only=True)
class ScenesConfig:
    """Generate captioned, labelled scenes in the formats of DataCompDR, ADE20K, NYUv2, COCO and ImageNet."""

    out: Path
    """Folder to create."""
    num_images: int = 2000
    """Number of scenes; every eighth is held out for validation."""
    size_px: int = 128
    """Height and width, in pixels."""
    caption_quality: CaptionQuality = "reinforced"
    """alt: file names, slogans, half-wrong words; clean: one short true sentence; reinforced: alt text and five
    detailed true sentences."""
    seed: int = 0
    """The same seed gives the same bytes."""
    force: bool = False
    """Replace the folder if it exists."""

    def __post_init__(self) -> None:
        require_numbers(self, "num_images", at_least=8)  # one in eight is for validation
        require_numbers(self, "size_px", at_least=32, at_most=2048)
        require_numbers(self, "seed", at_least=0)


@dataclass(frozen=True, kw_only=True)
class JoinConfig:
    """Join DataComp's image shards and DataCompDR's reinforcement shards by uid into shards to pretrain on."""

    images: str
    """Image shards as img2dataset writes them (jpg, txt, json with uid): a folder, or files or URLs with a brace range
    as in DIR/{00000..00127}.tar."""
    reinforcements: str
    """DataCompDR's shards (key = uid; syn.json, paug.json, npz or pth.gz), likewise; no pipes."""
    out: Path
    """Folder to write; the same command goes on if it was interrupted."""
    force: bool = False
    """Replace the folder if it exists."""


@dataclass(frozen=True, kw_only=True)
class ReinforceConfig:
    """Store what teachers say about each image and caption beside them, once, in DataCompDR's format (MobileCLIP,
    arXiv 2311.17049, section 3): a student then trains on it as fast as without teachers."""

    data: Path
    """Folder with train/*.tar and val/*.tar; train is reinforced, val copied."""
    out: Path
    """Folder to write, a shard for a shard; the same command goes on where it was interrupted."""
    teachers: tuple[str, ...] = ("ViT-L-14-quickgelu:openai", "ViT-L-14:datacomp_xl_s13b_b90k")
    """Each MODEL:TAG or MODEL:FILE of open_clip, a pretraining run, or a folder with open_clip_config.json. The default
    is DataCompDR's pair."""
    temperature: float | None = None
    """Factor on the teachers' cosine similarities, recorded for the loss; None: each teacher's own learned one
    (DataCompDR: 100)."""
    captions: str = "shard"
    """Synthetic captions: shard (its syn.json), a file (.jsonl with key and syn_text, or lines KEY<tab>caption), or a
    CoCa model to write them, as coca_ViT-L-14:mscoco_finetuned_laion2b_s13b_b90k."""
    num_captions: int = 5
    """At most so many synthetic captions per image."""
    num_augmentations: int = 10
    """Augmented views per image (DataCompDR-1B: 10, -12M: 30)."""
    storage: Literal["bf16", "fp16"] = "bf16"
    """bf16: KEY.pth.gz; fp16: KEY.npz."""
    batch_size: int = 256
    """Views per forward pass of the teachers."""
    num_workers: int | None = None
    """Processes that decode and augment; None: 8 beside a GPU, none beside a CPU, whose cores the teachers fill."""
    engine: Literal["local", "ray"] = "local"
    """local: this process, or those that torchrun started, each with its share of the shards; ray: a task per shard on
    the cluster at RAY_ADDRESS, or one on this machine."""
    gpus_per_task: float | None = None
    """Ray: GPUs of a task, may be a fraction; None: 1 if the cluster has any, else 0."""
    max_retries: int = 3
    """Ray: how often a shard whose worker died is begun again."""
    seed: int = 0
    """Seeds augmentations and captions, together with names of shard and sample."""
    force: bool = False
    """Begin the folder anew if it exists."""

    def __post_init__(self) -> None:
        require(self, "teachers", len(self.teachers) >= 1, "at least one teacher")
        require_numbers(self, "num_augmentations", "num_captions", "batch_size", at_least=1)
        require_numbers(self, "num_workers", at_least=0, at_most=MAX_PARALLEL)
        require_numbers(self, "max_retries", "gpus_per_task", "seed", at_least=0)
        require_numbers(self, "temperature", above=0)
        require(self, "out", self.out.absolute() != self.data.absolute(), "another folder than --data")
