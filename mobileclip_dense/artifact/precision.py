"""The registry of precisions: number formats, and the allowed difference of an artifact to PyTorch."""

from dataclasses import dataclass

# Minimum share of pixels, in percent, whose class has the best score in the model's own logits. Scores that differ by
# less than NEAR_TIE times the root mean square of the logits count as equal, since fp16 may round them to either side.
MIN_LOGITS_AGREEMENT_PERCENT = 99.9
NEAR_TIE = 0.01


@dataclass(frozen=True, kw_only=True)
class Precision:
    """A precision of a target.

    Attributes:
        runtime: runtime of the target.
        name: name in artifact.json and on the command line.
        description: description for help texts.
        max_relative_error: maximum relative error of float outputs. For compressed models this is only a safety limit:
            their accuracy is checked with the task's metric during export.
        min_agreement_percent: minimum share of pixels with PyTorch's class. Measured: fp32 100, fp16 99.96, int8 98.9.
        full: precision of the uncompressed model, fp32 or fp16.
        compress: `module:function` that compresses that model; None: no compression. For ONNX, it is called with the
            exporter, the network, the draft of the artifact and the path of the model, which it replaces, and returns
            figures to record. For Core ML, it is called with coremltools' model, this precision and calibration images
            uint8 [N,H,W,3], and returns the compressed model.
        witness: operators that show that a Core ML program is compressed; it must contain at least one of them.
        gated: whether the driver measures the accuracy on held-out images and rejects a model that loses too much. int8
            of ONNX is checked while its nodes are chosen.
        needs_images: whether it is calibrated on images, which excludes text towers.
        oldest_system: oldest deployment target that supports it; None if the target has none.
    """

    runtime: str
    name: str
    description: str
    max_relative_error: float = 0.5
    min_agreement_percent: float = 50.0
    full: str = "fp16"
    compress: str | None = None
    witness: tuple[str, ...] = ()
    gated: bool = True
    needs_images: bool = False
    oldest_system: str | None = None


PRECISIONS: dict[tuple[str, str], Precision] = {}


def register_precision(precision: Precision) -> None:
    """Register a precision.

    Raises:
        ValueError: another precision of the target has this name.
    """
    key = (precision.runtime, precision.name)
    if PRECISIONS.setdefault(key, precision) != precision:
        raise ValueError(f"precision: found {precision.name!r}, which {precision.runtime} has already; choose another "
                         f"name")  # fmt: skip


def find_precision(runtime: str, name: str) -> Precision:
    """The precision of a target by name.

    Raises:
        ValueError: the target has no such precision. The message lists those it has.
    """
    if (runtime, name) not in PRECISIONS:
        raise ValueError(f"precision: found {name!r}, expected one of {', '.join(precision_names(runtime))}")
    return PRECISIONS[runtime, name]


def precision_names(runtime: str) -> list[str]:
    """Names of the precisions of a target, in the order of registration."""
    return [name for of, name in PRECISIONS if of == runtime]


_ONNX, _COREML = "mobileclip_dense.deploy.onnx", "mobileclip_dense.deploy.coreml.compress"
_PALETTE = ("constexpr_lut_to_dense",)

# ONNX Runtime computes an fp16 graph in fp32 between roundings. Core ML programs are run with every result rounded.
for _precision in (
    Precision(runtime="onnx", name="fp32", description="float32", max_relative_error=1e-4, min_agreement_percent=99.9,
              full="fp32", gated=False),
    Precision(runtime="onnx", name="fp16", description="float16", max_relative_error=1e-2, min_agreement_percent=99.0,
              gated=False),
    Precision(runtime="onnx", name="int8", full="fp32", gated=False, needs_images=True,
              compress=f"{_ONNX}.int8:to_int8",
              description="static, per channel, calibrated on the run's training images, for the nodes that it is "
                          "measured to speed up"),
    Precision(runtime="coreml", name="fp16", description="float16", max_relative_error=2e-2, min_agreement_percent=99.0,
              oldest_system="ios15"),
    Precision(runtime="coreml", name="fp32", description="float32", max_relative_error=1e-4, min_agreement_percent=99.9,
              full="fp32", gated=False, oldest_system="ios15"),
    # constexpr operators require iOS 16, quantized activations iOS 17.
    Precision(runtime="coreml", name="w8", description="fp16 with int8 weights, per channel", oldest_system="ios16",
              compress=f"{_COREML}:quantize_weights",
              witness=("constexpr_affine_dequantize", "constexpr_blockwise_shift_scale")),
    Precision(runtime="coreml", name="p8", description="fp16 with weight palettes of 256 values", oldest_system="ios16",
              compress=f"{_COREML}:palettize", witness=_PALETTE),
    Precision(runtime="coreml", name="p6", description="palettes of 64 values", oldest_system="ios16",
              compress=f"{_COREML}:palettize", witness=_PALETTE),
    Precision(runtime="coreml", name="p4", description="palettes of 16 values", oldest_system="ios16",
              compress=f"{_COREML}:palettize", witness=_PALETTE),
    Precision(runtime="coreml", name="w8a8", description="int8 weights and activations", needs_images=True,
              oldest_system="ios17", compress=f"{_COREML}:quantize_weights_and_activations", witness=("quantize",)),
):  # fmt: skip
    register_precision(_precision)
