"""Lets mmsegmentation 1.2 run beside a torch for which there is no compiled mmcv."""

import importlib.util
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _MissingExtension(ModuleType):
    """Stands for `mmcv._ext`: imports go through, a call says what is missing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_args: Any, **_kwargs: Any) -> None:
            raise NotImplementedError(
                f"mmcv._ext.{name}: this operator needs the compiled mmcv; install mmcv>=2.0,<2.2 built for your torch"
            )

        return missing


def install() -> None:
    """Put the placeholder where no compiled mmcv is."""
    if "mmcv._ext" not in sys.modules and importlib.util.find_spec("mmcv._ext") is None:
        placeholder = _MissingExtension("mmcv._ext")
        placeholder.__spec__ = ModuleSpec("mmcv._ext", loader=None)  # no loader: mmengine sees that it is not compiled
        sys.modules["mmcv._ext"] = placeholder


def ignore_warnings() -> None:
    """Hide warnings that the libraries address to each other, such as mmseg's about its own deprecated functions."""
    warnings.filterwarnings("ignore", category=UserWarning, module="mmengine|mmseg|mmcv|torch")
