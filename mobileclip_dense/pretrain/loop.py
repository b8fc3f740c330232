"""CLIP pretraining: a Lightning Fabric loop over webdataset shards (arXiv 2405.08911, section 3)."""

import time
from typing import Any

import torch
from lightning.fabric import Fabric
from open_clip.loss import ClipLoss
from open_clip.model import CustomTextCLIP
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from mobileclip_dense.config import PretrainConfig
from mobileclip_dense.contract.preprocess import Normalization
from mobileclip_dense.data.shards import list_shards
from mobileclip_dense.data.stream import CaptionStream, Position
from mobileclip_dense.models.clip import build_clip
from mobileclip_dense.pretrain.retrieval import measure_retrieval
from mobileclip_dense.run import (
    append_metrics,
    drop_metrics_after,
    finish_run,
    load_checkpoint,
    open_run,
    save_checkpoint,
)

_MAX_LOGIT_SCALE = 4.6052  # ln 100, as in CLIP
_LOG_EVERY = 10


def pretrain(config: PretrainConfig) -> None:
    """Train, or go on training, the run `config.out`; one process per device.

    Raises:
        FileNotFoundError: no shards. FileExistsError: see `open_run`. ValueError: an unknown encoder, too few shards,
            an undecodable sample, a loss that is not finite.
    """
    started = time.time()
    train_shards, val_shards = list_shards(config.data, "train"), list_shards(config.data, "val")
    if config.image_size_px % 32:
        raise ValueError(f"--image-size-px: found {config.image_size_px}, expected a multiple of 32")
    strategy = "ddp" if config.devices * config.num_nodes > 1 else "auto"
    fabric = Fabric(devices=config.devices, num_nodes=config.num_nodes, precision=config.precision, strategy=strategy)
    fabric.launch()
    fabric.seed_everything(config.seed, verbose=False)
    clip, tokenizer, normalization = build_clip(config.encoder, config.image_size_px)
    if fabric.is_global_zero:
        open_run(config)
    fabric.barrier()
    model, optimizer = fabric.setup(clip, build_optimizer(clip, config))
    step, positions = _resume(config, clip, optimizer, fabric.global_rank)
    stream = CaptionStream(
        [train_shards], tokenizer, image_size_px=config.image_size_px, batch_size=config.batch_size,
        crop_scale_min=config.crop_scale_min, seed=config.seed, rank=fabric.global_rank, world_size=fabric.world_size,
        use_reinforcement=False, positions=positions, first_batch=step,
    )  # fmt: skip
    loader = DataLoader(stream, batch_size=None, num_workers=config.num_workers)
    batches = iter(fabric.setup_dataloaders(loader, use_distributed_sampler=False))
    _train(fabric, model, clip, optimizer, batches, normalization, config, step, positions)
    if fabric.is_global_zero:
        metrics = measure_retrieval(
            clip, tokenizer, normalization, val_shards, image_size_px=config.image_size_px, device=fabric.device
        )
        finish_run(config, clip.state_dict(), metrics, started=started, device=str(fabric.device), details={})
        print(f"{config.out}: recall@1 image to text {metrics['image_to_text_recall_at_1']:.1f} %, text to image "
              f"{metrics['text_to_image_recall_at_1']:.1f} % of {metrics['num_pairs']:.0f} held-out pairs")  # fmt: skip
    fabric.barrier()


def build_optimizer(model: nn.Module, config: PretrainConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on everything of two or more dimensions."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, config.beta2), fused=True)


def learning_rate_at(step: int, config: PretrainConfig) -> float:
    """Linear warm-up to the peak, then half a cosine to zero."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + float(torch.cos(torch.tensor(progress * torch.pi))))


def _resume(
    config: PretrainConfig, clip: CustomTextCLIP, optimizer: torch.optim.Optimizer, rank: int
) -> tuple[int, list[Position | None]]:
    """Load the last checkpoint, if any; the number of steps done and the positions of this process's workers."""
    path = config.out / "checkpoints" / "last.pt"
    if not path.exists():
        return 0, [None] * max(1, config.num_workers)
    state = load_checkpoint(path)
    clip.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), state["positions"][rank]


def _gather(positions: list[Position | None], world_size: int) -> list[list[Position | None]]:
    """The positions of all processes."""
    gathered: list[Any] = [positions] * world_size
    if world_size > 1:
        torch.distributed.all_gather_object(gathered, positions)
    return gathered


def _train(
    fabric: Fabric, model: nn.Module, clip: CustomTextCLIP, optimizer: torch.optim.Optimizer, batches: Any,
    normalization: Normalization, config: PretrainConfig, step: int, positions: list[Position | None],
) -> None:  # fmt: skip
    mean, std = (torch.tensor(v, device=fabric.device)[:, None, None] for v in (normalization.mean, normalization.std))
    loss_function = ClipLoss(
        local_loss=True, gather_with_grad=True, rank=fabric.global_rank, world_size=fabric.world_size
    )
    if fabric.is_global_zero:
        drop_metrics_after(config.out, step)
    bar = tqdm(total=config.steps, initial=step, unit="step", desc="pretrain", disable=not fabric.is_global_zero)
    model.train()
    window = time.perf_counter()
    while step < config.steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, config)
        batch = next(batches)
        positions[step % len(positions)] = batch.position
        image_features, text_features, logit_scale = model((batch.images / 255 - mean) / std, batch.texts)
        loss = loss_function(image_features, text_features, logit_scale)
        if not torch.isfinite(loss):
            raise ValueError(f"{config.out}: loss: found {loss.item()} at step {step}; lower --learning-rate")
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=config.clip_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            clip.logit_scale.clamp_(0, _MAX_LOGIT_SCALE)
        step += 1
        bar.update()
        if step % _LOG_EVERY == 0 and fabric.is_global_zero:
            pairs = _LOG_EVERY * config.batch_size * fabric.world_size
            now = time.perf_counter()
            append_metrics(config.out, step=step, loss=loss.item(), learning_rate=optimizer.param_groups[0]["lr"],
                           logit_scale=float(logit_scale), pairs_per_s=pairs / (now - window))  # fmt: skip
            bar.set_postfix(loss=f"{loss.item():.3f}")
            window = now
        if step % config.checkpoint_every == 0 or step == config.steps:
            gathered = _gather(positions, fabric.world_size)
            state = {"model": clip.state_dict(), "optimizer": optimizer.state_dict(), "step": step,
                     "positions": gathered}  # fmt: skip
            if fabric.is_global_zero:
                save_checkpoint(config.out / "checkpoints" / "last.pt", state)
    bar.close()
