"""Reading of the stored ML program of an .mlpackage, with errors that name the damaged file."""

import inspect
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coremltools as ct
from coremltools.converters.mil.frontend.milproto.load import load
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from mobileclip_dense.artifact.files import read_json
from mobileclip_dense.deploy.coreml.mil.operators import OPERATORS

COLOUR_ORDERS = {"RGB": [0, 1, 2], "BGR": [2, 1, 0]}
# The header of every constant in a weight file: a sentinel, its type, its size in bytes and the offset of its values.
_BLOB_HEADER = struct.Struct("<IIQQ")
_BLOB_SENTINEL = 0xDEADBEEF


@dataclass(frozen=True, kw_only=True)
class MilProgram:
    """A valid program that has only known operators.

    Attributes:
        package: path of the .mlpackage.
        function: coremltools' Function, with `operations` in program order, `inputs` and `outputs`.
        images: colour order, RGB or BGR, of each image input by name.
    """

    package: Path
    function: Any
    images: dict[str, str]


def load_program(package: Path) -> MilProgram:
    """Read a saved .mlpackage.

    Raises:
        FileNotFoundError: the package or one of its files is missing; the message names it.
        ValueError: a file is truncated or not an ML program (the message names it), or the program has an operator, a
            parameter or an input that cannot be executed.
    """
    specification = _read_specification(package)
    model = ct.proto.Model_pb2.Model()
    try:
        model.ParseFromString(specification.read_bytes())
    except DecodeError as error:
        raise ValueError(f"{specification}: cannot be parsed ({error}); export the model again") from None
    if model.WhichOneof("Type") != "mlProgram" or list(model.mlProgram.functions) != ["main"]:
        raise ValueError(f"{specification}: found {model.WhichOneof('Type')} with functions "
                         f"{sorted(model.mlProgram.functions)}, expected mlProgram with main only")  # fmt: skip
    _require_known_operators(model.mlProgram, package)
    _require_weights(model.mlProgram, specification.parent)
    try:
        # The classes with which coremltools builds a program check every operator's types and shapes.
        program = load(model, model.specificationVersion, str(specification.parent / "weights"))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, RuntimeError) as error:
        raise ValueError(f"{specification}: not a valid ML program ({error}); export the model again") from None
    function = program.functions["main"]
    for variable in function.outputs:
        if variable.op is None or variable.op.op_type == "const":
            raise ValueError(f"{package}: output {variable.name}: computed by no operator; export the model again")
    return MilProgram(package=package, function=function, images=_image_inputs(model, package))


def _read_specification(package: Path) -> Path:
    if not package.is_dir():
        raise FileNotFoundError(f"{package}: no such .mlpackage folder")
    manifest = package / "Manifest.json"
    values = read_json(manifest)
    try:
        entries = {key: package / "Data" / entry["path"] for key, entry in values["itemInfoEntries"].items()}
        specification = entries[values["rootModelIdentifier"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{manifest}: found a missing or invalid field ({error}); export the model again") from None
    for path in entries.values():
        if not path.exists():
            raise FileNotFoundError(f"{path}: listed in {manifest.name} but missing; export the model again")
    return specification


def _operations(program: Any) -> list[Any]:
    (block,) = program.functions["main"].block_specializations.values()
    return list(block.operations)


def _stored_values(program: Any) -> Iterator[Any]:
    """The constants stored in weight files: attributes of operators, or inputs of operators (constexpr, iOS 18)."""
    for operation in _operations(program):
        arguments = [binding for argument in operation.inputs.values() for binding in argument.arguments]
        bound = [binding.value for binding in arguments if binding.WhichOneof("binding") == "value"]
        for value in [*operation.attributes.values(), *bound]:
            if value.WhichOneof("value") == "blobFileValue":
                yield value.blobFileValue


def _require_weights(program: Any, folder: Path) -> None:
    """Verify that every constant is complete in its file. coremltools' own errors name neither file nor offset."""
    for blob in _stored_values(program):
        path = folder / blob.fileName.removeprefix("@model_path/")
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file, expected the program's constants; export the model again")
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(blob.offset)
            header = file.read(_BLOB_HEADER.size)
        if len(header) < _BLOB_HEADER.size:
            raise ValueError(f"{path}: found {size} bytes, expected a constant at {blob.offset}; export the model "
                             "again")  # fmt: skip
        sentinel, _, length, start = _BLOB_HEADER.unpack(header)
        if sentinel != _BLOB_SENTINEL or start + length > size:
            raise ValueError(f"{path}: found {size} bytes, expected a constant at {blob.offset} that ends at "
                             f"{start + length}; the file is damaged, export the model again")  # fmt: skip


def _require_known_operators(program: Any, package: Path) -> None:
    for operation in _operations(program):
        if operation.type == "const":
            continue
        name = operation.outputs[0].name if operation.outputs else ""
        if operation.type not in OPERATORS:
            raise ValueError(f"{package}: operator {operation.type} of output {name!r}: unknown, expected one of "
                             f"{', '.join(sorted(OPERATORS))}")  # fmt: skip
        parameters = inspect.signature(OPERATORS[operation.type]).parameters
        if unknown := sorted(set(operation.inputs) - set(parameters)):
            raise ValueError(f"{package}: operator {operation.type} of output {name!r}: unknown parameters "
                             f"{', '.join(unknown)}, expected {', '.join(parameters)}")  # fmt: skip


def _image_inputs(model: Any, package: Path) -> dict[str, str]:
    images = {}
    for feature in model.description.input:
        if feature.type.WhichOneof("Type") == "imageType":
            space = ct.proto.FeatureTypes_pb2.ImageFeatureType.ColorSpace.Name(feature.type.imageType.colorSpace)
            if space not in COLOUR_ORDERS:
                raise ValueError(f"{package}: input {feature.name}: colour space {space}, expected RGB or BGR")
            images[feature.name] = space
    return images
