"""`python -m benchmarks.xcode_report REPORT --artifact ARTIFACT`: convert a performance report of Xcode to a result.

Apple does not document the format. Xcode 16 writes a bundle NAME.mlperf with a report.json. These fields of it are
used, and any unexpected value is an error:

    deviceInfo.modelName, deviceInfo.osNameAndVersionWithoutBuildNumber    the device and its system, text
    computeUnit                                                            0..3, as in Core ML's MLComputeUnits
    deviceResults.predict.samples                                          seconds of each prediction

The report does not contain the compute plan; `python -m benchmarks.coreml_device` does.
"""

import math
import plistlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from xml.parsers.expat import ExpatError

import tyro

from benchmarks.coreml_device.result import coreml_result, load_coreml, result_path
from benchmarks.harness import ResultSettings
from mobileclip_dense.artifact.artifact import artifact_sha256
from mobileclip_dense.artifact.files import read_json, refuse_existing
from mobileclip_dense.artifact.result import result_names
from mobileclip_dense.runtime.latency_result import save_latency

_UNITS = {0: "CPU_ONLY", 1: "CPU_AND_GPU", 2: "ALL", 3: "CPU_AND_NE"}
_ELSE = "Apple does not document the format; `python -m benchmarks.coreml_device` measures the same on a Mac"


@dataclass(frozen=True, kw_only=True)
class XcodeReportConfig(ResultSettings):
    """Convert a performance report of Xcode's model viewer to a result file for `report` and `compare`."""

    report: Annotated[Path, tyro.conf.Positional]
    """NAME.mlperf as saved by Xcode, or the report.json (or property list) inside it."""
    artifact: Path
    """Core ML artifact folder of the model in the report."""
    out: Path = Path("results")
    """Folder for the result file, ARTIFACT@DEVICE-UNITS.json."""


def import_report(config: XcodeReportConfig) -> Path:
    """Write the result file and return its path.

    Raises:
        FileNotFoundError: the report or the artifact is missing.
        ValueError: the report has an unexpected format; the message says what was found.
        FileExistsError: the result exists and --force was not given.
    """
    artifact = load_coreml(config.artifact)
    digest = artifact_sha256(config.artifact)
    source, values = _read(config.report)
    device = _field(values, "deviceInfo.modelName", source, str)
    system = _field(values, "deviceInfo.osNameAndVersionWithoutBuildNumber", source, str)
    units = _field(values, "computeUnit", source, int)
    samples_s = _field(values, "deviceResults.predict.samples", source, list)
    if units not in _UNITS:
        raise ValueError(f"{source}: computeUnit: found {units}, expected one of {sorted(_UNITS)}; {_ELSE}")
    if not samples_s or not all(isinstance(s, int | float) and math.isfinite(s) and 0 < s < 600 for s in samples_s):
        raise ValueError(f"{source}: deviceResults.predict.samples: found {samples_s[:3]}, expected seconds; {_ELSE}")
    name = f"{device} {_UNITS[units]}"
    path = result_path(config.out, result_names({digest: artifact.name})[digest], name)
    refuse_existing(path, config.force)
    samples_ms = [1e3 * sample for sample in samples_s]
    result = coreml_result(
        artifact,
        digest,
        samples_ms,
        device=name,
        system=system,
        runtime=f"coreml {_UNITS[units]}, by Xcode",
        num_warmup=0,
    )
    p50 = result["latency_ms_by_threads"]["1"]["p50"]
    save_latency(path, result, f"p50 {p50:.2f} ms over {len(samples_ms)} predictions")
    return path


def _read(path: Path) -> tuple[Path, dict[str, Any]]:
    """The path and the contents of the report file."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such report")
    if path.is_dir():
        source = path / "report.json"
        if not source.is_file():
            names = ", ".join(sorted(p.relative_to(path).as_posix() for p in path.rglob("*"))[:10]) or "nothing"
            raise ValueError(f"{path}: report.json: found {names} instead; {_ELSE}")
        return source, read_json(source)
    if path.read_bytes()[:8] == b"bplist00" or path.suffix == ".plist":
        try:
            values = plistlib.loads(path.read_bytes())
        except (plistlib.InvalidFileException, ExpatError, ValueError, AttributeError) as error:
            raise ValueError(f"{path}: not a readable property list ({error}); {_ELSE}") from None
        if not isinstance(values, dict):
            raise ValueError(f"{path}: found a list, expected a dictionary; {_ELSE}")
        return path, values
    return path, read_json(path)


def _field(values: dict[str, Any], name: str, source: Path, kind: type) -> Any:
    found: Any = values
    for part in name.split("."):
        if not isinstance(found, dict) or part not in found:
            raise ValueError(f"{source}: {name}: missing; found {', '.join(sorted(values)[:10]) or 'nothing'}; {_ELSE}")
        found = found[part]
    if not isinstance(found, kind) or isinstance(found, bool):
        raise ValueError(f"{source}: {name}: found {found!r}, expected {kind.__name__}; {_ELSE}")
    return found
