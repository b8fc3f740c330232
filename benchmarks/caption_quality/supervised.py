"""Supervised pretraining, the baseline of CLIP pretraining: the image tower learns to predict the tags of an image.

Everything except the target is as in CLIP pretraining: the tower, the images, their order and crops, the number of
steps, the batch size, the optimizer and its schedule.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.fabric import seed_everything
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import multilabel_average_precision

from mobileclip_dense.artifact.files import read_json, sha256_of, staged_file, write_json
from mobileclip_dense.artifact.preprocess import Normalization
from mobileclip_dense.artifact.versions import versions_of
from mobileclip_dense.config import PretrainConfig
from mobileclip_dense.data.captioned.samples import read_sample
from mobileclip_dense.data.captioned.shards import list_shards, read_samples
from mobileclip_dense.data.captioned.stream import Batch, CaptionStream, Position
from mobileclip_dense.models.clip import Tokenizer, build_clip, build_transform, normalize_pixels
from mobileclip_dense.models.memory_format import memory_format_on
from mobileclip_dense.pages.progress import progress_bar
from mobileclip_dense.pretraining.optimizer import build_optimizer, learning_rate_at
from mobileclip_dense.pretraining.randomness import random_states, set_random_states
from mobileclip_dense.run.checkpoints import checkpoint_file, load_checkpoint, save_checkpoint, settle_checkpoints
from mobileclip_dense.run.training_log import append_metrics, drop_metrics_after

_LOG_EVERY = 10
_MEASURE_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Tags:
    """The kinds of objects in each image, from COCO annotations: sample key to float32 [num_kinds]."""

    kinds: tuple[str, ...]
    of_key: dict[str, Tensor]


def read_tags(annotations: Path) -> Tags:
    """Read the tags from `DIR/coco/annotations/instances_*.json`, as written by `mobileclip-dense scenes`.

    Raises:
        FileNotFoundError, ValueError: see `read_json`.
    """
    coco = read_json(annotations)
    place = {category["id"]: index for index, category in enumerate(coco["categories"])}
    of_key = {f"{image['id']:09d}": torch.zeros(len(place)) for image in coco["images"]}
    for annotation in coco["annotations"]:
        of_key[f"{annotation['image_id']:09d}"][place[annotation["category_id"]]] = 1
    return Tags(kinds=tuple(category["name"] for category in coco["categories"]), of_key=of_key)


def pretrain_supervised(config: PretrainConfig, scenes: Path) -> None:
    """Train or resume `config.out`. Writes weights.safetensors with timm's keys, for `finetune --init`.

    Args:
        config: settings of CLIP pretraining. Those for captions, loss and evaluation are ignored.
        scenes: folder of the scenes in `config.data`, with COCO annotations and held-out images.

    Raises:
        ValueError: the loss is not finite, or the data cannot be used.
    """
    started = time.time()
    train_tags = read_tags(scenes / "coco" / "annotations" / "instances_train2017.json")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    seed_everything(config.seed, verbose=False)
    clip, tokenizer, normalization = build_clip(config.model, config.image_size_px)
    trunk = clip.visual.trunk
    trunk.reset_classifier(len(train_tags.kinds))
    trunk.to(device, memory_format=memory_format_on(device))
    optimizer = build_optimizer(trunk, config)
    first, positions = _resume(config, trunk, optimizer, device)
    drop_metrics_after(config.out, first)
    batches = iter(_load(config, tokenizer, first, positions))
    trunk.train()
    for step in progress_bar(range(first, config.steps), "tags", initial=first, total=config.steps, unit="step"):
        batch = next(batches)
        loss = _step(trunk, optimizer, batch, train_tags, normalization, config, step, device)
        positions[step % len(positions)] = batch.position
        done = step + 1
        if done % _LOG_EVERY == 0:
            append_metrics(config.out, step=done, loss=loss)
        if done % config.checkpoint_every == 0 or done == config.steps:
            state = {
                "model": trunk.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": done,
                "positions": positions,
                "random": random_states(device),
            }
            save_checkpoint(checkpoint_file(config.out), state)
    transform = build_transform(clip, normalization, config.image_size_px)
    metrics = {"tag_map_percent": _mean_average_precision(trunk, transform, scenes, device)}
    _finish(config, trunk, metrics, started, device)


def _step(
    trunk: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    tags: Tags,
    normalization: Normalization,
    config: PretrainConfig,
    step: int,
    device: torch.device,
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate_at(step, config)
    images = normalize_pixels(batch.images.to(device, non_blocking=True), normalization)
    target = torch.stack([tags.of_key[key] for key in batch.keys]).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16-mixed"):
        logits = trunk(images.contiguous(memory_format=memory_format_on(device)))
    loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), target)
    if not torch.isfinite(loss):
        raise ValueError(f"{config.out}: loss: found {float(loss)} at step {step + 1}, expected a finite number; "
                         "lower the learning rate")  # fmt: skip
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(trunk.parameters(), config.clip_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def _resume(
    config: PretrainConfig, trunk: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> tuple[int, list[Position | None]]:
    path = checkpoint_file(config.out)
    settle_checkpoints(config.out, ("model", "optimizer", "step", "positions", "random"))
    if not path.exists():
        return 0, [None] * max(1, config.num_workers)
    state = load_checkpoint(path)
    trunk.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    set_random_states(device, state["random"])
    return state["step"], state["positions"]


def _load(
    config: PretrainConfig, tokenizer: Tokenizer, step: int, positions: list[Position | None]
) -> DataLoader[Batch]:
    """The loader of `pretrain`, with the same images, order and crops for the same settings."""
    stream = CaptionStream(
        [list_shards(source, "train") for source in config.data],
        tokenizer,
        image_size_px=config.image_size_px,
        batch_size=config.batch_size,
        crop_scale_min=config.crop_scale_min,
        use_reinforcement=False,
        shuffle_block=config.shuffle_block,
        max_bad_share=config.max_bad_share,
        seed=config.seed,
        positions=positions,
        first_batch=step,
    )
    return DataLoader(stream, batch_size=None, num_workers=config.num_workers, pin_memory=torch.cuda.is_available())


@torch.inference_mode()
def _mean_average_precision(trunk: nn.Module, transform: object, scenes: Path, device: torch.device) -> float:
    """The mean average precision on held-out images in percent, over the kinds of objects that occur in them."""
    assert callable(transform)
    tags = read_tags(scenes / "coco" / "annotations" / "instances_val2017.json")
    samples = [sample for shard in list_shards(scenes / "shards", "val") for sample in read_samples(shard)]
    trunk.eval()
    scores = []
    for start in range(0, len(samples), _MEASURE_BATCH):
        pictures = [read_sample(sample.members)[0] for sample in samples[start : start + _MEASURE_BATCH]]
        images = torch.stack([transform(picture) for picture in pictures])
        scores.append(trunk(images.to(device)).float().cpu().sigmoid())
    target = torch.stack([tags.of_key[sample.key] for sample in samples]).long()
    of_kinds = multilabel_average_precision(torch.cat(scores), target, len(tags.kinds), average="none")
    return 100 * float(of_kinds[target.any(0)].mean())


def _finish(
    config: PretrainConfig, trunk: nn.Module, metrics: dict[str, float], started: float, device: torch.device
) -> None:
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in trunk.state_dict().items()}
    path = config.out / "weights.safetensors"
    with staged_file(path) as staging:
        staging.write_bytes(save(weights))
    write_json(
        config.out / "run.json",
        {
            "versions": versions_of("torch", "timm", "open_clip_torch", "numpy"),
            "architecture": config.model,
            "parent": None,
            "seed": config.seed,
            "device": str(device),
            "wall_time_s": round(time.time() - started, 1),
            "weights_sha256": sha256_of(path),
            "num_parameters": sum(tensor.numel() for tensor in weights.values() if tensor.is_floating_point()),
            "metrics": metrics,
        },
    )
    print(f"{config.out}: mean average precision of {metrics['tag_map_percent']:.1f} % over held-out pictures")
