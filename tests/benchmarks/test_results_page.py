"""docs/RESULTS.md is what its command writes: every result file is in it, and every figure comes from a file."""

import ast
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.results_page.page import SECTIONS, ResultsPageConfig, render_results_page, write_results_page
from benchmarks.results_page.sources import Sources
from tests.conftest import REPOSITORY

RESULTS = REPOSITORY / "benchmarks" / "results"
PAGE = REPOSITORY / "docs" / "RESULTS.md"
LINK = "../benchmarks/results/"

# A figure of each result file: the path of keys to it.
FIGURES: dict[str, tuple[str | int, ...]] = {
    "camvid-heads.json": ("runs", "mci0-fpn-clip", "metrics", "mIoU"),
    "camvid-lite-mci2.json": ("runs", "mci2-lite-scratch", "metrics", "aAcc"),
    "camvid-mci0.json": ("runs", "segment-mci0", "metrics", "mIoU"),
    "camvid-mci2.json": ("runs", "segment", "metrics", "mIoU"),
    "caption-quality-cpu.json": ("arms", "probe", "clean", "depth", "mean"),
    "compare-ade20k-512.json": ("models", 0, "latency_ms_by_threads", "2", "p50"),
    "data-path.json": ("samples_per_s", "plain"),
    "demo-throughput-mci2.json": ("model_alone_share_percent",),
    "demo.json": ("runs", "clip", "metrics", "zeroshot_top1"),
    "mil-executor-mci2.json": ("artifacts", "mci2-segment-camvid-512x512-fp16.coreml", "golden_agreement_percent"),
    "onnx-rivals-mci2.json": ("latency_ms", "ours int8", "p90"),
    "reinforce-vitb32.json": ("share_of_teachers_percent",),
    "reinforced-nano.json": ("runs", "clip-two", "metrics", "image_to_text_recall_at_1"),
    "startup.json": ("import_ms",),
    "training-memory-mci2.json": ("rows", 4, "pairs_per_s"),
    "training-rival-mci0.json": ("s_per_step_median", "open_clip"),
}
NAMES_WITH_DIGITS = r"MCi[0-2]|ADE20K|fp(?:16|32)|int8|p[59]0|90th|recall@1|top-1|arXiv \d+\.\d+"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(RESULTS, tmp_path / "results")


def render(folder: Path) -> str:
    return render_results_page(Sources(folder, LINK))


def test_writing_the_page_again_changes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "docs" / "RESULTS.md"
    out.parent.mkdir()
    shutil.copytree(RESULTS, tmp_path / "benchmarks" / "results")
    write_results_page(ResultsPageConfig(results=tmp_path / "benchmarks" / "results", out=out))
    assert out.read_bytes() == PAGE.read_bytes()


def test_every_result_file_is_in_the_section_that_it_answers() -> None:
    sections = {part.split("\n")[0]: part for part in PAGE.read_text(encoding="utf-8").split("\n## ")}
    names = {path.name for path in RESULTS.glob("*.json")}
    assert names == {name for section in SECTIONS for name in section.files}
    for section in SECTIONS:
        for name in section.files:
            assert f"- [{name}]({LINK}{name}), made by " in sections[section.question]
        assert "What this does not show: " in sections[section.question]


def change(path: Path, keys: tuple[str | int, ...]) -> None:
    """Make a number of a JSON file half as large."""
    values: Any = json.loads(path.read_text())
    *outer, last = keys
    held = values
    for key in outer:
        held = held[key]
    held[last] /= 2
    path.write_text(json.dumps(values))


@pytest.mark.parametrize("name", sorted(path.name for path in RESULTS.glob("*.json")))
def test_a_changed_figure_changes_the_page(name: str, copied: Path) -> None:
    change(copied / name, FIGURES[name])
    assert render(copied) != PAGE.read_text(encoding="utf-8")


def test_a_file_without_a_section_is_refused(copied: Path) -> None:
    (copied / "new-question.json").write_text("{}")
    with pytest.raises(ValueError, match=r"found new-question\.json, expected result files of a section"):
        render(copied)


def test_a_file_without_a_command_is_refused(copied: Path) -> None:
    readme = copied / "README.md"
    readme.write_text(re.sub(r"\| \[demo\.json\].*\n", "", readme.read_text()))
    with pytest.raises(ValueError, match=r"README\.md: demo\.json: found no row with a hash and a command"):
        render(copied)


def test_an_existing_page_is_kept(tmp_path: Path) -> None:
    (tmp_path / "RESULTS.md").write_text("mine")
    with pytest.raises(FileExistsError):
        write_results_page(ResultsPageConfig(results=RESULTS, out=tmp_path / "RESULTS.md"))
    assert (tmp_path / "RESULTS.md").read_text() == "mine"


def test_links_and_pictures_of_the_page_exist() -> None:
    page = PAGE.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", page, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    targets = re.findall(r"\]\(([^)]+)\)", page)
    assert len(targets) > 2 * len(FIGURES)
    for target in targets:
        assert target[1:] in anchors if target.startswith("#") else (PAGE.parent / target).exists(), target
    assert len(re.findall(r"^# ", page, re.MULTILINE)) == 1


def literals(node: ast.AST) -> list[str]:
    """Text of a module, without the format specifications of its f-strings."""
    if isinstance(node, ast.FormattedValue):
        return literals(node.value)
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    return [text for child in ast.iter_child_nodes(node) for text in literals(child)]


@pytest.mark.parametrize("name", ["segmenters", "deployment", "pretraining", "published", "page"])
def test_no_figure_is_typed_into_the_text(name: str) -> None:
    source = (REPOSITORY / "benchmarks" / "results_page" / f"{name}.py").read_text(encoding="utf-8")
    for text in literals(ast.parse(source)):
        if " " in text:  # prose; the rest are keys and file names
            assert not re.search(r"\d", re.sub(NAMES_WITH_DIGITS, "", text)), text


def test_the_hash_of_every_result_file_is_listed() -> None:
    """A figure, its file and the command that made it cannot part unnoticed."""
    table = (RESULTS / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| \[([\w-]+\.json)\]\(\1\) \| `([0-9a-f]{16})` \| .+ \|$", table, re.MULTILINE))
    assert listed == {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in RESULTS.glob("*.json")}
