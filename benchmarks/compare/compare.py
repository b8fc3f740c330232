"""`python -m benchmarks.compare`: this project's segmentation models against large ones, as a table and two plots.

All figures come from result files. `--measure` measures sizes, latencies and memory again on this machine.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.compare.models import NUM_CLASSES, find_models
from benchmarks.compare.page import PLOTS, ratio_cells, to_csv, to_json, to_markdown
from benchmarks.compare.plot import draw_panels, latency_points, parameter_points, save_figure
from benchmarks.compare.result import COMPARISON_SCHEMA_VERSION, result_name
from benchmarks.compare.rows import Comparison, read_comparison
from mobileclip_dense.artifact.artifact import load_artifact
from mobileclip_dense.artifact.files import refuse_existing, staged_file, write_json
from mobileclip_dense.config.check import MAX_PARALLEL, MAX_SIDE_PX, require, require_numbers
from mobileclip_dense.config.encoders import ENCODERS
from mobileclip_dense.pages.text_table import print_table


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Compare segmentation models by parameters, multiply-accumulates, file size, latency, memory and accuracy, with
    plots. Measured and published figures are kept apart. Figures come from result files, or are measured again."""

    results: tuple[Path, ...] = (Path("benchmarks/results"),)
    """Folders of result files. The first has the result file of the comparison. Accuracies and the latencies of phones
    and browsers are read from all."""
    out: Path = Path("docs")
    """Folder for compare.md, .csv, .json and the plots."""
    size_px: int = 512
    """Height and width of the image."""
    measure: bool = False
    """Build, export and measure all models on this machine first (half an hour or more), and replace the result file of
    the comparison. Repeat the command to resume an interrupted measurement."""
    models: tuple[str, ...] = ()
    """Names of the models to measure, from `benchmarks/compare/models.py`. Default: all models."""
    threads: tuple[int, ...] = (1, 2)
    """Numbers of threads to measure with."""
    rounds: int = 7
    """Rounds over all models. Models that take more than a second run only in the first 5 rounds."""
    seed: int = 0
    """Seed of the random weights."""
    work: Path = Path("build/compare")
    """Folder for exported models and their measurements."""
    force: bool = False
    """Replace existing files."""

    def __post_init__(self) -> None:
        require(self, "results", self.results != (), "at least one folder")
        require(self, "threads", self.threads != (), "at least one number")
        require_numbers(self, "threads", at_least=1, at_most=MAX_PARALLEL)
        require_numbers(self, "rounds", at_least=1)
        require_numbers(self, "seed", at_least=0)
        require_numbers(self, "size_px", at_least=32, at_most=MAX_SIDE_PX)
        stride = max(spec.strides[-1] for spec in ENCODERS.values())
        require(self, "size_px", self.size_px % stride == 0, f"a multiple of {stride}")


def compare(config: CompareConfig) -> Comparison:
    """Write the page, the table and the plots. With `config.measure`, measure before.

    Raises:
        FileNotFoundError: the result file is missing.
        FileExistsError: a file exists and --force was not given.
        ValueError: a file does not fit its schema.
    """
    page = config.out / "compare.md"
    for name in (
        *(f"compare.{suffix}" for suffix in ("md", "csv", "json")),
        *(f"{plot}.{suffix}" for plot in PLOTS for suffix in ("png", "svg")),
    ):
        refuse_existing(config.out / name, config.force)
    if config.measure:
        refuse_existing(config.results[0] / result_name(config.size_px), config.force)
        measure(config)
    comparison = read_comparison(config.results, config.size_px)
    latency_label = f"median latency at {comparison.threads} threads on {comparison.settings['device']}, ms"
    latency_title = f"Accuracy against the network's latency at {config.size_px}x{config.size_px} px"
    size_plot, latency_plot = PLOTS
    figures = {
        size_plot: draw_panels(parameter_points(comparison), "parameters, million", "Accuracy against parameters")[0],
        latency_plot: draw_panels(latency_points(comparison), latency_label, latency_title)[0],
    }
    texts, values = {"md": to_markdown(comparison), "csv": to_csv(comparison)}, to_json(comparison)
    for name, figure in figures.items():
        save_figure(figure, config.out / name)
    for suffix, text in texts.items():
        with staged_file(config.out / f"compare.{suffix}") as staging:
            staging.write_text(text, encoding="utf-8")
    write_json(config.out / "compare.json", values)
    _print(comparison)
    print(f"{page}: {len(comparison.rows)} rows")
    return comparison


def measure(config: CompareConfig) -> None:
    """Measure on this machine and write the result file of the comparison. It names models that cannot be built.

    Raises:
        ValueError: a model is unknown.
    """
    # torch, which regenerating the page does without
    from benchmarks.compare.export import Exported, export_fresh
    from benchmarks.compare.measure import describe_machine, discard_notes, measure_artifacts

    exported: list[Exported] = []
    missing: dict[str, str] = {}
    for model in find_models(config.models):
        try:
            exported.append(export_fresh(model, config.size_px, config.seed, config.work))
            print(f"{model.name}: exported")
        except ValueError as error:
            missing[model.name] = str(error)
            print(f"{model.name}: left out: {error}")
    folders = [folder for one in exported for folder in one.folders.values()]
    measured = measure_artifacts(folders, config.threads, config.rounds, config.work)
    entries = [
        {"model": one.model.name, "precision": precision, "macs": one.macs}
        | _artifact_figures(folder, precision)
        | vars(measured[folder])
        for one in exported
        for precision, folder in one.folders.items()
    ]
    result = {
        "schema_version": COMPARISON_SCHEMA_VERSION,
        "size_px": config.size_px,
        "num_classes": NUM_CLASSES,
        "seed": config.seed,
        "rounds": config.rounds,
        "threads": list(config.threads),
        **describe_machine(),
        "models": entries,
        "missing": missing,
    }
    write_json(config.results[0] / result_name(config.size_px), result)
    for one in exported:  # or the next measurement would find all of it done
        one.discard()
    discard_notes(config.work)


def _artifact_figures(folder: Path, precision: str) -> dict[str, Any]:
    """The figures of an entry that come from artifact.json."""
    artifact = load_artifact(folder)
    return {
        "num_parameters": artifact.num_parameters,
        "size_bytes": artifact.files[artifact.model_file]["bytes"],
        "relative_error": artifact.parity[f"{precision}_relative_error"],
    }


def _print(comparison: Comparison) -> None:
    header, rows = ratio_cells(comparison)
    named = [[what.partition(" (")[0], *others] for what, *others in rows]  # the page says which artifact it is
    print_table("against Swin-L + UPerNet", header, named)
    for sentence in comparison.missing:
        print(f"missing: {sentence}")
