"""The settings of all commands, with their defaults and documentation. Each setting is defined here only."""

import dataclasses
from pathlib import Path
from typing import Any

from mobileclip_dense.config.analysis import AttentionDistanceConfig, CaptionsConfig, FeaturesConfig
from mobileclip_dense.config.data import CaptionQuality, JoinConfig, ReinforceConfig, ScenesConfig
from mobileclip_dense.config.dense import DataCheckConfig, EvaluateConfig, FinetuneConfig, PruneConfig
from mobileclip_dense.config.export import ToCoreMLConfig, ToOnnxConfig, VerifyConfig
from mobileclip_dense.config.heads import Task
from mobileclip_dense.config.pretraining import ConvertWeightsConfig, PretrainConfig

__all__ = [
    "AttentionDistanceConfig",
    "CaptionQuality",
    "CaptionsConfig",
    "Config",
    "ConvertWeightsConfig",
    "DataCheckConfig",
    "EvaluateConfig",
    "FeaturesConfig",
    "FinetuneConfig",
    "JoinConfig",
    "PretrainConfig",
    "PruneConfig",
    "ReinforceConfig",
    "ScenesConfig",
    "Task",
    "ToCoreMLConfig",
    "ToOnnxConfig",
    "VerifyConfig",
    "config_from_json",
    "config_to_json",
    "typed_values",
]

Config = PretrainConfig | FinetuneConfig


def config_to_json(config: Config) -> dict[str, Any]:
    """A config as JSON values: all fields except `force`, with absolute paths, and the config's kind as `command`."""
    values = {
        name: str(value.absolute()) if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(config).items()
        if name != "force"
    }
    if isinstance(config, PretrainConfig):
        values["data"] = [_absolute(source) for source in config.data]
        values["val_data"] = None if config.val_data is None else _absolute(config.val_data)
    elif config.init is not None and Path(config.init).exists():  # otherwise the name of published weights
        values["init"] = str(Path(config.init).absolute())
    return {"command": "pretrain" if isinstance(config, PretrainConfig) else "finetune", **values}


def _absolute(source: str) -> str:
    """The absolute path of a local source of shards. URLs and pipes are returned unchanged."""
    return source if "://" in source or source.startswith("pipe:") else str(Path(source).absolute())


def config_from_json(values: dict[str, Any], source: Path) -> Config:
    """The config that `config_to_json` wrote.

    Args:
        values: the JSON values.
        source: the file they were read from, for error messages.

    Raises:
        ValueError: a field is missing, unknown or out of range.
    """
    kinds: dict[str, type[Config]] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}
    kind = kinds.get(values.get("command", ""))
    if kind is None:
        raise ValueError(f"{source}: command: found {values.get('command')!r}, expected one of {', '.join(kinds)}")
    known = {field.name: field for field in dataclasses.fields(kind)}
    given = {name: value for name, value in values.items() if name != "command"}
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{source}: unknown fields {', '.join(unknown)}; was it written by another version?")
    try:
        return kind(**typed_values(kind, given))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source}: {error}") from None


def typed_values(kind: type[Config], values: dict[str, Any]) -> dict[str, Any]:
    """Values of fields of a config, with text as `Path` where the field is one, and lists as tuples."""
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    return {
        name: Path(value) if types[name] in (Path, Path | None) and value is not None
        else tuple(value) if isinstance(value, list)
        else value
        for name, value in values.items()
    }  # fmt: skip
