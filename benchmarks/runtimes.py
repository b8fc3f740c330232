"""The runtime that executes ONNX artifacts. NumPy in, NumPy out; no torch, so apps and exporters share it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from mobileclip_dense.contract.artifact import Artifact, load_artifact


class OnnxModel:
    """A model in ONNX Runtime on the CPU.

    Args:
        path: the .onnx file. num_threads: threads within an operator; None: one for each core.
    """

    def __init__(self, path: Path, num_threads: int | None = None):
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # Threads that go on spinning after a run would slow down whatever runs next, another session above all.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if num_threads is not None:
            options.intra_op_num_threads = num_threads
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.input_name = self.session.get_inputs()[0].name
        self.output_names = [output.name for output in self.session.get_outputs()]

    def __call__(self, image: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.generic]]:
        """uint8 [1,H,W,3] -> outputs by name."""
        return dict(zip(self.output_names, self.session.run(None, {self.input_name: image}), strict=True))


def load_onnx_artifact(folder: Path, num_threads: int | None = None) -> tuple[Artifact, OnnxModel]:
    """A verified artifact and its session.

    Raises:
        FileNotFoundError, ValueError: see `load_artifact`; or the artifact is for another runtime.
    """
    artifact = load_artifact(folder)
    if artifact.runtime != "onnx":
        raise ValueError(
            f"{folder}: runtime: found {artifact.runtime}, expected onnx; Core ML runs on Apple devices only"
        )
    return artifact, OnnxModel(folder / artifact.model_file, num_threads)
