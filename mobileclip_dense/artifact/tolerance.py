"""How far an artifact may be from PyTorch, wherever it runs: the one table of tolerances."""

# Largest relative error of an output of floats. ONNX Runtime computes an fp16 graph in fp32 between the roundings; the
# Core ML programs are run with every operation rounded.
TOLERANCE = {("onnx", "fp32"): 1e-4, ("onnx", "fp16"): 1e-2, ("coreml", "fp32"): 1e-4, ("coreml", "fp16"): 2e-2}
COMPRESSED = 0.5  # a last line: what compression may cost is judged by the task's metric, when it is exported

# Smallest share of pixels, in percent, whose class is PyTorch's. Measured: fp32 100, fp16 99.96, int8 98.9.
MIN_AGREEMENT_PERCENT = {"fp32": 99.9, "fp16": 99.0}
COMPRESSED_AGREEMENT_PERCENT = 50.0  # a last line, too

# Smallest share of pixels, in percent, whose class has the best score by the model's own logits. Scores that are closer
# than NEAR_TIE times the root mean square of the logits count as equal: fp16 rounds them to either side.
MIN_LOGITS_AGREEMENT_PERCENT = 99.9
NEAR_TIE = 0.01


def tolerance(runtime: str, precision: str) -> float:
    """Largest relative error of an output of floats that passes."""
    return TOLERANCE.get((runtime, precision), COMPRESSED)


def min_agreement_percent(precision: str) -> float:
    """Smallest share of pixels with PyTorch's class, in percent, that passes."""
    return MIN_AGREEMENT_PERCENT.get(precision, COMPRESSED_AGREEMENT_PERCENT)
