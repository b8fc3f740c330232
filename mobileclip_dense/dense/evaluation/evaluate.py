"""`mobileclip-dense evaluate`: the figures of a fine-tuned run, and pictures of its worst images."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device

from mobileclip_dense.artifact.files import write_json
from mobileclip_dense.artifact.outputs import EVALUATION, claim_folder, staged_folder
from mobileclip_dense.config import EvaluateConfig, FinetuneConfig, Task
from mobileclip_dense.dense.evaluation.detections import measure_detector
from mobileclip_dense.dense.evaluation.measure import Measured, Row, measure_depth, measure_segmenter
from mobileclip_dense.dense.evaluation.page import evaluation_page
from mobileclip_dense.pages.text_table import format_table
from mobileclip_dense.run.folder import Run, library_versions, load_run

Measure = Callable[[EvaluateConfig, Run, FinetuneConfig], Measured]

MEASURES: dict[Task, Measure] = {"segment": measure_segmenter, "depth": measure_depth, "detect": measure_detector}


def evaluate(config: EvaluateConfig) -> Path:
    """Measure a run, and write evaluation.json, evaluation.html and pictures into a folder. Returns the folder.

    With mode whole, scales (1.0,) and no flip, the figures are exactly those at the end of `finetune`.

    Raises:
        FileNotFoundError, ValueError: the run is incomplete, or the images or settings do not fit it.
        FileExistsError: the folder exists and --force was not given.
    """
    started = time.time()
    own = config.run / "evaluation"
    out = config.out or own
    inputs = {"the run": config.run, "--data": config.data}
    claim_folder(out, EVALUATION, force=config.force, inputs=inputs, own=own)
    run = load_run(config.run)
    settings = run.config
    if not isinstance(settings, FinetuneConfig):
        raise ValueError(f"{config.run}: run: found a pretraining run, expected one of `mobileclip-dense finetune`")
    if settings.task not in MEASURES:
        raise ValueError(f"{config.run}: task: found {settings.task}, expected one of {', '.join(MEASURES)}")
    if config.eigen_crop and settings.task != "depth":
        raise ValueError(f"--eigen-crop: found a run for task {settings.task}, expected depth")
    measured = MEASURES[settings.task](config, run, settings)
    record = _record(config, run, settings, measured) | {"seconds": round(time.time() - started, 1)}
    with staged_folder(out, EVALUATION, force=config.force, inputs=inputs, own=own) as staging:
        for name, picture in measured.pictures.items():
            (staging / name).parent.mkdir(exist_ok=True)
            (staging / name).write_bytes(picture)
        (staging / "evaluation.html").write_text(
            evaluation_page(record, measured, _worst_first(measured.classes)), encoding="utf-8", errors="replace"
        )
        write_json(staging / "evaluation.json", record)
    print(_summary(measured))
    print(f"{out}: {len(measured.images)} images, {len(measured.pictures)} pictures; open {out / 'evaluation.html'}")
    return out


def _record(config: EvaluateConfig, run: Run, settings: FinetuneConfig, measured: Measured) -> dict[str, Any]:
    """The contents of evaluation.json without the duration."""
    device = get_device()
    return {
        "run": str(config.run.absolute()),
        "weights_sha256": run.record["weights_sha256"],
        "task": settings.task,
        "data": str((config.data or settings.data).absolute()),
        "settings": {
            "mode": config.mode,
            "window_px": list(settings.crop_size_px) if config.mode == "slide" else None,
            "scales": list(config.scales),
            "flip": config.flip,
            "eigen_crop": config.eigen_crop,
            "max_images": config.max_images,
        },
        "figures": measured.figures,
        "classes": measured.classes,
        "num_images": len(measured.images),
        "images": measured.images,
        "versions": library_versions(),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
    }


def _summary(measured: Measured) -> str:
    """A table of the classes, worst first, then the figures."""
    rows = [[_cell(cell)[:32] for cell in row.values()] for row in _worst_first(measured.classes)]
    table = [format_table(list(measured.classes[0]), rows)] if rows else []
    return "\n".join([*table, "  ".join(f"{name} {value:.4g}" for name, value in measured.figures.items())])


def _worst_first(classes: list[Row]) -> list[Row]:
    """The rows sorted by their first figure, rows with an undefined figure last."""
    return sorted(classes, key=lambda row: math.inf if list(row.values())[1] is None else list(row.values())[1])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
