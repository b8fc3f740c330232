"""The page: its sections, and the file."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results_page import deployment, pretraining, segmenters
from benchmarks.results_page.markdown import bullets, table
from benchmarks.results_page.published import published_figures
from benchmarks.results_page.sources import Sources
from mobileclip_dense.artifact.files import refuse_existing, staged_file


@dataclass(frozen=True)
class Section:
    """A question, the result files that answer it, and the function that writes the paragraphs."""

    question: str
    files: tuple[str, ...]
    write: Callable[[Sources], list[str]]


SECTIONS = (
    Section("How do the segmenters compare with Swin-L?", (segmenters.COMPARISON,), segmenters.against_swin),
    Section("What does one `make demo` give?", (deployment.DEMO,), deployment.whole_line),
    Section("How much of a demo's time is the model?", (deployment.THROUGHPUT,), deployment.demo_throughput),
    Section("How fast does the package start?", (deployment.STARTUP,), deployment.startup),
    Section("How fast is a pretraining step?", (pretraining.STEP,), pretraining.training_step),
    Section("How fast are reinforced samples loaded?", (pretraining.DATA_PATH,), pretraining.data_path),
    Section("What does reinforcing cost beside the teachers?", (pretraining.REINFORCE,), pretraining.reinforcing),
    Section("Do the paper's claims hold for a nano model?", (pretraining.CAPTIONS,), pretraining.caption_quality),
    Section(
        "What does reinforced pretraining give at this scale?",
        (deployment.DEMO, pretraining.REINFORCED),
        pretraining.reinforced_pretraining,
    ),
    Section("How much memory does a pretraining step need?", (pretraining.MEMORY,), pretraining.memory),
    Section("How fast are the ONNX exports?", (deployment.RIVALS,), deployment.onnx_exports),
    Section("What do pruning and int8 cost on CamVid?", segmenters.CAMVID, segmenters.pruning_and_int8),
    Section("What does MCi0 reach on CamVid?", (segmenters.CAMVID_SMALL,), segmenters.small_model),
    Section("Which head and which start on CamVid?", (segmenters.CAMVID_HEADS,), segmenters.heads_and_starts),
    Section("How exact is a Core ML program run without a Mac?", (deployment.EXECUTOR,), deployment.mil_executor),
)


@dataclass(frozen=True, kw_only=True)
class ResultsPageConfig:
    """Write the page of results from the result files and the published figures. Nothing is measured."""

    results: Path = Path("benchmarks/results")
    """Folder of result files and of README.md, which says how each was made."""
    out: Path = Path("docs/RESULTS.md")
    """The page to write."""
    force: bool = False
    """Replace the page if it exists."""


def write_results_page(config: ResultsPageConfig) -> None:
    """Write the page.

    Raises:
        FileNotFoundError: a result file is missing. FileExistsError: the page exists and --force was not given.
        ValueError: see `render_results_page`.
    """
    refuse_existing(config.out, config.force)
    link = Path(os.path.relpath(config.results, config.out.parent)).as_posix() + "/"
    page = render_results_page(Sources(config.results, link))
    with staged_file(config.out) as staging:
        staging.write_text(page, encoding="utf-8")
    print(f"{config.out}: {len(SECTIONS)} sections")


def render_results_page(sources: Sources) -> str:
    """The page as Markdown.

    Raises:
        FileNotFoundError: a result file of a section is missing.
        ValueError: a result file belongs to no section, or has no row in README.md.
    """
    shown = {name for section in SECTIONS for name in section.files}
    if unused := sorted(set(sources.names) - shown):
        raise ValueError(f"{sources.folder}: found {', '.join(unused)}, expected result files of a section; add a "
                         "section to benchmarks/results_page/page.py")  # fmt: skip
    parts = [
        "# Results",
        "`make results` writes this page from the result files and from `benchmarks/compare/published.py`. Edit those, "
        "or the templates in `benchmarks/results_page/`, and not this page.",
        "All measured figures come from CPUs, without a GPU; each section names the processor. Latencies are the "
        "median and the 90th percentile (`p50 / p90`). No section mixes measured and published figures in a column; "
        f"[published figures](#{_anchor(_PUBLISHED)}) have their own section.",
        bullets(f"[{question}](#{_anchor(question)})" for question in _questions()),
    ]
    for section in SECTIONS:
        parts += [f"## {section.question}", *section.write(sources)]
    parts += [f"## {_PUBLISHED}", *published_figures(), f"## {_FILES}", *_all_files(sources)]
    return "\n\n".join(parts) + "\n"


_PUBLISHED = "Published figures"
_FILES = "All result files"


def _questions() -> list[str]:
    return [*(section.question for section in SECTIONS), _PUBLISHED, _FILES]


def _anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    kept = "".join(letter for letter in heading.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def _all_files(sources: Sources) -> list[str]:
    """Every file with its section and what was changed in it after the measurement."""
    rows = []
    for name in sources.names:
        section = next(section for section in SECTIONS if name in section.files)
        changes = sources.read(name).get("migrated", [])
        rows.append([sources.linked(name), f"[{section.question}](#{_anchor(section.question)})",
                     "; ".join(changes) or "-"])  # fmt: skip
    return [
        "`benchmarks/results/README.md` lists their hashes. The last column says what was added to a file after "
        "the measurement.",
        table(["file", "section", "added later"], rows),
    ]
