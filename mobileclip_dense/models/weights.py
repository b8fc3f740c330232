"""Weights of any source into our models; under which keys each source keeps them says `foreign`."""

import re
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from open_clip.convert import convert_mobile_clip_state_dict
from open_clip.model import CLIP, CustomTextCLIP, convert_to_custom_text_state_dict, resize_pos_embed
from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model
from torch import nn

from mobileclip_dense.artifact.preprocess import Normalization
from mobileclip_dense.config.encoders import ENCODERS
from mobileclip_dense.models.clip import OPEN_CLIP_CONFIG, clip_name, open_clip_config
from mobileclip_dense.models.encoders import Encoder
from mobileclip_dense.models.expand import State, expand_fused, is_fused
from mobileclip_dense.models.foreign import APPLE_IMAGE, encoder_weights, renormalized, trunk_weights
from mobileclip_dense.models.layouts import plain_weights, read_training_checkpoint, under_prefix
from mobileclip_dense.run.folder import differences, load_run, read_safetensors

_APPLE_TEXT = "text_encoder."
_TIMM = "timm:"
_HALF = Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@dataclass(frozen=True, kw_only=True)
class ForeignWeights:
    """Weights under open_clip's keys, with fused convolutions where the source has them.

    Attributes:
        state: the state dict. form: where the source keeps what, in words.
    """

    state: State
    form: str


def load_encoder_weights(encoder: Encoder, source: str | Path, *, prefix: str | None = None) -> None:
    """Fill an encoder from a run folder, a file in one of the layouts of `foreign`, or `timm:NAME`, from the hub.

    A fused checkpoint is expanded to the train form, see `expand`. Position embeddings of another grid are resampled.
    The pyramid of a ViT and the output norms of Swin stay fresh where the source has none.

    Args:
        prefix: only names that begin so are of the encoder; None: `foreign` knows where it is.

    Raises:
        FileNotFoundError: no such file or folder. OSError: the hub cannot be reached.
        ValueError: unreadable, or of another architecture: the message lists keys and shapes that do not fit.
    """
    state, normalization = read_encoder_source(source)
    if prefix is not None:
        whole, state = state, under_prefix(state, prefix)
        if not state:
            raise ValueError(f"{source}: weights: prefix: found {prefix!r}, which none of its "
                             f"{_some('names', sorted(whole))} begins with")  # fmt: skip
    found = encoder_weights(state, encoder.trunk)
    trunk = found.trunk
    if is_fused(trunk):
        warnings.warn(
            f"{source}: fused weights: their BatchNorms hold no statistics of data; to train, prefer the file from "
            "before the fusion",
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
    """Fill a dense model, head included, from a checkpoint of mmsegmentation or from one of our runs.

    Args:
        model: what `dense.model.build_model` gave: of the same encoder, head and number of classes. UPerHead, FCNHead
            and FPNHead are mmsegmentation's own, so only the names of the backbone differ.
        source: e.g. upernet_swin_large_patch4_window12_512x512_pretrain_384x384_22K_160k_ade20k_*.pth.

    Raises:
        FileNotFoundError, ValueError: as for `load_encoder_weights`.
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
    if towers == "both" and any(name.startswith("backbone.") for name in state):
        raise ValueError(f"{source}: weights: found a dense model, of a fine-tuned or pruned run or of mmsegmentation, "
                         "which has no text tower; convert the pretraining run that it began with, or, to go on from "
                         "this one, give it to `finetune --init` or `export`")  # fmt: skip
    image = trunk_weights(state, clip.visual.trunk) if hasattr(clip.visual, "trunk") else {}
    if any(name.startswith(APPLE_IMAGE) for name in state):
        if not image:
            raise ValueError(f"{source}: weights: in Apple's layout of MobileCLIP, whose image tower {model!r} has not")
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

    Of a training checkpoint the moving average is taken where there is one, and a line says so, see `layouts`.

    Raises:
        FileNotFoundError, ValueError: as for `load_encoder_weights`.
    """
    if source.is_dir():
        if (source / OPEN_CLIP_CONFIG).is_file() and not (source / "config.json").is_file():
            return read_safetensors(source / "weights.safetensors")
        return load_run(source).weights
    if not source.is_file():
        if re.match(r"[\w+.-]{2,}:/", str(source)):  # of a Path, which has but one slash
            raise ValueError(f"{source}: weights: found an address, expected a file; download it first")
        raise FileNotFoundError(f"{source}: weights: no such file or run folder")
    try:
        state, taken = (
            plain_weights(read_safetensors(source)) if _is_safetensors(source) else read_training_checkpoint(source)
        )
    except ValueError as error:
        raise ValueError(
            f"{source}: weights: expected safetensors or a torch file with tensors only ({error})"
        ) from None
    if taken:
        _say_once(f"{source}: weights: taking {taken}")
    return state


def _is_safetensors(path: Path) -> bool:
    """By its contents, the length of a header in eight bytes and an object of JSON; a damaged one by its name."""
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") < 1 << 32:
        return True
    return path.suffix == ".safetensors" and not start.startswith((b"PK\x03\x04", b"\x80\x02\x8a"))


@cache
def _say_once(line: str) -> None:
    """Print it; `finetune` reads a file twice, first to refuse a wrong one early."""
    print(line)


def read_encoder_source(source: str | Path) -> tuple[State, Normalization | None]:
    """State dict of a file, folder or `timm:NAME`, and how the pixels are to be normalized where the source says it.

    Raises:
        FileNotFoundError, OSError, ValueError: as for `load_encoder_weights`.
    """
    if str(source).startswith(_TIMM) and not Path(source).exists():
        name = str(source).removeprefix(_TIMM)
        if "quickgelu" in name:
            raise ValueError(f"{source}: weights: trained with another activation (QuickGELU) than our encoders have")
        model = _fetch_timm(name)
        wanted: Any = model.pretrained_cfg
        mean, std = (tuple(wanted[key]) for key in ("mean", "std"))
        return model.state_dict(), Normalization(mean=mean, std=std)
    if Path(source).suffix == ".npz":
        return _read_augreg(Path(source)), _HALF
    return read_state_dict(Path(source)), None


def _read_augreg(source: Path) -> State:
    """Google's ViT-B/16 through timm."""
    if not source.is_file():
        raise FileNotFoundError(f"{source}: weights: no such file")
    model = timm.create_model(ENCODERS["vit_b16"].timm_name, num_classes=0)
    try:
        model.load_pretrained(str(source))
    except Exception as error:  # what NumPy, zipfile and timm make of damaged bytes
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{source}: weights: expected a ViT-B/16 as Google writes it ({reason})") from None
    state: State = model.state_dict()
    return state


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
        return _fetch_timm(str(source).removeprefix(_TIMM)).state_dict(), str(source)
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


def _fetch_timm(name: str) -> nn.Module:
    if name not in timm.list_models(pretrained=True):
        raise ValueError(
            f"{_TIMM}{name}: weights: found no such published weights in timm.list_models(pretrained=True)"
        )
    try:
        model: nn.Module = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"{_TIMM}{name}: weights: could not be fetched from the hub ({str(error).splitlines()[0]})"
        ) from None
    return model


def _prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def _fill(module: nn.Module, state: State, what: str, hint: str) -> None:
    """Load a state dict that has to fit to the last key; raises ValueError, beginning with `what`, otherwise."""
    missing, leftover, reshaped = differences(module, state)
    if missing or leftover or reshaped:
        raise ValueError(f"{what}: {_some('missing', missing)}; {_some('left over', leftover)}; "
                         f"{_some('other shape', reshaped)}; {hint}")  # fmt: skip
    module.load_state_dict(state)


def _some(label: str, names: list[str]) -> str:
    return f"{len(names)} {label}" + (f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else "")
