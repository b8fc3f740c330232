"""Figures published by others, each with its reference. None was measured here."""

from dataclasses import dataclass
from typing import Literal

_SWIN = "github.com/SwinTransformer/Swin-Transformer-Semantic-Segmentation"
_MMSEG = "mmsegmentation 1.2 model zoo, configs/{}; parameters counted from the config, without an auxiliary head"
_QUALITY_CAPTIONS = "arXiv 2405.08911"
_FASTVIT = "arXiv 2303.14189"
_MOBILECLIP = "arXiv 2311.17049"
IPHONE = "iPhone 12 Pro Max"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published figure.

    Attributes:
        model: readable name of the model.
        row: model of the comparison with the same network, or its encoder if the figure is of the image tower alone.
            None: there is none.
        figure: miou_percent (ADE20K's validation set, single scale) or latency_ms (on IPHONE).
        value: the figure.
        what: exact conditions of the measurement.
        reference: source of the figure.
        num_parameters: number of parameters of that network. None: not in the reference.
    """

    model: str
    row: str | None = None
    figure: Literal["miou_percent", "latency_ms"] = "miou_percent"
    value: float
    what: str
    reference: str
    num_parameters: float | None = None


def _segformer(size: int, miou_percent: float, num_parameters: float) -> Published:
    return Published(
        model=f"SegFormer-B{size}",
        value=miou_percent,
        what="ADE20K, 512 px, 160k steps",
        reference=_MMSEG.format("segformer"),
        num_parameters=num_parameters,
    )


def _fastvit(size: str, miou_percent: float) -> Published:
    return Published(model=f"FastViT-{size} + SemanticFPN", value=miou_percent, what="ADE20K", reference=_FASTVIT)


def _tower(model: str, row: str, latency_ms: float, num_parameters: float) -> Published:
    return Published(
        model=model,
        row=row,
        figure="latency_ms",
        value=latency_ms,
        what="image tower alone, 256 px",
        reference=_MOBILECLIP,
        num_parameters=num_parameters,
    )


PUBLISHED: tuple[Published, ...] = (
    Published(
        model="Swin-L + UPerNet", row="swin_l-upernet", value=52.05, reference=_SWIN, num_parameters=234e6,
        what="ADE20K, 640 px, 160k steps, ImageNet-22k; the parameters count its auxiliary head",
    ),
    Published(
        model="CLIP ViT-B/16 + UPerNet", row="vit_b16_clip-upernet", value=53.9, reference=_QUALITY_CAPTIONS,
        what="ADE20K, DataCompDR; computed: 12.1 % above the 48.1 of MAE, as its abstract says",
    ),
    Published(
        model="MAE ViT-B/16 + UPerNet", value=48.13, what="ADE20K, 512 px, 160k steps",
        reference=_MMSEG.format("mae"), num_parameters=162.07e6,
    ),
    _segformer(0, 37.41, 3.75e6),
    _segformer(1, 40.97, 13.72e6),
    _segformer(2, 45.58, 24.76e6),
    _segformer(3, 47.82, 44.64e6),
    _segformer(4, 48.46, 61.41e6),
    _segformer(5, 49.13, 82.01e6),
    _fastvit("SA12", 38.0),
    _fastvit("SA24", 41.0),
    _fastvit("SA36", 42.9),
    _fastvit("MA36", 44.6),
    _tower("MCi0", "mci0", 1.5, 11.4e6),
    _tower("MCi1", "mci1", 2.5, 21.5e6),
    _tower("MCi2", "mci2", 3.6, 35.7e6),
    _tower("ViT-B/16", "vit_b16_clip", 10.4, 86.3e6),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PublishedGain:
    """An improvement over another pretraining, in percent of the other's figure.

    Attributes:
        model: what was pretrained, and on what. what: the metric, the direction and the other pretraining.
    """

    model: str
    what: str
    percent: float
    reference: str


PUBLISHED_GAINS = (
    PublishedGain(
        model="CLIP ViT-B/16 on DataCompDR, UPerNet, ADE20K", what="mIoU above MAE's", percent=12.1,
        reference=_QUALITY_CAPTIONS,
    ),
    PublishedGain(
        model="CLIP ViT-B/16 on DataCompDR, NYUv2", what="RMSE below MAE's", percent=11.5, reference=_QUALITY_CAPTIONS
    ),
)  # fmt: skip
