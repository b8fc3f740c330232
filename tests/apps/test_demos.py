"""The benchmark and the report through the real command line; what everything does with damaged artifacts."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from apps.demo import DemoConfig, demo, steps
from mobileclip_dense.apps.depth import DepthConfig, depth
from mobileclip_dense.apps.latency import LatencyConfig, measure_latency
from mobileclip_dense.apps.segment import SegmentConfig, segment
from mobileclip_dense.artifact.artifact import load_artifact
from mobileclip_dense.config.export import VerifyConfig
from mobileclip_dense.deploy.verify import verify
from mobileclip_dense.report.pretraining_gain import compare_with_scratch
from mobileclip_dense.report.records import RunFiles
from mobileclip_dense.report.report import ReportConfig, report
from mobileclip_dense.runtime.onnx_model import load_onnx_artifact
from tests.conftest import Line, run_module


def consumers(folder: Path, out: Path) -> list[Callable[[], object]]:
    """Everything that reads an artifact, as functions of the library; the command lines of the demos come on top."""
    every: list[Callable[[], object]] = [lambda: load_artifact(folder), lambda: verify(VerifyConfig(artifact=folder))]
    if folder.name.endswith(".onnx"):
        every += [
            lambda: load_onnx_artifact(folder),
            lambda: measure_latency(LatencyConfig(artifacts=(folder,), out=out)),
            lambda: segment(SegmentConfig(artifact=folder, inputs=(), out=out)),
            lambda: depth(DepthConfig(artifact=folder, inputs=(), out=out)),
        ]
    return every


@pytest.mark.parametrize("kind", ["fp32.onnx", "fp16.coreml"])
def test_without_any_one_of_its_files_an_artifact_is_refused_by_name(line: Line, tmp_path: Path, kind: str) -> None:
    original = line.artifact("segment", kind)
    names = [path.relative_to(original) for path in original.rglob("*") if path.is_file()]
    assert len(names) >= 3
    for name in names:
        copy = tmp_path / original.name
        shutil.copytree(original, copy)
        (copy / name).unlink()
        for consumer in consumers(copy, tmp_path / "out"):
            with pytest.raises(FileNotFoundError, match=name.name.replace(".", r"\.")):
                consumer()
        shutil.rmtree(copy)


def test_an_altered_file_is_refused_by_name_on_the_command_line(line: Line, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(line.artifact("segment", "fp32.onnx"), copy)
    for name in ("model.onnx", "golden.npz"):
        original = (copy / name).read_bytes()
        (copy / name).write_bytes(original + b" ")
        done = run_module("mobileclip_dense", "segment", copy, line.photo, "--out", tmp_path / "out", check=False)
        assert done.returncode == 1
        assert f"{name}: sha256" in done.stderr
        assert "the file was altered" in done.stderr
        (copy / name).write_bytes(original)


def test_latency_writes_a_result_that_names_its_artifact(line: Line, tmp_path: Path) -> None:
    folders = [line.artifact("segment", kind) for kind in ("fp32.onnx", "int8.onnx")]
    run_module("mobileclip_dense", "latency", *folders, "--threads", 1, 2, "--runs", 5, "--out", tmp_path)
    results = [json.loads(path.read_text()) for path in sorted(tmp_path.iterdir())]
    assert [result["artifact"] for result in results] == [folder.name for folder in folders]
    for result in results:
        for latencies in result["latency_ms_by_threads"].values():
            assert 0 < latencies["p50"] <= latencies["p90"] <= latencies["p99"]
            assert latencies["num_runs"] == 5
        assert result["peak_memory_mb"] > 0
        assert result["versions"]["onnxruntime"]
    again = run_module("mobileclip_dense", "latency", *folders, "--out", tmp_path, check=False)
    assert again.returncode == 1
    assert "pass --force" in again.stderr


def test_the_report_is_one_page_with_every_artifact(line: Line, tmp_path: Path) -> None:
    artifacts = line.root / "artifacts"
    run_module(
        "mobileclip_dense", "latency", line.artifact("depth", "fp32.onnx"), "--runs", 3, "--out", tmp_path / "results"
    )
    (measured,) = (tmp_path / "results").iterdir()
    phone = {**json.loads(measured.read_text()), "device": "chrome-156-android-8-cores",
             "runtime": "onnxruntime-web wasm", "peak_memory_mb": None}  # fmt: skip
    (tmp_path / "results" / "phone.json").write_text(json.dumps(phone))
    (tmp_path / "results" / "demo-throughput.json").write_text("{}")  # what another benchmark writes there
    done = run_module("mobileclip_dense", "report", "--runs", line.root / "runs", "--artifacts", artifacts, "--results",
                      tmp_path / "results", "--out", tmp_path / "report.html")  # fmt: skip
    page = (tmp_path / "report.html").read_text()
    for folder in artifacts.iterdir():
        assert folder.name in page
        stem, _, export = folder.name.rpartition("-")  # the table groups the exports of a model
        assert f"\n{stem}\n" in done.stdout
        assert f"\n  {export} " in done.stdout
    for text in (page, done.stdout):
        assert "chrome-156-android-8-cores" in text
    assert page.count("data:image/png;base64,") >= 1 + 2 * 6  # curves, and six examples of each task
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize(("name", "spoil", "message"), [
    ("metrics.jsonl", lambda text: text + '{"step": 5, "lo', "metrics.jsonl: line 3: found '{\"step\": 5, \"lo'"),
    ("run.json", lambda text: text.replace('"metrics"', '"figures"'), "run.json: metrics: found nothing, expected"),
    ("run.json", None, "found no run that is complete"),
])  # fmt: skip
def test_a_damaged_run_is_named(tmp_path: Path, name: str, spoil: Callable[[str], str] | None, message: str) -> None:
    """And nothing is written; nor where the JSON would replace a file."""
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    record = dict.fromkeys(("versions", "seed", "device", "wall_time_s", "weights_sha256", "parent"))
    files = {"config.json": "{}", "run.json": json.dumps(record | {"metrics": {}}), "metrics.jsonl": "{}\n{}\n"}
    for file, text in files.items():
        (run / file).write_text(text)
    if spoil is None:
        (run / name).unlink()
    else:
        (run / name).write_text(spoil(files[name]))
    config = ReportConfig(runs=tmp_path / "runs", out=tmp_path / "page.html", artifacts=tmp_path, results=tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        report(config)
    (tmp_path / "page.json").write_text("precious")
    with pytest.raises(FileExistsError, match=r"page\.json: already exists"):
        report(config)
    with pytest.raises(ValueError, match=r"page\.json, expected another suffix"):
        report(dataclasses.replace(config, out=tmp_path / "page.json", force=True))
    assert not config.out.exists()


def run_files(seed: int, start: str | None, miou: float) -> RunFiles:
    config = {"task": "segment", "seed": seed, "init": start, "out": f"{seed}{start}", "encoder": "nano"}
    return RunFiles(folder=Path("x"), config=config, record={"metrics": {"mIoU": miou}}, curve=[])


@pytest.mark.parametrize(
    ("pretrained", "supported"), [((30.0, 31.0), True), ((26.0, 27.5), False), ((20.0, 21.0), False)]
)
def test_the_verdict_needs_more_than_seed_noise(pretrained: tuple[float, float], supported: bool) -> None:
    runs = [run_files(seed, "clip", value) for seed, value in enumerate(pretrained)]
    runs += [run_files(seed, None, value) for seed, value in enumerate((25.0, 27.0))]
    (verdict,) = compare_with_scratch(runs)
    assert verdict.supported == supported
    assert ("did NOT help" in verdict.sentence()) != supported


def test_one_seed_proves_nothing() -> None:
    (verdict,) = compare_with_scratch([run_files(0, "clip", 30.0), run_files(0, None, 20.0)])
    assert "not testable" in verdict.sentence()


def test_the_demo_replaces_no_folder_of_somebody_else(tmp_path: Path) -> None:
    for name in ("logs/scenes.log", "runs/clip/run.json", "results/nano-x@a-chip-2-cores.json", "report.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("of a demo")
    for mine in ("thesis.tex", "runs/my-own/run.json", "results/nano-x@a-phone.json", "artifacts/mine.onnx/model.onnx"):
        path = tmp_path / mine
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("mine")
        with pytest.raises(FileExistsError, match=f"found {re.escape(mine)}, expected only a demo; move it away"):
            demo(DemoConfig(out=tmp_path))
        assert path.read_text() == "mine"
        path.unlink()


def test_the_demo_orders_its_steps_as_they_depend_on_each_other(tmp_path: Path) -> None:
    plan = steps(tmp_path)
    seen: set[str] = set()
    for step in plan:
        assert seen.issuperset(step.after), step.name
        seen.add(step.name)
    assert len(seen) == len(plan)
