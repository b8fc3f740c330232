"""`python -m benchmarks.startup`: how long imports and `--help` take, beside an empty program and beside timm."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import ResultSettings, provenance, save_result
from mobileclip_dense.artifact.files import refuse_existing
from mobileclip_dense.command import run_with_settings
from mobileclip_dense.config.check import require_numbers
from mobileclip_dense.runtime.device import device_name
from mobileclip_dense.runtime.timing import summarize, time_in_turn

PROGRAMS = {
    "python -c pass": ("-c", "pass"),
    "import mobileclip_dense": ("-c", "import mobileclip_dense"),
    "mobileclip-dense --help": ("-m", "mobileclip_dense", "--help"),
    "mobileclip-dense segment --help": ("-m", "mobileclip_dense", "segment", "--help"),
    "import timm": ("-c", "import timm"),
}


@dataclass(frozen=True, kw_only=True)
class StartupConfig(ResultSettings):
    """Measure the start of the package: processes in turn, wall time from start to end."""

    out: Path = Path("results/startup.json")
    """Result file."""
    runs: int = 10
    """Timed starts of each program, after two that are not counted."""

    def __post_init__(self) -> None:
        require_numbers(self, "runs", at_least=1)


def measure_startup(config: StartupConfig) -> dict[str, Any]:
    """Write the result file and return its contents.

    Raises:
        FileExistsError: the file exists and --force was not given.
    """
    refuse_existing(config.out, config.force)
    actions: list[Callable[[], object]] = [
        partial(subprocess.run, [sys.executable, *program], check=True, stdout=subprocess.DEVNULL)
        for program in PROGRAMS.values()
    ]
    times_ms = time_in_turn(actions, config.runs, num_warmup=2, progress="startup")
    wall_ms = {name: summarize(times) for name, times in zip(PROGRAMS, times_ms, strict=True)}
    empty = wall_ms["python -c pass"]["p50"]
    result = {
        **provenance(device_name(), "mobileclip-dense", "tyro", "timm", "torch"),
        "num_warmup": 2,
        "wall_ms": wall_ms,
        "import_ms": wall_ms["import mobileclip_dense"]["p50"] - empty,
    }
    help_ms = wall_ms["mobileclip-dense --help"]["p50"]
    return save_result(config.out, result, f"import {result['import_ms']:.0f} ms, --help {help_ms:.0f} ms")


if __name__ == "__main__":
    run_with_settings(StartupConfig, measure_startup, "python -m benchmarks.startup")
