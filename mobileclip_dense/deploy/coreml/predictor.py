"""Core ML models as functions: Core ML itself runs them on a Mac, the MIL executor elsewhere."""

import sys
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import numpy.typing as npt
from PIL import Image

from mobileclip_dense.artifact.artifact import Artifact
from mobileclip_dense.deploy.coreml.mil.predictor import load_program_predictor
from mobileclip_dense.runtime.predictor import Predictor


def load_model(path: Path, artifact: Artifact) -> Predictor:
    """Load the model of an artifact, as its target registers it.

    Raises:
        FileNotFoundError, ValueError: the package cannot be read.
    """
    return load_with_core_ml(path, artifact) if sys.platform == "darwin" else load_program_predictor(path, artifact)


def load_with_core_ml(path: Path, artifact: Artifact) -> Predictor:
    """Load a package in Core ML, which chooses the compute units. Needs macOS; not run by us on one.

    Raises:
        ValueError: Core ML cannot load the package.
    """
    try:
        model: Any = ct.models.MLModel(str(path))
    except Exception as error:  # Core ML's errors arrive as RuntimeError and plain Exception
        raise ValueError(f"{path}: model: Core ML cannot load this package ({error}); export it for the system of this "
                         f"Mac with --target") from None  # fmt: skip

    def predict(taken: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.generic]]:
        value = Image.fromarray(taken[0]) if artifact.input.dtype == "uint8" else taken
        outputs = model.predict({artifact.input.name: value})
        return {spec.name: np.asarray(outputs[spec.name]).astype(spec.dtype, copy=False) for spec in artifact.outputs}

    return predict
