"""A report of the operations of a Core ML program that may not run on the Neural Engine.

The device decides which unit runs an operation, and Apple documents little about it. The flags come from published
measurements. They are places to check in Xcode's performance report, not a verdict:

    gather, dilated convolutions, recurrent layers     github.com/hollance/neural-engine, unsupported-layers
    more than four axes, or an axis above 16384        Apple, Deploying Transformers on the Apple Neural Engine, 2022;
                                                       coremltools, issues on rank 5
    float32                                            the engine computes in float16 (coremltools, typed execution)
    flexible shapes                                    one public report: 77 % -> 2 % of operations, 12 times slower
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.types.symbolic import any_symbolic, is_symbolic

from mobileclip_dense.deploy.coreml.mil.program import MilProgram

_MAX_RANK = 4
_MAX_AXIS = 16384
_NOT_ON_THE_ENGINE = frozenset(
    {"gather", "gather_nd", "gather_along_axis", "scatter", "scatter_nd", "gru", "lstm", "rnn", "non_zero", "cond",
     "while_loop", "non_maximum_suppression", "topk", "argsort"}
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NeuralEngineReport:
    """The report.

    Attributes:
        operations: number of operations by type, without constants.
        flags: a sentence for each operation or input to check.
    """

    file_name: ClassVar[str] = "neural_engine.json"

    operations: dict[str, int]
    flags: list[str]

    def summary(self) -> str:
        """One line for the terminal."""
        flags = f"{len(self.flags)} flagged: {self.flags[0]}" if self.flags else "none flagged"
        more = f" (+{len(self.flags) - 1} more in {self.file_name})" if len(self.flags) > 1 else ""
        return f"{sum(self.operations.values())} operations, Neural Engine: {flags}{more}"


def inspect_for_neural_engine(program: MilProgram) -> NeuralEngineReport:
    """Count the operations of a program and flag what is known to fall back to the CPU or the GPU."""
    operations = [operation for operation in program.function.operations if operation.op_type != "const"]
    flags = [
        f"input {name}: flexible shape {_shape(variable)}; the whole model may leave the engine"
        for name, variable in program.function.inputs.items()
        if any_symbolic(variable.shape)
    ]
    for operation in operations:
        output = operation.outputs[0]
        if any(variable.op is None for variable in _variables(operation)):  # the scaling of pixels, in every model
            continue
        flags += [f"{operation.op_type} of {output.name}: {reason}" for reason in _reasons(operation, output)]
    return NeuralEngineReport(operations=dict(Counter(op.op_type for op in operations).most_common()), flags=flags)


def _variables(operation: Any) -> list[Any]:
    return [bound for bound in operation.inputs.values() if bound is not None and not isinstance(bound, (list, tuple))]


def _shape(variable: Any) -> str:
    return "x".join("?" if is_symbolic(length) else str(length) for length in variable.shape)


def _reasons(operation: Any, output: Any) -> list[str]:
    reasons = []
    if operation.op_type in _NOT_ON_THE_ENGINE:
        reasons.append("not known to run there")
    dilations = operation.inputs.get("dilations") if operation.op_type == "conv" else None
    if dilations is not None and max(dilations.val) > 1:
        reasons.append(f"dilated by {max(dilations.val)}")
    if output.rank > _MAX_RANK:
        reasons.append(f"{output.rank} axes, at most {_MAX_RANK} are sure to run there")
    if not any_symbolic(output.shape) and max(output.shape, default=0) > _MAX_AXIS:
        reasons.append(f"an axis of {max(output.shape)}, at most {_MAX_AXIS} fits")
    if output.dtype == types.fp32 and operation.op_type != "cast":
        reasons.append("computes in float32")
    return reasons
