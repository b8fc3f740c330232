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

Apple's names inside the towers are translated by timm and open_clip; the fused ones, which those do not know, and all
others here.

What pixels a source expects is not in a file. The encoders take what is usual (vit_b16_clip OpenAI's mean and deviation,
vit_b16 and swin_l ImageNet's, MCi and vit_b16_mci 0..1). AugReg wants mean and deviation 0.5: in its .npz, and in
whatever `timm:NAME` says it wants, that is folded into the patch embedding, exactly; files of AugReg in another form have
to come through one of these two ways.
"""  # noqa: E501  a table

import math
import re
from dataclasses import dataclass

import torch
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from timm.models import fastvit, vision_transformer_hybrid
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mobileclip_dense.artifact.preprocess import Normalization
from mobileclip_dense.models.expand import State
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
_CLIP_VIT = (
    ("class_embedding", "cls_token"), ("positional_embedding", "pos_embed"), ("conv1.", "patch_embed.proj."),
    ("ln_pre.", "norm_pre."), ("transformer.resblocks.", "blocks."), ("ln_1.", "norm1."), ("ln_2.", "norm2."),
    ("attn.in_proj_", "attn.qkv."), ("attn.out_proj.", "attn.proj."), ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
)  # fmt: skip
_MMSEG_SWIN = (
    ("stages.", "layers."), ("attn.w_msa.", "attn."), ("ffn.layers.0.0.", "mlp.fc1."), ("ffn.layers.1.", "mlp.fc2."),
    ("patch_embed.projection.", "patch_embed.proj."),
)  # fmt: skip
_SWIN_BUFFERS = ("relative_position_index", "attn_mask")  # timm computes them
_DOWNSAMPLE = re.compile(r"^(layers|stages)\.(\d)\.downsample\.")
_SWIN_TABLE = "relative_position_bias_table"


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
    if isinstance(trunk, SwinTransformer):
        outputs = {name: re.fullmatch(r"norm(\d)\.(\w+)", name) for name in found}
        pyramid |= {f"{match[1]}.{match[2]}": found[name] for name, match in outputs.items() if match}
        found = {name: tensor for name, tensor in found.items() if not outputs[name]}
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
    match trunk:
        case VisionTransformer():
            return _fit_positions(_fold_layer_scale(_vit_from_clip(found)), trunk)
        case SwinTransformer():
            return _fit_windows(_swin_from_mmseg(_swin_from_microsoft(found)), trunk)
    return found


def _under(state: State, prefixes: tuple[str, ...]) -> State:
    """What lies under the first of the prefixes that occurs, without it."""
    prefix = next((p for p in prefixes if any(name.startswith(p) for name in state)), None)
    if prefix is None:
        return {}
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _renamed(state: State, table: tuple[tuple[str, str], ...]) -> State:
    renamed = {}
    for name, tensor in state.items():
        for theirs, timms in table:
            name = name.replace(theirs, timms)
        renamed[name] = tensor
    return renamed


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


def _vit_from_clip(state: State) -> State:
    if "class_embedding" not in state:
        return state
    renamed = _renamed(state, _CLIP_VIT)
    for name in ("cls_token", "pos_embed"):
        if name in renamed:
            renamed[name] = renamed[name].reshape(1, -1, renamed[name].shape[-1])
    return renamed


def _fold_layer_scale(state: State) -> State:
    """DeiT III as a plain ViT, exactly: y = x + gamma (W f(x) + b) = x + (gamma W) f(x) + gamma b."""
    folded = {re.sub(r"gamma_(\d)$", r"ls\1.gamma", name): tensor for name, tensor in state.items()}
    for name in [name for name in folded if name.endswith(".gamma")]:
        block, last = name.rsplit(".ls", 1)[0], "attn.proj" if name.endswith("ls1.gamma") else "mlp.fc2"
        weight, bias = f"{block}.{last}.weight", f"{block}.{last}.bias"
        if weight in folded and bias in folded and folded[name].shape == folded[bias].shape:
            gamma = folded.pop(name)
            folded[weight], folded[bias] = folded[weight] * gamma[:, None], folded[bias] * gamma
    return folded


def _fit_positions(state: State, trunk: VisionTransformer) -> State:
    """Position embeddings on the trunk's grid and with an entry for the class token where the trunk has one.

    One that is not there (DeiT III) is zero. Resampled as timm does it (bicubic, antialiased), the class token apart.
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


def _swin_from_microsoft(state: State) -> State:
    """Downsampling ends a stage there and begins the next in timm; buffers are not stored."""
    kept = {name: tensor for name, tensor in state.items() if not name.endswith(_SWIN_BUFFERS)}
    if any(name.startswith(("layers.0.downsample.", "stages.0.downsample.")) for name in kept):
        kept = {_DOWNSAMPLE.sub(_next_stage, name): tensor for name, tensor in kept.items()}
    return kept


def _next_stage(found: re.Match[str]) -> str:
    return f"{found[1]}.{int(found[2]) + 1}.downsample."


def _swin_from_mmseg(state: State) -> State:
    """mmsegmentation merges patches with nn.Unfold: its 4 C channels are [C,row,column], timm's [column,row,C]."""
    if not any(name.startswith("stages.") for name in state):
        return state
    merged = {
        name: tensor.reshape(*tensor.shape[:-1], -1, 2, 2).transpose(-1, -3).flatten(-3)
        if ".downsample." in name and tensor.shape[-1] % 4 == 0
        else tensor
        for name, tensor in state.items()
    }
    return _renamed(merged, _MMSEG_SWIN)


def _fit_windows(state: State, trunk: SwinTransformer) -> State:
    """Tables of relative positions, resampled as timm does it where they are of another window."""
    expected = {name: tensor for name, tensor in trunk.state_dict().items() if name.endswith(_SWIN_TABLE)}
    fitted = {}
    for name, found in ((name, state[name]) for name in expected.keys() & state.keys()):
        side = math.isqrt(len(expected[name]))
        if found.shape[1:] == expected[name].shape[1:] and found.shape != expected[name].shape:
            window = ((side + 1) // 2,) * 2
            fitted[name] = resize_rel_pos_bias_table(found, new_window_size=window, new_bias_shape=expected[name].shape)
    return state | fitted


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
