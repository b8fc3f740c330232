"""Accuracies of runs and exports in result files, and the compared network of each. No torch."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.compare.models import Model

_DATA_SETS = {"adechallengedata2016": "ADE20K", "ade20k": "ADE20K", "camvid": "CamVid"}
# The architecture of a pruned network does not say how far it is pruned. A run counts its train form and its own
# classes, a row what is deployed with 150 classes: they are less than 1 % apart, two targets of pruning are more.
_SAME_TARGET = 0.03


@dataclass(frozen=True, kw_only=True)
class Network:
    """The network of a run.

    Attributes:
        architecture: ENCODER-HEAD[-pruned] as recorded; None in a result file that lacks it, whose runs match no row.
        num_parameters: as recorded in run.json; None where a result file lacks it.
    """

    architecture: str | None
    encoder: str
    head: str
    neck_channels: int
    head_channels: int
    num_parameters: int | None

    def is_of(self, model: Model, num_parameters: int) -> bool:
        """Whether this is the compared network, of the same architecture and widths; the classes may differ.

        Args:
            num_parameters: of the model's row; only pruned networks are compared by it.
        """
        same_widths = self.head_channels == model.head_channels and (
            self.neck_channels == 256 or self.head == "upernet"
        )
        return self.architecture == model.name and same_widths and (not model.pruned or self._is_as_far(num_parameters))

    def _is_as_far(self, num_parameters: int) -> bool:
        """Whether it was pruned to the same number of parameters."""
        return self.num_parameters is not None and abs(self.num_parameters / num_parameters - 1) < _SAME_TARGET

    @property
    def sentence(self) -> str:
        """The network in words."""
        size = "unknown size" if self.num_parameters is None else f"{self.num_parameters / 1e6:.1f} M parameters"
        return (
            f"{self.encoder} with {self.head} ({self.neck_channels} channels in the pyramid, {self.head_channels} "
            f"in the head, {size})"
        )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An accuracy that this project measured: of which network and run in which precision, on which data set, in which
    file. `iters`, `start`: how long the run trained, and from what.

    Of an export: `artifact`, its name; `reference_percent`, what the float model reaches on the images as the export
    takes them, which are resized.
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
        """The accuracy in words."""
        export = "" if self.artifact is None else f" (float: {self.reference_percent:.1f} %, both in {self.artifact})"
        return f"{self.miou_percent:.1f} %{export} on {self.data_set} after {self.iters} iterations from {self.start}"

    @property
    def data_set_name(self) -> str:
        """Published name of a data set in its published folder; any other folder's name unchanged."""
        return _DATA_SETS.get(self.data_set.lower(), self.data_set)


@dataclass(frozen=True, kw_only=True)
class Export:
    """Network and precision of an exported artifact."""

    network: Network
    precision: str


def read_measured(contents: dict[Path, dict[str, Any]]) -> tuple[list[Measured], dict[str, Export]]:
    """Accuracies of segmentation runs and of their exports, and by its hash every export whose run is known.

    Runs that are pruned and not trained since are left out: nobody deploys them.

    Args:
        contents: what each result file holds.

    Raises:
        ValueError: a file's runs or exports are not as `mobileclip-dense report` writes them.
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
                f"{path}: runs, exports: not as `mobileclip-dense report` writes them "
                f"({type(error).__name__}: {error}); write them anew, or move the file away"
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
