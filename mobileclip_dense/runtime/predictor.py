"""Artifacts of any target behind one interface."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from mobileclip_dense.artifact.artifact import Artifact, load_artifact
from mobileclip_dense.artifact.targets import TARGETS

Predictor = Callable[[npt.NDArray[Any]], dict[str, npt.NDArray[np.generic]]]
"""Pixels uint8 [1,H,W,3], or whatever `Artifact.input` says -> outputs by name."""


class Report(Protocol):
    """A dataclass about the contents of a model file, written beside it as JSON.

    Attributes:
        file_name: name of the JSON file.
    """

    file_name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def summary(self) -> str:
        """One line for the terminal."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """An artifact, or a run described like one, with its model in a runtime.

    Attributes:
        folder: of the artifact or the run. predict: the model.
        backend: runtime and device, such as "onnxruntime CPUExecutionProvider".
        num_threads: threads of ONNX Runtime; None: chosen by the runtime.
    """

    folder: Path
    artifact: Artifact
    predict: Predictor
    backend: str
    num_threads: int | None = None


def load_predictor(folder: Path) -> tuple[Artifact, Predictor]:
    """Load a verified artifact with its model, in the runtime that its target registers.

    Raises:
        FileNotFoundError, ValueError: see `load_artifact`, or the model cannot be loaded.
    """
    artifact = load_artifact(folder)
    return artifact, resolve_name(TARGETS[artifact.runtime].model)(folder / artifact.model_file, artifact)


def load_model(folder: Path, *, num_threads: int | None = None, device: str = "cpu") -> LoadedModel:
    """Load a verified artifact for use, in a runtime of this machine.

    Args:
        num_threads: threads of ONNX Runtime; None: one for each core.
        device: execution provider of ONNX Runtime, see `find_provider`; other runtimes choose their device themselves.

    Raises:
        FileNotFoundError, ValueError: see `load_artifact`; the runtime or the provider is not available here.
    """
    artifact = load_artifact(folder)
    target = TARGETS[artifact.runtime]
    if target.platform not in (None, sys.platform):
        raise ValueError(f"{folder}: runtime: found {artifact.runtime}, which runs on {target.platform} only (this is "
                         f"{sys.platform}); use the ONNX artifact here. `mobileclip-dense verify` checks this one on "
                         f"any system")  # fmt: skip
    if artifact.runtime == "onnx":
        from mobileclip_dense.runtime.onnx_model import OnnxModel, find_provider

        model = OnnxModel(folder / artifact.model_file, num_threads, find_provider(device))
        backend = f"onnxruntime {model.session.get_providers()[0]}"
        return LoadedModel(folder=folder, artifact=artifact, predict=model, backend=backend, num_threads=num_threads)
    predict = resolve_name(target.model)(folder / artifact.model_file, artifact)
    return LoadedModel(folder=folder, artifact=artifact, predict=predict, backend=artifact.runtime)


def inspect_model(folder: Path, artifact: Artifact) -> Report | None:
    """Read the model file of an artifact back; None if its target has nothing to report.

    Raises:
        FileNotFoundError, ValueError: the model cannot be read, or does not match artifact.json.
    """
    target = TARGETS[artifact.runtime]
    return None if target.inspect is None else resolve_name(target.inspect)(folder / target.model_file, artifact)
