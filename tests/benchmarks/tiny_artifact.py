"""Tiny ONNX artifacts that are built quickly."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, save_model

from mobileclip_dense.artifact.artifact import Artifact, TensorSpec, save_artifact

WEIGHTS_SHA256 = "a" * 64


def write_artifact(folder: Path, name: str, *, num_parameters: int = 1_000_000) -> Path:
    """A model of 4x4 pixels that returns its input; `num_parameters` distinguishes artifacts of the same name."""
    folder.mkdir(parents=True)
    image, classes = (
        helper.make_tensor_value_info(label, TensorProto.UINT8, [1, 4, 4, 3]) for label in ("image", "class_map")
    )
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["class_map"])], "tiny", [image], [classes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    save_model(model, folder / "model.onnx")
    pixels = np.zeros((1, 4, 4, 3), np.uint8)
    np.savez(folder / "golden.npz", input=pixels, class_map=pixels)
    specs = [TensorSpec(name=n, shape=(1, 4, 4, 3), dtype="uint8", meaning="RGB") for n in ("image", "class_map")]
    artifact = Artifact(
        name=name, runtime="onnx", precision="fp32", task="segment", architecture="tiny", input=specs[0],
        outputs=(specs[1],), preprocessing="", class_names=("a",), palette=((0, 0, 0),), max_depth_m=None,
        logit_scale=None, num_parameters=num_parameters, parity={"fp32_relative_error": 1e-7},
        parent={"weights_sha256": WEIGHTS_SHA256}, versions={}, licence="",
    )  # fmt: skip
    save_artifact(artifact, folder)
    return folder
