"""What the training engine adds to mmengine's: resuming, accumulation, bf16, the moving average."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner, set_random_seed
from torch import nn

from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.data.scan import check_set
from mobileclip_dense.dense.engine import place_model
from mobileclip_dense.dense.train import _take_average, finetune, fresh_model, runner_config
from tests.conftest import Line
from tests.dense.test_processes import FixedStatistics, Recorder
from tests.pretrain.processes import run_world


class StopAfter(Hook):
    """As if the process was killed."""

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


def train(config: FinetuneConfig, *hooks: Hook, launcher: str = "none") -> nn.Module:
    """Train on images as they are, so that nothing is drawn but the order; the model with averaged weights."""
    settings = runner_config(config, check_set(config))
    settings["train_dataloader"]["dataset"]["pipeline"] = settings["val_dataloader"]["dataset"]["pipeline"]
    settings["model"]["decode_head"]["dropout_ratio"] = 0.0
    settings["custom_hooks"] += hooks
    config.out.mkdir(exist_ok=True)
    set_random_seed(config.seed)
    model = place_model(fresh_model(settings["model"]))
    runner = Runner(**settings | {"model": model}, launcher=launcher)
    runner.train()
    _take_average(runner)
    return model


def test_a_resumed_run_ends_with_the_weights_of_one_that_was_never_stopped(config: FinetuneConfig) -> None:
    config = dataclasses.replace(config, accumulate=2, ema_decay=0.5)
    expected = train(dataclasses.replace(config, out=config.out.with_name("whole"))).state_dict()
    with pytest.raises(KeyboardInterrupt):
        train(config, StopAfter(5))  # within the third step of two batches each
    found = train(config).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    plain = train(dataclasses.replace(config, out=config.out.with_name("plain"), ema_decay=0.0)).state_dict()
    assert not torch.equal(plain["decode_head.conv_seg.weight"], expected["decode_head.conv_seg.weight"])


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


def buffers_after_training(rank: int, config: FinetuneConfig) -> dict[str, torch.Tensor]:
    del rank
    return dict(train(config, launcher="pytorch").named_buffers())


def test_processes_end_with_the_same_averaged_statistics(config: FinetuneConfig, tmp_path: Path) -> None:
    first, second = run_world(buffers_after_training, 2, tmp_path, dataclasses.replace(config, ema_decay=0.5))
    assert any("running_mean" in name for name in first)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_one_image_at_a_time_is_refused_for_upernet(config: FinetuneConfig) -> None:
    with pytest.raises(ValueError, match="batch_size: found 4 in micro-batches of one"):
        finetune(dataclasses.replace(config, head="upernet", accumulate=4))
    assert not config.out.exists()


@pytest.mark.parametrize("change", [{"max_train_images": 0}, {"scale_range": (2.0, 0.5)}, {"drop_path_rate": 1.0}])
def test_settings_out_of_range_are_refused_by_name(config: FinetuneConfig, change: dict[str, Any]) -> None:
    flag = next(iter(change)).replace("_", "-")
    with pytest.raises(ValueError, match=f"--{flag}: found"):
        dataclasses.replace(config, **change)
