"""The image encoders behind one interface: an RGB image in, a feature pyramid out."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
from timm.models import register_model
from timm.models.fastvit import FastVit, RepConditionalPosEnc
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mobileclip_dense.artifact.preprocess import Normalization
from mobileclip_dense.models.pyramid import PYRAMID_CHANNELS, OutputNorms, SimpleFeaturePyramid, pad_then_shift

STRIDES = (4, 8, 16, 32)
_UNIT_RANGE = Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
_IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_OPENAI = Normalization(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """What has to be known about an encoder before it is built.

    Attributes:
        timm_name: name under which timm builds the trunk.
        normalization: what the published weights were trained with, on pixels in 0..1.
        clip_name: the open_clip model whose image tower this is; None where there is none.
        timm_arguments: further arguments of `timm.create_model`.
        one_size: an exported graph of it takes images of one size: positions or windows are laid out in advance.
    """

    timm_name: str
    normalization: Normalization = _UNIT_RANGE
    clip_name: str | None = None
    timm_arguments: tuple[tuple[str, Any], ...] = ()
    one_size: bool = False


_ANY_SIZE = (("dynamic_img_size", True),)

ENCODERS: dict[str, EncoderSpec] = {
    "nano": EncoderSpec(timm_name="fastvit_mci_nano", clip_name="MobileCLIP-nano"),
    "mci0": EncoderSpec(timm_name="fastvit_mci0", clip_name="MobileCLIP2-S0"),
    "mci1": EncoderSpec(timm_name="fastvit_mci1", clip_name="MobileCLIP-S1"),
    "mci2": EncoderSpec(timm_name="fastvit_mci2", clip_name="MobileCLIP-S2"),
    # CLIP's ViT-B/16 as OpenAI, LAION, DataComp and our recipes train it.
    "vit_b16_clip": EncoderSpec(
        timm_name="vit_base_patch16_clip_224",
        normalization=_OPENAI,
        clip_name="ViT-B-16",
        timm_arguments=_ANY_SIZE,
        one_size=True,
    ),
    # MobileCLIP-B, Apple's ViT-B/16 of DataCompDR: three convolutions cut the patches.
    "vit_b16_mci": EncoderSpec(
        timm_name="vit_base_mci_224", clip_name="MobileCLIP-B", timm_arguments=_ANY_SIZE, one_size=True
    ),
    # The plain ViT-B/16 of MAE, MAWS, DeiT III and AugReg; for what AugReg wants instead, see `foreign`.
    "vit_b16": EncoderSpec(
        timm_name="vit_base_patch16_224", normalization=_IMAGENET, timm_arguments=_ANY_SIZE, one_size=True
    ),
    # Windows shift even in stages that one window covered in pretraining, as in mmsegmentation.
    "swin_l": EncoderSpec(
        timm_name="swin_large_patch4_window12_384",
        normalization=_IMAGENET,
        timm_arguments=(*_ANY_SIZE, ("always_partition", True)),
        one_size=True,
    ),
}


@register_model
def fastvit_mci_nano(pretrained: bool = False, **kwargs: Any) -> FastVit:
    """An MCi of under 1.5 M parameters: the blocks of MCi0..2, few and narrow, for tests and demos.

    LayerScale starts at 0.1 instead of 1e-5, so that the blocks take part from the first of few steps.

    Raises:
        ValueError: pretrained weights were asked for; there are none.
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


class Encoder(nn.Module):
    """A timm trunk and what makes its maps a pyramid.

    Attributes:
        trunk: the timm model, its keys untouched: `stages.0...`; head, final norm and final convolution removed.
        pyramid: of a ViT the `SimpleFeaturePyramid`, of Swin the `OutputNorms`; of an MCi the identity.
        channels: channels of the maps. strides: 4, 8, 16, 32; of a ViT without its pyramid 16 alone.
        normalization: what to do to pixels in 0..1 before the trunk.
    """

    def __init__(self, name: str, drop_path_rate: float = 0.0, pyramid: bool = True):
        """Build an encoder with fresh weights.

        Args:
            pyramid: False: a ViT gives its last map alone, as it was pretrained; others are pyramids by themselves.

        Raises:
            ValueError: unknown name.
        """
        super().__init__()
        if name not in ENCODERS:
            raise ValueError(f"encoder: found {name!r}, expected one of {', '.join(ENCODERS)}")
        spec = ENCODERS[name]
        self.name = name
        self.strides: tuple[int, ...] = STRIDES
        self.normalization = spec.normalization
        self.trunk = timm.create_model(spec.timm_name, drop_path_rate=drop_path_rate, **dict(spec.timm_arguments))
        self.channels = tuple(int(info["num_chs"]) for info in self.trunk.feature_info)
        self.pyramid: nn.Module = nn.Identity()
        self.num_maps = 4
        match self.trunk:
            case VisionTransformer() if pyramid:
                self.channels, self.num_maps = (PYRAMID_CHANNELS,) * 4, 1
                self.pyramid = SimpleFeaturePyramid(self.trunk.embed_dim)
            case VisionTransformer():
                self.channels, self.num_maps, self.strides = (self.trunk.embed_dim,), 1, (16,)
            case SwinTransformer():
                self.pyramid = OutputNorms(self.channels)
                pad_then_shift(self.trunk)
        # The head goes; every block of every stage stays, attention included (dropping it cost Apple's FastViT
        # 15 mIoU on ADE20K, apple/ml-fastvit pull 4).
        self.trunk.prune_intermediate_layers(self.num_maps, prune_norm=True, prune_head=True)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """float [B,3,H,W], normalized -> maps float [B,channels[i],H/strides[i],W/strides[i]].

        H and W are multiples of 32. A ViT's position embeddings are resampled to the image (bicubic, antialiased).
        """
        maps = self.trunk.forward_intermediates(
            image, indices=self.num_maps, output_fmt="NCHW", intermediates_only=True
        )
        return self.pyramid(maps)

    def fix_input_size(self, height: int, width: int) -> None:
        """From now on a ViT takes images of this size only, its position embeddings resampled once and for all.

        For export, in place: an antialiased bicubic inside the graph is slow where a runtime has it, and most have
        none. Other encoders have no position embeddings of the image and stay as they are.

        Args:
            height, width: pixels, multiples of 32.
        """
        if not isinstance(self.trunk, VisionTransformer):
            return
        self.trunk.set_input_size((height, width))
        self.trunk.dynamic_img_size = False
        patches = self.trunk.patch_embed
        patches.flatten, patches.strict_img_size = True, True

    def stages(self) -> list[list[nn.Module | nn.Parameter]]:
        """Stem and four stages, in the order of computation; a stage of a ViT is a quarter of its blocks.

        What is not in it: a ViT's pyramid, which no pretraining knows.
        """
        trunk = self.trunk
        match trunk:
            case VisionTransformer():
                quarter = len(trunk.blocks) // 4
                stem = [trunk.patch_embed, trunk.norm_pre, *trunk.parameters(recurse=False)]
                return [stem, *([*trunk.blocks[quarter * i : quarter * (i + 1)]] for i in range(4))]
            case SwinTransformer():
                norms = self.pyramid.children()
                return [[trunk.patch_embed], *([stage, norm] for stage, norm in zip(trunk.layers, norms, strict=True))]
        return [[trunk.stem], *([stage] for stage in trunk.stages)]
