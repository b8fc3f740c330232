"""Plain ViTs with ViTDet's simple feature pyramid."""

import math
import re
from itertools import chain
from typing import Any

import torch
from timm.layers import LayerNorm2d, resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mobileclip_dense.models.expand import State
from mobileclip_dense.models.families.family import Family, Part
from mobileclip_dense.models.layouts import renamed

PYRAMID_CHANNELS = 256  # ViTDet's, at every stride
_NUM_STAGES = 4
_CLIP_VIT = (
    ("class_embedding", "cls_token"), ("positional_embedding", "pos_embed"), ("conv1.", "patch_embed.proj."),
    ("ln_pre.", "norm_pre."), ("transformer.resblocks.", "blocks."), ("ln_1.", "norm1."), ("ln_2.", "norm2."),
    ("attn.in_proj_", "attn.qkv."), ("attn.out_proj.", "attn.proj."), ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
)  # fmt: skip


class ViTFamily(Family[VisionTransformer]):
    """ViTs with patches of 16 pixels. Their map at stride 16 becomes a pyramid of four maps with 256 channels."""

    trunk_type = VisionTransformer

    def num_maps(self, trunk: VisionTransformer) -> int:
        """One, the last map."""
        return 1

    def build_pyramid(self, trunk: VisionTransformer, *, fresh: bool) -> nn.Module:
        """Build the `SimpleFeaturePyramid`, or the identity if not `fresh`."""
        return SimpleFeaturePyramid(trunk.embed_dim) if fresh else nn.Identity()

    def fix_input_size(self, trunk: VisionTransformer, height: int, width: int) -> None:
        """Resample the position embeddings for one image size, in place."""
        trunk.set_input_size((height, width))
        trunk.dynamic_img_size = False
        patches: Any = trunk.patch_embed
        patches.flatten, patches.strict_img_size = True, True

    def layers(self, trunk: VisionTransformer) -> list[list[Part]]:
        """The embeddings (patches, positions, class), then each block."""
        stem = [trunk.patch_embed, trunk.norm_pre, *trunk.parameters(recurse=False)]
        return [stem, *([block] for block in trunk.blocks)]

    def stages(self, trunk: VisionTransformer, pyramid: nn.Module) -> list[list[Part]]:
        """The stem and four stages, each with a quarter of the blocks. The pyramid is not included."""
        stem, *blocks = self.layers(trunk)
        quarter = len(blocks) // _NUM_STAGES
        return [stem, *([*chain(*blocks[quarter * i : quarter * (i + 1)])] for i in range(_NUM_STAGES))]

    def attention_blocks(self, trunk: VisionTransformer) -> list[nn.Module]:
        """All blocks."""
        return list(trunk.blocks)

    def trunk_weights(self, state: State, trunk: VisionTransformer) -> State:
        """Translate CLIP's names, fold LayerScale and resample position embeddings to the trunk's grid."""
        return _fit_positions(_fold_layer_scale(_vit_from_clip(state)), trunk)


class SimpleFeaturePyramid(nn.ModuleList):
    """Maps at strides 4, 8, 16 and 32 from the last map of a plain ViT (ViTDet, arXiv 2203.16527, section 3).

    The levels apply two deconvolutions, one, none and max-pooling to that map, followed by a 1x1 and a 3x3 convolution,
    each with LayerNorm over channels, as in ViTDet's code.
    """

    def __init__(self, width: int):
        """Build the pyramid for a map with `width` channels."""
        double, quadruple = width // 2, width // 4
        resamplers: list[tuple[list[nn.Module], int]] = [
            ([nn.ConvTranspose2d(width, double, 2, stride=2), LayerNorm2d(double), nn.GELU(),
              nn.ConvTranspose2d(double, quadruple, 2, stride=2)], quadruple),
            ([nn.ConvTranspose2d(width, double, 2, stride=2)], double),
            ([], width),
            ([nn.MaxPool2d(2)], width),
        ]  # fmt: skip
        super().__init__(nn.Sequential(*layers, *_project(channels)) for layers, channels in resamplers)

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """The last map, float [B,width,H/16,W/16] -> four maps float [B,256,H/s,W/s], s = 4, 8, 16, 32."""
        return [level(maps[-1]) for level in self]


def _project(channels: int) -> list[nn.Module]:
    """Project to the pyramid's channels. The convolutions have no bias, as the norms have one."""
    return [
        nn.Conv2d(channels, PYRAMID_CHANNELS, 1, bias=False),
        LayerNorm2d(PYRAMID_CHANNELS),
        nn.Conv2d(PYRAMID_CHANNELS, PYRAMID_CHANNELS, 3, padding=1, bias=False),
        LayerNorm2d(PYRAMID_CHANNELS),
    ]


def _vit_from_clip(state: State) -> State:
    if "class_embedding" not in state:
        return state
    found = renamed(state, _CLIP_VIT)
    for name in ("cls_token", "pos_embed"):
        if name in found:
            found[name] = found[name].reshape(1, -1, found[name].shape[-1])
    return found


def _fold_layer_scale(state: State) -> State:
    """Fold DeiT III's LayerScale exactly: y = x + gamma (W f(x) + b) = x + (gamma W) f(x) + gamma b."""
    folded = {re.sub(r"gamma_(\d)$", r"ls\1.gamma", name): tensor for name, tensor in state.items()}
    for name in [name for name in folded if name.endswith(".gamma")]:
        block, last = name.rsplit(".ls", 1)[0], "attn.proj" if name.endswith("ls1.gamma") else "mlp.fc2"
        weight, bias = f"{block}.{last}.weight", f"{block}.{last}.bias"
        if weight in folded and bias in folded and folded[name].shape == folded[bias].shape:
            gamma = folded.pop(name)
            folded[weight], folded[bias] = folded[weight] * gamma[:, None], folded[bias] * gamma
    return folded


def _fit_positions(state: State, trunk: VisionTransformer) -> State:
    """Resample position embeddings to the trunk's grid, as timm does (bicubic, antialiased, without the class token).

    If the trunk has an entry for the class token and the source has none (DeiT III), a zero is added.
    """
    positions = state.get("pos_embed")
    if positions is None or positions.ndim != 3:
        return state
    with_class = math.isqrt(positions.shape[1]) ** 2 != positions.shape[1]
    if with_class and math.isqrt(positions.shape[1] - 1) ** 2 != positions.shape[1] - 1:
        return state
    if not with_class and not trunk.no_embed_class:
        positions = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
    elif with_class and trunk.no_embed_class:
        return state
    grid = list(trunk.patch_embed.grid_size)
    resampled = resample_abs_pos_embed(positions, grid, num_prefix_tokens=int(not trunk.no_embed_class))
    return state | {"pos_embed": resampled}
