"""Where weights come from: run folders, files of any training script, and published weights on the hubs."""

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


def read_clip_source(source: str | Path, name: str) -> tuple[State, str]:
    """State dict, and who wrote it; a tag of open_clip's model `name` or a timm name only where there is no such file.

    Raises:
        FileNotFoundError, OSError, ValueError: as for `load_clip_weights`.
    """
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
