"""Rules for weights that are computed from others: norms of rows, and matrix functions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from wsflow.tracing.abstract_tensor import AbstractTensor
from wsflow.tracing.pointwise import pointwise
from wsflow.tracing.trace import Trace

# decompositions and functions of matrices: no symmetry acts on their operands
MATRIX_FUNCTIONS = frozenset(
    ("matrix_exp", "linalg_matrix_exp", "inverse", "linalg_inv", "linalg_inv_ex", "linalg_pinv", "linalg_solve")
    + ("linalg_solve_ex", "_linalg_solve_ex", "linalg_solve_triangular", "triangular_solve", "linalg_qr", "qr", "geqrf")
    + ("linalg_householder_product", "orgqr", "ormqr", "linalg_svd", "_linalg_svd", "svd", "linalg_eigh", "linalg_eig")
    + (
        "_linalg_eigh",
        "linalg_cholesky",
        "linalg_cholesky_ex",
        "cholesky",
        "linalg_lu",
        "linalg_lu_factor",
        "linalg_det",
    )
    + ("_linalg_det", "det", "linalg_slogdet", "_linalg_slogdet", "slogdet", "linalg_lstsq", "linalg_matrix_power")
    + ("diagonal", "diag", "diag_embed", "trace")
)


def weight_norm(t: Trace, v: AbstractTensor, g: AbstractTensor, dim: int = 0) -> Any:
    """Map g v / |v|, with a norm for each index of one dimension (-1: one for all): there v may have any length.

    References
    ----------
    Salimans and Kingma 2016, arXiv:1602.07868.
    """
    rest = [d for d in range(len(v.shape)) if dim == -1 or d != dim % len(v.shape)]
    t.constraints.forbid_scaling(replace(v, axes=tuple(v.axes_on(rest))), sign=False)
    t.nest_along(v, rest)
    # a length is lost, a sign is not
    axes = tuple(replace(axis, terms=tuple((0, s, variables) for _, s, variables in axis.terms)) for axis in v.axes)
    result = pointwise(t, [replace(v.generic().mixed(rest), axes=axes), g], [1, 1])
    return [result, g.generic()] if t.n_results > 1 else result
