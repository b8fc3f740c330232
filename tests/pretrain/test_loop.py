import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mobileclip_dense.config import PretrainConfig
from mobileclip_dense.pretrain.loop import build_optimizer, learning_rate_at
from mobileclip_dense.pretrain.retrieval import recall_at
from mobileclip_dense.run import read_metrics
from tests.conftest import REPOSITORY, SMALL_PRETRAIN, Line, run_module


def test_recall_on_a_case_worked_out_by_hand() -> None:
    similarity = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.3, 0.5], [0.2, 0.1, 0.7]])
    assert recall_at(similarity, 1) == pytest.approx(200 / 3)  # the second row's own is third
    assert recall_at(similarity, 2) == pytest.approx(200 / 3)
    assert recall_at(similarity, 3) == 100


def test_the_schedule_warms_up_and_ends_at_zero() -> None:
    config = PretrainConfig(data=Path("x"), out=Path("y"), steps=100, warmup_steps=10, learning_rate=1.0)
    assert learning_rate_at(0, config) == pytest.approx(0.1)
    assert learning_rate_at(9, config) == pytest.approx(1.0)
    assert learning_rate_at(55, config) == pytest.approx(0.5)
    assert learning_rate_at(100, config) == pytest.approx(0.0, abs=1e-7)


def test_biases_norms_and_the_temperature_do_not_decay() -> None:
    class Tiny(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(2, 3)
            self.norm = torch.nn.BatchNorm1d(3)
            self.logit_scale = torch.nn.Parameter(torch.ones([]))

    config = PretrainConfig(data=Path("x"), out=Path("y"), weight_decay=0.2)
    decayed, free = build_optimizer(Tiny(), config).param_groups
    assert decayed["weight_decay"] == 0.2
    assert [p.shape for p in decayed["params"]] == [(3, 2)]
    assert free["weight_decay"] == 0.0
    assert len(free["params"]) == 4


def test_a_run_folder_explains_itself(line: Line) -> None:
    record = json.loads((line.clip / "run.json").read_text())
    assert "pretrain nano-scenes" in record["command"]
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    assert record["metrics"]["num_pairs"] == 6
    config = json.loads((line.clip / "config.json").read_text())
    assert config["encoder"] == "nano"
    assert config["steps"] == 4


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(line: Line, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    command = ["mobileclip_dense", "pretrain", "nano-scenes", "--data", line.scenes / "shards", "--out", out,
               *SMALL_PRETRAIN, "--steps", "12", "--checkpoint-every", "4"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, command)], cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (out / "checkpoints" / "last.pt").exists()
    assert not (out / "run.json").exists()
    assert "resuming" in run_module(*command).stdout
    whole = tmp_path / "whole"
    run_module(*[whole if part == out else part for part in command])
    found, expected = (load_file(folder / "weights.safetensors") for folder in (out, whole))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [line["loss"] for line in read_metrics(out)] == [line["loss"] for line in read_metrics(whole)]


def test_a_complete_run_is_not_overwritten(line: Line) -> None:
    before = (line.clip / "weights.safetensors").read_bytes()
    again = run_module("mobileclip_dense", "pretrain", "nano-scenes", "--data", line.scenes / "shards", "--out",
                       line.clip, *SMALL_PRETRAIN, check=False)  # fmt: skip
    assert again.returncode == 1
    assert "this run is complete" in again.stderr
    assert (line.clip / "weights.safetensors").read_bytes() == before


def test_two_processes_train_the_same_weights_on_both(line: Line, tmp_path: Path) -> None:
    """DDP over gloo through the real command line: it runs, and its loss starts near ln(batch of both)."""
    scenes, out = tmp_path / "scenes", tmp_path / "two"
    run_module("mobileclip_dense", "scenes", "--out", scenes, "--num-images", 320, "--size-px", 32)
    run_module("mobileclip_dense", "pretrain", "nano-scenes", "--data", scenes / "shards", "--out", out,
               *SMALL_PRETRAIN, "--steps", "10", "--devices", "2")  # fmt: skip
    assert json.loads((out / "run.json").read_text())["metrics"]["num_pairs"] == 40
    assert 1.5 < read_metrics(out)[0]["loss"] < 4.5
