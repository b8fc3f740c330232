import json
import shutil
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import onnx
import pytest
import torch
from mmseg.structures import SegDataSample
from safetensors.torch import save_file

import mobileclip_dense.deploy.prepared
from mobileclip_dense.artifact.artifact import load_artifact, load_golden
from mobileclip_dense.artifact.files import sha256_of
from mobileclip_dense.config.export import ToCoreMLConfig, ToOnnxConfig, VerifyConfig
from mobileclip_dense.dense.model import load_dense_run
from mobileclip_dense.deploy.coreml.exporter import to_coreml
from mobileclip_dense.deploy.coreml.inspect import verify_program
from mobileclip_dense.deploy.networks import FromPixels
from mobileclip_dense.deploy.onnx.exporter import to_onnx
from mobileclip_dense.deploy.onnx.quantize import candidates
from mobileclip_dense.deploy.prepare import prepare
from mobileclip_dense.deploy.verify import verify
from mobileclip_dense.models import reparam
from mobileclip_dense.models.reparam import fuse_model
from mobileclip_dense.run.folder import load_run
from mobileclip_dense.runtime.onnx_model import OnnxModel
from mobileclip_dense.runtime.parity import relative_error
from tests.conftest import Line, run_module

TASKS = ("segment", "depth")


@pytest.mark.parametrize("task", TASKS)
def test_the_onnx_model_gives_what_mmsegmentation_predicts(line: Line, task: str) -> None:
    """Against mmseg's prediction, which shares no code with our exporter, including preprocessing."""
    model, _, config = load_dense_run(line.run(task))
    folder = line.artifact(task, "fp32.onnx")
    golden = load_golden(folder)
    runtime = OnnxModel(folder / "model.onnx")
    for image in golden["input"]:
        bgr = torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))
        blank = SegDataSample(metainfo={"ori_shape": image.shape[:2], "img_shape": image.shape[:2]})
        data = model.data_preprocessor({"inputs": [bgr], "data_samples": [blank]}, training=False)
        with torch.no_grad():
            sample = model.predict(data["inputs"], data["data_samples"])[0]
        answer = runtime(image[None])
        if task == "segment":
            expected = sample.pred_sem_seg.data[0].numpy()
            assert (answer["class_map"][0] == expected).mean() >= 0.999
        else:
            expected = sample.pred_depth_map.data[0].numpy()
            assert relative_error(answer["depth_m"][0], expected) <= 1e-4
    assert config.task == task


@pytest.mark.parametrize("task", TASKS)
def test_parity_is_recorded_and_within_bounds(line: Line, task: str) -> None:
    parity = load_artifact(line.artifact(task, "fp32.onnx")).parity
    assert 0 < parity["fp32_relative_error"] <= 1e-4
    assert 0 <= parity["fusion_relative_error"] <= 1e-5


def test_the_graph_is_what_a_phone_wants(line: Line) -> None:
    model = onnx.load(line.artifact("segment", "fp32.onnx") / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    operators = [node.op_type for node in model.graph.node]
    assert "Gelu" in operators
    assert not {"Erf", "BatchNormalization"} & set(operators)
    (image,) = model.graph.input
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value for d in image.type.tensor_type.shape.dim] == [1, 64, 64, 3]
    assert [output.name for output in model.graph.output] == ["logits", "class_map"]
    assert list(candidates(model).values()).count("pointwise convolution") > 10
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(properties["mobileclip_dense.class_names"])[0] == "floor"


@pytest.mark.parametrize("task", TASKS)
def test_the_saved_mlpackage_is_what_it_should_be(line: Line, task: str) -> None:
    folder = line.artifact(task, "fp16.coreml")
    model = ct.models.MLModel(str(folder / "model.mlpackage"), skip_model_load=True)
    spec = model.get_spec()
    assert spec.specificationVersion == ct.target.iOS16.value
    assert spec.description.input[0].type.imageType.colorSpace == ct.proto.FeatureTypes_pb2.ImageFeatureType.RGB
    operations = json.loads((folder / "neural_engine.json").read_text())["operations"]
    assert operations["conv"] > 20
    assert "batch_norm" not in operations
    assert 0 < load_artifact(folder).parity["fp16_relative_error"] <= 2e-2
    metadata = dict(spec.description.metadata.userDefined)
    kind = "imageSegmenter" if task == "segment" else "depthEstimation"
    assert metadata["com.apple.coreml.model.preview.type"] == kind
    assert metadata["mobileclip_dense.task"] == task


def test_verify_accepts_every_artifact(line: Line) -> None:
    folders = list((line.root / "artifacts").iterdir())
    assert len(folders) == 5
    assert all(verify(VerifyConfig(artifact=folder)) for folder in folders)


def test_an_mlpackage_with_an_unfused_norm_or_another_input_is_refused(line: Line) -> None:
    folder = line.artifact("segment", "fp16.coreml")
    artifact = load_artifact(folder)
    other = load_artifact(line.artifact("depth", "fp16.coreml"))
    with pytest.raises(ValueError, match=r"outputs: found \['class_map', 'logits'\], expected \['depth_m'\]"):
        verify_program(folder / artifact.model_file, other)


def test_a_wrong_fusion_stops_the_export(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: torch.nn.Module) -> torch.nn.Module:
        fused = right(model)
        with torch.no_grad():
            fused.backbone.encoder.trunk.stem[0].reparam_conv.weight.mul_(1.001)
        return fused

    right = mobileclip_dense.deploy.prepared.fuse_model
    monkeypatch.setattr(mobileclip_dense.deploy.prepared, "fuse_model", wrong)
    with pytest.raises(ValueError, match="fusion: relative error"):
        to_onnx(ToOnnxConfig(run=line.run("segment"), out=tmp_path / "artifacts"))
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize("fold", ["_norm_affine", "_conv_norm", "_norm_linear", "_fold_scale", "_pointwise"])
def test_a_fault_in_any_fold_stops_the_export(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fold: str
) -> None:
    right = getattr(reparam, fold)

    def wrong(*layers: torch.nn.Module) -> Any:
        answer = right(*layers)
        if fold == "_norm_affine":
            return answer[0] * 1.01, answer[1]
        (layers[-1] if fold == "_fold_scale" else answer).weight.mul_(1.01)
        return answer

    monkeypatch.setattr(reparam, fold, wrong)
    with pytest.raises(ValueError, match="fusion: relative error"):
        to_onnx(ToOnnxConfig(run=line.run("segment"), out=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_run_with_fused_or_half_fused_weights_is_refused(line: Line, tmp_path: Path) -> None:
    model, _, _ = load_dense_run(line.run("depth"))
    for name, module in (("fused", fuse_model(model)), ("half", model)):
        if name == "half":
            model.backbone = fuse_model(model.backbone)
        copy = tmp_path / name
        shutil.copytree(line.run("depth"), copy)
        save_file({key: value.contiguous() for key, value in module.state_dict().items()}, copy / "weights.safetensors")
        record = json.loads((copy / "run.json").read_text())
        record["weights_sha256"] = sha256_of(copy / "weights.safetensors")
        (copy / "run.json").write_text(json.dumps(record))
        with pytest.raises(ValueError, match=r"weights\.safetensors does not fit config\.json: \d+ keys missing"):
            to_coreml(ToCoreMLConfig(run=copy, out=tmp_path / "artifacts"))
    assert not (tmp_path / "artifacts").exists()


def test_swapped_colours_in_the_graph_stop_the_export(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(line.run("segment"), None)

    class Swapped(FromPixels):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return super().forward(image.flip(-1))

    monkeypatch.setattr("mobileclip_dense.deploy.onnx.graph.FromPixels", Swapped)
    monkeypatch.setattr("mobileclip_dense.deploy.driver.prepare", lambda *_: prepared)
    with pytest.raises(ValueError, match="onnx fp32: logits: relative error"):
        to_onnx(ToOnnxConfig(run=line.run("segment"), out=tmp_path / "artifacts"))
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_existing_artifacts_are_not_overwritten(line: Line) -> None:
    with pytest.raises(FileExistsError, match="--force"):
        to_onnx(ToOnnxConfig(run=line.run("segment"), out=line.root / "artifacts"))
    with pytest.raises(FileExistsError, match="--force"):
        to_coreml(ToCoreMLConfig(run=line.run("segment"), out=line.root / "artifacts"))


def test_another_size_than_the_crop_exports(line: Line, tmp_path: Path) -> None:
    (folder,) = to_onnx(ToOnnxConfig(run=line.run("depth"), out=tmp_path, size_px=(64, 96)))
    assert load_artifact(folder).outputs[0].shape == (1, 64, 96)


def test_a_size_that_is_no_multiple_of_32_is_refused(line: Line, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--size-px: found 60 64, expected multiples of 32"):
        to_onnx(ToOnnxConfig(run=line.run("segment"), out=tmp_path, size_px=(60, 64)))


def test_a_damaged_run_is_refused_by_file(line: Line, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(line.run("segment"), run)
    weights = bytearray((run / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (run / "weights.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match=r"weights\.safetensors: sha256: .* the file was altered"):
        load_run(run)
    (run / "run.json").unlink()
    done = run_module("mobileclip_dense", "export", "onnx", run, "--out", tmp_path / "artifacts", check=False)
    assert done.returncode == 1
    assert "run.json is missing: the run is not complete" in done.stderr
    assert "Traceback" not in done.stderr
