"""The int8 version of an exported ONNX model, within the tolerated loss of accuracy."""

import dataclasses
from pathlib import Path

from mobileclip_dense.artifact.artifact import Artifact
from mobileclip_dense.artifact.files import write_json
from mobileclip_dense.deploy.gate import cost_function, require_tolerable
from mobileclip_dense.deploy.onnx.exporter import OnnxExporter
from mobileclip_dense.deploy.onnx.quantize import NUM_CALIBRATION, quantize_by_measurement
from mobileclip_dense.deploy.prepared import Prepared, as_taken
from mobileclip_dense.deploy.samples import sample_images
from mobileclip_dense.runtime.onnx_model import OnnxModel


def to_int8(exporter: OnnxExporter, prepared: Prepared, draft: Artifact, path: Path) -> dict[str, float]:
    """Replace a float model by its int8 version. Returns its figures.

    The full report, by node, is written to int8.json beside the model.

    Args:
        exporter: the flags that allow a loss of accuracy or speed.
        prepared: the run and its network.
        draft: the artifact record.
        path: the model file.

    Raises:
        ValueError: the model loses more accuracy than the tolerance or is no faster, and the flag that allows it is
            off.
    """
    cost = cost_function(prepared, OnnxModel(path), exporter.num_evaluated)
    images = sample_images(prepared.run.config, "train", NUM_CALIBRATION, prepared.size_px)
    report = quantize_by_measurement(path, as_taken(images, draft.input), cost)
    report.print()
    where = f"{prepared.run.folder}: {draft.precision}"
    require_tolerable(report.cost, where, "Train the run longer", allowed=exporter.allow_accuracy_drop)
    if (reason := report.slowness()) and not exporter.allow_slower:
        raise ValueError(f"{where}: {reason}; the {draft.precision} artifact was not written. Use fp32 on this "
                         "machine, or pass --allow-slower")  # fmt: skip
    write_json(path.with_name("int8.json"), dataclasses.asdict(report))
    return report.figures()
