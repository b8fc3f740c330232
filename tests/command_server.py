"""Runs `python -m MODULE ...` in forks of a process that has imported the libraries: importing them takes seconds.

As a program it is that process: a request is a line of JSON on stdin, its exit status a line on stdout. A command has a
process, arguments, a working folder, an environment and output files of its own, and leaves through the interpreter's
own end; only what it imports was imported before. So it must not need variables that libraries read while they are
imported.
"""

import json
import os
import runpy
import subprocess
import sys
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

IMPORTED = (
    "mobileclip_dense.analysis.attention_distance",
    "mobileclip_dense.analysis.captions",
    "mobileclip_dense.analysis.features",
    "mobileclip_dense.dense.evaluation.evaluate",
    "mobileclip_dense.dense.prune",
    "mobileclip_dense.deploy.coreml.exporter",
    "mobileclip_dense.deploy.onnx.int8",
    "mobileclip_dense.deploy.verify",
    "mobileclip_dense.models.convert",
    "mobileclip_dense.pretraining.loop",
    "mobileclip_dense.pretraining.reinforce",
    "tests.frozen",
)


class CommandServer:
    """Starts with the first command; `close` ends it."""

    def __init__(self, repository: Path):
        self.repository = repository
        self.process: subprocess.Popen[str] | None = None

    def run(self, arguments: list[str], cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run([python, "-m", *arguments], ..., capture_output=True, text=True)` gives."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.command_server"], cwd=self.repository, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
            )  # fmt: skip
        assert self.process.stdin and self.process.stdout
        with TemporaryDirectory() as scratch:
            out, err = Path(scratch) / "out", Path(scratch) / "err"
            request = {
                "arguments": arguments,
                "cwd": str(cwd),
                "environment": environment,
                "output": [str(out), str(err)],
            }
            print(json.dumps(request), file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
            assert answer, "the command server ended"
            return subprocess.CompletedProcess(arguments, int(answer), out.read_text(), err.read_text())

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.communicate()


def serve() -> None:
    """Answer requests until stdin ends."""
    for module in IMPORTED:
        __import__(module)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            run_command(request)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run_command(request: dict[str, Any]) -> None:
    """Become the command; does not return."""
    for descriptor, (path, mode) in enumerate(((os.devnull, "r"), *((path, "w") for path in request["output"]))):
        with Path(path).open(mode) as file:
            os.dup2(file.fileno(), descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    module, *_ = sys.argv = request["arguments"]
    sys.path[0] = request["cwd"]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    serve()
