"""Every setting of the library's commands, its default and its meaning: the single home of each."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from mobileclip_dense.data.captions import CaptionQuality


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
        _require(self, "num_images", self.num_images >= 8, "at least 8 (one in eight is for validation)")
        _require(self, "size_px", 32 <= self.size_px <= 2048, "between 32 and 2048")
        _require(self, "seed", self.seed >= 0, "at least 0")


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
    model: str = "nano"
    """nano, mci0, mci1, mci2, or any model name of open_clip (ViT-B-16, MobileCLIP-B, MobileCLIP2-S4, ...)."""
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

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "steps", "devices", "checkpoint_every", "shuffle_block"):
            _require(self, name, getattr(self, name) >= 1, "at least 1")
        _require(self, "data", self.data != (), "at least one source of shards")
        if self.data_weights:
            fits = len(self.data_weights) == len(self.data) and all(weight > 0 for weight in self.data_weights)
            _require(self, "data_weights", fits, f"one above 0 for each of {len(self.data)} sources")
        _require(self, "accumulate", self.batch_size % self.accumulate == 0, f"a divisor of {self.batch_size}")
        _require(self, "num_workers", self.num_workers >= 0, "at least 0")
        _require(self, "warmup_steps", 0 <= self.warmup_steps <= self.steps, "at least 0, at most --steps")
        _require(self, "image_size_px", self.image_size_px >= 32, "at least 32")
        _require(self, "crop_scale_min", 0 < self.crop_scale_min <= 1, "in (0, 1]")
        _require(self, "max_bad_share", 0 <= self.max_bad_share <= 1, "in [0, 1]")
        _require(self, "ema_decay", 0 <= self.ema_decay < 1, "in [0, 1)")
        _require(self, "evaluate_every", self.evaluate_every is None or self.evaluate_every >= 1, "at least 1")
        for name in ("learning_rate", "clip_grad_norm"):
            _require(self, name, getattr(self, name) > 0, "above 0")
        for name in ("weight_decay", "seed"):
            _require(self, name, getattr(self, name) >= 0, "at least 0")
        _require(self, "beta2", 0 <= self.beta2 < 1, "in [0, 1)")
        _require(self, "teacher_temperatures", all(scale > 0 for scale in self.teacher_temperatures), "all above 0")
        for name in ("contrastive_weight", "distillation_weight"):
            _require(self, name, getattr(self, name) >= 0, "at least 0")
        _require(self, "distillation_weight", self.contrastive_weight + self.distillation_weight > 0,
                 "above 0 where --contrastive-weight is 0")  # fmt: skip
        _require(self, "teachers", not self.teachers or self.distillation_weight > 0,
                 "none where --distillation-weight is 0")  # fmt: skip


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

    def __post_init__(self) -> None:
        _require(self, "teachers", len(self.teachers) >= 1, "at least one teacher")
        for name in ("num_augmentations", "num_captions", "batch_size"):
            _require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("max_retries", "seed"):
            _require(self, name, getattr(self, name) >= 0, "at least 0")
        _require(self, "num_workers", self.num_workers is None or self.num_workers >= 0, "at least 0")
        _require(self, "temperature", self.temperature is None or self.temperature > 0, "above 0")
        _require(self, "gpus_per_task", self.gpus_per_task is None or self.gpus_per_task >= 0, "at least 0")
        _require(self, "out", self.out.absolute() != self.data.absolute(), "another folder than --data")


Task = Literal["segment", "depth"]


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Fine-tune an encoder with a dense head through mmsegmentation."""

    data: Path
    """segment: images/ and annotations/ with training/ and validation/; depth: the same with train/ and test/."""
    out: Path
    """Run folder; the same command resumes it if it was interrupted."""
    task: Task = "segment"
    """segment: class per pixel; depth: metres per pixel."""
    encoder: str = "nano"
    """nano, mci0, mci1, mci2 or swin_l."""
    init: Path | None = None
    """Weights to start from: a run folder, or a checkpoint of open_clip, timm or Apple; None: from scratch. The encoder
    is taken from it; of a pruned run, all of the model."""
    crop_size_px: tuple[int, int] = (512, 512)
    """Training crop, height and width in pixels, multiples of 32."""
    scale_range: tuple[float, float] = (0.5, 2.0)
    """Segmentation: the short side is resized to the crop's, times a random factor from this range."""
    colour_jitter: bool = True
    """Random brightness, contrast, saturation and hue; off where colour tells the classes apart."""
    batch_size: int = 16
    """Images per step and process."""
    max_iters: int = 40_000
    """Optimizer steps."""
    learning_rate: float = 2e-4
    """Peak learning rate, reached after the warm-up, then polynomial (power 0.9) to zero."""
    weight_decay: float = 0.05
    """AdamW weight decay."""
    warmup_iters: int = 500
    """Steps of linear warm-up."""
    drop_path_rate: float = 0.1
    """Stochastic depth of the encoder, 0..1."""
    neck_channels: int = 256
    """Channels of the feature pyramid network."""
    head_channels: int = 128
    """Channels of the prediction head."""
    max_train_images: int | None = None
    """Use only the first so many training images; None: all."""
    class_names: Path | None = None
    """Text file with one class name per line, for folders that bring none; None: read or derived from the folder."""
    max_depth_m: float = 10.0
    """Depth: readings beyond are ignored and predictions stay below, metres."""
    depth_units_per_m: float = 1000.0
    """Depth: values of the PNG per metre (1000: millimetres)."""
    num_workers: int = 2
    """Data-loading processes."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    seed: int = 0
    """Seeds head weights, order and augmentation."""
    force: bool = False
    """Start over if the run folder exists."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_iters", "checkpoint_every"):
            _require(self, name, getattr(self, name) >= 1, "at least 1")
        _require(self, "warmup_iters", 0 <= self.warmup_iters < self.max_iters, "at least 0, less than --max-iters")
        sides_fit = all(side >= 32 and side % 32 == 0 for side in self.crop_size_px)
        _require(self, "crop_size_px", sides_fit, "two positive multiples of 32")
        _require(self, "max_depth_m", self.max_depth_m > 0, "above 0")
        _require(self, "depth_units_per_m", self.depth_units_per_m > 0, "above 0")


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
        _require(self, given[0], 0 < getattr(self, given[0]) < 1, "a share above 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class ConvertWeightsConfig:
    """Convert weights of any source to a folder that stock open_clip loads: the same features, the right transform."""

    source: Annotated[str, tyro.conf.Positional]
    """A pretraining run; a file of open_clip or Apple, train form or fused; or a tag of open_clip's published weights
    (datacompdr), fetched from the hub."""
    model: str
    """nano, mci0, mci1, mci2, or a name of open_clip.list_models(), such as MobileCLIP-S2 or ViT-B-16."""
    out: Path
    """Folder to create: weights.safetensors and open_clip_config.json."""
    force: bool = False
    """Replace the folder if it exists."""


Config = PretrainConfig | FinetuneConfig


def _require(config: Any, field: str, holds: bool, expected: str) -> None:
    if not holds:
        flag = "--" + field.replace("_", "-")
        raise ValueError(f"{flag}: found {getattr(config, field)}, expected {expected}")


def config_to_json(config: Config) -> dict[str, Any]:
    """All fields, paths as absolute strings, `command` naming the kind of config."""
    values = {
        name: str(value.absolute()) if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(config).items()
        if name != "force"
    }
    if isinstance(config, PretrainConfig):
        values["data"] = [_absolute(source) for source in config.data]
        values["val_data"] = None if config.val_data is None else _absolute(config.val_data)
    return {"command": "pretrain" if isinstance(config, PretrainConfig) else "finetune", **values}


def _absolute(source: str) -> str:
    """A local source of shards by its absolute path; URLs and pipes as they are."""
    return source if "://" in source or source.startswith("pipe:") else str(Path(source).absolute())


def config_from_json(values: dict[str, Any], source: Path) -> Config:
    """The inverse of `config_to_json`.

    Raises:
        ValueError: fields are missing, unknown or out of range; the message names `source`.
    """
    kinds: dict[str, type[Config]] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}
    kind = kinds.get(values.get("command", ""))
    if kind is None:
        raise ValueError(f"{source}: command: found {values.get('command')!r}, expected one of {', '.join(kinds)}")
    known = {field.name: field for field in dataclasses.fields(kind)}
    given = {name: value for name, value in values.items() if name != "command"}
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{source}: unknown fields {', '.join(unknown)}; was it written by another version?")
    for name, value in given.items():
        if known[name].type in (Path, Path | None) and value is not None:
            given[name] = Path(value)
        elif isinstance(value, list):
            given[name] = tuple(value)
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source}: {error}") from None
