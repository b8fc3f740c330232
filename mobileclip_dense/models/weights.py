"""Foreign checkpoints, one table: under which keys each source keeps its towers.

    source                          image tower                  text tower                        fused convolutions
    open_clip, our pretraining runs visual.trunk. (timm), visual.  text. (MobileCLIP), none (CLIP)  reparam_conv
    Apple mobileclip_*.pt           image_encoder.model.         text_encoder.                     reparam_conv, lkb_reparam
    our dense runs                  backbone.encoder.trunk.      -                                 -
    timm                            (no prefix)                  -                                 reparam_conv

Apple's names inside the towers are translated by timm and open_clip; the fused ones, which those do not know, here.
"""  # noqa: E501  a table

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import timm
import torch
from open_clip.convert import convert_mobile_clip_state_dict
from open_clip.model import CLIP, CustomTextCLIP, convert_to_custom_text_state_dict, resize_pos_embed
from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model
from timm.models import fastvit, vision_transformer_hybrid
from torch import nn

from mobileclip_dense.models.clip import OPEN_CLIP_CONFIG, clip_name, open_clip_config
from mobileclip_dense.models.encoders import Encoder
from mobileclip_dense.models.expand import State, expand_fused, is_fused
from mobileclip_dense.run import differences, load_run, read_safetensors

_TRUNK_PREFIXES = ("visual.trunk.", "backbone.encoder.trunk.", "trunk.", "")
_APPLE_IMAGE, _APPLE_TEXT = "image_encoder.model.", "text_encoder."
_WRAPPERS = ("state_dict", "model")  # where training scripts put the state dict
_NOT_IN_A_PYRAMID = ("head.", "final_conv.", "norm.")
_TIMM = "timm:"


@dataclass(frozen=True, kw_only=True)
class ForeignWeights:
    """Weights under open_clip's keys, with fused convolutions where the source has them.

    Attributes:
        state: the state dict. form: where the source keeps what, in words.
    """

    state: State
    form: str


def load_encoder_weights(encoder: Encoder, source: Path) -> None:
    """Fill an encoder from a run folder or from a file of open_clip, timm or Apple (safetensors or torch).

    A fused checkpoint is expanded to the train form, see `expand`.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: unreadable, or of another architecture: the message lists keys and shapes that do not fit.
    """
    trunk = trunk_weights(read_state_dict(source), encoder.trunk)
    if is_fused(trunk):
        warnings.warn(
            f"{source}: fused weights: their BatchNorms hold no statistics of data; to train, prefer the file from "
            "before the fusion",
            stacklevel=2,
        )
        trunk = expand_fused(encoder.trunk, trunk)
    trunk = {name: tensor for name, tensor in trunk.items() if not name.startswith(_NOT_IN_A_PYRAMID)}
    _fill(encoder.trunk, trunk, f"{source}: weights: not of encoder {encoder.name!r}",
          "choose the --encoder they belong to")  # fmt: skip


def load_clip_weights(
    clip: CLIP | CustomTextCLIP, source: str | Path, *, model: str, towers: Literal["both", "image"] = "both"
) -> str:
    """Fill both towers and the logit scale, or the image tower alone, from any source.

    Args:
        clip: what `build_clip(model)` gave.
        source: a pretraining run, a folder of `convert-weights`, a file (safetensors or torch, training checkpoints
            too) of open_clip or of Apple, train form or fused; a tag of open_clip's published weights (`datacompdr`),
            fetched from the hub. For the image tower alone also a file of timm, or `timm:NAME`, fetched from the hub.
        model: its name, see `build_clip`.
        towers: image: the text tower and the logit scale stay as they are.

    Returns:
        The form of the source, in words.

    Raises:
        FileNotFoundError: no such file, folder or tag. OSError: the hub cannot be reached.
        ValueError: unreadable, or of another architecture: the message lists keys and shapes that do not fit.
    """
    foreign = read_clip_weights(clip, source, model=model, towers=towers)
    fill_clip(clip, foreign, f"{source}: weights: not of model {model!r}", towers)
    return foreign.form


def read_clip_weights(
    clip: CLIP | CustomTextCLIP, source: str | Path, *, model: str, towers: Literal["both", "image"] = "both"
) -> ForeignWeights:
    """The weights of a source under the keys of `clip`, fused ones not yet expanded; see `load_clip_weights`."""
    state, origin = _read_source(source, clip_name(model))
    image = trunk_weights(state, clip.visual.trunk) if hasattr(clip.visual, "trunk") else {}
    if any(name.startswith(_APPLE_IMAGE) for name in state):
        if not image:
            raise ValueError(f"{source}: weights: in Apple's layout of MobileCLIP, whose image tower {model!r} has not")
        origin = "Apple"
        others = {name: tensor for name, tensor in state.items() if not name.startswith((_APPLE_IMAGE, _APPLE_TEXT))}
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
        state["logit_scale"] = state["logit_scale"].reshape(clip.logit_scale.shape)  # [] or, in old files, [1]
    if "visual.positional_embedding" in state and state["visual.positional_embedding"].ndim == 2:
        resize_pos_embed(state, clip)  # of a plain ViT trained at another image size
    return ForeignWeights(state=state, form=f"{origin}, fused" if is_fused(state) else f"{origin}, train form")


def fill_clip(
    clip: CLIP | CustomTextCLIP, foreign: ForeignWeights, what: str, towers: Literal["both", "image"] = "both"
) -> None:
    """Load what `read_clip_weights` gave, fused convolutions expanded; raises ValueError, beginning with `what`."""
    state, hint = expand_fused(clip, foreign.state), "choose the --model they belong to"
    if towers == "image":
        _fill(clip.visual, {name.removeprefix("visual."): tensor for name, tensor in state.items()}, what, hint)
    else:
        _fill(clip, state, what, hint)


def read_state_dict(source: Path) -> State:
    """State dict of a run folder, a folder of `convert-weights`, a .safetensors file or a torch file (tensors only).

    Raises:
        FileNotFoundError, ValueError: as for `load_encoder_weights`.
    """
    if source.is_dir():
        if (source / OPEN_CLIP_CONFIG).is_file() and not (source / "config.json").is_file():
            return read_safetensors(source / "weights.safetensors")
        return load_run(source).weights
    if not source.is_file():
        raise FileNotFoundError(f"{source}: weights: no such file or run folder")
    if source.suffix == ".safetensors":
        return read_safetensors(source)
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file makes the unpickler fail in any way: KeyError, AssertionError, ...
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{source}: weights: expected safetensors or a torch file with tensors only ({reason})"
        ) from None
    for key in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
    ):
        found = f"a dict of {', '.join(map(str, state))}"[:100] if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"{source}: weights: expected a state dict of tensors, found {found}")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def trunk_weights(state: State, trunk: nn.Module) -> State:
    """The image tower of a foreign state dict under the keys of a timm trunk, fused ones too."""
    if any(name.startswith(_APPLE_IMAGE) for name in state):
        return _trunk_from_apple(state, trunk)
    prefix = next(p for p in _TRUNK_PREFIXES if any(name.startswith(p) for name in state) or not p)
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _trunk_from_apple(state: State, trunk: nn.Module) -> State:
    """Apple's image tower: a FastViT (S0, S1, S2) or a ViT (B)."""
    if f"{_APPLE_IMAGE}patch_emb.0.block.conv.weight" in state:
        converted: State = vision_transformer_hybrid.checkpoint_filter_fn(state, trunk)
        return converted
    image = {name.removeprefix(_APPLE_IMAGE): value for name, value in state.items() if name.startswith(_APPLE_IMAGE)}
    # In timm's translation a fused position encoding looks like a block of its stage.
    return {
        name.replace("lkb_reparam", "reparam_conv").replace(".blocks.reparam_conv", ".pos_emb.reparam_conv"): tensor
        for name, tensor in fastvit.checkpoint_filter_fn(image, trunk).items()
    }


def _text_from_apple(clip: CustomTextCLIP, state: State, source: str | Path) -> State:
    text = {name: tensor for name, tensor in state.items() if name.startswith(_APPLE_TEXT)}
    if any("token_mixer" in name for name in text):
        raise ValueError(
            f"{source}: weights: the text tower mixes convolutions with attention (mobileclip_s0.pt of MobileCLIP v1), "
            "which open_clip has no model for; its image tower alone loads, in `finetune --init` with --encoder mci0; "
            "or take MobileCLIP2-S0, whose text tower open_clip has"
        )
    converted = convert_mobile_clip_state_dict(clip, {**text, "logit_scale": torch.zeros([])})
    return {name: tensor for name, tensor in converted.items() if name.startswith("text.")}


def _read_source(source: str | Path, name: str) -> tuple[State, str]:
    """State dict, and who wrote it; a tag or a timm name only where there is no such file."""
    path, tags = Path(source), list_pretrained_tags_by_model(name)
    if path.exists():
        return read_state_dict(path), "our run" if (path / "run.json").is_file() else "open_clip"
    if str(source) in tags:
        return read_state_dict(_fetch_tag(name, str(source))), f"open_clip's {name} {source}"
    if str(source).startswith(_TIMM):
        return _fetch_timm(str(source).removeprefix(_TIMM)), str(source)
    if "://" in str(source):
        raise ValueError(f"{source}: weights: found an address, expected a file; download it first")
    raise FileNotFoundError(f"{source}: weights: no such file or run folder, and none of the published weights of "
                            f"{name}: {', '.join(tags) or 'there are none'}")  # fmt: skip


def _fetch_tag(name: str, tag: str) -> Path:
    published, known = get_pretrained_cfg(name, tag), open_clip_config(name)["model_cfg"]
    if published.get("quick_gelu", False) != known.get("quick_gelu", False):
        other = name.removesuffix("-quickgelu") if known.get("quick_gelu") else f"{name}-quickgelu"
        raise ValueError(f"{tag}: weights: trained with another activation than {name} has; take model {other!r}")
    try:
        return Path(download_pretrained(published))
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise OSError(f"{tag}: weights: could not be fetched from the hub ({reason}); download the file elsewhere and "
                      "give its path") from None  # fmt: skip


def _fetch_timm(name: str) -> State:
    if name not in timm.list_models(pretrained=True):
        raise ValueError(
            f"{_TIMM}{name}: weights: found no such published weights in timm.list_models(pretrained=True)"
        )
    try:
        state: State = timm.create_model(name, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"{_TIMM}{name}: weights: could not be fetched from the hub ({str(error).splitlines()[0]})"
        ) from None
    return state


def _fill(module: nn.Module, state: State, what: str, hint: str) -> None:
    """Load a state dict that has to fit to the last key; raises ValueError, beginning with `what`, otherwise."""
    missing, leftover, reshaped = differences(module, state)
    if missing or leftover or reshaped:
        raise ValueError(f"{what}: {_some('missing', missing)}; {_some('left over', leftover)}; "
                         f"{_some('other shape', reshaped)}; {hint}")  # fmt: skip
    module.load_state_dict(state)


def _some(label: str, names: list[str]) -> str:
    return f"{len(names)} {label}" + (f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else "")
