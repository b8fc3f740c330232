"""`python -m export.verify ARTIFACT`: is the artifact whole, and does it still compute what PyTorch computed?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mobileclip_dense.artifact.artifact import Artifact, load_artifact, load_golden
from mobileclip_dense.config import Task
from mobileclip_dense.config.check import require_numbers
from mobileclip_dense.data.labelled.annotations import read_class_labels, read_depth_m
from mobileclip_dense.data.labelled.layouts import find_set
from mobileclip_dense.deploy.coreml.convert import program_predictor, verify_program
from mobileclip_dense.deploy.coreml.mil.executor import first_divergence
from mobileclip_dense.deploy.coreml.mil.program import load_program
from mobileclip_dense.deploy.parity import Golden, compare_with_golden
from mobileclip_dense.runtime.accuracy import Predictor, predict_all, score_depth, score_segmentation
from mobileclip_dense.runtime.onnx_model import load_onnx_artifact


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Check an artifact: hashes of all files, then its outputs on golden.npz against PyTorch's. ONNX runs in ONNX
    Runtime; a Core ML program is run operator by operator, without a Mac."""

    artifact: Annotated[Path, tyro.conf.Positional]
    """Artifact folder."""
    data: Path | None = None
    """Labelled folder as `mobileclip-dense finetune --data` takes it; gives the metric on held-out images."""
    max_images: int = 200
    """Held-out images to evaluate at most."""
    zero_is_other: bool = False
    """Labels as ADE20K's, which need not be said of ADE20K itself: 0 is "other" and ignored, 1 the first class."""
    depth_units_per_m: float = 1000.0
    """Depth: values of the PNG per metre (1000: millimetres)."""
    bisect: float | None = None
    """Core ML: name the first operator whose fp16 output is further than this from fp32 (relative, such as 0.01)."""

    def __post_init__(self) -> None:
        require_numbers(self, "max_images", at_least=1)
        require_numbers(self, "depth_units_per_m", "bisect", above=0)


def verify(config: VerifyConfig) -> dict[str, float]:
    """Print and return the distance to PyTorch and, given data, the task's metric.

    Raises:
        FileNotFoundError, ValueError: a file is missing or altered, or an output is further from PyTorch than is
            tolerated.
    """
    artifact = load_artifact(config.artifact)
    golden = load_golden(config.artifact)
    if artifact.runtime == "coreml":
        package = config.artifact / artifact.model_file
        report = verify_program(package, artifact)
        print(f"{config.artifact}: {report.summary()}")
        predictor: Predictor = program_predictor(load_program(package), artifact)
    else:
        predictor = load_onnx_artifact(config.artifact)[1]
    figures = compare_with_golden(config.artifact, artifact, golden, predictor)
    if config.data is not None:
        figures |= _measure_metric(config, artifact, predictor)
    print(f"{config.artifact}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
    if config.bisect is not None:
        _bisect(config, artifact, golden)
    return figures


def _measure_metric(config: VerifyConfig, artifact: Artifact, predictor: Predictor) -> dict[str, float]:
    assert config.data is not None
    tasks: dict[str, Task] = {"segment": "segment", "depth": "depth"}
    if artifact.task not in tasks:
        raise ValueError(f"--data: found an artifact for {artifact.task}, expected segment or depth")
    found = find_set(config.data, tasks[artifact.task])
    pairs = found.val[: config.max_images]
    if not pairs:
        raise FileNotFoundError(f"{config.data}: --data: found {found.layout} without held-out images")
    images, labels = [image for image, _ in pairs], [label for _, label in pairs]
    maps = predict_all(predictor, artifact.outputs[-1].name, images, artifact.input_size_px, "evaluate")
    if artifact.task == "segment":
        zero_is_other = config.zero_is_other or found.reduce_zero_label
        truths = [read_class_labels(label, zero_is_other, found.ignored_label) for label in labels]
        return {"miou_percent": score_segmentation(maps, truths, len(artifact.class_names))}
    assert artifact.max_depth_m is not None
    depths = [read_depth_m(label, config.depth_units_per_m) for label in labels]
    errors = score_depth(maps, depths, artifact.max_depth_m)
    return {"rmse_m": errors["rmse"], "abs_rel": errors["abs_rel"], "d1": errors["d1"]}


def _bisect(config: VerifyConfig, artifact: Artifact, golden: Golden) -> None:
    assert config.bisect is not None
    if artifact.runtime != "coreml":
        raise ValueError(f"--bisect: found an artifact for {artifact.runtime}, expected coreml")
    program = load_program(config.artifact / artifact.model_file)
    inputs = golden["input"][:1]
    taken = inputs if artifact.input.dtype == "uint8" else {artifact.input.name: inputs}
    found = first_divergence(program, taken, config.bisect)
    if found is None:
        print(f"{config.artifact}: no operator is further than {config.bisect:g} from fp32")
    else:
        print(
            f"{config.artifact}: {found.operator} of {found.output} leaves fp32 first: relative error "
            f"{found.relative_error:.2g}, largest value {found.largest_magnitude:.3g} (fp16 ends at 65504)"
        )
