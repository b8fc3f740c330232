"""`python -m benchmarks.coreml_device ARTIFACT...`: latency of Core ML artifacts on this Mac or on an attached iPhone.

coremltools' benchmarker measures the latency and reports the compute plan: which operations run on the Neural Engine.
It needs macOS; for an iPhone it also needs Xcode, and the phone must be unlocked and in developer mode. Result files
have the schema of `mobileclip-dense latency`, one for each choice of compute units, each with its plan beside it.
"""

import asyncio
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from PIL import Image

from benchmarks.coreml_device.plan import NEURAL_ENGINE, NUM_WARMUP, Benchmarker, benchmark, summarize_plan
from benchmarks.coreml_device.result import coreml_result, load_coreml, result_path
from mobileclip_dense.artifact.artifact import Artifact, load_artifacts, load_golden
from mobileclip_dense.artifact.files import refuse_existing, write_json
from mobileclip_dense.artifact.result import result_names
from mobileclip_dense.config.check import require, require_numbers
from mobileclip_dense.runtime.latency_result import save_latency

ComputeUnits = Literal["ALL", "CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY"]


@dataclass(frozen=True, kw_only=True)
class CoreMLDeviceConfig:
    """Measure the latency and the compute plan of Core ML artifacts on this Mac or on an attached iPhone."""

    artifacts: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Artifact folders, NAME.coreml."""
    device: Literal["mac", "iphone"] = "mac"
    """mac: this Mac. iphone: the first attached iPhone."""
    compute_units: tuple[ComputeUnits, ...] = ("ALL", "CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY")
    """Compute units to measure. Each choice gives one result file."""
    runs: int = 100
    """Timed runs, after 5 warm-up runs."""
    development_team: str = ""
    """Apple's identifier of the team that signs coremltools' test app, for an attached device."""
    out: Path = Path("results")
    """Folder for the result files, ARTIFACT@DEVICE-UNITS.json, and the compute plans beside them, ...-plan.json."""
    force: bool = False
    """Replace existing result files."""

    def __post_init__(self) -> None:
        require(self, "artifacts", self.artifacts != (), "at least one artifact")
        require_numbers(self, "runs", at_least=1)


def measure_on_device(config: CoreMLDeviceConfig) -> list[Path]:
    """Write the result files and return their paths.

    Raises:
        ValueError: this is not a Mac, no such device is attached, or an artifact is not a Core ML artifact.
        FileNotFoundError: see `load_artifact`.
        FileExistsError: a result exists and --force was not given.
    """
    if sys.platform != "darwin":
        raise ValueError(
            f"coreml_device: found {sys.platform}, expected macOS: only Apple's systems run Core ML. "
            f"Here, `mobileclip-dense verify ARTIFACT` checks the numbers; measure on a Mac, or import "
            f"Xcode's report with `python -m benchmarks.xcode_report`"
        )
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
        result = coreml_result(
            artifact,
            digest,
            samples_ms,
            device=f"{name} {units}",
            system=system,
            runtime=f"coreml {units}",
            num_warmup=NUM_WARMUP,
        )
        plan = {**{key: result[key] for key in ("artifact", "artifact_sha256", "device")}, **summarize_plan(operations)}
        write_json(_plan_path(path), plan)
        p50, by_unit = result["latency_ms_by_threads"]["1"]["p50"], plan["operations_by_unit"]
        on_engine = f"{by_unit.get(NEURAL_ENGINE, 0)} of {sum(by_unit.values())} operations on the Neural Engine"
        save_latency(path, result, f"p50 {p50:.2f} ms; {on_engine}")
    return paths


def _plan_path(result: Path) -> Path:
    return result.with_name(f"{result.stem}-plan.json")


def take_array(spec: Any) -> None:
    """Replace the image input of a model by an array input, float [1,3,H,W] in 0..255, in place.

    coremltools 9 can send arrays to an attached device, but not images. The measurement then only lacks the copy of the
    pixels.
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
    """A benchmarker of the artifact, and its input, the first golden example."""
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
    """The first attached iPhone, with coremltools' test app installed.

    Raises:
        ValueError: no iPhone is attached, or it cannot be prepared.
    """
    from coremltools.models.ml_program.experimental.remote_device import AppSigningCredentials, Device, DeviceType

    try:
        found = Device.get_connected_devices(device_type=DeviceType(config.device))
        if not found:
            raise ValueError(f"no {config.device} is connected; attach it, unlock it, and trust this Mac")
        return await found[0].prepare_for_model_debugging(
            credentials=AppSigningCredentials(development_team=config.development_team)
        )
    except Exception as error:  # failures of devicectl and xcodebuild are raised as Exception
        raise ValueError(
            f"--device {config.device}: {error} (needs Xcode, developer mode on the device, and --development-team)"
        ) from None


def _describe_mac() -> tuple[str, str]:
    """The name and the system of this Mac."""
    answer = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
    return f"mac {answer.stdout.strip() or platform.machine()}", f"macOS {platform.mac_ver()[0]}"
