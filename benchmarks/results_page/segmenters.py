"""Sections about segmenters: against Swin-L, and on CamVid."""

from typing import Any

from benchmarks.compare.models import NUM_CLASSES, REFERENCE, known_models
from benchmarks.compare.page import ratio_cells
from benchmarks.compare.rows import Comparison, Row, read_comparison
from benchmarks.results_page.markdown import milliseconds, picture, table
from benchmarks.results_page.sources import Sources

_SIZE_PX = 512
COMPARISON = f"compare-ade20k-{_SIZE_PX}.json"
CAMVID = ("camvid-mci2.json", "camvid-lite-mci2.json")
CAMVID_SMALL = "camvid-mci0.json"
CAMVID_HEADS = "camvid-heads.json"
_HEADLINE = "mIoU"


def against_swin(sources: Sources) -> list[str]:
    """Size and latency of all models at the classes of ADE20K."""
    comparison = read_comparison((sources.folder,), _SIZE_PX)
    threads = comparison.threads
    header = ["model", "parameters", "GMACs", "file MB", f"p50 / p90 ms, {threads} threads", "peak MB",
              "parameters, Swin-L divided by it", "latency, Swin-L divided by it"]  # fmt: skip
    return [
        f"The table compares segmenters with {NUM_CLASSES} classes at {_SIZE_PX}x{_SIZE_PX} px in ONNX Runtime with "
        f"{threads} threads. One run measures all models in turn, so that a slow moment of the machine affects all of "
        "them. The weights are fresh: they do not change the size or the latency of an fp32 model. "
        "[compare.md](compare.md) has more columns, and how each figure was measured.",
        sources.provenance(COMPARISON),
        table(header, [_swin_row(comparison, row) for row in comparison.rows]),
        "The project set goals for some of these ratios, and the paper's abstract states one:",
        _goals(comparison),
        "What this does not show: accuracy on ADE20K. No model of this table was trained on it. With fresh weights, "
        "every node that is faster in int8 is quantized. Trained weights keep the nodes in fp32 that cost too much "
        "accuracy, and how many nodes are faster depends on the processor and on the image size. The int8 exports "
        "for CamVid below gain less. The plots relate published and measured accuracies to parameters and latency:",
        picture("compare-accuracy-parameters.png",
                "mIoU against parameters: published on ADE20K, measured by this project on CamVid"),
        picture("compare-accuracy-latency.png", "mIoU against the latency of the network at one image size"),
    ]  # fmt: skip


def _goals(comparison: Comparison) -> str:
    header, rows = ratio_cells(comparison)
    return table(header, [[what.partition(" (")[0], *others] for what, *others in rows])


def _swin_row(comparison: Comparison, row: Row) -> list[str]:
    swin, threads = comparison.reference, comparison.threads
    assert swin is not None, f"{COMPARISON}: {REFERENCE} is missing"
    return [
        row.label,
        f"{row.num_parameters / 1e6:.1f} M",
        f"{row.macs / 1e9:.1f}",
        f"{row.size_bytes / 1e6:.1f}",
        milliseconds(row.latency_ms_by_threads[str(threads)], 0),
        f"{row.peak_memory_mb:.0f}",
        f"{swin.num_parameters / row.num_parameters:.1f}x",
        f"{swin.p50_ms(threads) / row.p50_ms(threads):.1f}x",
    ]


def pruning_and_int8(sources: Sources) -> list[str]:
    """Accuracy, size and latency of MCi2 on CamVid: whole, pruned, in int8."""
    parts = [
        "MCi2 was trained on CamVid with two heads, pruned, and fine-tuned again. The whole and the pruned models were "
        "exported in fp32, some of them also in int8.",
        sources.provenance(*CAMVID),
    ]
    for name in CAMVID:
        result = sources.read(name)
        parts += [
            f"**{sources.linked(name)}: the runs**, in the order of training:",
            _runs(result),
            f"**{sources.linked(name)}: the exports**:",
            exports_table(result),
        ]
    return [
        *parts,
        ABOUT_ACCURACY,
        "Where two exports share a name, the first is the model as pruned and the second the same model after "
        "fine-tuning.",
        "What this does not show: a difference between the two heads or between whole and pruned models that would "
        "hold over seeds. There is one seed of each, the training is short, and the pruned models were trained for "
        "longer in total. The two files come from different processors, so that their latencies do not compare.",
    ]


ABOUT_ACCURACY = (
    "An fp32 export has the accuracy of its run, measured on whole images. A compressed export has its own, measured "
    "on images resized to its input; `before` is the fp32 model on the same images. `distance to PyTorch` is the "
    "relative error of the outputs."
)


def exports_table(result: dict[str, Any]) -> str:
    """The table of exports, as the report printed it."""
    artifacts = result["artifacts"]
    return table(artifacts["header"], artifacts["rows"])


def _runs(result: dict[str, Any]) -> str:
    runs = sorted(result["runs"].items(), key=lambda item: _depth(result["runs"], item[1]))
    header = ["run", "starts from", "iterations", "seed", "mIoU %", "pixel accuracy %"]
    rows = []
    for name, run in runs:
        metrics, settings = run["metrics"], run["settings"]
        iterations = "none, pruned" if run.get("as_pruned") else str(settings["max_iters"])
        rows.append([name, settings["init"] or "scratch", iterations, str(run["seed"]),
                     f"{metrics[_HEADLINE]:.2f}", f"{metrics['aAcc']:.2f}"])  # fmt: skip
    return table(header, rows)


def _depth(runs: dict[str, Any], run: dict[str, Any]) -> int:
    """Number of runs that a run builds on."""
    parents = [other for other in runs.values() if other["weights_sha256"] == run["parent_weights_sha256"]]
    return 1 + _depth(runs, parents[0]) if parents else 0


def small_model(sources: Sources) -> list[str]:
    """MCi0 on CamVid."""
    result = sources.read(CAMVID_SMALL)
    ((_, run),) = result["runs"].items()
    height, width = run["settings"]["crop_size_px"]
    return [
        f"MCi0 with SemanticFPN, {run['settings']['max_iters']} iterations of {run['settings']['batch_size']} crops of "
        f"{height}x{width} px from scratch, reaches {run['metrics'][_HEADLINE]:.2f} % mIoU in "
        f"{run['wall_time_s'] / 60:.0f} minutes on a CPU.",
        sources.provenance(CAMVID_SMALL),
        exports_table(result),
        "The Core ML row is from a version that could not run Core ML programs without a Mac; today's export runs and "
        "verifies them.",
        "What this does not show: what MCi0 reaches with pretrained weights or a full schedule.",
    ]


def heads_and_starts(sources: Sources) -> list[str]:
    """Heads and starts after the same short training."""
    runs = sources.read(CAMVID_HEADS)["runs"]
    dense = [run for run in runs.values() if _HEADLINE in run["metrics"]]
    (clip,) = (run for run in runs.values() if run not in dense)
    settings, start = dense[0]["settings"], clip["settings"]
    height, width = settings["crop_size_px"]
    rates = {run["settings"]["encoder"]: run["settings"]["learning_rate"] for run in dense}
    return [
        f"Every model was trained on CamVid for {settings['max_iters']} steps of {settings['batch_size']} crops of "
        f"{height}x{width} px, with the same augmentation and one seed. `CLIP on scenes` starts from an encoder that "
        f"was pretrained for {start['steps']} steps of {start['batch_size']} generated, captioned scenes at "
        f"{start['image_size_px']} px.",
        sources.provenance(CAMVID_HEADS),
        table(["model", "start", "precision", "learning rate", "parameters", "mIoU %", "pixel accuracy %"],
              [_head_row(run) for run in dense]),
        f"What this does not show: what any of these models reaches. Learning rates differ ({_rates(rates)}), so few "
        "steps from scratch favour convolutions over Swin-L, and one seed cannot separate the starts. `evaluate` draws "
        "where the pixels of SemanticFPN went:",
        picture("camvid-confusion.png", "Confusion matrix of the eleven classes of CamVid"),
    ]  # fmt: skip


def _rates(rates: dict[str, float]) -> str:
    return ", ".join(f"{encoder}: {rate:g}" for encoder, rate in rates.items())


def _head_row(run: dict[str, Any]) -> list[str]:
    settings, metrics = run["settings"], run["metrics"]
    return [
        known_models()[run["architecture"]].label,
        "scratch" if settings["init"] is None else "CLIP on scenes",
        settings["precision"],
        f"{settings['learning_rate']:g}",
        f"{run['num_parameters'] / 1e6:.2f} M",
        f"{metrics[_HEADLINE]:.2f}",
        f"{metrics['aAcc']:.2f}",
    ]
