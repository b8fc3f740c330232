"""Foreign checkpoints, one table: under which keys each source keeps the image tower."""

import pickle
from pathlib import Path

import open_clip
import torch
from open_clip.convert import convert_mobile_clip_state_dict

from mobileclip_dense.models.encoders import ENCODERS, Encoder
from mobileclip_dense.run import load_run, read_safetensors

# Key prefix of the timm trunk in: open_clip (and our pretraining runs), our dense runs, an Encoder, timm itself.
_TRUNK_PREFIXES = ("visual.trunk.", "backbone.encoder.trunk.", "trunk.", "")
_APPLE_PREFIX = "image_encoder.model."
_WRAPPERS = ("state_dict", "model")  # where training scripts put the state dict
_NOT_IN_A_PYRAMID = ("head.", "final_conv.", "norm.")


def load_encoder_weights(encoder: Encoder, source: Path) -> None:
    """Fill an encoder from a run folder or from a file of open_clip, timm or Apple (safetensors or torch).

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: unreadable, or of another architecture: the message lists keys and shapes that do not fit.
    """
    trunk = trunk_weights(read_state_dict(source), encoder.name)
    expected = encoder.trunk.state_dict()
    missing = sorted(set(expected) - set(trunk))
    leftover = sorted(set(trunk) - set(expected))
    reshaped = [
        f"{name} {tuple(trunk[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(set(trunk) & set(expected))
        if trunk[name].shape != expected[name].shape
    ]
    if missing or leftover or reshaped:
        raise ValueError(
            f"{source}: weights: not of encoder {encoder.name!r}: {_some('missing', missing)}; "
            f"{_some('left over', leftover)}; {_some('other shape', reshaped)}; choose the --encoder they belong to"
        )
    encoder.trunk.load_state_dict(trunk)


def _some(label: str, names: list[str]) -> str:
    return f"{len(names)} {label}" + (f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else "")


def read_state_dict(source: Path) -> dict[str, torch.Tensor]:
    """State dict of a run folder, a .safetensors file or a torch file (tensors only).

    Raises:
        FileNotFoundError, ValueError: as for `load_encoder_weights`.
    """
    if source.is_dir():
        return load_run(source).weights
    if not source.is_file():
        raise FileNotFoundError(f"{source}: weights: no such file or run folder")
    if source.suffix == ".safetensors":
        return read_safetensors(source)
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{source}: weights: expected safetensors or a torch file with tensors only ({reason})"
        ) from None
    for key in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{source}: weights: expected a state dict, found {type(state).__name__} with other values")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def trunk_weights(state: dict[str, torch.Tensor], encoder: str) -> dict[str, torch.Tensor]:
    """The image tower of a foreign state dict under timm's keys, without heads."""
    if any(name.startswith(_APPLE_PREFIX) for name in state):
        clip = open_clip.create_model(str(ENCODERS[encoder].clip_name), pretrained=None)
        state = convert_mobile_clip_state_dict(clip, state)
    prefix = next(p for p in _TRUNK_PREFIXES if any(name.startswith(p) for name in state) or not p)
    trunk = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return {name: tensor for name, tensor in trunk.items() if not name.startswith(_NOT_IN_A_PYRAMID)}
