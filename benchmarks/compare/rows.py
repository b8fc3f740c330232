"""The rows of the comparison: measured, imported and published figures of each model. It does not import torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.compare.accuracies import Export, Measured, read_measured
from benchmarks.compare.models import MODELS, PRUNED_TO, REFERENCE, SMALLEST, Model, known_models
from benchmarks.compare.published import PUBLISHED, Published
from benchmarks.compare.result import MEASURE, read_result, result_name
from mobileclip_dense.artifact.files import read_json
from mobileclip_dense.artifact.result import CPU_RUNTIME, check_result

_OURS = "this project"


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """A latency on another device or runtime, from a result file. `export` is None if its run is unknown."""

    p50_ms: float
    p90_ms: float
    artifact: str
    device: str
    runtime: str
    source: str
    artifact_sha256: str
    export: Export | None

    def is_of(self, row: "Row", size_px: int) -> bool:
        """Whether the latency belongs to a row: to its artifact, or to a trained artifact of the same network and size,
        with int8 or with float activations like the row."""
        if self.artifact_sha256 == row.artifact_sha256:
            return True
        return (
            self.export is not None
            and self.export.network.is_of(row.model, row.num_parameters)
            and f"-{size_px}x{size_px}-" in self.artifact
            and (self.export.precision in ("int8", "w8a8")) == (row.precision == "int8")
        )


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model in one precision. Latencies are milliseconds by number of threads. Published accuracies are for fp32."""

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
        """The model and precision as text."""
        return self.model.label + (f", {self.precision}" if self.precision != "fp32" else "")

    def p50_ms(self, threads: int) -> float:
        """The median latency, milliseconds."""
        return self.latency_ms_by_threads[str(threads)]["p50"]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """The ratio of Swin-L's size or latency to a model's. `wanted` is the target (a minimum), `by` its source."""

    text: str
    wanted: float
    by: str
    found: float | None

    @property
    def outcome(self) -> str:
        """The outcome: met, NOT met or not measured."""
        return "not measured" if self.found is None else "met" if self.found >= self.wanted else "NOT met"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The comparison.

    Attributes:
        rows: all rows.
        settings: settings of the measurement.
        missing: missing figures, with reasons.
        sources: files that were read.
        others: figures of networks without a row.
    """

    rows: list[Row]
    settings: dict[str, Any]
    missing: list[str]
    sources: list[str]
    others: list[str]

    @property
    def threads(self) -> int:
        """The largest number of threads, for which speed is compared."""
        return max(int(count) for count in self.settings["threads"])

    def find(self, name: str, precision: str = "fp32") -> Row | None:
        """The row of a model; None: there is none."""
        return next((r for r in self.rows if r.model.name == name and r.precision == precision), None)

    @property
    def reference(self) -> Row | None:
        """Swin-L + UPerNet."""
        return self.find(REFERENCE)

    def ratios(self) -> list[Ratio]:
        """The ratios of Swin-L to MCi2, with their targets."""
        swin, plain = self.reference, self.find("mci2-semantic_fpn")
        pruned = self.find("mci2-semantic_fpn-pruned")
        ours = [row for row in self.rows if row.model.encoder == "mci2" and row.model.head != "upernet"]
        best = min(ours, key=lambda row: row.p50_ms(self.threads), default=None)

        def smaller(row: Row | None) -> float | None:
            return None if swin is None or row is None else swin.num_parameters / row.num_parameters

        def faster(row: Row | None) -> float | None:
            return None if swin is None or row is None else swin.p50_ms(self.threads) / row.p50_ms(self.threads)

        accuracy = "" if best is None else "; ".join(f"mIoU {m.sentence}" for m in best.measured)
        # Accuracy is not that of the timed artifact, which has random weights and 150 classes.
        name = "" if best is None else f" ({best.label}; trained: {accuracy or 'accuracy not measured'})"
        return [
            Ratio(text="parameters, MCi2 + SemanticFPN", wanted=5.9, by=_OURS, found=smaller(plain)),
            Ratio(
                text="parameters, MCi2 + SemanticFPN", wanted=6.1, by="arXiv 2405.08911, abstract", found=smaller(plain)
            ),
            Ratio(
                text=f"parameters, the same pruned to {PRUNED_TO * 100:.0f} %",
                wanted=6.1,
                by=_OURS,
                found=smaller(pruned),
            ),
            Ratio(text="latency, MCi2 + SemanticFPN, fp32", wanted=7.0, by=_OURS, found=faster(plain)),
            Ratio(text=f"latency, our fastest artifact with MCi2{name}", wanted=12.0, by=_OURS, found=faster(best)),
        ]


def read_comparison(folders: Sequence[Path], size_px: int) -> Comparison:
    """Join the result file of the comparison (in the first folder) with the accuracies and latencies of all folders.

    Raises:
        FileNotFoundError, ValueError: see `read_result`, `read_measured` and `check_result`.
    """
    values = read_result(folders[0], size_px)
    contents = {source: read_json(source) for folder in folders for source in sorted(folder.glob("*.json"))}
    measured, exports = read_measured(contents)
    elsewhere = _read_elsewhere(contents, exports, values["device"])
    rows = [_row(entry, size_px, measured, elsewhere) for entry in values["models"]]
    used = {item.source for row in rows for item in row.measured} | {e.source for row in rows for e in row.elsewhere}
    return Comparison(
        rows=rows,
        settings={name: value for name, value in values.items() if name not in ("models", "missing")},
        missing=_missing(rows, values["missing"]),
        sources=[result_name(size_px), *sorted(used)],
        others=_others(rows, measured, elsewhere, size_px),
    )


def _row(entry: dict[str, Any], size_px: int, measured: list[Measured], elsewhere: list[Elsewhere]) -> Row:
    model = known_models()[entry["model"]]
    row = Row(**entry | {"model": model})
    accuracies = [
        item for item in measured if item.precision == row.precision and item.network.is_of(model, row.num_parameters)
    ]
    best = {(item.data_set, item.iters): item for item in sorted(accuracies, key=lambda item: item.miou_percent)}
    same = row.precision == "fp32" and not model.pruned
    published = tuple(item for item in PUBLISHED if same and item.row in (model.name, model.encoder))
    found = tuple(item for item in elsewhere if item.is_of(row, size_px))
    return Row(**{**vars(row), "measured": tuple(best.values()), "published": published, "elsewhere": found})


def _others(rows: list[Row], measured: list[Measured], elsewhere: list[Elsewhere], size_px: int) -> list[str]:
    """The figures of networks without a row, as sentences."""
    return [
        f"{item.network.sentence}, {item.precision}: mIoU {item.sentence} ({item.source})"
        for item in measured
        if item.network.encoder != SMALLEST.encoder
        and not any(item.network.is_of(row.model, row.num_parameters) for row in rows)
    ] + [
        f"{item.artifact} on {item.device}: {item.p50_ms:.1f} / {item.p90_ms:.1f} ms ({item.source}"
        + (")" if item.export else "; which network it is, the JSON of `mobileclip-dense report` beside it tells)")
        for item in elsewhere
        if not any(item.is_of(row, size_px) for row in rows)
    ]


def _read_elsewhere(contents: dict[Path, dict[str, Any]], exports: dict[str, Export], device: str) -> list[Elsewhere]:
    """The latencies in result files of other runtimes (browsers, Core ML) and of other machines."""
    found = []
    for path, value in contents.items():
        if "latency_ms_by_threads" not in value:
            continue
        if value.get("runtime") == CPU_RUNTIME and value.get("device") == device:
            continue
        check_result(value, path)
        latency = min(value["latency_ms_by_threads"].values(), key=lambda latency: latency["p50"])
        digest = value["artifact_sha256"]
        found.append(
            Elsewhere(
                p50_ms=latency["p50"],
                p90_ms=latency["p90"],
                artifact=value["artifact"],
                device=value["device"],
                runtime=value["runtime"],
                source=path.name,
                artifact_sha256=digest,
                export=exports.get(digest),
            )
        )
    return found


def _missing(rows: list[Row], reasons: dict[str, str]) -> list[str]:
    there = {(row.model.name, row.precision) for row in rows}
    sentences = [f"{name}: {reason}" for name, reason in reasons.items()]
    sentences += [
        f"{model.label}, {precision}: not in the result file; {MEASURE}"
        for model in MODELS.values()
        for precision in model.precisions
        if (model.name, precision) not in there and model.name not in reasons
    ]
    if not any(item.data_set_name == "ADE20K" for row in rows for item in row.measured):
        sentences.append("measured accuracy on ADE20K: no run on its 150 classes is among the result files")
    if not any(row.elsewhere for row in rows):
        sentences.append(
            "latency on a phone or in a browser: no result file of `python -m benchmarks.coreml_device`, "
            "`python -m benchmarks.xcode_report` or the browser page is there"
        )
    return sentences
