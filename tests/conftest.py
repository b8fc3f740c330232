"""The whole line at its smallest, run once through the real command line and shared by the tests."""

import atexit
import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from mobileclip_dense.config import ReinforceConfig
from mobileclip_dense.config.export import ToCoreMLConfig, ToOnnxConfig
from mobileclip_dense.deploy.coreml.exporter import to_coreml
from mobileclip_dense.deploy.onnx.exporter import to_onnx
from mobileclip_dense.pretraining.reinforce import reinforce
from tests.command_server import CommandServer

gc.freeze()  # coremltools collects garbage at every conversion; without this it walks through all of torch each time

REPOSITORY = Path(__file__).parent.parent
SMALL_PRETRAIN = ("--image-size-px", "32", "--batch-size", "8", "--steps", "4", "--checkpoint-every", "2",
                  "--warmup-steps", "1", "--num-workers", "0")  # fmt: skip
SMALL_FINETUNE = ("--crop-size-px", "64", "64", "--batch-size", "2", "--max-iters", "4", "--warmup-iters", "1",
                  "--checkpoint-every", "2")  # fmt: skip


_server = CommandServer(REPOSITORY)
atexit.register(_server.close)


def run_module(
    *arguments: object, check: bool = True, cwd: Path = REPOSITORY, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`python -m ARGUMENTS` as a user would type it; in a new interpreter where it gets an environment of its own."""
    command = list(map(str, arguments))
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), **environment}
    if environment:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True, check=False, env=variables
        )
    else:
        done = _server.run(command, cwd, variables)
    if check:
        assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What commands keep between starts goes to the test run's own folder, not to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The commands of the docs first: they take minutes in one process, while the other works off all the rest."""
    items.sort(key=lambda item: "the_code_of_the_docs" not in item.name)


@dataclass(frozen=True)
class Line:
    """Folders of one run through the line."""

    root: Path

    @property
    def scenes(self) -> Path:
        return self.root / "scenes"

    @property
    def clip(self) -> Path:
        return self.root / "runs" / "clip"

    @property
    def reinforced(self) -> Path:
        return self.root / "reinforced"

    def run(self, task: str) -> Path:
        return self.root / "runs" / task

    def artifact(self, task: str, kind: str) -> Path:
        return self.root / "artifacts" / f"nano-{task}-{'ade' if task == 'segment' else 'nyu'}-64x64-{kind}"

    @property
    def photo(self) -> Path:
        return self.scenes / "ade" / "images" / "validation" / "00000007.jpg"


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """Scenes, a pretraining run, two fine-tuning runs and five artifacts. Tests must not change them.

    The processes of one test run share them: the first to ask makes them, the others wait.
    """
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    line = Line(shared / "line")
    with FileLock(shared / "line.lock"):
        if not (line.root / "done").exists():
            make_line(line)
            (line.root / "done").touch()
    return line


def train_line(line: Line, *, max_iters: int = 4) -> None:
    run_module("mobileclip_dense", "scenes", "--out", line.scenes, "--num-images", 48, "--size-px", 64)
    data = ("--data", line.scenes / "shards")
    run_module("mobileclip_dense", "pretrain", "nano-scenes", *data, "--out", line.clip, *SMALL_PRETRAIN)
    reinforce(ReinforceConfig(data=line.scenes / "shards", out=line.reinforced, teachers=(str(line.clip),),
                              num_augmentations=2))  # fmt: skip
    for task, labels in (("segment", "ade"), ("depth", "nyu")):
        run_module("mobileclip_dense", "finetune", f"nano-{task}", "--data", line.scenes / labels, "--out",
                   line.run(task), "--init", line.clip, *SMALL_FINETUNE, "--max-iters", max_iters)  # fmt: skip


def make_line(line: Line) -> None:
    train_line(line)
    for task in ("segment", "depth"):
        # Four steps of training leave class scores that a breath tips over, and other tests run beside the measurement
        # of int8: both gates have tests of their own.
        every = dict(run=line.run(task), out=line.root / "artifacts", allow_accuracy_drop=True)
        precision = ("fp32", "int8") if task == "segment" else ("fp32",)
        to_onnx(ToOnnxConfig(precision=precision, allow_slower=True, **every))
        to_coreml(ToCoreMLConfig(**every))


def dense_details(*class_names: str) -> dict[str, Any]:
    """What run.json of a fine-tuning run says of its data."""
    return {"class_names": list(class_names), "palette": [[0, 0, 0]] * len(class_names), "val_images": [],
            "reduce_zero_label": False, "ignored_label": 255}  # fmt: skip


def write_labelled_folder(root: Path, *, num_train: int = 4, num_val: int = 2, size_px: int = 64) -> Path:
    """A segmentation folder of a user's own: random pictures, labels 0..2 and 255, no class names."""
    rng = np.random.default_rng(0)
    for split, count in (("training", num_train), ("validation", num_val)):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            image = rng.integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
            labels = rng.choice(np.array([0, 1, 2, 255], np.uint8), (size_px, size_px))
            Image.fromarray(image).save(root / "images" / split / f"{index}.jpg")
            Image.fromarray(labels).save(root / "annotations" / split / f"{index}.png")
    return root
