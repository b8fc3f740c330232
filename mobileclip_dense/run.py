"""The run folder.

config.json, metrics.jsonl and checkpoints/ while training; weights.safetensors and run.json at the end; structure.json
beside them where the model is a pruned one.

checkpoints/ holds two training states: last.pt and previous.pt, the one before. A run takes the disk space of both.

A run is complete when run.json is there. An incomplete one is resumed by the command that began it.
"""

import dataclasses
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from mobileclip_dense.config import Config, FinetuneConfig, config_from_json, config_to_json
from mobileclip_dense.contract.files import naming_full_disk, read_json, sha256_of, staged_file, write_json
from mobileclip_dense.contract.lock import LOCK_NAME, locked_folder
from mobileclip_dense.contract.outputs import RUN, claim_folder, set_aside
from mobileclip_dense.torch_file import load_torch_file

_DAMAGED = "copy the run again, or train it again"
_VERSIONED = ("torch", "timm", "open_clip_torch", "mmsegmentation", "mmengine", "lightning", "numpy")


def checkpoint_file(run: Path) -> Path:
    """The newest checkpoint of a run."""
    return run / "checkpoints" / "last.pt"


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


def append_metrics(folder: Path, **values: float) -> None:
    """Add a line to metrics.jsonl."""
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """All lines of metrics.jsonl; none if there is no such file. One that a full disk cut short is none.

    Raises:
        ValueError: another line is damaged.
    """
    lines, damaged = _parse_metrics(folder)
    if damaged:
        raise ValueError(f"{folder / 'metrics.jsonl'}: {damaged[0]}, expected a JSON object with a step; take the line "
                         "out")  # fmt: skip
    return lines


def drop_metrics_after(folder: Path, step: int) -> None:
    """Forget what was logged past the checkpoint from which a run resumes.

    Damaged lines do not end a training: they are left out with a warning, and the file is kept as it was beside.
    """
    path = folder / "metrics.jsonl"
    lines, damaged = _parse_metrics(folder)
    if damaged:
        aside = path.with_name("metrics.damaged.jsonl")
        shutil.copyfile(path, aside)
        print(f"warning: {path}: {damaged[0]}, expected a JSON object with a step; {len(damaged)} such lines are left "
              f"out, the file as it was is {aside}", file=sys.stderr)  # fmt: skip
    with staged_file(path) as staging:
        staging.write_text("".join(json.dumps(line) + "\n" for line in lines if line["step"] <= step))


def _parse_metrics(folder: Path) -> tuple[list[dict[str, float]], list[str]]:
    """The good lines of metrics.jsonl, and what is wrong with the others."""
    path = folder / "metrics.jsonl"
    data = path.read_bytes() if path.is_file() else b""
    good, damaged = [], []
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].split(b"\n")[:-1], 1):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, dict) and type(values.get("step")) is int:
            good.append(values)
        else:
            damaged.append(f"line {number}: found {line[:40].decode(errors='replace')!r}")
    return good, damaged


@contextmanager
def staged_checkpoint(path: Path) -> Iterator[Path]:
    """A temporary name beside last.pt that replaces it when the block ends well; what was last.pt is then previous.pt.

    At every moment one of the three is a complete checkpoint: whoever is killed between the two renames leaves
    previous.pt alone, from which `settle_checkpoints` goes on. What a killed process left half-written is removed.
    """
    for stale in path.parent.glob(f".{path.stem}.partial-*"):
        stale.unlink(missing_ok=True)
    with staged_file(path) as staging:
        yield staging
        with staging.open("rb+") as file:
            # A rename that reaches the disk before the contents leaves zeros after a power loss.
            os.fsync(file.fileno())
        if path.exists():
            path.replace(_previous(path))


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a training state (tensors and plain values) as last.pt, and keep the one before as previous.pt.

    Raises:
        OSError: the disk is full; the checkpoints are untouched.
    """
    with staged_checkpoint(path) as staging:
        try:
            torch.save(state, staging)
        except RuntimeError as error:  # torch reports a failed write as RuntimeError
            raise OSError(f"{path}: checkpoint: could not be written ({error}); is the disk full?") from None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; tensors and plain values only.

    Raises:
        ValueError: the file is damaged, or is no training state.
    """
    try:
        state = load_torch_file(path)
    except ValueError as error:
        raise ValueError(f"{path}: checkpoint: {error}") from None
    if not isinstance(state, dict):
        raise ValueError(f"{path}: checkpoint: found a {type(state).__name__}, expected a training state")
    return state


def settle_checkpoints(run: Path, fields: Collection[str]) -> None:
    """Make last.pt of a run the newest checkpoint that can be read; there may be none.

    A damaged last.pt is replaced by previous.pt, with a warning on stderr; so is one that is not there. Nothing is done
    to a complete run.

    Args:
        fields: what a training state of this kind holds.

    Raises:
        ValueError: last.pt is damaged, and previous.pt is too, or is not there.
    """
    last = checkpoint_file(run)
    previous = _previous(last)
    if (run / "run.json").exists() or not (last.exists() or previous.exists()):
        return
    fault = _fault_of(last, fields)
    if fault is None:
        return
    other = _fault_of(previous, fields)
    if other is not None:
        raise ValueError(f"{fault}; {other}; there is no other checkpoint to resume from: start over with --force, or "
                         "choose another --out")  # fmt: skip
    previous.replace(last)
    print(f"warning: {fault}; resuming from the checkpoint before it, {previous}", file=sys.stderr)


def _previous(last: Path) -> Path:
    return last.with_name("previous.pt")


def _fault_of(checkpoint: Path, fields: Collection[str]) -> str | None:
    if not checkpoint.exists():
        return f"{checkpoint}: checkpoint: no such file"
    try:
        missing = sorted(set(fields) - set(load_checkpoint(checkpoint)))
    except ValueError as error:
        return str(error)
    return f"{checkpoint}: checkpoint: {', '.join(missing)} missing: no training state" if missing else None


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


def library_versions() -> dict[str, str]:
    """What a figure depends on beside the weights: the versions of Python and of the libraries that compute."""
    return {name: version(name) for name in _VERSIONED} | {"python": platform.python_version()}


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
    wanted: dict[str, type] = {"weights_sha256": str, "metrics": dict}
    if "structure_sha256" in record:
        wanted["structure_sha256"] = str
    if isinstance(config, FinetuneConfig):
        wanted["class_names"] = list
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
