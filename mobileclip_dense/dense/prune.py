"""`mobileclip-dense prune`: write a pruned copy of a fine-tuned run as a complete run folder."""

import dataclasses
import time
from typing import Any

from torch import nn

from mobileclip_dense.artifact.outputs import RUN, claim_folder
from mobileclip_dense.config import PruneConfig
from mobileclip_dense.dense.evaluation.validation_set import validation_set_of
from mobileclip_dense.dense.model import build_model, load_dense_run
from mobileclip_dense.dense.training.train import LABELLED_DETAILS, evaluate_model
from mobileclip_dense.models.prunable import Kept, Kind, Unit, find_units
from mobileclip_dense.models.prune import count_macs, count_params, search_target
from mobileclip_dense.models.structure import structure_difference
from mobileclip_dense.run.folder import finish_run, open_run

_LABELS: dict[Kind, str] = {
    "mlp": "MLP, hidden channels",
    "heads": "attention heads",
    "squeeze": "squeeze-and-excitation",
    "neck": "neck (FPN)",
    "head": "head",
    "width": "encoder width, first stage",
}
_CARRIED = ("class_names", "palette", *LABELLED_DETAILS,
            "num_train_images", "num_val_images", "val_images")  # fmt: skip


def prune(config: PruneConfig) -> None:
    """Prune the run `config.run` to the target, measure it on the held-out images and write it to `config.out`.

    Raises:
        FileNotFoundError, ValueError: the run or its held-out images cannot be read; the run is not a fine-tuned MCi;
            the target cannot be reached.
        FileExistsError: the folder exists and --force was not given.
    """
    started = time.time()
    claim_folder(config.out, RUN, force=config.force, inputs={"the run": config.run})
    model, run, settings = load_dense_run(config.run)
    if settings.task == "detect":
        raise ValueError(f"{config.run}: task: found detect, expected segment or depth; detectors cannot be pruned")
    validation_set = validation_set_of(run, settings)
    pruned_settings = dataclasses.replace(settings, out=config.out, init=str(config.run), force=config.force)
    units = find_units(model, settings.head)

    def costs(candidate: nn.Module) -> dict[str, int]:
        return {"params": count_params(candidate), "macs": count_macs(candidate, settings.crop_size_px)}

    before = costs(model)
    if config.target_params is not None:
        pruned, kept = search_target(model, units, lambda m: count_params(m) / before["params"], config.target_params)
    else:
        assert config.target_macs is not None
        pruned, kept = search_target(
            model, units, lambda m: count_macs(m, settings.crop_size_px) / before["macs"], config.target_macs
        )
    after = costs(pruned)
    metrics = evaluate_model(pruned, pruned_settings, validation_set)
    structure = structure_difference(pruned, build_model(settings, len(run.record["class_names"])))
    details = {name: run.record[name] for name in _CARRIED if name in run.record}
    details["pruned"] = _record(config, before, after, settings.crop_size_px)
    with open_run(pruned_settings, {"the run": config.run, "its data": settings.data}):
        finish_run(
            pruned_settings, pruned.state_dict(), metrics, started=started, structure=structure, details=details,
            device=str(next(pruned.parameters()).device),
        )  # fmt: skip
    print(_summary(units, kept, before, after))
    key, name = ("mIoU", "mIoU, %") if settings.task == "segment" else ("rmse", "RMSE, m")
    print(_row(f"{name} (not fine-tuned yet)", "", f"{run.record['metrics'][key]:.2f}", f"{metrics[key]:.2f}"))
    print(f"{config.out}: pruned; to recover accuracy, run `mobileclip-dense finetune RECIPE --init {config.out}`")


def _record(
    config: PruneConfig, before: dict[str, int], after: dict[str, int], size_px: tuple[int, int]
) -> dict[str, Any]:
    return {
        "target_params": config.target_params,
        "target_macs": config.target_macs,
        "share_params": after["params"] / before["params"],
        "share_macs": after["macs"] / before["macs"],
        "params_before": before["params"],
        "params_after": after["params"],
        "macs_before": before["macs"],
        "macs_after": after["macs"],
        "macs_size_px": list(size_px),
    }


def _summary(units: list[Unit], kept: Kept, before: dict[str, int], after: dict[str, int]) -> str:
    """A table: layers and channels (or heads) of each kind before and after, then parameters and MACs of the model."""
    rows = [_row("", "layers", "before", "after")]
    for kind, label in _LABELS.items():
        of_kind = [unit for unit in units if unit.kind == kind]
        sizes = sum(unit.size for unit in of_kind), sum(kept.get(unit.name, unit.size) for unit in of_kind)
        rows.append(_row(label, len(of_kind), *sizes))
    for label, key in (("parameters", "params"), ("multiply-accumulates", "macs")):
        share = f"{after[key] / 1e6:.2f} M ({100 * after[key] / before[key]:.1f} %)"
        rows.append(_row(label, "", f"{before[key] / 1e6:.2f} M", share))
    return "\n".join(rows)


def _row(label: str, *cells: object) -> str:
    return f"{label:<32}{cells[0]:>8}{cells[1]:>14}{cells[2]:>24}"
