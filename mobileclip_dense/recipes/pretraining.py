"""Recipes of `mobileclip-dense pretrain`.

The published hyper-parameters (arXiv 2311.17049, appendix; arXiv 2405.08911, section 3): AdamW, learning rate 1e-3,
weight decay 0.2, beta2 0.95, 1000 steps of warm-up, gradient norm 1. 30k steps of 8192 pairs on 12 million pairs, 200k
steps of 65,536 pairs on 1 billion. DataCompDR: two teachers of width 768 at scale 100; the contrastive loss has weight
0 (ViT-B/16 on 1 billion: 0.25, with 0.75 for distillation). The batch size of a recipe is per process: 8 x 1024 and
128 x 512 pairs.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import tyro

from mobileclip_dense.config import PretrainConfig

_DATACOMPDR: dict[str, Any] = dict(
    contrastive_weight=0.0, distillation_weight=1.0, teacher_dims=(768, 768), teacher_temperatures=(100.0, 100.0)
)


def nano_scenes() -> PretrainConfig:
    """Nano MCi on generated scenes, for a laptop.

    mobileclip-dense pretrain nano-scenes --data scenes/shards --out runs/clip-nano

    Cost: about 1.5 minutes on 2 CPU cores. Expected: the figures of `make demo` (benchmarks/results).
    """
    return PretrainConfig(
        data=tyro.MISSING, out=tyro.MISSING, model="nano", image_size_px=64, batch_size=64, steps=300,
        learning_rate=2e-3, warmup_steps=30, checkpoint_every=100,
    )  # fmt: skip


def nano_reinforced() -> PretrainConfig:
    """Nano MCi, distilled from the embeddings that `mobileclip-dense reinforce` stored, for a laptop.

    mobileclip-dense pretrain nano-reinforced --data reinforced --out runs/clip-reinforced

    Cost: that of nano-scenes. Expected: similar to nano-scenes; depends on the teachers.
    """
    return dataclasses.replace(nano_scenes(), contrastive_weight=0.25, distillation_weight=0.75)


def mci2_datacomp12m() -> PretrainConfig:
    """MCi2 (MobileCLIP-S2) on DataComp-12M: plain CLIP on web captions.

    torchrun --nproc-per-node 8 -m mobileclip_dense pretrain mci2-datacomp12m --data SHARDS --out RUN

    Cost and figure: not measured by us.
    """
    return PretrainConfig(
        data=tyro.MISSING, out=tyro.MISSING, model="mci2", batch_size=1024, precision="bf16-mixed",
        grad_checkpointing=True, num_workers=4,
    )  # fmt: skip


def vit_b16_datacomp12m() -> PretrainConfig:
    """ViT-B/16 on DataComp-12M: plain CLIP on web captions.

    torchrun --nproc-per-node 8 -m mobileclip_dense pretrain vit-b16-datacomp12m --data SHARDS --out RUN

    Cost and figure: not measured by us.
    """
    return dataclasses.replace(mci2_datacomp12m(), model="ViT-B-16", image_size_px=224)


def mci2_datacompdr12m() -> PretrainConfig:
    """MCi2 on DataCompDR-12M: distillation from the embeddings of two ViT-L/14, with real and synthetic captions.

    torchrun --nproc-per-node 8 -m mobileclip_dense pretrain mci2-datacompdr12m --data SHARDS --out RUN

    Cost and figure: not measured by us.
    """
    return dataclasses.replace(mci2_datacomp12m(), **_DATACOMPDR)


def vit_b16_datacompdr12m() -> PretrainConfig:
    """ViT-B/16 on DataCompDR-12M: distillation, as in mci2-datacompdr12m.

    torchrun --nproc-per-node 8 -m mobileclip_dense pretrain vit-b16-datacompdr12m --data SHARDS --out RUN

    Cost and figure: not measured by us.
    """
    return dataclasses.replace(vit_b16_datacomp12m(), **_DATACOMPDR)


def mci2_datacompdr1b() -> PretrainConfig:
    """MCi2 on DataCompDR-1B: distillation, in 128 processes.

    torchrun --nnodes 16 --nproc-per-node 8 -m mobileclip_dense pretrain mci2-datacompdr1b --data SHARDS --out RUN

    Cost: not measured by us. Published: 74.4 % zero-shot on ImageNet-1k (MobileCLIP-S2, arXiv 2311.17049).
    """
    return dataclasses.replace(mci2_datacompdr12m(), batch_size=512, steps=200_000)


def vit_b16_datacompdr1b() -> PretrainConfig:
    """ViT-B/16 on DataCompDR-1B: distillation and contrastive loss, in 128 processes.

    torchrun --nnodes 16 --nproc-per-node 8 -m mobileclip_dense pretrain vit-b16-datacompdr1b --data SHARDS --out RUN

    Cost: not measured by us. Published: 76.8 % zero-shot on ImageNet-1k (MobileCLIP-B, arXiv 2311.17049).
    """
    return dataclasses.replace(
        vit_b16_datacompdr12m(), batch_size=512, steps=200_000, contrastive_weight=0.25, distillation_weight=0.75
    )


def _debug_twin(name: str, recipe: Callable[[], PretrainConfig]) -> Callable[[], PretrainConfig]:
    def build() -> PretrainConfig:
        return dataclasses.replace(
            recipe(), image_size_px=64, batch_size=4, steps=2, warmup_steps=1, num_workers=0, precision="32-true",
            teacher_dims=(), teacher_temperatures=(),
        )  # fmt: skip

    build.__doc__ = f"""Smoke test of {name}: the same model and loss, two steps of four pairs at 64 px.

    Cost: under a minute on 2 CPU cores. Expected: it completes.
    """
    return build


_PUBLISHED: dict[str, Callable[[], PretrainConfig]] = {
    "mci2-datacomp12m": mci2_datacomp12m,
    "mci2-datacompdr12m": mci2_datacompdr12m,
    "mci2-datacompdr1b": mci2_datacompdr1b,
    "vit-b16-datacomp12m": vit_b16_datacomp12m,
    "vit-b16-datacompdr12m": vit_b16_datacompdr12m,
    "vit-b16-datacompdr1b": vit_b16_datacompdr1b,
}
RECIPES: dict[str, Callable[[], PretrainConfig]] = {
    "nano-scenes": nano_scenes,
    "nano-reinforced": nano_reinforced,
    **_PUBLISHED,
    **{f"{name}-debug": _debug_twin(name, recipe) for name, recipe in _PUBLISHED.items()},
}
