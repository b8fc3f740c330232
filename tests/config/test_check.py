"""Range checks of settings."""

import dataclasses
import math
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any

import pytest

from apps.web.__main__ import WebConfig
from benchmarks import (
    data_path,
    demo_throughput,
    dense_training,
    onnx_rivals,
    reinforce,
    training_memory,
    training_rival,
)
from benchmarks.caption_quality import caption_quality
from benchmarks.compare import compare
from benchmarks.coreml_device import measure as coreml_device
from benchmarks.startup import StartupConfig
from mobileclip_dense import config
from mobileclip_dense.apps.batch import BatchConfig
from mobileclip_dense.apps.classify import ClassifyConfig
from mobileclip_dense.apps.depth import DepthConfig
from mobileclip_dense.apps.latency import LatencyConfig
from mobileclip_dense.apps.segment import SegmentConfig

SETTINGS = [getattr(config, name) for name in config.__all__ if name.endswith("Config") and name != "Config"] + [
    caption_quality.CaptionQualityConfig,
    compare.CompareConfig,
    coreml_device.CoreMLDeviceConfig,
    data_path.DataPathConfig,
    demo_throughput.ThroughputConfig,
    dense_training.DenseTrainingConfig,
    LatencyConfig,
    onnx_rivals.RivalsConfig,
    reinforce.ThroughputConfig,
    training_memory.TrainingMemoryConfig,
    training_rival.TrainingRivalConfig,
    SegmentConfig,
    DepthConfig,
    ClassifyConfig,
    StartupConfig,
    WebConfig,
]
WRONG: dict[type, tuple[float, ...]] = {
    float: (math.nan, math.inf, -math.inf, 1e300, -1.0), int: (10**12, -(10**12), -1)
}  # fmt: skip


def parts(hint: Any) -> Iterator[Any]:
    """The types in a hint: float and None for float | None; tuple, int and int for tuple[int, int]."""
    if isinstance(hint, UnionType) or typing.get_origin(hint) is tuple:
        for part in typing.get_args(hint):
            yield from parts(part)
    else:
        yield hint


def required(settings: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(settings)
    names = [field.name for field in dataclasses.fields(settings) if field.default is dataclasses.MISSING]
    values: dict[Any, Any] = {Path: Path("x"), tuple[Path, ...]: (Path("x"),), tuple[str, ...]: ("x",)}
    given = {name: Path(name) if hints[name] is Path else values.get(hints[name], "segment") for name in names}
    return given | ({"artifact": "x"} if issubclass(settings, BatchConfig) else {})  # that or --sample


def numbers() -> list[Any]:
    found = []
    for settings in SETTINGS:
        for name, hint in typing.get_type_hints(settings).items():
            kinds = [kind for kind in parts(hint) if kind in (int, float)]
            is_tuple = any(typing.get_origin(part) is tuple for part in (hint, *typing.get_args(hint)))
            found += [
                pytest.param(settings, name, (wrong,) * len(kinds) if is_tuple else wrong,
                             id=f"{settings.__module__}.{settings.__name__}.{name}-{wrong}")
                for wrong in (WRONG[kinds[0]] if kinds else ())
            ]  # fmt: skip
    return found


@pytest.mark.parametrize(("settings", "field", "wrong"), numbers())
def test_every_number_out_of_range_is_refused_by_its_flag(settings: type[Any], field: str, wrong: Any) -> None:
    found = " ".join(map(str, wrong)) if isinstance(wrong, tuple) else str(wrong)
    with pytest.raises(ValueError, match="^" + re.escape(f"--{field.replace('_', '-')}: found {found}, expected ")):
        settings(**required(settings) | {field: wrong})


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (LatencyConfig, "threads"),
        (compare.CompareConfig, "threads"),
        (demo_throughput.ThroughputConfig, "threads"),
        (onnx_rivals.RivalsConfig, "threads"),
        (reinforce.ThroughputConfig, "threads"),
        (config.PretrainConfig, "num_workers"),
        (config.PretrainConfig, "devices"),
        (config.FinetuneConfig, "num_workers"),
        (config.ReinforceConfig, "num_workers"),
    ],
)
def test_thousands_of_threads_and_processes_are_refused(settings: type[Any], field: str) -> None:
    many = (5000,) if isinstance(settings(**required(settings)).__dict__[field], tuple) else 5000
    with pytest.raises(ValueError, match=f"--{field.replace('_', '-')}: found 5000, expected at most "):
        settings(**required(settings) | {field: many})


def test_numbers_of_a_run_that_are_not_finite_are_refused_with_its_file(tmp_path: Path) -> None:
    values = config.config_to_json(config.FinetuneConfig(data=Path("x"), out=Path("y")))
    with pytest.raises(ValueError, match=r"config\.json: --learning-rate: found nan, expected"):
        config.config_from_json(values | {"learning_rate": math.nan}, tmp_path / "config.json")
    with pytest.raises(ValueError, match=r"config\.json: --batch-size: found 16, expected a number"):
        config.config_from_json(values | {"batch_size": "16"}, tmp_path / "config.json")
