"""The extensions of mmengine's training engine: resuming, accumulation, bf16, the moving average."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner, set_random_seed
from torch import nn

from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.data.labelled.scan import check_set
from mobileclip_dense.dense.training.checkpoint import FIELDS
from mobileclip_dense.dense.training.engine import compile_settings, place_model
from mobileclip_dense.dense.training.train import (
    finalize_weights,
    finetune,
    fresh_model,
    resume_settings,
    runner_config,
)
from mobileclip_dense.models.encoders import Encoder
from mobileclip_dense.models.weights import load_encoder_weights
from mobileclip_dense.run.checkpoints import checkpoint_file, load_checkpoint, save_checkpoint, settle_checkpoints
from tests.conftest import Line
from tests.dense.test_processes import FixedStatistics, Recorder
from tests.pretraining.processes import run_world


def copy_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


class Own(Hook):
    """The BatchNorm statistics of this process's model, or of its moving average, at the end of training."""

    def after_train(self, runner: Runner) -> None:
        averages = [hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook)]
        model = averages[0] if averages else runner.model.module
        self.buffers = copy_buffers(model)


class Evaluated(Hook):
    """The BatchNorm statistics that a model is evaluated with."""

    def before_val_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        self.buffers = copy_buffers(runner.model.module)


class StopAfter(Hook):
    """Simulates a killed process."""

    def __init__(self, num_batches: int):
        self.num_batches = num_batches

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        if runner.iter + 1 == self.num_batches:
            raise KeyboardInterrupt


@pytest.fixture
def config(line: Line, tmp_path: Path) -> FinetuneConfig:
    return FinetuneConfig(
        data=line.scenes / "ade", out=tmp_path / "run", crop_size_px=(64, 64), batch_size=4, max_iters=4,
        warmup_iters=1, learning_rate=1e-3, drop_path_rate=0.0, neck_channels=8, head_channels=8, num_workers=0,
        checkpoint_every=1,
    )  # fmt: skip


def train(config: FinetuneConfig, *hooks: Hook, launcher: str = "none") -> Runner:
    """Train without augmentation, so that only the order is random; the model of the result has the final weights."""
    settings = runner_config(config, check_set(config))
    settings["train_dataloader"]["dataset"]["pipeline"] = settings["val_dataloader"]["dataset"]["pipeline"]
    settings["model"]["decode_head"]["dropout_ratio"] = 0.0
    settings["custom_hooks"] += hooks
    config.out.mkdir(exist_ok=True)
    set_random_seed(config.seed)
    model = place_model(fresh_model(settings["model"]))
    runner = Runner(**settings | resume_settings(config) | {"model": model}, launcher=launcher)
    runner.train()
    finalize_weights(runner)
    return runner


def test_a_resumed_run_ends_with_the_weights_of_one_that_was_never_stopped(config: FinetuneConfig) -> None:
    config = dataclasses.replace(config, accumulate=2, ema_decay=0.5)
    expected = train(dataclasses.replace(config, out=config.out.with_name("whole"))).model.state_dict()
    with pytest.raises(KeyboardInterrupt):
        train(config, StopAfter(5))  # within the third step of two batches each
    found = train(config).model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    plain = train(dataclasses.replace(config, out=config.out.with_name("plain"), ema_decay=0.0)).model.state_dict()
    assert not torch.equal(plain["decode_head.conv_seg.weight"], expected["decode_head.conv_seg.weight"])


class Weights(Hook):
    """The weights after each optimizer step."""

    def __init__(self, accumulate: int):
        self.accumulate, self.steps = accumulate, []

    def before_train(self, runner: Runner) -> None:
        self.steps.append(runner.model.decode_head.conv_seg.weight.detach().clone())

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        if (runner.iter + 1) % self.accumulate == 0:
            self.before_train(runner)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_moving_average_holds_every_step_and_the_last(config: FinetuneConfig, accumulate: int) -> None:
    weights = Weights(accumulate)
    runner = train(dataclasses.replace(config, accumulate=accumulate, ema_decay=0.5), weights)
    start, *steps = weights.steps
    assert len(steps) == 4
    average = steps[0]  # mmengine's first update copies
    for step in steps[1:]:
        average = 0.5 * average + 0.5 * step
    assert not torch.equal(start, steps[0])
    torch.testing.assert_close(runner.model.decode_head.conv_seg.weight.detach(), average)


def test_a_compiled_step_is_the_plain_one(config: FinetuneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced, but without minutes of code generation, which `benchmarks.dense_training --compile` covers."""
    compiler, asked = torch.compile, list[dict[str, Any]]()
    monkeypatch.setattr(torch, "compile", lambda step, **how: asked.append(how) or compiler(step, backend="aot_eager"))
    config = dataclasses.replace(config, max_iters=2, ema_decay=0.5)
    weights = []
    for compiled in (False, True):
        out = config.out.with_name(f"compiled-{compiled}")
        runner = train(dataclasses.replace(config, out=out, compile=compiled))
        weights.append(runner.model.decode_head.conv_seg.weight.detach())
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-3, atol=1e-4)
    assert asked == [compile_settings(dataclasses.replace(config, compile=True))]


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    config: FinetuneConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(dataclasses.replace(config, out=config.out.with_name("whole"))).model.state_dict()
    put = LocalBackend.put

    def full_disk(self: LocalBackend, data: bytes, path: str) -> None:
        put(self, data[: len(data) // 2], path)
        raise OSError("No space left on device")

    with pytest.raises(KeyboardInterrupt):
        train(config, StopAfter(2))
    with monkeypatch.context() as patch:
        patch.setattr(LocalBackend, "put", full_disk)
        with pytest.raises(OSError, match="No space"):
            train(config)
    moved = config.out.rename(config.out.with_name("moved"))
    assert [path.name for path in (moved / "checkpoints").glob("*.pt")] == ["last.pt"]
    found = train(dataclasses.replace(config, out=moved)).model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_a_run_goes_on_exactly_from_the_checkpoint_before_a_damaged_one(
    config: FinetuneConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(config, ema_decay=0.5)
    whole = train(dataclasses.replace(config, out=config.out.with_name("whole")))
    with pytest.raises(KeyboardInterrupt):
        train(config, StopAfter(3))
    last = checkpoint_file(config.out)
    os.truncate(last, last.stat().st_size // 2)
    settle_checkpoints(config.out, FIELDS)
    assert load_checkpoint(last)["meta"]["iter"] == 1  # the third step was stopped before it was saved
    assert "resuming from the checkpoint before it" in capsys.readouterr().err
    found, expected = train(config).model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    encoder = Encoder("nano")  # mmengine's checkpoint holds the average where others hold the weights
    load_encoder_weights(encoder, last)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, expected[f"backbone.encoder.{name}"])
    assert "'state_dict', where mmengine stores the moving average" in capsys.readouterr().out


def test_a_checkpoint_of_another_model_is_refused_where_mmengine_would_load_half_of_it(config: FinetuneConfig) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config, StopAfter(2))
    state = load_checkpoint(checkpoint_file(config.out))
    state["state_dict"]["decode_head.conv_seg.bias"] = torch.zeros(99)
    save_checkpoint(checkpoint_file(config.out), state)
    with pytest.raises(
        ValueError, match=r"last\.pt: checkpoint: found 1 keys that do not fit this run's model \(decode_head"
    ):
        train(config)


def test_another_number_of_processes_does_not_resume(config: FinetuneConfig) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config, StopAfter(2))
    state = load_checkpoint(checkpoint_file(config.out))
    save_checkpoint(checkpoint_file(config.out), state | {"num_processes": 2})
    with pytest.raises(ValueError, match=r"last\.pt: num_processes: found 1 processes, expected 2"):
        train(config)


def test_accumulated_gradients_are_those_of_the_whole_batch(config: FinetuneConfig) -> None:
    config = dataclasses.replace(config, learning_rate=0.0)  # a step of two batches has the rate of its second
    gradients = []
    for accumulate in (1, 2):
        recorder = Recorder()
        folder = config.out.with_name(f"accumulate-{accumulate}")
        train(dataclasses.replace(config, out=folder, accumulate=accumulate), FixedStatistics(), recorder)
        gradients.append([gradient for _, gradient in recorder.steps[accumulate - 1 :: accumulate]])
    assert [len(each) for each in gradients] == [4, 4]
    for whole, parts in zip(*gradients, strict=True):
        assert np.linalg.norm(parts - whole) <= 1e-5 * np.linalg.norm(whole)


def test_bf16_rounds_the_loss_and_no_more(config: FinetuneConfig) -> None:
    recorders = {precision: Recorder() for precision in ("32-true", "bf16-mixed")}
    for precision, recorder in recorders.items():
        folder = config.out.with_name(precision)
        train(dataclasses.replace(config, out=folder, max_iters=2, precision=precision), recorder)  # type: ignore[arg-type]
    exact, rounded = (recorder.steps[0][0] for recorder in recorders.values())
    assert exact != rounded
    assert abs(rounded - exact) <= 0.02 * exact


def buffers_of_training(rank: int, config: FinetuneConfig) -> list[dict[str, torch.Tensor]]:
    """BatchNorm statistics: of each process at the last step, in the evaluation, and in the saved run."""
    del rank
    own, evaluated = Own(), Evaluated()
    runner = train(config, own, evaluated, launcher="pytorch")
    runner.val_loop.run()
    return [own.buffers, evaluated.buffers, copy_buffers(runner.model.module)]


@pytest.mark.parametrize("ema_decay", [0.0, 0.5])
def test_statistics_of_all_processes_are_averaged_evaluated_and_kept(
    config: FinetuneConfig, tmp_path: Path, ema_decay: float
) -> None:
    answers = run_world(buffers_of_training, 2, tmp_path, dataclasses.replace(config, ema_decay=ema_decay))
    (own, evaluated, kept), (other_own, other_evaluated, other_kept) = answers
    names = [name for name in own if "running" in name]
    assert names
    for name in names:
        assert not torch.equal(own[name], other_own[name])
        torch.testing.assert_close(kept[name], (own[name] + other_own[name]) / 2)
        for same in (evaluated, other_evaluated, other_kept):
            assert torch.equal(same[name], kept[name])


def test_one_image_at_a_time_is_refused_for_upernet(config: FinetuneConfig) -> None:
    with pytest.raises(ValueError, match="batch_size: found 4 in micro-batches of one"):
        finetune(dataclasses.replace(config, head="upernet", accumulate=4))
    assert not config.out.exists()


@pytest.mark.parametrize("change", [{"max_train_images": 0}, {"scale_range": (2.0, 0.5)}, {"drop_path_rate": 1.0}])
def test_settings_out_of_range_are_refused_by_name(config: FinetuneConfig, change: dict[str, Any]) -> None:
    flag = next(iter(change)).replace("_", "-")
    with pytest.raises(ValueError, match=f"--{flag}: found"):
        dataclasses.replace(config, **change)
