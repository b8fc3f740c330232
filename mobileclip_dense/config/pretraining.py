"""Settings of `pretrain` and `convert-weights`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from mobileclip_dense.config.check import MAX_PARALLEL, MAX_SIDE_PX, require, require_numbers
from mobileclip_dense.config.encoders import clip_names
from mobileclip_dense.config.help import RegistryDoc


def _describe_models() -> str:
    return f"{', '.join(clip_names())}, or a name from open_clip.list_models(), e.g. ViT-B-16 or MobileCLIP-S2."


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Pretrain an image encoder and its text tower on captioned images: CLIP, or distillation from teachers."""

    data: tuple[str, ...]
    """Sources of webdataset shards. Each is a folder with train/*.tar, or a path or URL with a brace range
    (https://host/{00000..00127}.tar). Supported sample formats: img2dataset, DataCompDR, `scenes` and `reinforce`.
    Plain CLIP trains on a sample's synthetic captions (syn.json) instead of its txt if there are any."""
    out: Path
    """Run folder. If training was interrupted, run the same command again to resume."""
    data_weights: tuple[float, ...] = ()
    """Relative sampling weight of each source. Shards are then drawn with replacement. Empty: every pass reads each
    shard once."""
    val_data: str | None = None
    """Held-out pairs for retrieval, in the form of --data. If the folder has val/, only val/*.tar is read. None:
    val/*.tar of the first --data folder; without it, retrieval is not evaluated."""
    model: Annotated[str, RegistryDoc(_describe_models)] = "nano"
    image_size_px: int = 256
    """Height and width of the training crop, in pixels."""
    batch_size: int = 1024
    """Image-caption pairs per step and process."""
    accumulate: int = 1
    """Micro-batches per step (gradient caching). The loss is that of the whole batch; memory holds one micro-batch;
    features are computed twice. Must divide --batch-size."""
    steps: int = 30_000
    """Optimizer steps."""
    learning_rate: float = 1e-3
    """Peak learning rate. Linear warm-up, then cosine decay to zero."""
    weight_decay: float = 0.2
    """AdamW weight decay of matrices and kernels (not of biases, norms or the temperature)."""
    beta2: float = 0.95
    """AdamW beta2."""
    warmup_steps: int = 1000
    """Steps of linear warm-up."""
    clip_grad_norm: float = 1.0
    """Maximum gradient norm."""
    crop_scale_min: float = 0.4
    """Minimum share of the image area in a training crop, 0..1. Not used for reinforced samples, which store their
    crops."""
    contrastive_weight: float = 1.0
    """Weight of the contrastive (CLIP) loss."""
    distillation_weight: float = 0.0
    """Weight of the distillation loss. Above 0, it requires reinforced shards or --teachers."""
    teacher_dims: tuple[int, ...] = ()
    """Widths of the teachers' embeddings, which are concatenated in the shards (DataCompDR: 768 768). Empty: read from
    reinforcement.json next to the shards."""
    teacher_temperatures: tuple[float, ...] = ()
    """Scale of each teacher's similarities (DataCompDR: 100 100). Empty: read from reinforcement.json or --teachers."""
    teachers: tuple[str, ...] = ()
    """Frozen teachers to run in every step, instead of stored embeddings: MODEL:TAG, MODEL:FILE or a run folder."""
    ema_decay: float = 0.0
    """Decay of the exponential moving average of the weights. The averaged weights are evaluated and saved. 0: no
    average."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Numerical precision of the forward and backward pass."""
    compile: bool = False
    """Compile the towers with torch.compile. Compilation takes a minute or more; steps are faster afterwards."""
    grad_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, slower steps."""
    devices: int = 1
    """Number of processes on this machine. Ignored under torchrun."""
    num_workers: int = 1
    """Number of data-loading processes per training process."""
    shuffle_block: int = 1000
    """Size of each worker's shuffle buffer, in samples."""
    max_bad_share: float = 0.01
    """Maximum share of unusable samples, 0..1. Training stops if it is exceeded."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    evaluate_every: int | None = None
    """Steps between evaluations (retrieval, and zero-shot with --zeroshot-data). None: evaluate at the end only."""
    zeroshot_data: Path | None = None
    """Folder in ImageNet's layout (CLASS/*.jpg) for zero-shot classification. None: zero-shot is not evaluated."""
    class_names: Path | None = None
    """Text file with the class names of --zeroshot-data: lines FOLDER,NAME, or one name per line in the sorted order of
    the folders. None: the folders' names."""
    templates: Path | None = None
    """Text file with one prompt template per line; {} is replaced by the class name. None: open_clip's seven templates
    for ImageNet."""
    seed: int = 0
    """Seed of weights, shuffling and crops."""
    force: bool = False
    """Start over if the run folder exists."""

    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset(
        {"val_data", "zeroshot_data", "class_names", "templates", "evaluate_every", "checkpoint_every", "max_bad_share"}
    )
    """Settings that may differ when a run is resumed. Training does not depend on them. It does depend on num_workers,
    as each data-loading process reads its own shards."""

    def __post_init__(self) -> None:
        counts = ("batch_size", "accumulate", "steps", "checkpoint_every", "evaluate_every", "shuffle_block")
        require_numbers(self, *counts, "teacher_dims", at_least=1)
        require_numbers(self, "devices", at_least=1, at_most=MAX_PARALLEL)
        require_numbers(self, "num_workers", at_least=0, at_most=MAX_PARALLEL)
        require_numbers(self, "image_size_px", at_least=32, at_most=MAX_SIDE_PX)
        require_numbers(self, "learning_rate", "clip_grad_norm", "data_weights", "teacher_temperatures", above=0)
        require_numbers(self, "weight_decay", "contrastive_weight", "distillation_weight", "seed", at_least=0)
        require_numbers(self, "beta2", "ema_decay", at_least=0, below=1)
        require_numbers(self, "crop_scale_min", above=0, at_most=1)
        require_numbers(self, "max_bad_share", at_least=0, at_most=1)
        require(self, "data", self.data != (), "at least one source of shards")
        if self.data_weights:
            fits = len(self.data_weights) == len(self.data)
            require(self, "data_weights", fits, f"one weight above 0 for each of {len(self.data)} sources")
        require(self, "accumulate", self.batch_size % self.accumulate == 0, f"a divisor of {self.batch_size}")
        require_numbers(self, "warmup_steps", at_least=0, at_most=self.steps)
        require(self, "distillation_weight", self.contrastive_weight + self.distillation_weight > 0,
                 "above 0 where --contrastive-weight is 0")  # fmt: skip
        require(self, "teachers", not self.teachers or self.distillation_weight > 0,
                 "none where --distillation-weight is 0")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ConvertWeightsConfig:
    """Convert weights to a folder that open_clip loads, with the right image transform. Verifies that the features are
    those of the source."""

    source: Annotated[str, tyro.conf.Positional]
    """A pretraining run; a checkpoint of open_clip or Apple, fused or not; or a tag of open_clip's published weights
    (e.g. datacompdr), downloaded from the hub."""
    model: Annotated[str, RegistryDoc(_describe_models)]
    out: Path
    """Folder to create: weights.safetensors and open_clip_config.json."""
    force: bool = False
    """Replace the folder if it exists."""
