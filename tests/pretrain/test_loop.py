import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from open_clip.loss import ClipLoss
from safetensors.torch import load_file

from mobileclip_dense.config import PretrainConfig
from mobileclip_dense.pretrain.loop import build_optimizer, learning_rate_at
from mobileclip_dense.pretrain.retrieval import recall_at
from mobileclip_dense.run import read_metrics
from tests.conftest import REPOSITORY, SMALL_PRETRAIN, Line, run_module


def features(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pair = [torch.nn.functional.normalize(torch.randn(8, 16, generator=generator), dim=1) for _ in range(2)]
    return pair[0], pair[1]


def loss_and_gradient(image: torch.Tensor, text: torch.Tensor, rank: int, world: int) -> tuple[float, torch.Tensor]:
    image = image.clone().requires_grad_()
    loss_function = ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=world)
    loss = loss_function(image, text, torch.tensor(14.0))
    loss.backward()
    assert image.grad is not None
    return loss.item(), image.grad


def in_process(rank: int, port: int, answers: "mp.SimpleQueue[object]") -> None:
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    image, text = (tensor.chunk(2)[rank] for tensor in features(0))
    loss, gradient = loss_and_gradient(image, text, rank, 2)
    answers.put((rank, loss, gradient.numpy()))
    torch.distributed.destroy_process_group()


def test_the_loss_of_two_processes_is_that_of_one_with_the_whole_batch() -> None:
    image, text = features(0)
    loss, gradient = loss_and_gradient(image, text, 0, 1)
    context = mp.get_context("spawn")
    answers = context.SimpleQueue()
    processes = [context.Process(target=in_process, args=(rank, 29617, answers)) for rank in range(2)]
    for process in processes:
        process.start()
    parts = {rank: (value, torch.from_numpy(grad)) for rank, value, grad in (answers.get() for _ in processes)}
    for process in processes:
        process.join()
    assert sum(value for value, _ in parts.values()) / 2 == pytest.approx(loss, rel=1e-6)
    # DDP averages gradients over processes, so each process's gradient counts half.
    together = torch.cat([parts[rank][1] for rank in range(2)]) / 2
    torch.testing.assert_close(together, gradient, rtol=1e-5, atol=1e-7)


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
