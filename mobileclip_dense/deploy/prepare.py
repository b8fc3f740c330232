"""From a run to the networks that are exported: fused, with their preprocessing and their answer inside the graph."""

import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from open_clip import SimpleTokenizer
from torch import nn

from mobileclip_dense.artifact.artifact import Artifact, TensorSpec
from mobileclip_dense.artifact.palette import class_palette
from mobileclip_dense.artifact.preprocess import Normalization
from mobileclip_dense.config import FinetuneConfig, PretrainConfig
from mobileclip_dense.config.encoders import ENCODERS
from mobileclip_dense.dense.model import load_dense_run, make_upsampling_symbolic
from mobileclip_dense.deploy.parity import relative_error
from mobileclip_dense.deploy.pooling import make_pooling_exact
from mobileclip_dense.deploy.samples import sample_images
from mobileclip_dense.models.reparam import fuse_model, unfused_modules
from mobileclip_dense.run.folder import Run, load_run

NUM_GOLDEN = 2
FUSION_TOLERANCE = 1e-5
_LICENCE = "Apache-2.0 for the code; the weights carry the licence of what they were trained from"
_MEANINGS = {
    "logits": "class scores at a quarter of the resolution, before the softmax",
    "class_map": "index of the most likely class",
    "depth_m": "distance along the optical axis, metres",
    "image_embedding": "unit vector in the space shared by images and texts",
    "text_embedding": "unit vector in the space shared by images and texts",
}


class Normalized(nn.Module):
    """float [B,3,H,W] RGB in 0..1 -> (pixel - mean) / std; nothing at all where an encoder takes 0..1."""

    def __init__(self, normalization: Normalization):
        super().__init__()
        self.identity = normalization.mean == (0, 0, 0) and normalization.std == (1, 1, 1)
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(normalization.mean)[None, :, None, None])
        self.register_buffer("std", torch.tensor(normalization.std)[None, :, None, None])

    def forward(self, unit_image: torch.Tensor) -> torch.Tensor:
        """As in the class docstring."""
        return unit_image if self.identity else (unit_image - self.mean) / self.std


class DensePredictor(nn.Module):
    """float [B,3,H,W] RGB in 0..1 -> (logits [B,C,H/4,W/4], class_map int32 [B,H,W]) or (depth_m [B,H,W],)."""

    def __init__(self, model: nn.Module, config: FinetuneConfig):
        super().__init__()
        self.normalized = Normalized(ENCODERS[config.encoder].normalization)
        self.backbone: Any = model.backbone
        self.neck: Any = getattr(model, "neck", nn.Identity())
        self.head: Any = model.decode_head
        self.task = config.task

    def forward(self, unit_image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As in the class docstring; predictions are upsampled as mmsegmentation does it, bilinear before argmax."""
        prediction = self.head(self.neck(self.backbone(self.normalized(unit_image))))
        full = nn.functional.interpolate(prediction, unit_image.shape[2:], mode="bilinear", align_corners=False)
        if self.task == "segment":
            return prediction, full.argmax(dim=1).to(torch.int32)
        return (full.squeeze(1),)


class FromPixels(nn.Module):
    """uint8 [B,H,W,3] RGB -> what `network` gives for float [B,3,H,W] in 0..1."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As in the class docstring."""
        outputs: tuple[torch.Tensor, ...] = self.network(image.permute(0, 3, 1, 2).to(torch.float32) / 255)
        return outputs


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What every exporter starts from.

    Attributes:
        task: segment, depth, embed-image or embed-text.
        network: fused, in evaluation mode; takes float [B,3,H,W] RGB in 0..1, or int64 tokens [B,L]; gives a tuple.
        outputs: names of what it gives.
        golden: `input` (uint8 [N,H,W,3], or tokens int64 [N,L]) and PyTorch's outputs by name.
        fusion_error: relative error of fused against unfused over the first output.
        logit_scale: of CLIP's towers, what cosines are multiplied with; None for dense models.
        tokenizer: of a text tower, what turns text into its tokens; None for all others.
    """

    run: Run
    task: str
    network: nn.Module
    outputs: tuple[str, ...]
    golden: dict[str, npt.NDArray[Any]]
    fusion_error: float
    logit_scale: float | None = None
    tokenizer: SimpleTokenizer | None = None

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the images it is exported for."""
        height, width = self.golden["input"].shape[1:3]
        return height, width


def prepare(folder: Path, size_px: tuple[int, int] | None) -> list[Prepared]:
    """Load a run, fuse it, and compute the golden outputs on its own held-out data.

    Args:
        size_px: height and width of the exported model, multiples of 32; None: what the run was trained with.

    Returns:
        One network of a fine-tuning run; the image and the text tower of a pretraining run.

    Raises:
        FileNotFoundError, ValueError: the run or its data cannot be read, the size does not fit, or the fused network
            is further than FUSION_TOLERANCE from the trained one.
    """
    for side in size_px or ():
        if side < 32 or side % 32:
            found = " ".join(map(str, size_px or ()))
            raise ValueError(f"--size-px: found {found}, expected multiples of 32 (the encoder's last stride)")
    run = load_run(folder)
    if isinstance(run.config, PretrainConfig):
        from mobileclip_dense.deploy.towers import prepare_towers  # stands on this module

        return prepare_towers(run, run.config, size_px or (run.config.image_size_px,) * 2)
    return [_prepare_dense(folder, size_px)]


def _prepare_dense(folder: Path, size_px: tuple[int, int] | None) -> Prepared:
    model, run, config = load_dense_run(folder)
    if config.task == "detect":
        raise ValueError(f"{folder}: task: found detect, expected segment or depth; detectors cannot be exported")
    return prepare_model(model, run, config, sample_images(config, "val", NUM_GOLDEN, size_px or config.crop_size_px))


def prepare_model(model: nn.Module, run: Run, config: FinetuneConfig, images: npt.NDArray[np.uint8]) -> Prepared:
    """Fuse a dense model in evaluation mode; the golden outputs are those for `images`, uint8 [N,H,W,3].

    Raises:
        ValueError: as `prepare`.
    """
    names = ("logits", "class_map") if config.task == "segment" else ("depth_m",)
    fused: Any = fuse_exactly(model, run.folder)
    fused.backbone.encoder.fix_input_size(*images.shape[1:3])
    network = DensePredictor(fused, config).eval()
    make_upsampling_symbolic(network)
    make_pooling_exact(network)
    golden = {"input": images, **predict(network, images, names)}
    unfused = predict(DensePredictor(model, config).eval(), images, names)
    error = require_exact(golden[names[0]], unfused[names[0]], run.folder)
    return Prepared(run=run, task=config.task, network=network, outputs=names, golden=golden, fusion_error=error)


def fuse_exactly(model: nn.Module, folder: Path) -> nn.Module:
    """Fuse, and refuse if anything is left to fold."""
    fused = fuse_model(model)
    if left := unfused_modules(fused):
        raise ValueError(f"{folder}: fusion: {len(left)} modules left unfused: {', '.join(left[:5])}")
    return fused


def require_exact(fused: npt.NDArray[Any], unfused: npt.NDArray[Any], folder: Path) -> float:
    """The relative error of fusion.

    Raises:
        ValueError: above FUSION_TOLERANCE.
    """
    error = relative_error(fused, unfused)
    if not error <= FUSION_TOLERANCE:
        raise ValueError(f"{folder}: fusion: relative error {error:.1e}, expected at most {FUSION_TOLERANCE:.0e}; "
                         f"nothing was written")  # fmt: skip
    return error


@torch.inference_mode()
def predict(network: nn.Module, inputs: npt.NDArray[Any], names: tuple[str, ...]) -> dict[str, npt.NDArray[Any]]:
    """PyTorch's outputs by name, one by one; `inputs` as in `Prepared.golden`."""
    module = FromPixels(network).eval() if inputs.dtype == np.uint8 else network
    answers = [module(torch.from_numpy(item[None].copy())) for item in inputs]
    return {name: torch.cat([answer[i] for answer in answers]).numpy() for i, name in enumerate(names)}


def describe(
    prepared: Prepared, *, runtime: str, precision: str, taken: TensorSpec, libraries: tuple[str, ...]
) -> Artifact:
    """The artifact record of an exported model that takes `taken`; parity figures are added when they are known."""
    config, record = prepared.run.config, prepared.run.record
    outputs = tuple(
        TensorSpec(name=name, shape=(1, *prepared.golden[name].shape[1:]), dtype=str(prepared.golden[name].dtype),
                   meaning=_MEANINGS[name], flexible=taken.flexible)
        for name in prepared.outputs
    )  # fmt: skip
    size = "x".join(map(str, prepared.golden["input"].shape[1:3]))
    network = config.model if isinstance(config, PretrainConfig) else config.encoder
    if isinstance(config, FinetuneConfig) and config.head != "semantic_fpn":  # whose name is of old
        network = f"{network}-{config.head}"
    network = network if prepared.run.structure is None else f"{network}-pruned"
    data = Path(config.data[0]) if isinstance(config, PretrainConfig) else config.data
    fit = "resize the short side and crop the centre" if prepared.task == "embed-image" else "resize"
    class_names = tuple(record.get("class_names", ()))
    return Artifact(
        name=f"{network}-{prepared.task}-{_folder_name(data)}-{size}-{precision}.{runtime}",
        runtime=runtime,
        precision=precision,
        task=prepared.task,
        input=taken,
        outputs=outputs,
        preprocessing="tokens of CLIP's byte-pair encoding, as tokenizer.json gives them"
        if prepared.task == "embed-text"
        else f"{fit} to {size} (bilinear, antialiased); the model does the rest",
        class_names=class_names,
        palette=tuple(class_palette(len(class_names))),
        max_depth_m=config.max_depth_m if isinstance(config, FinetuneConfig) and prepared.task == "depth" else None,
        logit_scale=prepared.logit_scale,
        num_parameters=sum(p.numel() for p in prepared.network.parameters()),
        parity={"fusion_relative_error": prepared.fusion_error},
        parent={"run": _folder_name(prepared.run.folder), "weights_sha256": record["weights_sha256"]},
        versions={"python": platform.python_version(), **{name: version(name) for name in ("torch", *libraries)}},
        licence=_LICENCE,
    )


def _folder_name(path: Path) -> str:
    """The name of a folder that may be given as `.` or `..`, without the path to it."""
    return path.name if path.name not in ("", "..") else path.resolve().name
