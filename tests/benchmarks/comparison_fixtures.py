"""A made-up result file of the comparison, with round numbers."""

from pathlib import Path
from typing import Any

from benchmarks.compare.models import MODELS, Model
from benchmarks.compare.result import COMPARISON_SCHEMA_VERSION, result_name
from mobileclip_dense.artifact.files import write_json

PARAMETERS = {"mci0": 15e6, "mci1": 25e6, "mci2": 40e6, "vit_b16_clip": 160e6, "swin_l": 240e6}


def made_up_entry(model: Model, precision: str) -> dict[str, Any]:
    """40 M parameters and 300 ms for MCi2, 240 M and 3000 ms for Swin-L; pruning saves 25 % of the time, int8 takes two
    thirds of it."""
    parameters = PARAMETERS[model.encoder] * (0.75 if model.pruned else 1)
    p50 = 300 * parameters / 40e6 if model.encoder != "swin_l" else 3000
    p50 *= {"fp32": 1, "int8": 1 / 3}[precision]
    latency = {str(n): {"p50": 2 * p50 / n, "p90": 2.2 * p50 / n, "p99": 2.3 * p50 / n, "mean": 2 * p50 / n,
                        "num_runs": 7} for n in (1, 2)}  # fmt: skip
    return {
        "model": model.name,
        "precision": precision,
        "artifact_sha256": f"{list(MODELS).index(model.name):02d}{precision}".encode().hex().ljust(64, "0"),
        "num_parameters": int(parameters),
        "macs": int(parameters) * 1000,
        "size_bytes": int(parameters) * (4 if precision == "fp32" else 1),
        "relative_error": 1e-6,
        "latency_ms_by_threads": latency,
        "peak_memory_mb": 500.0,
    }


def write_made_up_result(folder: Path, leave_out: tuple[str, ...] = ()) -> Path:
    """The comparison's result file at 512 px, without some models."""
    models = [model for model in MODELS.values() if model.name not in leave_out]
    path = folder / result_name(512)
    write_json(path, {
        "schema_version": COMPARISON_SCHEMA_VERSION, "size_px": 512, "num_classes": 150, "seed": 0, "rounds": 7,
        "threads": [1, 2], "device": "made-up-2-cores", "system": "made up",
        "runtime": "onnxruntime CPUExecutionProvider", "versions": {"onnxruntime": "1.32.0"}, "num_warmup": 2,
        "models": [made_up_entry(model, precision) for model in models for precision in model.precisions],
        "missing": {},
    })  # fmt: skip
    return path
