"""Training in two processes against training in one process with twice the batch size."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner, set_random_seed
from torch import nn

from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.data.labelled.scan import check_set
from mobileclip_dense.dense.training.engine import place_model
from mobileclip_dense.dense.training.train import fresh_model, runner_config
from tests.conftest import Line
from tests.pretraining.processes import run_world

STEPS = 3


class FixedStatistics(Hook):
    """Use stored BatchNorm statistics in both runs, because those of half a batch and a whole batch differ."""

    def before_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        for module in runner.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


class Recorder(Hook):
    """The loss of each micro-batch, and the gradient of the last step."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, np.ndarray]] = []
        self.gradient = np.empty(0)

    def before_train(self, runner: Runner) -> None:
        wrapper: OptimWrapper = runner.optim_wrapper
        step, parameters = wrapper.optimizer.step, list(runner.model.parameters())

        def recorded(*arguments: Any, **options: Any) -> Any:
            self.gradient = torch.cat([p.grad.flatten() for p in parameters]).numpy().copy()
            return step(*arguments, **options)

        wrapper.optimizer.step = recorded

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any, outputs: dict[str, Any]) -> None:
        self.steps.append((float(outputs["loss"].detach()), self.gradient))


def train_steps(rank: int, config: FinetuneConfig) -> list[tuple[float, np.ndarray]]:
    settings = runner_config(config, check_set(config))
    settings["train_dataloader"]["dataset"]["pipeline"] = settings["val_dataloader"]["dataset"]["pipeline"]
    settings["model"]["decode_head"]["dropout_ratio"] = 0.0
    recorder = Recorder()
    settings["custom_hooks"] = [recorder, FixedStatistics()]
    set_random_seed(config.seed)
    model = place_model(fresh_model(settings["model"]))
    Runner(**settings | {"model": model, "work_dir": f"{config.out}-{rank}"}, launcher="pytorch").train()
    return recorder.steps


def test_two_processes_take_the_steps_of_one_with_the_doubled_batch(line: Line, tmp_path: Path) -> None:
    common: dict[str, Any] = dict(
        data=line.scenes / "ade", crop_size_px=(64, 64), max_iters=STEPS, warmup_iters=0, drop_path_rate=0.0,
        num_workers=0, learning_rate=1e-3,
    )  # fmt: skip
    (one,) = run_world(train_steps, 1, tmp_path, FinetuneConfig(out=tmp_path / "one", batch_size=4, **common))
    first, second = run_world(train_steps, 2, tmp_path, FinetuneConfig(out=tmp_path / "two", batch_size=2, **common))
    assert len(one) == STEPS
    for (loss, gradient), (loss_0, gradient_0), (loss_1, gradient_1) in zip(one, first, second, strict=True):
        assert abs((loss_0 + loss_1) / 2 - loss) <= 1e-5 * loss
        assert np.array_equal(gradient_0, gradient_1)
        assert np.linalg.norm(gradient_0 - gradient) <= 1e-5 * np.linalg.norm(gradient)
    assert not np.allclose(one[0][1], one[1][1])
