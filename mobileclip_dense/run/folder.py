"""The run folder.

config.json, metrics.jsonl and checkpoints/ while training; weights.safetensors and run.json at the end; structure.json
beside them where the model is a pruned one.

A run is complete when run.json is there. An incomplete one is resumed by the command that began it.
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
    """The block in which the run `config.out` is written: a new one, or an interrupted one of the same config but for
    the settings in `MAY_CHANGE`.

    No other process may write the run meanwhile. A run without a checkpoint has done nothing that other settings would
    spoil: it begins anew. With --force a run that is there is set aside, deleted when the block ends well, and put back
    when it fails before it has saved anything: inputs are opened in the block.

    Args:
        inputs: what the command reads, by flag, see `claim_folder`. state_fields: of a checkpoint of this command.

    Raises:
        ValueError: see `settle_checkpoints`. FileExistsError: the run is complete, was begun with other settings or is
            being written, and --force was not given; or see `claim_folder`.
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
            _refuse_other(config, record)  # what another process finished until the lock was ours
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
    """Raises FileExistsError where `config.out` is not an interrupted run of the settings `record`."""
    folder = config.out
    if (folder / "run.json").exists():
        raise FileExistsError(f"{folder}: this run is complete; choose another --out, or pass --force to replace it")
    if checkpoint_file(folder).exists():
        begun = read_json(folder / "config.json")
        compared = record.keys() - config.MAY_CHANGE - {"out"}
        changed = [name for name in record if name in compared and begun.get(name) != record[name]]
        if changed:
            was = ", ".join(f"{name}: {begun.get(name)} -> {record[name]}" for name in changed)
            raise FileExistsError(f"{folder}: begun with other settings ({was}); repeat them, or pass --force")
    elif (
        not (folder / "config.json").exists()
        and folder.exists()
        and {path.name for path in folder.iterdir()} - {LOCK_NAME}
    ):
        raise FileExistsError(f"{folder}: exists and is no run; choose another --out")


def finish_run(
    config: Config, weights: dict[str, torch.Tensor], metrics: dict[str, float], *, started: float, device: str,
    details: dict[str, Any], structure: dict[str, dict[str, int]] | None = None,
) -> None:  # fmt: skip
    """Write weights.safetensors, structure.json for a pruned model and, last, run.json.

    Args:
        weights: the model's state dict. metrics: final figures. started: `time.time()` at the beginning.
        details: what only the command knows (classes, number of images).
        structure: what pruning changed, see `models.structure`; None: nothing.
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
    """The name of what a config builds: the encoder or CLIP model of a pretraining, else ENCODER-HEAD[-pruned]."""
    if not isinstance(config, FinetuneConfig):
        return config.model
    return f"{config.encoder}-{config.head}{'-pruned' if pruned else ''}"


def library_versions() -> dict[str, str]:
    """What a figure depends on beside the weights: the versions of Python and of the libraries that compute."""
    return versions_of(*_VERSIONED)


def _parent_record(init: str) -> dict[str, str | None]:
    source = Path(init)
    if not source.exists():  # published weights, by name
        return {"path": init, "weights_sha256": None}
    weights = source / "weights.safetensors" if source.is_dir() else source
    return {"path": str(source.absolute()), "weights_sha256": sha256_of(weights)}


def _git_revision() -> str | None:
    """Revision of the source tree this package runs from, None when it is installed from a wheel."""
    here = Path(__file__).parent
    answer = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


@dataclass(frozen=True, kw_only=True)
class Run:
    """A complete run.

    Attributes:
        folder: where it is. config: what it was trained with. record: the contents of run.json.
        weights: the state dict. structure: what pruning changed, None where the model is not a pruned one.
    """

    folder: Path
    config: Config
    record: dict[str, Any]
    weights: dict[str, torch.Tensor] = dataclasses.field(repr=False)
    structure: dict[str, dict[str, int]] | None = dataclasses.field(repr=False)

    @property
    def architecture(self) -> str:
        """As recorded, see `architecture_of`."""
        return str(self.record["architecture"])


def load_run(folder: Path) -> Run:
    """Read a complete run and check its weights and structure against the recorded hashes.

    Raises:
        FileNotFoundError: no such folder, or a file of it is missing. ValueError: the run is not complete, or a file of
            it is damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: run: no such folder")
    config = _read_config(folder / "config.json")
    if not (folder / "run.json").is_file():
        raise ValueError(f"{folder}: run.json is missing: the run is not complete; repeat its command to resume it")
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
    except (TypeError, AttributeError, LookupError, ValueError) as error:  # a number for a path, ...
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
    """Load a run's weights into a model built from its config.

    Raises:
        ValueError: keys are missing or left over, or tensors have another shape.
    """
    missing, leftover, reshaped = differences(model, run.weights)
    if missing or leftover or reshaped:
        raise ValueError(f"{run.folder}: weights.safetensors does not fit config.json: {len(missing)} keys missing "
                         f"{missing[:3]}, {len(leftover)} left over {leftover[:3]}, {len(reshaped)} of another shape "
                         f"{reshaped[:3]}; are they of a fused model?")  # fmt: skip
    model.load_state_dict(run.weights)


def differences(module: nn.Module, state: dict[str, torch.Tensor]) -> tuple[list[str], list[str], list[str]]:
    """Sorted: keys that a state dict lacks for a module, keys it has left over, and keys of another shape with both."""
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
    """Raises ValueError if the file is not safetensors or is cut short."""
    try:
        return load_file(path)
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:  # KeyError: a type that torch has not
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from None
