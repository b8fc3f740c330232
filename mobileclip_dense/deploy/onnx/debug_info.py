"""Removal of debug information that torch's exporter stores in a model: details of the machine and of source files."""

from collections.abc import Sequence
from typing import Any

import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]

_NOTES = ("metadata_props", "doc_string")


def strip_debug_info(model: onnx.ModelProto) -> None:
    """Remove stack traces with source paths, names of Python modules and torch's listing of the graph, in place.

    The names of nodes and tensors stay. Nothing that is removed is needed to run the model.
    """
    _strip(model)


def _strip(message: Any) -> None:
    for field, value in message.ListFields():
        if field.name in _NOTES:
            message.ClearField(field.name)
        elif field.message_type is not None:
            parts: Sequence[Message] = [value] if isinstance(value, Message) else value
            for part in parts:
                _strip(part)
