"""What every exporter starts from: a fused network and PyTorch's answers to examples."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from open_clip import SimpleTokenizer
from torch import nn

from mobileclip_dense.artifact.artifact import TensorSpec
from mobileclip_dense.artifact.preprocess import unit_planes
from mobileclip_dense.deploy.networks import FromPixels
from mobileclip_dense.models.reparam import fuse_model, unfused_modules
from mobileclip_dense.run.folder import Run
from mobileclip_dense.runtime.parity import Golden, relative_error

NUM_GOLDEN = 2
FUSION_TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A network to export.

    Attributes:
        run: where it comes from.
        task: segment, depth, embed-image or embed-text.
        network: fused, in evaluation mode; takes float [B,3,H,W] RGB in 0..1, or int64 tokens [B,L]; gives a tuple.
        outputs: names of what it gives.
        golden: `input` (uint8 [N,H,W,3], or tokens int64 [N,L]) and PyTorch's outputs by name.
        fusion_error: relative error of fused against unfused over the first output.
        stride: heights and widths of images are multiples of it; 1 where there are no images.
        logit_scale: of CLIP's towers, what cosines are multiplied with; None for dense models.
        tokenizer: of a text tower, what turns text into its tokens; None for all others.
    """

    run: Run
    task: str
    network: nn.Module
    outputs: tuple[str, ...]
    golden: Golden
    fusion_error: float
    stride: int = 1
    logit_scale: float | None = None
    tokenizer: SimpleTokenizer | None = None

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the images it is exported for."""
        height, width = self.golden["input"].shape[1:3]
        return height, width

    def golden_as_taken(self, taken: TensorSpec) -> Golden:
        """The golden examples with inputs in the form in which an exported model takes them."""
        return {**self.golden, "input": as_taken(self.golden["input"], taken)}

    def predict(self, inputs: npt.NDArray[Any]) -> Golden:
        """PyTorch's outputs by name; `inputs` as in `golden`."""
        return predict(self.network, inputs, self.outputs)


def as_taken(inputs: npt.NDArray[Any], taken: TensorSpec) -> npt.NDArray[Any]:
    """Golden inputs in the form in which a model takes them: uint8 pixels, float planes in 0..1, or tokens."""
    return unit_planes(inputs) if taken.dtype == "float32" else inputs.astype(taken.dtype)


def fuse_exactly(model: nn.Module, folder: Path) -> nn.Module:
    """Fuse, and refuse if anything is left to fold."""
    fused = fuse_model(model)
    if left := unfused_modules(fused):
        raise ValueError(f"{folder}: fusion: {len(left)} modules left unfused: {', '.join(left[:5])}")
    return fused


def require_multiples(size_px: tuple[int, ...], stride: int) -> None:
    """Raises ValueError if a height or width is no multiple of the encoder's last stride."""
    if any(side < stride or side % stride for side in size_px):
        found = " ".join(map(str, size_px))
        raise ValueError(f"--size-px: found {found}, expected multiples of {stride} (the encoder's last stride)")


def golden_examples(
    fused: nn.Module, unfused: nn.Module, images: npt.NDArray[np.uint8], names: tuple[str, ...], folder: Path
) -> tuple[Golden, float]:
    """The golden examples of a fused network on uint8 [N,H,W,3], and the relative error of fusion in the first output.

    Raises:
        ValueError: the error is above FUSION_TOLERANCE.
    """
    golden = {"input": images, **predict(fused, images, names)}
    error = relative_error(golden[names[0]], predict(unfused, images, names)[names[0]])
    if not error <= FUSION_TOLERANCE:
        raise ValueError(f"{folder}: fusion: relative error {error:.1e}, expected at most {FUSION_TOLERANCE:.0e}; "
                         f"nothing was written")  # fmt: skip
    return golden, error


@torch.inference_mode()
def predict(
    network: nn.Module, inputs: npt.NDArray[Any], names: tuple[str, ...], device: torch.device | str = "cpu"
) -> Golden:
    """Outputs of a network by name, computed one input at a time; `inputs` as in `Prepared.golden`."""
    module = FromPixels(network).eval() if inputs.dtype == np.uint8 else network
    answers = [module(torch.from_numpy(item[None].copy()).to(device)) for item in inputs]
    return {name: torch.cat([answer[i] for answer in answers]).cpu().numpy() for i, name in enumerate(names)}
