"""Exported files contain no information about the machine, the user and the source lines that wrote them."""

import getpass
import socket
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mobileclip_dense.deploy.onnx.debug_info import strip_debug_info
from tests.conftest import REPOSITORY, Line
from tests.traces import find_traces


def test_no_artifact_holds_a_path_a_module_a_stack_trace_or_a_name(line: Line) -> None:
    folders = list((line.root / "artifacts").iterdir())
    assert {folder.suffix for folder in folders} == {".onnx", ".coreml"}
    assert [trace for folder in folders for trace in find_traces(folder)] == []


@pytest.mark.parametrize(
    "told",
    [
        str(Path.home() / "models"), str(REPOSITORY / "export"), f"{sys.prefix}/lib",
        "mobileclip_dense.deploy.networks.FromPixels",
        "mobileclip_dense.dense.backbone.MCi", 'File "x.py", line 3', "pkg.torch.onnx.stack_trace",
        getpass.getuser(), socket.gethostname(),
    ],
)  # fmt: skip
def test_a_trace_is_found(tmp_path: Path, told: str) -> None:
    """Traces among weights and inside an archive are found."""
    (tmp_path / "model.onnx").write_bytes(
        b"\x00\x9fmade with the help of " + told.encode() + b"\x00mobileclip_dense.name"
    )
    np.savez(tmp_path / "golden.npz", allow_pickle=False, note=np.array([b"made with the help of " + told.encode()]))
    found = find_traces(tmp_path)
    assert {trace.partition(":")[0] for trace in found} == {"model.onnx", "golden.npz"}


def test_notes_are_removed_from_every_part_of_a_graph() -> None:
    """Also in branches of an If, functions, value infos and initializers; names and values stay."""
    branch = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["inner"], name="kept")], "branch", [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    choice = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch)
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    graph = helper.make_graph(
        [choice], "main", [helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])], [weights],
        value_info=[helper.make_tensor_value_info("z", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    function = helper.make_function("own", "f", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [])
    model = helper.make_model(graph, functions=[function])
    clean = model.SerializeToString()
    inner = model.graph.node[0].attribute[0].g
    for part in (model, model.graph, model.graph.node[0], model.graph.input[0], model.graph.value_info[0], inner,
                 model.graph.initializer[0], inner.node[0], inner.output[0], model.functions[0],
                 model.functions[0].node[0]):  # fmt: skip
        part.doc_string = "made in /home/someone"
        part.metadata_props.add(key="pkg.torch.onnx.stack_trace", value='File "/home/someone/x.py"')
    strip_debug_info(model)
    assert model.SerializeToString() == clean
    assert onnx.helper.printable_graph(model.graph)
