"""Damaged packages on disk: each error names the file."""

import json
import shutil
from pathlib import Path

import coremltools as ct
import pytest
import torch
from coremltools.converters.mil import Builder as mb

from mobileclip_dense.deploy.coreml.mil.operators import OPERATORS
from mobileclip_dense.deploy.coreml.mil.program import load_program
from tests.deploy.test_mil_executor import convert
from tests.deploy.test_mil_operators import build_program, numbers

MODEL, WEIGHTS = "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with two constants in its weight file."""
    first, second = numbers(8, 4, 3, 3), numbers(16, 8, 1, 1)
    return build_program(
        tmp_path_factory.mktemp("mil"),
        lambda x: mb.conv(x=mb.conv(x=x, weight=first, pad_type="valid"), weight=second, pad_type="valid"),
        [numbers(1, 4, 5, 5)],
    ).package


@pytest.mark.parametrize("file", ["Manifest.json", MODEL, WEIGHTS])
def test_a_missing_file_is_named(file: str, whole: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(whole, tmp_path / "copy.mlpackage"))
    (copy / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"copy.mlpackage/{file}: "):
        load_program(copy)
    with pytest.raises(FileNotFoundError, match=r"none\.mlpackage: no such"):
        load_program(tmp_path / "none.mlpackage")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.9999])
@pytest.mark.parametrize("file", ["Manifest.json", MODEL, WEIGHTS])
def test_a_file_cut_short_is_named(file: str, share: float, whole: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(whole, tmp_path / "copy.mlpackage"))
    content = (copy / file).read_bytes()
    (copy / file).write_bytes(content[: min(int(len(content) * share), len(content) - 2)])
    with pytest.raises(ValueError, match=f"copy.mlpackage/{file}: "):
        load_program(copy)


def test_altered_packages_are_refused_by_file(whole: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(whole, tmp_path / "copy.mlpackage"))
    weights = bytearray((copy / WEIGHTS).read_bytes())
    (copy / WEIGHTS).write_bytes(bytes(64) + bytes(len(weights) - 64))
    with pytest.raises(ValueError, match=r"weight\.bin: .* the file is damaged"):
        load_program(copy)
    model = ct.proto.Model_pb2.Model.FromString((copy / MODEL).read_bytes())
    (copy / WEIGHTS).write_bytes(bytes(weights))
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    del block.operations[0]  # a constant that the others use
    (copy / MODEL).write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"model\.mlmodel: not a valid ML program"):
        load_program(copy)
    (copy / "Manifest.json").write_text(json.dumps({"itemInfoEntries": {}}))
    with pytest.raises(ValueError, match=r"Manifest\.json: found a missing or invalid field"):
        load_program(copy)


def test_unknown_operators_are_named_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.mlpackage: operator sinh of output 'strange': unknown, expected"):
        build_program(tmp_path, lambda x: mb.sinh(x=mb.relu(x=x), name="strange"), [numbers(3)])


def test_unknown_parameters_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, "clip", lambda *, x, alpha: x)
    with pytest.raises(ValueError, match=r"operator clip of output 'clipped': unknown parameters beta, expected x"):
        build_program(tmp_path, lambda x: mb.clip(x=x, alpha=0.0, beta=1.0, name="clipped"), [numbers(3)])


def test_a_program_that_hands_its_input_through_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.mlpackage: output x: computed by no operator"):
        build_program(tmp_path, lambda x: x, [numbers(3)])


def test_a_model_that_is_no_ml_program_is_refused(whole: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(whole, tmp_path / "copy.mlpackage"))
    model = ct.proto.Model_pb2.Model()
    model.neuralNetwork.layers.add(name="old")
    (copy / MODEL).write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"model\.mlmodel: found neuralNetwork .*, expected mlProgram with main only"):
        load_program(copy)


def test_a_grey_image_input_is_refused(tmp_path: Path) -> None:
    image = ct.ImageType(name="image", shape=(1, 1, 4, 5), color_layout=ct.colorlayout.GRAYSCALE)
    convert(torch.nn.ReLU(), torch.zeros(1, 1, 4, 5), [image], tmp_path / "grey.mlpackage")
    with pytest.raises(ValueError, match=r"grey\.mlpackage: input image: colour space GRAYSCALE, expected RGB or BGR"):
        load_program(tmp_path / "grey.mlpackage")
