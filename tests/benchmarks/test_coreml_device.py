"""Core ML on a device, with fakes made of coremltools' dataclasses, and the import of Xcode's reports."""

import asyncio
import dataclasses
import json
import plistlib
import sys
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.models.compute_device import MLCPUComputeDevice, MLNeuralEngineComputeDevice
from coremltools.models.compute_plan import MLComputePlanDeviceUsage
from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker

from benchmarks.coreml_device import measure
from benchmarks.coreml_device.measure import CoreMLDeviceConfig, measure_on_device, take_array
from benchmarks.coreml_device.plan import NUM_WARMUP, benchmark, summarize_plan
from benchmarks.coreml_device.xcode_report import XcodeReportConfig, import_report
from mobileclip_dense.artifact.artifact import Artifact, TensorSpec, save_artifact
from mobileclip_dense.artifact.result import check_result

REPORT = {
    "modelMetadata": {"fileName": "model", "size": 1000},
    "deviceInfo": {"modelName": "iPhone 16", "osNameAndVersionWithoutBuildNumber": "iOS 26.3.1"},
    "computeUnit": 2,
    "deviceResults": {"predict": {"samples": [0.004, 0.002, 0.003], "numOperations": 12}},
}


def operation(kind: str, name: str) -> Any:
    spec = ct.proto.MIL_pb2.Operation(type=kind)
    spec.outputs.add(name=name)
    return spec


def unit(kind: type) -> Any:
    return object.__new__(kind)  # a real one needs the proxy of a Mac


class FakeBenchmarker:
    """Answers with coremltools' classes; the first run is slow, as on a device."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    async def benchmark_predict(self, inputs: dict[str, Any], iterations: int) -> Any:
        self.calls.append(iterations)
        samples = [900.0] * iterations if len(self.calls) == 1 else [float(i + 1) for i in range(iterations)]
        return MLModelBenchmarker.Measurement.from_samples(samples)

    async def benchmark_operation_execution(self, inputs: dict[str, Any], iterations: int) -> list[Any]:
        engine, cpu = unit(MLNeuralEngineComputeDevice), unit(MLCPUComputeDevice)
        nothing = MLModelBenchmarker.Measurement.from_samples([])
        usages = (
            ("conv", MLComputePlanDeviceUsage(engine, [engine, cpu])),
            ("relu", MLComputePlanDeviceUsage(engine, [engine, cpu])),
            ("gather", MLComputePlanDeviceUsage(cpu, [cpu])),
            ("const", None),
            ("cast", None),
        )
        return [
            MLModelBenchmarker.OperationExecutionInfo(
                spec=operation(kind, f"{kind}_0"), path=None, compute_device_usage=usage, measurement=nothing
            )
            for kind, usage in usages
        ]


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An artifact folder with a dummy model file."""
    folder = tmp_path / "nano-segment-ade-64x64-fp16.coreml"
    (folder / "model.mlpackage").mkdir(parents=True)
    (folder / "model.mlpackage" / "Manifest.json").write_text("{}")
    np.savez(folder / "golden.npz", input=np.zeros((1, 64, 64, 3), np.uint8))
    taken = TensorSpec(name="image", shape=(1, 64, 64, 3), dtype="uint8", meaning="RGB")
    artifact = Artifact(
        name=folder.name, runtime="coreml", precision="fp16", task="segment", architecture="nano-semantic_fpn",
        input=taken, outputs=(), preprocessing="", class_names=(), palette=(), max_depth_m=None, logit_scale=None,
        num_parameters=1, parity={}, parent={}, versions={}, licence="",
    )  # fmt: skip
    save_artifact(artifact, folder)
    return folder


def test_samples_come_after_warming_up_and_the_plan_counts_real_operations() -> None:
    fake = FakeBenchmarker()
    samples, operations = asyncio.run(benchmark(fake, {}, 4))
    assert fake.calls == [NUM_WARMUP, 4]
    assert samples == [1.0, 2.0, 3.0, 4.0]
    plan = summarize_plan(operations)
    assert plan["operations_by_unit"] == {"neural engine": 2, "cpu": 1, "not told": 1}
    assert plan["off_the_neural_engine"] == {"gather": 1}
    assert operations[0] == {"name": "conv_0", "operation": "conv", "unit": "neural engine",
                             "supported": ["neural engine", "cpu"]}  # fmt: skip


def test_each_compute_unit_gets_a_result_of_the_schema_and_a_plan(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(measure, "_describe_mac", lambda: ("mac Apple M2", "macOS 15.1"))
    monkeypatch.setattr(measure, "_open", lambda *_: (FakeBenchmarker(), {}))
    config = CoreMLDeviceConfig(artifacts=(artifact,), compute_units=("ALL", "CPU_ONLY"), runs=3, out=tmp_path / "r")
    paths = measure_on_device(config)
    assert [path.name for path in paths] == [
        f"{artifact.name}@mac-apple-m2-all.json", f"{artifact.name}@mac-apple-m2-cpu-only.json",
    ]  # fmt: skip
    result = json.loads(paths[0].read_text())
    check_result(result, paths[0])
    assert (result["runtime"], result["latency_ms_by_threads"]["1"]["p50"]) == ("coreml ALL", 2.0)
    plan = json.loads(paths[0].with_name(f"{paths[0].stem}-plan.json").read_text())
    assert plan["artifact_sha256"] == result["artifact_sha256"]
    with pytest.raises(FileExistsError, match="--force"):
        measure_on_device(config)


def test_linux_is_refused_in_words(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected macOS.*mobileclip-dense verify.*xcode_report"):
        measure_on_device(CoreMLDeviceConfig(artifacts=(artifact,), out=tmp_path / "r"))
    assert not (tmp_path / "r").exists()


def test_an_image_input_becomes_the_array_that_the_program_takes() -> None:
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 32, 64))], opset_version=ct.target.iOS16)
    def program(image: Any) -> Any:
        return mb.relu(x=image, name="out")

    image = ct.ImageType(name="image", shape=(1, 3, 32, 64), scale=1 / 255)
    model = ct.convert(program, inputs=[image], convert_to="mlprogram", minimum_deployment_target=ct.target.iOS16)
    spec = model.get_spec()
    take_array(spec)
    (taken,) = spec.description.input
    assert taken.type.WhichOneof("Type") == "multiArrayType"
    assert list(taken.type.multiArrayType.shape) == [1, 3, 32, 64]
    assert taken.type.multiArrayType.dataType == ct.proto.FeatureTypes_pb2.ArrayFeatureType.FLOAT32
    ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)


def write_report(folder: Path, values: dict[str, Any]) -> Path:
    bundle = folder / "model.mlperf"
    bundle.mkdir(exist_ok=True)
    (bundle / "report.json").write_text(json.dumps(values))
    return bundle


def test_xcodes_report_becomes_a_result(artifact: Path, tmp_path: Path) -> None:
    config = XcodeReportConfig(report=write_report(tmp_path, REPORT), artifact=artifact, out=tmp_path)
    path = import_report(config)
    assert path.name == f"{artifact.name}@iphone-16-all.json"
    result = json.loads(path.read_text())
    check_result(result, path)
    assert result["latency_ms_by_threads"]["1"]["p50"] == pytest.approx(3.0)
    assert (result["system"], result["runtime"]) == ("iOS 26.3.1", "coreml ALL, by Xcode")
    broken = tmp_path / "broken.plist"
    for text in ("<dict>", "<dict><key>a</key><date>yesterday</date></dict></plist>"):
        broken.write_text(f"<?xml version='1.0'?><plist>{text}")
        with pytest.raises(ValueError, match=r"broken\.plist: not a readable property list"):
            import_report(dataclasses.replace(config, report=broken, force=True))
    plist = tmp_path / "report.plist"
    plist.write_bytes(plistlib.dumps(REPORT, fmt=plistlib.FMT_BINARY))
    again = dataclasses.replace(config, report=plist, force=True)
    assert json.loads(import_report(again).read_text()) == result


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"computeUnit": 7}, "computeUnit: found 7"),
        ({"computeUnit": "all"}, "computeUnit: found 'all', expected int"),
        ({"deviceResults": {"predict": {"samples": []}}}, r"samples: found \[\], expected seconds"),
        ({"deviceResults": {"predict": {"samples": [4, "x"]}}}, "expected seconds"),
        ({"deviceResults": {}}, "deviceResults.predict.samples: missing"),
        ({"deviceInfo": []}, "deviceInfo.modelName: missing"),
    ],
)
def test_another_report_is_refused_in_words(
    artifact: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    report = write_report(tmp_path, REPORT | change)
    with pytest.raises(ValueError, match=message + r".*does not document"):
        import_report(XcodeReportConfig(report=report, artifact=artifact, out=tmp_path / "r"))
    assert not (tmp_path / "r").exists()


def test_a_bundle_without_a_report_says_what_is_in_it(artifact: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "other.mlperf"
    bundle.mkdir()
    (bundle / "data.bin").write_bytes(b"\0")
    with pytest.raises(ValueError, match=r"report\.json: found data\.bin instead.*does not document"):
        import_report(XcodeReportConfig(report=bundle, artifact=artifact, out=tmp_path))
