"""Foreign checkpoints: the keys under which each source stores its towers.

    source                          image tower                  text tower                        notes
    open_clip, our pretraining runs visual.trunk. (timm), visual.  text. (MobileCLIP), none (CLIP)  fused: reparam_conv
    Apple mobileclip_*.pt           image_encoder.model.         text_encoder.                     fused: lkb_reparam too
    our dense runs                  backbone.encoder.trunk.      -                                 backbone.encoder.pyramid.
    timm                            (no prefix)                  -                                 fused: reparam_conv
    CLIP's ViT (open_clip, OpenAI)  visual.transformer.resblocks. none                             in_proj_ is timm's qkv
    MAE {"model"}                   (no prefix, timm's)          -                                 decoder_*, mask_token dropped
    MAWS                            (no prefix), vision_encoder. text_encoder.                     projections dropped
    DeiT III {"model"}, timm's      (no prefix)                  -                                 gamma_1, ls1.gamma folded
    AugReg (Google) .npz            Transformer/encoderblock_*   -                                 read by timm
    Swin, Microsoft {"model"}       layers., downsample at the end of a stage                      timm: at the beginning
    mmsegmentation {"state_dict"}   backbone.stages.             -                                 norm0..3 are our pyramid.

Names inside the towers: timm and open_clip translate Apple's; this module translates Apple's fused ones, which they do
not support; the family of the trunk translates all others.

A file does not contain the normalization that its weights expect. The encoders use the usual one (vit_b16_clip: OpenAI's
mean and std; vit_b16 and swin_l: ImageNet's; MCi and vit_b16_mci: pixels in 0..1). AugReg's weights expect mean and std
0.5. For its .npz files, and for `timm:NAME` with another normalization, the difference is folded exactly into the patch
embedding. AugReg's weights in other files are not supported.
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
# Keys that a pyramid does not need: classifier, projection, final norms, MAE's decoder. All other keys must match.
_NOT_IN_A_PYRAMID = re.compile(
    r"(head|final_conv|norm|fc_norm|ln_post|pre_logits|decoder_\w+)\.|(proj|mask_token|decoder_pos_embed)$"
)


@dataclass(frozen=True, kw_only=True)
class EncoderWeights:
    """An encoder's weights from a foreign checkpoint, with our names.

    Attributes:
        trunk: weights with timm's keys; convolutions that are fused in the source are fused here.
        pyramid: weights with the keys of `Encoder.pyramid`; empty if the source has none.
    """

    trunk: State
    pyramid: State


def encoder_weights(state: State, trunk: nn.Module) -> EncoderWeights:
    """The encoder's part of a foreign state dict.

    Args:
        state: a state dict in any of the layouts above.
        trunk: the trunk to load it into, which determines the architecture.
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
    """The image tower of a foreign state dict with the keys of a timm trunk, head and fused convolutions included."""
    return _trunk_under_timms_keys(_part_with(trunk, state), trunk)


def _part_with(trunk: nn.Module, state: State) -> State:
    """The state dict itself, or, if it does not contain the trunk, its part under the one usual prefix that does."""
    if _fits(_trunk_under_timms_keys(state, trunk), trunk):
        return state
    fitting = [part for part in roots_to_try(state) if _fits(_trunk_under_timms_keys(part, trunk), trunk)]
    return fitting[0] if len(fitting) == 1 else state


def _fits(found: State, trunk: nn.Module) -> bool:
    """Whether a state dict has keys for every top-level part of the trunk."""
    return {name.split(".")[0] for name in trunk.state_dict()} <= {name.split(".")[0] for name in found}


def _trunk_under_timms_keys(state: State, trunk: nn.Module) -> State:
    if any(name.startswith(APPLE_IMAGE) for name in state):
        return _trunk_from_apple(state, trunk)
    found = unwrapped(_under(state, _TRUNK_PREFIXES))
    family = family_of(trunk)
    return found if family is None else family.trunk_weights(found, trunk)


def _under(state: State, prefixes: tuple[str, ...]) -> State:
    """The part of a state dict under the first prefix that occurs, with the prefix removed."""
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
    # timm translates a fused position encoding to a block of its stage.
    return {
        name.replace("lkb_reparam", "reparam_conv").replace(".blocks.reparam_conv", ".pos_emb.reparam_conv"): tensor
        for name, tensor in fastvit.checkpoint_filter_fn(image, trunk).items()
    }


def renormalized(trunk: State, found: Normalization, wanted: Normalization) -> State:
    """Fold a change of normalization into the patch embedding.

    (p - m) / s = (x S + M - m) / s with x = (p - M) / S. This is exact, since patches are not padded.

    Args:
        trunk: state dict of a trunk.
        found: the normalization that its weights expect.
        wanted: the normalization that the returned weights expect.

    Raises:
        ValueError: the normalizations differ and there is no patch embedding with a bias.
    """
    if found == wanted:
        return trunk
    weight, bias = (trunk.get(f"patch_embed.proj.{name}") for name in ("weight", "bias"))
    if weight is None or bias is None:
        raise ValueError(f"found weights for pixels with mean {found.mean} and std {found.std}, expected "
                         f"{wanted.mean} and {wanted.std}")  # fmt: skip
    m, s, big_m, big_s = (torch.tensor(v) for v in (found.mean, found.std, wanted.mean, wanted.std))
    shift = (weight.sum((2, 3)) * ((big_m - m) / s)).sum(1)
    return trunk | {
        "patch_embed.proj.weight": weight * (big_s / s)[None, :, None, None],
        "patch_embed.proj.bias": bias + shift,
    }
