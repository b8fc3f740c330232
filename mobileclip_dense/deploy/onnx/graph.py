"""Export of a fused network to an ONNX graph."""

import copy
import logging
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn
from torch.export import Dim

from mobileclip_dense.artifact.artifact import Artifact
from mobileclip_dense.deploy.networks import FromPixels
from mobileclip_dense.deploy.onnx.channels_last import upsample_channels_last
from mobileclip_dense.deploy.onnx.debug_info import strip_debug_info
from mobileclip_dense.deploy.prepared import Prepared, as_taken


class _InHalf(nn.Module):
    """The network in float16, with inputs (float32 or tokens) and outputs (float32 or class indices) unchanged."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, taken: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.network(taken.half() if taken.is_floating_point() else taken)
        return tuple(output.float() if output.is_floating_point() else output for output in outputs)


def export_graph(prepared: Prepared, artifact: Artifact, opset: int, path: Path) -> None:
    """Trace the network with its preprocessing into an ONNX file, and run ONNX's checker.

    Args:
        prepared: the network and example inputs.
        artifact: its input, and its precision, fp32 or fp16.
        opset: version of the operator set.
        path: file to write.
    """
    network = _InHalf(prepared.network) if artifact.precision == "fp16" else prepared.network
    network = FromPixels(network) if artifact.input.dtype == "uint8" else network
    flexible = set(artifact.input.flexible)
    # torch.export would treat a batch of one as a constant.
    example = torch.from_numpy(as_taken(prepared.golden["input"][: 2 if 0 in flexible else 1].copy(), artifact.input))
    dimensions = {
        axis: Dim("batch") if axis == 0 else prepared.stride * Dim(f"{name}_in_{prepared.stride}", min=1, max=128)
        for axis, name in zip(sorted(flexible), ("height", "width") if 0 not in flexible else ("batch",), strict=True)
    } if flexible else None  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            network.eval(), (example,), dynamo=True, opset_version=opset,
            input_names=[artifact.input.name], output_names=list(prepared.outputs), verbose=False,
            dynamic_shapes=None if dimensions is None else (dimensions,),
        )  # fmt: skip
    assert program is not None
    program.save(str(path), external_data=False)
    graph = onnx.load(path)
    strip_debug_info(graph)
    upsample_channels_last(graph)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)


def write_metadata(path: Path, metadata: dict[str, str]) -> None:
    """Replace the metadata of an ONNX file."""
    model = onnx.load(path)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)
