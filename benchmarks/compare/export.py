"""Artifacts of the compared models with random, seeded weights: latency, size and memory do not depend on weights."""

import copy
import dataclasses
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.compare.models import NUM_CLASSES, PRUNED_TO, Model
from mobileclip_dense.artifact.artifact import Artifact
from mobileclip_dense.artifact.files import read_json, write_json
from mobileclip_dense.artifact.precision import find_precision
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.config.export import ONNX_PROFILES
from mobileclip_dense.dense.model import build_model
from mobileclip_dense.deploy.driver import draft_artifact, write_artifact
from mobileclip_dense.deploy.onnx.exporter import OnnxExporter
from mobileclip_dense.deploy.onnx.quantize import quantize_by_measurement
from mobileclip_dense.deploy.prepare import prepare_model
from mobileclip_dense.deploy.prepared import NUM_GOLDEN, Prepared
from mobileclip_dense.models.prunable import find_units
from mobileclip_dense.models.prune import count_params, search_target
from mobileclip_dense.run.folder import Run

_NUM_CALIBRATION = 4  # few, because latency does not depend on the calibrated ranges


class FreshExporter(OnnxExporter):
    """Exports networks with random weights, without an accuracy gate and without calibration data."""

    def __init__(self, seed: int):
        super().__init__(ONNX_PROFILES["web"])
        self.seed = seed

    def compress(self, prepared: Prepared, draft: Artifact, path: Path) -> dict[str, float]:
        """Replace the float model by its int8 version, calibrated on noise. Returns its figures."""
        images = _noise(_NUM_CALIBRATION, prepared.size_px[0], self.seed + 1)
        return quantize_by_measurement(path, images, None).figures()


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An exported model: its folders by precision, and its multiply-accumulates for one image.

    The file `costs` stores the multiply-accumulates for a later call.
    """

    model: Model
    folders: dict[str, Path]
    costs: Path
    macs: int

    def discard(self) -> None:
        """Delete the artifacts and the file `costs`."""
        for folder in self.folders.values():
            shutil.rmtree(folder)
        self.costs.unlink()


def export_fresh(model: Model, size_px: int, seed: int, work: Path) -> Exported:
    """Export a model with random weights to `work`. Artifacts of an interrupted call are reused.

    Raises:
        ValueError: this project cannot build, prune, fuse or export it.
    """
    stem = f"{model.name}-segment-fresh{seed}-{size_px}x{size_px}"
    folders = {precision: work / f"{stem}-{precision}.onnx" for precision in model.precisions}
    costs = work / f"{stem}.json"
    if costs.is_file() and all(folder.is_dir() for folder in folders.values()):
        return Exported(model=model, folders=folders, costs=costs, macs=int(read_json(costs)["macs"]))
    prepared = _prepare_fresh(model, size_px, seed)
    macs = _count_macs(prepared.network, size_px)
    exporter = FreshExporter(seed)
    for precision, folder in folders.items():
        if folder.is_dir():
            continue
        draft = draft_artifact(prepared, find_precision(exporter.runtime, precision), exporter)
        draft = dataclasses.replace(draft, name=folder.name)
        write_artifact(prepared, draft, exporter, folder, force=False, allow_drop=True)
    write_json(costs, {"macs": macs})
    return Exported(model=model, folders=folders, costs=costs, macs=macs)


def _prepare_fresh(model: Model, size_px: int, seed: int) -> Prepared:
    config = FinetuneConfig(
        data=Path("fresh"),
        out=Path(model.name),
        encoder=model.encoder,
        head=model.head,
        head_channels=model.head_channels,
        crop_size_px=(size_px, size_px),
        drop_path_rate=0.0,
    )
    torch.manual_seed(seed)
    network: nn.Module = build_model(config, NUM_CLASSES).eval()
    if model.pruned:
        whole = count_params(network)
        network, _ = search_target(
            network, find_units(network, model.head), lambda m: count_params(m) / whole, PRUNED_TO
        )
        network = network.eval()
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    record = {
        "architecture": model.name,
        "weights_sha256": hashlib.sha256(save(state)).hexdigest(),
        "class_names": [f"class {index}" for index in range(NUM_CLASSES)],
    }
    run = Run(folder=Path(model.name), config=config, record=record, weights={}, structure=None)
    return prepare_model(network, run, config, _noise(NUM_GOLDEN, size_px, seed))


def _noise(count: int, size_px: int, seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8)


def _count_macs(network: nn.Module, size_px: int) -> int:
    """The multiply-accumulates of convolutions and matrix products in the fused network, for one image."""
    shapes = copy.deepcopy(network).to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shapes(torch.empty(1, 3, size_px, size_px, device="meta"))
    return int(counter.get_total_flops()) // 2
