"""`mobileclip-dense export coreml RUN`: Core ML artifacts, each saved, read back, executed and compared."""

import dataclasses
import json
from pathlib import Path
from pkgutil import resolve_name
from tempfile import TemporaryDirectory

import coremltools as ct
import numpy as np

from mobileclip_dense.artifact.artifact import Artifact, TensorSpec
from mobileclip_dense.artifact.precision import Precision, find_precision
from mobileclip_dense.config.export import CoreMLProfile, ToCoreMLConfig
from mobileclip_dense.deploy.coreml.convert import convert_network
from mobileclip_dense.deploy.coreml.mil.predictor import load_program_predictor
from mobileclip_dense.deploy.driver import export
from mobileclip_dense.deploy.prepared import Prepared
from mobileclip_dense.deploy.samples import sample_images
from mobileclip_dense.runtime.parity import compare_with_golden

NUM_CALIBRATION = 16  # images


class CoreMLExporter:
    """The exporter for Core ML, see `deploy.driver.Exporter`.

    Args:
        profile: precisions, and the oldest system that can load the model.
    """

    runtime = "coreml"
    libraries: tuple[str, ...] = ("coremltools",)
    num_evaluated = 50  # the executor takes seconds per image

    def __init__(self, profile: CoreMLProfile):
        self.profile, self.precisions = profile, profile.precision

    def describe_input(self, prepared: Prepared, precision: Precision) -> TensorSpec:
        """The input of the exported model. Its shape is fixed."""
        shape = (1, *prepared.golden["input"].shape[1:])
        if prepared.task == "embed-text":
            return TensorSpec(name="tokens", shape=shape, dtype="int32", meaning="CLIP tokens")
        return TensorSpec(name="image", shape=shape, dtype="uint8", meaning="RGB image, 0..255")

    def check(self, prepared: Prepared, draft: Artifact) -> dict[str, float]:
        """Convert and run the network in float32, and return its relative error.

        A wrongly converted operator could stay within the tolerance of fp16, but not within that of fp32.

        Raises:
            ValueError: the error is above the tolerance of fp32.
        """
        full = dataclasses.replace(draft, precision="fp32")
        with TemporaryDirectory() as scratch:
            package = Path(scratch) / draft.model_file
            convert_network(prepared, full, self.profile.target).save(str(package))
            golden = prepared.golden_as_taken(draft.input)
            figures = compare_with_golden(prepared.run.folder, full, golden, load_program_predictor(package, full))
        return {"fp32_relative_error": figures["fp32_relative_error"]}

    def convert(self, prepared: Prepared, draft: Artifact, path: Path) -> dict[str, float]:
        """Write the package. There are no figures to record."""
        self._build(prepared, draft).save(str(path))
        return {}

    def _build(self, prepared: Prepared, artifact: Artifact) -> ct.models.MLModel:
        """Convert and compress the network, and set the metadata and the settings of Xcode's preview."""
        model = convert_network(prepared, artifact, self.profile.target)
        precision = find_precision("coreml", artifact.precision)
        images = np.zeros(0, np.uint8)
        if precision.needs_images:
            images = sample_images(prepared.run.config, "train", NUM_CALIBRATION, prepared.size_px)
        if precision.compress is not None:
            model = resolve_name(precision.compress)(model, precision, images)
        model.short_description = f"{artifact.task}: {artifact.name}"
        model.license, model.version = artifact.licence, artifact.parent["weights_sha256"][:12]
        model.input_description[artifact.input.name] = artifact.input.meaning
        for spec in artifact.outputs:
            model.output_description[spec.name] = spec.meaning
        model.user_defined_metadata.update(artifact.summary() | _preview(artifact))
        return model


def _preview(artifact: Artifact) -> dict[str, str]:
    """The metadata that makes Xcode's preview tab draw the output."""
    if artifact.task == "depth":
        return {"com.apple.coreml.model.preview.type": "depthEstimation"}
    if artifact.task != "segment":
        return {}
    colours = [f"#{r:02X}{g:02X}{b:02X}" for r, g, b in artifact.palette]
    parameters = json.dumps({"labels": artifact.class_names, "colors": colours})
    return {
        "com.apple.coreml.model.preview.type": "imageSegmenter",
        "com.apple.coreml.model.preview.params": parameters,
    }


def to_coreml(config: ToCoreMLConfig) -> list[Path]:
    """Write the Core ML artifacts of a run and return their folders, see `export`.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: see `export`; or a combination of settings is not supported.
    """
    return export(config, CoreMLExporter(config.resolved()))
