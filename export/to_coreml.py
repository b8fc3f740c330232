"""`python -m export.to_coreml RUN`: a fine-tuned run as a Core ML artifact, fp16, read back and checked."""

import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import coremltools as ct
import numpy as np
import torch
import tyro

from export.prepare import Prepared, describe, output_names, prepare
from mobileclip_dense.command import run_with_settings
from mobileclip_dense.contract.artifact import Artifact, save_artifact
from mobileclip_dense.contract.files import refuse_existing, staged_folder

TARGET = ct.target.iOS16
_LIBRARIES = ("coremltools",)
# What a fused MCi with a pyramid head may consist of; anything else is a surprise that should be looked at.
EXPECTED_OPERATIONS = frozenset(
    {"const", "conv", "gelu", "add", "reshape", "transpose", "mul", "squeeze", "linear", "matmul", "reduce_mean",
     "split", "softmax", "relu", "sigmoid", "cast", "upsample_bilinear", "upsample_nearest_neighbor", "reduce_argmax",
     "concat", "resize_bilinear", "resize_nearest_neighbor"}
)  # fmt: skip
_NOT_FUSED = ("batch_norm", "instance_norm")


@dataclass(frozen=True, kw_only=True)
class ToCoreMLConfig:
    """Export a fine-tuned run to a Core ML .mlpackage: fused, fp16, image input, fixed shape, iOS 16 and later."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a complete `mobileclip-dense finetune` run."""
    size_px: tuple[int, int] | None = None
    """Height and width of the model's input, multiples of 32; None: the run's training crop."""
    out: Path = Path("artifacts")
    """Folder in which the artifact's own folder is made."""
    force: bool = False
    """Replace the artifact if it exists."""


def to_coreml(config: ToCoreMLConfig) -> Path:
    """Write the artifact; its folder.

    Raises:
        FileExistsError: it exists already. FileNotFoundError, ValueError: see `prepare`; or the saved program is not
            what it should be.
    """
    prepared = prepare(config.run, config.size_px)
    artifact = describe(prepared, runtime="coreml", precision="fp16", parity={}, libraries=_LIBRARIES)
    folder = config.out / artifact.name
    refuse_existing(folder, config.force)
    with staged_folder(folder, force=config.force) as staging:
        model = convert(prepared, artifact)
        model.save(str(staging / artifact.model_file))
        operations = verify_program(staging / artifact.model_file, artifact)
        np.savez_compressed(staging / "golden.npz", allow_pickle=False, **prepared.golden)
        save_artifact(artifact, staging)
    size = sum(path.stat().st_size for path in (folder / artifact.model_file).rglob("*"))
    print(f"{folder}: {size / 1e6:.2f} MB; {sum(operations.values())} operations, none unexpected; "
          f"its numbers can be checked on a Mac only")  # fmt: skip
    return folder


def convert(prepared: Prepared, artifact: Artifact) -> ct.models.MLModel:
    """Trace and convert; metadata and the settings of Xcode's preview included."""
    height, width = prepared.size_px
    example = torch.zeros(1, 3, height, width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("coremltools").setLevel(logging.ERROR)
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            prepared.predictor, example
        )
        model = ct.convert(
            traced,
            # The predictor takes RGB in 0..1; Core ML hands it pixels x scale.
            inputs=[ct.ImageType(name="image", shape=example.shape, scale=1 / 255, color_layout=ct.colorlayout.RGB)],
            outputs=[ct.TensorType(name=name) for name in output_names(prepared.config)],
            minimum_deployment_target=TARGET,
            compute_precision=ct.precision.FLOAT16,
            convert_to="mlprogram",
        )
    model.short_description = f"{artifact.task}: {artifact.name}"
    model.license, model.version = artifact.licence, artifact.parent["weights_sha256"][:12]
    model.input_description["image"] = f"RGB image, {height}x{width} pixels"
    for spec in artifact.outputs:
        model.output_description[spec.name] = spec.meaning
    model.user_defined_metadata.update(artifact.summary() | _preview(artifact))
    return model


def _preview(artifact: Artifact) -> dict[str, str]:
    """What makes Xcode's preview tab draw the output."""
    if artifact.task == "depth":
        return {"com.apple.coreml.model.preview.type": "depthEstimation"}
    colours = [f"#{r:02X}{g:02X}{b:02X}" for r, g, b in artifact.palette]
    parameters = json.dumps({"labels": artifact.class_names, "colors": colours})
    return {
        "com.apple.coreml.model.preview.type": "imageSegmenter",
        "com.apple.coreml.model.preview.params": parameters,
    }


def verify_program(package: Path, artifact: Artifact) -> dict[str, int]:
    """Read a saved .mlpackage back; its operations with their counts.

    Raises:
        ValueError: inputs, outputs, metadata or operations are not those of `artifact`.
    """
    model = ct.models.MLModel(str(package), skip_model_load=True)
    spec = model.get_spec()
    image = spec.description.input[0]
    height, width = artifact.input_size_px
    _expect(package, "input", (image.name, image.type.WhichOneof("Type")), (artifact.input.name, "imageType"))
    _expect(package, "input size", (image.type.imageType.height, image.type.imageType.width), (height, width))
    outputs = [output.name for output in spec.description.output]
    _expect(package, "outputs", sorted(outputs), sorted(output.name for output in artifact.outputs))
    metadata = dict(spec.description.metadata.userDefined)
    for name, value in artifact.summary().items():
        _expect(package, f"metadata {name}", metadata.get(name), value)
    operations = count_operations(spec)
    _expect(package, "normalisations", [name for name in _NOT_FUSED if name in operations], [])
    _expect(package, "unexpected operations", sorted(set(operations) - EXPECTED_OPERATIONS), [])
    return operations


def count_operations(spec: Any) -> dict[str, int]:
    """Operation types of an ML program with their number, constants left out."""
    (function,) = spec.mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    counts: dict[str, int] = {}
    for operation in block.operations:
        if operation.type != "const":
            counts[operation.type] = counts.get(operation.type, 0) + 1
    return counts


def _expect(package: Path, field: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise ValueError(f"{package}: {field}: found {found}, expected {expected}; the conversion is wrong")


if __name__ == "__main__":
    run_with_settings(ToCoreMLConfig, to_coreml, "python -m export.to_coreml")
