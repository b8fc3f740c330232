"""The README's bash blocks, command by command, at the smallest size; and its figures, against their files."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY, SMALL_FINETUNE, SMALL_PRETRAIN

README = (REPOSITORY / "README.md").read_text()
SMALLER = {
    "mobileclip-dense scenes": ("--num-images", "48", "--size-px", "64"),
    "mobileclip-dense pretrain": SMALL_PRETRAIN,
    "mobileclip-dense finetune": SMALL_FINETUNE,
    "python -m benchmarks.latency": ("--runs", "5"),
}


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_the_commands_of_the_readme_run_in_their_order(tmp_path: Path) -> None:
    found = commands()
    assert len(found) >= 12
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    for command in found:
        smaller = next((flags for prefix, flags in SMALLER.items() if command.startswith(prefix)), ())
        arguments = shlex.split(command.replace("96x96", "64x64").replace("--size-px 96", ""))
        program = {"python": [sys.executable], "mobileclip-dense": [sys.executable, "-m", "mobileclip_dense"]}
        done = subprocess.run(
            [*program[arguments[0]], *arguments[1:], *smaller],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"
    assert (tmp_path / "report.html").exists()
    assert len(list((tmp_path / "pictures").iterdir())) == 2


def test_every_file_that_the_readme_names_exists() -> None:
    for name in re.findall(r"(?:\(|`)((?:docs|benchmarks/results)/[^)`\s]+)", README):
        assert (REPOSITORY / name).exists(), name


def test_the_measured_figures_are_those_of_their_files() -> None:
    results = REPOSITORY / "benchmarks" / "results"
    demo = json.loads((results / "demo.json").read_text())
    for verdict in demo["verdicts"]:
        assert verdict["sentence"] in README
    for row in demo["artifacts"]["rows"]:
        assert "| " + " | ".join(row) + " |" in README
    camvid = json.loads((results / "camvid-mci0.json").read_text())
    miou = camvid["runs"]["segment-mci0"]["metrics"]["mIoU"]
    assert f"mIoU {miou:.2f} %" in " ".join(README.split())
