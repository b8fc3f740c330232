"""The report: one HTML page with curves, pictures and tables of runs and artifacts."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

from mobileclip_dense.artifact.files import figures_beside, staged_file, write_json
from mobileclip_dense.pages.text_table import print_table
from mobileclip_dense.report.page import render_report
from mobileclip_dense.report.pretraining_gain import PretrainingGain, compare_with_scratch
from mobileclip_dense.report.records import Records, read_records
from mobileclip_dense.report.tables import export_rows, latency_tables, summary

_WIDTH = 80  # of a terminal


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Write one self-contained HTML page about all runs, artifacts and latency results, and its figures as JSON."""

    runs: Path = Path("runs")
    """Folder of run folders."""
    artifacts: Path = Path("artifacts")
    """Folder of artifact folders."""
    results: Path = Path("results")
    """Folder of latency result files, written by `mobileclip-dense latency` and by the web page."""
    out: Path = Path("report.html")
    """Page to write. Its figures are written beside it, with the suffix .json."""
    force: bool = False
    """Replace the page and its JSON if they exist."""


def report(config: ReportConfig) -> None:
    """Write the page and print its tables. Unusable runs, artifacts and results are left out and named.

    Raises:
        FileNotFoundError: a folder is missing, or has no usable run or artifact.
        ValueError: --out is a .json file.
        FileExistsError: the page or its JSON exists and --force was not given.
    """
    figures = figures_beside(config.out, config.force)
    records = read_records(config.runs, config.artifacts, config.results)
    for reason in records.left_out:
        print(f"left out: {reason}")
    gains = compare_with_scratch(records.runs)
    page = render_report(records, gains)
    values = summary(records, gains)
    with staged_file(config.out) as staging:
        staging.write_text(page, encoding="utf-8")
    write_json(figures, values)
    _print_tables(records, gains)
    print(f"{config.out}: {config.out.stat().st_size / 1e6:.1f} MB, open it in a browser")


def _print_tables(records: Records, gains: list[PretrainingGain]) -> None:
    """The figures of the page's tables, in tables that fit a terminal."""
    print_table("exported models", *export_rows(records))
    for title, header, rows in latency_tables(records):
        print()
        print_table(title, header, rows)
    print()
    for gain in gains:
        print(textwrap.fill(gain.sentence(), _WIDTH))
