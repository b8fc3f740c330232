"""Selection of a state dict from a training checkpoint, and removal of wrappers' prefixes from its names.

A moving average of the weights is preferred, as in timm: `state_dict_ema` (timm), `model_ema` (DeiT), `teacher` next to
`student` (DINO), `average` (our pretraining); mmengine stores it under `state_dict`. Otherwise the weights are used:
`state_dict`, `model`, `net` and others, also in nested dicts. These prefixes are removed: `module.` (DDP), `_orig_mod.`
(torch.compile), `model.` (Lightning) and others.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mobileclip_dense.models.expand import State
from mobileclip_dense.run.torch_file import load_torch_file

_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "module_ema", "ema",
             "params_ema", "averaged_model", "average", "shadow")  # fmt: skip
_WEIGHTS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params",
            "backbone", "encoder", "student", "teacher")  # fmt: skip
_ROOTS = ("module.", "model.", "net.", "network.", "encoder.", "student.", "teacher.")  # removed if all names have them
_INSIDE = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_COUNTERS = ("n_averaged", "steps", "num_updates", "decay")  # of the moving averages of torch and mmengine
_MAX_DEPTH = 4  # of nested dicts


class _Ignored:
    """Placeholder for objects of other libraries in a checkpoint: accepts any contents and does nothing."""

    def __init__(self, *_: Any, **__: Any):
        pass

    def __setstate__(self, _: Any) -> None:
        pass


# Objects that training scripts store with the weights. mmengine's HistoryBuffer pickles its methods with getattr.
_OTHER_OBJECTS = (
    "argparse.Namespace", "pathlib.Path", "pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib.WindowsPath",
    "pathlib._local.PosixPath", "datetime.datetime", "datetime.timedelta", "builtins.getattr",
    "mmengine.logging.history_buffer.HistoryBuffer", "numpy.dtype", "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.{name}" for name in ("float16", "float32", "float64", "int32", "int64", "bool_")),
)  # fmt: skip
_DICTS = (
    "lightning.fabric.utilities.data.AttributeDict", "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)  # fmt: skip
STAND_INS: dict[str, Callable[..., Any]] = dict.fromkeys(_OTHER_OBJECTS, _Ignored) | dict.fromkeys(_DICTS, dict)


def read_training_checkpoint(path: Path) -> tuple[State, str]:
    """Read a state dict from a file of torch.save.

    Returns:
        The state dict, and a description of where it was found; empty if there was only one.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged, of another kind, or has no state dict. The message does not name the file.
    """
    contents = load_torch_file(path, stand_ins=STAND_INS)
    found = _find(contents)
    if found is None:
        kind = f"a dict of {', '.join(map(str, contents))}"[:100] if isinstance(contents, dict) else _kind(contents)
        raise ValueError(f"expected a state dict of tensors, found {kind}")
    state, description = plain_weights(found[0])
    return state, description or _describe_choice(contents, found[1])


def plain_weights(state: State) -> tuple[State, str]:
    """Remove wrappers' prefixes from a state dict. Of a model and its moving average, select the average.

    Returns:
        The state dict, and a description of the selected one; empty if there was only one.

    Raises:
        ValueError: there is a moving average and other weights without the same names.
    """
    state = unwrapped(state)
    roots = [f"{name}." for name in (*_AVERAGES, "teacher")]
    average = next((root for root in roots if any(name.startswith(root) for name in state)), None)
    if average is None:
        return state, ""
    rest = {name: tensor for name, tensor in state.items() if not name.startswith(average)}
    chosen = unwrapped({name.removeprefix(average): t for name, t in state.items() if name.startswith(average)})
    others = sorted({f"{name.partition('.')[0]}." for name in rest})
    twin = next((root for root in [*others, ""] if unwrapped(_under(root, rest)).keys() == chosen.keys()), None)
    if rest and twin is None:
        raise ValueError(f"found a moving average under {average} with other names than under {', '.join(others[:5])}; "
                         "save the one to use in a file of its own: torch.save(model.state_dict(), NEW)")  # fmt: skip
    others_text = "" if not rest else f", not {twin!r}" if twin else ", not the weights next to it"
    return chosen, f"{average!r}, the moving average{others_text}"


def _under(root: str, state: State) -> State:
    return {name.removeprefix(root): tensor for name, tensor in state.items() if name.startswith(root)}


def unwrapped(state: State) -> State:
    """Remove wrappers' prefixes, also repeated ones. Prefixes like `model.` are removed only if all names have them."""
    state = {_INSIDE.sub("", name): tensor for name, tensor in state.items()}
    while True:
        counted = {name: tensor for name, tensor in state.items() if name not in _COUNTERS}
        root = next((root for root in _ROOTS if counted and all(name.startswith(root) for name in counted)), None)
        if root is None:
            return state
        state = {name.removeprefix(root): tensor for name, tensor in counted.items()}


def roots_to_try(state: State) -> list[State]:
    """The parts of a state dict under each of the usual prefixes, for files that contain more than the model."""
    return [unwrapped(part) for root in _ROOTS if (part := _under(root, state))]


def under_prefix(state: State, prefix: str) -> State:
    """The part of a state dict under a prefix of the file (with or without dot).

    `unwrapped` may have removed the beginning of the prefix.
    """
    dotted = f"{prefix.rstrip('.')}."
    while True:
        found = _under(dotted, state)
        root = next((root for root in _ROOTS if dotted.startswith(root)), None)
        if found or root is None:
            return found
        dotted = dotted.removeprefix(root)


def _find(contents: Any, where: tuple[str, ...] = ()) -> tuple[State, tuple[str, ...]] | None:
    if not isinstance(contents, dict) or len(where) > _MAX_DEPTH:
        return None
    weights = {name: value for name, value in contents.items() if not str(name).endswith("_extra_state")}
    if weights and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in weights.items()):
        return weights, where
    for key in _order(contents):
        if (found := _find(contents[key], (*where, key))) is not None:
            return found
    return None


def _order(contents: dict[Any, Any]) -> list[str]:
    """The keys that may hold the weights, those of a moving average first."""
    averages: tuple[str, ...] = _AVERAGES
    if _is_mmengines(contents):  # stores the average under state_dict and the plain weights under ema_state_dict
        averages = ("state_dict",)
    elif "student" in contents:
        averages = (*averages, "teacher")
    return [key for key in (*averages, *_WEIGHTS) if key in contents]


def _is_mmengines(contents: dict[Any, Any]) -> bool:
    meta = contents.get("meta")
    return "message_hub" in contents or (isinstance(meta, dict) and "mmengine_version" in meta)


def _describe_choice(contents: Any, where: tuple[str, ...]) -> str:
    """Describe the state dict at `where` if there were others, e.g. `'ema', the moving average, not 'model'`."""
    for depth, key in enumerate(where):
        at = ".".join(where[: depth + 1])
        others = [repr(other) for other in _order(contents) if other != key and _find(contents[other]) is not None]
        if key == "state_dict" and _is_mmengines(contents) and "ema_state_dict" in contents:
            return f"{at!r}, where mmengine stores the moving average"
        if key in _AVERAGES or (key == "teacher" and "student" in contents):
            return f"{at!r}, the moving average" + (f", not {', '.join(others)}" if others else "")
        unread = [repr(other) for other in _AVERAGES if isinstance(contents.get(other), dict | list | _Ignored)]
        if others or unread:
            return f"{at!r}, not {', '.join(others + unread)}" + (" (no state dict)" if unread else "")
        contents = contents[key]
    return ""


def _kind(contents: Any) -> str:
    return "an object of another library" if isinstance(contents, _Ignored) else f"a {type(contents).__name__}"


def renamed(state: State, table: tuple[tuple[str, str], ...]) -> State:
    """Replace every (theirs, ours) of the table in every name, in the order of the table."""
    found = {}
    for name, tensor in state.items():
        for theirs, ours in table:
            name = name.replace(theirs, ours)
        found[name] = tensor
    return found
