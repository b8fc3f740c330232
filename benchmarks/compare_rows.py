"""What result files say about each compared model: measured, imported and published, never mixed. No torch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.compare_accuracies import Measured, is_network_of, read_measured
from benchmarks.compare_models import MODELS, PRUNED_TO, REFERENCE, SMALLEST, Model
from benchmarks.published import PUBLISHED, Published
from mobileclip_dense.contract.files import read_json
from mobileclip_dense.contract.result import CPU_RUNTIME, check_result

COMPARISON_SCHEMA_VERSION = 1
_MEASURE = "measure with `python -m benchmarks.compare --measure`"
_FIELDS = ("schema_version", "size_px", "num_classes", "seed", "rounds", "threads", "device", "system", "runtime",
           "versions", "num_warmup", "models", "missing")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """A latency on another device or runtime, from a result file."""

    p50_ms: float
    p90_ms: float
    artifact: str
    device: str
    runtime: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model in one precision. Latencies are milliseconds by number of threads; published accuracies are fp32's."""

    model: Model
    precision: str
    artifact_sha256: str
    num_parameters: int
    macs: int
    size_bytes: int
    relative_error: float
    latency_ms_by_threads: dict[str, dict[str, float]]
    peak_memory_mb: float
    measured: tuple[Measured, ...] = ()
    published: tuple[Published, ...] = ()
    elsewhere: tuple[Elsewhere, ...] = ()

    @property
    def label(self) -> str:
        """For people."""
        return self.model.label + (f", {self.precision}" if self.precision != "fp32" else "")

    def p50_ms(self, threads: int) -> float:
        """Median latency."""
        return self.latency_ms_by_threads[str(threads)]["p50"]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times Swin-L is larger or slower; what was wanted at least."""

    text: str
    wanted: float
    found: float | None

    @property
    def verdict(self) -> str:
        """In a word."""
        return "not measured" if self.found is None else "met" if self.found >= self.wanted else "NOT met"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All rows; `settings`: what they were measured with; `missing`: what is not there, and why; `sources`: the files
    that were read; `others`: accuracies of networks that are none of the rows."""

    rows: list[Row]
    settings: dict[str, Any]
    missing: list[str]
    sources: list[str]
    others: list[str] = field(default_factory=list)

    @property
    def threads(self) -> int:
        """The larger number of threads, by which speed is compared."""
        return max(int(count) for count in self.settings["threads"])

    def find(self, name: str, precision: str = "fp32") -> Row | None:
        """A row by the model's name."""
        return next((r for r in self.rows if r.model.name == name and r.precision == precision), None)

    @property
    def reference(self) -> Row | None:
        """Swin-L + UPerNet."""
        return self.find(REFERENCE)

    def ratios(self) -> list[Ratio]:
        """What was wanted of MCi2 against Swin-L, and what was found."""
        swin, plain = self.reference, self.find("mci2-semantic_fpn")
        pruned = self.find("mci2-semantic_fpn-pruned")
        ours = [row for row in self.rows if row.model.encoder == "mci2" and row.model.head != "upernet"]
        best = min(ours, key=lambda row: row.p50_ms(self.threads), default=None)

        def smaller(row: Row | None) -> float | None:
            return None if swin is None or row is None else swin.num_parameters / row.num_parameters

        def faster(row: Row | None) -> float | None:
            return None if swin is None or row is None else swin.p50_ms(self.threads) / row.p50_ms(self.threads)

        accuracy = "" if best is None else "; ".join(f"mIoU {m.sentence}" for m in best.measured)
        name = "" if best is None else f" ({best.label}: {accuracy or 'accuracy not measured'})"
        return [
            Ratio(text="parameters, MCi2 + SemanticFPN", wanted=5.9, found=smaller(plain)),
            Ratio(text=f"parameters, the same pruned to {PRUNED_TO * 100:.0f} %", wanted=6.1, found=smaller(pruned)),
            Ratio(text="latency, MCi2 + SemanticFPN, fp32", wanted=7.0, found=faster(plain)),
            Ratio(text=f"latency, our best artifact with MCi2{name}", wanted=12.0, found=faster(best)),
        ]


def result_name(size_px: int) -> str:
    """File name of a comparison's result."""
    return f"compare-ade20k-{size_px}.json"


def read_comparison(folders: Sequence[Path], size_px: int) -> Comparison:
    """Join the comparison's result file, in the first folder, with what other result files say.

    Raises:
        FileNotFoundError: there is no such result file; the message says how to make it. ValueError: a file is not of
            its schema.
    """
    path = folders[0] / result_name(size_px)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing: size, latency and memory of every model; {_MEASURE}")
    values = read_json(path)
    if wrong := sorted(set(_FIELDS) ^ values.keys()):
        raise ValueError(f"{path}: fields missing or unknown: {', '.join(wrong)}; {_MEASURE} again")
    if not values["models"]:
        raise ValueError(f"{path}: models: found none, expected one or more ({values['missing']}); {_MEASURE} again")
    if values["schema_version"] != COMPARISON_SCHEMA_VERSION:
        raise ValueError(f"{path}: schema_version: found {values['schema_version']}, expected "
                         f"{COMPARISON_SCHEMA_VERSION}; {_MEASURE} again")  # fmt: skip
    contents = {source: read_json(source) for folder in folders for source in sorted(folder.glob("*.json"))}
    measured, others = read_measured(contents)
    elsewhere = _read_elsewhere(contents)
    rows = [_row(entry, path, size_px, measured, elsewhere) for entry in values["models"]]
    used = {item.source for row in rows for item in row.measured} | {e.source for row in rows for e in row.elsewhere}
    return Comparison(
        rows=rows,
        settings={name: values[name] for name in _FIELDS if name not in ("models", "missing")},
        missing=_missing(rows, values["missing"]),
        sources=[path.name, *sorted(used)],
        others=others,
    )


def _row(
    entry: dict[str, Any], path: Path, size_px: int, measured: list[tuple[dict[str, Any], Measured]],
    elsewhere: list[tuple[str, Elsewhere]],
) -> Row:  # fmt: skip
    models = MODELS | {SMALLEST.name: SMALLEST}
    try:
        model = models[entry["model"]]
        row = Row(**{**entry, "model": model})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: models: an entry is not as expected ({error}); {_MEASURE} again") from None
    numbers = ("num_parameters", "macs", "size_bytes", "relative_error", "peak_memory_mb")
    if wrong := [name for name in numbers if not isinstance(entry[name], int | float)]:
        raise ValueError(f"{path}: models: {entry['model']}: {wrong[0]}: found {entry[wrong[0]]!r}, expected a number; "
                         f"{_MEASURE} again")  # fmt: skip
    found = tuple(
        item for digest, item in elsewhere
        if digest == row.artifact_sha256 or _is_of(item.artifact, row, size_px)
    )  # fmt: skip
    accuracies = [item for run, item in measured if item.precision == row.precision and is_network_of(run, model)]
    best = {item.data_set: item for item in sorted(accuracies, key=lambda item: item.miou_percent)}
    same = row.precision == "fp32" and not model.pruned
    published = tuple(item for item in PUBLISHED if same and item.row in (model.name, model.encoder))
    return Row(**{**vars(row), "measured": tuple(best.values()), "published": published, "elsewhere": found})


def _read_elsewhere(contents: dict[Path, dict[str, Any]]) -> list[tuple[str, Elsewhere]]:
    """Latency result files of other runtimes (browsers, Core ML), with the artifact's hash."""
    found = []
    for path, value in contents.items():
        if "latency_ms_by_threads" not in value or value.get("runtime") == CPU_RUNTIME:
            continue
        check_result(value, path)
        latency = min(value["latency_ms_by_threads"].values(), key=lambda latency: latency["p50"])
        item = Elsewhere(p50_ms=latency["p50"], p90_ms=latency["p90"], artifact=value["artifact"],
                         device=value["device"], runtime=value["runtime"], source=path.name)  # fmt: skip
        found.append((value["artifact_sha256"], item))
    return found


def _is_of(artifact: str, row: Row, size_px: int) -> bool:
    """Whether a trained artifact is this network at this size, in int8 or with float activations, by its name (see
    `Artifact.name`)."""
    model = row.model
    network = re.escape(model.encoder) + ("" if model.head == "semantic_fpn" else f"-{model.head}")
    network += "-pruned" if model.pruned else ""
    found = re.fullmatch(rf"{network}-segment-.+-{size_px}x{size_px}-(\w+)\.(?:onnx|coreml)", artifact)
    return found is not None and (found[1] in ("int8", "w8a8")) == (row.precision == "int8")


def _missing(rows: list[Row], reasons: dict[str, str]) -> list[str]:
    there = {(row.model.name, row.precision) for row in rows}
    sentences = [f"{name}: {reason}" for name, reason in reasons.items()]
    sentences += [
        f"{model.label}, {precision}: not in the result file; {_MEASURE}"
        for model in MODELS.values()
        for precision in model.precisions
        if (model.name, precision) not in there and model.name not in reasons
    ]
    if not any(item.data_set_name == "ADE20K" for row in rows for item in row.measured):
        sentences.append("measured accuracy on ADE20K: no run on its 150 classes is among the result files")
    if not any(row.elsewhere for row in rows):
        sentences.append("latency on a phone or in a browser: no result file of `python -m benchmarks.coreml_device`, "
                         "`python -m benchmarks.xcode_report` or the browser page is there")  # fmt: skip
    return sentences
