"""The HTML page of `benchmarks.caption_quality`: claims, plots and tables."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.caption_quality.claims import factor_sentence
from benchmarks.caption_quality.plan import BETTER, TASKS, TUNINGS, WORSE
from benchmarks.caption_quality.plots import TUNING_NAMES, draw_arms, draw_gains, draw_scaling, render_plot
from benchmarks.caption_quality.statistics import Efficiency
from mobileclip_dense.artifact.files import staged_file, write_json
from mobileclip_dense.pages.html_page import render_page, render_table
from mobileclip_dense.report.records import HEADLINE

_MARKS = {"supported": "yes", "not supported": "no", "not testable": "open"}
_STYLE = """
h1 { margin-bottom: 0; }
td, th { padding: .3rem .5rem; white-space: nowrap; }
.claims { list-style: none; padding: 0; }
.claims li { border-left: 4px solid; padding: .1rem 0 .1rem .8rem; margin: 1rem 0; }
.claims b { display: inline-block; padding: 0 .5rem; border-radius: 1rem; color: #fff; font-size: .85rem; }
.claims .yes { border-color: #1c8a5f; } .yes b { background: #1c8a5f; }
.claims .no { border-color: #b4442a; } .no b { background: #b4442a; }
.claims .open { border-color: #6b7280; } .open b { background: #6b7280; }
.reason { display: block; font-size: .9rem; opacity: .85; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 1rem; }
.plots img { width: 100%; height: auto; background: #fff; border-radius: 6px; }
.small { font-size: .85rem; opacity: .8; } details { margin-top: 1rem; }
"""


def write_page(result: dict[str, Any], path: Path) -> Path:
    """Write the page, and the result itself beside it with the suffix .json; returns `path`.

    Args:
        result: what `collect` gave.
    """
    with staged_file(path) as staging:
        staging.write_text(render_result(result), encoding="utf-8")
    write_json(path.with_suffix(".json"), result)
    return path


def render_result(result: dict[str, Any]) -> str:
    """The whole page as HTML."""
    n, pairs = len(result["seeds"]), result["num_pairs"][-1]
    parts = [
        "<h1>Caption quality, reproduced small</h1>",
        f"<p>{html.escape(result['model'])}, {pairs} generated pictures, {n} seeds, {result['num_labelled']} labelled "
        f"scenes that were not pretrained on. The same pictures, order, crops, steps and seeds for every pretraining; "
        f"what differs is what it reads: alt text, one clean sentence, five detailed ones, tags, or nothing.</p>",
        "<h2>The paper's claims at this scale</h2>",
        _claims(result["claims"]),
        f"<p class='small'>{html.escape(result['rule'])}</p>",
        "<h2>Each arm</h2><div class='plots'>",
        *(render_plot(draw_arms, result, task, f"{_figure_name(task)}: seeds, mean, standard error") for task in TASKS),
        "</div>",
        render_table(*_arm_rows(result)),
        "<h2>Differences</h2><div class='plots'>",
        *(
            render_plot(
                draw_gains,
                result,
                task,
                f"{task}: gain in % of the other arm's figure, 95 % interval (Welch); right of 0 is better",
            )
            for task in TASKS
        ),
        "</div>",
        render_table(*_comparison_rows(result)),
        "<h2>Fewer pairs, better captions</h2>",
        f"<p>{html.escape(_efficiency_sentence(result))}</p><div class='plots'>",
        *(
            render_plot(
                draw_scaling,
                result,
                task,
                f"{_figure_name(task)} against the number of pretraining pairs, at the "
                "same number of steps; mean and standard error; fine-tuned",
            )
            for task in TASKS
        ),
        "</div>",
        "<h2>Did pretraining learn?</h2>",
        render_table(*_pretraining_rows(result)),
        "<details><summary>Every run</summary>",
        render_table(*_run_rows(result)),
        "</details>",
        f"<p class='small'>{html.escape(_provenance(result))}</p>",
    ]
    return render_page("Caption quality, small", parts, _STYLE)


def _claims(claims: list[dict[str, Any]]) -> str:
    items = [
        f"<li class='{_MARKS[c['verdict']]}'><b>{c['verdict']}</b> {html.escape(c['claim'])}"
        f"<span class='reason'>{html.escape(c['reason'])}</span></li>"
        for c in claims
    ]
    return f"<ul class='claims'>{''.join(items)}</ul>"


def _figure_name(task: str) -> str:
    _, name, unit, larger = HEADLINE[task]
    return f"{task}, {name} in {unit} ({'higher' if larger else 'lower'} is better)"


def _arm_rows(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    columns = [(task, tuning) for task in TASKS for tuning in TUNINGS]
    header = [f"{HEADLINE[task][1]} {HEADLINE[task][2]}, {TUNING_NAMES[tuning]}" for task, tuning in columns]
    rows = []
    for arm in result["arms"][TUNINGS[0]]:
        summaries = [result["arms"][tuning][arm][task] for task, tuning in columns]
        rows.append([arm, *(f"{s['mean']:.3f} ± {s['standard_error']:.3f}" for s in summaries)])
    return ["pretraining", *header], rows


def _comparison_rows(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for tuning, named in result["comparisons"].items():
        for name, by_task in named.items():
            for task, c in by_task.items():
                g = "∞" if c["effect_size"] is None else f"{c['effect_size']:.2f} {_interval(c['effect_interval'], 2)}"
                gain, share = f"{c['gain']:.3f} {HEADLINE[task][2]}", f"{100 * c['relative_gain']:.1f}"
                rows.append(
                    [
                        name,
                        task,
                        TUNING_NAMES[tuning],
                        gain,
                        share,
                        _interval(c["welch"], 3),
                        _interval(c["paired"], 3),
                        f"{c['p_value']:.3f}",
                        g,
                    ]
                )
    header = [
        "comparison",
        "task",
        "way",
        "gain",
        "%",
        "95 % interval, Welch",
        "paired by seed",
        "p",
        "effect size (Hedges' g), 95 %",
    ]
    return header, rows


def _interval(ends: Sequence[float], digits: int) -> str:
    return f"[{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"


def _efficiency_sentence(result: dict[str, Any]) -> str:
    factors = [f"{task} {factor_sentence(Efficiency(**e))}" for task, e in result["data_efficiency"].items()]
    return (
        f"How many times fewer pairs with {BETTER} captions do what {result['num_pairs'][-1]} pairs with {WORSE} "
        f"text do, interpolated against the logarithm of the number; 95 % interval over "
        f"{len(result['seeds'])} seeds: {'; '.join(factors)}."
    )


def _pretraining_rows(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            arm,
            figures["figure"],
            f"{figures['mean']:.1f} ± {figures['standard_error']:.1f}",
            f"{figures['times_chance']:.1f}x chance" if "times_chance" in figures else "-",
        ]
        for arm, figures in result["pretraining"].items()
    ]
    return ["pretraining", "held-out figure", "mean and standard error", ""], rows


def _run_rows(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for name, run in result["runs"].items():
        keys = (*(headline[0] for headline in HEADLINE.values()), "tag_map_percent", "text_to_image_recall_at_1")
        key = next(key for key in keys if key in run["metrics"])
        rows.append(
            [
                name,
                str(run["seed"]),
                f"{run['metrics'][key]:.3f}",
                f"{run['wall_time_s']:.0f} s",
                run["weights_sha256"][:12],
            ]
        )
    return ["run", "seed", "held-out figure", "time", "weights, sha256"], rows


def _provenance(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return (
        f"Device: {result['device']}. Seeds: {', '.join(map(str, result['seeds']))}. {versions}. "
        f"{result['core_minutes']} core-minutes of training. Settings and hashes: in the JSON."
    )
