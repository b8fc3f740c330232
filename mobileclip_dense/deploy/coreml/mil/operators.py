"""The operators of Core ML's ML programs that our models use, as defined by their MIL documentation.

Every function takes the parameters of the operator by their MIL names: floats as float32 tensors, integers as int32,
booleans as bool, strings as str. The caller rounds results to the declared type. The documentation is in the docstrings
of `coremltools.converters.mil.mil.ops.defs`. Parameters that newer operator sets add are optional here.
"""

import math
from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor
from torch.nn import functional as F

from mobileclip_dense.deploy.coreml.mil.compression import COMPRESSION_OPERATORS

Operator = Callable[..., Tensor | list[Tensor]]


def conv(
    *, x: Tensor, weight: Tensor, strides: Tensor, pad_type: str, pad: Tensor, dilations: Tensor, groups: Tensor,
    bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """[n,C_in,*d_in], [C_out,C_in/groups,*K] -> [n,C_out,*d_out], one to three spatial dimensions."""
    kernel = [(size - 1) * dilation + 1 for size, dilation in zip(weight.shape[2:], dilations.tolist(), strict=True)]
    padding = _padding(pad_type, pad.tolist(), list(x.shape[2:]), kernel, strides.tolist())
    if all(before == after for before, after in padding):
        symmetric = [before for before, _ in padding]
    else:
        x, symmetric = F.pad(x, list(chain(*reversed(padding)))), [0] * len(padding)
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(padding)]
    return function(x, weight, bias, strides.tolist(), symmetric, dilations.tolist(), int(groups))


def conv_transpose(
    *, x: Tensor, weight: Tensor, strides: Tensor, pad_type: str, pad: Tensor, dilations: Tensor, groups: Tensor,
    bias: Tensor | None = None, output_shape: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """[n,C_in,h,w], [C_in,C_out/groups,*K] -> [n,C_out,*d_out]: transposed convolution, cropped by the padding.

    Raises:
        ValueError: pad_type is same, for which the documentation does not define the cropped edge; or `output_shape`
            does not fit the padding.
    """
    if pad_type == "same":
        raise ValueError("conv_transpose: pad_type: found same, expected valid or custom")
    whole = F.conv_transpose2d(
        x, weight, bias, strides.tolist(), groups=int(groups), dilation=tuple(dilations.tolist())
    )
    top, bottom, left, right = pad.tolist() if pad_type == "custom" else [0] * 4
    cut = whole[:, :, top : whole.shape[2] - bottom, left : whole.shape[3] - right]
    if output_shape is not None and output_shape.tolist() != list(cut.shape):
        raise ValueError(f"conv_transpose: output_shape: found {output_shape.tolist()}, expected {list(cut.shape)}")
    return cut


def _padding(pad_type: str, pad: list[int], size: list[int], kernel: list[int], stride: list[int]) -> list[list[int]]:
    """The number of padded elements before and after, for each spatial dimension.

    `same` gives the documented output size, ceil(size / stride), with an odd element at the end (in `same_lower`, at
    the beginning), like TensorFlow's SAME, which converters map to it. The documentation also gives a formula, half the
    kernel on both sides. Both agree for odd kernels at stride 1, the only case in PyTorch's models.
    """
    if pad_type == "valid":
        return [[0, 0] for _ in size]
    if pad_type == "custom":
        return [pad[i : i + 2] for i in range(0, len(pad), 2)]
    padding = []
    for d, k, s in zip(size, kernel, stride, strict=True):
        total = max((math.ceil(d / s) - 1) * s + k - d, 0)
        padding.append([total // 2, total - total // 2] if pad_type == "same" else [total - total // 2, total // 2])
    return padding


def matmul(*, x: Tensor, y: Tensor, transpose_x: Tensor, transpose_y: Tensor) -> Tensor:
    """NumPy's matmul; a flag swaps the last two dimensions and has no effect on a vector."""
    x = x.mT if transpose_x and x.dim() > 1 else x
    y = y.mT if transpose_y and y.dim() > 1 else y
    return torch.matmul(x, y)


def scaled_dot_product_attention(
    *, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    """[B,*,L,E], [B,*,S,E], [B,*,S,EV] -> [B,*,L,EV]; a bool mask is true for kept scores, a float mask is added."""
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1) @ value


def gelu(*, x: Tensor, mode: str) -> Tensor:
    """GELU; `mode` is EXACT (erf), TANH_APPROXIMATION or SIGMOID_APPROXIMATION."""
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate={"EXACT": "none", "TANH_APPROXIMATION": "tanh"}[mode])


def batch_norm(
    *, x: Tensor, mean: Tensor, variance: Tensor, epsilon: Tensor, gamma: Tensor | None = None,
    beta: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """gamma (x - mean) / sqrt(variance + epsilon) + beta along dimension 1."""
    return F.batch_norm(x, mean, variance, gamma, beta, eps=float(epsilon))


def layer_norm(
    *, x: Tensor, axes: Tensor, epsilon: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None
) -> Tensor:
    """gamma (x - E[x]) / sqrt(Var[x] + epsilon) + beta; gamma and beta have the sizes of `axes` only."""
    chosen = {axis % x.dim() for axis in axes.tolist()}
    shape = [size if axis in chosen else 1 for axis, size in enumerate(x.shape)]
    centred = x - x.mean(sorted(chosen), keepdim=True)
    y = centred / torch.sqrt(centred.square().mean(sorted(chosen), keepdim=True) + epsilon)
    y = y if gamma is None else y * gamma.reshape(shape)
    return y if beta is None else y + beta.reshape(shape)


def l2_norm(*, x: Tensor, epsilon: Tensor) -> Tensor:
    """x divided by the norm over its last three dimensions, with epsilon under the root."""
    return x / torch.sqrt(x.square().sum((-3, -2, -1), keepdim=True) + epsilon)


def _axes(x: Tensor, axes: Tensor | None) -> list[int]:
    return list(range(x.dim())) if axes is None else axes.tolist()


def reduce_mean(*, x: Tensor, keep_dims: Tensor, axes: Tensor | None = None) -> Tensor:
    """Mean over `axes`, all by default."""
    return x.mean(_axes(x, axes), keepdim=bool(keep_dims))


def reduce_sum(*, x: Tensor, keep_dims: Tensor, axes: Tensor | None = None) -> Tensor:
    """Sum over `axes`, all by default."""
    return x.sum(_axes(x, axes), keepdim=bool(keep_dims))


def reduce_l2_norm(*, x: Tensor, keep_dims: Tensor, axes: Tensor | None = None) -> Tensor:
    """Root of the sum of squares over `axes`, all by default."""
    return x.square().sum(_axes(x, axes), keepdim=bool(keep_dims)).sqrt()


def reduce_argmax(*, x: Tensor, axis: Tensor, keep_dims: Tensor, output_dtype: str = "int32") -> Tensor:
    """Index of the largest value; the choice among equal values is undefined."""
    del output_dtype  # the declared type of the output is the same
    return x.argmax(int(axis), keepdim=bool(keep_dims))


def reshape(*, x: Tensor, shape: Tensor) -> Tensor:
    """Reshape; a size of -1 is inferred, 0 copies x's size at the same position from the right (1 if there is none)."""
    sizes = shape.tolist()
    sources = [x.dim() - len(sizes) + i for i in range(len(sizes))]
    inherited = [x.shape[source] if source >= 0 else 1 for source in sources]
    return x.reshape([size or here for size, here in zip(sizes, inherited, strict=True)])


def squeeze(*, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Remove all dimensions of size 1, or those in `axes`; larger dimensions in `axes` stay."""
    return x.squeeze() if axes is None else x.squeeze(axes.tolist())


def expand_dims(*, x: Tensor, axes: Tensor) -> Tensor:
    """Insert dimensions of size 1; `axes` are positions in the result."""
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def split(
    *, x: Tensor, axis: Tensor, num_splits: Tensor | None = None, split_sizes: Tensor | None = None
) -> list[Tensor]:
    """Split into parts of `split_sizes`, or into `num_splits` equal parts."""
    dim = int(axis)
    sizes = x.shape[dim] // int(num_splits) if split_sizes is None else split_sizes.tolist()  # type: ignore[arg-type]
    return list(torch.split(x, sizes, dim))


def concat(*, values: list[Tensor], axis: Tensor, interleave: Tensor) -> Tensor:
    """Concatenate along `axis`; interleaved: the first element of each value, the second of each, ..."""
    dim = int(axis) % values[0].dim()
    return torch.stack(values, dim + 1).flatten(dim, dim + 1) if interleave else torch.cat(values, dim)


def slice_by_index(
    *, x: Tensor, begin: Tensor, end: Tensor, stride: Tensor | None = None, begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None, squeeze_mask: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """NumPy's x[begin:end:stride, ...]. Masks ignore begin or end, or index at begin and remove the dimension."""
    none = [False] * x.dim()
    no_begin, no_end, indexed = (none if m is None else m.tolist() for m in (begin_mask, end_mask, squeeze_mask))
    steps = [1] * x.dim() if stride is None else stride.tolist()
    key = tuple(
        first if indexed[i] else slice(None if no_begin[i] else first, None if no_end[i] else last, steps[i])
        for i, (first, last) in enumerate(zip(begin.tolist(), end.tolist(), strict=True))
    )
    return torch.as_tensor(x.numpy()[key].copy())  # PyTorch has no negative steps


def gather(
    *, x: Tensor, indices: Tensor, axis: Tensor, batch_dims: Tensor | int = 0, validate_indices: Tensor | None = None
) -> Tensor:
    """D, N -> D[:axis] + N[batch_dims:] + D[axis+1:]; negative indices count from the end."""
    del validate_indices  # PyTorch always checks
    dim = int(axis) % x.dim()
    if batch_dims:
        pairs = zip(x, indices, strict=True)
        parts = [gather(x=a, indices=i, axis=torch.tensor(dim - 1), batch_dims=int(batch_dims) - 1) for a, i in pairs]
        return torch.stack(parts)
    flat = x.index_select(dim, torch.where(indices < 0, indices + x.shape[dim], indices).reshape(-1))
    return flat.reshape(*x.shape[:dim], *indices.shape, *x.shape[dim + 1 :])


def gather_nd(
    *, x: Tensor, indices: Tensor, batch_dims: Tensor | int = 0, validate_indices: Tensor | None = None
) -> Tensor:
    """output[i] = x[indices[i]], where the last dimension of `indices` is a coordinate."""
    del validate_indices
    if batch_dims:
        pairs = zip(x, indices, strict=True)
        return torch.stack([gather_nd(x=a, indices=i, batch_dims=int(batch_dims) - 1) for a, i in pairs])
    return x[tuple(indices.unbind(-1))]


def upsample_nearest_neighbor(*, x: Tensor, scale_factor_height: Tensor, scale_factor_width: Tensor) -> Tensor:
    """Repeat every pixel.

    Raises:
        ValueError: a factor is not an integer, for which the documentation does not define the nearest pixel.
    """
    for axis, factor in ((-2, float(scale_factor_height)), (-1, float(scale_factor_width))):
        if not factor.is_integer():
            raise ValueError(f"scale factor: found {factor}, expected an integer; MIL does not define others")
        x = x.repeat_interleave(int(factor), axis)
    return x


def resize_nearest_neighbor(*, x: Tensor, target_size_height: Tensor, target_size_width: Tensor) -> Tensor:
    """Output pixel i is input pixel floor(i * in / out), as the converters from PyTorch and TensorFlow assume."""
    for axis, size in ((-2, int(target_size_height)), (-1, int(target_size_width))):
        x = x.index_select(axis, torch.arange(size) * x.shape[axis] // size)
    return x


def upsample_bilinear(
    *, x: Tensor, scale_factor_height: Tensor, scale_factor_width: Tensor, align_corners: Tensor,
    half_pixel_centers: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Bilinear upsampling to the size floor(in * factor), from which the scale factors are computed again.

    Raises:
        ValueError: half_pixel_centers is not the opposite of align_corners; the documentation defines no other case.
    """
    if half_pixel_centers is not None and bool(half_pixel_centers) == bool(align_corners):
        raise ValueError(f"half_pixel_centers: found {bool(half_pixel_centers)}, expected the opposite of "
                         f"align_corners; MIL does not define the other case")  # fmt: skip
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS"
    factors = (float(scale_factor_height), float(scale_factor_width))
    height, width = (torch.tensor(math.floor(factor * x.shape[i - 2])) for i, factor in enumerate(factors))
    return resize_bilinear(x=x, target_size_height=height, target_size_width=width, sampling_mode=mode)


def resize_bilinear(*, x: Tensor, target_size_height: Tensor, target_size_width: Tensor, sampling_mode: str) -> Tensor:
    """Linear interpolation of the last two dimensions at the grid points of the sampling mode."""
    for axis, size in ((-1, int(target_size_width)), (-2, int(target_size_height))):
        last = x.shape[axis] - 1
        points = _grid(last + 1, size, sampling_mode).clamp(0, last)
        below = points.floor().long()
        share = (points - below).to(torch.float32)
        share = share if axis == -1 else share[:, None]
        x = torch.lerp(x.index_select(axis, below), x.index_select(axis, (below + 1).clamp(max=last)), share)
    return x


def _grid(num_in: int, num_out: int, mode: str) -> Tensor:
    """The input positions of the output samples along an axis, float64 [num_out], before clamping."""
    index = torch.arange(num_out, dtype=torch.float64)
    if mode == "UNALIGN_CORNERS":
        return (index + 0.5) * (num_in / num_out) - 0.5
    if mode == "OFFSET_CORNERS":
        return (index + 0.5) * (max(1, num_in - 1) / num_out)
    if mode == "DEFAULT":
        return index * (num_in / num_out)
    if num_out == 1:  # the spacing would be a division by zero
        return torch.tensor([(num_in - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0], dtype=torch.float64)
    return index * ((num_in - 1) / (num_out - 1))


OPERATORS: dict[str, Operator] = {
    function.__name__: function
    for function in (
        conv, conv_transpose, matmul, scaled_dot_product_attention, gelu, batch_norm, layer_norm, l2_norm, reduce_mean,
        reduce_sum, reduce_l2_norm, reduce_argmax, reshape, squeeze, expand_dims, split, concat, slice_by_index,
        gather, gather_nd, upsample_nearest_neighbor, resize_nearest_neighbor, upsample_bilinear, resize_bilinear,
    )
}  # fmt: skip
OPERATORS |= COMPRESSION_OPERATORS | {
    "add": lambda *, x, y: x + y,
    "sub": lambda *, x, y: x - y,
    "mul": lambda *, x, y: x * y,
    "real_div": lambda *, x, y: x / y,
    "pow": lambda *, x, y: x**y,
    "maximum": lambda *, x, y: torch.maximum(x, y),
    "greater_equal": lambda *, x, y: x >= y,
    "select": lambda *, cond, a, b: torch.where(cond, a, b),
    "relu": lambda *, x: torch.relu(x),
    "sigmoid": lambda *, x: torch.sigmoid(x),
    "softmax": lambda *, x, axis: x.softmax(int(axis)),
    "sqrt": lambda *, x: x.sqrt(),
    "rsqrt": lambda *, x, epsilon: 1 / (x + epsilon).sqrt(),
    "clip": lambda *, x, alpha, beta: x.clamp(float(alpha), float(beta)),
    "identity": lambda *, x: x,
    "cast": lambda *, x, dtype: x,  # the declared type of the output is the same
    "transpose": lambda *, x, perm: x.permute(perm.tolist()),
    "linear": lambda *, x, weight, bias=None: F.linear(x, weight, bias),
    "tile": lambda *, x, reps: x.repeat(reps.tolist()),
    "stack": lambda *, values, axis: torch.stack(values, int(axis)),
}
