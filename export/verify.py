"""`python -m export.verify ARTIFACT`: is the artifact whole, and does it still compute what PyTorch computed?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from benchmarks.runtimes import load_onnx_artifact
from export.prepare import relative_error
from export.to_coreml import verify_program
from export.to_onnx import FP32_TOLERANCE
from mobileclip_dense.command import run_with_settings
from mobileclip_dense.contract.artifact import load_artifact, load_golden

INT8_MIN_AGREEMENT_PERCENT = 90.0
INT8_DEPTH_TOLERANCE = 0.1


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Check an artifact: hashes of all files, then its outputs on golden.npz (ONNX) or its program (Core ML)."""

    artifact: Annotated[Path, tyro.conf.Positional]
    """Artifact folder."""


def verify(config: VerifyConfig) -> dict[str, float]:
    """Print and return the distance to PyTorch.

    Raises:
        FileNotFoundError, ValueError: a file is missing or altered, or the distance is above the tolerance.
    """
    artifact = load_artifact(config.artifact)
    if artifact.runtime == "coreml":
        operations = verify_program(config.artifact / artifact.model_file, artifact)
        print(f"{config.artifact}: files and program as described ({sum(operations.values())} operations); numbers "
              f"need a Mac")  # fmt: skip
        return {}
    _, model = load_onnx_artifact(config.artifact)
    golden = load_golden(config.artifact)
    answers = [model(image[None]) for image in golden["input"]]
    first = artifact.outputs[0].name
    found = np.concatenate([answer[first] for answer in answers])
    figures = {f"{first}_relative_error": relative_error(found, golden[first])}
    if artifact.task == "segment":
        maps = np.concatenate([answer["class_map"] for answer in answers])
        figures["class_map_agreement_percent"] = float((maps == golden["class_map"]).mean() * 100)
    _require_within_tolerance(config.artifact, artifact.precision, artifact.task, figures, first)
    print(f"{config.artifact}: " + ", ".join(f"{name} {value:.3g}" for name, value in figures.items()))
    return figures


def _require_within_tolerance(folder: Path, precision: str, task: str, figures: dict[str, float], first: str) -> None:
    if precision == "int8" and task == "segment":
        agreement = figures["class_map_agreement_percent"]
        if not agreement >= INT8_MIN_AGREEMENT_PERCENT:
            raise ValueError(f"{folder}: class map agreement {agreement:.1f} %, expected at least "
                             f"{INT8_MIN_AGREEMENT_PERCENT:.0f} %")  # fmt: skip
        return
    tolerance = FP32_TOLERANCE if precision == "fp32" else INT8_DEPTH_TOLERANCE
    error = figures[f"{first}_relative_error"]
    if not error <= tolerance:
        raise ValueError(f"{folder}: {first}: relative error {error:.1e}, expected at most {tolerance:.0e}")


if __name__ == "__main__":
    run_with_settings(VerifyConfig, verify, "python -m export.verify")
