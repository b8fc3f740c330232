"""Foreign checkpoints, one table: under which keys each source keeps its towers.

    source                          image tower                  text tower                        what is special
    open_clip, our pretraining runs visual.trunk. (timm), visual.  text. (MobileCLIP), none (CLIP)  fused: reparam_conv
    Apple mobileclip_*.pt           image_encoder.model.         text_encoder.                     fused: lkb_reparam too
    our dense runs                  backbone.encoder.trunk.      -                                 backbone.encoder.pyramid.
    timm                            (no prefix)                  -                                 fused: reparam_conv
    CLIP's ViT (open_clip, OpenAI)  visual.transformer.resblocks. none                             in_proj_ is timm's qkv
    MAE {"model"}                   (no prefix, timm's)          -                                 decoder_*, mask_token go
    MAWS                            (no prefix), vision_encoder. text_encoder.                     projections go
    DeiT III {"model"}, timm's      (no prefix)                  -                                 gamma_1, ls1.gamma folded
    AugReg (Google) .npz            Transformer/encoderblock_*   -                                 read by timm
    Swin, Microsoft {"model"}       layers., downsample at the end of a stage                      timm: at the beginning
    mmsegmentation {"state_dict"}   backbone.stages.             -                                 norm0..3 are our pyramid.

Apple's names inside the towers are translated by timm and open_clip; the fused ones, which those do not know, here; the
others by the family of the trunk.

What pixels a source expects is not in a file. The encoders take what is usual (vit_b16_clip OpenAI's mean and deviation,
vit_b16 and swin_l ImageNet's, MCi and vit_b16_mci 0..1). AugReg wants mean and deviation 0.5: in its .npz, and in
whatever `timm:NAME` says it wants, that is folded into the patch embedding, exactly; files of AugReg in another form have
to come through one of these two ways.
"""  # noqa: E501  a table

import re
from dataclasses import dataclass

import torch
from timm.models import fastvit, vision_transformer_hybrid
from torch import nn

from mobileclip_dense.artifact.preprocess import Normalization
from mobileclip_dense.models.expand import State
from mobileclip_dense.models.families.family import family_of
from mobileclip_dense.models.layouts import roots_to_try, unwrapped

APPLE_IMAGE = "image_encoder.model."
_TRUNK_PREFIXES = (
    "visual.trunk.", "visual.", "backbone.encoder.trunk.", "backbone.", "trunk.", "vision_encoder.", "",
)  # fmt: skip
_PYRAMID_PREFIXES = ("backbone.encoder.pyramid.", "pyramid.")
# What a trunk has and a pyramid needs not: classifier, projection, final norms, MAE's decoder. Other keys have to fit.
_NOT_IN_A_PYRAMID = re.compile(
    r"(head|final_conv|norm|fc_norm|ln_post|pre_logits|decoder_\w+)\.|(proj|mask_token|decoder_pos_embed)$"
)


@dataclass(frozen=True, kw_only=True)
class EncoderWeights:
    """An encoder's weights as a foreign checkpoint has them, under our names.

    Attributes:
        trunk: under timm's keys, fused convolutions too. pyramid: under those of `Encoder.pyramid`; empty where the
            source has none.
    """

    trunk: State
    pyramid: State


def encoder_weights(state: State, trunk: nn.Module) -> EncoderWeights:
    """The encoder's part of a foreign state dict.

    Args:
        state: any of the layouts above. trunk: the one to fill; tells which architecture is meant.
    """
    state = _part_with(trunk, state)
    found = _trunk_under_timms_keys(state, trunk)
    pyramid = _under(state, _PYRAMID_PREFIXES)
    if family := family_of(trunk):
        found, inside = family.split_pyramid(found)
        pyramid |= inside
    return EncoderWeights(
        trunk={name: tensor for name, tensor in found.items() if not _NOT_IN_A_PYRAMID.match(name)}, pyramid=pyramid
    )


def trunk_weights(state: State, trunk: nn.Module) -> State:
    """The image tower of a foreign state dict under the keys of a timm trunk, its head too, fused ones too."""
    return _trunk_under_timms_keys(_part_with(trunk, state), trunk)


def _part_with(trunk: nn.Module, state: State) -> State:
    """The state dict itself; or, where the trunk is not in it, what lies under the one usual first name where it is."""
    if _fits(_trunk_under_timms_keys(state, trunk), trunk):
        return state
    fitting = [part for part in roots_to_try(state) if _fits(_trunk_under_timms_keys(part, trunk), trunk)]
    return fitting[0] if len(fitting) == 1 else state


def _fits(found: State, trunk: nn.Module) -> bool:
    """Whether it has something for every part of the trunk."""
    return {name.split(".")[0] for name in trunk.state_dict()} <= {name.split(".")[0] for name in found}


def _trunk_under_timms_keys(state: State, trunk: nn.Module) -> State:
    if any(name.startswith(APPLE_IMAGE) for name in state):
        return _trunk_from_apple(state, trunk)
    found = unwrapped(_under(state, _TRUNK_PREFIXES))
    family = family_of(trunk)
    return found if family is None else family.trunk_weights(found, trunk)


def _under(state: State, prefixes: tuple[str, ...]) -> State:
    """What lies under the first of the prefixes that occurs, without it."""
    prefix = next((p for p in prefixes if any(name.startswith(p) for name in state)), None)
    if prefix is None:
        return {}
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _trunk_from_apple(state: State, trunk: nn.Module) -> State:
    """Apple's image tower: a FastViT (S0, S1, S2) or a ViT (B)."""
    if f"{APPLE_IMAGE}patch_emb.0.block.conv.weight" in state:
        converted: State = vision_transformer_hybrid.checkpoint_filter_fn(state, trunk)
        return converted
    image = {name.removeprefix(APPLE_IMAGE): value for name, value in state.items() if name.startswith(APPLE_IMAGE)}
    # In timm's translation a fused position encoding looks like a block of its stage.
    return {
        name.replace("lkb_reparam", "reparam_conv").replace(".blocks.reparam_conv", ".pos_emb.reparam_conv"): tensor
        for name, tensor in fastvit.checkpoint_filter_fn(image, trunk).items()
    }


def renormalized(trunk: State, found: Normalization, wanted: Normalization) -> State:
    """Weights for pixels normalized as `wanted` from such for `found`: the patch embedding takes the difference in.

    (p - m) / s = (x S + M - m) / s with x = (p - M) / S, exact since patches are cut without padding.

    Raises:
        ValueError: there is a difference and no patch embedding with a bias to take it.
    """
    if found == wanted:
        return trunk
    weight, bias = (trunk.get(f"patch_embed.proj.{name}") for name in ("weight", "bias"))
    if weight is None or bias is None:
        raise ValueError(f"found weights for pixels with mean {found.mean} and deviation {found.std}, expected "
                         f"{wanted.mean} and {wanted.std}")  # fmt: skip
    m, s, big_m, big_s = (torch.tensor(v) for v in (found.mean, found.std, wanted.mean, wanted.std))
    shift = (weight.sum((2, 3)) * ((big_m - m) / s)).sum(1)
    return trunk | {
        "patch_embed.proj.weight": weight * (big_s / s)[None, :, None, None],
        "patch_embed.proj.bias": bias + shift,
    }
