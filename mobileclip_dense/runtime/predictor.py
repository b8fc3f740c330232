"""Artifacts of any target behind one function: what the model takes in, its outputs by name out."""

from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import numpy.typing as npt

from mobileclip_dense.artifact.artifact import Artifact, load_artifact
from mobileclip_dense.artifact.targets import TARGETS

Predictor = Callable[[npt.NDArray[Any]], dict[str, npt.NDArray[np.generic]]]
"""Pixels uint8 [1,H,W,3], or what else `Artifact.input` says -> outputs by name."""


def load_predictor(folder: Path) -> tuple[Artifact, Predictor]:
    """A verified artifact and its model, in the runtime that its target registers.

    Raises:
        FileNotFoundError, ValueError: see `load_artifact`, or the model cannot be loaded.
    """
    artifact = load_artifact(folder)
    return artifact, resolve_name(TARGETS[artifact.runtime].model)(folder / artifact.model_file, artifact)
