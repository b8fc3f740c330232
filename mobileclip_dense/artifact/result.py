"""The result file `results/<artifact>@<device>.json`: the latency of an artifact on a device, with its runtime.

`mobileclip-dense latency` writes it for ONNX Runtime on a CPU, the web page in `apps/web` for a browser.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULT_SCHEMA_VERSION = 1
CPU_RUNTIME = "onnxruntime CPUExecutionProvider"
_FIELDS: dict[str, tuple[type, ...]] = {
    "schema_version": (int,),
    "artifact": (str,),
    "architecture": (str,),  # of the artifact
    "artifact_sha256": (str,),  # of artifact.json, which contains the hashes of the other files
    "device": (str,),  # as a part of a file name
    "system": (str,),  # operating system, or a browser's user agent
    "runtime": (str,),  # library and execution provider
    "versions": (dict,),
    "num_warmup": (int,),
    "peak_memory_mb": (int, float, type(None)),  # None if the platform does not report it
    "latency_ms_by_threads": (dict,),
}
_LATENCY = ("p50", "p90", "p99", "mean", "num_runs")


def check_result(values: dict[str, Any], source: Path) -> None:
    """Check that values are a result of this schema.

    Raises:
        ValueError: a field is missing, unknown or invalid. The message names file and field.
    """

    def expect(field: str, expected: str, holds: bool, found: object) -> None:
        if not holds:
            raise ValueError(f"{source}: {field}: found {found!r}, expected {expected}; measure the artifact again")

    missing, unknown = sorted(_FIELDS.keys() - values.keys()), sorted(values.keys() - _FIELDS.keys())
    expect("fields", "all of the schema", not missing, f"no {', '.join(missing)}")
    expect("fields", "only those of the schema", not unknown, ", ".join(unknown))
    for field, types in _FIELDS.items():
        names = " or ".join(kind.__name__ for kind in types)
        expect(field, names, isinstance(values[field], types) and values[field] is not True, values[field])
    version, digest, device = (values[field] for field in ("schema_version", "artifact_sha256", "device"))
    expect("schema_version", str(RESULT_SCHEMA_VERSION), version == RESULT_SCHEMA_VERSION, version)
    expect("artifact_sha256", "64 hex digits", re.fullmatch("[0-9a-f]{64}", digest) is not None, digest)
    expect("device", "lower case, digits and hyphens", re.fullmatch("[a-z0-9-]+", device) is not None, device)
    for name, number in values["versions"].items():
        expect(f"versions.{name}", "a string", isinstance(number, str), number)
    expect("latency_ms_by_threads", "at least one number of threads", bool(values["latency_ms_by_threads"]), {})
    for threads, latency in values["latency_ms_by_threads"].items():
        field = f"latency_ms_by_threads.{threads}"
        expect(field, "a number of threads", re.fullmatch("[1-9][0-9]*", threads) is not None, threads)
        fields_fit = isinstance(latency, dict) and latency.keys() == set(_LATENCY)
        expect(field, f"the fields {', '.join(_LATENCY)}", fields_fit, latency)
        numbers = [latency[key] for key in _LATENCY]
        expect(field, "positive numbers", all(_is_positive(number) for number in numbers), numbers)
        expect(field, "p50 <= p90 <= p99", latency["p50"] <= latency["p90"] <= latency["p99"], numbers)


def result_names(names: Mapping[str, str]) -> dict[str, str]:
    """File name parts for the results of artifacts: the artifact's name, and the start of its hash if another artifact
    has the same name.

    Args:
        names: the names in artifact.json (which do not change if a folder is copied or renamed) by `artifact_sha256`.
    """
    parts = {digest: re.sub(r"[^\w.+-]+", "-", name).strip(".-") or "artifact" for digest, name in names.items()}
    shared = Counter(part.casefold() for part in parts.values())
    return {digest: f"{part}-{digest[:8]}" if shared[part.casefold()] > 1 else part for digest, part in parts.items()}


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
