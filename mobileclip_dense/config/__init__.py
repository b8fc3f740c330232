"""Every setting of the library's commands, its default and its meaning: the single home of each."""

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
]

Config = PretrainConfig | FinetuneConfig


def config_to_json(config: Config) -> dict[str, Any]:
    """All fields, paths as absolute strings, `command` naming the kind of config."""
    values = {
        name: str(value.absolute()) if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(config).items()
        if name != "force"
    }
    if isinstance(config, PretrainConfig):
        values["data"] = [_absolute(source) for source in config.data]
        values["val_data"] = None if config.val_data is None else _absolute(config.val_data)
    elif config.init is not None and Path(config.init).exists():  # otherwise a name of published weights
        values["init"] = str(Path(config.init).absolute())
    return {"command": "pretrain" if isinstance(config, PretrainConfig) else "finetune", **values}


def _absolute(source: str) -> str:
    """A local source of shards by its absolute path; URLs and pipes as they are."""
    return source if "://" in source or source.startswith("pipe:") else str(Path(source).absolute())


def config_from_json(values: dict[str, Any], source: Path) -> Config:
    """The inverse of `config_to_json`.

    Raises:
        ValueError: fields are missing, unknown or out of range; the message names `source`.
    """
    kinds: dict[str, type[Config]] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}
    kind = kinds.get(values.get("command", ""))
    if kind is None:
        raise ValueError(f"{source}: command: found {values.get('command')!r}, expected one of {', '.join(kinds)}")
    known = {field.name: field for field in dataclasses.fields(kind)}
    given = {name: value for name, value in values.items() if name != "command"}
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{source}: unknown fields {', '.join(unknown)}; was it written by another version?")
    for name, value in given.items():
        if known[name].type in (Path, Path | None) and value is not None:
            given[name] = Path(value)
        elif isinstance(value, list):
            given[name] = tuple(value)
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source}: {error}") from None
