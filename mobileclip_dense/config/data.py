"""Settings of `scenes`, `join` and `reinforce`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobileclip_dense.config.check import MAX_PARALLEL, require, require_numbers

CaptionQuality = Literal["alt", "clean", "reinforced"]


@dataclass(frozen=True, kw_only=True)
class ScenesConfig:
    """Generate captioned and labelled scenes in the formats of DataCompDR, ADE20K, NYUv2, COCO and ImageNet."""

    out: Path
    """Folder to create."""
    num_images: int = 2000
    """Number of scenes. Every eighth scene is held out for validation."""
    size_px: int = 128
    """Height and width, in pixels."""
    caption_quality: CaptionQuality = "reinforced"
    """alt: noisy alt text (file names, slogans, partly wrong words). clean: one short, correct sentence. reinforced:
    alt text and five detailed, correct sentences."""
    seed: int = 0
    """The same seed gives the same bytes."""
    force: bool = False
    """Replace the folder if it exists."""

    def __post_init__(self) -> None:
        require_numbers(self, "num_images", at_least=8)  # one in eight is held out
        require_numbers(self, "size_px", at_least=32, at_most=2048)
        require_numbers(self, "seed", at_least=0)


@dataclass(frozen=True, kw_only=True)
class JoinConfig:
    """Join DataComp's image shards and DataCompDR's reinforcement shards by uid into shards for pretraining."""

    images: str
    """Image shards in img2dataset's format (jpg, txt, json with uid): a folder, or files or URLs with a brace range
    (DIR/{00000..00127}.tar)."""
    reinforcements: str
    """DataCompDR's shards (key = uid; syn.json, paug.json, npz or pth.gz), in the same forms. Pipes are not
    supported."""
    out: Path
    """Folder to write. If the command was interrupted, run it again to continue."""
    force: bool = False
    """Replace the folder if it exists."""


@dataclass(frozen=True, kw_only=True)
class ReinforceConfig:
    """Reinforce a data set: store teachers' embeddings and synthetic captions with each image, in DataCompDR's format
    (MobileCLIP, arXiv 2311.17049, section 3). Distillation then runs without teachers, at the speed of plain CLIP."""

    data: Path
    """Folder with train/*.tar and val/*.tar. train is reinforced, val is copied."""
    out: Path
    """Folder to write, one shard per input shard. If the command was interrupted, run it again to continue."""
    teachers: tuple[str, ...] = ("ViT-L-14-quickgelu:openai", "ViT-L-14:datacomp_xl_s13b_b90k")
    """Teachers. Each is MODEL:TAG or MODEL:FILE of open_clip, a pretraining run, or a folder with
    open_clip_config.json. The default is DataCompDR's pair."""
    temperature: float | None = None
    """Scale of the teachers' cosine similarities, recorded for the loss. None: each teacher's learned scale
    (DataCompDR: 100)."""
    captions: str = "shard"
    """Source of synthetic captions: shard (syn.json of the shard), a file (.jsonl with key and syn_text, or lines
    KEY<tab>caption), or a CoCa model that generates them (coca_ViT-L-14:mscoco_finetuned_laion2b_s13b_b90k)."""
    num_captions: int = 5
    """Maximum number of synthetic captions per image."""
    num_augmentations: int = 10
    """Number of augmented views per image (DataCompDR-1B: 10, DataCompDR-12M: 30)."""
    storage: Literal["bf16", "fp16"] = "bf16"
    """Format of the embeddings. bf16: KEY.pth.gz. fp16: KEY.npz."""
    batch_size: int = 256
    """Views per forward pass of the teachers."""
    num_workers: int | None = None
    """Processes that decode and augment. None: 8 with a GPU; 0 without one, as the teachers then use all CPU cores."""
    engine: Literal["local", "ray"] = "local"
    """local: this process, or the processes of torchrun, each with its share of the shards. ray: one task per shard, on
    the cluster at RAY_ADDRESS or on a local one."""
    gpus_per_task: float | None = None
    """Ray: GPUs per task, may be a fraction. None: 1 if the cluster has GPUs, else 0."""
    max_retries: int = 3
    """Ray: maximum number of retries of a shard after its worker died."""
    seed: int = 0
    """Seed of augmentations and captions, combined with the names of shard and sample."""
    force: bool = False
    """Replace the folder if it exists."""

    def __post_init__(self) -> None:
        require(self, "teachers", len(self.teachers) >= 1, "at least one teacher")
        require_numbers(self, "num_augmentations", "num_captions", "batch_size", at_least=1)
        require_numbers(self, "num_workers", at_least=0, at_most=MAX_PARALLEL)
        require_numbers(self, "max_retries", "gpus_per_task", "seed", at_least=0)
        require_numbers(self, "temperature", above=0)
        require(self, "out", self.out.absolute() != self.data.absolute(), "a folder other than --data")
