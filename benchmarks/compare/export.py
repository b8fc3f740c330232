"""Artifacts of the compared models with fresh, seeded weights: latency, size and memory do not depend on weights."""

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
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.dense.model import build_model
from mobileclip_dense.deploy.onnx.convert import LIBRARIES, describe_input, write_artifact
from mobileclip_dense.deploy.onnx.quantize import quantize_by_measurement
from mobileclip_dense.deploy.prepare import NUM_GOLDEN, Prepared, describe, prepare_model
from mobileclip_dense.deploy.profiles import ONNX_PROFILES
from mobileclip_dense.models.prunable import find_units
from mobileclip_dense.models.prune import count_params, search_target
from mobileclip_dense.run.folder import Run

_NUM_CALIBRATION = 4  # ranges of fresh weights mean nothing, and latency does not depend on them
_PROFILE = ONNX_PROFILES["web"]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What is known of a model before it is measured: folders by precision; multiply-accumulates for one image, which
    the file `costs` holds for a later call."""

    model: Model
    folders: dict[str, Path]
    costs: Path
    macs: int

    def discard(self) -> None:
        """Remove the artifacts and what was noted of them."""
        for folder in self.folders.values():
            shutil.rmtree(folder)
        self.costs.unlink()


def export_fresh(model: Model, size_px: int, seed: int, work: Path) -> Exported:
    """The artifacts of a model with fresh weights, in `work`; what lies there from an interrupted call is kept.

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
    for precision, folder in folders.items():
        if folder.is_dir():
            continue
        draft = describe(
            prepared, runtime="onnx", precision=precision, taken=describe_input(prepared, _PROFILE), libraries=LIBRARIES
        )
        _write(prepared, dataclasses.replace(draft, name=folder.name), folder, seed)
    write_json(costs, {"macs": macs})
    return Exported(model=model, folders=folders, costs=costs, macs=macs)


def _prepare_fresh(model: Model, size_px: int, seed: int) -> Prepared:
    config = FinetuneConfig(
        data=Path("fresh"), out=Path(model.name), encoder=model.encoder, head=model.head,
        head_channels=model.head_channels, crop_size_px=(size_px, size_px), drop_path_rate=0.0,
    )  # fmt: skip
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
        "weights_sha256": hashlib.sha256(save(state)).hexdigest(),
        "class_names": [f"class {index}" for index in range(NUM_CLASSES)],
    }
    run = Run(folder=Path(model.name), config=config, record=record, weights={}, structure=None)
    return prepare_model(network, run, config, _noise(NUM_GOLDEN, size_px, seed))


def _write(prepared: Prepared, draft: Artifact, folder: Path, seed: int) -> None:
    def to_int8(path: Path) -> dict[str, float]:
        images = _noise(_NUM_CALIBRATION, prepared.size_px[0], seed + 1)
        return quantize_by_measurement(path, images, None).figures()

    write_artifact(prepared, draft, _PROFILE.opset, folder, to_int8, force=False)


def _noise(count: int, size_px: int, seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8)


def _count_macs(network: nn.Module, size_px: int) -> int:
    """Multiply-accumulates of convolutions and matrix products of the fused network, for one image."""
    shapes = copy.deepcopy(network).to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shapes(torch.empty(1, 3, size_px, size_px, device="meta"))
    return int(counter.get_total_flops()) // 2
