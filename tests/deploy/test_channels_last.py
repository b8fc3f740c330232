"""Upsampling and argmax with channels last: the same classes, and graphs that must not be changed."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from mobileclip_dense.deploy.onnx.channels_last import upsample_channels_last
from mobileclip_dense.runtime.onnx_model import OnnxModel

SCORES, SIZE = (2, 7, 9, 5), (36, 20)


class Upsampled(nn.Module):
    """A model that upsamples scores by 4 and takes the argmax over classes or another axis."""

    def __init__(self, axis: int, *, upsampled_too: bool = False):
        super().__init__()
        self.axis, self.upsampled_too = axis, upsampled_too

    def forward(self, scores: torch.Tensor) -> tuple[torch.Tensor, ...]:
        full = nn.functional.interpolate(scores, SIZE, mode="bilinear", align_corners=False)
        return (full.argmax(self.axis), full) if self.upsampled_too else (full.argmax(self.axis),)


def export(network: nn.Module, path: Path) -> onnx.ModelProto:
    names = ["classes", "full"][: 1 + bool(network.upsampled_too)]
    program = torch.onnx.export(network, (torch.zeros(SCORES),), dynamo=True, verbose=False, opset_version=20,
                                input_names=["scores"], output_names=names)  # fmt: skip
    assert program is not None
    program.save(str(path))
    return onnx.load(path)


def test_the_classes_are_those_of_pytorch(tmp_path: Path) -> None:
    graph = export(Upsampled(1), tmp_path / "model.onnx")
    upsample_channels_last(graph)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, tmp_path / "model.onnx")
    assert [node.op_type for node in graph.graph.node] == ["Transpose", "Gather", "Resize", "ArgMax"]
    scores = torch.randn(SCORES, generator=torch.Generator().manual_seed(0))
    found = OnnxModel(tmp_path / "model.onnx")(scores.numpy())["classes"]
    assert np.array_equal(found, Upsampled(1)(scores)[0].numpy())
    assert len(np.unique(found)) == SCORES[1]


@pytest.mark.parametrize("network", [Upsampled(2), Upsampled(1, upsampled_too=True)])
def test_other_axes_and_values_that_are_read_elsewhere_stay(network: nn.Module, tmp_path: Path) -> None:
    graph = export(network, tmp_path / "model.onnx")
    before = graph.SerializeToString()
    upsample_channels_last(graph)
    assert graph.SerializeToString() == before


def test_an_argmax_of_something_else_stays() -> None:
    taken = helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, SCORES)
    given = helper.make_tensor_value_info("classes", onnx.TensorProto.INT64, None)
    argmax = helper.make_node("ArgMax", ["scores"], ["classes"], axis=1, keepdims=0)
    graph = helper.make_model(helper.make_graph([argmax], "argmax", [taken], [given]))
    upsample_channels_last(graph)
    assert [node.op_type for node in graph.graph.node] == ["ArgMax"]
