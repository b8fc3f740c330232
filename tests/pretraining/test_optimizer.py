from pathlib import Path

import pytest
import torch

from mobileclip_dense.config import PretrainConfig
from mobileclip_dense.pretraining.optimizer import build_optimizer, learning_rate_at


def config(**changes: float) -> PretrainConfig:
    return PretrainConfig(data=("x",), out=Path("y"), **changes)  # type: ignore[arg-type]


def test_the_schedule_warms_up_and_ends_at_zero() -> None:
    schedule = config(steps=100, warmup_steps=10, learning_rate=1.0)
    assert learning_rate_at(0, schedule) == pytest.approx(0.1)
    assert learning_rate_at(9, schedule) == pytest.approx(1.0)
    assert learning_rate_at(55, schedule) == pytest.approx(0.5)
    assert learning_rate_at(100, schedule) == pytest.approx(0.0, abs=1e-7)


def test_biases_norms_and_the_temperature_do_not_decay() -> None:
    class Tiny(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(2, 3)
            self.norm = torch.nn.BatchNorm1d(3)
            self.logit_scale = torch.nn.Parameter(torch.ones([]))

    decayed, free = build_optimizer(Tiny(), config(weight_decay=0.2)).param_groups
    assert decayed["weight_decay"] == 0.2
    assert [p.shape for p in decayed["params"]] == [(3, 2)]
    assert free["weight_decay"] == 0.0
    assert len(free["params"]) == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [("clip_grad_norm", 0.0), ("learning_rate", 0.0), ("weight_decay", -0.1), ("beta2", 1.0), ("seed", -1)],
)
def test_settings_under_which_nothing_trains_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"--{field.replace('_', '-')}: found {value}, expected"):
        config(**{field: value})
