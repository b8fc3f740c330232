"""Loading of weights from any source into our models. `foreign` defines the keys of each source."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from open_clip.convert import convert_mobile_clip_state_dict
from open_clip.model import CLIP, CustomTextCLIP, convert_to_custom_text_state_dict, resize_pos_embed
from torch import nn

from mobileclip_dense.models.clip import clip_name
from mobileclip_dense.models.encoders import Encoder
from mobileclip_dense.models.expand import State, expand_fused, is_fused
from mobileclip_dense.models.foreign import APPLE_IMAGE, encoder_weights, renormalized, trunk_weights
from mobileclip_dense.models.layouts import under_prefix
from mobileclip_dense.models.sources import read_clip_source, read_encoder_source, read_state_dict
from mobileclip_dense.run.folder import differences

_APPLE_TEXT = "text_encoder."


@dataclass(frozen=True, kw_only=True)
class ForeignWeights:
    """Weights with open_clip's keys. Convolutions that are fused in the source are fused here.

    Attributes:
        state: the state dict.
        form: description of the source's format.
    """

    state: State
    form: str


def load_encoder_weights(encoder: Encoder, source: str | Path, *, prefix: str | None = None) -> None:
    """Load an encoder's weights from a run folder, a file in one of the layouts of `foreign`, or `timm:NAME` (hub).

    A fused checkpoint is expanded to the train form, see `expand`. Position embeddings of another grid are resampled.
    The pyramid of a ViT and the output norms of Swin are left unchanged if the source has none.

    Args:
        encoder: the encoder, changed in place.
        source: path or `timm:NAME`.
        prefix: prefix of the encoder's names in the source; None: found by `foreign`.

    Raises:
        FileNotFoundError: there is no such file or folder.
        OSError: the hub cannot be reached.
        ValueError: the source is not readable, or is of another architecture. The message lists the keys and shapes
            that do not match.
    """
    state, normalization = read_encoder_source(source)
    if prefix is not None:
        whole, state = state, under_prefix(state, prefix)
        if not state:
            raise ValueError(f"{source}: weights: prefix: found {prefix!r}, expected a prefix of at least one of its "
                             f"{_some('names', sorted(whole))}")  # fmt: skip
    found = encoder_weights(state, encoder.trunk)
    trunk = found.trunk
    if is_fused(trunk):
        warnings.warn(
            f"{source}: fused weights: their BatchNorms have no statistics of data; for training, prefer the file "
            "from before the fusion",
            stacklevel=2,
        )
        trunk = expand_fused(encoder.trunk, trunk)
    if normalization is not None:
        try:
            trunk = renormalized(trunk, normalization, encoder.normalization)
        except ValueError as error:
            raise ValueError(f"{source}: weights: {error}") from None
    what, hint = f"{source}: weights: not of encoder {encoder.name!r}", "choose the --encoder they belong to"
    _fill(encoder, _prefixed("trunk.", trunk) | _prefixed("pyramid.", found.pyramid or encoder.pyramid.state_dict()),
          what, hint)  # fmt: skip


def load_whole_model(model: nn.Module, source: Path) -> None:
    """Load the weights of a dense model, head included, from a checkpoint of mmsegmentation or one of our runs.

    Args:
        model: a model from `dense.model.build_model` with the same encoder, head and number of classes. UPerHead,
            FCNHead and FPNHead are mmsegmentation's own, so only the names of the backbone are translated.
        source: e.g. upernet_swin_large_patch4_window12_512x512_pretrain_384x384_22K_160k_ade20k_*.pth.

    Raises:
        FileNotFoundError, ValueError: see `load_encoder_weights`.
    """
    state = read_state_dict(source)
    found = encoder_weights(state, model.get_submodule("backbone.encoder.trunk"))
    heads = {name: tensor for name, tensor in state.items() if not name.startswith("backbone.")}
    backbone = _prefixed("trunk.", found.trunk) | _prefixed("pyramid.", found.pyramid)
    _fill(model, _prefixed("backbone.encoder.", backbone) | heads, f"{source}: weights: not of this model",
          "choose the encoder, head and classes they belong to")  # fmt: skip


def load_clip_weights(
    clip: CLIP | CustomTextCLIP, source: str | Path, *, model: str, towers: Literal["both", "image"] = "both"
) -> str:
    """Load the weights of both towers and the logit scale, or of the image tower only, from any source.

    Args:
        clip: a model from `build_clip(model)`, changed in place.
        source: a pretraining run; a folder of `convert-weights`; a file (safetensors or torch, also a training
            checkpoint) of open_clip or Apple, fused or not; or a tag of open_clip's published weights (`datacompdr`),
            downloaded from the hub. For the image tower also a file of timm, or `timm:NAME`, downloaded from the hub.
        model: name of the model, see `build_clip`.
        towers: both, or image: the text tower and the logit scale are left unchanged.

    Returns:
        A description of the source's format.

    Raises:
        FileNotFoundError: there is no such file, folder or tag.
        OSError: the hub cannot be reached.
        ValueError: the source is not readable, or is of another architecture. The message lists the keys and shapes
            that do not match.
    """
    foreign = read_clip_weights(clip, source, model=model, towers=towers)
    fill_clip(clip, foreign, f"{source}: weights: not of model {model!r}", towers)
    return foreign.form


def read_clip_weights(
    clip: CLIP | CustomTextCLIP, source: str | Path, *, model: str, towers: Literal["both", "image"] = "both"
) -> ForeignWeights:
    """Read weights with the keys of `clip`, without expanding fused convolutions. See `load_clip_weights`."""
    state, origin = read_clip_source(source, clip_name(model))
    if towers == "both" and any(name.startswith("backbone.") for name in state):
        raise ValueError(f"{source}: weights: found a dense model (of a fine-tuned or pruned run, or mmsegmentation), "
                         "which has no text tower; convert the pretraining run that it was initialized from, or use "
                         "this model with `finetune --init` or `export`")  # fmt: skip
    image = trunk_weights(state, clip.visual.trunk) if hasattr(clip.visual, "trunk") else {}
    if any(name.startswith(APPLE_IMAGE) for name in state):
        if not image:
            raise ValueError(f"{source}: weights: found Apple's layout of MobileCLIP, expected weights for {model!r}, "
                             "which has another image tower")  # fmt: skip
        origin = "Apple"
        others = {name: tensor for name, tensor in state.items() if not name.startswith((APPLE_IMAGE, _APPLE_TEXT))}
        text = _text_from_apple(clip, state, source) if towers == "both" else {}
        state = {f"visual.trunk.{name}": tensor for name, tensor in image.items()} | text | others
    elif towers == "image" and image and not any(name.startswith("visual.") for name in state):
        origin = "timm" if origin == "open_clip" else origin
        state = {f"visual.trunk.{name}": tensor for name, tensor in image.items()}
    elif "positional_embedding" in state and not hasattr(clip, "positional_embedding"):
        origin = "open_clip, text tower without prefix"
        state = convert_to_custom_text_state_dict(state)
    if towers == "image":
        state = {name: tensor for name, tensor in state.items() if name.startswith("visual.")}
    if "logit_scale" in state and state["logit_scale"].numel() == 1:
        state["logit_scale"] = state["logit_scale"].reshape(clip.logit_scale.shape)  # [], or [1] in old files
    if "visual.positional_embedding" in state and state["visual.positional_embedding"].ndim == 2:
        resize_pos_embed(state, clip)  # for a plain ViT trained at another image size
    return ForeignWeights(state=state, form=f"{origin}, fused" if is_fused(state) else f"{origin}, train form")


def fill_clip(
    clip: CLIP | CustomTextCLIP, foreign: ForeignWeights, what: str, towers: Literal["both", "image"] = "both"
) -> None:
    """Load the result of `read_clip_weights`, expanding fused convolutions. Errors (ValueError) begin with `what`."""
    state, hint = expand_fused(clip, foreign.state), "choose the --model they belong to"
    if towers == "image":
        _fill(clip.visual, {name.removeprefix("visual."): tensor for name, tensor in state.items()}, what, hint)
    else:
        _fill(clip, state, what, hint)


def _text_from_apple(clip: CustomTextCLIP, state: State, source: str | Path) -> State:
    text = {name: tensor for name, tensor in state.items() if name.startswith(_APPLE_TEXT)}
    if any("token_mixer" in name for name in text):
        raise ValueError(
            f"{source}: weights: found a text tower that mixes convolutions with attention (mobileclip_s0.pt of "
            "MobileCLIP v1), which open_clip does not support; load only its image tower, in `finetune --init` with "
            "--encoder mci0, or use MobileCLIP2-S0"
        )
    converted = convert_mobile_clip_state_dict(clip, {**text, "logit_scale": torch.zeros([])})
    return {name: tensor for name, tensor in converted.items() if name.startswith("text.")}


def _prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def _fill(module: nn.Module, state: State, what: str, hint: str) -> None:
    """Load a state dict strictly. Raises ValueError, beginning with `what`, if keys or shapes do not match."""
    missing, leftover, reshaped = differences(module, state)
    if missing or leftover or reshaped:
        raise ValueError(f"{what}: {_some('missing', missing)}; {_some('left over', leftover)}; "
                         f"{_some('other shape', reshaped)}; {hint}")  # fmt: skip
    module.load_state_dict(state)


def _some(label: str, names: list[str]) -> str:
    return f"{len(names)} {label}" + (f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else "")
