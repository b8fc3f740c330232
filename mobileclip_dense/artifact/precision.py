"""The registry of precisions: how numbers are stored, and how far from PyTorch an artifact may then be."""

from dataclasses import dataclass

# Smallest share of pixels, in percent, whose class has the best score by the model's own logits. Scores that are closer
# than NEAR_TIE times the root mean square of the logits count as equal: fp16 rounds them to either side.
MIN_LOGITS_AGREEMENT_PERCENT = 99.9
NEAR_TIE = 0.01


@dataclass(frozen=True, kw_only=True)
class Precision:
    """One precision of one target.

    Attributes:
        runtime: of the target. name: as in artifact.json and on the command line.
        description: what it is, for help texts.
        max_relative_error: of an output of floats. Of compressed models a last line: what compression may cost is
            judged by the task's metric, when the model is exported.
        min_agreement_percent: smallest share of pixels whose class is PyTorch's. Measured: fp32 100, fp16 99.96,
            int8 98.9.
        full: the precision of the graph that it is made from, fp32 or fp16.
        gated: the driver measures what it costs on held-out images and refuses too much. int8 of ONNX is judged while
            its nodes are chosen.
        needs_images: it is calibrated on images, so that text towers cannot have it.
        oldest_system: first deployment target that can store it; None where a target has none.
    """

    runtime: str
    name: str
    description: str
    max_relative_error: float = 0.5
    min_agreement_percent: float = 50.0
    full: str = "fp16"
    gated: bool = True
    needs_images: bool = False
    oldest_system: str | None = None


PRECISIONS: dict[tuple[str, str], Precision] = {}


def register_precision(precision: Precision) -> None:
    """Add a precision.

    Raises:
        ValueError: its target has another one of that name.
    """
    key = (precision.runtime, precision.name)
    if PRECISIONS.setdefault(key, precision) != precision:
        raise ValueError(f"precision: found {precision.name!r}, which {precision.runtime} has already; choose another "
                         f"name")  # fmt: skip


def find_precision(runtime: str, name: str) -> Precision:
    """The precision of that name.

    Raises:
        ValueError: the target has none of that name; the message lists those it has.
    """
    if (runtime, name) not in PRECISIONS:
        raise ValueError(f"precision: found {name!r}, expected one of {', '.join(precision_names(runtime))}")
    return PRECISIONS[runtime, name]


def precision_names(runtime: str) -> list[str]:
    """Names of the precisions of a target, in the order in which they were registered."""
    return [name for of, name in PRECISIONS if of == runtime]


# ONNX Runtime computes an fp16 graph in fp32 between the roundings; Core ML programs are run with every one rounded.
# constexpr operators came with iOS 16, quantized activations with iOS 17.
for _precision in (
    Precision(runtime="onnx", name="fp32", description="float32", max_relative_error=1e-4, min_agreement_percent=99.9,
              full="fp32", gated=False),
    Precision(runtime="onnx", name="fp16", description="float16", max_relative_error=1e-2, min_agreement_percent=99.0,
              gated=False),
    Precision(runtime="onnx", name="int8", full="fp32", gated=False, needs_images=True,
              description="static, per channel, calibrated on the run's own training images, on the nodes where it is "
                          "measured to pay"),
    Precision(runtime="coreml", name="fp16", description="float16", max_relative_error=2e-2, min_agreement_percent=99.0,
              oldest_system="ios15"),
    Precision(runtime="coreml", name="fp32", description="float32", max_relative_error=1e-4, min_agreement_percent=99.9,
              full="fp32", gated=False, oldest_system="ios15"),
    Precision(runtime="coreml", name="w8", description="fp16 with int8 weights, per channel", oldest_system="ios16"),
    Precision(runtime="coreml", name="p8", description="fp16 with palettes of 256 values", oldest_system="ios16"),
    Precision(runtime="coreml", name="p6", description="of 64", oldest_system="ios16"),
    Precision(runtime="coreml", name="p4", description="of 16", oldest_system="ios16"),
    Precision(runtime="coreml", name="w8a8", description="int8 weights and activations", needs_images=True,
              oldest_system="ios17"),
):  # fmt: skip
    register_precision(_precision)
