"""Accuracies of runs and exports in result files, with the network of each. It does not import torch."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.compare.models import Model

_DATA_SETS = {"adechallengedata2016": "ADE20K", "ade20k": "ADE20K", "camvid": "CamVid"}
# The architecture of a pruned network does not include its size, so the numbers of parameters are compared. A run
# counts the unfused network with its own classes, a row the fused network with 150 classes. They differ by less than
# 1 %, two targets of pruning by more.
_SAME_TARGET = 0.03


@dataclass(frozen=True, kw_only=True)
class Network:
    """The network of a run.

    Attributes:
        architecture: recorded ENCODER-HEAD[-pruned]. None if the result file does not have it; the run then matches no
            row.
        num_parameters: recorded in run.json. None if the result file does not have it.
    """

    architecture: str | None
    encoder: str
    head: str
    neck_channels: int
    head_channels: int
    num_parameters: int | None

    def is_of(self, model: Model, num_parameters: int) -> bool:
        """Whether this network has the architecture and widths of `model`; the classes may differ.

        Args:
            model: a model of the comparison.
            num_parameters: number of parameters in the model's row. Only pruned networks are compared by it.
        """
        same_widths = self.head_channels == model.head_channels and (
            self.neck_channels == 256 or self.head == "upernet"
        )
        return self.architecture == model.name and same_widths and (not model.pruned or self._is_as_far(num_parameters))

    def _is_as_far(self, num_parameters: int) -> bool:
        """Whether the network is pruned to about the same number of parameters."""
        return self.num_parameters is not None and abs(self.num_parameters / num_parameters - 1) < _SAME_TARGET

    @property
    def sentence(self) -> str:
        """The network as text."""
        size = "unknown size" if self.num_parameters is None else f"{self.num_parameters / 1e6:.1f} M parameters"
        return (
            f"{self.encoder} with {self.head} ({self.neck_channels} channels in the pyramid, {self.head_channels} "
            f"in the head, {size})"
        )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An accuracy measured by this project, with its network, run, precision, data set and result file.

    `iters` and `start` are the length of the training and its initial weights. For an export, `artifact` is its name,
    and `reference_percent` the accuracy of the float model on images resized as for the export.
    """

    network: Network
    miou_percent: float
    precision: str
    data_set: str
    iters: int
    start: str
    weights_sha256: str
    source: str
    artifact: str | None = None
    reference_percent: float | None = None

    @property
    def sentence(self) -> str:
        """The accuracy as a sentence."""
        export = "" if self.artifact is None else f" (float: {self.reference_percent:.1f} %, both in {self.artifact})"
        return f"{self.miou_percent:.1f} %{export} on {self.data_set} after {self.iters} iterations from {self.start}"

    @property
    def data_set_name(self) -> str:
        """The published name of a data set if its folder has the published name, otherwise the name of the folder."""
        return _DATA_SETS.get(self.data_set.lower(), self.data_set)


@dataclass(frozen=True, kw_only=True)
class Export:
    """The network and precision of an exported artifact."""

    network: Network
    precision: str


def read_measured(contents: dict[Path, dict[str, Any]]) -> tuple[list[Measured], dict[str, Export]]:
    """The accuracies of segmentation runs and of their exports, and the exports with a known run by their hash.

    Pruned runs that were not fine-tuned afterwards are left out, because they are not deployed.

    Args:
        contents: contents of each result file.

    Raises:
        ValueError: a file's runs or exports are not in the format of `mobileclip-dense report`.
    """
    measured: list[Measured] = []
    exports: dict[str, Export] = {}
    for path, value in contents.items():
        try:
            for run in _segmentation_runs(value):
                network = _network(run)
                digest = run["weights_sha256"]
                of_run = [export for export in value.get("exports", ()) if export["weights_sha256"] == digest]
                for export in of_run:
                    exports[export["artifact_sha256"]] = Export(network=network, precision=str(export["precision"]))
                measured += _accuracies(run, network, of_run, path.name)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: runs, exports: not in the format of `mobileclip-dense report` "
                f"({type(error).__name__}: {error}); write the file again, or move it away"
            ) from None
    return measured, exports


def _segmentation_runs(value: dict[str, Any]) -> list[dict[str, Any]]:
    runs = value.get("runs")
    return [
        run
        for run in (runs.values() if isinstance(runs, dict) else ())
        if run.get("settings", {}).get("task") == "segment" and "mIoU" in run["metrics"] and not run.get("as_pruned")
    ]


def _network(run: dict[str, Any]) -> Network:
    settings = run["settings"]
    return Network(
        architecture=run.get("architecture"),
        encoder=str(settings["encoder"]),
        head=str(settings.get("head", "semantic_fpn")),
        neck_channels=int(settings["neck_channels"]),
        head_channels=int(settings["head_channels"]),
        num_parameters=run.get("num_parameters") and int(run["num_parameters"]),
    )


def _accuracies(run: dict[str, Any], network: Network, exports: list[dict[str, Any]], source: str) -> list[Measured]:
    settings = run["settings"]
    of_run = Measured(
        network=network,
        miou_percent=float(run["metrics"]["mIoU"]),
        precision="fp32",
        data_set=Path(settings["data"]).name,
        iters=int(settings["max_iters"]),
        start=str(settings["init"] or "scratch"),
        weights_sha256=str(run["weights_sha256"]),
        source=source,
    )
    return [of_run] + [
        replace(
            of_run,
            miou_percent=float(export["parity"]["miou_percent"]),
            precision=str(export["precision"]),
            artifact=str(export["artifact"]),
            reference_percent=float(export["parity"]["reference_miou_percent"]),
        )
        for export in exports
        if "miou_percent" in export["parity"]
    ]
