"""How far a model is from PyTorch, and how far it may be: the one table of tolerances."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy import Predictor
from mobileclip_dense.contract.artifact import Artifact

# Relative error of the first output. ONNX Runtime computes an fp16 graph in fp32 between the roundings; the Core ML
# programs are run with every operation rounded.
_TOLERANCE = {("onnx", "fp32"): 1e-4, ("onnx", "fp16"): 1e-2, ("coreml", "fp32"): 1e-4, ("coreml", "fp16"): 2e-2}
_COMPRESSED = 0.5  # a last line: what compression may cost is judged by the task's metric, in gate.py

Golden = dict[str, npt.NDArray[Any]]


def relative_error(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Norm of the difference over the norm of `expected`, in float64; NaN where `found` is not finite."""
    a, b = found.astype(np.float64), expected.astype(np.float64)
    return float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(b)), 1e-30)


def require_close(where: Path, runtime: str, precision: str, output: str, error: float) -> None:
    """Raises ValueError if a relative error is above the tolerance of a runtime and precision, or not a number."""
    tolerance = _TOLERANCE.get((runtime, precision), _COMPRESSED)
    if not error <= tolerance:
        raise ValueError(f"{where}: {runtime} {precision}: {output}: relative error {error:.1e} to PyTorch, expected "
                         f"at most {tolerance:.0e}; the exported model is wrong")  # fmt: skip


def compare_with_golden(where: Path, artifact: Artifact, golden: Golden, predictor: Predictor) -> dict[str, float]:
    """Relative error of the first output and, for segmentation, agreement of the class maps in percent.

    Raises:
        ValueError: the relative error is above the tolerance of the artifact's precision.
    """
    answers = [predictor(item[None]) for item in golden["input"]]
    first = artifact.outputs[0].name
    error = relative_error(np.concatenate([answer[first] for answer in answers]), golden[first])
    require_close(where, artifact.runtime, artifact.precision, first, error)
    figures = {f"{artifact.precision}_relative_error": error}
    if artifact.task == "segment":
        maps = np.concatenate([answer["class_map"] for answer in answers])
        figures["golden_agreement_percent"] = float((maps == golden["class_map"]).mean() * 100)
    return figures
