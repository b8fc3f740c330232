"""Core ML programs as functions, run operator by operator without Core ML."""

from pathlib import Path
from typing import Literal

from mobileclip_dense.artifact.artifact import Artifact
from mobileclip_dense.deploy.coreml.mil.executor import run_program
from mobileclip_dense.deploy.coreml.mil.program import MilProgram, load_program
from mobileclip_dense.runtime.predictor import Predictor


def load_model(path: Path, artifact: Artifact) -> Predictor:
    """The program of an artifact, as its target registers it.

    Raises:
        FileNotFoundError, ValueError: see `load_program`.
    """
    return program_predictor(load_program(path), artifact)


def program_predictor(program: MilProgram, artifact: Artifact) -> Predictor:
    """The program as a function from what it takes to its outputs by name, in fp32 or emulated fp16 as declared.

    w8a8 is run in fp32: coremltools scales its quantized additions for a backend that fuses them into one operation;
    between the operations of an emulation they overflow fp16.
    """
    precision: Literal["fp32", "fp16"] = "fp32" if artifact.precision in ("fp32", "w8a8") else "fp16"
    if artifact.input.dtype == "uint8":
        return lambda image: run_program(program, image, precision=precision)
    return lambda tokens: run_program(program, {artifact.input.name: tokens}, precision=precision)
