"""An executor that runs the ML program of a saved .mlpackage without Core ML, to compare it with PyTorch.

It executes the stored program operator by operator: no graph pass is applied and no constant is folded.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from coremltools.converters.mil.mil import types
from torch import Tensor

from mobileclip_dense.deploy.coreml.mil.operators import OPERATORS
from mobileclip_dense.deploy.coreml.mil.program import COLOUR_ORDERS, MilProgram
from mobileclip_dense.runtime.parity import relative_error

Precision = Literal["fp32", "fp16"]
Inputs = npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]
_INTEGERS = {
    types.int8: torch.int8, types.uint8: torch.uint8, types.int16: torch.int16, types.uint16: torch.uint16,
    types.int32: torch.int32,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The first operator with an fp16 output that differs too much from its fp32 output.

    Attributes:
        output: name of the output.
        operator: type of the operator.
        relative_error: norm of the difference divided by the norm in fp32; inf or NaN if fp16 overflowed.
        largest_magnitude: largest magnitude of the fp32 output (the maximum of fp16 is 65504).
    """

    output: str
    operator: str
    relative_error: float
    largest_magnitude: float


def run_program(program: MilProgram, inputs: Inputs, *, precision: Precision) -> dict[str, npt.NDArray[Any]]:
    """Run a program. Returns its outputs by name: floats as float32, integers and booleans in their declared type.

    fp32 computes everything in float32 with the stored weights, regardless of the declared types. fp16 rounds every
    input and output of an operator to its declared type and computes in float32 inside an operator. This is an
    emulation: the Neural Engine may accumulate in less than float32. In both precisions, decompressed weights are
    rounded to their declared type, because they are decompressed before the program runs.

    Use fp32 for int8 activations. The converter divides both inputs of an addition by the scale of one of them, for
    backends that fuse these operations. Executed one by one, the values in between can overflow in fp16.

    Args:
        program: the program.
        inputs: uint8 [1,H,W,3] RGB for a program with one image input; otherwise arrays by input name, images in the
            same form. Images are converted as Core ML does: [1,3,H,W], 0..255, in the colour order of the program.
        precision: fp32 or fp16.

    Raises:
        ValueError: an input does not fit, or an operator is used in a way that MIL does not define.
    """
    results = {}
    for operation, outputs in _execute(program, inputs, precision):
        for variable, value in zip(operation.outputs, outputs, strict=True):
            if variable in program.function.outputs:
                array = value.numpy()
                is_integer = variable.dtype in _INTEGERS
                results[variable.name] = (
                    array.astype(types.nptype_from_builtin(variable.dtype)) if is_integer else array
                )
    return results


def first_divergence(program: MilProgram, inputs: Inputs, bound: float) -> Divergence | None:
    """The first operator, in program order, with a relative error of fp16 to fp32 above `bound`. None: there is none.

    The error is the norm of the difference divided by the norm in fp32, and accumulates from the start of the program.
    Outputs that are not floats are ignored. Inputs and errors are as in `run_program`.
    """
    pairs = zip(_execute(program, inputs, "fp16"), _execute(program, inputs, "fp32"), strict=True)
    for (operation, halves), (_, singles) in pairs:
        for variable, half, single in zip(operation.outputs, halves, singles, strict=True):
            if not types.is_float(variable.dtype):
                continue
            error = relative_error(half.numpy(), single.numpy())
            if not error <= bound:
                return Divergence(output=variable.name, operator=operation.op_type, relative_error=error,
                                  largest_magnitude=float(single.abs().max()))  # fmt: skip
    return None


def value_ranges(program: MilProgram, images: npt.NDArray[np.uint8]) -> dict[str, tuple[float, float]]:
    """The smallest and largest fp32 value of each input and float output of a program over images uint8 [N,H,W,3]."""
    ranges: dict[str, tuple[float, float]] = dict.fromkeys(program.images, (0.0, 255.0))
    for image in images:
        for operation, outputs in _execute(program, image[None], "fp32"):
            for variable, value in zip(operation.outputs, outputs, strict=True):
                if types.is_float(variable.dtype):
                    low, high = ranges.get(variable.name, (np.inf, -np.inf))
                    ranges[variable.name] = (min(low, float(value.min())), max(high, float(value.max())))
    return ranges


def _execute(program: MilProgram, inputs: Inputs, precision: Precision) -> Iterator[tuple[Any, list[Tensor]]]:
    """Yield every operation except constants with its outputs, in program order. Frees values after their last use."""
    values = {
        program.function.inputs[name]: _rounded(value, program.function.inputs[name].dtype, precision)
        for name, value in _feed(program, inputs).items()
    }
    operations = [operation for operation in program.function.operations if operation.op_type != "const"]
    uses = Counter(variable for operation in operations for variable in _variables(operation))
    for operation in operations:
        with torch.inference_mode():
            arguments = {
                name: [_value(v, values) for v in bound] if isinstance(bound, (list, tuple)) else _value(bound, values)
                for name, bound in operation.inputs.items()
                if bound is not None
            }
            outputs = _apply(program, operation, arguments, precision)
        del arguments
        for variable in _variables(operation):
            uses[variable] -= 1
            if not uses[variable]:
                values.pop(variable, None)
        values.update({v: value for v, value in zip(operation.outputs, outputs, strict=True) if uses[v]})
        yield operation, outputs


def _apply(program: MilProgram, operation: Any, arguments: dict[str, Any], precision: Precision) -> list[Tensor]:
    """The outputs of one operator, rounded to their declared types."""
    try:
        answer = OPERATORS[operation.op_type](**arguments)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{program.package}: operator {operation.op_type} of output {operation.outputs[0].name!r}: "
                         f"{error}") from None  # fmt: skip
    outputs = answer if isinstance(answer, list) else [answer]
    precision = "fp16" if operation.op_type.startswith("constexpr_") else precision
    rounded = []
    for variable, value in zip(operation.outputs, outputs, strict=True):
        assert tuple(value.shape) == tuple(variable.shape), (operation.name, value.shape, variable.shape)
        rounded.append(_rounded(value, variable.dtype, precision))
    return rounded


def _variables(operation: Any) -> list[Any]:
    """The inputs of an operation, including those in lists."""
    bound = [b if isinstance(b, (list, tuple)) else [b] for b in operation.inputs.values() if b is not None]
    return [variable for variables in bound for variable in variables]


def _value(variable: Any, values: dict[Any, Tensor]) -> Tensor | str:
    """A computed value or a stored constant: a string, or a tensor of the dtype that operators expect."""
    if variable in values:
        return values[variable]
    if isinstance(variable.val, str):
        return variable.val
    array = np.asarray(variable.val)
    kind = {"f": np.float32, "b": np.bool_}.get(array.dtype.kind, np.int32)
    return torch.tensor(array.astype(kind))


def _rounded(value: Tensor, dtype: Any, precision: Precision) -> Tensor:
    """Round a value to its declared type, as float32, int32 or bool; to fp16 only in precision fp16."""
    if types.is_float(dtype):
        value = value.to(torch.float32)
        return value.to(torch.float16).to(torch.float32) if dtype == types.fp16 and precision == "fp16" else value
    return value.to(torch.bool) if types.is_bool(dtype) else value.to(_INTEGERS[dtype]).to(torch.int32)


def _feed(program: MilProgram, inputs: Inputs) -> dict[str, Tensor]:
    """Verify the inputs, and convert images to the program's layout and colour order."""
    expected = program.function.inputs
    named = inputs if isinstance(inputs, Mapping) else dict.fromkeys(expected, inputs)
    if set(named) != set(expected) or (not isinstance(inputs, Mapping) and list(expected) != list(program.images)):
        raise ValueError(f"{program.package}: inputs: found {sorted(named)}, expected {sorted(expected)}; pass a "
                         f"single array only for a program with one image input")  # fmt: skip
    fed = {}
    for name, array in named.items():
        value = torch.from_numpy(np.array(array))  # a copy: constants are read-only
        if name in program.images:
            if value.dtype != torch.uint8 or value.dim() != 4 or value.shape[3] != 3:
                raise ValueError(f"{program.package}: input {name}: found {array.dtype} {array.shape}, expected uint8 "
                                 f"[1,H,W,3] RGB")  # fmt: skip
            value = value[..., COLOUR_ORDERS[program.images[name]]].permute(0, 3, 1, 2).float()
        if tuple(value.shape) != tuple(expected[name].shape):
            raise ValueError(f"{program.package}: input {name}: found shape {tuple(value.shape)}, expected "
                             f"{tuple(expected[name].shape)}")  # fmt: skip
        fed[name] = value
    return fed
