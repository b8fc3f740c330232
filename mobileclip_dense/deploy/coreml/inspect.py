"""Verification of a saved .mlpackage against its artifact record."""

from pathlib import Path
from typing import Any

import coremltools as ct

from mobileclip_dense.artifact.artifact import Artifact
from mobileclip_dense.artifact.precision import find_precision
from mobileclip_dense.deploy.coreml.mil.program import load_program
from mobileclip_dense.deploy.coreml.neural_engine import NeuralEngineReport, inspect_for_neural_engine

_NOT_FUSED = ("batch_norm", "instance_norm")


def verify_program(package: Path, artifact: Artifact) -> NeuralEngineReport:
    """Read a saved .mlpackage, verify it and report its operations.

    Raises:
        FileNotFoundError, ValueError: it cannot be read, or its inputs, outputs, metadata or operations do not fit
            `artifact`.
    """
    report = inspect_for_neural_engine(load_program(package))
    spec = ct.models.MLModel(str(package), skip_model_load=True).get_spec()
    (taken,) = spec.description.input
    is_image = artifact.input.dtype == "uint8"
    kind = "imageType" if is_image else "multiArrayType"
    _expect(package, "input", (taken.name, taken.type.WhichOneof("Type")), (artifact.input.name, kind))
    if is_image:
        found = (taken.type.imageType.height, taken.type.imageType.width)
        _expect(package, "input size", found, artifact.input_size_px)
    outputs = [output.name for output in spec.description.output]
    _expect(package, "outputs", sorted(outputs), sorted(output.name for output in artifact.outputs))
    metadata = dict(spec.description.metadata.userDefined)
    for name, value in artifact.summary().items():
        _expect(package, f"metadata {name}", metadata.get(name), value)
    _expect(package, "normalisations", [name for name in _NOT_FUSED if name in report.operations], [])
    witnesses = find_precision("coreml", artifact.precision).witness
    if witnesses and not any(name in report.operations for name in witnesses):
        raise ValueError(f"{package}: {artifact.precision}: found no {' or '.join(witnesses)}, expected at least one; "
                         f"the weights are too small to be compressed, use fp16")  # fmt: skip
    return report


def _expect(package: Path, field: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise ValueError(f"{package}: {field}: found {found}, expected {expected}; the conversion is wrong")
