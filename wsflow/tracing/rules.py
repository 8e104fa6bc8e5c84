"""The table of rules: the name of an operation of torch's graphs -> the rule for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from wsflow.tracing import indexing, linear, pointwise, reductions, reshaping
from wsflow.tracing.abstract_tensor import AbstractTensor
from wsflow.tracing.deterministic import DRAWS
from wsflow.tracing.pointwise import COMPARISONS, ELEMENTWISE, Rule
from wsflow.tracing.trace import Trace


def _view(t: Trace, input: AbstractTensor, **_: Any) -> AbstractTensor:
    return reshaping.reshape(t.constraints, input, t.shape)


def _permute(t: Trace, input: AbstractTensor, dims: list[int]) -> AbstractTensor:
    return reshaping.permute(input, dims)


def _transpose(t: Trace, input: AbstractTensor, dim0: int = 0, dim1: int = 1) -> AbstractTensor:
    return reshaping.transpose(input, dim0, dim1) if len(input.shape) > 1 else input


def _expand(t: Trace, input: AbstractTensor, **_: Any) -> AbstractTensor:
    return reshaping.expand(input, t.shape)


def _repeat(t: Trace, input: AbstractTensor, repeats: list[int]) -> AbstractTensor:
    for _ in range(len(repeats) - len(input.shape)):
        input = reshaping.insert(input, 0)
    for dim, times in enumerate(repeats):
        if times != 1:
            input = reshaping.repeat(t.constraints, input, dim, times, blocks=False)
    return input


def _slice(
    t: Trace, input: AbstractTensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> AbstractTensor:
    index = np.arange(input.shape[dim])[slice(start, end, step)]
    return input if len(index) == input.shape[dim] else reshaping.take(t.constraints, input, dim, index)


def _select(t: Trace, input: AbstractTensor, dim: int, index: int) -> AbstractTensor:
    chosen = np.array([index % input.shape[dim]])
    return reshaping.drop(reshaping.take(t.constraints, input, dim, chosen), dim)


def _split(
    t: Trace, input: AbstractTensor, split_size: int = 0, dim: int = 0, split_sizes: Sequence[int] | None = None
) -> list[AbstractTensor]:
    size = input.shape[dim]
    sizes = split_sizes or [min(split_size, size - start) for start in range(0, size, split_size)]
    stops = np.cumsum(sizes)
    return [reshaping.take(t.constraints, input, dim, np.arange(b - n, b)) for n, b in zip(sizes, stops, strict=True)]


def _chunk(t: Trace, input: AbstractTensor, chunks: int, dim: int = 0) -> list[AbstractTensor]:
    return _split(t, input, -(-input.shape[dim] // chunks), dim)


def _unbind(t: Trace, input: AbstractTensor, dim: int = 0) -> list[AbstractTensor]:
    return [_select(t, input, dim, i) for i in range(input.shape[dim])]


def _cat(t: Trace, tensors: list[AbstractTensor], dim: int = 0) -> AbstractTensor:
    return reshaping.cat(t.constraints, tensors, dim)


def _stack(t: Trace, tensors: list[AbstractTensor], dim: int = 0) -> AbstractTensor:
    return reshaping.stack(t.constraints, tensors, dim)


def _pad(t: Trace, input: AbstractTensor, pad: list[int], value: Any = None, mode: str = "constant") -> AbstractTensor:
    if mode == "constant":
        return reshaping.pad(t.constraints, input, pad, value or 0.0)
    return indexing.resize(t, input)


def _reorder(t: Trace, input: AbstractTensor, dims: Sequence[int] = (), shifts: Any = None) -> AbstractTensor:
    for i, dim in enumerate(dims or [0]):
        index = np.arange(input.shape[dim])
        input = reshaping.take(t.constraints, input, dim, index[::-1] if shifts is None else np.roll(index, shifts[i]))
    return input


def _getitem(t: Trace, tensors: list[AbstractTensor], index: int) -> AbstractTensor:
    return tensors[index]


RULES: dict[str, Rule] = {
    **{name: partial(pointwise.activation, row=row) for name, row in ELEMENTWISE.items()},
    **dict.fromkeys(
        ("view", "_unsafe_view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "view_as"), _view
    ),
    "permute": _permute,
    **dict.fromkeys(("transpose", "t", "swapaxes"), _transpose),
    **dict.fromkeys(("expand", "expand_as"), _expand),
    "repeat": _repeat,
    "slice": _slice,
    "select": _select,
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"), _split),
    **dict.fromkeys(("chunk", "unsafe_chunk"), _chunk),
    "unbind": _unbind,
    "cat": _cat,
    "stack": _stack,
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **dict.fromkeys(("flip", "roll"), _reorder),
    "getitem": _getitem,
    **dict.fromkeys(
        ("clone", "contiguous", "_to_copy", "to", "detach", "alias", "lift_fresh_copy", "type_as")
        + ("detach_", "positive"),
        pointwise.identity,
    ),
    **dict.fromkeys(("dropout", "feature_dropout", "native_dropout"), pointwise.dropout),
    **dict.fromkeys(("alpha_dropout", "feature_alpha_dropout"), pointwise.alpha_dropout),
    **dict.fromkeys(("rrelu", "rrelu_with_noise"), pointwise.rrelu),
    **dict.fromkeys(("add", "sub", "rsub"), pointwise.add),
    "mul": pointwise.mul,
    "div": pointwise.div,
    "pow": pointwise.power,
    **{name: partial(pointwise.compare, row=row) for name, row in COMPARISONS.items()},
    **dict.fromkeys(("maximum", "minimum", "fmax", "fmin"), pointwise.extremum),
    "where": pointwise.where,
    "masked_fill": pointwise.masked_fill,
    "index_put": pointwise.index_put,
    "copysign": pointwise.copysign,
    "heaviside": pointwise.heaviside,
    "threshold": pointwise.threshold,
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max"), pointwise.clamp),
    "hardtanh": pointwise.hardtanh,
    **dict.fromkeys(
        ("logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not")
        + ("remainder", "fmod", "floor_divide", "atan2", "floor", "round"),
        pointwise.unscaled,
    ),
    "prelu": pointwise.prelu,
    "glu": pointwise.glu,
    "linear": linear.linear,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), linear.convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), linear.transposed_convolution),
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), linear.matmul),
    **dict.fromkeys(("addmm", "baddbmm"), linear.addmm),
    "einsum": linear.einsum,
    "bilinear": linear.bilinear,
    **dict.fromkeys(("cdist", "_cdist_forward"), linear.distances),
    "scaled_dot_product_attention": linear.attention,
    "sum": reductions.reduction,
    "mean": reductions.mean,
    **dict.fromkeys(("amax", "max", "amin", "min"), reductions.maximum),
    **dict.fromkeys(("logsumexp", "prod", "var_mean", "any", "all"), reductions.statistics),
    **dict.fromkeys(("norm", "linalg_vector_norm"), reductions.vector_norm),
    "var": partial(reductions.spread, row=ELEMENTWISE["square"]),
    "std": partial(reductions.spread, row=ELEMENTWISE["abs"]),
    **dict.fromkeys(("topk", "sort", "argsort", "msort", "kthvalue", "median", "mode", "cummax"), reductions.ranked),
    **dict.fromkeys(("argmax", "argmin"), reductions.position),
    "gather": indexing.take_along,
    **dict.fromkeys(("_weight_norm", "_weight_norm_interface"), reductions.weight_norm),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax"), reductions.softmax),
    **dict.fromkeys(("cumsum", "cumprod"), reductions.scan),
    "layer_norm": reductions.layer_norm,
    "rms_norm": reductions.rms_norm,
    "group_norm": reductions.group_norm,
    **dict.fromkeys(
        ("batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "instance_norm"),
        reductions.batch_norm,
    ),
    **dict.fromkeys(
        ("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
        + ("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_bilinear2d", "upsample_linear1d")
        + ("upsample_trilinear3d", "upsample_bicubic2d", "_upsample_nearest_exact2d"),
        indexing.resize,
    ),
    **dict.fromkeys(
        ("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices")
        + ("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
        indexing.max_pool,
    ),
    "pixel_shuffle": indexing.pixel_shuffle,
    "pixel_unshuffle": indexing.pixel_unshuffle,
    "col2im": indexing.fold,
    "embedding": indexing.embedding,
    **dict.fromkeys(("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"), indexing.embedding_bag),
    "index_select": indexing.gather,
    "index": indexing.index_tensors,
    "unfold": indexing.unfold,
    **dict.fromkeys(("scatter_add", "index_add", "scatter_reduce", "scatter"), indexing.scatter),
    **dict.fromkeys(("arange", "linspace", "empty", "empty_like", "new_empty"), indexing.fixed),
    **dict.fromkeys((*DRAWS, "ones", "ones_like", "new_ones", "scalar_tensor"), indexing.constant),
    "bernoulli": indexing.drawn,
    "normal": indexing.normal,
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros"), partial(indexing.full, fill_value=0)),
    **dict.fromkeys(("full", "full_like", "new_full"), indexing.full),
    "fill": indexing.fill,
    **dict.fromkeys(("tril", "triu"), indexing.triangular),
}

# rules that handle what flips add; in front of all others, flips are forbidden
HANDLE_FLIPS: frozenset[Rule] = frozenset(
    (
        *(_view, _permute, _transpose, _expand, _repeat, _slice, _select, _split, _chunk, _unbind),
        *(_cat, _stack, _reorder, _getitem, pointwise.identity, pointwise.dropout, pointwise.alpha_dropout),
        *(reductions.mean, indexing.resize, linear.linear, linear.convolution),
    )
)

# decompositions and functions of matrices: no symmetry acts on their operands
_MATRIX_FUNCTIONS = """
    matrix_exp linalg_matrix_exp inverse linalg_inv linalg_inv_ex linalg_pinv linalg_solve linalg_solve_ex
    _linalg_solve_ex linalg_solve_triangular triangular_solve linalg_qr qr geqrf linalg_householder_product orgqr ormqr
    linalg_svd _linalg_svd svd linalg_eigh linalg_eig _linalg_eigh linalg_cholesky linalg_cholesky_ex cholesky linalg_lu
    linalg_lu_factor linalg_det _linalg_det det linalg_slogdet _linalg_slogdet slogdet linalg_lstsq linalg_matrix_power
    diagonal diag diag_embed trace
    """
MATRIX_FUNCTIONS = frozenset(_MATRIX_FUNCTIONS.split())

# what is left as it is in a graph: a rule, or no symmetry
KNOWN = frozenset((*RULES, *MATRIX_FUNCTIONS))
