"""Static int8 with ONNX Runtime: per channel, quantize-dequantize pairs, on the pointwise convolutions only.

Depthwise convolutions, attention and activations stay in float: there int8 costs accuracy (depthwise) or time (every
other operator pays for the conversions around it and gains nothing).
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class _Images(CalibrationDataReader):
    def __init__(self, input_name: str, images: npt.NDArray[np.uint8]):
        self.feeds = iter([{input_name: image[None]} for image in images])

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        return next(self.feeds, None)


def quantize_to_int8(model: Path, out: Path, input_name: str, images: npt.NDArray[np.uint8]) -> int:
    """Write an int8 version of a float model.

    Args:
        images: calibration inputs uint8 [N,H,W,3], as the model takes them.

    Returns:
        The number of quantized nodes.

    Raises:
        ValueError: the model has no pointwise convolution.
    """
    with TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
        nodes = pointwise_convolutions(onnx.load(prepared))
        if not nodes:
            raise ValueError(f"{model}: int8: found no 1x1 convolution to quantize")
        quantize_static(
            prepared,
            out,
            _Images(input_name, images),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=nodes,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
    return len(nodes)


def pointwise_convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of the 1x1, ungrouped convolutions."""
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and weights.get(node.input[1], ())[2:] == (1, 1) and _groups(node) == 1
    ]


def _groups(node: onnx.NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "group"), 1)
