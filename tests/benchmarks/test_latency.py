"""Latency of ONNX artifacts: no measurement is lost, and each names its artifact and device."""

import json
import os
from pathlib import Path

import pytest

from mobileclip_dense.apps.latency import LatencyConfig, measure_latency
from mobileclip_dense.artifact.artifact import artifact_sha256
from mobileclip_dense.artifact.result import check_result, result_names
from mobileclip_dense.runtime import device
from mobileclip_dense.runtime.device import count_usable_cores, device_name
from tests.benchmarks.tiny_artifact import write_artifact


def measure(*folders: Path | str, out: Path) -> dict[str, str]:
    """The artifact hash in each result file, by the name of the file before the @."""
    config = LatencyConfig(artifacts=tuple(map(Path, folders)), threads=(1,), runs=2, out=out)
    paths = measure_latency(config)
    assert sorted(paths) == sorted(out.iterdir())
    return {path.name.split("@")[0]: json.loads(path.read_text())["artifact_sha256"] for path in paths}


def test_artifacts_in_folders_of_the_same_name_each_get_a_result(tmp_path: Path) -> None:
    first, second = (write_artifact(tmp_path / part / "same.onnx", f"nano-{part}.onnx") for part in ("a", "b"))
    assert measure(first, second, out=tmp_path / "r") == {
        "nano-a.onnx": artifact_sha256(first), "nano-b.onnx": artifact_sha256(second)
    }  # fmt: skip


def test_artifacts_that_share_their_own_name_get_their_hash_into_the_file_name(tmp_path: Path) -> None:
    first = write_artifact(tmp_path / "a", "nano.onnx")
    second = write_artifact(tmp_path / "b", "nano.onnx", num_parameters=2)
    digests = [artifact_sha256(folder) for folder in (first, second)]
    assert measure(first, second, out=tmp_path / "r") == {f"nano.onnx-{one[:8]}": one for one in digests}


def test_an_artifact_is_named_by_itself_however_its_folder_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_artifact(tmp_path / "renamed" / "inner", "nano.onnx")
    (folder / "below").mkdir()
    (tmp_path / "link").symlink_to(folder)
    wanted = {"nano.onnx": artifact_sha256(folder)}
    monkeypatch.chdir(folder)
    assert measure(".", f"{folder}/", tmp_path / "link", folder, out=tmp_path / "r") == wanted
    monkeypatch.chdir(folder / "below")
    assert measure("..", out=tmp_path / "again") == wanted


def test_a_result_of_another_artifact_is_not_replaced_unasked(tmp_path: Path) -> None:
    measure(write_artifact(tmp_path / "a", "nano.onnx"), out=tmp_path / "r")
    (before,) = (tmp_path / "r").iterdir()
    text = before.read_text()
    with pytest.raises(FileExistsError, match=r"nano\.onnx@.*already exists.*--force"):
        measure(write_artifact(tmp_path / "b", "nano.onnx", num_parameters=2), out=tmp_path / "r")
    assert before.read_text() == text


def test_a_result_carries_the_architecture_of_its_artifact(tmp_path: Path) -> None:
    measure(write_artifact(tmp_path / "a", "nano.onnx"), out=tmp_path / "r")
    (path,) = (tmp_path / "r").iterdir()
    result = json.loads(path.read_text())
    assert result["architecture"] == "tiny"
    with pytest.raises(ValueError, match="architecture: found 3, expected str"):
        check_result(result | {"architecture": 3}, path)


def test_names_become_parts_of_file_names() -> None:
    names = {"1" * 64: "../../etc/passwd", "2" * 64: "a b:c", "3" * 64: "", "4" * 64: "Nano", "5" * 64: "nano"}
    assert list(result_names(names).values()) == [
        "etc-passwd", "a-b-c", "artifact", "Nano-44444444", "nano-55555555"
    ]  # fmt: skip


def test_the_device_is_named_by_the_cores_that_may_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Under taskset, and within the quota of a container."""
    monkeypatch.setattr(device, "_QUOTA", tmp_path / "cpu.max")
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert device_name().endswith("-1-cores")
    finally:
        os.sched_setaffinity(0, cores)
    assert device_name().endswith(f"-{len(cores)}-cores")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for text, expected in (("max 100000\n", 8), ("150000 100000\n", 2), ("5000 100000\n", 1), ("1600000 100000\n", 8)):
        (tmp_path / "cpu.max").write_text(text)
        assert count_usable_cores() == expected
