"""Compressed weights and activations, against the MIL documentation implemented in NumPy float64."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from mobileclip_dense.deploy.coreml.mil.compression import COMPRESSION_OPERATORS
from tests.deploy.test_mil_operators import IOS16, IOS17, IOS18, RNG, Array, check, numbers

ZERO = np.zeros(1, np.float32)
INT8 = RNG.integers(-128, 128, (4, 6), dtype=np.int8)
UINT8 = RNG.integers(0, 256, (4, 6), dtype=np.uint8)
SCALES = numbers(4) ** 2 + np.float32(0.1)
INT4 = RNG.integers(-8, 8, (4, 6)).astype(types.nptype_from_builtin(types.int4))
HALF = numbers(4, 6).astype(np.float16)
BLOCKS, OFFSETS = numbers(2, 3), RNG.integers(-128, 128, (2, 3), dtype=np.int8)
X = 3 * numbers(4, 6)
HALVES = np.array([0.5, 1.5, -2.5, 0.49, 90, -90], np.float32)


def packed(indices: list[int], num_bits: int) -> Array:
    """Pack the values into one number, least significant element and byte first, as in the documentation."""
    number = sum(index << (i * num_bits) for i, index in enumerate(indices))
    return np.frombuffer(number.to_bytes(-(-len(indices) * num_bits // 8), "little"), np.uint8).copy()


def palette_16(num_bits: int) -> tuple[str, Any, Callable[..., Any], Callable[..., Any], tuple[Array, ...]]:
    indices = RNG.integers(0, 2**num_bits, 15).tolist()
    lut = numbers(2**num_bits)
    shape = np.array([3, 5], np.uint32)
    return (
        "constexpr_lut_to_dense", IOS16,
        lambda x: mb.add(x=x, y=mb.constexpr_lut_to_dense(indices=packed(indices, num_bits), lut=lut, shape=shape)),
        lambda x: np.array([[lut[indices[5 * i + j]] for j in range(5)] for i in range(3)]), (ZERO,),
    )  # fmt: skip


def palette_18(
    num_bits: int, groups: tuple[int, int], vector: int = 1, axis: int | None = None
) -> tuple[str, Any, Callable[..., Any], Callable[..., Any], tuple[Array, ...]]:
    kind = types.nptype_from_builtin(types.string_to_builtin(f"uint{num_bits}"))
    indices = RNG.integers(0, 2**num_bits, (6, 4)).astype(kind)
    lut = numbers(*groups, 2**num_bits, vector)

    def definition(x: Array) -> Array:
        shape = [size * (vector if i == axis else 1) for i, size in enumerate(indices.shape)]
        out = np.zeros(shape)
        for place in np.ndindex(*shape):
            source = tuple(v // (vector if i == axis else 1) for i, v in enumerate(place))
            group = tuple(source[i] // (indices.shape[i] // groups[i]) for i in range(2))
            element = 0 if axis is None else place[axis] % vector
            out[place] = lut[(*group, int(indices[source]), element)]
        return out

    settings = {} if axis is None else {"vector_axis": np.int32(axis)}
    return (
        "constexpr_lut_to_dense", IOS18,
        lambda x: mb.add(x=x, y=mb.constexpr_lut_to_dense(indices=indices, lut=lut, **settings)), definition, (ZERO,),
    )  # fmt: skip


def blockwise(data: Array, offset: Array | None) -> Callable[[Array], Array]:
    """Blocks of 2x2."""

    def definition(x: Array) -> Array:
        out = np.zeros(data.shape)
        for i, j in np.ndindex(*data.shape):
            zero = 0 if offset is None else float(offset[i // 2, j // 2])
            out[i, j] = float(BLOCKS[i // 2, j // 2]) * (float(data[i, j]) - zero)
        return out

    return definition


def quantized(x: Array, scale: Array, zero: Array, low: int, high: int) -> Array:
    out = np.zeros(x.shape)
    for place in np.ndindex(*x.shape):
        out[place] = min(max(round(x[place] / scale[place[0]]) + int(zero[place[0]]), low), high)
    return out


# operator, target, program, definition, inputs
CASES: dict[str, tuple[str, Any, Callable[..., Any], Callable[..., Any], tuple[Array, ...]]] = {
    **{f"palette of {bits} bits": palette_16(bits) for bits in (1, 2, 4, 6, 8)},
    **{f"palettes by group, {bits} bits": palette_18(bits, (3, 2)) for bits in (1, 2, 3, 4, 6, 8)},
    "palette of vectors along rows": palette_18(4, (2, 1), vector=3, axis=0),
    "palette of vectors along columns": palette_18(2, (1, 2), vector=2, axis=1),
    "affine, by channel": (
        "constexpr_affine_dequantize", IOS16,
        lambda x: mb.add(x=x, y=mb.constexpr_affine_dequantize(
            quantized_data=INT8, zero_point=np.int8([3, 0, -5, 127]), scale=SCALES, axis=0)),
        lambda x: SCALES[:, None].astype(np.float64) * (INT8 - np.array([[3.0], [0], [-5], [127]])), (ZERO,)),
    "affine, one scale": (
        "constexpr_affine_dequantize", IOS16,
        lambda x: mb.add(x=x, y=mb.constexpr_affine_dequantize(
            quantized_data=UINT8, zero_point=np.uint8(200), scale=np.float32(0.03), axis=0)),
        lambda x: float(np.float32(0.03)) * (UINT8.astype(np.float64) - 200), (ZERO,)),
    "blockwise int8": (
        "constexpr_blockwise_shift_scale", IOS18,
        lambda x: mb.add(x=x, y=mb.constexpr_blockwise_shift_scale(data=INT8, scale=BLOCKS, offset=OFFSETS)),
        blockwise(INT8, OFFSETS), (ZERO,)),
    "blockwise int4": (
        "constexpr_blockwise_shift_scale", IOS18,
        lambda x: mb.add(x=x, y=mb.constexpr_blockwise_shift_scale(data=INT4, scale=BLOCKS)),
        blockwise(INT4, None), (ZERO,)),
    "constexpr_cast": (
        "constexpr_cast", IOS16, lambda x: mb.add(x=x, y=mb.constexpr_cast(source_val=HALF, output_dtype="fp32")),
        lambda x: HALF.astype(np.float64), (ZERO,)),
    "quantize, one scale": (
        "quantize", IOS17,
        lambda x: mb.cast(x=mb.quantize(input=x, scale=np.float32(0.5), output_dtype="int8"), dtype="int32"),
        lambda x: np.array([1.0, 3, -5, 1, 127, -128]), (HALVES,)),
    "quantize, halves to even": (
        "quantize", IOS17,
        lambda x: mb.cast(x=mb.quantize(input=x, scale=np.float32(1), output_dtype="int8"), dtype="int32"),
        lambda x: np.array([0.0, 2, -2, 0, 90, -90]), (HALVES,)),
    "quantize, by channel": (
        "quantize", IOS17,
        lambda x: mb.cast(x=mb.quantize(input=x, scale=SCALES, zero_point=np.uint8([0, 1, 128, 255]), axis=0,
                                        output_dtype="uint8"), dtype="int32"),
        lambda x: quantized(x, SCALES.astype(np.float64), np.array([0, 1, 128, 255]), 0, 255), (X,)),
    "dequantize": (
        "dequantize", IOS17,
        lambda x: mb.dequantize(input=mb.quantize(input=x, scale=np.float32(0.25), output_dtype="int8"),
                                scale=SCALES, zero_point=np.int8([3, 0, -5, 100]), axis=-2),
        lambda x: SCALES[:, None].astype(np.float64) * (np.clip(np.round(x * 4), -128, 127)
                                                        - np.array([[3.0], [0], [-5], [100]])), (X,)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_compressed_form_is_its_definition(name: str, tmp_path: Path) -> None:
    operator, target, build, definition, inputs = CASES[name]
    check(tmp_path, operator, build, definition, *inputs, target=target)


def test_every_compression_operator_has_a_definition_here() -> None:
    assert {operator for operator, *_ in CASES.values()} == set(COMPRESSION_OPERATORS)
