"""Swin transformers, with a norm after each stage as in mmsegmentation."""

import math
import re

import torch
from timm.layers import LayerNorm2d, resize_rel_pos_bias_table
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock, window_partition, window_reverse
from torch import nn

from mobileclip_dense.config.encoders import EncoderSpec
from mobileclip_dense.models.expand import State
from mobileclip_dense.models.families.family import Family, Part
from mobileclip_dense.models.layouts import renamed

_MMSEG_SWIN = (
    ("stages.", "layers."), ("attn.w_msa.", "attn."), ("ffn.layers.0.0.", "mlp.fc1."), ("ffn.layers.1.", "mlp.fc2."),
    ("patch_embed.projection.", "patch_embed.proj."),
)  # fmt: skip
_SWIN_BUFFERS = ("relative_position_index", "attn_mask")  # timm computes them
_DOWNSAMPLE = re.compile(r"^(layers|stages)\.(\d)\.downsample\.")
_SWIN_TABLE = "relative_position_bias_table"


class SwinFamily(Family[SwinTransformer]):
    """Swin transformers. The maps of their stages are the pyramid, after a norm of each map."""

    trunk_type = SwinTransformer

    def build_trunk(self, spec: EncoderSpec, drop_path_rate: float) -> SwinTransformer:
        """Build timm's model, with the same results as the authors' and mmsegmentation's (see `PadThenShift`)."""
        trunk = super().build_trunk(spec, drop_path_rate)
        pad_then_shift(trunk)
        return trunk

    def build_pyramid(self, trunk: SwinTransformer, *, fresh: bool) -> nn.Module:
        """Build the `OutputNorms`."""
        return OutputNorms(tuple(int(info["num_chs"]) for info in trunk.feature_info))

    def layers(self, trunk: SwinTransformer) -> list[list[Part]]:
        """Patch embedding and stages, without the norms of the outputs."""
        return [[trunk.patch_embed], *([stage] for stage in trunk.layers)]

    def stages(self, trunk: SwinTransformer, pyramid: nn.Module) -> list[list[Part]]:
        """Each stage with the norm of its output."""
        stem, *layers = self.layers(trunk)
        return [stem, *([*layer, norm] for layer, norm in zip(layers, pyramid.children(), strict=True))]

    def trunk_weights(self, state: State, trunk: SwinTransformer) -> State:
        """Translate Microsoft's and mmsegmentation's names, and resample tables of relative positions."""
        return _fit_windows(_swin_from_mmseg(_swin_from_microsoft(state)), trunk)

    def split_pyramid(self, state: State) -> tuple[State, State]:
        """Split off mmsegmentation's norm0 .. norm3, the weights of the pyramid."""
        outputs = {name: re.fullmatch(r"norm(\d)\.(\w+)", name) for name in state}
        norms = {f"{match[1]}.{match[2]}": state[name] for name, match in outputs.items() if match}
        return {name: tensor for name, tensor in state.items() if not outputs[name]}, norms


class OutputNorms(nn.ModuleList):
    """A LayerNorm over the channels of each map, as in mmsegmentation's Swin."""

    def __init__(self, channels: tuple[int, ...]):
        super().__init__(LayerNorm2d(count, eps=1e-5) for count in channels)

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """float [B,C,H,W] each -> the same shapes."""
        return [norm(one) for norm, one in zip(self, maps, strict=True)]


class PadThenShift(SwinTransformerBlock):
    """timm's block, with the same results as the authors' and mmsegmentation's for maps that need padding.

    timm shifts before it pads. Tokens that were rolled around the edge are then next to the padding, where the mask
    does not separate them, and mmsegmentation's weights would give other features than in mmsegmentation.
    """

    def _attn(self, x: torch.Tensor) -> torch.Tensor:
        """float [B,H,W,C] -> the same shape."""
        _, height, width, channels = x.shape
        window_height, window_width = self.window_size
        x = nn.functional.pad(x, (0, 0, 0, -width % window_width, 0, -height % window_height))
        _, padded_height, padded_width, _ = x.shape
        shift = self.shift_size
        if any(shift):
            x = x.roll((-shift[0], -shift[1]), (1, 2))
        mask = self.get_attn_mask(x) if self.dynamic_mask else self.attn_mask
        windows = window_partition(x, self.window_size).flatten(1, 2)
        attended = self.attn(windows, mask=mask).view(-1, window_height, window_width, channels)
        x = window_reverse(attended, self.window_size, padded_height, padded_width)
        if any(shift):
            x = x.roll(shift, (1, 2))
        return x[:, :height, :width].contiguous()


def pad_then_shift(trunk: SwinTransformer) -> None:
    """Make every block of a Swin a `PadThenShift`, in place. Parameters and keys do not change."""
    for module in trunk.modules():
        if isinstance(module, SwinTransformerBlock):
            module.__class__ = PadThenShift


def _swin_from_microsoft(state: State) -> State:
    """Move downsampling from the end of a stage to the beginning of the next, as in timm, and drop the buffers."""
    parameters = {name: tensor for name, tensor in state.items() if not name.endswith(_SWIN_BUFFERS)}
    if any(name.startswith(("layers.0.downsample.", "stages.0.downsample.")) for name in parameters):
        parameters = {_DOWNSAMPLE.sub(_next_stage, name): tensor for name, tensor in parameters.items()}
    return parameters


def _next_stage(found: re.Match[str]) -> str:
    return f"{found[1]}.{int(found[2]) + 1}.downsample."


def _swin_from_mmseg(state: State) -> State:
    """Translate names, and reorder patch merging: mmsegmentation's 4 C channels are [C,row,col], timm's [col,row,C]."""
    if not any(name.startswith("stages.") for name in state):
        return state
    merged = {
        name: tensor.reshape(*tensor.shape[:-1], -1, 2, 2).transpose(-1, -3).flatten(-3)
        if ".downsample." in name and tensor.shape[-1] % 4 == 0
        else tensor
        for name, tensor in state.items()
    }
    return renamed(merged, _MMSEG_SWIN)


def _fit_windows(state: State, trunk: SwinTransformer) -> State:
    """Resample tables of relative positions for another window size, as timm does."""
    expected = {name: tensor for name, tensor in trunk.state_dict().items() if name.endswith(_SWIN_TABLE)}
    fitted = {}
    for name, found in ((name, state[name]) for name in expected.keys() & state.keys()):
        side = math.isqrt(len(expected[name]))
        if found.shape[1:] == expected[name].shape[1:] and found.shape != expected[name].shape:
            window = ((side + 1) // 2,) * 2
            fitted[name] = resize_rel_pos_bias_table(found, new_window_size=window, new_bias_shape=expected[name].shape)
    return state | fitted
