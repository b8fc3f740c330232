"""What an export is for, in one word: the one table of precision, input, shapes, operator set and target."""

from dataclasses import dataclass
from typing import Literal

OnnxPrecision = Literal["fp32", "fp16", "int8"]
Pixels = Literal["uint8", "float"]
Flexible = Literal["none", "batch", "size"]
Target = Literal["ios15", "ios16", "ios17", "ios18"]
CoreMLPrecision = Literal["fp16", "fp32", "w8", "p8", "p6", "p4", "w8a8"]


@dataclass(frozen=True, kw_only=True)
class OnnxProfile:
    """Settings of `export.to_onnx`; its flags override them one by one."""

    precision: tuple[OnnxPrecision, ...]
    pixels: Pixels = "uint8"  # what a camera, a canvas and Pillow give, at a quarter of the bytes
    flexible: Flexible = "none"  # a runtime plans memory and kernels for shapes that it knows
    opset: int = 20  # the first with a Gelu node; below it a GELU is five nodes, and int8 slower than fp32


@dataclass(frozen=True, kw_only=True)
class CoreMLProfile:
    """Settings of `export.to_coreml`; its flags override them one by one. Shapes are always fixed (Neural Engine)."""

    precision: tuple[CoreMLPrecision, ...]
    target: Target


ONNX_PROFILES = {
    "web": OnnxProfile(precision=("fp32",)),  # onnxruntime-web's WASM kernels are fp32
    "cpu-int8": OnnxProfile(precision=("int8",)),
}
COREML_PROFILES = {
    "iphone": CoreMLProfile(precision=("fp16",), target="ios16"),  # the Neural Engine computes in fp16
}
