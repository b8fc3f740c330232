"""The README's bash blocks, command by command, at the smallest size; and its figures, against their files."""

import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.compare.models import MODELS
from tests.conftest import REPOSITORY, SMALL_FINETUNE, SMALL_PRETRAIN, run_module

README = (REPOSITORY / "README.md").read_text()
SMALLER = {
    "mobileclip-dense scenes": ("--num-images", "128", "--size-px", "64"),  # two shards, for two processes
    "mobileclip-dense reinforce": ("--num-augmentations", "2"),
    "torchrun --nproc-per-node 2 -m mobileclip_dense pretrain": SMALL_PRETRAIN,
    "torchrun --nproc-per-node 2 -m mobileclip_dense finetune": SMALL_FINETUNE,
    "mobileclip-dense pretrain": SMALL_PRETRAIN,
    "mobileclip-dense finetune": SMALL_FINETUNE,
    "python -m benchmarks.latency": ("--runs", "5"),
}


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_the_commands_of_the_readme_run_in_their_order(tmp_path: Path) -> None:
    found = commands()
    assert len(found) >= 12
    for command in found:
        smaller = next((flags for prefix, flags in SMALLER.items() if command.startswith(prefix)), ())
        sizes = {"shards-64x64": "shards-32x32", "96x96": "64x64", "--size-px 96": ""}
        for written, smallest in sizes.items():
            command = command.replace(written, smallest)
        arguments = shlex.split(command)
        program = {"python -m": [], "mobileclip-dense": ["mobileclip_dense"], "torchrun": ["torch.distributed.run"]}
        (start,) = (start for start in program if command.startswith(start))
        rest = arguments[len(start.split()) :]
        done = run_module(*program[start], *rest, *smaller, check=False, cwd=tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"
    assert (tmp_path / "report.html").exists()
    results = {path.name.removeprefix("00000007-") for path in (tmp_path / "pictures").iterdir()}
    assert results >= {"segment.png", "classes.png", "depth.png", "depth-mm.png", "depth.ply", "classify.png"}
    assert results >= {"segment-summary.json", "depth-summary.json", "classify-summary.json"}


def test_every_file_that_the_readme_names_exists() -> None:
    for name in re.findall(r"(?:\(|`)((?:docs|benchmarks/results)/[^)`\s]+)", README):
        assert (REPOSITORY / name).exists(), name


def result(name: str) -> Any:
    return json.loads((REPOSITORY / "benchmarks" / "results" / name).read_text())


def test_the_measured_figures_are_those_of_their_files() -> None:
    text = " ".join(README.split())
    demo, camvid, lite = (result(f"{name}.json") for name in ("demo", "camvid-mci2", "camvid-lite-mci2"))
    for verdict in demo["verdicts"]:
        assert verdict["sentence"] in text
    for row in demo["artifacts"]["rows"] + camvid["artifacts"]["rows"] + lite["artifacts"]["rows"]:
        assert "| " + " | ".join(row) + " |" in README
    assert f"mIoU {result('camvid-mci0.json')['runs']['segment-mci0']['metrics']['mIoU']:.2f} %" in text


def test_the_figures_of_pretraining_are_those_of_their_files() -> None:
    text = " ".join(README.split())
    rival, path = result("training-rival-mci0.json"), result("data-path.json")
    seconds = rival["s_per_step_median"]
    assert f"loading included: {seconds['ours']:.2f} s, with open_clip's own trainer" in text
    assert f"{seconds['open_clip']:.2f} s: {rival['ours_against_open_clip']:.2f}x as fast" in text
    assert f"{path['speedup']:.2f}x the plain way ({path['samples_per_s']['plain']:.0f})" in text
    assert f"`reinforce` reaches {result('reinforce-vitb32.json')['share_of_teachers_percent']:.0f} %" in text
    for row in result("training-memory-mci2.json")["rows"]:
        pace, peak = row["pairs_per_s"], row["peak_memory_mb"] / 1e3
        assert f"| {row['batch_size']} | {row['way']} | {pace:.2f} | {peak:.1f} |" in README
    plain, taught = result("demo.json")["runs"], result("reinforced-nano.json")["runs"]
    for run in (plain["clip"], taught["clip-taught"], taught["clip-two"]):
        recall, zeroshot = run["metrics"]["image_to_text_recall_at_1"], run["metrics"]["zeroshot_top1"]
        assert f"recall@1 {recall:.1f} %, zero-shot {zeroshot:.1f} %" in text
    demo = result("demo-throughput-mci2.json")
    assert f"takes {demo['model_share_percent']:.0f} % of the demo's time" in text
    assert f"and {demo['model_alone_share_percent']:.0f} % of it measured by itself" in text


def test_the_figures_of_the_exports_are_those_of_their_files() -> None:
    text = " ".join(README.split())
    rivals = result("onnx-rivals-mci2.json")
    for name, latency in rivals["latency_ms"].items():
        size = rivals["size_bytes"][name] / 1e6
        assert f"| {name} | {latency['p50']:.1f} / {latency['p90']:.1f} | {size:.1f} |" in README
    assert f"fp32 is {rivals['fp32_against_best_rival']:.2f}x as fast as the best rival" in text
    assert f"int8 is {rivals['int8_against_our_fp32']:.2f}x as fast as our fp32" in text
    assert f"{rivals['int8_against_tutorial']:.2f}x the tutorial's `quantize_static`" in text
    for name, figures in result("mil-executor-mci2.json")["artifacts"].items():
        key = "golden_agreement_percent" if "segment" in name else "abs_rel_percent"
        assert f"{figures[key]:.2f} % of the pixels" in text or f"within {figures[key]:.3f} %" in text


def test_the_figures_of_caption_quality_are_those_of_their_file() -> None:
    quality = result("caption-quality-cpu.json")
    formats = {"segment": "{mean:.1f} ± {standard_error:.1f}", "depth": "{mean:.3f} ± {standard_error:.3f}"}
    for arm in quality["arms"]["finetune"]:
        cells = [formats[task].format(**quality["arms"][tuning][arm][task])
                 for task in formats for tuning in ("finetune", "probe")]  # fmt: skip
        assert f"| {arm} | {' | '.join(cells)} |" in README
    for claim in quality["claims"]:
        assert f"- {claim['claim']}: **{claim['verdict']}**" in README
    text = " ".join(README.split())
    assert f"{quality['core_minutes']} core-minutes" in text
    worse, better = (quality["data_efficiency"]["depth"][name] for name in ("rise", "better_rise"))
    assert f"{worse[0]:.3f} to {worse[1]:.3f} m" in text
    assert f"({better[0]:.4f} to {better[1]:.5f} m)" in text


def test_the_figures_of_camvids_heads_are_those_of_their_file() -> None:
    runs = [run for run in result("camvid-heads.json")["runs"].values() if "mIoU" in run["metrics"]]
    assert len(runs) >= 2
    for run in runs:
        figures = f"{run['num_parameters'] / 1e6:.2f} M | {run['metrics']['mIoU']:.2f} | {run['metrics']['aAcc']:.2f} |"
        assert figures in README


def measured_blocks() -> list[str]:
    """The section of measured figures, cut before each bold heading."""
    section = README.split("\n## Measured here\n")[1].split("\n## ")[0]
    return re.split(r"\n(?=\*\*)", section)


def numbers(value: Any) -> Iterator[float]:
    """All numbers of a result file; strings hold some too: rows of a printed table, sentences, counts as keys."""
    if isinstance(value, dict):
        for key, held in value.items():
            yield from numbers(key)
            yield from numbers(held)
    elif isinstance(value, list):
        for held in value:
            yield from numbers(held)
    elif isinstance(value, str) and not re.fullmatch("[0-9a-f]{8,}", value):  # a hash has digits of no meaning
        yield from (float(found) for found in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", value))
    elif isinstance(value, int | float):
        yield float(value)


def test_every_decimal_of_a_measured_block_is_in_a_file_that_the_block_names() -> None:
    """Ratios (1.07x) are left to the tests that compute them."""
    num_found = 0
    for block in measured_blocks():
        names = set(re.findall(r"\(benchmarks/results/([\w-]+\.json)\)", block))
        units = (1, 1e2, 1e-3, 1e-6, 1e-9)
        held = [unit * number for name in names for number in numbers(result(name)) for unit in units]
        for figure in re.findall(r"(?<![\w.-])\d+\.\d+(?![\w.]*\w)", re.sub(r"\]\([^)]*\)", "]", block)):
            places = len(figure.split(".")[1])
            assert any(f"{number:.{places}f}" == figure for number in held), f"{figure} is in none of {names}: {block}"
            num_found += 1
    assert num_found > 200


def test_the_figures_against_swin_l_are_those_of_their_file() -> None:
    """Ratios are computed, so they are compared here, with the lines that they stand in."""
    models = {(model["model"], model["precision"]): model for model in result("compare-ade20k-512.json")["models"]}
    swin = models["swin_l-upernet", "fp32"]
    lines = set(README.splitlines())
    num_found = 0
    for (name, precision), model in models.items():
        p50, slowest = (value["latency_ms_by_threads"]["2"]["p50"] for value in (model, swin))
        label = MODELS[name].label + (", int8" if precision == "int8" else "")
        num_found += (
            f"| {label} | {model['num_parameters'] / 1e6:.1f} M | {model['macs'] / 1e9:.1f} "
            f"| {model['size_bytes'] / 1e6:.1f} | {p50:.0f} "
            f"| {swin['num_parameters'] / model['num_parameters']:.1f}x | {slowest / p50:.1f}x |"
        ) in lines
    assert num_found == 9


def test_the_hash_of_every_result_file_is_listed() -> None:
    """So that a figure, its file and the command that made it cannot part without a word."""
    folder = REPOSITORY / "benchmarks" / "results"
    table = (folder / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| \[([\w-]+\.json)\]\(\1\) \| `([0-9a-f]{16})` \| .+ \|$", table, re.MULTILINE))
    assert listed == {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in folder.glob("*.json")}
