"""Settings of pretraining and of what is done to its weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from mobileclip_dense.config.check import MAX_PARALLEL, MAX_SIDE_PX, require, require_numbers
from mobileclip_dense.config.encoders import clip_names

_MODELS = f"{', '.join(clip_names())}, or a name of open_clip.list_models(), such as ViT-B-16 or MobileCLIP-S2."


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Pretrain an image encoder with its text tower on captioned images: CLIP, or distillation from teachers."""

    data: tuple[str, ...]
    """Sources of webdataset shards, each a folder with train/*.tar, or a path or URL with a brace range such as
    https://host/{00000..00127}.tar. Samples as img2dataset, DataCompDR, `scenes` and `reinforce` write them;
    where one has synthetic captions (syn.json), plain CLIP reads those instead of its txt."""
    out: Path
    """Run folder; the same command resumes it if it was interrupted."""
    data_weights: tuple[float, ...] = ()
    """How often each source is drawn from, relative to the others; shards are then drawn with replacement. Empty: every
    shard once per pass."""
    val_data: str | None = None
    """Held-out pairs for retrieval, a source like those of --data, of a folder with val/ that; None: val/*.tar of the
    first --data folder, or no retrieval figure where it has none."""
    model: Annotated[str, tyro.conf.arg(help=_MODELS)] = "nano"
    image_size_px: int = 256
    """Training crop, pixels."""
    batch_size: int = 1024
    """Image-caption pairs per step and process."""
    accumulate: int = 1
    """Micro-batches per step: the loss still sees the whole batch, memory holds one micro-batch, features are computed
    twice (gradient caching). Divides --batch-size."""
    steps: int = 30_000
    """Optimizer steps."""
    learning_rate: float = 1e-3
    """Peak learning rate, reached after the warm-up, then cosine to zero."""
    weight_decay: float = 0.2
    """AdamW weight decay on matrices and kernels (not on biases, norms or the temperature)."""
    beta2: float = 0.95
    """AdamW second-moment decay."""
    warmup_steps: int = 1000
    """Steps of linear warm-up."""
    clip_grad_norm: float = 1.0
    """Largest gradient norm."""
    crop_scale_min: float = 0.4
    """Smallest share of the image that a training crop covers, 0..1; reinforced samples bring their crops."""
    contrastive_weight: float = 1.0
    """Weight of CLIP's loss."""
    distillation_weight: float = 0.0
    """Weight of the loss against the teachers; above 0 wants reinforced shards or --teachers."""
    teacher_dims: tuple[int, ...] = ()
    """Widths of the teachers whose embeddings lie side by side in the shards (DataCompDR: 768 768); empty: as
    reinforcement.json beside the shards says."""
    teacher_temperatures: tuple[float, ...] = ()
    """Scale of each teacher's similarities (DataCompDR: 100 100); empty: as reinforcement.json or --teachers say."""
    teachers: tuple[str, ...] = ()
    """Frozen teachers run in every step, in place of stored embeddings: MODEL:TAG, MODEL:FILE or a run folder."""
    ema_decay: float = 0.0
    """Decay of a moving average of the weights, which is then what is evaluated and saved; 0: none."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Arithmetic of the forward and backward pass."""
    compile: bool = False
    """Compile the towers with torch.compile: faster steps after a minute or more of compilation."""
    grad_checkpointing: bool = False
    """Compute activations a second time in the backward pass: less memory, slower steps."""
    devices: int = 1
    """Processes on this machine; under torchrun its own numbers count instead."""
    num_workers: int = 1
    """Data-loading processes per training process."""
    shuffle_block: int = 1000
    """Samples that a worker holds and shuffles at a time."""
    max_bad_share: float = 0.01
    """Stop when more than this share of the samples cannot be used, 0..1."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    evaluate_every: int | None = None
    """Steps between evaluations (retrieval, and zero-shot where --zeroshot-data is given); None: at the end only."""
    zeroshot_data: Path | None = None
    """Folder in ImageNet's layout, CLASS/*.jpg, for zero-shot classification; None: none."""
    class_names: Path | None = None
    """Text file that names the classes of --zeroshot-data, a line FOLDER,NAME for each, or a name for each folder in
    sorted order; None: the folders' names."""
    templates: Path | None = None
    """Text file of prompt templates, one to a line, {} where the name goes; None: open_clip's seven for ImageNet."""
    seed: int = 0
    """Seeds weights, shuffling and crops."""
    force: bool = False
    """Start over if the run folder exists."""

    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset(
        {"val_data", "zeroshot_data", "class_names", "templates", "evaluate_every", "checkpoint_every", "max_bad_share"}
    )
    """What training does not depend on: a run may be resumed with other values of these. Not so num_workers: each
    loader worker has shards of its own."""

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
            require(self, "data_weights", fits, f"one above 0 for each of {len(self.data)} sources")
        require(self, "accumulate", self.batch_size % self.accumulate == 0, f"a divisor of {self.batch_size}")
        require_numbers(self, "warmup_steps", at_least=0, at_most=self.steps)
        require(self, "distillation_weight", self.contrastive_weight + self.distillation_weight > 0,
                 "above 0 where --contrastive-weight is 0")  # fmt: skip
        require(self, "teachers", not self.teachers or self.distillation_weight > 0,
                 "none where --distillation-weight is 0")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ConvertWeightsConfig:
    """Convert weights of any source to a folder that stock open_clip loads: the same features, the right transform."""

    source: Annotated[str, tyro.conf.Positional]
    """A pretraining run; a file of open_clip or Apple, train form or fused; or a tag of open_clip's published weights
    (datacompdr), fetched from the hub."""
    model: Annotated[str, tyro.conf.arg(help=_MODELS)]
    out: Path
    """Folder to create: weights.safetensors and open_clip_config.json."""
    force: bool = False
    """Replace the folder if it exists."""
