"""Settings of dense fine-tuning and of what is done to its runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from mobileclip_dense.config.check import MAX_PARALLEL, MAX_SIDE_PX, require, require_numbers
from mobileclip_dense.config.encoders import describe_encoders, encoder_spec
from mobileclip_dense.config.heads import Task, describe_heads, heads_of


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Fine-tune an encoder with a dense head through mmsegmentation, or with Mask R-CNN through torchvision."""

    data: Path
    """Data set as it is published, or a folder of your own. `mobileclip-dense data check --help` lists the layouts that
    are known, `data check NAME PATH` what is there and what is missing."""
    out: Path
    """Run folder; the same command resumes it if it was interrupted."""
    task: Task = "segment"
    """segment: class per pixel; depth: metres per pixel; detect: boxes and masks of objects."""
    encoder: Annotated[str, tyro.conf.arg(help=describe_encoders())] = "nano"
    init: str | None = None
    """Weights to start from: a run folder, a checkpoint of open_clip, timm, Apple, MAE, MAWS or mmsegmentation, or
    timm:NAME, fetched from the hub; None: from scratch. The encoder is taken from it; of a pruned run, all of the
    model."""
    head: Annotated[str, tyro.conf.arg(help=describe_heads())] = "semantic_fpn"
    crop_size_px: tuple[int, int] = (512, 512)
    """Training crop, height and width in pixels, multiples of the encoder's last stride (32)."""
    scale_range: tuple[float, float] = (0.5, 2.0)
    """Segmentation and detection: the short side is resized to the crop's, times a random factor from this range."""
    colour_jitter: bool = True
    """Random brightness, contrast, saturation and hue; off where colour tells the classes apart."""
    batch_size: int = 16
    """Images per step and process."""
    accumulate: int = 1
    """Micro-batches per step, gradients added up; divides --batch-size."""
    max_iters: int = 40_000
    """Optimizer steps."""
    learning_rate: float = 2e-4
    """Peak learning rate, reached after the warm-up, then polynomial to zero."""
    poly_power: float = 0.9
    """Power of the polynomial."""
    layer_decay: float = 1.0
    """The learning rate of a layer is that of the layer above it times this: MCi and Swin by stage, ViT by block."""
    weight_decay: float = 0.05
    """AdamW weight decay on matrices and kernels (not on biases, norms, LayerScale or positions)."""
    warmup_iters: int = 500
    """Steps of linear warm-up."""
    drop_path_rate: float = 0.1
    """Stochastic depth of the encoder, from 0 to below 1."""
    frozen_stages: int = 0
    """So many stages of the encoder (of 4), stem included, keep their weights and statistics; all of it with --head
    linear is a linear probe."""
    batch_norm: Literal["train", "frozen", "synced"] = "train"
    """BatchNorm of the encoder: statistics of the batch, the pretrained ones, or those of the batch over all
    processes (on GPUs)."""
    neck_channels: int = 256
    """Channels of the feature pyramid network (semantic_fpn, mask_rcnn)."""
    head_channels: int = 128
    """Channels of the prediction head; of upernet 512, of deconv 32 as published."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Arithmetic of the forward and backward pass."""
    compile: bool = False
    """Compile the model with torch.compile: faster steps after a minute or more of compilation."""
    ema_decay: float = 0.0
    """Decay of a moving average of the weights, which is then what is evaluated and saved; 0: none."""
    max_train_images: int | None = None
    """Use only the first so many training images; None: all."""
    class_names: Path | None = None
    """Text file with one class name per line, or CSV with a column for index and one for name, for folders that bring
    none; None: read or derived from the folder."""
    max_depth_m: float = 10.0
    """Depth: readings beyond are ignored and predictions stay below, metres."""
    depth_units_per_m: float = 1000.0
    """Depth: values of the PNG per metre (1000: millimetres)."""
    skip_bad: bool = False
    """Leave out files that cannot be used, and say how many, instead of refusing the folder."""
    num_workers: int = 2
    """Data-loading processes."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    seed: int = 0
    """Seeds head weights, order and augmentation."""
    force: bool = False
    """Start over if the run folder exists."""

    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset({"num_workers", "checkpoint_every"})
    """What training does not depend on: a run may be resumed with other values of these."""

    def __post_init__(self) -> None:
        strides = encoder_spec(self.encoder).strides
        counts = ("batch_size", "accumulate", "max_iters", "checkpoint_every", "max_train_images")
        require_numbers(self, *counts, at_least=1)
        require_numbers(self, "neck_channels", "head_channels", at_least=1, at_most=8192)
        require_numbers(self, "crop_size_px", at_least=strides[-1], at_most=MAX_SIDE_PX)
        require_numbers(self, "num_workers", at_least=0, at_most=MAX_PARALLEL)
        require_numbers(self, "learning_rate", "weight_decay", "seed", at_least=0)
        require_numbers(self, "max_depth_m", "depth_units_per_m", "poly_power", above=0)
        require_numbers(self, "scale_range", above=0, at_most=16)
        require_numbers(self, "layer_decay", above=0, at_most=1)
        require_numbers(self, "frozen_stages", at_least=0, at_most=len(strides))
        require_numbers(self, "ema_decay", "drop_path_rate", at_least=0, below=1)
        require(self, "accumulate", self.batch_size % self.accumulate == 0, f"a divisor of {self.batch_size}")
        heads = heads_of(self.task)
        require(self, "head", self.head in heads, f"for task {self.task} {', '.join(heads)}")
        require_numbers(self, "warmup_iters", at_least=0, below=self.max_iters)
        sides_fit = all(side % strides[-1] == 0 for side in self.crop_size_px)
        require(self, "crop_size_px", sides_fit, f"two positive multiples of {strides[-1]}")
        require(self, "scale_range", self.scale_range[0] <= self.scale_range[1], "two factors above 0, ascending")


@dataclass(frozen=True, kw_only=True)
class DataCheckConfig:
    """Say what of a data set is there, what is missing and where to get it, and which files cannot be used."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """A published data set, see above; segment or depth: a folder of your own."""
    path: Annotated[Path, tyro.conf.Positional]
    """Where it lies; of NYUv2 also the labelled .mat file."""
    class_names: Path | None = None
    """As of `finetune`."""
    max_depth_m: float = 10.0
    """As of `finetune`."""
    depth_units_per_m: float = 1000.0
    """As of `finetune`."""

    def __post_init__(self) -> None:
        require_numbers(self, "max_depth_m", "depth_units_per_m", above=0)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Measure a fine-tuned run on held-out images: figures as JSON, and pictures of where it fails."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a complete `mobileclip-dense finetune` run."""
    out: Path | None = None
    """Folder to write; None: evaluation/ inside the run's folder."""
    data: Path | None = None
    """Data set in any layout that `finetune` takes, with the run's classes; None: the one it was trained on. A folder
    without class names is read like that one."""
    skip_bad: bool = False
    """With --data: leave out files that cannot be used, and say how many, instead of refusing the folder."""
    class_names: Path | None = None
    """With --data: names in place of the folder's, as of `finetune`."""
    depth_units_per_m: float | None = None
    """With --data: values of its depth PNGs per metre; None: as in training."""
    mode: Literal["whole", "slide"] = "whole"
    """whole: an image at once; slide: overlapping windows of the training crop, averaged."""
    scales: tuple[float, ...] = (1.0,)
    """Sizes at which each image is seen, relative to the usual one; predictions are averaged."""
    flip: bool = False
    """Also see each image mirrored, and average."""
    eigen_crop: bool = False
    """Depth: only the middle of NYUv2's 640x480 images (Eigen 2014), as the published figures are taken."""
    max_images: int | None = None
    """Only the first so many images; None: all."""
    num_worst: int = 8
    """Pictures to draw, those with the worst figures first."""
    force: bool = False
    """Replace the folder if it exists."""

    def __post_init__(self) -> None:
        require(self, "scales", self.scales != (), "factors above 0")
        require_numbers(self, "scales", above=0, at_most=16)
        require_numbers(self, "depth_units_per_m", above=0)
        require_numbers(self, "max_images", at_least=1)
        require_numbers(self, "num_worst", at_least=0)
        for name in ("skip_bad", "class_names", "depth_units_per_m"):
            require(self, name, self.data is not None or not getattr(self, name), "only with --data")


@dataclass(frozen=True, kw_only=True)
class PruneConfig:
    """Prune a fine-tuned run: whole channels and attention heads go. Fine-tune the result with --init to recover."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a complete `mobileclip-dense finetune` run with an MCi encoder."""
    out: Path
    """Folder of the pruned run."""
    target_params: float | None = None
    """Keep at most this share of the parameters, above 0, below 1. Give this or --target-macs."""
    target_macs: float | None = None
    """Keep at most this share of the multiply-accumulates at the run's training crop, above 0, below 1."""
    force: bool = False
    """Replace the folder if it exists."""

    def __post_init__(self) -> None:
        given = [name for name in ("target_params", "target_macs") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"--target-params, --target-macs: found {'both' if given else 'neither'}, expected one")
        require_numbers(self, given[0], above=0, below=1)
