"""`python -m benchmarks.coreml_device ARTIFACT...`: Core ML artifacts on this Mac, or on an iPhone attached to it.

coremltools' own benchmarker times them and tells the compute plan: which operations run on the Neural Engine. Needs
macOS; for an iPhone also Xcode, the phone unlocked and in developer mode. Result files are of the same schema as
`benchmarks.latency`'s, one for each choice of compute units, each with its plan beside it.
"""

import asyncio
import platform
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import tyro
from PIL import Image

from mobileclip_dense.artifact.artifact import Artifact, load_artifact, load_artifacts, load_golden
from mobileclip_dense.artifact.files import refuse_existing, write_json
from mobileclip_dense.artifact.result import RESULT_SCHEMA_VERSION, check_result, result_names
from mobileclip_dense.command import run_with_settings
from mobileclip_dense.config.check import require, require_numbers
from mobileclip_dense.runtime.timing import summarize

NUM_WARMUP = 5
ComputeUnits = Literal["ALL", "CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY"]
_ENGINE = "neural engine"


@dataclass(frozen=True, kw_only=True)
class CoreMLDeviceConfig:
    """Measure Core ML artifacts on this Mac or on an attached iPhone, and where each operation runs."""

    artifacts: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Artifact folders, NAME.coreml."""
    device: Literal["mac", "iphone"] = "mac"
    """mac: this one; iphone: the first that is attached."""
    compute_units: tuple[ComputeUnits, ...] = ("ALL", "CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY")
    """One result file for each."""
    runs: int = 100
    """Timed runs, after 5 for warming up."""
    development_team: str = ""
    """Apple's identifier of the team that signs coremltools' test app, for an attached device."""
    out: Path = Path("results")
    """Folder for the result files, ARTIFACT@DEVICE-UNITS.json, and for the plans beside them, ...-plan.json."""
    force: bool = False
    """Replace result files that exist."""

    def __post_init__(self) -> None:
        require(self, "artifacts", self.artifacts != (), "at least one artifact")
        require_numbers(self, "runs", at_least=1)


class Benchmarker(Protocol):
    """The part of coremltools' MLModelBenchmarker that is used here."""

    async def benchmark_predict(self, inputs: dict[str, Any], iterations: int) -> Any:
        """A Measurement: `samples` in milliseconds."""

    async def benchmark_operation_execution(self, inputs: dict[str, Any], iterations: int) -> list[Any]:
        """An OperationExecutionInfo for each operation."""


def measure_on_device(config: CoreMLDeviceConfig) -> list[Path]:
    """Write the result files; their paths.

    Raises:
        ValueError: this is no Mac; no such device is attached; an artifact is no Core ML one. FileNotFoundError: see
            `load_artifact`. FileExistsError: a result exists and --force was not given.
    """
    if sys.platform != "darwin":
        raise ValueError(f"coreml_device: found {sys.platform}, expected macOS: only Apple's systems run Core ML. "
                         f"Here, `python -m export.verify ARTIFACT` checks the numbers; measure on a Mac, or import "
                         f"Xcode's report with `python -m benchmarks.xcode_report`")  # fmt: skip
    return asyncio.run(_measure_all(config))


async def _measure_all(config: CoreMLDeviceConfig) -> list[Path]:
    device = None if config.device == "mac" else await _attached_device(config)
    name, system = _describe_mac() if device is None else (device.name, f"{device.type.value} OS {device.os_version}")
    for folder in config.artifacts:
        load_coreml(folder)
    artifacts = load_artifacts(config.artifacts)
    names = result_names({digest: artifact.name for digest, (_, artifact) in artifacts.items()})
    keys = [(digest, units) for digest in artifacts for units in dict.fromkeys(config.compute_units)]
    paths = [result_path(config.out, names[digest], f"{name} {units}") for digest, units in keys]
    for path in paths:
        refuse_existing(path, config.force)
        refuse_existing(_plan_path(path), config.force)
    for (digest, units), path in zip(keys, paths, strict=True):
        folder, artifact = artifacts[digest]
        benchmarker, inputs = _open(folder, artifact, units, device)
        samples_ms, operations = await benchmark(benchmarker, inputs, config.runs)
        identity = (artifact.name, digest)
        result = device_result(identity, f"{name} {units}", system, f"coreml {units}", samples_ms, NUM_WARMUP)
        check_result(result, path)
        plan = {**{key: result[key] for key in ("artifact", "artifact_sha256", "device")}, **summarize_plan(operations)}
        write_json(_plan_path(path), plan)
        write_json(path, result)
        p50 = result["latency_ms_by_threads"]["1"]["p50"]
        print(f"{path}: p50 {p50:.2f} ms; {plan['operations_by_unit'].get(_ENGINE, 0)} of "
              f"{sum(plan['operations_by_unit'].values())} operations on the Neural Engine")  # fmt: skip
    return paths


async def benchmark(
    benchmarker: Benchmarker, inputs: dict[str, Any], num_runs: int
) -> tuple[list[float], list[dict[str, Any]]]:
    """Milliseconds of each run, and for each operation: name, type, the unit that will run it, those that could."""
    await benchmarker.benchmark_predict(inputs=inputs, iterations=NUM_WARMUP)
    measurement = await benchmarker.benchmark_predict(inputs=inputs, iterations=num_runs)
    infos = await benchmarker.benchmark_operation_execution(inputs=inputs, iterations=1)
    operations = []
    for info in infos:
        if info.spec.type == "const":
            continue
        usage = info.compute_device_usage
        operations.append(
            {
                "name": info.spec.outputs[0].name,
                "operation": info.spec.type,
                "unit": None if usage is None else _unit(usage.preferred_compute_device),
                "supported": [] if usage is None else [_unit(unit) for unit in usage.supported_compute_devices],
            }
        )
    return list(measurement.samples), operations


def summarize_plan(operations: list[dict[str, Any]]) -> dict[str, Any]:
    """How many operations run where, which types stay off the Neural Engine, and all of them."""
    off = Counter(op["operation"] for op in operations if op["unit"] not in (_ENGINE, None))
    return {
        "operations_by_unit": dict(Counter(op["unit"] or "not told" for op in operations).most_common()),
        "off_the_neural_engine": dict(off.most_common()),
        "operations": operations,
    }


def load_coreml(folder: Path) -> Artifact:
    """Raises ValueError if the artifact is not a Core ML one, and as `load_artifact`."""
    artifact = load_artifact(folder)
    if artifact.runtime != "coreml":
        raise ValueError(f"{folder}: runtime: found {artifact.runtime}, expected coreml; `python -m "
                         f"benchmarks.latency` measures ONNX")  # fmt: skip
    return artifact


def result_path(out: Path, name: str, device: str) -> Path:
    """Where the result of an artifact on a device goes; `name` as of `result_names`."""
    return out / f"{name}@{slug(device)}.json"


def _plan_path(result: Path) -> Path:
    return result.with_name(f"{result.stem}-plan.json")


def device_result(
    artifact: tuple[str, str], device: str, system: str, runtime: str, samples_ms: Sequence[float], num_warmup: int
) -> dict[str, Any]:
    """A result file's contents; Core ML chooses its threads itself, so they count as one.

    Args:
        artifact: its name and hash. samples_ms: milliseconds of each run.
    """
    name, digest = artifact
    return {
        "schema_version": RESULT_SCHEMA_VERSION,
        "artifact": name,
        "artifact_sha256": digest,
        "device": slug(device),
        "system": system,
        "runtime": runtime,
        "versions": {"coremltools": version("coremltools"), "python": platform.python_version()},
        "num_warmup": num_warmup,
        "peak_memory_mb": None,
        "latency_ms_by_threads": {"1": summarize(list(samples_ms))},
    }


def slug(name: str) -> str:
    """As a part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"


def take_array(spec: Any) -> None:
    """Let a model with an image input take the array that its program sees, float [1,3,H,W] in 0..255, in place.

    coremltools 9 sends arrays to an attached device, and no images. Only the copy of the pixels is left out by it.
    """
    from coremltools import proto

    mil, array = proto.MIL_pb2, proto.FeatureTypes_pb2.ArrayFeatureType
    kinds = {mil.FLOAT32: array.FLOAT32, mil.FLOAT16: array.FLOAT16}
    for feature in spec.description.input:
        if feature.type.WhichOneof("Type") == "imageType":
            (taken,) = (i for i in spec.mlProgram.functions["main"].inputs if i.name == feature.name)
            tensor = taken.type.tensorType
            feature.type.multiArrayType.shape.extend(axis.constant.size for axis in tensor.dimensions)
            feature.type.multiArrayType.dataType = kinds[tensor.dataType]


def _open(folder: Path, artifact: Artifact, units: str, device: Any) -> tuple[Benchmarker, dict[str, Any]]:
    """A benchmarker of the artifact, and its input: the first golden example."""
    import coremltools as ct
    from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker

    taken: Any = load_golden(folder)["input"][:1]
    choice = ct.ComputeUnit[units]
    model = ct.models.MLModel(str(folder / artifact.model_file), compute_units=choice, skip_model_load=True)
    if artifact.input.dtype == "uint8" and device is None:
        taken = Image.fromarray(taken[0])
    elif artifact.input.dtype == "uint8":
        spec = model.get_spec()
        take_array(spec)
        taken = taken.transpose(0, 3, 1, 2).astype("float32")
        model = ct.models.MLModel(spec, weights_dir=model.weights_dir, compute_units=choice, skip_model_load=True)
    return MLModelBenchmarker(model=model, device=device), {artifact.input.name: taken}


async def _attached_device(config: CoreMLDeviceConfig) -> Any:
    """The first iPhone, with coremltools' test app on it.

    Raises:
        ValueError: none is attached, or it cannot be prepared.
    """
    from coremltools.models.ml_program.experimental.remote_device import AppSigningCredentials, Device, DeviceType

    try:
        found = Device.get_connected_devices(device_type=DeviceType(config.device))
        if not found:
            raise ValueError(f"no {config.device} is connected; attach it, unlock it, and trust this Mac")
        return await found[0].prepare_for_model_debugging(
            credentials=AppSigningCredentials(development_team=config.development_team)
        )
    except Exception as error:  # devicectl's and xcodebuild's own come as plain Exception
        raise ValueError(f"--device {config.device}: {error} (needs Xcode, developer mode on the device, and "
                         f"--development-team)") from None  # fmt: skip


def _describe_mac() -> tuple[str, str]:
    """Name and system of this Mac."""
    answer = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
    return f"mac {answer.stdout.strip() or platform.machine()}", f"macOS {platform.mac_ver()[0]}"


def _unit(device: Any) -> str:
    """cpu, gpu or neural engine, of a compute device of coremltools."""
    kind = type(device).__name__.removeprefix("ML").removesuffix("ComputeDevice")
    return _ENGINE if kind == "NeuralEngine" else kind.lower()


if __name__ == "__main__":
    run_with_settings(CoreMLDeviceConfig, measure_on_device, "python -m benchmarks.coreml_device")
