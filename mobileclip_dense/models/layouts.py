"""Which of the state dicts of a training checkpoint is taken, and under which names its tensors are known.

A moving average of the weights where there is one, as timm does: `state_dict_ema` (timm), `model_ema` (DeiT), `teacher`
beside `student` (DINO), `average` (our pretraining); mmengine keeps it under `state_dict`. Otherwise the weights:
`state_dict`, `model`, `net` and others, inside another dict too. Names lose what wrappers put before them: `module.`
(DDP), `_orig_mod.` (torch.compile), `model.` (Lightning) and others.
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
_ROOTS = ("module.", "model.", "net.", "network.", "encoder.", "student.", "teacher.")  # where all names begin so
_INSIDE = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_COUNTERS = ("n_averaged", "steps", "num_updates", "decay")  # of torch's and mmengine's moving average
_DEEPEST = 4  # dicts within dicts


class _Ignored:
    """Stands for an object of another library beside the weights: takes any contents, does nothing."""

    def __init__(self, *_: Any, **__: Any):
        pass

    def __setstate__(self, _: Any) -> None:
        pass


# What training scripts keep beside the weights. mmengine's HistoryBuffer names its methods by getattr.
_BESIDE = (
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
STAND_INS: dict[str, Callable[..., Any]] = dict.fromkeys(_BESIDE, _Ignored) | dict.fromkeys(_DICTS, dict)


def read_training_checkpoint(path: Path) -> tuple[State, str]:
    """The state dict of a file of torch.save, and where it was, in words; empty words where there was no choice.

    Raises:
        OSError: the file cannot be read. ValueError: it is damaged, of another kind, or has no state dict; the caller
            names the file.
    """
    contents = load_torch_file(path, stand_ins=STAND_INS)
    found = _find(contents)
    if found is None:
        kind = f"a dict of {', '.join(map(str, contents))}"[:100] if isinstance(contents, dict) else _kind(contents)
        raise ValueError(f"expected a state dict of tensors, found {kind}")
    state, taken = plain_weights(found[0])
    return state, taken or _in_words(contents, found[1])


def plain_weights(state: State) -> tuple[State, str]:
    """A state dict without wrappers' names; of a model and its moving average (`model.`, `model_ema.`) the average.

    Returns:
        The state dict, and which of the two it is, in words; empty words where there was no choice.

    Raises:
        ValueError: there is a moving average, and nothing beside it has the same names.
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
                         "save the one to take by itself: torch.save(model.state_dict(), NEW)")  # fmt: skip
    beside = "" if not rest else f", not {twin!r}" if twin else ", not the weights beside it"
    return chosen, f"{average!r}, the moving average{beside}"


def _under(root: str, state: State) -> State:
    return {name.removeprefix(root): tensor for name, tensor in state.items() if name.startswith(root)}


def unwrapped(state: State) -> State:
    """Without what wrappers put before the names, however often; `model.` and the like where all names begin so."""
    state = {_INSIDE.sub("", name): tensor for name, tensor in state.items()}
    while True:
        counted = {name: tensor for name, tensor in state.items() if name not in _COUNTERS}
        root = next((root for root in _ROOTS if counted and all(name.startswith(root) for name in counted)), None)
        if root is None:
            return state
        state = {name.removeprefix(root): tensor for name, tensor in counted.items()}


def roots_to_try(state: State) -> list[State]:
    """What lies under each of the usual first names, for files that keep other things beside the model."""
    return [unwrapped(part) for root in _ROOTS if (part := _under(root, state))]


def under_prefix(state: State, prefix: str) -> State:
    """What lies under a prefix of the file, with or without its dot, of which `unwrapped` may have taken the front."""
    dotted = f"{prefix.rstrip('.')}."
    while True:
        found = _under(dotted, state)
        root = next((root for root in _ROOTS if dotted.startswith(root)), None)
        if found or root is None:
            return found
        dotted = dotted.removeprefix(root)


def _find(contents: Any, where: tuple[str, ...] = ()) -> tuple[State, tuple[str, ...]] | None:
    if not isinstance(contents, dict) or len(where) > _DEEPEST:
        return None
    weights = {name: value for name, value in contents.items() if not str(name).endswith("_extra_state")}
    if weights and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in weights.items()):
        return weights, where
    for key in _order(contents):
        if (found := _find(contents[key], (*where, key))) is not None:
            return found
    return None


def _order(contents: dict[Any, Any]) -> list[str]:
    """The keys under which the weights may be, the moving average first."""
    averages: tuple[str, ...] = _AVERAGES
    if _is_mmengines(contents):  # its average is under state_dict, and the weights that it is of under ema_state_dict
        averages = ("state_dict",)
    elif "student" in contents:
        averages = (*averages, "teacher")
    return [key for key in (*averages, *_WEIGHTS) if key in contents]


def _is_mmengines(contents: dict[Any, Any]) -> bool:
    meta = contents.get("meta")
    return "message_hub" in contents or (isinstance(meta, dict) and "mmengine_version" in meta)


def _in_words(contents: Any, where: tuple[str, ...]) -> str:
    for depth, key in enumerate(where):
        at = ".".join(where[: depth + 1])
        others = [repr(other) for other in _order(contents) if other != key and _find(contents[other]) is not None]
        if key == "state_dict" and _is_mmengines(contents) and "ema_state_dict" in contents:
            return f"{at!r}, where mmengine keeps the moving average"
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
    """Every (theirs, ours) of the table replaced in every name, in the order of the table."""
    found = {}
    for name, tensor in state.items():
        for theirs, timms in table:
            name = name.replace(theirs, timms)
        found[name] = tensor
    return found
