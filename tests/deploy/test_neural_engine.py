"""The flags of the Neural Engine report, on small programs."""

from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb

from mobileclip_dense.deploy.coreml.mil.program import load_program
from mobileclip_dense.deploy.coreml.neural_engine import NeuralEngineReport, inspect_for_neural_engine


def inspect(tmp_path: Path, program: object, **settings: object) -> NeuralEngineReport:
    model = ct.convert(program, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS16, skip_model_load=True,
                       compute_precision=ct.precision.FLOAT32, **settings)  # fmt: skip
    model.save(str(tmp_path / "model.mlpackage"))
    return inspect_for_neural_engine(load_program(tmp_path / "model.mlpackage"))


WEIGHT = np.ones((4, 4, 3, 3), np.float32)


@mb.program(input_specs=[mb.TensorSpec((1, 4, 16, 16))])  # type: ignore[untyped-decorator]
def dilated(x):  # type: ignore[no-untyped-def]
    return mb.conv(x=mb.relu(x=x), weight=WEIGHT, dilations=[2, 2], name="wide")


@mb.program(input_specs=[mb.TensorSpec((1, 4, 4, 4))])  # type: ignore[untyped-decorator]
def five_axes(x):  # type: ignore[no-untyped-def]
    return mb.sigmoid(x=mb.reshape(x=mb.relu(x=x), shape=(1, 2, 2, 4, 4), name="split"), name="out")


@mb.program(input_specs=[mb.TensorSpec((1, 20000))])  # type: ignore[untyped-decorator]
def long_axis(x):  # type: ignore[no-untyped-def]
    return mb.sigmoid(x=mb.relu(x=x), name="long")


@pytest.mark.parametrize(
    ("program", "flag"),
    [(dilated, "conv of wide: dilated by 2"), (five_axes, "reshape of split: 5 axes, at most 4 are sure to run there"),
     (long_axis, "sigmoid of long: an axis of 20000, at most 16384 fits"),
     (dilated, "conv of wide: computes in float32")],
)  # fmt: skip
def test_what_falls_back_is_flagged(tmp_path: Path, program: object, flag: str) -> None:
    report = inspect(tmp_path, program)
    assert flag in report.flags
    assert report.flags[0] in report.summary()


def test_a_flexible_shape_is_flagged(tmp_path: Path) -> None:
    traced = torch.jit.trace(torch.nn.Conv2d(4, 4, 3).eval(), torch.zeros(1, 4, 16, 16))  # type: ignore[no-untyped-call]
    flexible = ct.TensorType(name="x", shape=ct.Shape((1, 4, ct.RangeDim(16, 64), 16)))
    report = inspect(tmp_path, traced, inputs=[flexible])
    assert report.flags[0] == "input x: flexible shape 1x4x?x16; the whole model may leave the engine"
