"""The comparison as Markdown, CSV and JSON."""

import csv
import dataclasses
import io
from typing import Any

from benchmarks.compare.models import REFERENCE
from benchmarks.compare.published import IPHONE, PUBLISHED, Published
from benchmarks.compare.rows import Comparison, Row

PLOTS = ("compare-accuracy-parameters", "compare-accuracy-latency")


def header(comparison: Comparison) -> list[str]:
    """The names of the columns of `cells`."""
    latencies = [f"{n} thread{'s' if int(n) > 1 else ''}, p50 / p90 ms" for n in comparison.settings["threads"]]
    return [
        "model",
        "parameters",
        "GMACs",
        "file MB",
        *latencies,
        "peak MB",
        "parameters, Swin-L /",
        "file, Swin-L /",
        "latency, Swin-L /",
        "mIoU measured here",
        "mIoU published (ADE20K)",
        f"{IPHONE}, published (image tower, 256 px)",
        "other devices, imported",
    ]


def cells(comparison: Comparison, row: Row) -> list[str]:
    """The cells of one row; "-" for a missing figure."""
    swin, threads = comparison.reference, comparison.threads
    ratios = ["-"] * 3
    if swin is not None:
        values = (
            swin.num_parameters / row.num_parameters,
            swin.size_bytes / row.size_bytes,
            swin.p50_ms(threads) / row.p50_ms(threads),
        )
        ratios = [f"{value:.1f}x" for value in values]
    latencies = [row.latency_ms_by_threads[str(n)] for n in comparison.settings["threads"]]
    return [
        row.label,
        f"{row.num_parameters / 1e6:.1f} M",
        f"{row.macs / 1e9:.1f}",
        f"{row.size_bytes / 1e6:.1f}",
        *(f"{latency['p50']:.0f} / {latency['p90']:.0f}" for latency in latencies),
        f"{row.peak_memory_mb:.0f}",
        *ratios,
        "; ".join(f"{m.sentence} (weights {m.weights_sha256[:8]}, {m.source})" for m in row.measured) or "-",
        "; ".join(f"{p.value:g} % [{_number(p)}]" for p in row.published if p.figure == "miou_percent") or "-",
        "; ".join(f"{p.value:g} ms [{_number(p)}]" for p in row.published if p.figure == "latency_ms") or "-",
        "; ".join(
            f"{e.p50_ms:.1f} / {e.p90_ms:.1f} ms ({e.artifact}, {e.device}, {e.runtime}, {e.source})"
            for e in row.elsewhere
        )
        or "-",
    ]


def ratio_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """The header and rows of the table of ratios to Swin-L."""
    rows = [
        [
            ratio.text,
            f"{ratio.wanted:g}x",
            ratio.by,
            "-" if ratio.found is None else f"{ratio.found:.2f}x",
            ratio.outcome,
        ]
        for ratio in comparison.ratios()
    ]
    return ["Swin-L divided by", "goal", "goal set by", "measured", "outcome"], rows


def to_markdown(comparison: Comparison) -> str:
    """The comparison as a Markdown page."""
    settings = comparison.settings
    size = settings["size_px"]
    published = [
        [
            str(_number(item)),
            item.model,
            f"{item.value:g} {'%' if item.figure == 'miou_percent' else 'ms'}",
            item.what,
            item.reference,
        ]
        for item in PUBLISHED
    ]
    parts = [
        f"# Segmenters with {settings['num_classes']} classes at {size}x{size} px",
        f"`make compare` writes this page from {', '.join(comparison.sources)}; edit nothing here.",
        _how_measured(settings),
        "## Against Swin-L + UPerNet",
        _table(*ratio_cells(comparison)),
        _auxiliary_head(comparison),
        "The accuracy beside a latency is that of trained weights in the artifact named there, with another number of "
        "classes and another size: the timed artifact has fresh weights. How many nodes of int8 pay, and how much, "
        "depends on all of these and on the processor.",
        "## All models",
        _table(header(comparison), [cells(comparison, row) for row in comparison.rows]),
        _how_compared(size),
        *(f"![{name.replace('-', ' ')}]({name}.png)" for name in PLOTS),
    ]
    if comparison.others:
        parts += ["Of networks that are none of these:", _list(comparison.others)]
    parts += [
        "## Published figures",
        _table(["", "model", "figure", "of what", "reference"], published),
        "## Missing",
        _list(comparison.missing) if comparison.missing else "Nothing.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _auxiliary_head(comparison: Comparison) -> str:
    """The first ratio with Swin-L's published number of parameters, as a sentence."""
    plain = comparison.find("mci2-semantic_fpn")
    published = next(item.num_parameters for item in PUBLISHED if item.row == REFERENCE)
    if plain is None or published is None:
        return ""
    return (
        f"With the auxiliary head that Swin-L's published {published / 1e6:.0f} M hold, the first would be "
        f"{published / plain.num_parameters:.2f}x."
    )


def _how_measured(settings: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in settings["versions"].items())
    return (
        f"Measured on {settings['device']} in {settings['runtime']}: all models in one interleaved run of "
        f"{settings['rounds']} rounds (5 for those above a second), fresh weights of seed {settings['seed']} (latency, "
        f"size and memory of fp32 do not depend on them), fused, preprocessing and class map inside; {versions}. int8 "
        "is quantized where that was faster here, without the limit on accuracy that an export of trained weights has: "
        "there, nodes that cost too much stay float, so that it may be slower and larger. Parameters and "
        "multiply-accumulates are those of the fused network. The auxiliary head that Swin-L and ViT are trained with "
        "is not deployed and not counted."
    )


def _how_compared(size_px: int) -> str:
    return (
        "Accuracies measured here are those of trained runs of the same network, by their weights and result file: the "
        "best on each data set of each length. fp32's is the run's own, on whole images as `evaluate` takes them; an "
        "export's is on images resized to its input, with the float model's on the same. Runs of different lengths say "
        "little about each other, so a panel of the plots holds runs of one length; ours join ADE20K's published "
        "figures from 40 000 iterations on, the shortest published schedule. A panel of latencies puts a network's "
        f"accuracy, at its own image size, above the time it takes at {size_px}x{size_px} px. Published figures are "
        "others', by their number below, and were not reproduced; a plot has them at their published size."
    )


def to_csv(comparison: Comparison) -> str:
    """The comparison as CSV, with the numbers of the result file and units in the column names."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _flat(comparison, comparison.rows[0]).keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(_flat(comparison, row) for row in comparison.rows)
    return out.getvalue()


def to_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON values."""
    return {
        "settings": comparison.settings,
        "sources": comparison.sources,
        "rows": [{**dataclasses.asdict(row), "model": row.model.name, "label": row.label} for row in comparison.rows],
        "ratios": [dataclasses.asdict(ratio) | {"verdict": ratio.outcome} for ratio in comparison.ratios()],
        "missing": comparison.missing,
    }


def _flat(comparison: Comparison, row: Row) -> dict[str, Any]:
    swin, threads = comparison.reference, comparison.threads
    measured, published = row.measured, [p for p in row.published if p.figure == "miou_percent"]
    tower = [p for p in row.published if p.figure == "latency_ms"]
    return {
        "model": row.model.name,
        "precision": row.precision,
        "num_parameters": row.num_parameters,
        "macs": row.macs,
        "size_bytes": row.size_bytes,
        **{
            f"{q}_ms_{n}_threads": row.latency_ms_by_threads[str(n)][q]
            for n in comparison.settings["threads"]
            for q in ("p50", "p90")
        },
        "peak_memory_mb": row.peak_memory_mb,
        "swin_l_parameters_ratio": swin and swin.num_parameters / row.num_parameters,
        "swin_l_size_ratio": swin and swin.size_bytes / row.size_bytes,
        "swin_l_latency_ratio": swin and swin.p50_ms(threads) / row.p50_ms(threads),
        "measured_miou_percent": "; ".join(f"{m.miou_percent:.2f}" for m in measured),
        "measured_data_set": "; ".join(m.data_set for m in measured),
        "measured_iters": "; ".join(str(m.iters) for m in measured),
        "measured_start": "; ".join(m.start for m in measured),
        "measured_weights_sha256": "; ".join(m.weights_sha256 for m in measured),
        "measured_source": "; ".join(m.source for m in measured),
        "published_ade20k_miou_percent": "; ".join(f"{p.value:g}" for p in published),
        "published_reference": "; ".join(p.reference for p in published),
        "published_iphone_tower_ms": "; ".join(f"{p.value:g}" for p in tower),
        "imported": "; ".join(f"{e.p50_ms:.2f} ms on {e.device} ({e.runtime})" for e in row.elsewhere),
        "artifact_sha256": row.artifact_sha256,
    }


def _number(item: Published) -> int:
    """The number of a published figure in the page's list."""
    return PUBLISHED.index(item) + 1


def _table(names: list[str], rows: list[list[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _list(sentences: list[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)
