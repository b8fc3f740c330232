"""Every table that a command prints fits 80 columns, with names as long as real ones and no cell above two lines."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import onnx_rivals, training_memory, training_rival
from benchmarks.compare import compare
from benchmarks.compare.rows import read_comparison
from mobileclip_dense.apps.drawing import describe_shares
from mobileclip_dense.apps.summary import format_summary
from mobileclip_dense.artifact.artifact import artifact_sha256, load_artifact
from mobileclip_dense.artifact.result import CPU_RUNTIME
from mobileclip_dense.data.labelled.check import describe_names
from mobileclip_dense.dense.evaluation import evaluate
from mobileclip_dense.dense.evaluation.measure import Measured
from mobileclip_dense.deploy.onnx.quantize import Int8Report, Node
from mobileclip_dense.pages import text_table
from mobileclip_dense.report.pretraining_gain import PretrainingGain
from mobileclip_dense.report.records import Records
from mobileclip_dense.report.report import _print_tables
from tests.benchmarks.tiny_artifact import write_artifact

REPOSITORY = Path(__file__).parent.parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
LONG_NAME = "mci2-fpn_lite-pruned-segment-camvid-256x320"
DEVICE = "intel-r-xeon-r-platinum-8480c-processor-2-cores"
MODULES_WITH_TABLES = {
    "mobileclip_dense/report/report.py",
    "mobileclip_dense/deploy/onnx/quantize.py",
    "mobileclip_dense/data/labelled/check.py",
    "mobileclip_dense/dense/evaluation/evaluate.py",
    "mobileclip_dense/apps/summary.py",
    "benchmarks/training_rival.py",
    "benchmarks/training_memory.py",
    "benchmarks/onnx_rivals.py",
    "benchmarks/compare/compare.py",
}


def report_tables(folder: Path) -> None:
    latency = {"p50": 1320.47, "p90": 1328.79, "p99": 1400.0, "mean": 1321.0, "num_runs": 100}
    base = {"artifact_sha256": "", "device": DEVICE, "peak_memory_mb": 1379.0,
            "latency_ms_by_threads": {"1": latency, "2": latency}}  # fmt: skip
    artifacts, results, elsewhere = [], {}, []
    for precision, runtime in (("fp32", "onnx"), ("int8", "onnx"), ("w8a8", "coreml")):
        name = f"{LONG_NAME}-{precision}.{runtime}"
        plain = load_artifact(write_artifact(folder / name, name, num_parameters=139_100_000))
        parity = {f"{precision}_relative_error": 4e-2, "miou_percent": 33.44, "reference_miou_percent": 33.66}
        changed = dataclasses.replace(plain, runtime=runtime, precision=precision, parity=parity)
        artifacts.append((folder / name, changed))
        digest = artifact_sha256(folder / name)
        results[digest] = [base | {"artifact_sha256": digest, "runtime": CPU_RUNTIME}]
        elsewhere.append(base | {"artifact_sha256": digest, "runtime": "onnxruntime-web wasm, 4 threads"})
    gain = PretrainingGain(task="segment", pretrained=[21.6, 21.5], scratch=[16.9, 16.2], gain=5.0, noise=0.7)
    records = Records(runs=[], artifacts=artifacts, results=results, elsewhere=elsewhere, left_out=[])
    _print_tables(records, [gain])


def int8_table(_: Path) -> None:
    reasons = ("faster", "smaller, not faster", "its kernel is not faster", "does not make the model faster",
               "too sensitive", "ONNX Runtime left it float")  # fmt: skip
    kinds = ("pointwise convolution", "depthwise convolution", "dense convolution", "matrix product", "addition")
    nodes = [Node(name=f"{kind}{reason}", kind=kind, float_ms=1234.5, error=0.01, quantized=reason == "faster",
                  reason=reason) for kind in kinds for reason in reasons]  # fmt: skip
    Int8Report(device=DEVICE, nodes=nodes, kinds=[], float_ms=1234.5, int8_ms=567.8, float_bytes=10**9,
               int8_bytes=10**8, cost={}).print()  # fmt: skip


def class_table(_: Path) -> None:
    rows = [{"name": "x" * 60, "iou_percent": 41.234, "accuracy_percent": None, "num_pixels": 10**9}]
    print(evaluate._summary(Measured(figures={"mIoU": 41.2}, classes=rows, images=[], pictures={})))


def demo_summary(_: Path) -> None:
    shares = {"traffic light": 0.5, "conveyer belt": 0.3, "swivel chair": 0.2}
    inputs = [{"input": "/home/someone/photographs/2026/summer/IMG_20260712_104512_burst_003.jpg", "shares": shares,
               "latency_ms": {"model": 1234.5}}]  # fmt: skip
    latency = {stage: {"p50": 1234.5, "p90": 2345.6} for stage in ("read", "model", "draw and write")}
    record = {"inputs": inputs, "failures": [{"input": "a" * 90}], "task": "segment", "latency_ms": latency,
              "num_frames": 1, "wall_time_s": 1.2, "wall_ms_per_frame": 1200.0, "model_share_percent": 90.0,
              "provider": "CPUExecutionProvider"}  # fmt: skip
    text = format_summary(record, "shares", lambda found: describe_shares(found, 3))
    print("\n".join(text.splitlines()[:-1]))  # the last line is a sentence


def ratio_table(_: Path) -> None:
    compare._print(dataclasses.replace(read_comparison((RESULTS,), 512), missing=[]))


def of_result(show: Callable[[dict[str, Any]], None], name: str) -> Callable[[Path], None]:
    return lambda _: show(json.loads((RESULTS / name).read_text()) | {"device": DEVICE})


TABLES: dict[str, Callable[[Path], None]] = {
    "report": report_tables,
    "int8": int8_table,
    "data check": lambda _: print(describe_names()),
    "evaluate": class_table,
    "demo": demo_summary,
    "compare": ratio_table,
    "training_rival": of_result(training_rival._print, "training-rival-mci0.json"),
    "training_memory": of_result(training_memory._print, "training-memory-mci2.json"),
    "onnx_rivals": of_result(onnx_rivals._print, "onnx-rivals-mci2.json"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_fits_80_columns(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    heights: list[int] = []
    watch_heights(monkeypatch, heights)
    TABLES[name](tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80, "\n".join(lines)
    assert max(heights, default=1) <= 2, "\n".join(lines)


def watch_heights(monkeypatch: pytest.MonkeyPatch, heights: list[int]) -> None:
    """Note the number of lines of each cell of a table."""
    wrap = text_table._wrap_cell

    def noted(cell: str, width: int) -> list[str]:
        lines = wrap(cell, width)
        heights.append(len(lines))
        return lines

    monkeypatch.setattr(text_table, "_wrap_cell", noted)


def test_no_table_is_left_out_of_this_test() -> None:
    found = {
        path.relative_to(REPOSITORY).as_posix()
        for top in ("mobileclip_dense", "benchmarks", "apps", "export")
        for path in (REPOSITORY / top).rglob("*.py")
        if "import print_table" in path.read_text() or "import format_table" in path.read_text()
    }
    assert found == MODULES_WITH_TABLES


def test_the_report_names_what_a_model_is_and_how_it_was_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_tables(tmp_path)
    shown = capsys.readouterr().out
    assert f"\n{LONG_NAME}\n  fp32.onnx      139.10 M " in shown
    assert "mIoU 33.4 % (before: 33.7)" in shown
    assert f"latency on {DEVICE}," in shown
