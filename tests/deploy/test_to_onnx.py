"""ONNX in every form (precision, pixels, flexible shapes, both towers), and the accuracy gate."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import mobileclip_dense.deploy.onnx.quantize
from mobileclip_dense.artifact.artifact import load_artifact, load_golden
from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.config.export import ToCoreMLConfig, ToOnnxConfig
from mobileclip_dense.deploy.gate import excess
from mobileclip_dense.deploy.onnx.exporter import to_onnx
from mobileclip_dense.deploy.onnx.graph import export_graph
from mobileclip_dense.deploy.prepare import prepare
from mobileclip_dense.models.clip import build_clip
from mobileclip_dense.run.folder import load_run
from mobileclip_dense.runtime.accuracy import predict_at
from mobileclip_dense.runtime.onnx_model import OnnxModel
from mobileclip_dense.runtime.parity import relative_error
from tests.conftest import Line, run_module
from tests.traces import find_traces


def test_float_pixels_give_what_bytes_give(line: Line, tmp_path: Path) -> None:
    (folder,) = to_onnx(ToOnnxConfig(run=line.run("segment"), out=tmp_path, pixels="float"))
    artifact = load_artifact(folder)
    assert (artifact.input.dtype, artifact.input.shape, artifact.input_size_px) == ("float32", (1, 3, 64, 64), (64, 64))
    golden = load_golden(folder)
    assert golden["input"].shape[1:] == (3, 64, 64)
    assert 0 <= golden["input"].min() < golden["input"].max() <= 1
    bytes_in = OnnxModel(line.artifact("segment", "fp32.onnx") / "model.onnx")
    image = load_image(line.photo)
    found = predict_at(OnnxModel(folder / "model.onnx"), "class_map", image, artifact.input_size_px)
    np.testing.assert_array_equal(found, predict_at(bytes_in, "class_map", image, (64, 64)))


def test_a_half_precision_model_is_half_the_size_and_close(line: Line, tmp_path: Path) -> None:
    (folder,) = to_onnx(ToOnnxConfig(run=line.run("depth"), out=tmp_path, precision=("fp16",)))
    full = line.artifact("depth", "fp32.onnx") / "model.onnx"
    assert (folder / "model.onnx").stat().st_size < 0.6 * full.stat().st_size
    graph = onnx.load(folder / "model.onnx").graph
    assert {t.data_type for t in graph.initializer if len(t.dims) == 4} == {onnx.TensorProto.FLOAT16}
    assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert load_artifact(folder).parity["fp16_relative_error"] < 1e-2


@pytest.mark.parametrize(("flexible", "axes"), [("batch", (0,)), ("size", (1, 2))])
def test_flexible_shapes_are_right_at_other_shapes(
    line: Line, tmp_path: Path, flexible: str, axes: tuple[int, ...]
) -> None:
    (folder,) = to_onnx(ToOnnxConfig(run=line.run("segment"), out=tmp_path, flexible=flexible))  # type: ignore[arg-type]
    artifact = load_artifact(folder)
    assert artifact.input.flexible == axes
    (prepared,) = prepare(line.run("segment"), None)
    shape = (5, 64, 64, 3) if flexible == "batch" else (1, 160, 96, 3)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with torch.no_grad():
        logits, class_map = prepared.network(torch.from_numpy(image).permute(0, 3, 1, 2) / 255)
    found = OnnxModel(folder / "model.onnx")(image)
    assert relative_error(found["logits"], logits.numpy()) <= 1e-4
    assert (found["class_map"] == class_map.numpy()).mean() >= 0.999


def test_a_size_that_froze_while_tracing_stops_the_export(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mmseg's Upsample rounds its size with int(), so it is only correct at the traced size."""
    monkeypatch.setattr("mobileclip_dense.deploy.prepare.make_upsampling_symbolic", lambda _: None)
    with pytest.raises(ValueError, match="logits at another shape: relative error"):
        to_onnx(ToOnnxConfig(run=line.run("segment"), out=tmp_path, flexible="size"))
    assert list(tmp_path.iterdir()) == []


def test_the_towers_of_a_pretraining_run_embed_as_open_clip_does(line: Line, tmp_path: Path) -> None:
    image_folder, text_folder = to_onnx(ToOnnxConfig(run=line.clip, out=tmp_path))
    clip, tokenizer, _ = build_clip("nano", 32)
    clip.load_state_dict(load_run(line.clip).weights)
    clip.eval()
    golden = load_golden(image_folder)["input"]
    tokens = tokenizer(["a red cube on a tiled floor", "IMG_1234.jpg"])
    with torch.no_grad():
        images = clip.encode_image(torch.from_numpy(golden).permute(0, 3, 1, 2) / 255, normalize=True).numpy()
        texts = clip.encode_text(tokens, normalize=True).numpy()
    image_model, text_model = OnnxModel(image_folder / "model.onnx"), OnnxModel(text_folder / "model.onnx")
    found = np.concatenate([image_model(image[None])["image_embedding"] for image in golden])
    assert relative_error(found, images) <= 1e-4
    found = np.concatenate([text_model(row[None])["text_embedding"] for row in tokens.numpy()])
    assert relative_error(found, texts) <= 1e-4
    assert load_artifact(text_folder).task == "embed-text"
    assert [*find_traces(image_folder), *find_traces(text_folder)] == []


def test_int8_says_what_was_quantized_and_what_it_cost(line: Line) -> None:
    folder = line.artifact("segment", "int8.onnx")
    parity, report = load_artifact(folder).parity, json.loads((folder / "int8.json").read_text())
    cost = parity["reference_miou_percent"] - parity["miou_percent"]
    assert parity["miou_drop_points"] == pytest.approx(cost)
    quantized = {node["name"] for node in report["nodes"] if node["quantized"]}
    assert len(quantized) == parity["int8_nodes"] > 0
    assert all(node["reason"] for node in report["nodes"])
    assert {trial["kind"] for trial in report["kinds"]} == {node["kind"] for node in report["nodes"]}
    graph = onnx.load(folder / "model.onnx").graph
    from_int8 = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    fed = {
        node.name for node in graph.node if node.op_type in ("Conv", "MatMul", "Gemm") and node.input[1] in from_int8
    }
    assert fed == quantized


def test_weights_are_quantized_channel_by_channel(line: Line) -> None:
    graph = onnx.load(line.artifact("segment", "int8.onnx") / "model.onnx").graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in constants]
    per_channel = [node for node in weights if constants[node.input[0]].dtype == np.int8]
    assert per_channel
    for node in per_channel:
        axis = next(a.i for a in node.attribute if a.name == "axis")
        assert constants[node.input[1]].shape == (constants[node.input[0]].shape[axis],)


def test_too_much_lost_accuracy_gives_nodes_back_and_then_refuses(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []

    def spoiled(cost: dict[str, float]) -> str:
        counts.append(cost["num_evaluated_images"])
        return "mIoU falls by 9.00 points, expected at most 0.5"

    monkeypatch.setattr("mobileclip_dense.deploy.onnx.quantize.excess", spoiled)
    monkeypatch.setattr("mobileclip_dense.deploy.gate.excess", spoiled)
    with pytest.raises(ValueError, match=r"int8: mIoU falls by 9\.00 points, .* pass --allow-accuracy-drop"):
        to_onnx(ToOnnxConfig(run=line.run("segment"), out=tmp_path, precision=("int8",)))
    assert len(counts) == 1 + len(mobileclip_dense.deploy.onnx.quantize._RETREAT) + 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        ({"miou_drop_points": 0.51}, "mIoU falls by 0.51 points"),
        ({"rmse_increase_percent": 2.1}, "RMSE grows by 2.10 %"),
        ({"mean_cosine": 0.98}, "mean cosine of the embeddings is 0.9800"),
        ({"mean_cosine": float("nan")}, "mean cosine"),
        ({"miou_drop_points": float("nan")}, "mIoU falls by nan"),
    ],
)
def test_the_gate_says_what_is_too_much(cost: dict[str, float], words: str) -> None:
    assert words in str(excess(cost))


def test_the_gate_lets_a_small_cost_pass() -> None:
    assert excess({"miou_drop_points": 0.49}) is None
    assert excess({"rmse_increase_percent": -0.3}) is None
    assert excess({"mean_cosine": 0.999}) is None


def test_profiles_and_flags_make_a_combination_that_exists(line: Line) -> None:
    web = ToOnnxConfig(run=line.clip).resolved()
    assert (web.precision, web.pixels, web.flexible) == (("fp32",), "uint8", "none")
    assert ToOnnxConfig(run=line.clip, profile="cpu-int8").resolved().precision == ("int8",)
    both = ToOnnxConfig(run=line.clip, profile="cpu-int8", precision=("fp16",), flexible="batch").resolved()
    assert (both.precision, both.flexible) == (("fp16",), "batch")
    with pytest.raises(ValueError, match="--flexible: found size with int8, expected none"):
        ToOnnxConfig(run=line.clip, profile="cpu-int8", flexible="size").resolved()
    for empty in (ToOnnxConfig(run=line.clip, precision=()), ToCoreMLConfig(run=line.clip, precision=())):
        with pytest.raises(ValueError, match="--precision: found none, expected at least one"):
            empty.resolved()


def test_a_text_tower_in_fp16_with_a_flexible_batch_is_refused_before_it_crashes(line: Line, tmp_path: Path) -> None:
    config = ToOnnxConfig(run=line.clip, out=tmp_path, precision=("fp16",), flexible="batch")
    with pytest.raises(ValueError, match="found batch with fp16, expected none for a text tower"):
        to_onnx(config)
    assert list(tmp_path.iterdir()) == []


def test_missing_calibration_images_are_named(line: Line, tmp_path: Path) -> None:
    run = load_run(line.run("segment"))
    (prepared,) = prepare(line.run("segment"), None)
    moved = dataclasses.replace(run.config, data=tmp_path / "gone")
    done = run_module(
        "mobileclip_dense", "export", "onnx", _with_data(line.run("segment"), tmp_path, moved.data), check=False
    )
    assert done.returncode == 1
    assert "gone: --data: no such file or folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert prepared.size_px == (64, 64)


def _with_data(run: Path, tmp_path: Path, data: Path) -> Path:
    """A copy of a run whose data has moved."""
    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("run.json", "weights.safetensors"):
        (copy / name).write_bytes((run / name).read_bytes())
    config = json.loads((run / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"data": str(data)}))
    return copy


def test_a_graph_of_an_older_operator_set_has_no_gelu(line: Line, tmp_path: Path) -> None:
    """The reason for opset 20: in older opsets, every GELU has five nodes."""
    (prepared,) = prepare(line.run("depth"), None)
    artifact = load_artifact(line.artifact("depth", "fp32.onnx"))
    export_graph(prepared, artifact, 18, tmp_path / "old.onnx")
    old = [node.op_type for node in onnx.load(tmp_path / "old.onnx").graph.node]
    new = [node.op_type for node in onnx.load(line.artifact("depth", "fp32.onnx") / "model.onnx").graph.node]
    assert "Gelu" not in old
    assert new.count("Gelu") == old.count("Erf") > 5
