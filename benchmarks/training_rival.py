"""`python -m benchmarks.training_rival --data SHARDS`: the step time of our pretraining against open_clip's trainer.

Both train the same open_clip model on the same shards by their command lines, with the same batch size, image size,
precision, optimizer settings and number of loader workers, in turn, several times. Step times are those that each
program reports, loading included. Steps for warm-up or compilation are left out.

open_clip's trainer needs pandas, which its wheel does not require, and fails with webdataset 1.0 (KeyError: 'fname').
Install both into a separate folder for it:

    pip install --no-deps --target FOLDER 'webdataset<=0.2.86' pandas python-dateutil six braceexpand
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch

from benchmarks.harness import ResultSettings, compute_device_name, provenance, save_result
from mobileclip_dense.artifact.files import refuse_existing
from mobileclip_dense.command import run_with_settings
from mobileclip_dense.config.check import MAX_SIDE_PX, require_numbers
from mobileclip_dense.data.captioned.shards import list_shards
from mobileclip_dense.models.clip import clip_name
from mobileclip_dense.pages.progress import progress_bar
from mobileclip_dense.pages.text_table import print_table
from mobileclip_dense.run.training_log import read_metrics

_WINDOW = 10  # steps averaged by our log


@dataclass(frozen=True, kw_only=True)
class TrainingRivalConfig(ResultSettings):
    """Measure the time of a training step of our trainer and of open_clip's, in turn."""

    data: Path
    """Folder of shards with train/ and val/, as written by `mobileclip-dense scenes`."""
    open_clip_path: Path
    """Folder with an older webdataset and pandas for open_clip's trainer (see the module's docstring)."""
    model: str = "mci0"
    """Encoder with a model in open_clip; not nano."""
    image_size_px: int = 128
    """Height and width of the training crop, pixels."""
    batch_size: int = 32
    """Pairs per step."""
    windows: int = 3
    """Timed windows of ten steps in each run, after one window for warm-up."""
    rounds: int = 2
    """Runs of each program."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Precision of both programs."""
    compile: bool = False
    """Measure both programs with torch.compile as well."""
    out: Path = Path("results/training-rival.json")

    def __post_init__(self) -> None:
        require_numbers(self, "batch_size", "windows", "rounds", at_least=1)
        require_numbers(self, "image_size_px", at_least=32, at_most=MAX_SIDE_PX)


def measure_training(config: TrainingRivalConfig) -> dict[str, Any]:
    """Write and return the result.

    Raises:
        FileExistsError: the result exists and --force was not given.
        FileNotFoundError: `open_clip_path` has no webdataset.
        ValueError: one of the programs failed.
    """
    refuse_existing(config.out, config.force)
    if not (config.open_clip_path / "webdataset").is_dir():
        raise FileNotFoundError(
            f"{config.open_clip_path}: webdataset: not found; install it as described by "
            "`python -m pydoc benchmarks.training_rival`"
        )
    programs: dict[str, Callable[..., list[float]]] = {"open_clip": _time_open_clip, "ours": _time_ours}
    variants = [(name, compiled) for compiled in (False, True)[: 1 + config.compile] for name in programs]
    times: dict[str, list[float]] = {f"{name}{', compiled' * compiled}": [] for name, compiled in variants}
    for _ in progress_bar(range(config.rounds), "training", unit="round"):
        for (name, compiled), seconds in zip(variants, times.values(), strict=True):
            with tempfile.TemporaryDirectory() as scratch:
                seconds += programs[name](config, Path(scratch), compiled)
    medians = {name: median(seconds) for name, seconds in times.items()}
    result = {
        **{field: getattr(config, field) for field in ("model", "image_size_px", "batch_size", "precision")},
        **provenance(compute_device_name(), "torch", "open_clip_torch", "timm"),
        "seed": 0,
        "windows_of_steps": _WINDOW,
        "s_per_step": times,
        "s_per_step_median": medians,
        "pairs_per_s": {name: config.batch_size / value for name, value in medians.items()},
        "ours_against_open_clip": min(v for n, v in medians.items() if n.startswith("open_clip"))
        / min(v for n, v in medians.items() if n.startswith("ours")),
    }
    _print(result)
    summary = f"ours is {result['ours_against_open_clip']:.2f}x as fast as open_clip's at its best"
    return save_result(config.out, result, summary)


def _num_steps(config: TrainingRivalConfig) -> int:
    return _WINDOW * (1 + config.windows)


def _time_ours(config: TrainingRivalConfig, scratch: Path, compiled: bool) -> list[float]:
    """The seconds per step of each timed window."""
    arguments = [
        "pretrain",
        "mci2-datacomp12m",
        "--data",
        str(config.data.absolute()),
        "--out",
        str(scratch / "run"),
        "--model",
        config.model,
        "--image-size-px",
        str(config.image_size_px),
        "--batch-size",
        str(config.batch_size),
        "--steps",
        str(_num_steps(config)),
        "--warmup-steps",
        "10",
        "--precision",
        config.precision,
        "--num-workers",
        "1",
        "--no-grad-checkpointing",
    ]
    arguments += ["--compile"] if compiled else []
    _run([sys.executable, "-m", "mobileclip_dense", *arguments])
    lines = read_metrics(scratch / "run")[1:]
    return [config.batch_size / line["pairs_per_s"] for line in lines]


def _time_open_clip(config: TrainingRivalConfig, scratch: Path, compiled: bool) -> list[float]:
    """The seconds per step of each timed window, from the step times in open_clip's log, which include loading."""
    shards = "::".join(list_shards(str(config.data.absolute()), "train"))
    arguments = {
        "train-data": shards,
        "dataset-type": "webdataset",
        "dataset-resampled": None,
        "model": clip_name(config.model),
        "train-num-samples": config.batch_size * _num_steps(config),
        "batch-size": config.batch_size,
        "epochs": 1,
        "force-image-size": config.image_size_px,
        "workers": 1,
        "lr": 1e-3,
        "wd": 0.2,
        "beta2": 0.95,
        "warmup": 10,
        "grad-clip-norm": 1.0,
        "precision": "fp32" if config.precision == "32-true" else "amp_bf16",
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "log-every-n-steps": 1,
        "save-frequency": 0,
        "logs": scratch,
        "name": "run",
        "torchcompile": None,
    }
    if not compiled:
        del arguments["torchcompile"]
    flags = [part for name, value in arguments.items() for part in (f"--{name}", *([] if value is None else [value]))]
    log = _run([sys.executable, "-m", "open_clip_train.main", *map(str, flags)], PYTHONPATH=str(config.open_clip_path))
    steps = [float(found) for found in re.findall(r"Batch \(t\): ([\d.]+)", log)][: _num_steps(config)]
    if len(steps) < _num_steps(config):
        raise ValueError(
            f"open_clip_train: found the times of {len(steps)} steps, expected {_num_steps(config)}; "
            f"end of its log:\n{log[-2000:]}"
        )
    return [sum(steps[start : start + _WINDOW]) / _WINDOW for start in range(_WINDOW, len(steps), _WINDOW)]


def _run(command: list[str], **environment: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    if done.returncode:
        raise ValueError(f"{' '.join(command[:4])} failed with exit status {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout + done.stderr


def _print(result: dict[str, Any]) -> None:
    settings = f"{result['image_size_px']} px, batch {result['batch_size']}, {result['precision']}, {result['device']}"
    print_table(
        f"{result['model']} at {settings}",
        ["trainer", "s per step", "pairs per s"],
        [
            [name, f"{seconds:.3f}", f"{result['pairs_per_s'][name]:.1f}"]
            for name, seconds in result["s_per_step_median"].items()
        ],
    )


if __name__ == "__main__":
    run_with_settings(TrainingRivalConfig, measure_training, "python -m benchmarks.training_rival")
