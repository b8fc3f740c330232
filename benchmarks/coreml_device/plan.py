"""The latency of a Core ML model on a device, and its compute plan: which unit runs each operation."""

from collections import Counter
from typing import Any, Protocol

NUM_WARMUP = 5
NEURAL_ENGINE = "neural engine"


class Benchmarker(Protocol):
    """The methods of coremltools' MLModelBenchmarker that are used here."""

    async def benchmark_predict(self, inputs: dict[str, Any], iterations: int) -> Any:
        """A Measurement: `samples` in milliseconds."""

    async def benchmark_operation_execution(self, inputs: dict[str, Any], iterations: int) -> list[Any]:
        """An OperationExecutionInfo for each operation."""


async def benchmark(
    benchmarker: Benchmarker, inputs: dict[str, Any], num_runs: int
) -> tuple[list[float], list[dict[str, Any]]]:
    """The milliseconds of each run, and the name, type, preferred unit and supported units of each operation."""
    await benchmarker.benchmark_predict(inputs=inputs, iterations=NUM_WARMUP)
    measurement = await benchmarker.benchmark_predict(inputs=inputs, iterations=num_runs)
    infos = await benchmarker.benchmark_operation_execution(inputs=inputs, iterations=1)
    operations = []
    for info in infos:
        if info.spec.type == "const":
            continue
        usage = info.compute_device_usage
        operations.append(
            {
                "name": info.spec.outputs[0].name,
                "operation": info.spec.type,
                "unit": None if usage is None else _unit(usage.preferred_compute_device),
                "supported": [] if usage is None else [_unit(unit) for unit in usage.supported_compute_devices],
            }
        )
    return list(measurement.samples), operations


def summarize_plan(operations: list[dict[str, Any]]) -> dict[str, Any]:
    """The number of operations by unit, the types that do not run on the Neural Engine, and all operations."""
    off = Counter(op["operation"] for op in operations if op["unit"] not in (NEURAL_ENGINE, None))
    return {
        "operations_by_unit": dict(Counter(op["unit"] or "not told" for op in operations).most_common()),
        "off_the_neural_engine": dict(off.most_common()),
        "operations": operations,
    }


def _unit(device: Any) -> str:
    """The unit of a compute device of coremltools: cpu, gpu or neural engine."""
    kind = type(device).__name__.removeprefix("ML").removesuffix("ComputeDevice")
    return NEURAL_ENGINE if kind == "NeuralEngine" else kind.lower()
