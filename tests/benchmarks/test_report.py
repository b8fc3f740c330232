"""The report lists usable records, names file and field of the others, and keeps devices apart."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from mobileclip_dense.artifact.artifact import artifact_sha256
from mobileclip_dense.artifact.result import CPU_RUNTIME
from mobileclip_dense.report.report import ReportConfig, report
from tests.benchmarks.tiny_artifact import WEIGHTS_SHA256, write_artifact

LATENCY = {"p50": 1.5, "p90": 2.5, "p99": 3.5, "mean": 1.6, "num_runs": 5}
RECORD = {"versions": {}, "seed": 0, "device": "cpu", "wall_time_s": 3.0, "weights_sha256": WEIGHTS_SHA256,
          "metrics": {"mIoU": 41.5}, "parent": None, "reduce_zero_label": False}  # fmt: skip
SETTINGS = {"command": "finetune", "task": "segment", "encoder": "nano", "seed": 0, "init": None, "data": "/gone/ade",
            "out": "/gone/run"}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> ReportConfig:
    """A run, an artifact of it, and its latency on two devices."""
    write_run(tmp_path / "runs" / "good")
    write_artifact(tmp_path / "artifacts" / "nano.onnx", "nano.onnx")
    config = ReportConfig(runs=tmp_path / "runs", artifacts=tmp_path / "artifacts", results=tmp_path / "results",
                          out=tmp_path / "page.html")  # fmt: skip
    write_result(config, "here", device="desk-2-cores")
    return config


def write_run(folder: Path, *, record: dict[str, Any] = RECORD, settings: dict[str, Any] = SETTINGS) -> None:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')


def write_result(config: ReportConfig, name: str, **changes: Any) -> dict[str, Any]:
    digest = artifact_sha256(config.artifacts / "nano.onnx")
    result = {
        "schema_version": 1, "artifact": "nano.onnx", "artifact_sha256": digest, "architecture": "tiny",
        "device": "desk-2-cores", "system": "Linux", "runtime": CPU_RUNTIME, "versions": {}, "num_warmup": 5,
        "peak_memory_mb": 3.0, "latency_ms_by_threads": {"1": LATENCY},
    } | changes  # fmt: skip
    config.results.mkdir(exist_ok=True)
    (config.results / f"{name}.json").write_text(json.dumps(result))
    return result


def rows(page: Path) -> list[list[str]]:
    """Cells of the page's first table, header first."""
    table = page.read_text().split("<h2>Exported models</h2>")[1].split("</table>")[0]
    return [re.findall("<t[hd]>(.*?)</t[hd]>", row) for row in table.split("<tr>")[1:]]


def test_each_device_has_a_row_of_its_own(config: ReportConfig, capsys: pytest.CaptureFixture[str]) -> None:
    slow = LATENCY | {"p50": 75.0, "p90": 90.0, "p99": 99.0}
    write_result(config, "zz", device="pi-4-cores", latency_ms_by_threads={"4": slow, "16": slow}, peak_memory_mb=None)
    report(config)
    header, *found = rows(config.out)
    assert header[5:] == ["device", "1 thread, p50 / p90 ms", "4 threads, p50 / p90 ms", "16 threads, p50 / p90 ms",
                          "peak MB"]  # fmt: skip
    assert [row[5:] for row in found] == [
        ["desk-2-cores", "1.50 / 2.50", "-", "-", "3"], ["pi-4-cores", "-", "75.00 / 90.00", "75.00 / 90.00", "-"]
    ]  # fmt: skip
    assert "pi-4-cores" in capsys.readouterr().out
    assert len(json.loads(config.out.with_suffix(".json").read_text())["latencies"]) == 2


def test_what_was_measured_twice_on_a_device_is_shown_twice(config: ReportConfig) -> None:
    write_result(config, "again", latency_ms_by_threads={"1": LATENCY | {"p50": 2.0}})
    report(config)
    assert [row[6] for row in rows(config.out)[1:]] == ["2.00 / 2.50", "1.50 / 2.50"]


def test_the_figures_carry_the_architecture_of_runs_and_exports(config: ReportConfig) -> None:
    write_run(config.runs / "new", record=RECORD | {"architecture": "nano-semantic_fpn"})
    report(config)
    figures = json.loads(config.out.with_suffix(".json").read_text())
    assert figures["runs"]["new"]["architecture"] == "nano-semantic_fpn"
    assert [export["architecture"] for export in figures["exports"]] == ["tiny"]


def test_an_artifact_that_nobody_measured_has_a_row(config: ReportConfig) -> None:
    write_artifact(config.artifacts / "other.onnx", "other.onnx", num_parameters=2)
    report(config)
    assert [(row[0], row[5]) for row in rows(config.out)[1:]] == [("nano.onnx", "desk-2-cores"), ("other.onnx", "-")]


def test_files_of_the_user_beside_artifacts_runs_and_results_are_passed_over(config: ReportConfig) -> None:
    for folder in (config.runs, config.artifacts, config.results):
        (folder / "README.txt").write_text("notes")
        (folder / ".hidden").mkdir()
    (config.results / "other-benchmark.json").write_text("{}")
    report(config)
    assert len(rows(config.out)) == 2
    assert "Left out" not in config.out.read_text()


def without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


OLDER_RUNS = [
    (without(RECORD, "versions"), SETTINGS, "run.json: versions: found nothing"),
    (without(RECORD, "parent"), SETTINGS, "run.json: parent: found nothing"),
    (RECORD | {"metrics": {}}, SETTINGS, "run.json: metrics.mIoU: found nothing"),
    (RECORD | {"metrics": {"mIoU": float("nan")}}, SETTINGS, "run.json: metrics.mIoU: found nan"),
    (RECORD | {"metrics": None}, SETTINGS, "run.json: metrics: found nothing"),
    (RECORD | {"wall_time_s": "3 s"}, SETTINGS, "run.json: wall_time_s: found &#x27;3 s&#x27;"),
    (RECORD, without(SETTINGS, "encoder"), "config.json: encoder: found nothing"),
    (RECORD, without(SETTINGS, "seed"), "config.json: seed: found nothing"),
    (RECORD, without(SETTINGS, "task"), "config.json: model: found nothing"),
    (RECORD, SETTINGS | {"task": "panoptic"}, "config.json: task: found panoptic"),
]


@pytest.mark.parametrize(("record", "settings", "message"), OLDER_RUNS)
def test_a_run_that_lacks_a_field_is_named_and_the_rest_is_listed(
    config: ReportConfig, record: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    write_run(config.runs / "old", record=record, settings=settings)
    report(config)
    page = config.out.read_text()
    assert f"<li>runs/old/{message}" in page
    assert "<td>good</td>" in page
    assert str(config.runs.parent) not in page


@pytest.mark.parametrize(
    ("record", "settings"),
    [
        (without(RECORD, "reduce_zero_label"), SETTINGS),
        (RECORD | {"parent": {}}, without(SETTINGS, "init")),
        (RECORD | {"metrics": {"num_pairs": 8.0, "zeroshot_top1": None}},
         {"command": "pretrain", "model": "nano", "seed": 0}),
    ],
)  # fmt: skip
def test_a_run_without_what_is_shown_only_where_it_is_there_is_listed(
    config: ReportConfig, record: dict[str, Any], settings: dict[str, Any]
) -> None:
    write_run(config.runs / "old", record=record, settings=settings)
    report(config)
    assert "<td>old</td>" in config.out.read_text()
    assert "Left out" not in config.out.read_text()


def test_a_result_that_lacks_a_field_is_named_and_the_rest_is_listed(config: ReportConfig) -> None:
    write_result(config, "text", latency_ms_by_threads={"1": 3.0})
    result = write_result(config, "old", device="old-1-cores")
    (config.results / "old.json").write_text(json.dumps(without(result, "num_warmup")))
    (config.results / "torn.json").write_text('{"latency_ms_by_threads"')
    report(config)
    page = config.out.read_text()
    assert "<li>results/old.json: fields: found &#x27;no num_warmup&#x27;" in page
    assert "<li>results/text.json: latency_ms_by_threads.1: found 3.0" in page
    assert "<li>results/torn.json: not valid JSON" in page
    assert [row[5] for row in rows(config.out)[1:]] == ["desk-2-cores"]


def test_an_artifact_that_cannot_be_used_is_named_and_the_rest_is_listed(config: ReportConfig) -> None:
    for name in ("damaged", "empty", "old"):
        shutil.copytree(config.artifacts / "nano.onnx", config.artifacts / name)
    (config.artifacts / "damaged" / "model.onnx").write_bytes(b"")
    (config.artifacts / "empty" / "artifact.json").unlink()
    old = json.loads((config.artifacts / "old" / "artifact.json").read_text())
    (config.artifacts / "old" / "artifact.json").write_text(json.dumps(old | {"parity": {}}))
    report(config)
    page = config.out.read_text()
    assert "<li>artifacts/damaged/model.onnx: sha256: found" in page
    assert "<li>artifacts/empty/artifact.json: no such file" in page
    assert "<li>artifacts/old/artifact.json: parity.fp32_relative_error: found nothing" in page
    assert len(rows(config.out)) == 2


def test_where_nothing_can_be_used_the_reasons_are_told(config: ReportConfig) -> None:
    (config.artifacts / "nano.onnx" / "model.onnx").write_bytes(b"")
    with pytest.raises(
        FileNotFoundError, match=r"found no artifact that can be used, expected one or more\n.*model\.onnx: sha256"
    ):
        report(config)
    assert not config.out.exists()


def test_without_its_data_set_an_artifact_has_no_pictures_and_the_page_says_so(
    config: ReportConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    report(config)
    assert "held-out images of its run could not be read" in config.out.read_text()
    assert "/gone" not in config.out.read_text()
    assert "nano.onnx: no pictures: /gone/ade" in capsys.readouterr().out
