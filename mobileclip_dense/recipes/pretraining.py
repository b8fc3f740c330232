"""Recipes of `mobileclip-dense pretrain`."""

from collections.abc import Callable

import tyro

from mobileclip_dense.config import PretrainConfig


def nano_scenes() -> PretrainConfig:
    """Nano MCi on generated scenes, for a laptop.

    mobileclip-dense pretrain nano-scenes --data scenes/shards --out runs/clip-nano

    Cost: about 1.5 minutes on 2 CPU cores. Expected: what `make demo` reports (benchmarks/results).
    """
    return PretrainConfig(
        data=tyro.MISSING, out=tyro.MISSING, encoder="nano", image_size_px=64, batch_size=64, steps=300,
        learning_rate=2e-3, warmup_steps=30, checkpoint_every=100,
    )  # fmt: skip


def mci2_datacomp() -> PretrainConfig:
    """MCi2 with the settings published for DataComp-12M (batch 8192 over 8 processes, 30k steps).

    torchrun --nproc-per-node 8 -m mobileclip_dense pretrain mci2-datacomp --devices 8 --data SHARDS --out RUN

    Cost and figure: not measured by us; MobileCLIP-S2 after DataCompDR-1B is published at 74.4 % IN-1k zero-shot.
    """
    return PretrainConfig(
        data=tyro.MISSING, out=tyro.MISSING, encoder="mci2", image_size_px=256, batch_size=1024, steps=30_000,
        precision="bf16-mixed", num_workers=8,
    )  # fmt: skip


def mci2_debug() -> PretrainConfig:
    """The twin of mci2-datacomp for a smoke test: the same model, two steps of four pairs at 64 px.

    mobileclip-dense pretrain mci2-debug --data scenes/shards --out runs/debug

    Cost: under a minute on 2 CPU cores. Expected: that it runs.
    """
    return PretrainConfig(
        data=tyro.MISSING, out=tyro.MISSING, encoder="mci2", image_size_px=64, batch_size=4, steps=2, warmup_steps=1,
        num_workers=0,
    )  # fmt: skip


RECIPES: dict[str, Callable[[], PretrainConfig]] = {
    "nano-scenes": nano_scenes,
    "mci2-datacomp": mci2_datacomp,
    "mci2-debug": mci2_debug,
}
