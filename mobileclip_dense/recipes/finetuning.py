"""Recipes of `mobileclip-dense finetune`."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import tyro

from mobileclip_dense.config import FinetuneConfig

Recipe = Callable[..., FinetuneConfig]


def _recipe(**settings: Any) -> FinetuneConfig:
    return FinetuneConfig(data=tyro.MISSING, out=tyro.MISSING, **settings)


def nano_segment() -> FinetuneConfig:
    """Nano MCi + SemanticFPN on generated scenes, for a laptop.

    mobileclip-dense finetune nano-segment --data scenes/ade --init runs/clip-nano --out runs/segment-nano

    Cost: about half a minute on 2 CPU cores. Expected: the figures of `make demo`.
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

    Cost: about half a minute on 2 CPU cores. Expected: the figures of `make demo`.
    """
    return dataclasses.replace(nano_segment(), task="depth")


def mci0_segment() -> FinetuneConfig:
    """MCi0 + SemanticFPN on your own data, in a short training that a CPU can do.

    mobileclip-dense finetune mci0-segment --data FOLDER --out runs/segment-mci0

    Cost: about 10 minutes on 2 CPU cores. Expected: depends on the data.
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
    """MCi0 + FPN depth head on your own data, in a short training that a CPU can do.

    mobileclip-dense finetune mci0-depth --data FOLDER --out runs/depth-mci0

    Cost: about 10 minutes on 2 CPU cores. Expected: depends on the data.
    """
    return dataclasses.replace(mci0_segment(), task="depth")


def nano_detect() -> FinetuneConfig:
    """Nano MCi + Mask R-CNN on generated scenes, for a laptop.

    mobileclip-dense finetune nano-detect --data scenes/coco --init runs/clip-nano --out runs/detect-nano

    Cost: one to two minutes on one CPU core. Expected: 9 % box mAP and 11 % mask mAP (26 % and 28 % at IoU 0.5) on the
    50 held-out scenes of 400 at 96 px, from the demo's pretraining.
    """
    return dataclasses.replace(
        nano_segment(), task="detect", head="mask_rcnn", scale_range=(1.0, 1.0), batch_size=4, max_iters=400,
        warmup_iters=40, learning_rate=3e-3, max_train_images=None,
    )  # fmt: skip


_SEMANTIC_FPN = dict(
    learning_rate=2e-4, weight_decay=1e-4, batch_size=32, max_iters=40_000, warmup_iters=0, drop_path_rate=0.0
)  # fmt: skip
_UPERNET = dict(head="upernet", head_channels=512, batch_size=16, max_iters=160_000, warmup_iters=1500, poly_power=1.0)
_NYUV2 = dict(
    task="depth", crop_size_px=(480, 480), batch_size=24, max_iters=25_000, warmup_iters=12_000, learning_rate=5e-4
)


_VIT_PRETRAININGS = {
    "": (
        "vit_b16_clip", "CLIP on DataComp or DataCompDR (a run or a checkpoint of open_clip)",
        "12.1 % above MAE's on DataCompDR (arXiv 2405.08911)",
    ),
    "-mae": ("vit_b16", "MAE (mae_pretrain_vit_base.pth)", "48.13 mIoU (mmsegmentation)"),
    "-maws": ("vit_b16", "MAWS (maws_vitb16.pt, arXiv 2303.13496)", "see arXiv 2405.08911"),
    "-in21k": ("vit_b16", "ImageNet-21k labels (timm:vit_base_patch16_224.augreg_in21k)", "see arXiv 2405.08911"),
    "-scratch": ("vit_b16", "random weights (no --init)", "see arXiv 2405.08911"),
}  # fmt: skip
"""The pretrainings that the paper compares: encoder, origin of its weights, published figure."""


def mci_fpn_ade20k(encoder: str) -> FinetuneConfig:
    """{encoder} + SemanticFPN on ADE20K at 512 px: the paper's mobile segmenter (arXiv 2405.08911).

    mobileclip-dense finetune {name} --data ADEChallengeData2016 --init runs/clip-{encoder} --out runs/{name}

    Settings: mmsegmentation's for PoolFormer, which MCi is derived from. Cost and figure: not measured by us.
    """
    return _recipe(encoder=encoder, **_SEMANTIC_FPN)


def mci_lite_ade20k(encoder: str) -> FinetuneConfig:
    """{encoder} + fpn_lite on ADE20K at 512 px: a head with a few percent of the encoder's multiply-accumulates.

    mobileclip-dense finetune {name} --data ADEChallengeData2016 --init runs/clip-{encoder} --out runs/{name}

    Settings: those of the SemanticFPN recipes. Cost and figure: not measured by us.
    """
    return _recipe(encoder=encoder, head="fpn_lite", **_SEMANTIC_FPN)


def mci_uper_ade20k(encoder: str) -> FinetuneConfig:
    """{encoder} + UPerNet on ADE20K at 512 px.

    mobileclip-dense finetune {name} --data ADEChallengeData2016 --init runs/clip-{encoder} --out runs/{name}

    Settings: mmsegmentation's for ConvNeXt-T and -B. Difference: the learning rate decays by 0.9 per stage instead of
    per one of twelve layers. Cost and figure: not measured by us.
    """
    return _recipe(encoder=encoder, **_UPERNET, learning_rate=1e-4, layer_decay=0.9, drop_path_rate=0.4)


def swin_l_uper_ade20k() -> FinetuneConfig:
    """Swin-L + UPerNet on ADE20K at 512 px: the large segmenter for comparisons (234 M parameters).

    mobileclip-dense finetune swin-l-uper-ade20k --data ADEChallengeData2016 --init SWIN_FILE --out runs/swin-l

    SWIN_FILE is swin_large_patch4_window12_384_22k.pth, or mmsegmentation's checkpoint of the whole model.

    Settings: mmsegmentation's. Published figure: 52.05 mIoU, single scale, at 640 px (Swin's repository). Not measured
    by us.
    """
    return _recipe(encoder="swin_l", **_UPERNET, learning_rate=6e-5, weight_decay=0.01, drop_path_rate=0.3)


def vit_uper_ade20k(encoder: str, **_: str) -> FinetuneConfig:
    """ViT-B/16 + UPerNet on ADE20K at 512 px, from {weights}.

    mobileclip-dense finetune {name} --data ADEChallengeData2016 --init WEIGHTS --out runs/{name}

    Settings: MAE's (arXiv 2111.06377, appendix A.4; mmsegmentation), which the paper uses for every pretraining.
    Differences: ViTDet's pyramid from the last map instead of blocks 3, 5, 7 and 11; 512 head channels instead of 768;
    a stride of two thirds of a window in `evaluate --mode slide` instead of half a window.
    Published figure: {figure}. Not measured by us.
    """
    return _recipe(encoder=encoder, **_UPERNET, learning_rate=1e-4, layer_decay=0.65)


def mci2_nyuv2(head: str, head_channels: int) -> FinetuneConfig:
    """MCi2 + {head} head for depth on NYUv2.

    mobileclip-dense finetune {name} --data nyu_depth_v2 --init runs/clip-mci2 --out runs/{name}
    mobileclip-dense evaluate runs/{name} --eigen-crop --flip

    Settings: those of MIM depth estimation (arXiv 2205.13543). Cost and figure: not measured by us.
    """
    return _recipe(encoder="mci2", head=head, head_channels=head_channels, **_NYUV2)


def vit_deconv_nyuv2(encoder: str, **_: str) -> FinetuneConfig:
    """ViT-B/16 + deconvolution head for depth on NYUv2, from {weights}.

    mobileclip-dense finetune {name} --data nyu_depth_v2 --init WEIGHTS --out runs/{name}
    mobileclip-dense evaluate runs/{name} --eigen-crop --flip

    Settings: those of MIM depth estimation (arXiv 2205.13543). Cost and figure: not measured by us.
    """
    return _recipe(encoder=encoder, head="deconv", head_channels=32, **_NYUV2, layer_decay=0.8)


_MASK_RCNN = dict(task="detect", head="mask_rcnn", head_channels=256, colour_jitter=False, skip_bad=True)


def mci2_detect() -> FinetuneConfig:
    """MCi2 + Mask R-CNN on COCO at 800 px, for 12 epochs.

    mobileclip-dense finetune mci2-detect --data coco --init runs/clip-mci2 --out runs/mci2-detect

    Settings: those commonly used for Mask R-CNN + FPN on small encoders (AdamW, learning rate 2e-4, weight decay 1e-4,
    batch size 16, "1x" schedule of 12 epochs; arXiv 2111.11418). Differences: random resizing and crops of 800 px
    instead of whole images with a short side of 800 px; drop path 0.1. Two boxes of train2017 that have no height
    (annotations 918 and 2206849) are skipped. Cost and figure: not measured by us.
    """
    return _recipe(
        encoder="mci2", **_MASK_RCNN, crop_size_px=(800, 800), scale_range=(0.5, 1.5), batch_size=16,
        max_iters=88_000, learning_rate=2e-4, weight_decay=1e-4,
    )  # fmt: skip


def vit_b16_detect() -> FinetuneConfig:
    """ViT-B/16 + Mask R-CNN on COCO at 1024 px, for 100 epochs, from CLIP.

    torchrun --nproc-per-node 8 -m mobileclip_dense finetune vit-b16-detect --data coco --init WEIGHTS --out runs/vit

    Settings: ViTDet's (arXiv 2203.16527, appendix; detectron2's mask_rcnn_vitdet_b_100ep, 51.6 box and 45.9 mask AP
    from MAE): 64 images per step over eight processes, large-scale jitter, layer decay 0.7, drop path 0.1. Differences:
    global attention in every block; the plain heads of Mask R-CNN; polynomial decay of the learning rate instead of two
    steps; the short side instead of the long side is jittered around and tested at 1024 px, so images are a third
    larger. Cost and figure: not measured by us.
    """
    return _recipe(
        encoder="vit_b16_clip", **_MASK_RCNN, crop_size_px=(1024, 1024), scale_range=(0.1, 2.0), batch_size=8,
        max_iters=184_375, warmup_iters=250, learning_rate=1e-4, weight_decay=0.1, layer_decay=0.7,
        precision="bf16-mixed",
    )  # fmt: skip


def _named(recipe: Recipe, name: str, **values: Any) -> tuple[str, Recipe]:
    """A variant of a recipe, with the placeholders in its docstring filled in."""
    variant = functools.partial(recipe, **values)
    variant.__doc__ = (recipe.__doc__ or "").format(name=name, **values)
    return name, variant


def _debug_twin(name: str, recipe: Recipe) -> tuple[str, Recipe]:
    """The debug twin of a recipe: the same model and task, two steps of two small crops."""

    def debug() -> FinetuneConfig:
        return dataclasses.replace(
            recipe(), crop_size_px=(64, 64), batch_size=2, max_iters=2, warmup_iters=1, num_workers=0,
            max_train_images=4,
        )  # fmt: skip

    debug.__doc__ = f"Smoke test of {name}: the same model and task, two steps. Expected: it completes."
    return f"{name}-debug", debug


_MCI = ("mci0", "mci1", "mci2")
_SMALL: dict[str, Recipe] = {
    "nano-segment": nano_segment,
    "nano-depth": nano_depth,
    "mci0-segment": mci0_segment,
    "mci0-depth": mci0_depth,
    "nano-detect": nano_detect,
}
_PUBLISHED: dict[str, Recipe] = dict(
    [
        *(_named(mci_fpn_ade20k, f"{mci}-fpn-ade20k", encoder=mci) for mci in _MCI),
        *(_named(mci_lite_ade20k, f"{mci}-lite-ade20k", encoder=mci) for mci in _MCI),
        *(_named(mci_uper_ade20k, f"{mci}-uper-ade20k", encoder=mci) for mci in _MCI),
        ("swin-l-uper-ade20k", swin_l_uper_ade20k),
        *(
            _named(vit_uper_ade20k, f"vit-b16{rival}-uper-ade20k", encoder=encoder, weights=weights, figure=figure)
            for rival, (encoder, weights, figure) in _VIT_PRETRAININGS.items()
        ),
        _named(mci2_nyuv2, "mci2-fpn-nyuv2", head="semantic_fpn", head_channels=128),
        _named(mci2_nyuv2, "mci2-lite-nyuv2", head="fpn_lite", head_channels=128),
        _named(mci2_nyuv2, "mci2-deconv-nyuv2", head="deconv", head_channels=32),
        *(
            _named(vit_deconv_nyuv2, f"vit-b16{rival}-deconv-nyuv2", encoder=encoder, weights=weights)
            for rival, (encoder, weights, _) in _VIT_PRETRAININGS.items()
        ),
        ("mci2-detect", mci2_detect),
        ("vit-b16-detect", vit_b16_detect),
    ]
)

RECIPES: dict[str, Recipe] = _SMALL | _PUBLISHED | dict(itertools.starmap(_debug_twin, _PUBLISHED.items()))
