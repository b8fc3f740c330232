"""Predictors for Core ML programs, run operator by operator without Core ML."""

from pathlib import Path
from typing import Literal

from mobileclip_dense.artifact.artifact import Artifact
from mobileclip_dense.artifact.precision import find_precision
from mobileclip_dense.deploy.coreml.mil.executor import run_program
from mobileclip_dense.deploy.coreml.mil.program import MilProgram, load_program
from mobileclip_dense.runtime.predictor import Predictor


def load_program_predictor(path: Path, artifact: Artifact) -> Predictor:
    """Load the program of an artifact.

    Raises:
        FileNotFoundError, ValueError: see `load_program`.
    """
    return program_predictor(load_program(path), artifact)


def program_predictor(program: MilProgram, artifact: Artifact) -> Predictor:
    """The program as a function from its input to its outputs by name, in fp32 or emulated fp16 as the artifact says.

    Programs with quantized activations run in fp32: coremltools scales quantized additions for backends that fuse them,
    and without fusion they overflow fp16.
    """
    known = find_precision("coreml", artifact.precision)
    precision: Literal["fp32", "fp16"] = "fp32" if known.full == "fp32" or known.needs_images else "fp16"
    if artifact.input.dtype == "uint8":
        return lambda image: run_program(program, image, precision=precision)
    return lambda tokens: run_program(program, {artifact.input.name: tokens}, precision=precision)
