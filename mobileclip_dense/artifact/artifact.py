"""The artifact folder: a deployed model with its description.

artifacts/<encoder>-<task>-<data>-<H>x<W>-<precision>.<runtime>/
    model.onnx or model.mlpackage/    the model, preprocessing included
    artifact.json                     architecture, task, inputs, outputs, difference to PyTorch and more
    golden.npz                        inputs and PyTorch's outputs, for verification without PyTorch
    tokenizer.json                    text towers only: text -> tokens, see below

Zero-shot classification uses the two towers of a run (`parent["weights_sha256"]` is the same in both):

    tokens        = tokenizer.json applied to a prompt. It is a file of the Hugging Face `tokenizers` library, which
                    transformers.js and @huggingface/tokenizers also read. `encode` returns a whole row: start, text,
                    end, truncated to the tower's length and padded with 0.
    text          = text tower(tokens)                   one row per call unless `input.flexible` has axis 0
    image         = image tower(pixels)                  pixels prepared by `artifact.preprocess.crop_image`
    probabilities = softmax(logit_scale * image @ text)  both are unit vectors; `logit_scale` is in artifact.json
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from mobileclip_dense.artifact.files import read_json, sha256_of, write_json
from mobileclip_dense.artifact.precision import find_precision
from mobileclip_dense.artifact.targets import TARGETS

SCHEMA_VERSION = 1
TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output: its name in the model, shape, NumPy dtype, and the meaning of its values.

    `flexible` lists the axes with a variable length (0: batch; height and width: multiples of 32). `shape` has the
    length at which the model was verified.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    meaning: str
    flexible: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """The contents of artifact.json.

    Attributes:
        name: name of the folder.
        runtime: one of `TARGETS`.
        precision: one of `PRECISIONS` of the runtime.
        task: segment, depth, embed-image or embed-text.
        architecture: encoder and, for a dense model, head; see `Run.architecture`.
        input: uint8 pixels [1,H,W,3], float pixels [1,3,H,W], or tokens int64 [1,L].
        outputs: the outputs of the model.
        preprocessing: description of the preprocessing that the caller has to do.
        class_names, palette: names and RGB colours by class index; empty for depth.
        max_depth_m: maximum depth in metres; None for segment.
        logit_scale: scale of the cosine similarities before the softmax, from pretraining; None if the artifact is not
            a tower of CLIP.
        num_parameters: number of parameters after fusion.
        parity: measured differences to PyTorch, and accuracy if it was measured.
        parent: name and weights hash of the run.
        versions: versions of the libraries that wrote the artifact.
        licence: SPDX identifier or description.
        files: sha256 and size of all other files, by path in the folder.
        schema_version: version of this schema.
    """

    name: str
    runtime: str
    precision: str
    task: str
    architecture: str
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    preprocessing: str
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    max_depth_m: float | None
    num_parameters: int
    parity: dict[str, float]
    parent: dict[str, str]
    versions: dict[str, str]
    licence: str
    logit_scale: float | None
    files: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def model_file(self) -> str:
        """Path of the model in the folder."""
        return TARGETS[self.runtime].model_file

    @property
    def input_size_px(self) -> tuple[int, int]:
        """Height and width of the model's input image, in pixels."""
        height, width = self.input.shape[1:3] if self.input.dtype == "uint8" else self.input.shape[2:4]
        return height, width

    def summary(self) -> dict[str, str]:
        """A summary as strings, for the metadata of the ONNX or Core ML model itself."""
        return {
            "mobileclip_dense.name": self.name,
            "mobileclip_dense.task": self.task,
            "mobileclip_dense.precision": self.precision,
            "mobileclip_dense.preprocessing": self.preprocessing,
            "mobileclip_dense.class_names": json.dumps(self.class_names, ensure_ascii=False),
            "mobileclip_dense.parent": json.dumps(self.parent),
            "mobileclip_dense.versions": json.dumps(self.versions),
        }


def save_artifact(artifact: Artifact, folder: Path) -> Artifact:
    """Hash the files in `folder` (model, golden.npz, ...) and write artifact.json. Returns the artifact with hashes."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "artifact.json")
    files = {
        path.relative_to(folder).as_posix(): {"sha256": sha256_of(path), "bytes": path.stat().st_size} for path in paths
    }
    artifact = dataclasses.replace(artifact, files=files)
    write_json(folder / "artifact.json", dataclasses.asdict(artifact))
    return artifact


def load_artifact(folder: Path) -> Artifact:
    """Read artifact.json and verify the hashes of all files.

    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: artifact.json is not valid, or a file was altered.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: artifact: no such folder")
    source = folder / "artifact.json"
    artifact = _parse(read_json(source), source)
    for name, expected in artifact.files.items():
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{path}: listed in artifact.json but missing; export the artifact again")
        found = sha256_of(path)
        if found != expected["sha256"]:
            raise ValueError(f"{path}: sha256: found {found[:12]}…, expected {expected['sha256'][:12]}…; the file was "
                             f"altered, export the artifact again")  # fmt: skip
    for name in (artifact.model_file, "golden.npz"):
        if not any(listed == name or listed.startswith(f"{name}/") for listed in artifact.files):
            raise ValueError(f"{source}: files: {name} is not listed; export the artifact again")
    return artifact


def load_artifacts(folders: Iterable[Path]) -> dict[str, tuple[Path, Artifact]]:
    """Load and verify artifacts. Returns folders and artifacts by hash; duplicates and copies appear once.

    Raises:
        FileNotFoundError, ValueError: see `load_artifact`.
    """
    loaded = [(folder, load_artifact(folder)) for folder in folders]
    return {artifact_sha256(folder): (folder, artifact) for folder, artifact in loaded}


def _parse(values: dict[str, Any], source: Path) -> Artifact:
    version = values.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(f"{source}: schema_version: found {version}, expected {SCHEMA_VERSION}; export it again")
    names = {field.name for field in dataclasses.fields(Artifact)}
    if wrong := sorted(names ^ set(values)):
        raise ValueError(f"{source}: fields missing or unknown: {', '.join(wrong)}; export the artifact again")
    _check_types(values, source)
    try:
        tensors = [
            TensorSpec(**{**spec, "shape": tuple(spec["shape"]), "flexible": tuple(spec["flexible"])})
            for spec in (values["input"], *values["outputs"])
        ]
        palette = tuple((int(r), int(g), int(b)) for r, g, b in values["palette"])
        artifact = Artifact(
            **{**values, "input": tensors[0], "outputs": tuple(tensors[1:]), "palette": palette,
               "class_names": tuple(values["class_names"])}
        )  # fmt: skip
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{source}: found an invalid field ({error}); export the artifact again") from None
    if artifact.runtime not in TARGETS:
        raise ValueError(f"{source}: runtime: found {artifact.runtime!r}, expected one of {', '.join(TARGETS)}")
    try:
        find_precision(artifact.runtime, artifact.precision)
    except ValueError as error:
        raise ValueError(f"{source}: {error}; export the artifact again") from None
    return artifact


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text_table(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _is_tensor(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(key), str) for key in ("name", "dtype", "meaning"))
        and all(_is_list(value.get(key), lambda size: type(size) is int and size >= 0) for key in ("shape", "flexible"))
    )


def _is_list(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(of(item) for item in value)


def _is_inside(name: str) -> bool:
    return not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


def _is_file(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and re.fullmatch("[0-9a-f]{64}", str(value.get("sha256"))) is not None
        and type(value.get("bytes")) is int
        and value["bytes"] >= 0
    )


_SHAPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **{name: (lambda value: isinstance(value, str), "text")
       for name in ("name", "runtime", "precision", "task", "architecture", "preprocessing", "licence")},
    "input": (_is_tensor, "a tensor's name, shape, dtype, meaning and flexible axes"),
    "outputs": (lambda value: _is_list(value, _is_tensor), "a list of such tensors"),
    "class_names": (lambda value: _is_list(value, lambda name: isinstance(name, str)), "a list of names"),
    "palette": (
        lambda value: _is_list(value, lambda colour: _is_list(colour, lambda level: level in range(256))
                               and len(colour) == 3),
        "a list of RGB colours",
    ),
    "max_depth_m": (lambda value: value is None or (_is_number(value) and value > 0), "metres or null"),
    "logit_scale": (lambda value: value is None or _is_number(value), "a number or null"),
    "num_parameters": (lambda value: type(value) is int and value > 0, "a number above 0"),
    "parity": (
        lambda value: isinstance(value, dict) and all(_is_number(figure) for figure in value.values()),
        "finite numbers by name",
    ),
    "parent": (_is_text_table, "texts by name"),
    "versions": (_is_text_table, "texts by name"),
    "files": (
        lambda value: isinstance(value, dict) and all(_is_inside(n) and _is_file(f) for n, f in value.items()),
        "sha256 and bytes by a path inside the folder",
    ),
}  # fmt: skip


def _check_types(values: dict[str, Any], source: Path) -> None:
    for field, (holds, expected) in _SHAPES.items():
        if field in values and not holds(values[field]):
            raise ValueError(f"{source}: {field}: found {repr(values[field])[:60]}, expected {expected}; export the "
                             "artifact again")  # fmt: skip


def artifact_sha256(folder: Path) -> str:
    """The identity of an artifact: the hash of artifact.json, which contains the hashes of all other files."""
    return sha256_of(folder / "artifact.json")


def load_golden(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of golden.npz: `input` and all outputs by name, each with a leading batch axis."""
    with np.load(folder / "golden.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}
