"""MIL's operators for compressed weights and activations, with the conventions of `mil.operators`."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def _along(x: Tensor, parameter: Tensor, axis: Tensor | None) -> Tensor:
    """A scalar or vector parameter, shaped to broadcast along `axis` of x."""
    if parameter.dim() == 0 or axis is None:
        return parameter
    return parameter.reshape([-1 if i == int(axis) % x.dim() else 1 for i in range(x.dim())])


def quantize(
    *, input: Tensor, scale: Tensor, output_dtype: str, zero_point: Tensor | None = None, axis: Tensor | None = None
) -> Tensor:
    """clip(round(input / scale) + zero_point) to the range of int8 or uint8; halves are rounded to even."""
    rounded = torch.round(input / _along(input, scale, axis))
    shifted = rounded if zero_point is None else rounded + _along(input, zero_point, axis)
    return shifted.clamp(-128, 127) if output_dtype == "int8" else shifted.clamp(0, 255)


def dequantize(*, input: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: Tensor | None = None) -> Tensor:
    """scale * (input - zero_point)."""
    shifted = input if zero_point is None else input - _along(input, zero_point, axis)
    return _along(input, scale, axis) * shifted


def constexpr_affine_dequantize(*, quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: Tensor) -> Tensor:
    """scale * (quantized_data - zero_point) along `axis`."""
    return dequantize(input=quantized_data, scale=scale, zero_point=zero_point, axis=axis)


def constexpr_blockwise_shift_scale(*, data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """scale * (data - offset), where each element of scale and offset applies to a block of data."""
    shifted = data if offset is None else data - _repeat_to(offset, data)
    return _repeat_to(scale, data) * shifted


def _repeat_to(blocks: Tensor, data: Tensor) -> Tensor:
    for axis in range(data.dim()):
        blocks = blocks.repeat_interleave(data.shape[axis] // blocks.shape[axis], axis)
    return blocks


def constexpr_lut_to_dense(
    *, indices: Tensor, lut: Tensor, shape: Tensor | None = None, vector_axis: Tensor | None = None
) -> Tensor:
    """Weights from palettes: iOS 16's one palette with packed indices, or iOS 18's palettes of groups and vectors."""
    if shape is not None:
        num_bits = int(math.log2(len(lut)))
        bits = (indices[:, None] >> torch.arange(8)) & 1  # [M,8], least significant first
        whole = bits.reshape(-1)[: math.prod(shape.tolist()) * num_bits].reshape(-1, num_bits)
        return lut[(whole << torch.arange(num_bits)).sum(1)].reshape(shape.tolist())
    groups = lut.shape[: indices.dim()]
    number = torch.arange(math.prod(groups)).reshape(groups)  # the index of the palette of each group
    vectors = lut.reshape(-1, *lut.shape[-2:])[_repeat_to(number, indices), indices]  # [*indices.shape,VECTOR_SIZE]
    if vector_axis is None:
        return vectors.squeeze(-1)
    axis = int(vector_axis) % indices.dim()
    return vectors.movedim(-1, axis + 1).flatten(axis, axis + 1)


def constexpr_cast(*, source_val: Tensor, output_dtype: str) -> Tensor:
    """Conversion from fp16 to fp32."""
    del output_dtype  # the declared type of the output is the same
    return source_val


COMPRESSION_OPERATORS: dict[str, Callable[..., Tensor]] = {
    function.__name__: function
    for function in (
        quantize, dequantize, constexpr_affine_dequantize, constexpr_blockwise_shift_scale, constexpr_lut_to_dense,
        constexpr_cast,
    )
}  # fmt: skip
