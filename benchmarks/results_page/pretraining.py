"""Sections about pretraining."""

from typing import Any

from benchmarks.results_page.deployment import DEMO
from benchmarks.results_page.markdown import bullets, listed, picture, table
from benchmarks.results_page.sources import Sources

STEP = "training-rival-mci0.json"
DATA_PATH = "data-path.json"
REINFORCE = "reinforce-vitb32.json"
MEMORY = "training-memory-mci2.json"
REINFORCED = "reinforced-nano.json"
CAPTIONS = "caption-quality-cpu.json"
_PLACES = {"segment": 1, "depth": 3}  # decimal places of the metric of a task
_TRAINERS = {"open_clip": "open_clip's trainer", "ours": "this project"}


def training_step(sources: Sources) -> list[str]:
    """A step of CLIP against open_clip's trainer."""
    result = sources.read(STEP)
    rows = [[_TRAINERS.get(name, name), f"{seconds:.2f}", f"{result['pairs_per_s'][name]:.2f}"]
            for name, seconds in result["s_per_step_median"].items()]  # fmt: skip
    return [
        f"One step of {result['model']} with its text tower at {result['image_size_px']} px, batch "
        f"{result['batch_size']}, precision {result['precision']}, including the loading of the shards. Both trainers "
        f"run in turn; the figure is the median over windows of {result['windows_of_steps']} steps.",
        sources.provenance(STEP),
        table(["trainer", "s per step", "pairs per s"], rows),
        f"This project is {result['ours_against_open_clip']:.2f}x as fast.",
        "What this does not show: GPUs, several processes, or the large batches of a real pretraining.",
    ]


def data_path(sources: Sources) -> list[str]:
    """Loading of reinforced samples."""
    result = sources.read(DATA_PATH)
    per_second, milliseconds = result["samples_per_s"], result["ms_per_sample"]
    names = {"ours": "this project", "plain": "webdataset, Pillow, torchvision"}
    return [
        f"Reinforced samples (JPEGs and embeddings of DataCompDR's sizes) loaded to {result['image_size_px']} px in "
        f"batches of {result['batch_size']} on {result['threads']} core.",
        sources.provenance(DATA_PATH),
        table(["way", "samples per s", "ms per sample"],
              [[names[way], f"{per_second[way]:.0f}", f"{milliseconds[way]:.2f}"] for way in per_second]),
        f"This project is {result['speedup']:.2f}x as fast. Its images differ from those of the other way by at most "
        f"{result['largest_grey_level_difference']} grey levels.",
        "What this does not show: reading from a network or from slow disks.",
    ]  # fmt: skip


def reinforcing(sources: Sources) -> list[str]:
    """Reinforcing against the teachers' own forward passes."""
    result = sources.read(REINFORCE)
    views = result["views_per_s"]
    return [
        f"`mobileclip-dense reinforce` stores teachers' embeddings beside images. With {listed(result['models'])} as "
        f"the teacher, {result['num_augmentations']} augmented views per image and precision {result['precision']}, it "
        f"computes {views['reinforce']:.1f} views per second. The teacher's forward passes alone reach "
        f"{views['teachers']:.1f}, so that reinforcing reaches {result['share_of_teachers_percent']:.0f} % of "
        "their pace.",
        sources.provenance(REINFORCE),
        "What this does not show: GPUs. A faster teacher leaves less time for decoding and augmentation.",
    ]


def memory(sources: Sources) -> list[str]:
    """Pace and peak memory of a step against batch size."""
    result = sources.read(MEMORY)
    return [
        f"A step of {result['model']} with its text tower at {result['image_size_px']} px, precision "
        f"{result['precision']}. `checkpointed` computes activations twice to save memory. `two passes` splits the "
        "batch and caches gradients.",
        sources.provenance(MEMORY),
        table(["batch", "way", "pairs per s", f"peak GB, {result['memory']}"],
              [_memory_row(row) for row in result["rows"]]),
        "What this does not show: the memory of a GPU, or a steady pace. The number of timed steps of each row is "
        f"{result['steps']}, after one for warming up. On a machine with a GPU, the same command measures the GPU.",
    ]  # fmt: skip


def _memory_row(row: dict[str, Any]) -> list[str]:
    pace, peak_mb = row["pairs_per_s"], row["peak_memory_mb"]
    figures = ("-", "out of memory") if pace is None else (f"{pace:.2f}", f"{peak_mb / 1e3:.1f}")
    return [str(row["batch_size"]), row["way"], *figures]


def reinforced_pretraining(sources: Sources) -> list[str]:
    """Plain and taught pretraining of the nano model."""
    plain, taught = sources.read(DEMO)["runs"]["clip"], sources.read(REINFORCED)["runs"]
    settings = plain["settings"]
    runs = {
        "CLIP": plain,
        "taught by that run": taught["clip-taught"],
        "taught by that run, in two processes": taught["clip-two"],
    }
    rows = []
    for name, run in runs.items():
        metrics = run["metrics"]
        rows.append([name, f"{metrics['image_to_text_recall_at_1']:.1f}", f"{metrics['text_to_image_recall_at_1']:.1f}",
                     f"{metrics['zeroshot_top1']:.1f}"])  # fmt: skip
    metrics = plain["metrics"]
    return [
        f"The {settings['model']} model, {settings['steps']} steps of {settings['batch_size']} pairs at "
        f"{settings['image_size_px']} px; two processes take twice as many pairs per step. Recall is over "
        f"{metrics['num_pairs']} held-out pairs, zero-shot accuracy over {metrics['num_classes']} classes.",
        sources.provenance(DEMO, REINFORCED),
        table(["pretraining", "recall@1, image to text, %", "recall@1, text to image, %", "zero-shot top-1, %"], rows),
        "What this does not show: the effect of DataCompDR. A teacher that is no better than its student teaches "
        "little. The runs show that the commands work together.",
    ]


def caption_quality(sources: Sources) -> list[str]:
    """The paper's claims on captions, at the scale of a nano model."""
    result = sources.read(CAPTIONS)
    header = ["pretraining", "mIoU %, fine-tuned", "mIoU %, linear probe", "RMSE m, fine-tuned", "RMSE m, linear probe"]
    return [
        "The paper (arXiv 2405.08911) says that CLIP pretraining on good captions gives encoders that are strong on "
        f"dense tasks. This benchmark repeats the comparison with the {result['model']} model on generated pictures: "
        f"{len(result['seeds'])} seeds, {max(result['num_pairs'])} captioned pictures, {result['num_labelled']} "
        f"labelled scenes, {result['core_minutes']} core-minutes. The table gives means and standard errors.",
        sources.provenance(CAPTIONS),
        table(header, [_arm_row(result["arms"], arm) for arm in result["arms"]["finetune"]]),
        "How well each encoder learnt its pretraining task, on held-out pictures:",
        bullets(_pretraining(arm, found) for arm, found in result["pretraining"].items()),
        "The rule for the verdicts, as the result file states it:",
        f"> {result['rule']}",
        bullets(f"{claim['claim']}: **{claim['verdict']}**" for claim in result["claims"]),
        _efficiency(result),
        "What this does not show: what happens with real captions and at the paper's scale. Fine-tuning is short "
        f"({result['settings']['finetune']['max_iters']} iterations): on so few labels, a linear probe of a pretrained "
        "encoder reaches a higher mIoU than fine-tuning does.",
        picture("caption-quality.png",
                "The page of the caption-quality benchmark: the verdict on each claim, and every arm with its seeds"),
    ]  # fmt: skip


def _pretraining(arm: str, found: dict[str, Any]) -> str:
    chance = f", {found['times_chance']:.1f} times chance" if "times_chance" in found else ""
    return f"{arm}: {found['figure']}: {found['mean']:.1f} ± {found['standard_error']:.1f}{chance}"


def _arm_row(arms: dict[str, Any], arm: str) -> list[str]:
    cells = []
    for task, places in _PLACES.items():
        for tuning in ("finetune", "probe"):
            found = arms[tuning][arm][task]
            cells.append(f"{found['mean']:.{places}f} ± {found['standard_error']:.{places}f}")
    return [arm, *cells]


def _efficiency(result: dict[str, Any]) -> str:
    """Why no factor of data efficiency follows: more pairs of alt text do not help."""
    fewest, most = min(result["num_pairs"]), max(result["num_pairs"])
    parts = [
        f"{task}: {_interval(found['rise'])} for alt text, {_interval(found['better_rise'])} for reinforced captions"
        for task, found in result["data_efficiency"].items()
    ]
    return (
        f"Data efficiency: the gain of {most} pairs over {fewest}, at the same number of steps, as a confidence "
        f"interval in the unit of the task ({'; '.join(parts)}). A factor of data efficiency needs an interval of alt "
        "text that lies above zero."
    )


def _interval(ends: list[float]) -> str:
    return f"{ends[0]:.3g} to {ends[1]:.3g}"
