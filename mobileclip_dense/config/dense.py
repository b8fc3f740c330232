"""Settings of `finetune`, `data check`, `evaluate` and `prune`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from mobileclip_dense.config.check import MAX_PARALLEL, MAX_SIDE_PX, require, require_numbers
from mobileclip_dense.config.encoders import describe_encoders, encoder_spec
from mobileclip_dense.config.heads import Task, describe_heads, heads_of
from mobileclip_dense.config.help import RegistryDoc


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Fine-tune an encoder with a dense head (mmsegmentation) or Mask R-CNN (torchvision)."""

    data: Path
    """Folder of a published data set, or of your own data. `mobileclip-dense data check --help` lists the supported
    layouts; `data check NAME PATH` reports what is present and what is missing."""
    out: Path
    """Run folder. If training was interrupted, run the same command again to resume."""
    task: Task = "segment"
    """segment: class per pixel. depth: metres per pixel. detect: boxes and masks of objects."""
    encoder: Annotated[str, RegistryDoc(describe_encoders)] = "nano"
    init: str | None = None
    """Initial weights of the encoder: a run folder, a checkpoint of open_clip, timm, Apple, MAE, MAWS or
    mmsegmentation, or timm:NAME, downloaded from the hub. A pruned run initializes the whole model. None: train from
    scratch."""
    head: Annotated[str, RegistryDoc(describe_heads)] = "semantic_fpn"
    crop_size_px: tuple[int, int] = (512, 512)
    """Height and width of the training crop, in pixels. Multiples of the encoder's last stride (32)."""
    scale_range: tuple[float, float] = (0.5, 2.0)
    """Segmentation and detection: images are resized so that their short side is that of the crop times a random factor
    from this range."""
    colour_jitter: bool = True
    """Random brightness, contrast, saturation and hue. Turn it off if classes differ by colour."""
    batch_size: int = 16
    """Images per step and process."""
    accumulate: int = 1
    """Micro-batches per step, with accumulated gradients. Must divide --batch-size."""
    max_iters: int = 40_000
    """Optimizer steps."""
    learning_rate: float = 2e-4
    """Peak learning rate. Linear warm-up, then polynomial decay to zero."""
    poly_power: float = 0.9
    """Power of the polynomial decay."""
    layer_decay: float = 1.0
    """Factor on the learning rate from each layer to the one below it. A layer is a stage of MCi and Swin, a block of
    ViT."""
    weight_decay: float = 0.05
    """AdamW weight decay of matrices and kernels (not of biases, norms, LayerScale or position embeddings)."""
    warmup_iters: int = 500
    """Steps of linear warm-up."""
    drop_path_rate: float = 0.1
    """Stochastic depth rate of the encoder, at least 0 and below 1."""
    frozen_stages: int = 0
    """Number of encoder stages (of 4) to freeze, from the stem on: weights and BatchNorm statistics stay fixed. 4 with
    --head linear is a linear probe."""
    batch_norm: Literal["train", "frozen", "synced"] = "train"
    """BatchNorm of the encoder. train: statistics of the batch. frozen: pretrained statistics. synced: statistics of
    the batch over all processes (on GPUs)."""
    neck_channels: int = 256
    """Channels of the feature pyramid network (semantic_fpn, mask_rcnn)."""
    head_channels: int = 128
    """Channels of the prediction head (published: 512 for upernet, 32 for deconv)."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Numerical precision of the forward and backward pass."""
    compile: bool = False
    """Compile the model with torch.compile. Compilation takes a minute or more; steps are faster afterwards."""
    ema_decay: float = 0.0
    """Decay of the exponential moving average of the weights. The averaged weights are evaluated and saved. 0: no
    average."""
    max_train_images: int | None = None
    """Maximum number of training images; the first ones are used. None: all."""
    class_names: Path | None = None
    """Class names, for folders without them: a text file with one name per line, or a CSV file with columns for index
    and name. None: names are read from the folder or derived from its labels."""
    max_depth_m: float = 10.0
    """Depth: maximum depth, in metres. Larger ground truth is ignored; predictions are limited to it."""
    depth_units_per_m: float = 1000.0
    """Depth: PNG value of one metre (1000: the PNG is in millimetres)."""
    skip_bad: bool = False
    """Skip unusable files and report their number, instead of stopping with an error."""
    num_workers: int = 2
    """Number of data-loading processes."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    seed: int = 0
    """Seed of head weights, data order and augmentation."""
    force: bool = False
    """Start over if the run folder exists."""

    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset({"num_workers", "checkpoint_every"})
    """Settings that may differ when a run is resumed. Training does not depend on them."""

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
    """Check a labelled data set: report which files are present, missing (and where to get them) or unusable."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Name of a published data set (see above), or segment or depth for a folder of your own."""
    path: Annotated[Path, tyro.conf.Positional]
    """Folder of the data set. For NYUv2 also the labelled .mat file."""
    class_names: Path | None = None
    """As in `finetune`."""
    max_depth_m: float = 10.0
    """As in `finetune`."""
    depth_units_per_m: float = 1000.0
    """As in `finetune`."""

    def __post_init__(self) -> None:
        require_numbers(self, "max_depth_m", "depth_units_per_m", above=0)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Evaluate a fine-tuned run on held-out images. Writes metrics as JSON, and pictures of the worst predictions."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a completed `mobileclip-dense finetune` run."""
    out: Path | None = None
    """Folder to write. None: evaluation/ in the run folder."""
    data: Path | None = None
    """Data set with the run's classes, in any layout that `finetune` supports. A folder without class names gets those
    of the training data. None: the data set of the run."""
    skip_bad: bool = False
    """With --data: skip unusable files and report their number, instead of stopping with an error."""
    class_names: Path | None = None
    """With --data: class names that replace those of the folder, as in `finetune`."""
    depth_units_per_m: float | None = None
    """With --data: PNG value of one metre. None: as in training."""
    mode: Literal["whole", "slide"] = "whole"
    """whole: one forward pass per image. slide: average over overlapping windows of the training crop's size."""
    scales: tuple[float, ...] = (1.0,)
    """Test-time augmentation: relative sizes of the input image. Predictions are averaged."""
    flip: bool = False
    """Test-time augmentation: average with the prediction of the horizontally flipped image."""
    eigen_crop: bool = False
    """Depth: evaluate on the central crop of NYUv2's 640x480 images (Eigen 2014), as published figures do."""
    max_images: int | None = None
    """Maximum number of images; the first ones are used. None: all."""
    num_worst: int = 8
    """Number of pictures to draw, worst predictions first."""
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
    """Prune a fine-tuned run: remove whole channels and attention heads. Fine-tune the result with --init to recover
    accuracy."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a completed `mobileclip-dense finetune` run with an MCi encoder."""
    out: Path
    """Folder to write: the pruned run."""
    target_params: float | None = None
    """Maximum share of the parameters to keep, above 0 and below 1. Give this or --target-macs."""
    target_macs: float | None = None
    """Maximum share of the multiply-accumulates (at the run's training crop) to keep, above 0 and below 1."""
    force: bool = False
    """Replace the folder if it exists."""

    def __post_init__(self) -> None:
        given = [name for name in ("target_params", "target_macs") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"--target-params, --target-macs: found {'both' if given else 'neither'}, expected one")
        require_numbers(self, given[0], above=0, below=1)
