"""int8 models have exactly the chosen nodes, at least one, and are refused if they are not faster."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mobileclip_dense.deploy.onnx.quantize
from mobileclip_dense.artifact.artifact import load_artifact
from mobileclip_dense.config.export import ToOnnxConfig
from mobileclip_dense.deploy.onnx.exporter import to_onnx
from mobileclip_dense.deploy.onnx.quantize import Int8Report, Node, quantize_by_measurement, quantized_nodes
from tests.conftest import Line

CHANNELS = 8


def write_model(path: Path, num_convolutions: int = 3) -> npt.NDArray[np.float32]:
    """Pointwise convolutions in a row; calibration inputs."""
    rng = np.random.default_rng(0)
    shape = [1, CHANNELS, 8, 8]
    weights = [
        numpy_helper.from_array(rng.normal(size=(CHANNELS, CHANNELS, 1, 1)).astype(np.float32), f"w{index}")
        for index in range(num_convolutions)
    ]
    nodes = [
        helper.make_node("Conv", [f"x{index}", f"w{index}"], [f"x{index + 1}"], name=f"conv{index}")
        for index in range(num_convolutions)
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"x{num_convolutions}", TensorProto.FLOAT, shape)], weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return rng.normal(size=(2, *shape[1:])).astype(np.float32)


@pytest.mark.parametrize("joined", [[], ["pointwise convolution"]])
def test_where_no_kernel_is_faster_the_report_says_what_was_quantized_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, joined: list[str]
) -> None:
    images = write_model(tmp_path / "model.onnx")
    profiles = iter([{f"conv{i}": 1.0 for i in range(3)}, {f"conv{i}": 2.0 for i in range(3)}])
    monkeypatch.setattr(mobileclip_dense.deploy.onnx.quantize, "_join_kinds", lambda _: (joined, []))
    monkeypatch.setattr(mobileclip_dense.deploy.onnx.quantize, "profile_ms", lambda *_: next(profiles))
    report = quantize_by_measurement(tmp_path / "model.onnx", images, lambda _: {"mean_cosine": 1.0})
    found = quantized_nodes(onnx.load(tmp_path / "model.onnx"))
    assert found == {node.name for node in report.nodes if node.quantized} == {"conv0", "conv1", "conv2"}
    assert report.figures()["int8_nodes"] == 3
    assert "found no node that is faster in int8" in str(report.slowness())


def test_only_the_nodes_that_pay_are_quantized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_model(tmp_path / "model.onnx")
    profiles = iter([{"conv0": 1.0, "conv1": 1.0, "conv2": 1.0}, {"conv0": 2.0, "conv1": 0.5, "conv2": 2.0}])
    monkeypatch.setattr(mobileclip_dense.deploy.onnx.quantize, "_join_kinds", lambda _: (["pointwise convolution"], []))
    monkeypatch.setattr(mobileclip_dense.deploy.onnx.quantize, "profile_ms", lambda *_: next(profiles))
    report = quantize_by_measurement(tmp_path / "model.onnx", images, None)
    assert quantized_nodes(onnx.load(tmp_path / "model.onnx")) == {"conv1"}
    assert report.figures()["int8_nodes"] == 1


def test_an_empty_list_of_nodes_does_not_mean_all(tmp_path: Path) -> None:
    images = write_model(tmp_path / "model.onnx")
    workshop = mobileclip_dense.deploy.onnx.quantize._Workshop(tmp_path / "model.onnx", images, tmp_path)
    with pytest.raises(ValueError, match="int8: found no node to quantize, expected at least one"):
        workshop.build([], tmp_path / "none.onnx")
    assert not (tmp_path / "none.onnx").exists()


def test_without_calibration_inputs_there_is_no_int8(tmp_path: Path) -> None:
    images = write_model(tmp_path / "model.onnx")
    before = (tmp_path / "model.onnx").read_bytes()
    with pytest.raises(ValueError, match="int8: found no calibration input"):
        quantize_by_measurement(tmp_path / "model.onnx", images[:0], None)
    assert (tmp_path / "model.onnx").read_bytes() == before


@pytest.mark.parametrize("given", ["more", "fewer"])
def test_a_quantizer_that_does_not_keep_to_its_list_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    images = write_model(tmp_path / "model.onnx")
    right = mobileclip_dense.deploy.onnx.quantize.quantize_static

    def other(source: Path, out: Path, reader: object, *, nodes_to_quantize: list[str], **settings: object) -> None:
        chosen = ["conv0", "conv1", "conv2"] if given == "more" else nodes_to_quantize[:1]
        right(source, out, reader, nodes_to_quantize=chosen, **settings)

    profiles = iter([{f"conv{i}": 1.0 for i in range(3)}, {"conv0": 0.5, "conv1": 0.5, "conv2": 2.0}])
    monkeypatch.setattr(mobileclip_dense.deploy.onnx.quantize, "quantize_static", other)
    monkeypatch.setattr(mobileclip_dense.deploy.onnx.quantize, "_join_kinds", lambda _: (["pointwise convolution"], []))
    monkeypatch.setattr(mobileclip_dense.deploy.onnx.quantize, "profile_ms", lambda *_: next(profiles))
    if given == "more":
        with pytest.raises(ValueError, match=r"int8: found 1 nodes quantized that were not chosen \(conv2\)"):
            quantize_by_measurement(tmp_path / "model.onnx", images, None)
    else:
        report = quantize_by_measurement(tmp_path / "model.onnx", images, None)
        assert report.figures()["int8_nodes"] == 1
        assert report.nodes[1].reason == "ONNX Runtime left it float"


def report_of(float_ms: float, int8_ms: float) -> Int8Report:
    node = Node(name="n", kind="linear", quantized=True, reason="faster")
    return Int8Report(device="d", nodes=[node], kinds=[], float_ms=float_ms, int8_ms=int8_ms, float_bytes=2,
                      int8_bytes=1, cost={})  # fmt: skip


def test_a_model_that_is_not_faster_is_called_slow() -> None:
    assert report_of(2.0, 1.9).slowness() is None
    for int8_ms, speed in ((2.0, "1.00x"), (4.0, "0.50x"), (float("nan"), "nanx")):
        assert f"expected less than the 2.00 ms of fp32 ({speed} as fast)" in str(report_of(2.0, int8_ms).slowness())


@pytest.mark.parametrize(("float_ms", "int8_ms"), [(2.0, 2.5), (2.0, 2.0)])
def test_a_slower_int8_model_is_written_only_if_that_is_asked_for(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, float_ms: float, int8_ms: float
) -> None:
    measured = report_of(float_ms, int8_ms)
    monkeypatch.setattr("mobileclip_dense.deploy.onnx.int8.quantize_by_measurement", lambda *_: measured)
    config = dict(run=line.run("segment"), out=tmp_path, precision=("int8",))
    with pytest.raises(ValueError, match=r"int8: found 2\.\d0 ms, .* was not written\. .* pass --allow-slower"):
        to_onnx(ToOnnxConfig(**config))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    (folder,) = to_onnx(ToOnnxConfig(**config, allow_slower=True))  # type: ignore[arg-type]
    assert load_artifact(folder).parity["int8_speedup"] == float_ms / int8_ms <= 1
