"""The result file of the comparison, written by `python -m benchmarks.compare --measure`. It does not import torch."""

import math
from pathlib import Path
from typing import Any

from benchmarks.compare.models import known_models
from mobileclip_dense.artifact.files import read_json

COMPARISON_SCHEMA_VERSION = 1
MEASURE = "measure with `python -m benchmarks.compare --measure`"
_FIELDS: dict[str, type] = {
    "schema_version": int, "size_px": int, "num_classes": int, "seed": int, "rounds": int, "threads": list,
    "device": str, "system": str, "runtime": str, "versions": dict, "num_warmup": int, "models": list, "missing": dict,
}  # fmt: skip
_NUMBERS = ("num_parameters", "macs", "size_bytes", "relative_error", "peak_memory_mb")
_MODEL_FIELDS = ("model", "precision", "artifact_sha256", "latency_ms_by_threads", *_NUMBERS)


def result_name(size_px: int) -> str:
    """The name of the result file of a comparison."""
    return f"compare-ade20k-{size_px}.json"


def read_result(folder: Path, size_px: int) -> dict[str, Any]:
    """Read and validate the result file in a folder.

    Raises:
        FileNotFoundError: there is no result file; the message says how to make it.
        ValueError: a field is invalid; the message names the first one.
    """
    path = folder / result_name(size_px)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing: size, latency and memory of every model; {MEASURE}")
    values = read_json(path)

    def expect(holds: bool, field: str, found: object, expected: str) -> None:
        if not holds:
            raise ValueError(f"{path}: {field}: found {str(found)[:200]!r}, expected {expected}; {MEASURE} again")

    wrong = sorted(_FIELDS.keys() ^ values.keys())
    expect(not wrong, "fields", wrong, "all of the schema and no other")
    for name, kind in _FIELDS.items():
        expect(isinstance(values[name], kind), name, values[name], f"a {kind.__name__}")
    version = values["schema_version"]
    expect(version == COMPARISON_SCHEMA_VERSION, "schema_version", version, str(COMPARISON_SCHEMA_VERSION))
    expect(bool(values["models"]), "models", values["missing"], "one or more")
    expect(bool(values["threads"]), "threads", [], "one or more")
    for place, entry in enumerate(values["models"]):
        expect(
            isinstance(entry, dict) and entry.keys() == set(_MODEL_FIELDS),
            f"models[{place}]",
            entry,
            f"the fields {', '.join(_MODEL_FIELDS)}",
        )
        name = f"models: {entry['model']}"
        expect(entry["model"] in known_models(), f"models[{place}].model", entry["model"], "a model of the comparison")
        for field in _NUMBERS:
            expect(_is_positive(entry[field]), f"{name}: {field}", entry[field], "a positive number")
        for threads in map(str, values["threads"]):
            latency = entry["latency_ms_by_threads"]
            found = latency.get(threads) if isinstance(latency, dict) else None
            expect(
                isinstance(found, dict) and all(_is_positive(found.get(q)) for q in ("p50", "p90")),
                f"{name}: latency_ms_by_threads.{threads}",
                found,
                "positive numbers p50 and p90",
            )
    return values


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
