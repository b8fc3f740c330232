"""Accuracies of our own runs and exports in result files, and which compared network each is of. No torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.compare_models import MODELS, SMALLEST, Model

_DATA_SETS = {"adechallengedata2016": "ADE20K", "ade20k": "ADE20K", "camvid": "CamVid"}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An accuracy that this project measured: of which run in which precision, on which data set, in which file.
    `iters`, `start`: how long the run trained, and from what. `reference_percent`: of an export, what the float model
    reaches on the images as the export takes them, which are resized."""

    miou_percent: float
    precision: str
    data_set: str
    iters: int
    start: str
    weights_sha256: str
    source: str
    reference_percent: float | None = None

    @property
    def sentence(self) -> str:
        """For people."""
        before = "" if self.reference_percent is None else f" (float: {self.reference_percent:.1f} %, both as exported)"
        return f"{self.miou_percent:.1f} %{before} on {self.data_set} after {self.iters} iterations from {self.start}"

    @property
    def data_set_name(self) -> str:
        """As it is published, for the folder names that data sets come with; any other folder's name as it is."""
        return _DATA_SETS.get(self.data_set.lower(), self.data_set)


def read_measured(contents: dict[Path, dict[str, Any]]) -> tuple[list[tuple[dict[str, Any], Measured]], list[str]]:
    """Segmentation runs that result files record, with their settings, and their exports where those were evaluated;
    and the runs that fit no model, in words.

    Args:
        contents: what each result file holds.

    Raises:
        ValueError: a file's runs or exports are not as `python -m benchmarks.report` writes them.
    """
    found = []
    for path, value in contents.items():
        try:
            found += _measured_in(value, path.name)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: runs, exports: not as `python -m benchmarks.report` writes them "
                f"({type(error).__name__}: {error}); write them anew, or move the file away"
            ) from None
    others = [
        f"{run['encoder']} with {run.get('head', 'semantic_fpn')} ({run['neck_channels']} channels in the pyramid, "
        f"{run['head_channels']} in the head), {item.precision}: mIoU {item.sentence} ({item.source})"
        for run, item in found
        if run["encoder"] != SMALLEST.encoder and not any(is_network_of(run, model) for model in MODELS.values())
    ]
    return found, others


def _measured_in(value: dict[str, Any], source: str) -> list[tuple[dict[str, Any], Measured]]:
    found = []
    exported = {
        (export["weights_sha256"], export["precision"]):
            (export["parity"]["miou_percent"], export["parity"]["reference_miou_percent"])
        for export in value.get("exports", ()) if "miou_percent" in export["parity"]
    }  # fmt: skip
    for name, run in value["runs"].items() if isinstance(value.get("runs"), dict) else ():
        settings = run.get("settings", {}) | {"pruned": "structure_sha256" in run or "pruned" in name}
        if settings.get("task") != "segment" or "mIoU" not in run.get("metrics", {}):
            continue
        digest = run["weights_sha256"]
        accuracies = {"fp32": (run["metrics"]["mIoU"], None)}
        accuracies |= {precision: figures for (of, precision), figures in exported.items() if of == digest}
        found += [
            (settings, Measured(
                miou_percent=float(miou), precision=precision, data_set=Path(settings["data"]).name,
                iters=settings["max_iters"], start=settings["init"] or "scratch", weights_sha256=digest,
                source=source, reference_percent=reference,
            ))
            for precision, (miou, reference) in accuracies.items()
        ]  # fmt: skip
    return found


def is_network_of(run: dict[str, Any], model: Model) -> bool:
    """Whether a run, by its settings, trained this very network (the number of classes apart)."""
    return (
        run["encoder"] == model.encoder
        and run.get("head", "semantic_fpn") == model.head
        and (run["neck_channels"] == 256 or model.head == "upernet")
        and run["head_channels"] == model.head_channels
        and run["pruned"] == model.pruned
    )
