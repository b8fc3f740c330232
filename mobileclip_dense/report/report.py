"""`python -m benchmarks.report`: one page with curves, pictures and tables about runs and artifacts."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mobileclip_dense.artifact.files import figures_beside, staged_file, write_json
from mobileclip_dense.report.page import render_page
from mobileclip_dense.report.records import Evidence, Verdict, compare_with_scratch, read_evidence
from mobileclip_dense.report.tables import elsewhere_rows, summary, table_rows


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Write one self-contained HTML page about all that was trained, exported and measured; its figures as JSON."""

    runs: Path = Path("runs")
    """Folder of run folders."""
    artifacts: Path = Path("artifacts")
    """Folder of artifact folders."""
    results: Path = Path("results")
    """Folder of latency result files, of `benchmarks.latency` and of the page in a browser."""
    out: Path = Path("report.html")
    """The page to write; its figures go beside it, with the suffix .json."""
    force: bool = False
    """Replace the page and its JSON if they exist."""


def report(config: ReportConfig) -> None:
    """Write the page and print its table. Runs, artifacts and results that cannot be used are left out, and named.

    Raises:
        FileNotFoundError: a folder is missing, or holds no run or artifact that can be used. ValueError: --out is a
            .json. FileExistsError: the page or its JSON exists and --force was not given.
    """
    figures = figures_beside(config.out, config.force)
    evidence = read_evidence(config.runs, config.artifacts, config.results)
    for reason in evidence.left_out:
        print(f"left out: {reason}")
    verdicts = compare_with_scratch(evidence.runs)
    page = render_page(evidence, verdicts)
    told = summary(evidence, verdicts)
    with staged_file(config.out) as staging:
        staging.write_text(page, encoding="utf-8")
    write_json(figures, told)
    print_tables(evidence, verdicts)
    print(f"{config.out}: {config.out.stat().st_size / 1e6:.1f} MB, open it in a browser")


def print_tables(evidence: Evidence, verdicts: list[Verdict]) -> None:
    """The page's tables, for the terminal."""
    console = Console(width=max(160, Console().width))
    for title, (header, rows) in (
        ("exported models", table_rows(evidence)),
        ("in browsers and other runtimes", elsewhere_rows(evidence)),
    ):
        table = Table(title=title)
        for name in header:
            is_name = name in ("artifact", "device")
            table.add_column(name, justify="left" if is_name else "right", no_wrap=is_name, overflow="fold")
        for row in rows:
            table.add_row(*row)
        if rows:
            console.print(table)
    for verdict in verdicts:
        console.print(verdict.sentence(), highlight=False)
