"""Core ML artifacts on a Mac, where Core ML itself runs them. No Mac is at hand: Core ML is replaced by the executor."""

import json
import sys
from pathlib import Path
from typing import Any

import coremltools
import numpy as np
import pytest
from PIL import Image

import mobileclip_dense as mcd
from mobileclip_dense.apps.latency import LatencyConfig, measure_latency
from mobileclip_dense.apps.segment import SegmentConfig, segment
from mobileclip_dense.artifact.artifact import load_artifact
from mobileclip_dense.deploy.coreml.mil.predictor import load_program_predictor
from tests.conftest import Line


@pytest.fixture
def on_a_mac(line: Line, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Pretend to be macOS; returns what was given to Core ML's predict."""
    taken: list[Any] = []
    artifact = load_artifact(line.artifact("segment", "fp16.coreml"))
    true_model = coremltools.models.MLModel

    class CoreML:
        """As on macOS: a model that takes PIL images and gives float outputs by name."""

        def __new__(cls, path: str, **settings: Any) -> Any:
            return true_model(path, **settings) if settings.get("skip_model_load") else super().__new__(cls)

        def __init__(self, path: str) -> None:
            self.program = load_program_predictor(Path(path), artifact)

        def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
            taken.append(inputs["image"])
            return dict(self.program(np.asarray(inputs["image"])[None]))

    monkeypatch.setattr(coremltools.models, "MLModel", CoreML)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("mobileclip_dense.runtime.device.peak_resident_mb", lambda: 0.0)
    monkeypatch.setattr("mobileclip_dense.apps.latency.measure_peak_memory_mb", lambda folder: 1.0)
    return taken


def test_predict_demo_verify_and_latency_run_in_core_ml(line: Line, on_a_mac: list[Any], tmp_path: Path) -> None:
    folder = line.artifact("segment", "fp16.coreml")
    found = mcd.load(folder).predict(line.photo)
    assert isinstance(found, mcd.Segmentation)
    assert isinstance(on_a_mac[0], Image.Image)
    segment(SegmentConfig(artifact=str(folder), inputs=(str(line.photo),), out=tmp_path))
    written = np.asarray(Image.open(tmp_path / f"{line.photo.stem}-classes.png"))
    assert (written == found.class_map).all()
    assert json.loads((tmp_path / "segment-summary.json").read_text())["provider"] == "coreml"
    before = len(on_a_mac)
    assert mcd.verify(folder)["golden_agreement_percent"] > 99
    assert len(on_a_mac) > before
    (result,) = measure_latency(LatencyConfig(artifacts=(str(folder),), runs=1, out=tmp_path / "results"))
    record = json.loads(result.read_text())
    assert record["runtime"] == "coreml"
    assert list(record["latency_ms_by_threads"]) == ["1"]
    assert "coremltools" in record["versions"]


def test_elsewhere_a_demo_refuses_a_core_ml_artifact(line: Line) -> None:
    with pytest.raises(ValueError, match="runtime: found coreml, which runs on darwin only .* use the ONNX artifact"):
        mcd.load(line.artifact("segment", "fp16.coreml"))


def test_a_package_that_core_ml_cannot_load_is_refused(
    line: Line, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("unsupported opset")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(coremltools.models, "MLModel", fail)
    with pytest.raises(
        ValueError, match=r"model.mlpackage: model: Core ML cannot load this package \(unsupported opset"
    ):
        mcd.load(line.artifact("segment", "fp16.coreml"))
