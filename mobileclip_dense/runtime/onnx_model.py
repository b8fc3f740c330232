"""The runtime that executes ONNX artifacts. NumPy in, NumPy out; no torch, so apps and exporters share it."""

import json
import statistics
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from mobileclip_dense.artifact.artifact import Artifact, load_artifact
from mobileclip_dense.artifact.preprocess import unit_planes

CPU_PROVIDER = "CPUExecutionProvider"


class OnnxModel:
    """A model in ONNX Runtime.

    Args:
        path: the .onnx file. num_threads: threads within an operator; None: one for each core.
        provider: what runs the operators, see `find_provider`; what it does not know, the CPU runs.

    Raises:
        ValueError: the provider is built in but does not start, for want of a device or a driver.
    """

    def __init__(self, path: Path, num_threads: int | None = None, provider: str = CPU_PROVIDER):
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # Threads that go on spinning after a run would slow down whatever runs next, another session above all.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if num_threads is not None:
            options.intra_op_num_threads = num_threads
        self.num_threads = num_threads
        self.session = ort.InferenceSession(str(path), options, providers=list(dict.fromkeys([provider, CPU_PROVIDER])))
        if (running := self.session.get_providers()[0]) != provider:
            raise ValueError(f"--provider: {provider} does not start on this machine (a device or driver is missing); "
                             f"{running} does")  # fmt: skip
        self.input_name = self.session.get_inputs()[0].name
        self.takes_float = self.session.get_inputs()[0].type == "tensor(float)"
        self.output_names = [output.name for output in self.session.get_outputs()]

    def __call__(self, taken: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.generic]]:
        """Outputs by name, from what the model takes; uint8 [B,H,W,3] does for a model of float [B,3,H,W] too."""
        if self.takes_float and taken.dtype == np.uint8:
            taken = unit_planes(taken)
        return dict(zip(self.output_names, self.session.run(None, {self.input_name: taken}), strict=True))


def find_provider(name: str) -> str:
    """The full name of an execution provider of this ONNX Runtime: cuda, CUDA and CUDAExecutionProvider are the same.

    Raises:
        ValueError: unknown, or not built into this ONNX Runtime; the message lists those that are.
    """
    available = {full.removesuffix("ExecutionProvider").lower(): full for full in ort.get_available_providers()}
    found = available.get(name.lower().removesuffix("executionprovider"))
    if found is None:
        raise ValueError(f"--provider: found {name}, expected one of {', '.join(available)}; others come with other "
                         f"builds of ONNX Runtime")  # fmt: skip
    return found


def load_model(path: Path, artifact: Artifact) -> OnnxModel:
    """The model of an artifact, as its target registers it."""
    return OnnxModel(path)


def load_onnx_artifact(folder: Path, num_threads: int | None = None) -> tuple[Artifact, OnnxModel]:
    """Load a verified ONNX artifact with its session.

    Raises:
        FileNotFoundError, ValueError: see `load_artifact` and `OnnxModel`; or the artifact is for another runtime.
    """
    artifact = load_artifact(folder)
    if artifact.runtime != "onnx":
        raise ValueError(f"{folder}: runtime: found {artifact.runtime}, expected onnx")
    return artifact, OnnxModel(folder / artifact.model_file, num_threads)


def profile_ms(path: Path, taken: npt.NDArray[Any], num_runs: int = 5) -> dict[str, float]:
    """Median kernel time by node as ONNX Runtime names it after its own rewriting, milliseconds."""
    with TemporaryDirectory() as scratch:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = f"{scratch}/profile"
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for _ in range(num_runs):
            session.run(None, {session.get_inputs()[0].name: taken})
        events = json.loads(Path(session.end_profiling()).read_text())
    times = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"].removesuffix("_kernel_time")].append(event["dur"] / 1e3)
    return {name: statistics.median(kept) for name, kept in times.items()}
