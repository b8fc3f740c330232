"""The registries of targets and precisions: unknown names raise an error, and entries cannot be replaced."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mobileclip_dense.artifact.artifact import load_artifact
from mobileclip_dense.artifact.outputs import claim_folder
from mobileclip_dense.artifact.precision import PRECISIONS, find_precision, register_precision
from mobileclip_dense.artifact.targets import TARGETS, Target, artifact_output, register_target
from tests.benchmarks.tiny_artifact import write_artifact


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("runtime", "tflite", "onnx, coreml"),
        ("precision", "int3", "fp32, fp16, int8"),
        ("precision", "w8", "fp32, fp16"),
    ],
)
def test_an_artifact_of_an_unknown_target_or_precision_is_refused(
    tmp_path: Path, field: str, value: str, expected: str
) -> None:
    folder = write_artifact(tmp_path / "a", "a")
    record = json.loads((folder / "artifact.json").read_text())
    (folder / "artifact.json").write_text(json.dumps(record | {field: value}))
    with pytest.raises(ValueError, match=rf"artifact\.json: {field}: found '{value}', expected one of {expected}"):
        load_artifact(folder)


def test_a_second_entry_of_a_name_is_refused() -> None:
    register_target(TARGETS["onnx"])
    with pytest.raises(ValueError, match="runtime: found 'onnx', which is registered already"):
        register_target(replace(TARGETS["onnx"], model_file="another.onnx"))
    register_precision(find_precision("onnx", "fp16"))
    with pytest.raises(ValueError, match="precision: found 'fp16', which onnx has already"):
        register_precision(replace(find_precision("onnx", "fp16"), max_relative_error=0.9))
    assert find_precision("onnx", "fp16").max_relative_error == 1e-2


def test_force_replaces_artifacts_of_targets_that_were_registered_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("artifact.json", "golden.npz", "model.bin", "notes.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(FileExistsError, match=r"model\.bin|notes\.json"):
        claim_folder(tmp_path, artifact_output(), force=True, inputs={})
    late = Target(runtime="late", model_file="model.bin", reports=("notes.json",), model="late:load")
    monkeypatch.setitem(TARGETS, "late", late)
    assert claim_folder(tmp_path, artifact_output(), force=True, inputs={})


def test_every_precision_belongs_to_a_target() -> None:
    assert {runtime for runtime, _ in PRECISIONS} == set(TARGETS)
    assert all((one.runtime, one.name) == key for key, one in PRECISIONS.items())
