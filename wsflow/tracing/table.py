"""The table of operations: the name of an operation of torch's graphs -> the rule for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from wsflow.tracing import axes, grids, operations, products, shapes
from wsflow.tracing.elementwise import ELEMENTWISE
from wsflow.tracing.labels import Label
from wsflow.tracing.operations import Rule
from wsflow.tracing.recording import Recorder


def _view(t: Recorder, input: Label, **_: Any) -> Label:
    return shapes.reshape(t.ledger, input, t.shape)


def _permute(t: Recorder, input: Label, dims: list[int]) -> Label:
    return shapes.permute(input, dims)


def _transpose(t: Recorder, input: Label, dim0: int = 0, dim1: int = 1) -> Label:
    return shapes.transpose(input, dim0, dim1) if len(input.shape) > 1 else input


def _expand(t: Recorder, input: Label, **_: Any) -> Label:
    return shapes.expand(input, t.shape)


def _repeat(t: Recorder, input: Label, repeats: list[int]) -> Label:
    for _ in range(len(repeats) - len(input.shape)):
        input = shapes.insert(input, 0)
    for dim, times in enumerate(repeats):
        if times != 1:
            wide = shapes.expand(shapes.insert(input, dim), [*input.shape[:dim], times, *input.shape[dim:]])
            input = shapes.reshape(
                t.ledger, wide, (*input.shape[:dim], times * input.shape[dim], *input.shape[dim + 1 :])
            )
    return input


def _slice(t: Recorder, input: Label, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Label:
    index = shapes.indices(input.shape[dim], start, end, step)
    return input if len(index) == input.shape[dim] else shapes.take(t.ledger, input, dim, index)


def _select(t: Recorder, input: Label, dim: int, index: int) -> Label:
    place = np.array([index % input.shape[dim]])
    return shapes.drop(shapes.take(t.ledger, input, dim, place), dim)


def _split(
    t: Recorder, input: Label, split_size: int = 0, dim: int = 0, split_sizes: Sequence[int] | None = None
) -> list[Label]:
    if split_sizes is not None:
        return _split_sizes(t, input, split_sizes, dim)
    size = input.shape[dim]
    starts = range(0, size, split_size)
    return [shapes.take(t.ledger, input, dim, np.arange(a, min(a + split_size, size))) for a in starts]


def _split_sizes(t: Recorder, input: Label, split_sizes: Sequence[int], dim: int = 0) -> list[Label]:
    stops = np.cumsum(split_sizes)
    return [shapes.take(t.ledger, input, dim, np.arange(b - n, b)) for n, b in zip(split_sizes, stops, strict=True)]


def _chunk(t: Recorder, input: Label, chunks: int, dim: int = 0) -> list[Label]:
    return _split(t, input, -(-input.shape[dim] // chunks), dim)


def _unbind(t: Recorder, input: Label, dim: int = 0) -> list[Label]:
    return [_select(t, input, dim, i) for i in range(input.shape[dim])]


def _cat(t: Recorder, tensors: list[Label], dim: int = 0) -> Label:
    return shapes.cat(t.ledger, tensors, dim)


def _stack(t: Recorder, tensors: list[Label], dim: int = 0) -> Label:
    return shapes.stack(t.ledger, tensors, dim)


def _pad(t: Recorder, input: Label, pad: list[int], value: Any = None, mode: str = "constant") -> Label:
    if mode == "constant":
        return shapes.pad(t.ledger, input, pad, value or 0.0)
    return grids.spatial(t, input)


def _reorder(t: Recorder, input: Label, dims: Sequence[int] = (), shifts: Any = None) -> Label:
    for i, dim in enumerate(dims or [0]):
        index = np.arange(input.shape[dim])
        input = shapes.take(t.ledger, input, dim, index[::-1] if shifts is None else np.roll(index, shifts[i]))
    return input


def _getitem(t: Recorder, labels: list[Label], index: int) -> Label:
    return labels[index]


RULES: dict[str, Rule] = {
    **{name: partial(operations.activation, row=row) for name, row in ELEMENTWISE.items()},
    **dict.fromkeys(
        ("view", "_unsafe_view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "view_as"), _view
    ),
    **dict.fromkeys(("permute",), _permute),
    **dict.fromkeys(("transpose", "t", "swapaxes"), _transpose),
    **dict.fromkeys(("expand", "expand_as"), _expand),
    "repeat": _repeat,
    "slice": _slice,
    "select": _select,
    "split": _split,
    "split_with_sizes": _split_sizes,
    "chunk": _chunk,
    "unbind": _unbind,
    "cat": _cat,
    "stack": _stack,
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **dict.fromkeys(("flip", "roll"), _reorder),
    "getitem": _getitem,
    **dict.fromkeys(
        ("clone", "contiguous", "_to_copy", "to", "detach", "alias", "dropout", "feature_dropout", "alpha_dropout")
        + ("lift_fresh_copy", "type_as", "detach_", "native_dropout", "positive"),
        operations.identity,
    ),
    "add": operations.add,
    "sub": operations.add,
    "rsub": operations.add,
    "mul": operations.mul,
    "div": operations.div,
    "pow": operations.power,
    "where": operations.where,
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max"), operations.clamp),
    "hardtanh": operations.hardtanh,
    **dict.fromkeys(
        ("eq", "ne", "lt", "le", "gt", "ge", "maximum", "minimum", "logical_and", "logical_or", "bitwise_and")
        + ("bitwise_or", "masked_fill", "remainder", "fmod", "floor_divide", "atan2", "bitwise_not", "floor", "round"),
        operations.unscaled,
    ),
    "prelu": operations.prelu,
    "glu": operations.glu,
    "linear": products.linear,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), products.convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), products.transposed_convolution),
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), products.matmul),
    "addmm": products.addmm,
    "baddbmm": products.baddbmm,
    "einsum": products.einsum,
    "scaled_dot_product_attention": products.attention,
    "sum": axes.reduction,
    "mean": axes.mean,
    **dict.fromkeys(("amax", "max", "amin", "min"), axes.maximum),
    **dict.fromkeys(
        ("var", "std", "norm", "linalg_vector_norm", "logsumexp", "prod", "var_mean", "argmax", "argmin", "any", "all"),
        axes.statistics,
    ),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax"), axes.softmax),
    **dict.fromkeys(("cumsum", "cumprod"), axes.scan),
    "layer_norm": axes.layer_norm,
    "rms_norm": axes.rms_norm,
    "group_norm": axes.group_norm,
    **dict.fromkeys(
        ("batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "instance_norm"),
        axes.batch_norm,
    ),
    **dict.fromkeys(
        ("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
        + ("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_bilinear2d", "upsample_linear1d")
        + ("upsample_trilinear3d", "upsample_bicubic2d", "_upsample_nearest_exact2d"),
        grids.spatial,
    ),
    **dict.fromkeys(
        ("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices")
        + ("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
        grids.max_pool,
    ),
    "pixel_shuffle": grids.pixel_shuffle,
    "pixel_unshuffle": grids.pixel_unshuffle,
    "embedding": grids.embedding,
    "index_select": grids.index_select,
    "index": grids.indexing,
    **dict.fromkeys(("scatter_add", "index_add", "scatter_reduce", "scatter"), grids.scattered),
    **dict.fromkeys(("arange", "linspace", "empty"), grids.fixed),
    **dict.fromkeys(("ones", "ones_like", "new_ones", "scalar_tensor"), grids.constant),
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros"), grids.zeros),
    **dict.fromkeys(("full", "full_like", "new_full"), grids.full),
    "fill": grids.fill,
    **dict.fromkeys(("tril", "triu"), grids.triangular),
}

# rules that know what to do where flips leave something behind; for all others, there are none
KNOW_FLIPS: frozenset[Rule] = frozenset(
    (
        *(_view, _permute, _transpose, _expand, _repeat, _slice, _select, _split, _split_sizes, _chunk, _unbind),
        *(_cat, _stack, _reorder, _getitem, operations.identity),
        *(axes.mean, grids.spatial, products.linear, products.convolution),
    )
)
