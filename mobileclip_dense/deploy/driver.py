"""One driver for all targets: prepare, convert, compare with PyTorch, judge the cost, write."""

import dataclasses
from pathlib import Path
from pkgutil import resolve_name
from typing import Protocol

import numpy as np

from mobileclip_dense.artifact.artifact import TOKENIZER_FILE, Artifact, TensorSpec, save_artifact
from mobileclip_dense.artifact.files import write_json
from mobileclip_dense.artifact.outputs import claim_folder, staged_folder
from mobileclip_dense.artifact.precision import Precision, find_precision
from mobileclip_dense.artifact.targets import TARGETS, artifact_output
from mobileclip_dense.config.export import ExportConfig
from mobileclip_dense.deploy.describe import describe
from mobileclip_dense.deploy.gate import cost_function, require_tolerable
from mobileclip_dense.deploy.prepare import prepare
from mobileclip_dense.deploy.prepared import Prepared
from mobileclip_dense.deploy.tokenizer import save_tokenizer
from mobileclip_dense.runtime.parity import compare_with_golden
from mobileclip_dense.runtime.predictor import Predictor, Report, inspect_model


class Exporter(Protocol):
    """What a target brings: how a network is converted for it.

    Attributes:
        runtime: of its `Target`. libraries: whose versions an artifact records.
        precisions: names of those to export. num_evaluated: held-out images that a gated precision is judged on.
    """

    runtime: str
    libraries: tuple[str, ...]
    precisions: tuple[str, ...]
    num_evaluated: int

    def describe_input(self, prepared: Prepared, precision: Precision) -> TensorSpec:
        """What the exported model takes.

        Raises:
            ValueError: the network cannot be exported as it is wanted.
        """

    def check(self, prepared: Prepared, draft: Artifact) -> dict[str, float]:
        """Figures that are the same in every precision; called once for a network, before anything is written.

        Raises:
            ValueError: the network is converted wrongly.
        """

    def convert(self, prepared: Prepared, draft: Artifact, path: Path) -> dict[str, float]:
        """Write the model file, in the precision of `draft` and with its summary as metadata.

        Returns:
            Figures for artifact.json, such as what was gained.

        Raises:
            ValueError: the model is not what it should be.
        """


def export(config: ExportConfig, exporter: Exporter) -> list[Path]:
    """Write the artifacts of a run; their folders, network by network and precision by precision.

    Raises:
        FileExistsError: one exists already. FileNotFoundError, ValueError: see `prepare` and the exporter; or an
            artifact is too far from PyTorch or costs too much. What was written before stays.
    """
    precisions = [find_precision(exporter.runtime, name) for name in exporter.precisions]
    drafts = [
        (prepared, draft_artifact(prepared, precision, exporter))
        for prepared in prepare(config.run, config.size_px)
        for precision in precisions
        if not (prepared.task == "embed-text" and precision.needs_images)
    ]
    for _, draft in drafts:
        claim_folder(config.out / draft.name, artifact_output(), force=config.force, inputs={"the run": config.run})
    first = {draft.task: (prepared, draft) for prepared, draft in reversed(drafts)}
    checked = {task: exporter.check(*pair) for task, pair in first.items()}
    folders = []
    for prepared, draft in drafts:
        folder = config.out / draft.name
        draft = dataclasses.replace(draft, parity=draft.parity | checked[draft.task])
        artifact, report = write_artifact(
            prepared, draft, exporter, folder, force=config.force, allow_drop=config.allow_accuracy_drop
        )
        size_mb = sum(entry["bytes"] for name, entry in artifact.files.items() if _is_model(name, artifact)) / 1e6
        figures = ", ".join(f"{name} {value:.3g}" for name, value in artifact.parity.items())
        print("; ".join([f"{folder}: {size_mb:.2f} MB", *([report.summary()] if report else []), figures]))
        folders.append(folder)
    return folders


def draft_artifact(prepared: Prepared, precision: Precision, exporter: Exporter) -> Artifact:
    """The record of an artifact that is still to be made."""
    return describe(
        prepared,
        runtime=exporter.runtime,
        precision=precision.name,
        taken=exporter.describe_input(prepared, precision),
        libraries=exporter.libraries,
    )


def write_artifact(
    prepared: Prepared, draft: Artifact, exporter: Exporter, folder: Path, *, force: bool, allow_drop: bool
) -> tuple[Artifact, Report | None]:
    """Convert, inspect, compare with PyTorch, judge, and write the folder of one artifact.

    Raises:
        ValueError: the exported model is not what it should be or too far from PyTorch, or costs too much accuracy and
            `allow_drop` is off.
        FileExistsError: the folder exists and `force` is off.
    """
    source = prepared.run.folder
    golden = prepared.golden_as_taken(draft.input)
    with staged_folder(folder, artifact_output(), force=force, inputs={"the run": source}) as staging:
        path = staging / draft.model_file
        parity = draft.parity | exporter.convert(prepared, draft, path)
        report = inspect_model(staging, draft)
        if report is not None:
            write_json(staging / report.file_name, dataclasses.asdict(report))
        predictor: Predictor = resolve_name(TARGETS[draft.runtime].model)(path, draft)
        parity |= compare_with_golden(source, draft, golden, predictor)
        if find_precision(draft.runtime, draft.precision).gated and prepared.task != "embed-text":
            cost = cost_function(prepared, prepared.predict, exporter.num_evaluated)(predictor)
            require_tolerable(cost, f"{source}: {draft.precision}", "Choose more bits", allowed=allow_drop)
            parity |= cost
        np.savez_compressed(staging / "golden.npz", allow_pickle=False, **golden)
        if prepared.tokenizer is not None:
            save_tokenizer(prepared.tokenizer, staging / TOKENIZER_FILE)
        return save_artifact(dataclasses.replace(draft, parity=parity), staging), report


def _is_model(name: str, artifact: Artifact) -> bool:
    return name == artifact.model_file or name.startswith(f"{artifact.model_file}/")
