"""The benchmarks of the exports at the smallest size, by the real command line."""

import json
from pathlib import Path

import pytest

from benchmarks.onnx_rivals import RivalsConfig, measure_rivals
from tests.conftest import Line, run_module


def test_our_onnx_exports_are_timed_against_their_rivals(line: Line, tmp_path: Path) -> None:
    run_module("mobileclip_dense", "export", "onnx", line.clip,
               "--precision", "fp32", "int8", "--out", tmp_path, "--allow-accuracy-drop",
               "--allow-slower")  # fmt: skip
    out = tmp_path / "rivals.json"
    done = run_module("benchmarks.onnx_rivals", line.clip, "--artifacts", tmp_path, "--runs", 5, "--out", out)
    result = json.loads(out.read_text())
    p50 = {name: latency["p50"] for name, latency in result["latency_ms"].items()}
    assert set(p50) == {"timm", "fused", "tutorial int8", "preprocessed int8", "ours fp32", "ours int8"}
    assert result["int8_against_our_fp32"] == pytest.approx(p50["ours fp32"] / p50["ours int8"])
    assert result["fp32_against_best_rival"] == pytest.approx(min(p50["timm"], p50["fused"]) / p50["ours fp32"])
    assert 0 < result["fp32_share_of_gemm_percent"] < 100
    assert "the best rival" in done.stdout
    again = run_module("benchmarks.onnx_rivals", line.clip, "--artifacts", tmp_path, "--out", out, check=False)
    assert again.returncode == 1
    assert "--force" in again.stderr


def test_rivals_want_a_pretraining_run_with_artifacts(line: Line, tmp_path: Path) -> None:
    for run, message in ((line.run("depth"), "found a fine-tuning run"), (line.clip, "export it with")):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            measure_rivals(RivalsConfig(run=run, artifacts=tmp_path, out=tmp_path / "x"))
        assert not (tmp_path / "x").exists()


def test_the_executor_is_timed_and_compared(line: Line, tmp_path: Path) -> None:
    folders = [line.artifact(task, "fp16.coreml") for task in ("segment", "depth")]
    run_module("benchmarks.mil_executor", *folders, "--out", tmp_path / "executor.json")
    result = json.loads((tmp_path / "executor.json").read_text())["artifacts"]
    segment, depth = (result[folder.name] for folder in folders)
    assert segment["golden_agreement_percent"] > 90
    assert depth["abs_rel_percent"] < 1
    assert 0 < depth["run_s"] < 10
