"""CLIP pretraining: a Lightning Fabric loop over webdataset shards (arXiv 2405.08911, section 3)."""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.fabric import Fabric
from open_clip.model import CLIP, CustomTextCLIP
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils.data import DataLoader

from mobileclip_dense.artifact.files import write_json
from mobileclip_dense.artifact.preprocess import Normalization
from mobileclip_dense.config import PretrainConfig
from mobileclip_dense.config.encoders import ENCODERS
from mobileclip_dense.data.captioned.shards import list_shards
from mobileclip_dense.data.captioned.stream import Batch, CaptionStream, Position, count_bad, summarise_bad
from mobileclip_dense.models.clip import OPEN_CLIP_CONFIG, Tokenizer, build_clip, normalize_pixels, open_clip_config
from mobileclip_dense.models.memory_format import memory_format_on
from mobileclip_dense.pretraining.accumulation import backward
from mobileclip_dense.pretraining.checkpoint import FIELDS, gather_objects, resume_training, save_training
from mobileclip_dense.pretraining.evaluation import HeldOut, Measured, find_held_out, measure, verify_held_out
from mobileclip_dense.pretraining.log import Log
from mobileclip_dense.pretraining.losses import Losses, reinforced_loss
from mobileclip_dense.pretraining.optimizer import build_optimizer, learning_rate_at
from mobileclip_dense.pretraining.teaching import Teaching, find_teaching
from mobileclip_dense.pretraining.towers import Towers
from mobileclip_dense.run.checkpoints import checkpoint_file
from mobileclip_dense.run.folder import finish_run, open_run

_MAX_LOGIT_SCALE = 4.6052  # ln 100, as in CLIP
_MAX_KEYS_NAMED = 8  # in an error message


@dataclass
class Training:
    """The state of training in one process.

    Attributes:
        clip: the model.
        teaching: the teachers, None without distillation.
        towers: the model wrapped by Fabric.
        average: moving average of the weights, None without one.
        step: number of completed optimizer steps.
        positions: for each loader worker of this process, its position after the last batch trained on.
    """

    fabric: Fabric
    config: PretrainConfig
    clip: CLIP | CustomTextCLIP
    tokenizer: Tokenizer
    normalization: Normalization
    teaching: Teaching | None
    towers: nn.Module
    optimizer: torch.optim.Optimizer
    average: ModelEmaV3 | None
    step: int
    positions: list[Position | None]

    @property
    def result(self) -> CLIP | CustomTextCLIP:
        """The model that is measured and saved: the moving average if there is one."""
        return self.clip if self.average is None else self.average.module

    def measure(self, held_out: HeldOut) -> Measured:
        """Measure `result` on held-out data."""
        return measure(self.result, self.tokenizer, self.normalization, held_out, device=self.fabric.device)


def pretrain(config: PretrainConfig) -> None:
    """Train or resume the run `config.out`, with one process per device.

    Raises:
        FileNotFoundError: there are no shards, or the teachers of the shards are unknown.
        FileExistsError: see `open_run`.
        ValueError: the model is unknown; there are too few shards or too many unusable samples; the loss is not finite;
            no held-out data is usable; or the run is complete and saved, but a figure could not be measured.
    """
    started = time.time()
    stride = ENCODERS[config.model].strides[-1] if config.model in ENCODERS else 1
    if config.image_size_px % stride:
        raise ValueError(f"--image-size-px: found {config.image_size_px}, expected a multiple of {stride}, the stride "
                         f"of {config.model}")  # fmt: skip
    shards = [list_shards(source, "train") for source in config.data]
    held_out, teaching = find_held_out(config), find_teaching(config)
    # Verified before the processes start: the others would wait for a first process that has failed.
    if _is_first_process():
        verify_held_out(held_out, config.max_bad_share)
    with open_run(config, _inputs(config, shards), FIELDS) if _is_first_process() else nullcontext():
        measured = _write_run(config, shards, held_out, teaching, started)
    if measured.missing:
        raise ValueError(f"{config.out}: the run is complete and saved, but not measured: {_reasons(measured)}; repair "
                         f"the data, delete {config.out / 'run.json'} and repeat the command to measure")  # fmt: skip


def _inputs(config: PretrainConfig, shards: list[list[str]]) -> dict[str, Path | None]:
    """The local input paths by flag, with only the first shard of each folder."""
    folders = {Path(shard).parent: Path(shard) for of_source in shards for shard in of_source}
    teachers = [Path(part) for teacher in config.teachers for part in (teacher, teacher.partition(":")[2]) if part]
    return {
        **{f"--data, {source}": Path(source) for source in config.data},
        **{f"--data, {folder}": shard for folder, shard in folders.items()},
        **{f"--teachers, {teacher}": teacher for teacher in teachers},
        "--val-data": None if config.val_data is None else Path(config.val_data),
        "--zeroshot-data": config.zeroshot_data,
        "--class-names": config.class_names,
        "--templates": config.templates,
    }


def _write_run(
    config: PretrainConfig, shards: list[list[str]], held_out: HeldOut, teaching: Teaching | None, started: float
) -> Measured:
    """Train, measure and save the run. Returns the figures in the first process, empty ones in the others."""
    training = _set_up(_launch(config), config, teaching)
    finished = _train(training, iter(_load(training, shards)), held_out)
    fabric = training.fabric
    measured = Measured()
    positions = [position for of_process in gather_objects(training.positions) for position in of_process]
    if fabric.is_global_zero and not finished:
        print(f"{config.out}: SIGTERM: step {training.step} of {config.steps} is saved; repeat the command to resume")
    elif fabric.is_global_zero:
        measured = training.measure(held_out)
        # Lets open_clip load the folder as "local-dir:RUN", with the right preprocessing.
        write_json(config.out / OPEN_CLIP_CONFIG, open_clip_config(config.model, config.image_size_px))
        finish_run(config, training.result.state_dict(), measured.figures, started=started, device=str(fabric.device),
                   details={"skipped_samples": count_bad(positions), "not_measured": measured.missing})  # fmt: skip
        print(summarise_bad(positions) + _summary(config, measured.figures))
    fabric.barrier()
    return measured


def _is_first_process() -> bool:
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0) == 0


def _launch(config: PretrainConfig) -> Fabric:
    """Join the processes of torchrun, or without torchrun launch `config.devices` processes."""
    per_node, nodes = config.devices, 1
    if "LOCAL_WORLD_SIZE" in os.environ:
        per_node = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // per_node
    strategy = "ddp" if per_node * nodes > 1 else "auto"
    fabric = Fabric(devices=per_node, num_nodes=nodes, precision=config.precision, strategy=strategy)
    fabric.launch()
    fabric.seed_everything(config.seed, verbose=False)
    return fabric


def _set_up(fabric: Fabric, config: PretrainConfig, teaching: Teaching | None) -> Training:
    clip, tokenizer, normalization = build_clip(config.model, config.image_size_px)
    if getattr(clip, "logit_bias", None) is not None:
        raise ValueError(f"--model: found {config.model}, a SigLIP model, expected a model trained with CLIP's loss")
    if config.grad_checkpointing:
        clip.set_grad_checkpointing()
    clip.to(fabric.device, memory_format=memory_format_on(fabric.device))
    for teacher in () if teaching is None else teaching.online:
        teacher.move(fabric.device)
    average = ModelEmaV3(clip, decay=config.ema_decay) if config.ema_decay else None
    optimizer = build_optimizer(clip, config)
    towers: nn.Module = torch.compile(Towers(clip)) if config.compile else Towers(clip)  # type: ignore[assignment]
    towers, optimizer = fabric.setup(towers, optimizer)
    step, positions = resume_training(
        config.out, clip, average, optimizer, rank=fabric.global_rank, world_size=fabric.world_size,
        num_workers=config.num_workers,
    )  # fmt: skip
    return Training(
        fabric=fabric, config=config, clip=clip, tokenizer=tokenizer, normalization=normalization, teaching=teaching,
        towers=towers, optimizer=optimizer, average=average, step=step, positions=positions,
    )  # fmt: skip


def _load(training: Training, shards: list[list[str]]) -> DataLoader[Batch]:
    config, teaching = training.config, training.teaching
    stored_width = None if teaching is None or teaching.online else sum(teaching.dims)
    stream = CaptionStream(
        shards, training.tokenizer, weights=config.data_weights or None, image_size_px=config.image_size_px,
        batch_size=config.batch_size, crop_scale_min=config.crop_scale_min, use_reinforcement=stored_width is not None,
        embedding_width=stored_width,
        shuffle_block=config.shuffle_block, max_bad_share=config.max_bad_share, seed=config.seed,
        rank=training.fabric.global_rank, world_size=training.fabric.world_size, positions=training.positions,
        first_batch=training.step,
    )  # fmt: skip
    on_gpu = training.fabric.device.type == "cuda"
    return DataLoader(stream, batch_size=None, num_workers=config.num_workers, pin_memory=on_gpu,
                      worker_init_fn=_leave_signals_to_the_trainer)  # fmt: skip


def _leave_signals_to_the_trainer(_: int) -> None:
    """Ignore SIGTERM in loader workers, so that the trainer can finish and save its step before they end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _train(training: Training, batches: Iterator[Batch], held_out: HeldOut) -> bool:
    """Train to the last step. Returns False if SIGTERM ended training early; a checkpoint is then saved."""
    fabric, config = training.fabric, training.config
    log = Log(config, fabric, training.step)
    training.towers.train()
    with _sigterm_noted() as terminated:
        while training.step < config.steps:
            batch = next(batches)
            losses, norm = _step(training, batch)
            # One collective tells all processes whether all values are finite, and whether one received SIGTERM.
            scale = training.clip.logit_scale.detach().exp()  # equal in all; included to synchronise the device once
            own = torch.stack([*losses, norm, scale, losses.total.new_tensor(terminated.is_set())])
            total, contrastive, distillation, gradient_norm, logit_scale, stop = _agree(fabric, own)
            if not (math.isfinite(total) and math.isfinite(gradient_norm)):  # the weights are lost: save nothing
                raise ValueError(_not_finite(training, batch, total, gradient_norm))
            training.positions[training.step % len(training.positions)] = batch.position
            training.step += 1
            log.step(training.step, loss=total, contrastive=contrastive, distillation=distillation,
                     gradient_norm=gradient_norm, learning_rate=training.optimizer.param_groups[0]["lr"],
                     logit_scale=logit_scale)  # fmt: skip
            last = training.step == config.steps
            if stop or last or training.step % config.checkpoint_every == 0:
                save_training(config.out, training.clip, training.average, training.optimizer, step=training.step,
                              positions=training.positions)  # fmt: skip
            if stop and not last:
                break
            if not last and config.evaluate_every and training.step % config.evaluate_every == 0:
                if fabric.is_global_zero:
                    measured = training.measure(held_out)
                    log.write(training.step, **measured.figures)
                    if measured.missing:
                        print(f"step {training.step}: not measured: {_reasons(measured)}", file=sys.stderr)
                fabric.barrier()
                training.towers.train()
    log.close()
    return training.step == config.steps


def _agree(fabric: Fabric, values: torch.Tensor) -> list[float]:
    """The mean of each value over the processes."""
    return torch.as_tensor(fabric.all_reduce(values)).tolist()


def _step(training: Training, batch: Batch) -> tuple[Losses, torch.Tensor]:
    """One optimizer step. Returns the detached losses of this process and the norm of the averaged gradient."""
    fabric, config, optimizer = training.fabric, training.config, training.optimizer
    for group in optimizer.param_groups:
        group["lr"] = learning_rate_at(training.step, config)
    images = batch.images.to(fabric.device, non_blocking=True)
    token_sets = [tokens.to(fabric.device, non_blocking=True) for tokens in batch.token_sets]
    teachers = [] if training.teaching is None else training.teaching.features(batch, images, config.accumulate)
    chunks = zip(*(part.chunk(config.accumulate) for part in (images, *token_sets)), strict=True)
    layout = memory_format_on(fabric.device)
    micro_batches = [
        (normalize_pixels(pixels, training.normalization).contiguous(memory_format=layout), *tokens)
        for pixels, *tokens in chunks
    ]
    weights = (config.contrastive_weight, config.distillation_weight)
    losses = backward(
        fabric, training.towers, micro_batches, lambda student: reinforced_loss(student, teachers, weights=weights)
    )
    norm = fabric.clip_gradients(training.towers, optimizer, max_norm=config.clip_grad_norm, error_if_nonfinite=False)
    assert norm is not None  # because max_norm is given
    optimizer.step()
    optimizer.zero_grad()
    with torch.no_grad():
        training.clip.logit_scale.clamp_(0, _MAX_LOGIT_SCALE)
    if training.average is not None:
        training.average.update(training.clip)
    return losses, norm.detach()


@contextmanager
def _sigterm_noted() -> Iterator[threading.Event]:
    """An event that SIGTERM sets instead of ending the process."""
    terminated = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, before)


def _not_finite(training: Training, batch: Batch, loss: float, gradient_norm: float) -> str:
    path = checkpoint_file(training.config.out)
    checkpoint = f"the last good checkpoint is {path}" if path.exists() else "there is no checkpoint yet"
    keys = ", ".join(batch.keys[:_MAX_KEYS_NAMED]) + (", …" if len(batch.keys) > _MAX_KEYS_NAMED else "")
    return (f"{training.config.out}: loss: found {loss}, gradient norm {gradient_norm}, at step {training.step + 1}, "
            f"samples {keys}, expected finite numbers; {checkpoint}; inspect the samples, or start over with --force "
            f"and a lower --learning-rate")  # fmt: skip


def _reasons(measured: Measured) -> str:
    return "; ".join(f"{what} ({reason})" for what, reason in measured.missing.items())


def _summary(config: PretrainConfig, metrics: dict[str, float]) -> str:
    figures = []
    if "num_pairs" in metrics:
        there, back = metrics["image_to_text_recall_at_1"], metrics["text_to_image_recall_at_1"]
        figures.append(f"recall@1 image to text {there:.1f} %, text to image {back:.1f} % of "
                       f"{metrics['num_pairs']:.0f} held-out pairs")  # fmt: skip
    if "zeroshot_top1" in metrics:
        figures.append(f"zero-shot top-1 {metrics['zeroshot_top1']:.1f} %")
    return f"{config.out}: " + ("; ".join(figures) or "complete; not measured, no held-out data (--val-data)")
