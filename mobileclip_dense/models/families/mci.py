"""MCi, Apple's FastViT of MobileCLIP. The maps of its stages are the pyramid."""

from functools import partial
from typing import Any

from timm.models import register_model
from timm.models.fastvit import FastVit, RepConditionalPosEnc
from torch import nn

from mobileclip_dense.models.families.family import Family, Part


class MCiFamily(Family[FastVit]):
    """FastViTs with any number of stages."""

    trunk_type = FastVit

    def layers(self, trunk: FastVit) -> list[list[Part]]:
        """Stem and stages."""
        return [[trunk.stem], *([stage] for stage in trunk.stages)]

    def attention_blocks(self, trunk: FastVit) -> list[nn.Module]:
        """The blocks of all stages, including those that mix tokens with convolutions."""
        return [block for stage in trunk.stages for block in stage.blocks]


@register_model
def fastvit_mci_nano(pretrained: bool = False, **kwargs: Any) -> FastVit:
    """An MCi with less than 1.5 M parameters for tests and demos: fewer and narrower blocks of the kinds of MCi0..2.

    LayerScale starts at 0.1 instead of 1e-5, so that the blocks contribute from the first steps of a short training.

    Raises:
        ValueError: `pretrained` is set; there are no pretrained weights.
    """
    if pretrained:
        raise ValueError("fastvit_mci_nano: pretrained: there are no published weights; use pretrained=False")
    for metadata in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        kwargs.pop(metadata, None)
    arguments: dict[str, Any] = dict(
        layers=(1, 1, 2, 1),
        embed_dims=(16, 32, 96, 192),
        mlp_ratios=(3, 3, 3, 3),
        se_downsamples=(False, False, True, True),
        pos_embs=(None, None, None, partial(RepConditionalPosEnc, spatial_shape=(7, 7))),
        token_mixers=("repmixer", "repmixer", "repmixer", "attention"),
        lkc_use_act=True,
        layer_scale_init_value=0.1,
        cls_ratio=1.0,
    )
    return FastVit(**{**arguments, **kwargs})
