"""How far an artifact may be from PyTorch, wherever it runs: the one table of tolerances."""

# Relative error of the first output. ONNX Runtime computes an fp16 graph in fp32 between the roundings; the Core ML
# programs are run with every operation rounded.
TOLERANCE = {("onnx", "fp32"): 1e-4, ("onnx", "fp16"): 1e-2, ("coreml", "fp32"): 1e-4, ("coreml", "fp16"): 2e-2}
COMPRESSED = 0.5  # a last line: what compression may cost is judged by the task's metric, when it is exported


def tolerance(runtime: str, precision: str) -> float:
    """Largest relative error of the first output that passes."""
    return TOLERANCE.get((runtime, precision), COMPRESSED)
