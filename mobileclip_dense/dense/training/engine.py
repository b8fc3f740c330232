"""Extensions of mmengine's Runner: CPU processes, bf16 on any device, resuming without loading seen images again."""

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from typing import Any

import torch
from mmengine.dist import init_dist, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import LOOPS, OPTIM_WRAPPERS
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch import nn

from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.models.memory_format import memory_format_on
from mobileclip_dense.pages.progress import TrackedProgress
from mobileclip_dense.run.training_log import append_metrics, drop_metrics_after

_LOG_EVERY = 10
_TIMEOUT = timedelta(hours=2)  # the other processes wait while the first opens every file of the data set


def join_processes() -> str:
    """Join the process group if torchrun started this process: nccl on GPUs, gloo on CPUs (unsupported by mmengine).

    Returns:
        mmengine's name of the launcher: pytorch, or none without torchrun.
    """
    if "RANK" not in os.environ:
        return "none"
    if not torch.distributed.is_initialized():
        if torch.cuda.is_available():
            init_dist("pytorch", backend="nccl", timeout=int(_TIMEOUT.total_seconds()))
        else:
            torch.distributed.init_process_group("gloo", timeout=_TIMEOUT)
    return "pytorch"


def place_model(model: nn.Module) -> nn.Module:
    """Move the model to this process's device and its fastest memory format, and wrap it if there are processes."""
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    placed: nn.Module = model.to(device, memory_format=memory_format_on(device))  # type: ignore[call-overload]
    if not torch.distributed.is_initialized():
        return placed
    device_ids = [device.index] if device.type == "cuda" else None  # on CPUs, mmengine's own choice would fail
    return MMDistributedDataParallel(placed, device_ids=device_ids, broadcast_buffers=False)


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Autocast to bfloat16 on any device, without loss scaling; mmengine's autocast wrapper needs a GPU."""

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of the forward pass and the loss."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield


class _SkippingIterator:
    """An iterator with `num` leading None items, which mmengine drops when it resumes."""

    def __init__(self, batches: Any, num: int):
        self.batches, self.left = batches, num

    def __next__(self) -> Any:
        if self.left:
            self.left -= 1
            return None
        return next(self.batches)


@LOOPS.register_module()
class ResumingTrainLoop(IterBasedTrainLoop):
    """mmengine's loop, but a resumed run skips the seen images by index instead of loading them."""

    def run(self) -> nn.Module:
        """Train, see `IterBasedTrainLoop.run`."""
        if self._iter > 0:
            sampler = self.dataloader.sampler
            sampler.indices = sampler._indices_of_rank()  # a fresh iterator: the loader has prefetched from the old one
            deque(islice(sampler.indices, self._iter * self.dataloader.batch_size), maxlen=0)
            self.dataloader_iterator = _SkippingIterator(_InfiniteDataloaderIterator(self.dataloader), self._iter)
        model: nn.Module = super().run()
        return model


class StepAverage(EMAHook):
    """mmengine's moving average of weights and BatchNorm statistics, updated after each optimizer step.

    mmengine's own interval counts micro-batches from the first, and would take the weights before the step.
    """

    def __init__(self, config: FinetuneConfig):
        super().__init__(momentum=1 - config.ema_decay, update_buffers=True)
        self.accumulate = config.accumulate

    def after_train_iter(self, runner: Runner, *arguments: Any, **options: Any) -> None:
        if self.every_n_train_iters(runner, self.accumulate):
            super().after_train_iter(runner, *arguments, **options)


def compile_settings(config: FinetuneConfig) -> bool | dict[str, Any]:
    """Options for torch.compile. In torch 2.11, compiled channels-last convolutions crash on CPUs."""
    if not config.compile or torch.cuda.is_available():
        return config.compile
    return {"options": {"layout_optimization": False}}


class RunLog(Hook):
    """Progress and metrics.jsonl. Steps are optimizer steps."""

    def __init__(self, config: FinetuneConfig):
        self.config = config

    def before_train(self, runner: Runner) -> None:
        step = runner.iter // self.config.accumulate
        if is_main_process():
            drop_metrics_after(self.config.out, step)
            if step:
                print(f"{self.config.out}: continuing at step {step}")
        self.progress = TrackedProgress(
            f"finetune {self.config.task}", self.config.max_iters, initial=step, shown=is_main_process()
        )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Update the progress bar, and log every tenth step.

        Raises:
            ValueError: the loss is not finite.
        """
        assert outputs is not None
        step, micro = divmod(runner.iter + 1, self.config.accumulate)
        if micro:
            return
        loss = float(outputs["loss"].detach())
        if not torch.isfinite(torch.tensor(loss)):
            raise ValueError(f"{self.config.out}: loss: found {loss} at step {step}, expected a finite number; "
                             "lower --learning-rate")  # fmt: skip
        self.progress.advance()
        if step % _LOG_EVERY == 0 and is_main_process():
            rate = max(group["lr"] for group in runner.optim_wrapper.param_groups)
            append_metrics(self.config.out, step=step, loss=loss, learning_rate=rate)
            self.progress.report(f"step {step} of {self.config.max_iters}, loss {loss:.3f}")

    def after_train(self, runner: Runner) -> None:
        self.progress.close()
