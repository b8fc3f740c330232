"""The HTML page of the report."""

import html
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.artifact.palette import IGNORE_INDEX, colour_depth, overlay_classes
from mobileclip_dense.config import FinetuneConfig, config_from_json
from mobileclip_dense.data.labelled.annotations import read_class_labels, read_depth_m
from mobileclip_dense.data.labelled.pairs import Pair
from mobileclip_dense.data.labelled.scan import usable_set
from mobileclip_dense.pages.html_page import render_image, render_page, render_table
from mobileclip_dense.report.pretraining_gain import PretrainingGain
from mobileclip_dense.report.records import HEADLINE, Records, RunFiles
from mobileclip_dense.report.tables import elsewhere_rows, table_rows
from mobileclip_dense.runtime.accuracy import predict_at
from mobileclip_dense.runtime.onnx_model import OnnxModel

_NUM_EXAMPLES = 6
_STYLE = """
body { max-width: 1112px; margin-top: 2rem; }
td, th { padding: .35rem .6rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(310px, 1fr)); gap: 1rem; }
.pictures img { width: 100%; height: auto; image-rendering: pixelated; }
.curves img { background: #fff; }
.yes { border-left: 4px solid #2a8; padding-left: .7rem; } .no { border-left: 4px solid #d73; padding-left: .7rem; }
"""


def render_report(records: Records, gains: list[PretrainingGain]) -> str:
    """The report as an HTML page."""
    parts = [
        "<h1>mobileclip-dense</h1>",
        "<p>From captioned images to a verified phone model. All figures on this page were measured by the listed runs "
        "and exports; none is quoted.</p>",
        _gain_section(gains),
        "<h2>Exported models</h2>",
        render_table(*table_rows(records)),
        *_elsewhere_section(records),
        *_left_out_section(records),
        "<h2>Training</h2>",
        _curves(records.runs),
        render_table(*_run_rows(records.runs)),
        *_picture_sections(records),
    ]
    return render_page("mobileclip-dense report", parts, _STYLE)


def _gain_section(gains: list[PretrainingGain]) -> str:
    if not gains:
        return "<p>There are no runs from scratch to compare with the pretrained runs.</p>"
    lines = [f"<p class='{'yes' if gain.supported else 'no'}'>{html.escape(gain.sentence())}</p>" for gain in gains]
    return (
        "<h2>Does CLIP pretraining help here?</h2>" + "".join(lines) + "<p>This is a hint, not a test: with two seeds "
        "in each arm, chance alone exceeds the spread between seeds in about one case of nine.</p>"
    )


def _elsewhere_section(records: Records) -> list[str]:
    header, rows = elsewhere_rows(records)
    return ["<h2>In browsers and other runtimes</h2>", render_table(header, rows)] if rows else []


def _left_out_section(records: Records) -> list[str]:
    if not records.left_out:
        return []
    return ["<h2>Left out</h2><ul>", *(f"<li>{html.escape(reason)}</li>" for reason in records.left_out), "</ul>"]


def _run_rows(runs: list[RunFiles]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for run in runs:
        if run.task == "pretrain":
            metrics = run.record["metrics"]
            figures = []
            ways = [f"{way}_recall_at_1" for way in ("image_to_text", "text_to_image")]
            if _are_numbers(metrics, "num_pairs", *ways):
                recalls = " / ".join(f"{metrics[way]:.1f} %" for way in ways)
                figures.append(f"recall@1 {recalls} of {metrics['num_pairs']:.0f}")
            if _are_numbers(metrics, "zeroshot_top1", "num_classes"):
                figures.append(f"zero-shot {metrics['zeroshot_top1']:.1f} % of {metrics['num_classes']:.0f} classes")
            figure = ", ".join(figures) or "-"
        else:
            key, name, unit, _ = HEADLINE[run.task]
            figure = f"{name} {run.record['metrics'][key]:.3g} {unit}"
        parent = run.record["parent"]
        start = str(parent.get("path", "unknown")).rsplit("/", 1)[-1] if parent else "scratch"
        network = run.config["model" if run.task == "pretrain" else "encoder"]
        rows.append(
            [
                run.folder.name,
                run.task,
                network,
                start,
                str(run.config["seed"]),
                figure,
                f"{run.record['wall_time_s']:.0f} s",
            ]
        )
    return ["run", "task", "network", "start", "seed", "held-out figure", "time"], rows


def _are_numbers(metrics: dict[str, Any], *names: str) -> bool:
    return all(isinstance(metrics.get(name), int | float) for name in names)


def _curves(runs: list[RunFiles]) -> str:
    tasks = [task for task in ("pretrain", *HEADLINE) if any(run.task == task for run in runs)]
    figure = Figure(figsize=(4.2 * len(tasks), 3.2), layout="constrained")
    for axes, task in zip(np.atleast_1d(figure.subplots(1, len(tasks))), tasks, strict=True):
        labelled = set()
        for run in (run for run in runs if run.task == task):
            pretrained = run.config.get("init") is not None
            start = "pruned" if "structure_sha256" in run.record else "pretrained" if pretrained else "from scratch"
            label = "CLIP loss" if task == "pretrain" else start
            colour = "#1f6fb4" if pretrained or task == "pretrain" else "#d8722c"
            trained = [line for line in run.curve if "loss" in line]  # the others are evaluations during training
            steps, losses = [line["step"] for line in trained], [line["loss"] for line in trained]
            axes.plot(steps, losses, color=colour, linewidth=1.3, label=None if label in labelled else label)
            labelled.add(label)
        axes.set(title=task, xlabel="step", ylabel="training loss", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f"<figure class='curves'>{render_image(buffer.getvalue(), 'training curves')}</figure>"


def _picture_sections(records: Records) -> list[str]:
    """For each fp32 ONNX artifact: held-out images of its run, with ground truth and prediction side by side."""
    sections = []
    for folder, artifact in records.artifacts:
        parents = [run for run in records.runs if run.record["weights_sha256"] == artifact.parent["weights_sha256"]]
        drawn = artifact.task in ("segment", "depth") and artifact.runtime == "onnx" and artifact.precision == "fp32"
        if not drawn or not parents:
            continue
        model = OnnxModel(folder / artifact.model_file)
        draw = _segmentation_strip if artifact.task == "segment" else _depth_strip
        title = f"<h2>{html.escape(artifact.name)}</h2>"
        try:
            strips = draw(model, parents[0], artifact.input_size_px, list(artifact.palette))
        except (ValueError, OSError) as error:  # the data may have moved; its path is kept out of the page
            print(f"{artifact.name}: no pictures: {error}")
            sections.append(f"{title}<p>No pictures: the held-out images of its run could not be read.</p>")
            continue
        pictures = "".join(f"<figure>{render_image(_png(strip), name)}</figure>" for name, strip in strips)
        sections.append(
            f"{title}<p>Held-out images: picture, ground truth, prediction "
            f"of the exported model.</p><div class='pictures'>{pictures}</div>"
        )
    return sections


def _held_out_examples(run: RunFiles) -> tuple[FinetuneConfig, tuple[Pair, ...]]:
    config = config_from_json(run.config, run.folder / "config.json")
    assert isinstance(config, FinetuneConfig)
    return config, usable_set(config).val[:_NUM_EXAMPLES]


def _segmentation_strip(
    model: OnnxModel, run: RunFiles, size_px: tuple[int, int], palette: list[tuple[int, int, int]]
) -> list[tuple[str, npt.NDArray[np.uint8]]]:
    strips = []
    if "reduce_zero_label" not in run.record:
        raise ValueError(f"{run.folder / 'run.json'}: reduce_zero_label: found nothing, expected true or false; the "
                         "run is from an older version")  # fmt: skip
    reduce_zero_label, ignored_label = run.record["reduce_zero_label"], run.record.get("ignored_label", IGNORE_INDEX)
    for image_path, label_path in _held_out_examples(run)[1]:
        image = load_image(image_path)
        truth = read_class_labels(label_path, reduce_zero_label, ignored_label)
        found = predict_at(model, "class_map", image, size_px).astype(np.int64)
        panels = [image, overlay_classes(image, truth, palette), overlay_classes(image, found, palette)]
        strips.append((image_path.name, np.concatenate(panels, axis=1)))
    return strips


def _depth_strip(
    model: OnnxModel, run: RunFiles, size_px: tuple[int, int], _palette: list[tuple[int, int, int]]
) -> list[tuple[str, npt.NDArray[np.uint8]]]:
    strips = []
    config, examples = _held_out_examples(run)
    for image_path, label_path in examples:
        image, truth = load_image(image_path), read_depth_m(label_path, config.depth_units_per_m)
        found = predict_at(model, "depth_m", image, size_px).astype(np.float32)
        far = config.max_depth_m
        near = float(truth[truth > 0].min(initial=far))
        panels = [image, colour_depth(truth, near, far), colour_depth(found, near, far)]
        strips.append((image_path.name, np.concatenate(panels, axis=1)))
    return strips


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
