"""Running the steps of a plan in parallel: each lane is a process that keeps its imports from step to step.

A lane that is stopped (by SIGTERM, or at the end of its time) leaves its step at the last checkpoint, from which the
same plan resumes.
"""

import contextlib
import os
import shutil
import signal
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.caption_quality.plan import Step, check_settings, settings_of
from mobileclip_dense.artifact.files import write_json


class StoppedError(Exception):
    """A step was stopped by SIGTERM."""


def run_plan(plan: list[Step], logs: Path, *, lanes: int, threads: int, stop_at: float | None = None) -> bool:
    """Run all incomplete steps of the plan.

    Args:
        plan: the steps.
        logs: folder for the output of each step.
        lanes: number of parallel steps.
        threads: threads of each step.
        stop_at: `time.time()` at which running steps are stopped. None: never.

    Returns:
        Whether the whole plan is complete.

    Raises:
        ValueError: a folder was made with other settings, or a step failed; the message has the end of its output.
    """
    for step in plan:
        check_settings(step)
    done = {step.name for step in plan if step.complete}
    waiting = [step for step in plan if not step.complete]
    if done:
        print(f"{len(done)} of {len(plan)} steps are done already", flush=True)
    running: dict[Future[bool], tuple[Step, float]] = {}
    logs.mkdir(parents=True, exist_ok=True)
    context = get_context("spawn")
    with ProcessPoolExecutor(lanes, mp_context=context, initializer=_enter_lane, initargs=(threads,)) as pool:
        while waiting or running:
            if stop_at is not None and time.time() >= stop_at:
                waiting.clear()
            for step in [step for step in waiting if done.issuperset(step.after)][: lanes - len(running)]:
                waiting.remove(step)
                running[pool.submit(run_step, step, logs / f"{step.name}.log", stop_at)] = (step, time.monotonic())
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                step, began = running.pop(future)
                if _outcome(future, step, logs):
                    done.add(step.name)
                    print(f"✓ {len(done)}/{len(plan)} {step.name}: {time.monotonic() - began:.0f} s", flush=True)
                else:
                    waiting.clear()
    return len(done) == len(plan)


def _outcome(future: Future[bool], step: Step, logs: Path) -> bool:
    try:
        return future.result()
    except (ValueError, OSError) as error:
        tail = "\n".join((logs / f"{step.name}.log").read_text().replace("\r", "\n").splitlines()[-10:])
        raise ValueError(f"{step.name} failed: {error}; end of {logs / step.name}.log:\n{tail}") from None


def _enter_lane(threads: int) -> None:
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(0)
    # While it trains, `pretrain` replaces this handler by its own, which saves the current step.
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))


def _stop(*_: Any) -> None:
    raise StoppedError


def run_step(step: Step, log: Path, stop_at: float | None = None) -> bool:
    """Run one step in this process. Returns False if it was stopped before it was complete."""
    if stop_at is not None:
        signal.setitimer(signal.ITIMER_REAL, max(0.01, stop_at - time.time()))
    try:
        with log.open("a") as output, contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            _make(step)
    except StoppedError:
        return False
    finally:
        if stop_at is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
    if step.complete:
        shutil.rmtree(step.folder / "checkpoints", ignore_errors=True)  # the optimizer states would fill the disk
    return step.complete


def _make(step: Step) -> None:
    config: Any = step.config
    if step.kind == "scenes":
        from mobileclip_dense.data.scenes.writer import write_scenes

        write_scenes(config)
    elif step.kind == "clip":
        from mobileclip_dense.pretraining.loop import pretrain

        pretrain(config)
    elif step.kind == "supervised":
        from benchmarks.caption_quality.supervised import pretrain_supervised

        assert step.scenes is not None
        write_json(step.folder / "config.json", settings_of(step))
        pretrain_supervised(config, step.scenes)
    else:
        from mobileclip_dense.dense.training.train import finetune

        finetune(config)
