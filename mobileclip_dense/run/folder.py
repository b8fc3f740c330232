"""The run folder.

config.json, metrics.jsonl and checkpoints/ are written during training; weights.safetensors, structure.json (pruned
models only) and, last, run.json at the end.

A run is complete if it has run.json. The command that started an incomplete run also resumes it.
"""

import dataclasses
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from mobileclip_dense.artifact.files import naming_full_disk, read_json, sha256_of, staged_file, write_json
from mobileclip_dense.artifact.lock import LOCK_NAME, locked_folder
from mobileclip_dense.artifact.outputs import RUN, claim_folder, set_aside
from mobileclip_dense.artifact.versions import versions_of
from mobileclip_dense.config import Config, FinetuneConfig, config_from_json, config_to_json
from mobileclip_dense.run.checkpoints import checkpoint_file, settle_checkpoints

_DAMAGED = "copy the run again, or train it again"
_VERSIONED = ("torch", "timm", "open_clip_torch", "mmsegmentation", "mmengine", "lightning", "numpy")


@contextmanager
def open_run(config: Config, inputs: Mapping[str, Path | None], state_fields: Collection[str] = ()) -> Iterator[None]:
    """Context in which the run `config.out` is written: a new run, or an interrupted one with the same settings.

    Settings in `MAY_CHANGE` may differ. Other processes cannot write the run at the same time. A run without a
    checkpoint starts over. With `config.force`, an existing run is renamed first. It is deleted if the block succeeds,
    and restored if the block fails before it saves a checkpoint, as the inputs are opened in the block.

    Args:
        config: settings of the run.
        inputs: what the command reads, by flag, see `claim_folder`.
        state_fields: the fields of a checkpoint of this command.

    Raises:
        ValueError: see `settle_checkpoints`.
        FileExistsError: the run is complete, was started with other settings, or is being written by another process;
            or see `claim_folder`.
    """
    folder = config.out
    replaced = None
    if config.force and claim_folder(folder, RUN, force=True, inputs=inputs):
        with locked_folder(folder):
            replaced = set_aside(folder)
    if not replaced and folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder}: found a file, expected a name for a folder; choose another --out")
    record = json.loads(json.dumps(config_to_json(config)))  # tuples become lists, as in the file
    _refuse_other(config, record)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked_folder(folder):
            settle_checkpoints(folder, state_fields)
            _refuse_other(config, record)  # again, as another process may have changed it before the lock
            if checkpoint_file(folder).exists():
                print(f"{folder}: resuming")
            write_json(folder / "config.json", record)
            with naming_full_disk(folder):
                yield
    except BaseException:
        if replaced is not None and not checkpoint_file(folder).exists():
            shutil.rmtree(folder)
            replaced.rename(folder)
        raise
    if replaced is not None:
        shutil.rmtree(replaced)


def _refuse_other(config: Config, record: dict[str, Any]) -> None:
    """Raises FileExistsError unless `config.out` is free or an interrupted run with the settings `record`."""
    folder = config.out
    if (folder / "run.json").exists():
        raise FileExistsError(f"{folder}: this run is complete; choose another --out, or pass --force to replace it")
    if checkpoint_file(folder).exists():
        begun = read_json(folder / "config.json")
        compared = record.keys() - config.MAY_CHANGE - {"out"}
        changed = [name for name in record if name in compared and begun.get(name) != record[name]]
        if changed:
            was = ", ".join(f"{name}: {begun.get(name)} -> {record[name]}" for name in changed)
            raise FileExistsError(f"{folder}: begun with other settings ({was}); use the same ones, or pass --force")
    elif (
        not (folder / "config.json").exists()
        and folder.exists()
        and {path.name for path in folder.iterdir()} - {LOCK_NAME}
    ):
        raise FileExistsError(f"{folder}: found a folder that is not a run; choose another --out")


def finish_run(
    config: Config, weights: dict[str, torch.Tensor], metrics: dict[str, float], *, started: float, device: str,
    details: dict[str, Any], structure: dict[str, dict[str, int]] | None = None,
) -> None:  # fmt: skip
    """Write weights.safetensors, structure.json (pruned models only) and, last, run.json.

    Args:
        config: settings of the run.
        weights: state dict of the model.
        metrics: final metrics.
        started: `time.time()` at the start.
        device: name of the device.
        details: further fields of run.json (classes, number of images).
        structure: what pruning changed, see `models.structure`; None: the model is not pruned.
    """
    folder = config.out
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    data = save(contiguous)
    with staged_file(folder / "weights.safetensors", len(data)) as staging:
        staging.write_bytes(data)
    if structure is not None:
        write_json(folder / "structure.json", structure)
        details = details | {"structure_sha256": sha256_of(folder / "structure.json")}
    parent = config.init if isinstance(config, FinetuneConfig) else None
    write_json(
        folder / "run.json",
        {
            "command": shlex.join(sys.argv),
            "architecture": architecture_of(config, pruned=structure is not None),
            "git_revision": _git_revision(),
            "versions": library_versions(),
            "parent": None if parent is None else _parent_record(parent),
            "seed": config.seed,
            "device": device,
            "wall_time_s": round(time.time() - started, 1),
            "weights_sha256": sha256_of(folder / "weights.safetensors"),
            "num_parameters": int(sum(t.numel() for t in weights.values() if t.is_floating_point())),
            "metrics": metrics,
            **details,
        },
    )


def architecture_of(config: Config, *, pruned: bool = False) -> str:
    """The name of a config's architecture: the model of pretraining, or ENCODER-HEAD[-pruned] of fine-tuning."""
    if not isinstance(config, FinetuneConfig):
        return config.model
    return f"{config.encoder}-{config.head}{'-pruned' if pruned else ''}"


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    return versions_of(*_VERSIONED)


def _parent_record(init: str) -> dict[str, str | None]:
    source = Path(init)
    if not source.exists():  # published weights, by name
        return {"path": init, "weights_sha256": None}
    weights = source / "weights.safetensors" if source.is_dir() else source
    return {"path": str(source.absolute()), "weights_sha256": sha256_of(weights)}


def _git_revision() -> str | None:
    """Git revision of the source tree; None if the package is installed from a wheel."""
    here = Path(__file__).parent
    answer = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


@dataclass(frozen=True, kw_only=True)
class Run:
    """A complete run.

    Attributes:
        folder: the run folder.
        config: the settings of training.
        record: the contents of run.json.
        weights: the state dict.
        structure: what pruning changed; None if the model is not pruned.
    """

    folder: Path
    config: Config
    record: dict[str, Any]
    weights: dict[str, torch.Tensor] = dataclasses.field(repr=False)
    structure: dict[str, dict[str, int]] | None = dataclasses.field(repr=False)

    @property
    def architecture(self) -> str:
        """The recorded architecture, see `architecture_of`."""
        return str(self.record["architecture"])


def load_run(folder: Path) -> Run:
    """Read a complete run and check the hashes of its weights and structure.

    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: the run is not complete, or a file is damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: run: no such folder")
    config = _read_config(folder / "config.json")
    if not (folder / "run.json").is_file():
        raise ValueError(f"{folder}: run.json is missing: the run is not complete; run its command again to resume it")
    record = _read_record(folder / "run.json", config)
    path = folder / "weights.safetensors"
    _check_hash(path, record["weights_sha256"])
    structure = None
    if "structure_sha256" in record:
        _check_hash(folder / "structure.json", record["structure_sha256"])
        structure = read_json(folder / "structure.json")
    return Run(folder=folder, config=config, record=record, weights=read_safetensors(path), structure=structure)


def _read_config(path: Path) -> Config:
    try:
        return config_from_json(read_json(path), path)
    except (TypeError, AttributeError, LookupError, ValueError) as error:  # for example a number instead of a path
        where = "" if str(path) in str(error) else f"{path}: "
        raise ValueError(f"{where}{error}; {_DAMAGED}") from None


def _read_record(path: Path, config: Config) -> dict[str, Any]:
    try:
        record = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}; {_DAMAGED}") from None
    wanted: dict[str, type] = {"architecture": str, "weights_sha256": str, "metrics": dict}
    if "structure_sha256" in record:
        wanted["structure_sha256"] = str
    if isinstance(config, FinetuneConfig):
        wanted |= {"class_names": list, "palette": list, "val_images": list}
        if config.task != "detect":
            wanted |= {"reduce_zero_label": bool, "ignored_label": int}
    for field, kind in wanted.items():
        if not isinstance(record.get(field), kind):
            raise ValueError(f"{path}: {field}: found {record.get(field)!r}, expected a {kind.__name__}; {_DAMAGED}")
    return record


def fill_model(model: nn.Module, run: Run) -> None:
    """Load a run's weights into a model that was built from its config.

    Raises:
        ValueError: keys are missing or unknown, or tensors have another shape.
    """
    missing, leftover, reshaped = differences(model, run.weights)
    if missing or leftover or reshaped:
        raise ValueError(f"{run.folder}: weights.safetensors does not fit config.json: {len(missing)} keys missing "
                         f"{missing[:3]}, {len(leftover)} left over {leftover[:3]}, {len(reshaped)} of another shape "
                         f"{reshaped[:3]}; are they of a fused model?")  # fmt: skip
    model.load_state_dict(run.weights)


def differences(module: nn.Module, state: dict[str, torch.Tensor]) -> tuple[list[str], list[str], list[str]]:
    """Missing keys, unknown keys, and keys with another shape (with both shapes) of a state dict; each list sorted."""
    expected = module.state_dict()
    reshaped = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & state.keys())
        if state[name].shape != expected[name].shape
    ]
    return sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys()), reshaped


def _check_hash(path: Path, expected: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {_DAMAGED}")
    found = sha256_of(path)
    if found != expected:
        raise ValueError(f"{path}: sha256: found {found[:12]}…, expected {expected[:12]}…; the file was altered; "
                         f"{_DAMAGED}")  # fmt: skip


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file. Raises ValueError if the file has another format or is truncated."""
    try:
        return load_file(path)
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:  # KeyError: a dtype that torch does not have
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from None
