"""Sources of weights: run folders, checkpoints of training scripts, and published weights on the hubs."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import timm
from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model
from torch import nn

from mobileclip_dense.artifact.preprocess import Normalization
from mobileclip_dense.config.encoders import ENCODERS
from mobileclip_dense.models.clip import OPEN_CLIP_CONFIG, open_clip_config
from mobileclip_dense.models.expand import State
from mobileclip_dense.models.layouts import plain_weights, read_training_checkpoint
from mobileclip_dense.run.folder import load_run, read_safetensors

_TIMM = "timm:"
_HALF = Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def read_state_dict(source: Path) -> State:
    """The state dict of a run folder, a folder of `convert-weights`, a .safetensors file or a torch file.

    If a training checkpoint has several state dicts, one is selected (see `layouts`) and a line reports which.

    Raises:
        FileNotFoundError, ValueError: see `load_encoder_weights`.
    """
    if source.is_dir():
        if (source / OPEN_CLIP_CONFIG).is_file() and not (source / "config.json").is_file():
            return read_safetensors(source / "weights.safetensors")
        return load_run(source).weights
    if not source.is_file():
        if re.match(r"[\w+.-]{2,}:/", str(source)):  # a Path merges the slashes
            raise ValueError(f"{source}: weights: found a URL, expected a file; download it first")
        raise FileNotFoundError(f"{source}: weights: no such file or run folder")
    try:
        state, description = (
            plain_weights(read_safetensors(source)) if _is_safetensors(source) else read_training_checkpoint(source)
        )
    except ValueError as error:
        raise ValueError(
            f"{source}: weights: expected safetensors or a torch file with tensors only ({error})"
        ) from None
    if description:
        _print_once(f"{source}: weights: using {description}")
    return state


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins like safetensors (eight bytes of header length, then JSON), or is damaged but so named."""
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") < 1 << 32:
        return True
    return path.suffix == ".safetensors" and not start.startswith((b"PK\x03\x04", b"\x80\x02\x8a"))


@cache
def _print_once(line: str) -> None:
    """Print a line once. `finetune` reads a file twice: the first time to report a wrong one early."""
    print(line)


def read_encoder_source(source: str | Path) -> tuple[State, Normalization | None]:
    """The state dict of a file, folder or `timm:NAME`, and the normalization it expects; None if unknown.

    Raises:
        FileNotFoundError, OSError, ValueError: see `load_encoder_weights`.
    """
    if str(source).startswith(_TIMM) and not Path(source).exists():
        name = str(source).removeprefix(_TIMM)
        if "quickgelu" in name:
            raise ValueError(f"{source}: weights: found another activation (QuickGELU) than that of our encoders")
        model = _fetch_timm(name)
        wanted: Any = model.pretrained_cfg
        mean, std = (tuple(wanted[key]) for key in ("mean", "std"))
        return model.state_dict(), Normalization(mean=mean, std=std)
    if Path(source).suffix == ".npz":
        return _read_augreg(Path(source)), _HALF
    return read_state_dict(Path(source)), None


def _read_augreg(source: Path) -> State:
    """Read Google's ViT-B/16 (.npz) with timm."""
    if not source.is_file():
        raise FileNotFoundError(f"{source}: weights: no such file")
    model = timm.create_model(ENCODERS["vit_b16"].timm_name, num_classes=0)
    try:
        model.load_pretrained(str(source))
    except Exception as error:  # NumPy, zipfile and timm raise exceptions of any type for damaged files
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{source}: weights: expected a ViT-B/16 in Google's format ({reason})") from None
    state: State = model.state_dict()
    return state


def read_clip_source(source: str | Path, name: str) -> tuple[State, str]:
    """The state dict of a source, and its origin. Files take precedence over tags of open_clip's `name` and timm names.

    Raises:
        FileNotFoundError, OSError, ValueError: see `load_clip_weights`.
    """
    path, tags = Path(source), list_pretrained_tags_by_model(name)
    if path.exists():
        return read_state_dict(path), "our run" if (path / "run.json").is_file() else "open_clip"
    if str(source) in tags:
        return read_state_dict(_fetch_tag(name, str(source))), f"open_clip's {name} {source}"
    if str(source).startswith(_TIMM):
        return _fetch_timm(str(source).removeprefix(_TIMM)).state_dict(), str(source)
    if "://" in str(source):
        raise ValueError(f"{source}: weights: found a URL, expected a file; download it first")
    raise FileNotFoundError(f"{source}: weights: no such file or run folder, and no tag of {name}'s published weights: "
                            f"{', '.join(tags) or 'there are none'}")  # fmt: skip


def published_tag(name: str, source: str | Path) -> str | None:
    """The source, if it is a tag of open_clip's published weights of `name` and not a file or folder."""
    is_tag = str(source) in list_pretrained_tags_by_model(name) and not Path(source).exists()
    return str(source) if is_tag else None


def _fetch_tag(name: str, tag: str) -> Path:
    published, known = get_pretrained_cfg(name, tag), open_clip_config(name)["model_cfg"]
    if published.get("quick_gelu", False) != known.get("quick_gelu", False):
        other = name.removesuffix("-quickgelu") if known.get("quick_gelu") else f"{name}-quickgelu"
        raise ValueError(f"{tag}: weights: found another activation than that of {name}; use model {other!r}")
    try:
        return Path(download_pretrained(published))
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise OSError(f"{tag}: weights: could not be downloaded from the hub ({reason}); download the file elsewhere "
                      "and pass its path") from None  # fmt: skip


def _fetch_timm(name: str) -> nn.Module:
    if name not in timm.list_models(pretrained=True):
        raise ValueError(
            f"{_TIMM}{name}: weights: found no such published weights in timm.list_models(pretrained=True)"
        )
    try:
        model: nn.Module = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"{_TIMM}{name}: weights: could not be downloaded from the hub ({str(error).splitlines()[0]})"
        ) from None
    return model
