"""The result of a complete plan: figures, comparisons, claims and their provenance."""

import dataclasses
import math
from typing import Any

from benchmarks.caption_quality.claims import (
    RULE,
    Claim,
    claim_of_agreement,
    claim_of_efficiency,
    claim_of_gains,
)
from benchmarks.caption_quality.plan import (
    BETTER,
    QUALITIES,
    SCRATCH,
    SUPERVISED,
    TASKS,
    TUNINGS,
    WORSE,
    Protocol,
    Step,
    clip_name,
    settings_of,
    tuned_name,
)
from benchmarks.caption_quality.statistics import Comparison, Efficiency, compare, data_efficiency, summarize
from mobileclip_dense.artifact.files import read_json
from mobileclip_dense.artifact.versions import versions_of
from mobileclip_dense.report.records import HEADLINE
from mobileclip_dense.runtime.device import device_name

ARMS = (*QUALITIES, SUPERVISED, SCRATCH)
COMPARISONS = {  # name -> the arms compared, and the claim that is decided by it
    f"{BETTER} against {WORSE}": (BETTER, WORSE, f"{BETTER} captions beat {WORSE} text on dense tasks"),
    f"clean against {WORSE}": ("clean", WORSE, f"one clean sentence beats {WORSE} text on dense tasks"),
    f"{BETTER} against {SUPERVISED}": (
        BETTER,
        SUPERVISED,
        f"CLIP on {BETTER} captions beats supervised pretraining on dense tasks",
    ),
    f"{BETTER} against {SCRATCH}": (BETTER, SCRATCH, f"CLIP on {BETTER} captions beats no pretraining on dense tasks"),
}
_VERSIONED = ("torch", "timm", "open_clip_torch", "mmsegmentation", "mmengine", "lightning", "numpy", "scipy")

Figures = dict[str, dict[str, dict[str, list[float]]]]  # tuning -> arm -> task -> figure of each seed


def collect(protocol: Protocol, preset: str, plan: list[Step]) -> dict[str, Any]:
    """The result of a complete plan, as plain values without local paths.

    Raises:
        ValueError: the parent of a run was trained again after the run.
    """
    records = {step.name: read_json(step.folder / "run.json") for step in plan if step.kind != "scenes"}
    for step in plan:
        _check_parent(step, records)
    figures = _figures(protocol, records)
    comparisons = {
        tuning: {name: _compare(figures[tuning], a, b) for name, (a, b, _) in COMPARISONS.items()} for tuning in TUNINGS
    }
    scaling = _scaling(protocol, records)
    efficiency = {
        task: data_efficiency(
            dict(zip(protocol.num_pairs, scaling[BETTER][task], strict=True)),
            dict(zip(protocol.num_pairs, scaling[WORSE][task], strict=True)),
            larger_is_better=HEADLINE[task][3],
        )
        for task in TASKS
    }
    pretraining = _pretraining(protocol, records)
    claims = _claims(comparisons, pretraining, efficiency)
    return {
        "preset": preset,
        "model": protocol.pretrain.model,
        "device": _device(records),
        "versions": versions_of(*_VERSIONED),
        "git_revisions": sorted({str(r["git_revision"]) for r in records.values() if "git_revision" in r}),
        "seeds": list(protocol.seeds),
        "num_pairs": list(protocol.num_pairs),
        "num_labelled": protocol.finetune.max_train_images,
        "core_minutes": round(sum(record["wall_time_s"] for record in records.values()) * protocol.threads / 60, 1),
        "rule": RULE,
        "claims": [dataclasses.asdict(claim) for claim in claims],
        "pretraining": pretraining,
        "arms": _arms(figures),
        "comparisons": {
            tuning: {name: {task: _comparison(c) for task, c in by_task.items()} for name, by_task in named.items()}
            for tuning, named in comparisons.items()
        },
        "scaling": {
            q: {task: [dataclasses.asdict(summarize(v)) for v in values] for task, values in of_q.items()}
            for q, of_q in scaling.items()
        },
        "data_efficiency": {task: dataclasses.asdict(value) for task, value in efficiency.items()},
        "settings": {kind: settings_of(step) for kind, step in _first_of_kind(plan).items()},
        "runs": _runs(plan, records),
    }


def _claims(
    comparisons: dict[str, dict[str, dict[str, Comparison]]],
    pretraining: dict[str, dict[str, Any]],
    efficiency: dict[str, Efficiency],
) -> list[Claim]:
    tuned, probed = comparisons["finetune"], comparisons["probe"]
    return [
        *(
            claim_of_gains(sentence, tuned[name], pretraining[arm]["times_chance"])
            for name, (arm, _, sentence) in COMPARISONS.items()
        ),
        claim_of_efficiency(f"{BETTER} captions need fewer pairs than {WORSE} text", efficiency),
        claim_of_agreement("a linear probe says the same as fine-tuning", tuned, probed),
    ]


def _arms(figures: Figures) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Tuning -> arm -> task -> summary over seeds."""
    return {
        tuning: {
            arm: {task: dataclasses.asdict(summarize(v)) for task, v in of_arm.items()}
            for arm, of_arm in of_tuning.items()
        }
        for tuning, of_tuning in figures.items()
    }


def _runs(plan: list[Step], records: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The published records of all runs, by the name of the step."""
    first = _first_of_kind(plan)
    return {step.name: _published(step, first[step.kind], records[step.name]) for step in plan if step.kind != "scenes"}


def _check_parent(step: Step, records: dict[str, dict[str, Any]]) -> None:
    parent = step.after[-1] if step.kind == "finetune" else ""
    if parent not in records:
        return
    found, expected = records[step.name]["parent"]["weights_sha256"], records[parent]["weights_sha256"]
    if found != expected:
        raise ValueError(
            f"{step.folder}: parent: found weights {found[:12]}…, expected {expected[:12]}… as in {parent}, which was "
            "trained again; remove this folder and repeat the command"
        )


def _figures(protocol: Protocol, records: dict[str, dict[str, Any]]) -> Figures:
    def start(arm: str, seed: int) -> str:
        return clip_name(arm, protocol.num_pairs[-1], seed) if arm in QUALITIES else f"{arm}-{seed}"

    return {
        tuning: {
            arm: {
                task: [_headline(records[tuned_name(task, tuning, start(arm, seed))], task) for seed in protocol.seeds]
                for task in TASKS
            }
            for arm in ARMS
        }
        for tuning in TUNINGS
    }


def _headline(record: dict[str, Any], task: str) -> float:
    return float(record["metrics"][HEADLINE[task][0]])


def _compare(figures: dict[str, dict[str, list[float]]], a: str, b: str) -> dict[str, Comparison]:
    return {task: compare(figures[a][task], figures[b][task], larger_is_better=HEADLINE[task][3]) for task in TASKS}


def _scaling(protocol: Protocol, records: dict[str, dict[str, Any]]) -> dict[str, dict[str, list[list[float]]]]:
    """Quality -> task -> for each number of pairs, the figure of each seed."""
    return {
        quality: {
            task: [
                [
                    _headline(records[tuned_name(task, "finetune", clip_name(quality, n, s))], task)
                    for s in protocol.seeds
                ]
                for n in protocol.num_pairs
            ]
            for task in TASKS
        }
        for quality in (WORSE, BETTER)
    }


def _pretraining(protocol: Protocol, records: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The figures of each pretraining on held-out images."""
    figures: dict[str, dict[str, Any]] = {}
    for quality in QUALITIES:
        metrics = [records[clip_name(quality, protocol.num_pairs[-1], seed)]["metrics"] for seed in protocol.seeds]
        recalls = [m["text_to_image_recall_at_1"] for m in metrics]
        summary = summarize(recalls)
        figures[quality] = {
            "figure": "recall@1, text to image, %",
            **dataclasses.asdict(summary),
            "times_chance": summary.mean * metrics[0]["num_pairs"] / 100,
            "num_held_out": metrics[0]["num_pairs"],
        }
    tags = [records[f"{SUPERVISED}-{seed}"]["metrics"]["tag_map_percent"] for seed in protocol.seeds]
    figures[SUPERVISED] = {"figure": "mean average precision of tags, %", **dataclasses.asdict(summarize(tags))}
    return figures


def _comparison(comparison: Comparison) -> dict[str, Any]:
    values = dataclasses.asdict(comparison) | {"relative_gain": comparison.relative_gain}
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in values.items()}


def _device(records: dict[str, dict[str, Any]]) -> str:
    if not any("cuda" in record["device"] for record in records.values()):
        return device_name()
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "a GPU"


def _first_of_kind(plan: list[Step]) -> dict[str, Step]:
    return {step.kind: step for step in reversed(plan)}


def _published(step: Step, first: Step, record: dict[str, Any]) -> dict[str, Any]:
    """The figures of a run, and the settings that differ from the first run of its kind."""
    parent = record["parent"] and record["parent"]["weights_sha256"]
    base = settings_of(first)
    differing = {name: value for name, value in settings_of(step).items() if value != base[name]}
    published = ("seed", "device", "wall_time_s", "weights_sha256", "metrics")
    return {"settings": differing, "parent_weights_sha256": parent} | {name: record[name] for name in published}
