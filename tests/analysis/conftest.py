"""Runs with random weights, written without training, and the command line in this process."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from mobileclip_dense.__main__ import main
from mobileclip_dense.artifact.files import write_json
from mobileclip_dense.config import FinetuneConfig, PretrainConfig
from mobileclip_dense.dense.model import build_model
from mobileclip_dense.models.clip import build_clip, open_clip_config
from mobileclip_dense.run.folder import finish_run, open_run
from tests.conftest import dense_details

TINY_VIT = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 48, "layers": 3, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
Command = Callable[..., None]


@pytest.fixture
def analyze(monkeypatch: pytest.MonkeyPatch) -> Command:
    """`mobileclip-dense analyze ARGUMENTS`."""

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["mobileclip-dense", "analyze", *map(str, arguments)])
        main()

    return run


def write_clip_run(folder: Path, model: str, image_size_px: int) -> Path:
    """A complete pretraining run of `model` with its initial weights."""
    config = PretrainConfig(data=("nowhere",), out=folder, model=model, image_size_px=image_size_px)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip, _, _ = build_clip(model, image_size_px)
    with open_run(config, {}):
        write_json(folder / "open_clip_config.json", open_clip_config(model, image_size_px))
        finish_run(config, clip.state_dict(), {}, started=time.time(), device="cpu", details={})
    return folder


@pytest.fixture(scope="session")
def clip_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nano at 64 px."""
    return write_clip_run(tmp_path_factory.mktemp("runs") / "clip", "nano", 64)


@pytest.fixture
def vit_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ViT of three blocks at 64 px, registered in open_clip for one test."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny", TINY_VIT)
    return write_clip_run(tmp_path / "runs" / "vit", "ViT-tiny", 64)


@pytest.fixture(scope="session")
def segment_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nano with a SemanticFPN at 64x96 px."""
    config = FinetuneConfig(data=Path("nowhere"), out=tmp_path_factory.mktemp("runs") / "segment", neck_channels=16,
                            head_channels=16, crop_size_px=(64, 96))  # fmt: skip
    with torch.random.fork_rng():
        model = build_model(config, 3)
    details = dense_details("sky", "floor", "cone")
    with open_run(config, {}):
        finish_run(config, model.state_dict(), {}, started=time.time(), device="cpu", details=details)
    return config.out


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two pictures."""
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        pixels = rng.integers(0, 256, (80, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"
