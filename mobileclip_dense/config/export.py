"""Settings of export and verification."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mobileclip_dense.artifact.precision import PRECISIONS, find_precision
from mobileclip_dense.config.check import MAX_SIDE_PX, require_numbers
from mobileclip_dense.config.help import RegistryDoc

Pixels = Literal["uint8", "float"]
Flexible = Literal["none", "batch", "size"]
System = Literal["ios15", "ios16", "ios17", "ios18"]


@dataclass(frozen=True, kw_only=True)
class OnnxProfile:
    """Defaults of an ONNX export for one use; flags override them one by one."""

    precision: tuple[str, ...]
    pixels: Pixels = "uint8"  # what a camera, a canvas and Pillow give, at a quarter of the bytes
    flexible: Flexible = "none"  # a runtime plans memory and kernels for shapes that it knows
    opset: int = 20  # the first with a Gelu node; below it a GELU is five nodes, and int8 slower than fp32


@dataclass(frozen=True, kw_only=True)
class CoreMLProfile:
    """Defaults of a Core ML export for one use. Shapes are always fixed (Neural Engine)."""

    precision: tuple[str, ...]
    target: System


ONNX_PROFILES = {
    "web": OnnxProfile(precision=("fp32",)),  # onnxruntime-web's WASM kernels are fp32
    "cpu-int8": OnnxProfile(precision=("int8",)),
}
COREML_PROFILES = {
    "iphone": CoreMLProfile(precision=("fp16",), target="ios16"),  # the Neural Engine computes in fp16
}


def _precisions_help(runtime: str) -> str:
    known = [precision for (of, _), precision in PRECISIONS.items() if of == runtime]
    return "One artifact per precision. " + "; ".join(f"{one.name}: {one.description}" for one in known) + "."


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings that all targets share."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a complete `mobileclip-dense finetune` or `pretrain` run."""
    size_px: tuple[int, int] | None = None
    """Height and width of the model's input, multiples of 32; None: what the run was trained with."""
    allow_accuracy_drop: bool = False
    """Write an artifact even if it loses more accuracy than is tolerated (0.5 points of mIoU, 2 % of RMSE)."""
    out: Path = Path("artifacts")
    """Folder in which the folders of the artifacts are created."""
    force: bool = False
    """Replace artifacts that exist."""

    def __post_init__(self) -> None:
        require_numbers(self, "size_px", at_least=32, at_most=MAX_SIDE_PX)


@dataclass(frozen=True, kw_only=True)
class ToOnnxConfig(ExportConfig):
    """Export a run to ONNX, fused and with its preprocessing inside, and compare it with PyTorch. A fine-tuning run
    gives one artifact per precision; a pretraining run gives an image tower and a text tower per precision."""

    profile: Literal["web", "cpu-int8"] = "web"
    """web: fp32, uint8 pixels, fixed shape. cpu-int8: the same in int8. The flags below override the profile."""
    precision: Annotated[tuple[str, ...] | None, RegistryDoc(partial(_precisions_help, "onnx"))] = None
    pixels: Pixels | None = None
    """uint8: RGB [B,H,W,3], 0..255; float: RGB [B,3,H,W], 0..1."""
    flexible: Flexible | None = None
    """none: fixed shape; batch: any batch size; size: any height and width that are multiples of 32."""
    allow_slower: bool = False
    """Write an int8 artifact even if it is not faster than fp32 on this machine."""

    def resolved(self) -> OnnxProfile:
        """The profile with the flags that were given.

        Raises:
            ValueError: the combination does not exist, or `precision` is empty or unknown.
        """
        base = ONNX_PROFILES[self.profile]
        profile = dataclasses.replace(
            base,
            precision=_known("onnx", self.precision, base.precision),
            pixels=self.pixels or base.pixels,
            flexible=self.flexible or base.flexible,
        )
        if "int8" in profile.precision and profile.flexible != "none":
            raise ValueError(f"--flexible: found {profile.flexible} with int8, expected none: what pays in int8 is "
                             f"measured for one shape")  # fmt: skip
        return profile


@dataclass(frozen=True, kw_only=True)
class ToCoreMLConfig(ExportConfig):
    """Export a run to Core ML .mlpackages: fused, with image input and a fixed shape. Each package is read back,
    executed operator by operator (no Mac is needed), and compared with PyTorch. A pretraining run gives an image tower
    and a text tower."""

    profile: Literal["iphone"] = "iphone"
    """iphone: fp16 for iOS 16 and later. The flags below override the profile."""
    precision: Annotated[tuple[str, ...] | None, RegistryDoc(partial(_precisions_help, "coreml"))] = None
    target: System | None = None
    """Oldest system that can load the package. Compressed weights need ios16, w8a8 needs ios17."""

    def resolved(self) -> CoreMLProfile:
        """The profile with the flags that were given.

        Raises:
            ValueError: the target cannot store a precision, or `precision` is empty or unknown.
        """
        base = COREML_PROFILES[self.profile]
        profile = CoreMLProfile(
            precision=_known("coreml", self.precision, base.precision), target=self.target or base.target
        )
        for name in profile.precision:
            oldest = find_precision("coreml", name).oldest_system
            if oldest is not None and profile.target < oldest:
                raise ValueError(f"--target: found {profile.target} with {name}, expected {oldest} or later")
        return profile


def _known(runtime: str, given: tuple[str, ...] | None, default: tuple[str, ...]) -> tuple[str, ...]:
    if given == ():
        raise ValueError("--precision: found none, expected at least one, or no such flag")
    try:
        return tuple(find_precision(runtime, name).name for name in given or default)
    except ValueError as error:
        raise ValueError(f"--{error}") from None


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Check an artifact: the hashes of its files, then its outputs on golden.npz against those of PyTorch. ONNX runs in
    ONNX Runtime. Core ML runs in Core ML on a Mac; elsewhere the program is executed operator by operator."""

    artifact: Annotated[str, tyro.conf.Positional]
    """Artifact folder, sample:NAME or hf-hub:ORG/NAME."""
    data: Path | None = None
    """Labelled data set, as for `mobileclip-dense finetune --data`: measure the metric on its held-out images."""
    max_images: int = 200
    """Largest number of held-out images to evaluate."""
    zero_is_other: bool = False
    """Label 0 is "other" and ignored, label 1 is the first class, as in ADE20K (which is recognised by itself)."""
    depth_units_per_m: float = 1000.0
    """Depth: units of the PNG per metre (1000: millimetres)."""
    bisect: float | None = None
    """Core ML: report the first operator whose fp16 output differs from fp32 by more than this relative error, such as
    0.01."""

    def __post_init__(self) -> None:
        require_numbers(self, "max_images", at_least=1)
        require_numbers(self, "depth_units_per_m", "bisect", above=0)
