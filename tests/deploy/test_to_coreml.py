"""Core ML in every precision and target. A wrong conversion must fail, not warn."""

import json
import shutil
from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
import torch

import mobileclip_dense.deploy.coreml.convert
import mobileclip_dense.deploy.coreml.mil.operators
from mobileclip_dense.artifact.artifact import load_artifact, save_artifact
from mobileclip_dense.config.export import ToCoreMLConfig, VerifyConfig
from mobileclip_dense.deploy.coreml.exporter import to_coreml
from mobileclip_dense.deploy.verify import verify
from tests.conftest import Line, run_module
from tests.traces import find_traces


def test_compressed_weights_shrink_the_file_and_stay_close(line: Line, tmp_path: Path) -> None:
    precisions = ("w8", "p8", "p4")
    folders = to_coreml(
        ToCoreMLConfig(run=line.run("segment"), out=tmp_path, precision=precisions, allow_accuracy_drop=True)  # type: ignore[arg-type]
    )
    folders.insert(0, line.artifact("segment", "fp16.coreml"))
    sizes = [sum(p.stat().st_size for p in (folder / "model.mlpackage").rglob("*")) for folder in folders]
    assert sizes[1] < 0.65 * sizes[0]
    assert sizes[3] < sizes[2] < 0.8 * sizes[0]
    fp16, w8, p8, p4 = (
        load_artifact(folder).parity[f"{precision}_relative_error"]
        for folder, precision in zip(folders, ("fp16", *precisions), strict=True)
    )
    assert load_artifact(folders[0]).parity["fp32_relative_error"] < 1e-5 < fp16 < w8 < 0.1
    assert p8 < p4 < 0.5
    assert [trace for folder in folders for trace in find_traces(folder)] == []
    spec = ct.models.MLModel(str(folders[3] / "model.mlpackage"), skip_model_load=True).get_spec()
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    assert sum(operation.type == "constexpr_lut_to_dense" for operation in block.operations) > 3


def test_int8_activations_are_calibrated_without_a_mac(line: Line, tmp_path: Path) -> None:
    config = ToCoreMLConfig(run=line.run("depth"), out=tmp_path, precision=("w8a8",), target="ios17",
                            allow_accuracy_drop=True)  # fmt: skip
    (folder,) = to_coreml(config)
    operations = json.loads((folder / "neural_engine.json").read_text())["operations"]
    assert operations["quantize"] > 10
    assert operations["constexpr_affine_dequantize"] > 10
    assert load_artifact(folder).parity["rmse_increase_percent"] < 20


@pytest.mark.parametrize("target", ["ios15", "ios18"])  # ios16 is the default, ios17 is tested with w8a8
def test_every_target_gives_its_own_specification(line: Line, tmp_path: Path, target: str) -> None:
    (folder,) = to_coreml(
        ToCoreMLConfig(run=line.run("depth"), out=tmp_path, target=target, allow_accuracy_drop=True)  # type: ignore[arg-type]
    )
    model = ct.models.MLModel(str(folder / "model.mlpackage"), skip_model_load=True)
    assert model.get_spec().specificationVersion == getattr(ct.target, target.replace("ios", "iOS")).value
    assert "depth_m" in model.output_description


def test_the_towers_of_a_pretraining_run_convert(line: Line, tmp_path: Path) -> None:
    image, text = to_coreml(ToCoreMLConfig(run=line.clip, out=tmp_path))
    assert load_artifact(image).parity["mean_cosine"] > 0.999
    artifact = load_artifact(text)
    assert (artifact.input.name, artifact.input.dtype) == ("tokens", "int32")
    assert artifact.parity["fp16_relative_error"] < 2e-2
    assert verify(VerifyConfig(artifact=text))["fp16_relative_error"] < 2e-2
    assert [*find_traces(image), *find_traces(text)] == []


@pytest.mark.parametrize(
    ("precision", "target", "needed"), [("p4", "ios15", "ios16"), ("w8", "ios15", "ios16"), ("w8a8", "ios16", "ios17")]
)
def test_a_target_that_cannot_store_a_precision_is_refused(
    line: Line, tmp_path: Path, precision: str, target: str, needed: str
) -> None:
    config = ToCoreMLConfig(run=line.run("depth"), out=tmp_path, precision=(precision,), target=target)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"--target: found {target} with {precision}, expected {needed} or later"):
        to_coreml(config)
    assert list(tmp_path.iterdir()) == []


def test_a_compression_that_compressed_nothing_is_refused(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network with all weights below coremltools' threshold."""
    monkeypatch.setattr("mobileclip_dense.deploy.coreml.compress.palettize", lambda model, *_: model)
    config = ToCoreMLConfig(run=line.run("depth"), out=tmp_path, precision=("p4",), allow_accuracy_drop=True)
    with pytest.raises(ValueError, match=r"p4: found no constexpr_lut_to_dense, .* too small to be compressed"):
        to_coreml(config)
    assert list(tmp_path.iterdir()) == []


def expect_failure(line: Line, out: Path) -> None:
    with pytest.raises(ValueError, match="coreml fp32: logits: relative error"):
        to_coreml(ToCoreMLConfig(run=line.run("segment"), out=out, allow_accuracy_drop=True))
    assert list(out.iterdir()) == []


def test_swapped_colours_stop_the_export(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_type = ct.ImageType
    monkeypatch.setattr(
        mobileclip_dense.deploy.coreml.convert.ct, "ImageType",
        lambda color_layout, **settings: image_type(color_layout=ct.colorlayout.BGR, **settings),
    )  # fmt: skip
    expect_failure(line, tmp_path)


def test_a_forgotten_scale_stops_the_export(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_type = ct.ImageType
    monkeypatch.setattr(ct, "ImageType", lambda scale, **settings: image_type(scale=1.0, **settings))
    expect_failure(line, tmp_path)


@pytest.mark.parametrize("operator", ["conv", "softmax", "reduce_mean"])
def test_a_wrong_operator_stops_the_export(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operator: str
) -> None:
    right = mobileclip_dense.deploy.coreml.mil.operators.OPERATORS[operator]

    def wrong(*arguments: object, **named: object) -> torch.Tensor:
        answer: torch.Tensor = right(*arguments, **named)
        return answer * 1.2 + 0.1

    wrong.__signature__ = __import__("inspect").signature(right)  # type: ignore[attr-defined]
    monkeypatch.setitem(mobileclip_dense.deploy.coreml.mil.operators.OPERATORS, operator, wrong)
    expect_failure(line, tmp_path)


def test_verify_notices_weights_of_another_training(line: Line, tmp_path: Path) -> None:
    """Files with valid hashes that do not compute the outputs in golden.npz."""
    folder = tmp_path / "mixed"
    shutil.copytree(line.artifact("depth", "fp16.coreml"), folder)
    artifact = load_artifact(folder)
    with np.load(folder / "golden.npz") as arrays:
        golden = {name: arrays[name] for name in arrays.files}
    np.savez_compressed(folder / "golden.npz", allow_pickle=False, **golden | {"depth_m": golden["depth_m"] * 1.1})
    save_artifact(artifact, folder)
    with pytest.raises(ValueError, match="coreml fp16: depth_m: relative error"):
        verify(VerifyConfig(artifact=folder))


def test_verify_measures_the_metric_and_bisects(line: Line) -> None:
    package = line.artifact("segment", "fp16.coreml")  # in an interpreter of its own, which imports torch late
    done = run_module("mobileclip_dense", "verify", package, "--data", line.scenes / "ade",
                      "--zero-is-other", "--max-images", 2, "--bisect", "1e-9", OMP_NUM_THREADS="1")  # fmt: skip
    assert "miou_percent" in done.stdout
    assert "leaves fp32 first" in done.stdout
    onnx = run_module("mobileclip_dense", "verify", line.artifact("depth", "fp32.onnx"), "--data", line.scenes / "nyu")
    assert "rmse_m" in onnx.stdout


def test_the_fused_attention_stays_within_four_axes(line: Line) -> None:
    report = json.loads((line.artifact("segment", "fp16.coreml") / "neural_engine.json").read_text())
    assert report["flags"] == []
    assert report["operations"]["softmax"] == 1
