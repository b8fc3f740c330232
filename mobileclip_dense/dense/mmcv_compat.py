"""A placeholder that lets mmsegmentation 1.2 run with a torch version that has no compiled mmcv."""

import importlib.util
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _MissingExtension(ModuleType):
    """Replaces `mmcv._ext`: it can be imported, and calling one of its operators raises NotImplementedError."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_args: Any, **_kwargs: Any) -> None:
            raise NotImplementedError(
                f"mmcv._ext.{name}: this operator needs the compiled mmcv; install mmcv>=2.0,<2.2 built for your torch"
            )

        return missing


def install() -> None:
    """Install the placeholder if there is no compiled mmcv."""
    if "mmcv._ext" not in sys.modules and importlib.util.find_spec("mmcv._ext") is None:
        placeholder = _MissingExtension("mmcv._ext")
        placeholder.__spec__ = ModuleSpec("mmcv._ext", loader=None)  # mmengine takes a missing loader as not compiled
        sys.modules["mmcv._ext"] = placeholder


def ignore_warnings() -> None:
    """Hide warnings that the libraries address to each other, such as mmseg's about its own deprecated functions."""
    warnings.filterwarnings("ignore", category=UserWarning, module="mmengine|mmseg|mmcv|torch")
