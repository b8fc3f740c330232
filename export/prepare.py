"""From a run to the network that is exported: fused, with its preprocessing and its answer inside the graph."""

import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.contract.artifact import Artifact, TensorSpec
from mobileclip_dense.contract.palette import class_palette
from mobileclip_dense.contract.preprocess import load_image, resize_image
from mobileclip_dense.data.folders import SPLITS, list_pairs
from mobileclip_dense.dense.model import load_dense_run
from mobileclip_dense.models.encoders import ENCODERS
from mobileclip_dense.models.reparam import fuse_model, unfused_modules
from mobileclip_dense.run import Run

NUM_GOLDEN = 2
FUSION_TOLERANCE = 1e-5
_LICENCE = "Apache-2.0 for the code; the weights carry the licence of what they were trained from"


class DensePredictor(nn.Module):
    """float [B,3,H,W] RGB in 0..1 -> (logits [B,C,H/4,W/4], class_map int32 [B,H,W]) or (depth_m [B,H,W],)."""

    def __init__(self, model: nn.Module, config: FinetuneConfig):
        super().__init__()
        self.backbone: Any = model.backbone
        self.neck: Any = model.neck
        self.head: Any = model.decode_head
        self.task = config.task
        normalization = ENCODERS[config.encoder].normalization
        self.identity = normalization.mean == (0, 0, 0) and normalization.std == (1, 1, 1)
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(normalization.mean)[None, :, None, None])
        self.register_buffer("std", torch.tensor(normalization.std)[None, :, None, None])

    def forward(self, unit_image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As in the class docstring; predictions are upsampled as mmsegmentation does it, bilinear before argmax."""
        x = unit_image if self.identity else (unit_image - self.mean) / self.std
        prediction = self.head(self.neck(self.backbone(x)))
        full = nn.functional.interpolate(prediction, unit_image.shape[2:], mode="bilinear", align_corners=False)
        if self.task == "segment":
            return prediction, full.argmax(dim=1).to(torch.int32)
        return (full.squeeze(1),)


class FromPixels(nn.Module):
    """uint8 [B,H,W,3] RGB -> what `predictor` gives: the form in which ONNX models are exported."""

    def __init__(self, predictor: DensePredictor):
        super().__init__()
        self.predictor = predictor

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As in the class docstring."""
        return self.predictor(image.permute(0, 3, 1, 2).to(torch.float32) / 255)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What every exporter starts from.

    Attributes:
        predictor: fused, in evaluation mode. golden: `input` uint8 [N,H,W,3] and PyTorch's outputs by name.
        fusion_error: largest relative error of fused against unfused, over the outputs and golden inputs.
    """

    run: Run
    config: FinetuneConfig
    predictor: DensePredictor
    golden: dict[str, npt.NDArray[Any]]
    fusion_error: float

    @property
    def size_px(self) -> tuple[int, int]:
        height, width = self.golden["input"].shape[1:3]
        return height, width


def prepare(folder: Path, size_px: tuple[int, int] | None) -> Prepared:
    """Load a fine-tuning run, fuse it, and compute the golden outputs on its own held-out images.

    Args:
        size_px: height and width of the exported model, multiples of 32; None: the run's training crop.

    Raises:
        FileNotFoundError, ValueError: the run or its data cannot be read, the size does not fit, or the fused network
            is further than FUSION_TOLERANCE from the trained one.
    """
    model, run, config = load_dense_run(folder)
    height, width = size_px or config.crop_size_px
    for side in (height, width):
        if side < 32 or side % 32:
            raise ValueError(f"--size-px: found {height} {width}, expected multiples of 32 (the encoder's last stride)")
    images = sample_images(config, "val", NUM_GOLDEN, (height, width))
    fused = fuse_model(model)
    if left := unfused_modules(fused):
        raise ValueError(f"{folder}: fusion: {len(left)} modules left unfused: {', '.join(left[:5])}")
    unfused_outputs = predict(DensePredictor(model, config), images)
    predictor = DensePredictor(fused, config).eval()
    outputs = predict(predictor, images)
    first = output_names(config)[0]
    error = relative_error(outputs[first], unfused_outputs[first])
    if not error <= FUSION_TOLERANCE:
        raise ValueError(f"{folder}: fusion: relative error {error:.1e}, expected at most {FUSION_TOLERANCE:.0e}")
    return Prepared(
        run=run, config=config, predictor=predictor, golden={"input": images, **outputs}, fusion_error=error
    )


def sample_images(config: FinetuneConfig, split: str, count: int, size_px: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The first images of the run's own data, resized: uint8 [N,H,W,3]. `split` is train or val."""
    pairs = list_pairs(config.data, SPLITS[config.task][0 if split == "train" else 1])[:count]
    return np.stack([resize_image(load_image(image), *size_px) for image, _ in pairs])


def output_names(config: FinetuneConfig) -> tuple[str, ...]:
    """Names of the outputs of `DensePredictor`, in order."""
    return ("logits", "class_map") if config.task == "segment" else ("depth_m",)


@torch.inference_mode()
def predict(predictor: DensePredictor, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
    """PyTorch's outputs by name, image by image."""
    module = FromPixels(predictor).eval()
    answers = [module(torch.from_numpy(image[None].copy())) for image in images]
    names = ("logits", "class_map") if predictor.task == "segment" else ("depth_m",)
    return {name: torch.cat([answer[i] for answer in answers]).numpy() for i, name in enumerate(names)}


def relative_error(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Norm of the difference over the norm of `expected`, in float64; NaN where `found` is not finite."""
    a, b = found.astype(np.float64), expected.astype(np.float64)
    return float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(b)), 1e-30)


def describe(
    prepared: Prepared, *, runtime: str, precision: str, parity: dict[str, float], libraries: tuple[str, ...]
) -> Artifact:
    """The artifact record of an exported model."""
    config, record = prepared.config, prepared.run.record
    height, width = prepared.size_px
    meanings = {
        "logits": "class scores at a quarter of the resolution, before the softmax",
        "class_map": "index of the most likely class",
        "depth_m": "distance along the optical axis, metres",
    }
    outputs = tuple(
        TensorSpec(name=name, shape=(1, *prepared.golden[name].shape[1:]), dtype=str(prepared.golden[name].dtype),
                   meaning=meanings[name])
        for name in output_names(config)
    )  # fmt: skip
    return Artifact(
        name=f"{config.encoder}-{config.task}-{config.data.name}-{height}x{width}-{precision}.{runtime}",
        runtime=runtime,
        precision=precision,
        task=config.task,
        input=TensorSpec(name="image", shape=(1, height, width, 3), dtype="uint8", meaning="RGB image, 0..255"),
        outputs=outputs,
        preprocessing=f"resize to {height}x{width} (bilinear, antialiased); the model does the rest",
        class_names=tuple(record["class_names"]),
        palette=tuple(class_palette(len(record["class_names"]))),
        max_depth_m=config.max_depth_m if config.task == "depth" else None,
        num_parameters=sum(p.numel() for p in prepared.predictor.parameters()),
        parity={"fusion_relative_error": prepared.fusion_error, **parity},
        parent={"run": prepared.run.folder.name, "weights_sha256": record["weights_sha256"]},
        versions={"python": platform.python_version(), **{name: version(name) for name in ("torch", *libraries)}},
        licence=_LICENCE,
    )
