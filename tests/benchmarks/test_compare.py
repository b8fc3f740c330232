"""The comparison of segmentation models: page and plots from result files, and a measurement of the smallest model."""

import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from benchmarks.compare import measure as compare_measure
from benchmarks.compare.compare import CompareConfig, compare, measure
from benchmarks.compare.models import MODELS, SMALLEST
from benchmarks.compare.page import to_markdown
from benchmarks.compare.plot import Point, draw_panels, latency_points, parameter_points, pareto_front, text_box
from benchmarks.compare.published import PUBLISHED
from benchmarks.compare.rows import read_comparison
from mobileclip_dense.artifact.files import write_json
from mobileclip_dense.artifact.result import CPU_RUNTIME, RESULT_SCHEMA_VERSION
from mobileclip_dense.deploy.onnx import quantize
from tests.benchmarks.comparison_fixtures import write_made_up_result

REPOSITORY = Path(__file__).parent.parent.parent
LATENCY = {"p50": 4.0, "p90": 5.0, "p99": 6.0, "mean": 4.2, "num_runs": 100}


def write_run(path: Path, num_parameters: int | None = 40_400_000, suffix: str | None = "", **settings: object) -> None:
    """A result file as `mobileclip-dense report` writes it, of one run; MCi2's train form is 1 % larger than its row.

    Args:
        suffix: of the architecture; None: the file has none.
    """
    settings = {"task": "segment", "data": "ade", "encoder": "mci2", "neck_channels": 256, "head_channels": 128,
                "max_iters": 40, "init": None, "head": "semantic_fpn", **settings}  # fmt: skip
    architecture = None if suffix is None else f"{settings['encoder']}-{settings['head']}{suffix}"
    write_json(path, {"runs": {"one": {"settings": settings, "metrics": {"mIoU": 41.5}, "weights_sha256": "ab" * 32,
                                       "num_parameters": num_parameters, "architecture": architecture}}})  # fmt: skip


RUN = {"metrics": {"mIoU": 1}, "weights_sha256": "ab", "settings": {
    "task": "segment", "encoder": "mci2", "neck_channels": 256, "head_channels": 128, "data": "d", "max_iters": 1,
    "init": None,
}}  # fmt: skip


def write_latency(path: Path, artifact: str, digest: str = "0" * 64) -> None:
    """A result file of a phone."""
    write_json(path, {
        "schema_version": RESULT_SCHEMA_VERSION, "artifact": artifact, "artifact_sha256": digest,
        "architecture": "tiny", "device": "phone", "system": "iOS", "runtime": "coreml ALL", "versions": {},
        "num_warmup": 5, "peak_memory_mb": None, "latency_ms_by_threads": {"1": LATENCY},
    })  # fmt: skip


def test_a_cpu_of_another_device_is_listed_and_the_comparisons_own_is_not(tmp_path: Path) -> None:
    path = write_made_up_result(tmp_path)
    device = json.loads(path.read_text())["device"]
    for name in (device, "raspberry-pi-4-cores"):
        write_latency(tmp_path / f"{name}.json", "some.onnx")
        value = json.loads((tmp_path / f"{name}.json").read_text())
        write_json(tmp_path / f"{name}.json", value | {"device": name, "runtime": CPU_RUNTIME})
    (other,) = [sentence for sentence in read_comparison((tmp_path,), 512).others if "some.onnx" in sentence]
    assert "raspberry-pi-4-cores" in other


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def test_ratios_follow_from_the_result_file(tmp_path: Path) -> None:
    write_made_up_result(tmp_path)
    found = [ratio.found for ratio in read_comparison((tmp_path,), 512).ratios()]
    # 240 M / 40 M, against our aim and the paper's; / 30 M; 3000 ms / 300 ms; the best: pruned (225 ms) and int8
    assert found == pytest.approx([6.0, 6.0, 8.0, 10.0, 40.0])
    outcomes = [ratio.outcome for ratio in read_comparison((tmp_path,), 512).ratios()]
    assert outcomes == ["met", "NOT met", "met", "met", "met"]


def test_a_ratio_below_what_was_wanted_is_said(tmp_path: Path) -> None:
    path = write_made_up_result(tmp_path)
    value = json.loads(path.read_text())
    for entry in value["models"]:
        if entry["model"] == "swin_l-upernet":
            entry["num_parameters"] = 200_000_000
    write_json(path, value)
    page = to_markdown(read_comparison((tmp_path,), 512))
    assert "| parameters, MCi2 + SemanticFPN | 5.9x | this project | 5.00x | NOT met |" in page
    assert "published 234 M hold, the first would be 5.85x" in page


def test_missing_files_and_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"compare-ade20k-512\.json: missing.*--measure"):
        compare(CompareConfig(results=(tmp_path,), out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    write_made_up_result(tmp_path, leave_out=("swin_l-upernet", "mci1-upernet"))
    comparison = read_comparison((tmp_path,), 512)
    assert {ratio.outcome for ratio in comparison.ratios()} == {"not measured"}
    page = to_markdown(comparison).split("## Missing")[1]
    for sentence in ("Swin-L + UPerNet, fp32: not in the result file", "MCi1 + UPerNet, fp32",
                     "no run on its 150 classes", "latency on a phone"):  # fmt: skip
        assert sentence in page


@pytest.mark.parametrize("value", [
    {"runs": {"one": {"settings": {"task": "segment"}, "metrics": {"mIoU": 1}}}},
    {"runs": {"one": 3}},
    {"runs": {"one": RUN}, "exports": [{"weights_sha256": "ab"}]},
    {"runs": {"one": RUN | {"settings": {"task": "segment", "encoder": "mci2"}}}},
])  # fmt: skip
def test_a_file_of_another_form_is_named(tmp_path: Path, value: dict[str, Any]) -> None:
    write_made_up_result(tmp_path)
    write_json(tmp_path / "odd.json", value)
    with pytest.raises(ValueError, match=r"odd\.json: runs, exports: not in the format of `mobileclip-dense report"):
        read_comparison((tmp_path,), 512)
    (tmp_path / "odd.json").unlink()


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda r: r["models"][0].update(macs="many"), "mci0-semantic_fpn: macs: found 'many', expected a positive"),
    (lambda r: r["models"][0].update(macs=0), "macs: found '0', expected a positive number"),
    (lambda r: r["models"][0].pop("macs"), r"models\[0\]: found .* expected the fields model, precision"),
    (lambda r: r["models"][0].update(model="x"), r"models\[0\]\.model: found 'x', expected a model of"),
    (lambda r: r["models"].insert(0, 3), r"models\[0\]: found '3', expected the fields"),
    (lambda r: r["models"][0]["latency_ms_by_threads"]["2"].pop("p50"), r"by_threads\.2: found .* p50 and p90"),
    (lambda r: r.update(threads=[1, 4]), r"latency_ms_by_threads\.4: found 'None'"),
    (lambda r: r.update(threads=[]), "threads: found .* expected one or more"),
    (lambda r: r.update(missing=None), "missing: found 'None', expected a dict"),
    (lambda r: r.update(models=[]), "models: found .* expected one or more"),
    (lambda r: r.update(schema_version=2), "schema_version: found '2', expected 1"),
    (lambda r: r.pop("versions"), r"fields: found .*versions"),
])  # fmt: skip
def test_a_damaged_result_file_is_refused_by_field(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = write_made_up_result(tmp_path)
    result = json.loads(path.read_text())
    spoil(result)
    write_json(path, result)
    with pytest.raises(ValueError, match=rf"compare-ade20k-512\.json: .*{message}.*--measure` again"):
        read_comparison((tmp_path,), 512)


def test_measured_accuracy_goes_to_the_very_network_that_was_trained(tmp_path: Path) -> None:
    write_made_up_result(tmp_path)
    write_run(tmp_path / "fits.json", data="ADEChallengeData2016")
    write_run(tmp_path / "lite.json", head="fpn_lite")
    write_run(tmp_path / "narrow.json", head_channels=64)
    write_run(tmp_path / "pruned-to-half.json", num_parameters=20_000_000, suffix="-pruned")
    write_run(tmp_path / "of-old.json", num_parameters=None, suffix=None)
    comparison = read_comparison((tmp_path,), 512)
    assert {row.label: [m.source for m in row.measured] for row in comparison.rows if row.measured} == {
        "MCi2 + SemanticFPN": ["fits.json"],
        "MCi2 + lite FPN": ["lite.json"],
    }
    page = to_markdown(comparison)
    assert "41.5 % on ADEChallengeData2016 after 40 iterations from scratch (weights abababab, fits.json)" in page
    for other in ("64 in the head, 40.4 M", "128 in the head, 20.0 M", "128 in the head, unknown size"):
        assert f"mci2 with semantic_fpn (256 channels in the pyramid, {other}" in page
    assert "no run on its 150 classes" not in page
    panels = parameter_points(comparison)
    scenes = panels["ade, runs of 40 iterations"]  # generated, not ADE20K
    assert [p.label for p in scenes] == ["MCi2 + lite FPN"]
    assert all(p.published for p in panels["ADE20K"])
    assert [p.label for p in panels["ADE20K, runs of 40 iterations"]] == ["MCi2 + SemanticFPN"]  # no rival at that
    assert list(draw_panels(panels, "x", "title")[1]) == ["ADE20K"]  # one alone is not drawn
    write_run(tmp_path / "fits.json", data="ADEChallengeData2016", max_iters=40_000)
    panels = parameter_points(read_comparison((tmp_path,), 512))
    assert [p.label for p in panels["ADE20K"] if not p.published] == ["MCi2 + SemanticFPN"]
    assert {p.label: p.x for p in panels["ADE20K"]}["Swin-L + UPerNet"] == 234  # published, where ours has 240
    assert not any(p.published for points in latency_points(comparison).values() for p in points)


def test_an_exports_accuracy_goes_to_its_precision(tmp_path: Path) -> None:
    """int8 of the pruned network is the fastest of the made-up models, and its accuracy is given beside its speed.

    The architecture, not the name of the folder, says that it is pruned.
    """
    write_made_up_result(tmp_path)
    best = read_comparison((tmp_path,), 512).ratios()[-1]
    assert best.text.endswith("pruned to 70 %, int8; trained: accuracy not measured)")
    for head in ("semantic_fpn", "fpn_lite"):
        write_run(tmp_path / f"{head}.json", head=head, num_parameters=30_300_000, suffix="-pruned")
        value = json.loads((tmp_path / f"{head}.json").read_text())
        untuned = {**value["runs"]["one"], "weights_sha256": "ef" * 32, "metrics": {"mIoU": 50.0}, "as_pruned": True}
        value["runs"]["pruned"] = untuned  # with the settings of the run that was pruned
        figures = {"ab" * 32: (39.25, 40.5), "cd" * 32: (11.0, 9.0), "ef" * 32: (50.0, 50.0)}  # of no run; of untuned
        value["exports"] = [
            {"weights_sha256": digest, "precision": "int8", "artifact": "small.onnx", "artifact_sha256": digest,
             "parity": {"miou_percent": found, "reference_miou_percent": reference}}
            for digest, (found, reference) in figures.items()
        ]  # fmt: skip
        write_json(tmp_path / f"{head}.json", value)
    comparison = read_comparison((tmp_path,), 512)
    rows = {row.label: [m.miou_percent for m in row.measured] for row in comparison.rows if "SemanticFPN" in row.label}
    assert rows["MCi2 + SemanticFPN"] == rows["MCi2 + SemanticFPN, int8"] == []
    assert rows["MCi2 + SemanticFPN, pruned to 70 %"] == [41.5]
    assert rows["MCi2 + SemanticFPN, pruned to 70 %, int8"] == [39.25]
    sentence = "int8; trained: mIoU 39.2 % (float: 40.5 %, both in small.onnx) on ade after 40 iterations from scratch)"
    assert comparison.ratios()[-1].text.endswith(sentence)


def test_the_committed_page_follows_from_the_committed_results() -> None:
    comparison = read_comparison((REPOSITORY / "benchmarks" / "results",), 512)
    assert to_markdown(comparison) == (REPOSITORY / "docs" / "compare.md").read_text(encoding="utf-8")
    assert [ratio.outcome for ratio in comparison.ratios()] == ["met", "NOT met", "met", "met", "met"]


def test_measured_and_published_never_share_a_column(tmp_path: Path) -> None:
    write_made_up_result(tmp_path)
    write_run(tmp_path / "run.json")
    compare(CompareConfig(results=(tmp_path,), out=tmp_path / "out"))
    with (tmp_path / "out" / "compare.csv").open() as file:
        rows = {(row["model"], row["precision"]): row for row in csv.DictReader(file)}
    ours, swin = rows["mci2-semantic_fpn", "fp32"], rows["swin_l-upernet", "fp32"]
    assert (ours["measured_miou_percent"], ours["published_ade20k_miou_percent"]) == ("41.50", "")
    assert (swin["measured_miou_percent"], swin["published_ade20k_miou_percent"]) == ("", "52.05")
    assert rows["mci2-semantic_fpn", "int8"]["measured_miou_percent"] == ""  # of the float model only
    assert len(rows) == sum(len(model.precisions) for model in MODELS.values())
    with pytest.raises(FileExistsError, match="--force"):
        compare(CompareConfig(results=(tmp_path,), out=tmp_path / "out"))


def test_a_phones_result_goes_to_the_network_that_was_exported(tmp_path: Path) -> None:
    path = write_made_up_result(tmp_path)
    write_latency(tmp_path / "swin.json", "anything", json.loads(path.read_text())["models"][-1]["artifact_sha256"])
    write_run(tmp_path / "run.json")
    write_run(tmp_path / "narrow.json", num_parameters=30_000_000, head_channels=64)
    exports = {"run": [("float", "fp16", 512), ("int8", "w8a8", 512), ("small", "fp16", 256)],
               "narrow": [("thin", "fp16", 512)]}  # fmt: skip
    for run, artifacts in exports.items():
        value = json.loads((tmp_path / f"{run}.json").read_text())
        value["exports"] = [
            {"artifact": f"mci2-segment-ade-{size}x{size}-{precision}.coreml", "artifact_sha256": sha(name),
             "precision": precision, "weights_sha256": "ab" * 32, "parity": {}}
            for name, precision, size in artifacts
        ]  # fmt: skip
        write_json(tmp_path / f"{run}.json", value)
        for export, (name, _, _) in zip(value["exports"], artifacts, strict=True):
            write_latency(tmp_path / f"{name}.json", export["artifact"], export["artifact_sha256"])
    write_latency(tmp_path / "stranger.json", "mci2-segment-ade-512x512-fp16.coreml", sha("stranger"))
    comparison = read_comparison((tmp_path,), 512)
    taken = {row.label: [e.source for e in row.elsewhere] for row in comparison.rows if row.elsewhere}
    assert taken == {
        "MCi2 + SemanticFPN": ["float.json"],
        "MCi2 + SemanticFPN, int8": ["int8.json"],
        "Swin-L + UPerNet": ["swin.json"],
    }
    page = to_markdown(comparison)
    assert all(f"fp16.coreml on phone: 4.0 / 5.0 ms ({name}.json)" in page for name in ("small", "thin"))
    assert "(stranger.json; which network it is, the JSON of `mobileclip-dense report`" in page


def test_every_published_figure_names_its_reference() -> None:
    assert all(item.reference and item.what and item.value > 0 for item in PUBLISHED)
    rows = {model.name for model in MODELS.values()} | {model.encoder for model in MODELS.values()}
    assert all(item.row in rows for item in PUBLISHED if item.row is not None)


def test_the_pareto_front_is_what_nothing_beats() -> None:
    def point(x: float, y: float) -> Point:
        return Point(x=x, miou_percent=y, label=f"{x:g}", published=False)

    points = [point(3, 30), point(1, 10), point(2, 30), point(4, 29), point(1, 9), point(9, 31)]
    assert [(p.x, p.miou_percent) for p in pareto_front(points)] == [(1, 10), (2, 30), (9, 31)]


def test_labels_and_markers_do_not_overlap(tmp_path: Path) -> None:
    write_made_up_result(tmp_path)
    for head in ("semantic_fpn", "fpn_lite", "upernet"):  # the same parameters and accuracy: three markers in one place
        channels = 512 if head == "upernet" else 128
        write_run(tmp_path / f"{head}.json", head=head, head_channels=channels)
    comparison = read_comparison((tmp_path,), 512)
    for panels in (parameter_points(comparison), latency_points(comparison)):
        figure, labels = draw_panels(panels, "x", "title")
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        for data_set, drawn in labels.items():
            assert sorted(label.get_text() for label in drawn) == sorted(p.label for p in panels[data_set])
            boxes = [text_box(label, renderer) for label in drawn]
            assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
            axes = drawn[0].axes
            assert axes is not None
            for point in panels[data_set]:
                x, y = axes.transData.transform((point.x, point.miou_percent))
                assert not any(box.contains(x, y) for box in boxes), point.label
            assert all(axes.get_window_extent(renderer).count_contains(box.corners()) == 4 for box in boxes)


def test_the_smallest_model_is_measured_and_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "_NUM_ROUNDS", 1)
    monkeypatch.setattr(quantize, "profile_ms", lambda *_: {})
    monkeypatch.setattr(compare_measure, "measure_peak_memory_mb", lambda folder: 12.5)  # a process each; latency's own
    config = CompareConfig(
        results=(tmp_path,), out=tmp_path / "out", size_px=64, measure=True, models=(SMALLEST.name,), threads=(1,),
        rounds=2, work=tmp_path / "work", force=True,
    )  # fmt: skip
    whole, num_rounds = compare_measure._measure_round, []

    def cut_off(folders: Sequence[Path], threads: Sequence[int], before: list[compare_measure.Times]) -> Any:
        if len(num_rounds) == 1:
            raise KeyboardInterrupt
        num_rounds.append(len(before))
        return whole(folders, threads, before)

    monkeypatch.setattr(compare_measure, "_measure_round", cut_off)
    with pytest.raises(KeyboardInterrupt):
        measure(config)
    kept = json.loads((tmp_path / "work" / "measured.json").read_text())["rounds"]
    num_rounds.append(-1)
    compare(config)
    assert num_rounds == [0, -1, 1]  # the second call began with the second round
    fp32, int8 = read_comparison((tmp_path,), 64).rows
    assert (fp32.precision, int8.precision) == ("fp32", "int8")
    assert fp32.relative_error < 1e-4
    assert int8.size_bytes < 0.6 * fp32.size_bytes
    assert fp32.num_parameters == int8.num_parameters
    assert fp32.latency_ms_by_threads["1"]["num_runs"] == 6
    assert fp32.p50_ms(1) >= min(time for times in kept[0].values() for time in times["1"])
    assert list((tmp_path / "work").iterdir()) == []  # the next measurement starts anew
    assert (fp32.peak_memory_mb, int8.peak_memory_mb) == (12.5, 12.5)
    assert "Swin-L + UPerNet, fp32: not in the result file" in capsys.readouterr().out
