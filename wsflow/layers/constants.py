"""Constants from a seed and a layer's name, by a stable hash: the same in every process and on every machine."""

from __future__ import annotations

import hashlib
from math import comb, prod
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

# what the paper's networks have, 784-512-512-512-10 (its code: 64, 64, 64 and 256 fixed entries of standard deviations
# 1, 1, 1/2 and 1/4): a share of each row, and the variance that the constants add to a sum of inputs of variance one
HIDDEN_SHARE, HIDDEN_VARIANCE = 1 / 8, 64.0
OUTPUT_SHARE, OUTPUT_VARIANCE = 1 / 2, 16.0
# draws of a mask before rows that repeat are an error
ATTEMPTS = 100
BITS = 53


class Pattern(NamedTuple):
    """How many entries of a row (whole filters of a convolution) are fixed, and their standard deviation."""

    n_fixed: int
    kappa: float


def random_integers(shape: tuple[int, ...], seed: int, name: str, what: str) -> np.ndarray:
    """Return integers of 53 random bits: SHAKE-256 of the seed, the layer's name and what they are for."""
    digest = hashlib.shake_256(f"wsflow\n{seed}\n{name}\n{what}".encode()).digest(8 * prod(shape))
    return (np.frombuffer(digest, dtype="<u8") >> np.uint64(64 - BITS)).astype(np.int64).reshape(shape)


def normal_constants(shape: tuple[int, ...], kappa: float, seed: int, name: str) -> Tensor:
    """Return numbers from N(0, kappa^2) in single precision.

    They are the normal quantiles of uniform numbers. Quantiles are computed in double precision, so that the last bits,
    in which libraries of mathematics differ, are rounded away.

    Examples
    --------
    >>> from wsflow.layers.constants import normal_constants
    >>> normal_constants((2, 2), 1.0, seed=0, name="0")
    tensor([[ 0.1789,  0.4358],
            [ 0.0502, -0.7743]])
    """
    uniform = (random_integers(shape, seed, name, "constants") + 0.5) / 2.0**BITS
    return torch.from_numpy((kappa * ndtri(uniform)).astype(np.float32).reshape(shape))


def fixed_entries(rows: int, columns: int, n_fixed: int, seed: int, name: str) -> Tensor:
    """Return a mask (rows, columns) of n_fixed entries in each row; no two rows have the same."""
    if isinstance(n_fixed, bool) or not 1 <= n_fixed < columns or int(n_fixed) != n_fixed:
        raise ValueError(
            f"Of the {columns} inputs of each output of {_named(name)}, at least one is fixed and one is free: n_fixed "
            f"is a whole number from 1 to {columns - 1}, got {n_fixed}."
        )
    if comb(columns, int(n_fixed)) < rows:
        raise ValueError(
            f"The {rows} outputs of {_named(name)} cannot all have other fixed entries: {n_fixed} of {columns} inputs "
            f"are chosen in {comb(columns, int(n_fixed))} ways. Choose another n_fixed, or leave this layer as it is."
        )
    mask = np.zeros((rows, columns), dtype=bool)
    again = np.arange(rows)
    for attempt in range(ATTEMPTS * rows):
        order = random_integers((len(again), columns), seed, name, f"mask {attempt}").argsort(1, kind="stable")
        mask[again] = False
        mask[again[:, None], order[:, :n_fixed]] = True
        first = np.unique(mask, axis=0, return_index=True)[1]
        again = np.setdiff1d(np.arange(rows), first)
        if not len(again):
            return torch.from_numpy(mask)
    raise ValueError(
        f"No {rows} different rows of {n_fixed} fixed entries were found for {_named(name)}. Choose another n_fixed."
    )


def default_pattern(
    rows: int,
    columns: int,
    kernel: int = 1,
    *,
    output: bool = False,
    n_fixed: int | None = None,
    kappa: float | None = None,
) -> Pattern:
    """Return the pattern of a layer, where it is not given: the share of the paper, or more where rows would repeat.

    Constants add the same variance to a sum over inputs of variance one, whatever the width: n_fixed * kernel * kappa^2
    is 64, and 16 for the output layer.

    Examples
    --------
    >>> from wsflow.layers.constants import default_pattern
    >>> default_pattern(512, 512), default_pattern(10, 512, output=True), default_pattern(128, 128)
    (Pattern(n_fixed=64, kappa=1.0), Pattern(n_fixed=256, kappa=0.25), Pattern(n_fixed=16, kappa=2.0))
    """
    share, variance = (OUTPUT_SHARE, OUTPUT_VARIANCE) if output else (HIDDEN_SHARE, HIDDEN_VARIANCE)
    if n_fixed is None:
        least = max(1, round(share * columns))
        n_fixed = next((k for k in range(least, columns) if comb(columns, k) >= rows), None)
        if n_fixed is None:
            raise ValueError(
                f"{rows} outputs of {columns} inputs cannot all have other fixed entries, however many: leave this "
                "layer as it is."
            )
    if kappa is None:
        kappa = (variance / (n_fixed * kernel)) ** 0.5
    if not 0 <= kappa < float("inf"):
        raise ValueError(f"Constants have a standard deviation kappa from 0 on, got {kappa}.")
    return Pattern(n_fixed, float(kappa))


def _named(name: str) -> str:
    return f"the layer {name!r}" if name else "this layer"
