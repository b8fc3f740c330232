"""Progress of a pretraining run: a bar or log lines, metrics.jsonl, and TensorBoard if it is installed."""

import time
from importlib.util import find_spec
from typing import Any

from lightning.fabric import Fabric

from mobileclip_dense.config import PretrainConfig
from mobileclip_dense.pages.progress import TrackedProgress
from mobileclip_dense.run.training_log import append_metrics, drop_metrics_after

_EVERY = 10  # steps


class Log:
    """The log of a run. Only the first process writes."""

    def __init__(self, config: PretrainConfig, fabric: Fabric, step: int):
        """Open the log and drop entries after `step`, from which the run resumes."""
        self.folder, self.speaks = config.out, fabric.is_global_zero
        self.num_steps, self.pairs_per_step = config.steps, config.batch_size * fabric.world_size
        self.progress = TrackedProgress("pretrain", config.steps, initial=step, shown=self.speaks)
        self.board = self._open_board(step) if self.speaks else None
        self.since, self.since_step = time.perf_counter(), step
        if self.speaks:
            drop_metrics_after(config.out, step)

    def _open_board(self, step: int) -> Any:
        if find_spec("tensorboard") is None:
            return None
        from torch.utils.tensorboard.writer import SummaryWriter

        return SummaryWriter(str(self.folder / "tensorboard"), purge_step=step)

    def step(self, step: int, **values: float) -> None:
        """Log a step. Every tenth step is written, with the pairs per second since the last written one."""
        self.progress.advance()
        if step % _EVERY or not self.speaks:
            return
        now = time.perf_counter()
        pairs = (step - self.since_step) * self.pairs_per_step  # after resuming, there may be fewer than ten steps
        pairs_per_s = pairs / (now - self.since)
        self.write(step, **values, pairs_per_s=pairs_per_s)
        self.since, self.since_step = now, step
        loss = values["loss"]
        self.progress.report(f"step {step} of {self.num_steps}, loss {loss:.3f}, {pairs_per_s:.1f} pairs/s")

    def write(self, step: int, **values: float) -> None:
        """Write the figures of a step."""
        append_metrics(self.folder, step=step, **values)
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the progress bar and TensorBoard."""
        self.progress.close()
        if self.board is not None:
            self.board.close()
