"""Nothing is reported about the user: not by this package, and not by the libraries that it runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

from ray._common.usage.usage_lib import usage_stats_enabled

from mobileclip_dense import NO_TELEMETRY
from tests.conftest import REPOSITORY, SMALL_FINETUNE, Line

PACKAGES = sorted(path.parent.name for path in REPOSITORY.glob("*/__init__.py"))

# What may be in a home folder afterwards. All of it can be made again, and none of it identifies anybody.
KNOWN = {
    ".cache/mobileclip-dense",  # ours
    ".cache/matplotlib",  # a list of the fonts that are installed
    ".config/matplotlib",  # an empty folder
    ".cache/YAPF",  # Python's grammar, of the formatter by which mmengine writes a config
}

# Every audit event of the socket module in this process and those it starts, but for addresses of this machine.
WATCH = """
import os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        address = arguments[0] if event.startswith("socket.get") else arguments[1]
        host = address[0] if isinstance(address, tuple) else address
        if isinstance(host, str) and host not in ("localhost", "::1") and not host.startswith(("127.", "/")):
            with open(os.environ["CONNECTIONS"], "a") as file:
                file.write(f"{event} {host}\\n")
            raise OSError(f"{host}: the network is closed")

sys.addaudithook(watch)
"""

# Real commands one after the other in one process: importing torch and mmsegmentation takes most of the time.
RUN_COMMANDS = """
import json, runpy, sys

if __name__ == "__main__":
    for module, *arguments in json.load(open(sys.argv[1])):
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def test_packages_turn_telemetry_off_before_a_library_can_read_the_setting() -> None:
    """Whichever package a command or a script begins with; what the user has set stays."""
    assert {"apps", "benchmarks", "export", "mobileclip_dense", "tests"} <= set(PACKAGES)
    free = {name: value for name, value in os.environ.items() if name not in NO_TELEMETRY}
    for package in PACKAGES:
        code = f"import {package}, os, sys; print(*[os.environ[n] for n in {list(NO_TELEMETRY)}], *sys.modules)"
        for environment, first in ((free, "1"), (free | {"ORT_DISABLE_TELEMETRY": "0"}, "0")):
            done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True,
                                  text=True, check=True)  # fmt: skip
            told = done.stdout.split()
            assert told[:3] == [first, "0", "1"], package
            assert not {"onnxruntime", "ray", "huggingface_hub"} & set(told), package


def test_commands_leave_nothing_in_an_empty_home_and_connect_to_nobody(line: Line, tmp_path: Path) -> None:
    """Training, export, latency (with its worker process), demos and the report: all that run a library."""
    home, connections, hooks = (tmp_path / name for name in ("home", "connections", "hooks"))
    home.mkdir()
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(WATCH)
    (tmp_path / "run_commands.py").write_text(RUN_COMMANDS)
    runs, artifacts, results = (tmp_path / name for name in ("runs", "artifacts", "results"))
    segmenter = artifacts / line.artifact("segment", "fp32.onnx").name
    commands = [
        ("mobileclip_dense", "finetune", "nano-segment", "--data", line.scenes / "ade", "--out", runs / "segment",
         "--init", line.clip, *SMALL_FINETUNE, "--max-iters", 2),
        ("mobileclip_dense", "export", "onnx", runs / "segment", "--out", artifacts),
        ("mobileclip_dense", "latency", segmenter, "--runs", 2, "--threads", 1, "--out", results),
        ("mobileclip_dense", "segment", segmenter, line.photo, "--out", tmp_path / "classes"),
        ("mobileclip_dense", "report", "--runs", runs, "--artifacts", artifacts, "--results", results, "--out",
         tmp_path / "report.html"),
    ]  # fmt: skip
    (tmp_path / "commands.json").write_text(json.dumps([[str(word) for word in command] for command in commands]))
    environment = {name: value for name, value in os.environ.items() if name not in ("XDG_CACHE_HOME", *NO_TELEMETRY)}
    environment |= {"HOME": str(home), "CONNECTIONS": str(connections), "OMP_NUM_THREADS": "1",
                    "PYTHONPATH": f"{hooks}{os.pathsep}{REPOSITORY}"}  # fmt: skip
    done = subprocess.run([sys.executable, tmp_path / "run_commands.py", tmp_path / "commands.json"], cwd=tmp_path,
                          env=environment, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "report.html").is_file()
    assert not connections.exists(), connections.read_text()
    left = {path.relative_to(home).as_posix() for path in home.glob("*/*")}
    assert left <= KNOWN
    assert {path.name for path in home.iterdir()} <= {".cache", ".config"}


def test_ray_reports_nothing() -> None:
    assert not usage_stats_enabled()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
