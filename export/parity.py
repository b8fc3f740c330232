"""How far a model is from PyTorch, and how far it may be."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy import Predictor
from mobileclip_dense.contract.artifact import Artifact
from mobileclip_dense.contract.tolerance import tolerance

Golden = dict[str, npt.NDArray[Any]]


def relative_error(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Norm of the difference over the norm of `expected`, in float64; NaN where `found` is not finite."""
    a, b = found.astype(np.float64), expected.astype(np.float64)
    return float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(b)), 1e-30)


def require_close(where: Path, runtime: str, precision: str, output: str, error: float) -> None:
    """Raises ValueError if a relative error is above the tolerance of a runtime and precision, or not a number."""
    allowed = tolerance(runtime, precision)
    if not error <= allowed:
        raise ValueError(f"{where}: {runtime} {precision}: {output}: relative error {error:.1e} to PyTorch, expected "
                         f"at most {allowed:.0e}; the exported model is wrong")  # fmt: skip


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
