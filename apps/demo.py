"""`make demo`: the whole line, from generated captioned images to verified phone models, by the project's own commands.

Every step is a command that a user could type; it is printed before it runs, and its output goes to a log file. Steps
that do not wait for each other run side by side, one core each.
"""

import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from mobileclip_dense.artifact.outputs import OutputKind, claim_folder, remove_claimed
from mobileclip_dense.command import run_with_settings

_SEEDS = (0, 1)
_TASKS = {"segment": "ade", "depth": "nyu"}  # task -> folder of its labels
_SIDE_BY_SIDE = 2
_DEMO = OutputKind(
    name="a demo",
    markers=("logs/scenes.log",),
    contents=("logs/*.log", "scenes/*", "runs/clip/*", "runs/segment-*-?/*", "runs/depth-*-?/*", "report.html",
              "artifacts/nano-*-fp32.onnx/*", "artifacts/nano-*-int8.onnx/*", "artifacts/nano-*-fp16.coreml/*",
              "results/nano-*@*-cores.json", "pictures/*", "report.json"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Run the whole line on generated scenes, in minutes on two cores: from captions to an artifact, with a report."""

    out: Path = Path("demo")
    """Folder for everything the demo makes; replaced if it exists, but only if it holds nothing else."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command, the names of the steps it waits for, and whether it must have the machine to itself."""

    name: str
    arguments: tuple[str, ...]
    after: tuple[str, ...] = ()
    alone: bool = False


def steps(out: Path) -> list[Step]:
    """The demo's commands in an order in which they could be typed one after the other."""
    scenes, runs, artifacts = out / "scenes", out / "runs", out / "artifacts"
    plan = [
        _step("scenes", "scenes", "--out", scenes, "--num-images", 2000, "--size-px", 96, alone=True),
        _step("pretrain", "pretrain nano-scenes", "--data", scenes / "shards", "--out", runs / "clip",
              "--zeroshot-data", scenes / "classify" / "val", after=("scenes",)),
    ]  # fmt: skip
    for task, labels in _TASKS.items():
        for seed in _SEEDS:
            common = ("--data", scenes / labels, "--seed", seed)
            for start, extra, after in (("scratch", (), "scenes"), ("clip", ("--init", runs / "clip"), "pretrain")):
                name = f"{task}-{start}-{seed}"
                plan.append(_step(name, f"finetune nano-{task}", *common, "--out", runs / name, *extra,
                                  after=(after,)))  # fmt: skip
    plan.sort(key=lambda step: "pretrain" in step.after)  # what starts from scratch need not wait
    for task in _TASKS:
        run = f"{task}-clip-{_SEEDS[0]}"
        # The report shows what int8 costs and gains; a model trained for seconds must not stop the demo with it, nor
        # a measurement beside another export.
        onnx_flags = ("--out", artifacts, "--precision", "fp32", "int8", "--allow-accuracy-drop", "--allow-slower")
        plan.append(_step(f"onnx-{task}", "export onnx", runs / run, *onnx_flags, after=(run,)))
        plan.append(_step(f"coreml-{task}", "export coreml", runs / run, "--out", artifacts, after=(run,)))
    onnx = [
        artifacts / f"nano-{task}-{labels}-96x96-{p}.onnx" for task, labels in _TASKS.items() for p in ("fp32", "int8")
    ]
    plan.append(_step("onnx-clip", "export onnx", runs / "clip", "--out", artifacts, after=("pretrain",)))
    photos = sorted_photos(scenes)
    every = tuple(step.name for step in plan)
    plan += [
        _step("latency", "latency", *onnx, "--out", out / "results", after=every, alone=True),
        _step("draw-classes", "segment", onnx[0], *photos, "--out", out / "pictures", after=("latency",)),
        _step("label", "classify", artifacts / "nano-embed-image-shards-64x64-fp32.onnx", *photos, "--out",
              out / "pictures", "--templates", "a {} on a floor", "--prompts-file",
              scenes / "classify" / "class_names.txt", after=("latency",)),
        _step("draw-depth", "depth", onnx[2], *photos, "--out", out / "pictures", after=("latency",)),
        _step("report", "report", "--runs", runs, "--artifacts", artifacts, "--results", out / "results",
              "--out", out / "report.html", after=("latency",)),
    ]  # fmt: skip
    return plan


def sorted_photos(scenes: Path) -> list[Path]:
    """Three held-out scenes; every eighth scene is held out, so their names are known before they are made."""
    return [scenes / "ade" / "images" / "validation" / f"{index:08d}.jpg" for index in (7, 15, 23)]


def _step(name: str, command: str, *arguments: object, after: tuple[str, ...] = (), alone: bool = False) -> Step:
    return Step(name=name, arguments=(*command.split(), *map(str, arguments)), after=after, alone=alone)


def demo(config: DemoConfig) -> None:
    """Run all steps; the last one's output, the tables, is printed.

    Raises:
        ValueError: a step failed; the message holds the end of its output. FileExistsError: the folder holds what no
            demo made.
    """
    began = time.monotonic()
    if claim_folder(config.out, _DEMO, force=True, inputs={}):
        remove_claimed(config.out)
    logs = config.out / "logs"
    logs.mkdir(parents=True)
    waiting, done = steps(config.out), set[str]()
    running: dict[Future[float], Step] = {}
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        while waiting or running:
            for step in list(waiting):
                free = len(running) < _SIDE_BY_SIDE and not any(other.alone for other in running.values())
                if free and done.issuperset(step.after) and not (step.alone and running):
                    waiting.remove(step)
                    print(f"▶ mobileclip-dense {shlex.join(step.arguments)}", flush=True)
                    running[pool.submit(_run, step, logs / f"{step.name}.log")] = step
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                step = running.pop(future)
                try:
                    seconds = future.result()
                except ValueError:
                    waiting.clear()
                    raise
                done.add(step.name)
                print(f"✓ {step.name}: {seconds:.0f} s. {_last_line(logs / f'{step.name}.log')}", flush=True)
    print((logs / "report.log").read_text())
    print(f"{config.out}: done in {(time.monotonic() - began) / 60:.1f} minutes; pictures in {config.out / 'pictures'}")


def _run(step: Step, log: Path) -> float:
    begin = time.monotonic()
    environment = dict(os.environ)
    if not step.alone:
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // _SIDE_BY_SIDE))
    with log.open("w") as output:
        command = [sys.executable, "-m", "mobileclip_dense", *step.arguments]
        status = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False
        ).returncode
    if status:
        tail = "\n".join(log.read_text().replace("\r", "\n").splitlines()[-15:])
        raise ValueError(f"{step.name} failed with exit status {status}; the end of {log}:\n{tail}")
    return time.monotonic() - begin


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text().replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


if __name__ == "__main__":
    run_with_settings(DemoConfig, demo, "python -m apps.demo")
