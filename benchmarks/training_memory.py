"""`python -m benchmarks.training_memory`: pairs per second and peak memory of a training step against batch size.

Use it to plan a run. Each row runs in its own process, one after the other, and trains a few steps on random pixels and
captions, without loading. The memory is torch's peak allocation on a GPU, and the peak resident memory of the process
on a CPU.
"""

from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from lightning.fabric import Fabric

from benchmarks.harness import ResultSettings, compute_device_name, provenance
from mobileclip_dense.artifact.files import refuse_existing, write_json
from mobileclip_dense.command import run_with_settings
from mobileclip_dense.config import PretrainConfig
from mobileclip_dense.config.check import MAX_SIDE_PX, require_numbers
from mobileclip_dense.models.clip import build_clip
from mobileclip_dense.models.memory_format import memory_format_on
from mobileclip_dense.pages.progress import progress_bar
from mobileclip_dense.pages.text_table import print_table
from mobileclip_dense.pretraining.accumulation import backward
from mobileclip_dense.pretraining.losses import reinforced_loss
from mobileclip_dense.pretraining.optimizer import build_optimizer
from mobileclip_dense.pretraining.towers import Towers
from mobileclip_dense.runtime.device import peak_resident_mb
from mobileclip_dense.runtime.fresh_process import run_in_fresh_process
from mobileclip_dense.runtime.timing import time_in_turn

Way = Literal["plain", "checkpointed", "two passes"]
_MICRO_BATCHES = 4


@dataclass(frozen=True, kw_only=True)
class TrainingMemoryConfig(ResultSettings):
    """Measure pairs per second and peak memory of training steps against batch size."""

    model: str = "mci2"
    """nano, mci0, mci1, mci2, or a model name of open_clip."""
    image_size_px: int = 256
    """Height and width, pixels."""
    batch_sizes: tuple[int, ...] = (8, 16, 32, 64)
    """Pairs per step."""
    ways: tuple[Way, ...] = ("plain", "checkpointed", "two passes")
    """Variants of the step. plain; checkpointed: gradient checkpointing; two passes: gradient caching over four
    micro-batches."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Precision of the forward and backward pass."""
    steps: int = 3
    """Timed steps of each row, after one warm-up step."""
    out: Path = Path("results/training-memory.json")

    def __post_init__(self) -> None:
        require_numbers(self, "batch_sizes", "steps", at_least=1)
        require_numbers(self, "image_size_px", at_least=32, at_most=MAX_SIDE_PX)


def measure_table(config: TrainingMemoryConfig) -> None:
    """Measure all rows, write the result and print a table.

    Raises:
        FileExistsError: the result exists and --force was not given.
    """
    refuse_existing(config.out, config.force)
    rows = []
    for size, way in progress_bar(list(product(config.batch_sizes, config.ways)), unit="row"):
        measured: dict[str, float | None] = {"pairs_per_s": None, "peak_memory_mb": None}
        with suppress(torch.OutOfMemoryError, BrokenProcessPool):  # BrokenProcessPool: killed by the system
            measured.update(run_in_fresh_process(_measure, config, way, size))
        rows.append({"way": way, "batch_size": size, **measured})
    on_gpu = torch.cuda.is_available()
    result = {
        **{field: getattr(config, field) for field in ("model", "image_size_px", "precision", "steps")},
        **provenance(compute_device_name(), "torch", "open_clip_torch", "timm"),
        "memory": "allocated on the GPU" if on_gpu else "resident",
        "seed": 0,
        "rows": rows,
    }
    write_json(config.out, result)
    _print(result)


def _measure(config: TrainingMemoryConfig, way: Way, batch_size: int) -> dict[str, float]:
    fabric = Fabric(devices=1, precision=config.precision)
    fabric.seed_everything(0, verbose=False)
    clip, tokenizer, _ = build_clip(config.model, config.image_size_px)
    if way == "checkpointed":
        clip.set_grad_checkpointing()
    layout, on_gpu = memory_format_on(fabric.device), fabric.device.type == "cuda"
    clip.to(fabric.device, memory_format=layout)
    towers, optimizer = fabric.setup(Towers(clip), build_optimizer(clip, PretrainConfig(data=("",), out=Path())))
    images = torch.rand(batch_size, 3, config.image_size_px, config.image_size_px, device=fabric.device)
    images = images.contiguous(memory_format=layout)
    tokens = tokenizer(["a red sphere on a wooden floor"] * batch_size).to(fabric.device)
    pieces = _MICRO_BATCHES if way == "two passes" else 1
    micro_batches = list(zip(images.chunk(pieces), tokens.chunk(pieces), strict=True))

    def step() -> None:
        backward(fabric, towers, micro_batches, reinforced_loss)
        optimizer.step()
        optimizer.zero_grad()
        if on_gpu:
            torch.cuda.synchronize()

    (times_ms,) = time_in_turn([step], config.steps, num_warmup=1)
    peak_mb = torch.cuda.max_memory_allocated() / 1e6 if on_gpu else peak_resident_mb()
    return {"pairs_per_s": batch_size / (median(times_ms) / 1e3), "peak_memory_mb": peak_mb}


def _print(result: dict[str, Any]) -> None:
    rows = []
    for row in result["rows"]:
        pace, peak = row["pairs_per_s"], row["peak_memory_mb"]
        figures = ("-", "out of memory") if pace is None else (f"{pace:.1f}", f"{peak:.0f}")
        rows.append([str(row["batch_size"]), row["way"], *figures])
    title = f"{result['model']} at {result['image_size_px']} px, {result['precision']}, {result['device']}"
    print_table(title, ["batch", "way", "pairs per s", f"peak MB, {result['memory']}"], rows)


if __name__ == "__main__":
    run_with_settings(TrainingMemoryConfig, measure_table, "python -m benchmarks.training_memory")
