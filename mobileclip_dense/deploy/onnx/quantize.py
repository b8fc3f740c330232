"""Static int8 quantization with ONNX Runtime, for the nodes where measurements show a gain.

The format is quantize-dequantize pairs, with int8 weights per channel and uint8 activations. Four steps choose nodes:

    1. latency   kinds of nodes are added one after the other, the best first, while the whole model gets faster
    2. profile   a node stays float if its int8 kernel is not faster than its float kernel
    3. error     each node is quantized alone, and the error of the output is recorded (a sensitivity sweep)
    4. accuracy  while the task metric falls too far, the most sensitive nodes go back to float

Calibration runs once; all trials read its ranges from a cache.
"""

import dataclasses
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from mobileclip_dense.deploy.gate import Cost, excess
from mobileclip_dense.pages.progress import progress_bar
from mobileclip_dense.pages.text_table import print_table
from mobileclip_dense.runtime.device import device_name
from mobileclip_dense.runtime.onnx_model import OnnxModel, profile_ms
from mobileclip_dense.runtime.parity import relative_error
from mobileclip_dense.runtime.timing import time_in_turn

NUM_CALIBRATION = 32
_NUM_SENSITIVITY = 2  # images of the sensitivity sweep
_NUM_ROUNDS = 15  # timed runs of each model in a comparison
_MAX_TIME_SHARE = 0.99  # a kind is added if the model's time falls below this share
_RETREAT = (0.1, 0.25, 0.5)  # shares of the quantized nodes that go back to float while accuracy falls too far
_FASTER = "faster"  # the reason of a node that is quantized for the time that it saves


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node that can be quantized.

    Attributes:
        name: name of the node.
        kind: kind of the node, see `candidates`.
        float_ms, int8_ms: time in its kernel, None if the profile does not have it.
        error: relative error of the model's output with only this node quantized, None if it was not tried.
        quantized: whether it is quantized.
        reason: why it is quantized or not.
    """

    name: str
    kind: str
    float_ms: float | None = None
    int8_ms: float | None = None
    error: float | None = None
    quantized: bool = False
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Int8Report:
    """The report of a quantization: nodes, latency, size and accuracy. Milliseconds are medians on `device`."""

    device: str
    nodes: list[Node]
    kinds: list[dict[str, Any]]  # the trials in order: kind, latency_ms with it, whether it joined
    float_ms: float
    int8_ms: float
    float_bytes: int
    int8_bytes: int
    cost: Cost

    def figures(self) -> Cost:
        """The figures for artifact.json."""
        return {
            "int8_nodes": sum(node.quantized for node in self.nodes),
            "int8_speedup": self.float_ms / self.int8_ms,
            "int8_size_percent": self.int8_bytes / self.float_bytes * 100,
            **self.cost,
        }

    def slowness(self) -> str | None:
        """The reason why the model is not faster than the float model, None if it is."""
        if not any(node.quantized and node.reason == _FASTER for node in self.nodes):
            return "found no node that is faster in int8, expected at least one"
        if not self.int8_ms < self.float_ms:
            return (f"found {self.int8_ms:.2f} ms, expected less than the {self.float_ms:.2f} ms of fp32 "
                    f"({self.float_ms / self.int8_ms:.2f}x as fast)")  # fmt: skip
        return None

    def print(self) -> None:
        """Print the report by kind of node and by reason."""
        rows = []
        for kind in dict.fromkeys(node.kind for node in self.nodes):
            nodes = [node for node in self.nodes if node.kind == kind]
            errors = [node.error for node in nodes if node.error is not None]
            rows.append([
                kind, str(len(nodes)), str(sum(node.quantized for node in nodes)),
                f"{sum(node.float_ms or 0 for node in nodes):.2f}", f"{max(errors):.1e}" if errors else "-",
            ])  # fmt: skip
        print_table(f"int8 on {self.device}", ["kind", "nodes", "in int8", "fp32 ms", "largest error"], rows)
        reasons = Counter((node.quantized, node.reason) for node in self.nodes)
        decisions = [[str(count), "int8" if q else "fp32", reason] for (q, reason), count in reasons.items()]
        print_table("nodes by reason", ["nodes", "in", "because"], decisions)
        print(f"{self.float_ms:.2f} ms -> {self.int8_ms:.2f} ms, {self.float_bytes / 1e6:.2f} MB -> "
              f"{self.int8_bytes / 1e6:.2f} MB")  # fmt: skip


class ImageReader(CalibrationDataReader):
    """Feeds inputs [N,...] of a model to ONNX Runtime's calibration one by one."""

    def __init__(self, input_name: str, images: npt.NDArray[Any]):
        self.feeds = iter([{input_name: image[None]} for image in images])

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        return next(self.feeds, None)


class _Workshop:
    """A float model with its calibration ranges. It builds int8 models with any set of quantized nodes."""

    def __init__(self, model: Path, images: npt.NDArray[Any], scratch: Path):
        self.model, self.scratch, self.images = model, scratch, images
        self.prepared, self.cache = scratch / "prepared.onnx", scratch / "ranges.json"
        quant_pre_process(model, self.prepared, skip_symbolic_shape=True)
        self.graph = onnx.load(self.prepared)
        self.candidates = candidates(self.graph)
        if not self.candidates:
            raise ValueError(f"{model}: int8: found no convolution and no matrix product to quantize; use fp32")
        self.input_name = self.graph.graph.input[0].name

    def build(self, nodes: list[str], out: Path) -> Path:
        """Write the model with these nodes in int8.

        Raises:
            ValueError: no node is given. ONNX Runtime would take an empty list as all nodes.
        """
        if not nodes:
            raise ValueError(f"{self.model}: int8: found no node to quantize, expected at least one; use fp32")
        quantize_static(
            self.prepared, out, ImageReader(self.input_name, self.images), quant_format=QuantFormat.QDQ,
            nodes_to_quantize=nodes, per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax, calibration_cache_path=self.cache,
        )  # fmt: skip
        return out


def quantize_by_measurement(
    model: Path, images: npt.NDArray[Any], cost: Callable[[OnnxModel], Cost] | None
) -> Int8Report:
    """Replace a float model by its int8 version, even if it is not faster.

    Args:
        model: the model file.
        images: calibration inputs [N,...] of the model.
        cost: measures the loss of accuracy of a candidate. None (for random weights): steps 3 and 4 are skipped.

    Raises:
        ValueError: the model has nothing to quantize, or there is no calibration input.
    """
    if len(images) == 0:
        raise ValueError(f"{model}: int8: found no calibration input, expected at least one")
    with TemporaryDirectory() as folder:
        workshop = _Workshop(model, images, Path(folder))
        workshop.build(list(workshop.candidates), workshop.scratch / "all.onnx")  # calibrates all nodes
        joined, kinds = _join_kinds(workshop)
        nodes = _judge_kernels(workshop, joined)
        if cost is None:
            chosen = [node.name for node in nodes if node.quantized]
            out, figures = workshop.build(chosen, workshop.scratch / "int8.onnx"), Cost()
        else:
            nodes, out, figures = _retreat(workshop, _sweep(workshop, nodes), cost)
        times = _medians_ms([OnnxModel(workshop.prepared), OnnxModel(out)], images[:1], 2 * _NUM_ROUNDS)
        report = Int8Report(
            device=device_name(), nodes=_as_written(nodes, out), kinds=kinds, float_ms=times[0], int8_ms=times[1],
            float_bytes=model.stat().st_size, int8_bytes=out.stat().st_size, cost=figures,
        )  # fmt: skip
        onnx.save(onnx.load(out), model)
    return report


def candidates(model: onnx.ModelProto) -> dict[str, str]:
    """The kind of every node that has weights and an int8 kernel, by name."""
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        shape = weights.get(node.input[1], ()) if len(node.input) > 1 else ()
        if node.op_type == "Conv" and shape:
            groups = next((int(attribute.i) for attribute in node.attribute if attribute.name == "group"), 1)
            dense = "pointwise convolution" if set(shape[2:]) == {1} else "convolution"
            found[node.name] = dense if groups == 1 else "depthwise convolution"
        elif node.op_type in ("MatMul", "Gemm") and shape:
            found[node.name] = "linear"
    return found


def quantized_nodes(model: onnx.ModelProto) -> set[str]:
    """The names of the nodes with int8 weights in a graph."""
    integers = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8}
    unpacked = {
        node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in integers
    }
    return {node.name for node in model.graph.node if len(node.input) > 1 and node.input[1] in unpacked}


def _as_written(nodes: list[Node], path: Path) -> list[Node]:
    """The nodes as they are in the written graph: ONNX Runtime may leave chosen nodes float.

    Raises:
        ValueError: a node is quantized that was not chosen.
    """
    found = quantized_nodes(onnx.load(path))
    if extra := sorted(found - {node.name for node in nodes if node.quantized}):
        raise ValueError(f"int8: found {len(extra)} nodes quantized that were not chosen ({extra[0]}), expected none; "
                         f"this version of ONNX Runtime ignores the list of nodes, install another")  # fmt: skip
    left = "ONNX Runtime left it float"
    return [
        dataclasses.replace(node, quantized=False, reason=left) if node.quantized and node.name not in found else node
        for node in nodes
    ]


def _medians_ms(models: list[OnnxModel], taken: npt.NDArray[Any], num_runs: int) -> list[float]:
    return [statistics.median(times) for times in time_in_turn([partial(model, taken) for model in models], num_runs)]


def _join_kinds(workshop: _Workshop) -> tuple[list[str], list[dict[str, Any]]]:
    """The kinds of nodes that make the model faster, and all trials."""
    joined: list[str] = []
    tried: list[dict[str, Any]] = []
    open_kinds = list(dict.fromkeys(workshop.candidates.values()))
    reference = OnnxModel(workshop.prepared)
    while open_kinds:
        models = [reference]
        for kind in open_kinds:
            nodes = [name for name, of in workshop.candidates.items() if of in (*joined, kind)]
            models.append(OnnxModel(workshop.build(nodes, workshop.scratch / f"{len(joined)}-{kind}.onnx")))
        without_ms, *times_ms = _medians_ms(models, workshop.images[:1], _NUM_ROUNDS)
        best = int(np.argmin(times_ms))
        joins = times_ms[best] < _MAX_TIME_SHARE * without_ms
        for index, kind in enumerate(open_kinds):
            tried.append({"beside": list(joined), "kind": kind, "latency_ms": times_ms[index],
                          "without_ms": without_ms, "joined": joins and index == best})  # fmt: skip
        if not joins:
            break
        joined.append(open_kinds.pop(best))
        reference = models[1 + best]
    return joined, tried


def _judge_kernels(workshop: _Workshop, joined: list[str]) -> list[Node]:
    """Every candidate with its times. Those of the joined kinds are quantized, unless their kernel is not faster.

    If no kind makes the model faster, the kind with most of the weights is quantized. If no kernel is faster, all nodes
    of the joined kinds are quantized. The user asked for an int8 model, so it is at least smaller.
    """
    chosen_kinds = joined or [_heaviest_kind(workshop)]
    chosen = [name for name, kind in workshop.candidates.items() if kind in chosen_kinds]
    trial = workshop.build(chosen, workshop.scratch / "chosen.onnx")
    taken = workshop.images[:1]
    before, after = (_kernel_ms(workshop.graph, profile_ms(path, taken)) for path in (workshop.prepared, trial))
    slower = {name for name in chosen if name in before and name in after and after[name] >= before[name]}
    pays = bool(joined) and len(slower) < len(chosen)
    nodes = []
    for name, kind in workshop.candidates.items():
        node = Node(name=name, kind=kind, float_ms=before.get(name), reason="does not make the model faster")
        if kind in chosen_kinds:
            reason = "smaller, not faster" if not pays else "its kernel is not faster" if name in slower else _FASTER
            quantized = not pays or name not in slower
            node = dataclasses.replace(node, int8_ms=after.get(name), quantized=quantized, reason=reason)
        nodes.append(node)
    return nodes


def _heaviest_kind(workshop: _Workshop) -> str:
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in workshop.graph.graph.initializer}
    weights: Counter[str] = Counter()
    for node in workshop.graph.graph.node:
        if node.name in workshop.candidates:
            weights[workshop.candidates[node.name]] += sizes[node.input[1]]
    return weights.most_common(1)[0][0]


def _kernel_ms(graph: onnx.ModelProto, profile: dict[str, float]) -> dict[str, float]:
    """The kernel times by the node names of the model.

    ONNX Runtime renames the nodes that it rewrites: to the name of their output (or of the output of a fused
    activation), with suffixes like _nchwc, _token_12 or /MatMulAddFusion.
    """
    names = {}
    activations = {node.input[0]: node.output[0] for node in graph.graph.node if node.op_type == "Relu"}
    for node in graph.graph.node:
        for alias in (node.name, node.output[0], activations.get(node.output[0])):
            if alias:
                names[alias] = node.name
    plain = {re.sub(r"(_nchwc|_token_\d+|/\w*Fusion\w*)+$", "", name): time_ms for name, time_ms in profile.items()}
    return {names[name]: time_ms for name, time_ms in plain.items() if name in names}


def _sweep(workshop: _Workshop, nodes: list[Node]) -> list[Node]:
    """Quantize each chosen node alone, and record the relative error of the first output."""
    taken = workshop.images[:_NUM_SENSITIVITY]
    expected = _first_output(workshop.prepared, taken)
    swept = []
    for node in progress_bar(nodes, "int8 sensitivity", unit="node"):
        if node.quantized:
            found = _first_output(workshop.build([node.name], workshop.scratch / "alone.onnx"), taken)
            node = dataclasses.replace(node, error=relative_error(found, expected))
        swept.append(node)
    return swept


def _first_output(path: Path, taken: npt.NDArray[Any]) -> npt.NDArray[Any]:
    model = OnnxModel(path)
    return np.concatenate([next(iter(model(item[None]).values())) for item in taken])


def _retreat(
    workshop: _Workshop, nodes: list[Node], cost: Callable[[OnnxModel], Cost]
) -> tuple[list[Node], Path, Cost]:
    """Build the model and measure its cost, with more and more sensitive nodes in float until it is tolerable.

    At most half of the nodes go back to float.
    """
    by_error = sorted((node for node in nodes if node.quantized), key=lambda node: -(node.error or 0.0))
    out = workshop.scratch / "int8.onnx"
    for share in (0.0, *_RETREAT):
        back = {node.name for node in by_error[: round(share * len(by_error))]}
        trial = [
            dataclasses.replace(node, quantized=False, reason="too sensitive") if node.name in back else node
            for node in nodes
        ]
        figures = cost(OnnxModel(workshop.build([node.name for node in trial if node.quantized], out)))
        if excess(figures) is None:
            break
    return trial, out, figures
