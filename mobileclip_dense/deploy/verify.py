"""`mobileclip-dense verify ARTIFACT`: checks the files of an artifact, and its outputs against those of PyTorch.

An ONNX artifact is verified without torch and without coremltools.
"""

from pathlib import Path

from mobileclip_dense.artifact.artifact import Artifact, load_golden
from mobileclip_dense.config import Task
from mobileclip_dense.config.export import VerifyConfig
from mobileclip_dense.runtime.accuracy import predict_all, score_depth, score_segmentation
from mobileclip_dense.runtime.parity import Golden, compare_with_golden
from mobileclip_dense.runtime.predictor import Predictor, inspect_model, load_predictor
from mobileclip_dense.runtime.references import find_artifact


def verify(config: VerifyConfig) -> dict[str, float]:
    """Print and return the distance to PyTorch and, with data, the metric of the task.

    Raises:
        FileNotFoundError, ValueError: a file is missing or altered, or an output is further from PyTorch than is
            tolerated.
    """
    folder = find_artifact(config.artifact)
    artifact, predictor = load_predictor(folder)
    golden = load_golden(folder)
    if report := inspect_model(folder, artifact):
        print(f"{config.artifact}: {report.summary()}")
    figures = compare_with_golden(folder, artifact, golden, predictor)
    if config.data is not None:
        figures |= _measure_metric(config, artifact, predictor)
    print(f"{config.artifact}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
    if config.bisect is not None:
        _bisect(config, folder / artifact.model_file, artifact, golden)
    return figures


def _measure_metric(config: VerifyConfig, artifact: Artifact, predictor: Predictor) -> dict[str, float]:
    # The readers of labels need the extra `train`.
    from mobileclip_dense.data.labelled.annotations import read_class_labels, read_depth_m
    from mobileclip_dense.data.labelled.layouts import find_set

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


def _bisect(config: VerifyConfig, package: Path, artifact: Artifact, golden: Golden) -> None:
    assert config.bisect is not None
    if artifact.runtime != "coreml":
        raise ValueError(f"--bisect: found an artifact for {artifact.runtime}, expected coreml")
    from mobileclip_dense.deploy.coreml.mil.executor import first_divergence
    from mobileclip_dense.deploy.coreml.mil.program import load_program

    program = load_program(package)
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
