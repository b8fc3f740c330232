"""`mobileclip-dense export onnx RUN`: ONNX artifacts in fp32, fp16 or int8."""

import dataclasses
from pathlib import Path
from pkgutil import resolve_name

import numpy as np

from mobileclip_dense.artifact.artifact import Artifact, TensorSpec
from mobileclip_dense.artifact.precision import Precision, find_precision
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.config.encoders import ENCODERS
from mobileclip_dense.config.export import OnnxProfile, ToOnnxConfig
from mobileclip_dense.deploy.driver import export
from mobileclip_dense.deploy.onnx.graph import export_graph, write_metadata
from mobileclip_dense.deploy.prepared import Prepared, as_taken
from mobileclip_dense.runtime.onnx_model import OnnxModel
from mobileclip_dense.runtime.parity import compare_with_golden, judge_outputs


class OnnxExporter:
    """The exporter for ONNX, see `deploy.driver.Exporter`.

    Args:
        profile: precisions, input, shapes and operator set.
        allow_accuracy_drop: whether int8 may lose more accuracy than the tolerance.
        allow_slower: whether int8 may be no faster than fp32.
    """

    runtime = "onnx"
    libraries: tuple[str, ...] = ("onnx", "onnxscript", "onnxruntime")
    num_evaluated = 200

    def __init__(self, profile: OnnxProfile, *, allow_accuracy_drop: bool = False, allow_slower: bool = False):
        self.profile, self.precisions = profile, profile.precision
        self.allow_accuracy_drop, self.allow_slower = allow_accuracy_drop, allow_slower

    def describe_input(self, prepared: Prepared, precision: Precision) -> TensorSpec:
        """The input of the exported model.

        Raises:
            ValueError: a flexible size for an encoder with a graph of one size, or a flexible batch for an fp16 text
                tower.
        """
        config, flexible = prepared.run.config, self.profile.flexible
        if flexible == "size" and isinstance(config, FinetuneConfig) and ENCODERS[config.encoder].one_size:
            raise ValueError(f"--flexible: found size with {config.encoder}, whose graph is for one size; expected "
                             "none or batch, and --size-px for the size")  # fmt: skip
        shape = prepared.golden["input"].shape[1:]
        batch = (0,) if flexible == "batch" else ()
        if prepared.task == "embed-text":
            if batch and precision.name == "fp16":
                raise ValueError("--flexible: found batch with fp16, expected none for a text tower: ONNX Runtime 1.32 "
                                 "crashes while it loads that model")  # fmt: skip
            return TensorSpec(name="tokens", shape=(1, *shape), dtype="int64", meaning="CLIP tokens", flexible=batch)
        height, width, _ = shape
        uint8 = self.profile.pixels == "uint8"
        size = ((1, 2) if uint8 else (2, 3)) if flexible == "size" else ()
        return TensorSpec(
            name="image",
            shape=(1, height, width, 3) if uint8 else (1, 3, height, width),
            dtype="uint8" if uint8 else "float32",
            meaning="RGB image, 0..255" if uint8 else "RGB image, 0..1",
            flexible=batch + size,
        )

    def check(self, prepared: Prepared, draft: Artifact) -> dict[str, float]:
        """No figures: `convert` compares the float graph of each artifact."""
        return {}

    def convert(self, prepared: Prepared, draft: Artifact, path: Path) -> dict[str, float]:
        """Write the graph. For int8, returns the figures of its float graph and the cost of int8.

        Raises:
            ValueError: the float graph differs too much from PyTorch, or int8 loses too much accuracy or is no faster.
        """
        precision = find_precision("onnx", draft.precision)
        full = dataclasses.replace(draft, precision=precision.full)
        export_graph(prepared, full, self.profile.opset, path)
        figures: dict[str, float] = {}
        if precision.compress is not None:
            golden = prepared.golden_as_taken(full.input)
            figures |= compare_with_golden(prepared.run.folder, full, golden, OnnxModel(path))
            figures |= self.compress(prepared, draft, path)
        elif draft.input.flexible:
            figures |= _verify_another_shape(prepared, draft, OnnxModel(path))
        write_metadata(path, draft.summary())
        return figures

    def compress(self, prepared: Prepared, draft: Artifact, path: Path) -> dict[str, float]:
        """Replace the full-precision model by one in the draft's precision. Returns figures to record.

        Raises:
            ValueError: see the function that the precision registers, for example `int8.to_int8`.
        """
        function = find_precision("onnx", draft.precision).compress
        assert function is not None
        figures: dict[str, float] = resolve_name(function)(self, prepared, draft, path)
        return figures


def _verify_another_shape(prepared: Prepared, draft: Artifact, model: OnnxModel) -> dict[str, float]:
    """Compare a graph of flexible shapes with PyTorch on a shape that was not traced.

    Raises:
        ValueError: an output differs from PyTorch by more than the tolerance of the precision.
    """
    other = np.concatenate([prepared.golden["input"]] * 2)
    if 0 not in draft.input.flexible:
        other = np.pad(other[:1], ((0, 0), (0, prepared.stride), (0, 2 * prepared.stride), (0, 0)), mode="wrap")
    found = model(as_taken(other, draft.input))
    judged = judge_outputs(prepared.run.folder, draft, prepared.predict(other), found, " at another shape")
    return {"other_shape_relative_error": judged[f"{draft.precision}_relative_error"]}


def to_onnx(config: ToOnnxConfig) -> list[Path]:
    """Write the ONNX artifacts of a run and return their folders, see `export`.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: see `export`; or a combination of settings is not supported.
    """
    exporter = OnnxExporter(
        config.resolved(), allow_accuracy_drop=config.allow_accuracy_drop, allow_slower=config.allow_slower
    )
    return export(config, exporter)
