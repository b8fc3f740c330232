"""Recipes of `mobileclip-dense finetune`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import tyro

from mobileclip_dense.config import FinetuneConfig


def _recipe(**settings: Any) -> FinetuneConfig:
    return FinetuneConfig(data=tyro.MISSING, out=tyro.MISSING, **settings)


def _debug(recipe: FinetuneConfig) -> FinetuneConfig:
    """The same model and task, two steps of two small crops."""
    return dataclasses.replace(
        recipe, crop_size_px=(64, 64), batch_size=2, max_iters=2, warmup_iters=1, num_workers=0, max_train_images=4
    )


def nano_segment() -> FinetuneConfig:
    """Nano MCi + SemanticFPN on generated scenes, for a laptop.

    mobileclip-dense finetune nano-segment --data scenes/ade --init runs/clip-nano --out runs/segment-nano

    Cost: about half a minute on 2 CPU cores. Expected: what `make demo` reports.
    """
    return _recipe(
        encoder="nano",
        crop_size_px=(96, 96),
        scale_range=(0.75, 1.5),
        colour_jitter=False,
        batch_size=16,
        max_iters=90,
        warmup_iters=9,
        learning_rate=4e-3,
        drop_path_rate=0.0,
        neck_channels=48,
        head_channels=32,
        max_train_images=200,
        num_workers=0,
    )


def nano_depth() -> FinetuneConfig:
    """Nano MCi + FPN depth head on generated scenes, for a laptop.

    mobileclip-dense finetune nano-depth --data scenes/nyu --init runs/clip-nano --out runs/depth-nano

    Cost: about half a minute on 2 CPU cores. Expected: what `make demo` reports.
    """
    return dataclasses.replace(nano_segment(), task="depth")


def mci0_segment() -> FinetuneConfig:
    """MCi0 + SemanticFPN on a folder of your own, short enough for a CPU.

    mobileclip-dense finetune mci0-segment --data FOLDER --out runs/segment-mci0

    Cost: about 10 minutes on 2 CPU cores. Expected: depends on the folder; CamVid from scratch: see README.
    """
    return _recipe(
        encoder="mci0",
        crop_size_px=(256, 320),
        batch_size=4,
        max_iters=300,
        warmup_iters=30,
        learning_rate=1e-3,
        drop_path_rate=0.0,
        neck_channels=128,
        head_channels=64,
    )


def mci0_depth() -> FinetuneConfig:
    """MCi0 + FPN depth head on a folder of your own, short enough for a CPU.

    mobileclip-dense finetune mci0-depth --data FOLDER --out runs/depth-mci0

    Cost: about 10 minutes on 2 CPU cores. Expected: depends on the folder.
    """
    return dataclasses.replace(mci0_segment(), task="depth")


def mci2_segment() -> FinetuneConfig:
    """MCi2 + SemanticFPN on ADE20K at 512 px (arXiv 2405.08911, mobile segmentation; 39.2 M parameters).

    mobileclip-dense finetune mci2-segment --data ADEChallengeData2016 --init runs/clip-mci2 --out runs/segment-mci2

    Cost and figure: not measured by us.
    """
    return _recipe(encoder="mci2")


def mci2_segment_debug() -> FinetuneConfig:
    """The twin of mci2-segment for a smoke test: two steps. Expected: that it runs."""
    return _debug(mci2_segment())


def swin_l_segment() -> FinetuneConfig:
    """Swin-L + SemanticFPN on ADE20K at 512 px, the large encoder to compare with.

    mobileclip-dense finetune swin-l-segment --data ADEChallengeData2016 --init SWIN_FILE --out runs/segment-swin-l

    Cost and figure: not measured by us.
    """
    return _recipe(encoder="swin_l", learning_rate=6e-5, weight_decay=0.01, drop_path_rate=0.3)


RECIPES: dict[str, Callable[[], FinetuneConfig]] = {
    "nano-segment": nano_segment,
    "nano-depth": nano_depth,
    "mci0-segment": mci0_segment,
    "mci0-depth": mci0_depth,
    "mci2-segment": mci2_segment,
    "mci2-segment-debug": mci2_segment_debug,
    "swin-l-segment": swin_l_segment,
}
