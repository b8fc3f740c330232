"""Every operator against its definition in the MIL documentation, implemented with loops in NumPy float64."""

import gc
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from mobileclip_dense.deploy.coreml.mil.compression import COMPRESSION_OPERATORS
from mobileclip_dense.deploy.coreml.mil.executor import run_program
from mobileclip_dense.deploy.coreml.mil.operators import OPERATORS
from mobileclip_dense.deploy.coreml.mil.program import MilProgram, load_program

RNG = np.random.default_rng(0)
IOS15, IOS16, IOS17, IOS18 = ct.target.iOS15, ct.target.iOS16, ct.target.iOS17, ct.target.iOS18
Array = np.ndarray[Any, Any]


def numbers(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def build_program(
    folder: Path, build: Callable[..., Any], inputs: Sequence[Array], target: Any = IOS16, dtype: Any = types.fp32
) -> MilProgram:
    """The program of `build`, from variables x and y to variables, saved without graph passes and loaded again."""
    kinds = [types.int32 if array.dtype == np.int32 else dtype for array in inputs]
    specs = [mb.TensorSpec(shape=array.shape, dtype=kind) for array, kind in zip(inputs, kinds, strict=True)]
    program = mb.program(input_specs=specs, opset_version=target)(build)
    gc.freeze()  # convert collects garbage, 0.4 s among the objects of all that is imported here
    model = ct.convert(
        program, convert_to="mlprogram", pass_pipeline=ct.PassPipeline.EMPTY, minimum_deployment_target=target,
        compute_precision=ct.precision.FLOAT32, skip_model_load=True,
    )  # fmt: skip
    gc.unfreeze()
    model.save(str(folder / "model.mlpackage"))
    return load_program(folder / "model.mlpackage")


def run(program: MilProgram, *inputs: Array, precision: Any = "fp32") -> list[Array]:
    answers = run_program(program, dict(zip(program.function.inputs, inputs, strict=True)), precision=precision)
    return [answers[variable.name] for variable in program.function.outputs]


def check(folder: Path, operator: str, build: Callable[..., Any], expected: Any, *inputs: Array, target: Any) -> None:
    """Verify that the program still has the operator, and computes the same as `expected` on float64 inputs."""
    program = build_program(folder, build, inputs, target)
    assert operator in {operation.op_type for operation in program.function.operations}
    wide = [array.astype(np.float64) if array.dtype == np.float32 else array for array in inputs]
    truth = expected(*wide)
    for found, right in zip(run(program, *inputs), truth if isinstance(truth, list) else [truth], strict=True):
        assert found.shape == np.shape(right)
        np.testing.assert_allclose(found, right, rtol=2e-5, atol=2e-6)


def convolve(x: Array, w: Array, b: Array, pads: list[tuple[int, int]], s: list[int], d: list[int], g: int) -> Array:
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    kernel = w.shape[2:]
    sizes = [(x.shape[2 + i] - (kernel[i] - 1) * d[i] - 1) // s[i] + 1 for i in range(len(kernel))]
    out = np.zeros((len(x), len(w), *sizes))
    per_group_in, per_group_out = w.shape[1], len(w) // g
    for n, c, place in itertools.product(range(len(x)), range(len(w)), itertools.product(*map(range, sizes))):
        total = float(b[c])
        for k, offset in itertools.product(range(per_group_in), itertools.product(*map(range, kernel))):
            source = tuple(place[i] * s[i] + offset[i] * d[i] for i in range(len(kernel)))
            total += x[(n, c // per_group_out * per_group_in + k, *source)] * w[(c, k, *offset)]
        out[(n, c, *place)] = total
    return out


# pad_type, pad, sizes, kernel, strides, dilations, groups, and the padding that it comes to
CONVOLUTIONS = {
    "valid": ("valid", [0] * 4, [5, 6], [3, 2], [1, 1], [1, 1], 1, [(0, 0), (0, 0)]),
    "custom, lopsided": ("custom", [1, 0, 2, 1], [5, 6], [3, 2], [2, 1], [1, 1], 1, [(1, 0), (2, 1)]),
    "custom, dilated": ("custom", [2, 2, 2, 2], [7, 6], [3, 3], [1, 2], [2, 2], 1, [(2, 2), (2, 2)]),
    "depthwise": ("custom", [1, 1, 1, 1], [4, 5], [3, 3], [1, 1], [1, 1], 4, [(1, 1), (1, 1)]),
    "two groups": ("custom", [1, 1, 1, 1], [4, 5], [3, 3], [2, 2], [1, 1], 2, [(1, 1), (1, 1)]),
    "same, odd kernel": ("same", [0] * 4, [5, 6], [3, 5], [1, 1], [1, 1], 1, [(1, 1), (2, 2)]),
    "same, ceil(6/2) and ceil(7/2)": ("same", [0] * 4, [6, 7], [3, 3], [2, 2], [1, 1], 1, [(0, 1), (1, 1)]),
    "same, even kernel": ("same", [0] * 4, [5, 6], [2, 4], [1, 1], [1, 1], 1, [(0, 1), (1, 2)]),
    "same_lower": ("same_lower", [0] * 4, [6, 7], [3, 2], [2, 1], [1, 1], 1, [(1, 0), (1, 0)]),
    "one dimension": ("custom", [1, 2], [7], [3], [2], [1], 1, [(1, 2)]),
    "three dimensions": ("custom", [1, 1, 0, 0, 1, 0], [3, 3, 4], [3, 2, 2], [1, 1, 2], [1, 1, 1], 2,
                         [(1, 1), (0, 0), (1, 0)]),
}  # fmt: skip


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_conv_is_the_sum_that_the_documentation_gives(name: str, with_bias: bool, tmp_path: Path) -> None:
    pad_type, pad, sizes, kernel, strides, dilations, groups, pads = CONVOLUTIONS[name]
    x, w, b = numbers(2, 4, *sizes), numbers(8, 4 // groups, *kernel), numbers(8) * with_bias
    settings = dict(pad_type=pad_type, strides=strides, dilations=dilations, groups=groups)
    settings |= dict(pad=pad) if pad_type == "custom" else {}
    settings |= dict(bias=b) if with_bias else {}
    check(tmp_path, "conv", lambda x: mb.conv(x=x, weight=w, **settings),
          lambda x: convolve(x, w, b, pads, strides, dilations, groups), x, target=IOS16)  # fmt: skip


def spread(x: Array, w: Array, b: Array, pads: list[int], s: list[int], d: list[int], g: int) -> Array:
    """Transposed convolution as a sum over inputs and kernel positions, cropped at the edges."""
    (n, c_in, h, width), (_, per_group, kh, kw) = x.shape, w.shape
    top, bottom, left, right = pads
    high, wide = ((h - 1) * s[0] + (kh - 1) * d[0] + 1, (width - 1) * s[1] + (kw - 1) * d[1] + 1)
    out = np.zeros((n, per_group * g, high, wide)) + b[None, :, None, None]
    for ci, o, i, j, u, v in itertools.product(*map(range, (c_in, per_group, h, width, kh, kw))):
        co = ci // (c_in // g) * per_group + o
        out[:, co, i * s[0] + u * d[0], j * s[1] + v * d[1]] += x[:, ci, i, j] * w[ci, o, u, v]
    return out[:, :, top : high - bottom, left : wide - right]


@pytest.mark.parametrize(
    ("pads", "strides", "dilations", "groups"),
    [([0, 0, 0, 0], [2, 2], [1, 1], 1), ([1, 0, 0, 2], [2, 3], [1, 2], 2)],
)
def test_conv_transpose_is_the_sum_that_the_documentation_gives(
    pads: list[int], strides: list[int], dilations: list[int], groups: int, tmp_path: Path
) -> None:
    x, w, b = numbers(1, 4, 3, 4), numbers(4, 6 // groups, 3, 2), numbers(6)
    expected = spread(*(array.astype(np.float64) for array in (x, w, b)), pads, strides, dilations, groups)
    settings = dict(strides=strides, dilations=dilations, groups=groups, pad=pads, bias=b, pad_type="custom",
                    output_shape=list(expected.shape))  # fmt: skip
    check(tmp_path, "conv_transpose", lambda x: mb.conv_transpose(x=x, weight=w, **settings),
          lambda x: spread(x, w, b, pads, strides, dilations, groups), x, target=IOS16)  # fmt: skip


def mapped(function: Callable[[float], float]) -> Callable[[Array], Array]:
    return lambda x: np.vectorize(function)(x).astype(np.float64)


def softmax(x: Array, axis: int) -> Array:
    return np.exp(x) / np.exp(x).sum(axis, keepdims=True)


def attention(q: Array, k: Array, v: Array, mask: Array | float = 0.0) -> Array:
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    for batch in np.ndindex(q.shape[:-2]):
        scores = q[batch] @ k[batch].T / math.sqrt(q.shape[-1]) + mask
        out[batch] = softmax(scores, -1) @ v[batch]
    return out


def normalized(x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float) -> Array:
    out = np.zeros(x.shape)
    for i in range(x.shape[1]):
        out[:, i] = gamma[i] * (x[:, i] - mean[i]) / math.sqrt(variance[i] + epsilon) + beta[i]
    return out


def layer_normalized(x: Array, gamma: Array, beta: Array, epsilon: float) -> Array:
    """Over axes 1 and 3 of four."""
    out = np.zeros(x.shape)
    for i, j in np.ndindex(x.shape[0], x.shape[2]):
        part = x[i, :, j, :]
        out[i, :, j, :] = gamma * (part - part.mean()) / math.sqrt(part.var() + epsilon) + beta
    return out


X, Y = numbers(2, 3, 4, 5), numbers(2, 3, 4, 5)
A, B = numbers(2, 1, 3, 4), numbers(3, 4, 5)
Q, K, V = numbers(2, 3, 4, 6), numbers(2, 3, 5, 6), numbers(2, 3, 5, 7)
GAMMA, BETA, MEAN, VARIANCE = numbers(3), numbers(3), numbers(3), numbers(3) ** 2
WEIGHT, BIAS = numbers(6, 5), numbers(6)
WIDE, HIGH = numbers(3, 5), numbers(3, 5)
MASK, KEPT = numbers(4, 5), RNG.random((4, 5)) < 0.6
KEPT[:, 0] = True
TOKENS = np.array([[3, 0, 2], [1, 1, 3]], np.int32)
TABLE = numbers(4, 5)

# operator, target, program, definition, inputs
CASES: dict[str, tuple[str, Any, Callable[..., Any], Callable[..., Any], tuple[Array, ...]]] = {
    "add, broadcast": ("add", IOS15, lambda x: mb.add(x=x, y=Y[0, :, :1]), lambda x: x + Y[0, :, :1], (X,)),
    "sub": ("sub", IOS15, lambda x, y: mb.sub(x=x, y=y), lambda x, y: x - y, (X, Y)),
    "mul": ("mul", IOS15, lambda x, y: mb.mul(x=x, y=y), lambda x, y: x * y, (X, Y)),
    "real_div": ("real_div", IOS15, lambda x, y: mb.real_div(x=x, y=y), lambda x, y: x / y, (X, Y)),
    "pow": ("pow", IOS15, lambda x: mb.pow(x=x, y=3.0), lambda x: x * x * x, (X,)),
    "maximum": ("maximum", IOS15, lambda x: mb.maximum(x=x, y=0.25), mapped(lambda v: max(v, 0.25)), (X,)),
    "sqrt": ("sqrt", IOS15, lambda x: mb.sqrt(x=x), mapped(math.sqrt), (X**2,)),
    "rsqrt": ("rsqrt", IOS15, lambda x: mb.rsqrt(x=x, epsilon=0.5), mapped(lambda v: 1 / math.sqrt(v + 0.5)), (X**2,)),
    "relu": ("relu", IOS15, lambda x: mb.relu(x=x), mapped(lambda v: max(v, 0)), (X,)),
    "sigmoid": ("sigmoid", IOS15, lambda x: mb.sigmoid(x=x), mapped(lambda v: 1 / (1 + math.exp(-v))), (X,)),
    "clip": ("clip", IOS17, lambda x: mb.clip(x=x, alpha=-0.5, beta=0.25),
             lambda x: np.minimum(np.maximum(x, -0.5), 0.25), (X,)),
    "identity": ("identity", IOS15, lambda x: mb.identity(x=x), lambda x: x, (X,)),
    "gelu, exact": ("gelu", IOS15, lambda x: mb.gelu(x=x, mode="EXACT"),
                    mapped(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2)))), (3 * X,)),
    "gelu, exact by default": ("gelu", IOS15, lambda x: mb.gelu(x=x),
                               mapped(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2)))), (3 * X,)),
    "gelu, tanh": ("gelu", IOS15, lambda x: mb.gelu(x=x, mode="TANH_APPROXIMATION"),
                   mapped(lambda v: 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))),
                   (3 * X,)),
    "gelu, sigmoid": ("gelu", IOS15, lambda x: mb.gelu(x=x, mode="SIGMOID_APPROXIMATION"),
                      mapped(lambda v: v / (1 + math.exp(-1.702 * v))), (3 * X,)),
    "softmax": ("softmax", IOS15, lambda x: mb.softmax(x=x, axis=1), lambda x: softmax(x, 1), (X,)),
    "linear": ("linear", IOS15, lambda x: mb.linear(x=x, weight=WEIGHT, bias=BIAS),
               lambda x: np.einsum("ni,oi->no", x, WEIGHT) + BIAS, (WIDE,)),
    "linear, no bias": ("linear", IOS17, lambda x: mb.linear(x=x, weight=WEIGHT),
                        lambda x: np.einsum("ni,oi->no", x, WEIGHT), (WIDE,)),
    "matmul, broadcast": ("matmul", IOS15, lambda x, y: mb.matmul(x=x, y=y),
                          lambda x, y: np.einsum("bcij,cjk->bcik", np.repeat(x, 3, 1), y), (A, B)),
    "matmul, x transposed": ("matmul", IOS15, lambda x, y: mb.matmul(x=x, y=y, transpose_x=True),
                             lambda x, y: np.einsum("ji,jk->ik", x, y), (WIDE, HIGH)),
    "matmul, y transposed": ("matmul", IOS15, lambda x, y: mb.matmul(x=x, y=y, transpose_y=True),
                             lambda x, y: np.einsum("ij,kj->ik", x, y), (WIDE, HIGH)),
    "attention": ("scaled_dot_product_attention", IOS18,
                  lambda q, k, v: mb.scaled_dot_product_attention(query=q, key=k, value=v), attention, (Q, K, V)),
    "attention, added mask": (
        "scaled_dot_product_attention", IOS18,
        lambda q, k, v: mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=MASK),
        lambda q, k, v: attention(q, k, v, MASK), (Q, K, V)),
    "attention, truth mask": (
        "scaled_dot_product_attention", IOS18,
        lambda q, k, v: mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=KEPT),
        lambda q, k, v: attention(q, k, v, np.where(KEPT, 0, -np.inf)), (Q, K, V)),
    "batch_norm": ("batch_norm", IOS15,
                   lambda x: mb.batch_norm(x=x, mean=MEAN, variance=VARIANCE, gamma=GAMMA, beta=BETA, epsilon=1e-2),
                   lambda x: normalized(x, GAMMA, BETA, MEAN, VARIANCE, 1e-2), (X,)),
    "batch_norm, defaults": ("batch_norm", IOS17, lambda x: mb.batch_norm(x=x, mean=MEAN, variance=VARIANCE),
                             lambda x: normalized(x, np.ones(3), np.zeros(3), MEAN, VARIANCE, 1e-5), (X,)),
    "layer_norm": ("layer_norm", IOS15,
                   lambda x: mb.layer_norm(x=x, axes=[1, -1], gamma=X[0, :, 0], beta=Y[0, :, 0], epsilon=1e-2),
                   lambda x: layer_normalized(x, X[0, :, 0], Y[0, :, 0], 1e-2), (X,)),
    "l2_norm": ("l2_norm", IOS15, lambda x: mb.l2_norm(x=x, epsilon=0.1),
                lambda x: np.stack([part / math.sqrt((part**2).sum() + np.float32(0.1)) for part in x]), (X,)),
    "reduce_mean": ("reduce_mean", IOS15, lambda x: mb.reduce_mean(x=x, axes=[2, 3], keep_dims=True),
                    lambda x: x.sum((2, 3), keepdims=True) / 20, (X,)),
    "reduce_mean, all": ("reduce_mean", IOS15, lambda x: mb.reduce_mean(x=x), lambda x: x.sum() / 120, (X,)),
    "reduce_sum": ("reduce_sum", IOS15, lambda x: mb.reduce_sum(x=x, axes=[-1, 0]), lambda x: x.sum((0, 3)), (X,)),
    "reduce_l2_norm": ("reduce_l2_norm", IOS15, lambda x: mb.reduce_l2_norm(x=x, axes=[1], keep_dims=True),
                       lambda x: np.sqrt((x**2).sum(1, keepdims=True)), (X,)),
    "reduce_argmax": ("reduce_argmax", IOS15, lambda x: mb.reduce_argmax(x=x, axis=1), lambda x: x.argmax(1), (X,)),
    "reduce_argmax, kept": ("reduce_argmax", IOS17,
                            lambda x: mb.reduce_argmax(x=x, axis=-2, keep_dims=True, output_dtype="uint16"),
                            lambda x: x.argmax(-2)[:, :, None].astype(np.uint16), (X,)),
    "reshape, the rest": ("reshape", IOS15, lambda x: mb.reshape(x=x, shape=[3, -1]),
                          lambda x: np.array([x.ravel()[i : i + 40] for i in (0, 40, 80)]), (X,)),
    "reshape, inherited": ("reshape", IOS15, lambda x: mb.reshape(x=x, shape=[0, 0, 20, 1]),
                           lambda x: x.ravel().reshape(2, 3, 20, 1), (X,)),
    "reshape, from the right": ("reshape", IOS17, lambda x: mb.reshape(x=x, shape=[1, 0, -1, 0]),
                                lambda x: x.ravel().reshape(1, 1, 3, 5), (WIDE,)),
    "transpose": ("transpose", IOS15, lambda x: mb.transpose(x=x, perm=[-2, 0, 3, 1]),
                  lambda x: np.array([[[[x[b, c, a, d] for c in range(3)] for d in range(5)] for b in range(2)]
                                      for a in range(4)]), (X,)),
    "squeeze": ("squeeze", IOS15, lambda x: mb.squeeze(x=x, axes=[1]), lambda x: x[:, 0], (A,)),
    "squeeze, all": ("squeeze", IOS15, lambda x: mb.squeeze(x=x), lambda x: x[0, 0], (X[:1, :1],)),
    "expand_dims": ("expand_dims", IOS15, lambda x: mb.expand_dims(x=x, axes=[-1, 0]), lambda x: x[None, ..., None],
                    (WIDE,)),
    "split, sizes": ("split", IOS15, lambda x: tuple(mb.split(x=x, axis=3, split_sizes=[1, 3, 1])),
                     lambda x: [x[..., :1], x[..., 1:4], x[..., 4:]], (X,)),
    "split, number": ("split", IOS15, lambda x: tuple(mb.split(x=x, axis=-2, num_splits=2)),
                      lambda x: [x[:, :, :2], x[:, :, 2:]], (X,)),
    "concat": ("concat", IOS15, lambda x, y: mb.concat(values=[x, y], axis=-1),
               lambda x, y: np.array([[*a, *b] for a, b in zip(x, y, strict=True)]), (WIDE, HIGH)),
    "concat, interleaved": ("concat", IOS15, lambda x, y: mb.concat(values=[x, y], axis=0, interleave=True),
                            lambda x, y: np.array([x[0], y[0], x[1], y[1], x[2], y[2]]), (WIDE, HIGH)),
    "stack": ("stack", IOS15, lambda x, y: mb.stack(values=[x, y], axis=1),
              lambda x, y: np.array([[a, b] for a, b in zip(x, y, strict=True)]), (WIDE, HIGH)),
    "tile": ("tile", IOS15, lambda x: mb.tile(x=x, reps=[2, 3]), lambda x: np.block([[x] * 3] * 2), (WIDE,)),
    "slice_by_index": ("slice_by_index", IOS15,
                       lambda x: mb.slice_by_index(x=x, begin=[1, 0], end=[3, -1], stride=[1, 2]),
                       lambda x: x[1:3, 0:-1:2], (WIDE,)),
    "slice_by_index, masks": (
        "slice_by_index", IOS15,
        lambda x: mb.slice_by_index(x=x, begin=[1, 2, 3, 4], end=[0, 3, 1, 0], stride=[1, 1, 1, -2],
                                    begin_mask=[True, False, False, False], end_mask=[True, False, True, True],
                                    squeeze_mask=[False, True, False, False]),
        lambda x: np.stack([x[:, 2, 3:, 4], x[:, 2, 3:, 2], x[:, 2, 3:, 0]], -1), (X,)),
    "gather": ("gather", IOS15, lambda i: mb.gather(x=TABLE, indices=i, axis=0),
               lambda i: np.array([[TABLE[v] for v in row] for row in i]), (TOKENS,)),
    "gather, inner axis, from the end": (
        "gather", IOS16, lambda x: mb.gather(x=x, indices=np.array([-1, 0], np.int32), axis=2),
        lambda x: np.stack([x[:, :, 3], x[:, :, 0]], 2), (X,)),
    "gather, by batch": ("gather", IOS17, lambda x, i: mb.gather(x=x, indices=i, axis=2, batch_dims=1),
                         lambda x, i: np.stack([np.stack([x[b, :, v] for v in i[b]], 1) for b in range(2)]),
                         (X, TOKENS)),
    "gather_nd": ("gather_nd", IOS16, lambda x, i: mb.gather_nd(x=x, indices=i),
                  lambda x, i: np.stack([x[a, b, c] for a, b, c in i]),
                  (X, np.array([[1, 2, 3], [0, 1, 0]], np.int32))),
    "gather_nd, by batch": ("gather_nd", IOS17, lambda x, i: mb.gather_nd(x=x, indices=i, batch_dims=1),
                            lambda x, i: np.stack([x[b, i[b, 0], i[b, 1]] for b in range(2)]),
                            (X, np.array([[2, 3], [0, 1]], np.int32))),
    "greater_equal, select": (
        "select", IOS17,
        lambda x: mb.select(cond=mb.greater_equal(x=x, y=np.float32(0.1)), a=mb.mul(x=x, y=np.float32(2)), b=x),
        mapped(lambda v: 2 * v if v >= np.float32(0.1) else v), (X,)),
    "cast, towards zero": ("cast", IOS15, lambda x: mb.cast(x=x, dtype="int32"), mapped(math.trunc), (3 * X,)),
    "cast, truth": ("cast", IOS15, lambda x: mb.cast(x=mb.cast(x=x, dtype="bool"), dtype="fp32"),
                    mapped(lambda v: v != 0), (np.array([0.0, 0.3, -2.0], np.float32),)),
    "cast, int8": ("cast", IOS17, lambda x: mb.cast(x=mb.cast(x=x, dtype="int8"), dtype="fp32"), mapped(math.trunc),
                   (3 * X,)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_operator_is_its_definition(name: str, tmp_path: Path) -> None:
    operator, target, build, definition, inputs = CASES[name]
    check(tmp_path, operator, build, definition, *inputs, target=target)


def test_every_operator_has_a_definition_in_these_tests() -> None:
    """The operators for resizing and compression have their own test files."""
    here = {operator for operator, *_ in CASES.values()} | {"conv", "conv_transpose", "greater_equal"}
    resizing = {f"{how}_{kind}" for how in ("resize", "upsample") for kind in ("bilinear", "nearest_neighbor")}
    assert here | resizing | set(COMPRESSION_OPERATORS) == set(OPERATORS)
