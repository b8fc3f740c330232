"""Tables of the report, and its figures as JSON. No torch."""

import dataclasses
from pathlib import Path
from typing import Any

from mobileclip_dense.artifact.artifact import Artifact, artifact_sha256
from mobileclip_dense.report.pretraining_gain import PretrainingGain
from mobileclip_dense.report.records import HEADLINE, PUBLISHED, Records, RunFiles


def table_rows(records: Records) -> tuple[list[str], list[list[str]]]:
    """Header and rows: size, distance to PyTorch, accuracy, latency and memory where measured.

    An artifact has a row for each result file, each of one device, and one row where there is none. There is a column
    for every number of threads that was measured.
    """
    of_artifacts = [records.results.get(artifact_sha256(folder), []) for folder, _ in records.artifacts]
    threads = sorted({int(n) for results in of_artifacts for one in results for n in one["latency_ms_by_threads"]})
    header = [
        "artifact",
        "parameters",
        "size MB",
        "distance to PyTorch",
        "accuracy",
        "device",
        *(f"{n} thread{'s' if n > 1 else ''}, p50 / p90 ms" for n in threads),
        "peak MB",
    ]
    rows = []
    for (_, artifact), results in zip(records.artifacts, of_artifacts, strict=True):
        described = [artifact.name, *_described(artifact, records.runs)]
        rows += [described + _measured(result, threads) for result in results]
        if not results:
            rows.append(described + ["-"] * (len(header) - len(described)))
    return header, rows


def _described(artifact: Artifact, runs: list[RunFiles]) -> list[str]:
    """Cells of an artifact: parameters, size in MB, distance to PyTorch, accuracy."""
    size = sum(entry["bytes"] for name, entry in artifact.files.items() if name != "golden.npz")
    return [
        f"{artifact.num_parameters / 1e6:.2f} M",
        f"{size / 1e6:.2f}",
        _distance(artifact),
        _accuracy(artifact, runs),
    ]


def _measured(result: dict[str, Any], threads: list[int]) -> list[str]:
    """Cells of a latency result: device, latency for each number of threads, memory."""
    latencies, peak_mb = result["latency_ms_by_threads"], result["peak_memory_mb"]
    told = [f"{one['p50']:.2f} / {one['p90']:.2f}" if (one := latencies.get(str(n))) else "-" for n in threads]
    return [result["device"], *told, "-" if peak_mb is None else f"{peak_mb:.0f}"]


def elsewhere_rows(records: Records) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one row per number of threads of each result of another runtime for one of the artifacts."""
    names = {artifact_sha256(folder): artifact.name for folder, artifact in records.artifacts}
    rows = [
        [
            names[value["artifact_sha256"]],
            value["device"],
            value["runtime"],
            threads,
            f"{latency['p50']:.2f} / {latency['p90']:.2f}",
            str(latency["num_runs"]),
        ]
        for value in records.elsewhere
        if value["artifact_sha256"] in names
        for threads, latency in value["latency_ms_by_threads"].items()
    ]
    return ["artifact", "device", "runtime", "threads", "p50 / p90 ms", "runs"], rows


def export_rows(records: Records) -> tuple[list[str], list[list[str]]]:
    """Header and rows for the terminal: one row per artifact, under the name of its model."""
    rows: list[list[str]] = []
    for _, artifact in records.artifacts:
        if (heading := [_model_name(artifact)]) not in rows:
            rows.append(heading)
        rows.append([_export_name(artifact), *_described(artifact, records.runs)])
    return ["export", "parameters", "MB", "error", "accuracy"], rows


def latency_tables(records: Records) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, header and rows for the terminal: one table per device and runtime, one row per number of threads."""
    artifacts = {artifact_sha256(folder): artifact for folder, artifact in records.artifacts}
    tables: dict[str, list[list[str]]] = {}
    of_cpus = [one for digest in artifacts for one in records.results.get(digest, [])]
    for result in [*of_cpus, *records.elsewhere]:
        if (artifact := artifacts.get(result["artifact_sha256"])) is None:
            continue
        rows = tables.setdefault(f"latency on {result['device']}, {result['runtime']}", [])
        if (heading := [_model_name(artifact)]) not in rows:
            rows.append(heading)
        peak_mb = result["peak_memory_mb"]
        rows += [
            [
                _export_name(artifact),
                threads,
                f"{latency['p50']:.2f}",
                f"{latency['p90']:.2f}",
                str(latency["num_runs"]),
                "-" if peak_mb is None else f"{peak_mb:.0f}",
            ]
            for threads, latency in result["latency_ms_by_threads"].items()
        ]
    header = ["export", "threads", "p50 ms", "p90 ms", "runs", "peak MB"]
    return [(title, header, rows) for title, rows in tables.items()]


def _export_name(artifact: Artifact) -> str:
    """The end of an artifact's name, such as fp32.onnx."""
    return f"{artifact.precision}.{artifact.runtime}"


def _model_name(artifact: Artifact) -> str:
    """The name of an artifact without that end."""
    return artifact.name.removesuffix(f"-{_export_name(artifact)}")


def summary(records: Records, gains: list[PretrainingGain]) -> dict[str, Any]:
    """All figures and their provenance, for a result file that may be published: it holds no path of this machine."""
    header, rows = table_rows(records)
    return {
        "runs": {run.folder.name: _published(run) for run in records.runs},
        "artifacts": {"header": header, "rows": rows},
        "exports": [_export(folder, artifact) for folder, artifact in records.artifacts],
        "latencies": [*(one for results in records.results.values() for one in results), *records.elsewhere],
        "left_out": records.left_out,
        "verdicts": [
            {**dataclasses.asdict(gain), "supported": gain.supported, "sentence": gain.sentence()} for gain in gains
        ],
    }


def _export(folder: Path, artifact: Artifact) -> dict[str, Any]:
    """Source weights of an artifact, and what its export measured."""
    return {
        "artifact": artifact.name,
        "artifact_sha256": artifact_sha256(folder),
        "architecture": artifact.architecture,
        "precision": artifact.precision,
        "weights_sha256": artifact.parent["weights_sha256"],
        "parity": artifact.parity,
    }


def _published(run: RunFiles) -> dict[str, Any]:
    settings = {name: _last_part(value) for name, value in run.config.items()}
    parent = (run.record["parent"] or {}).get("weights_sha256")
    published = {name: run.record[name] for name in PUBLISHED} | {
        name: run.record.get(name) for name in ("architecture", "num_parameters")
    }
    if "pruned" in run.record:
        published["as_pruned"] = True  # its settings are those of the run that was pruned
    return {"settings": settings, "parent_weights_sha256": parent} | published


def _last_part(value: Any) -> Any:
    """The last part of an absolute path, or of each in a list; other values unchanged."""
    if isinstance(value, list):
        return [_last_part(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _distance(artifact: Artifact) -> str:
    return f"{artifact.parity[f'{artifact.precision}_relative_error']:.0e}"


def _accuracy(artifact: Artifact, runs: list[RunFiles]) -> str:
    """Accuracy of the exported model where its export measured it, else of its run."""
    if artifact.task not in HEADLINE:
        cosine = artifact.parity.get("mean_cosine")
        return "-" if cosine is None else f"cosine {cosine:.4f}"
    key, name, unit, _ = HEADLINE[artifact.task]
    figure = "miou_percent" if artifact.task == "segment" else "rmse_m"
    if figure in artifact.parity:  # both on images resized to the model's input, unlike the run's own figure
        return f"{name} {artifact.parity[figure]:.3g} {unit} (before: {artifact.parity[f'reference_{figure}']:.3g})"
    for run in runs:
        if run.record["weights_sha256"] == artifact.parent["weights_sha256"] and artifact.precision == "fp32":
            return f"{name} {run.record['metrics'][key]:.3g} {unit}"
    return "-"
