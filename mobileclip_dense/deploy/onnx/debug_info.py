"""What torch's exporter notes about the machine and the code that it ran on; none of it is needed to run a model."""

from collections.abc import Sequence
from typing import Any

import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]

_NOTES = ("metadata_props", "doc_string")


def strip_debug_info(model: onnx.ModelProto) -> None:
    """Remove, in place, notes from every part of a model: stack traces with paths of source files, names of Python
    modules, torch's own listing of the graph. Names of nodes and tensors stay."""
    _strip(model)


def _strip(message: Any) -> None:
    for field, value in message.ListFields():
        if field.name in _NOTES:
            message.ClearField(field.name)
        elif field.message_type is not None:
            parts: Sequence[Message] = [value] if isinstance(value, Message) else value
            for part in parts:
                _strip(part)
