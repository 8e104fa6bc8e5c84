"""Networks with weights that are not finite: an error that names them, or dropped."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from wsflow.exceptions import InvalidInputError
from wsflow.mapped import finite_rows
from wsflow.weights import WeightArray

ON_INVALID = ("error", "drop")


def check_on_invalid(on_invalid: str, owner: str) -> None:
    """Refuse other values of the parameter `on_invalid` of `owner`."""
    if on_invalid not in ON_INVALID:
        raise ValueError(f"The 'on_invalid' of {owner} is 'error' or 'drop', got {on_invalid!r}.")


def not_finite(weights: WeightArray, names: Sequence[str] | None = None) -> str:
    """Name the first network with a weight that is not finite, and its parameter; empty where all are finite."""
    good = finite_rows(np.asarray(weights))
    if good.all():
        return ""
    count, row = int((~good).sum()), int(np.argmin(good))
    parameter, _ = weights.architecture.locate(int(np.argmin(np.isfinite(np.asarray(weights)[row]))))
    name = f"network {row}" if names is None else names[row]
    more = f" ({count} of {len(weights)} networks have such weights)" if count > 1 else ""
    return f"{name} has a weight in {parameter!r} that is not finite{more}"


def check_finite(
    weights: WeightArray, on_invalid: str, where: str = "", names: Sequence[str] | None = None
) -> WeightArray:
    """Return the networks whose weights are all finite; others are an error, or dropped with a warning."""
    problem = not_finite(weights, names)
    if not problem:
        return weights
    good = finite_rows(np.asarray(weights))
    begin = f"{where}: " if where else ""
    if on_invalid == "drop" and good.any():
        count = int((~good).sum())
        warnings.warn(f"{begin}{count} of {len(weights)} networks were dropped, not being finite.", stacklevel=3)
        kept: WeightArray = weights[good]
        return kept
    remedy = "Drop such networks with on_invalid='drop'" if good.any() else "No network is left: train them again"
    raise InvalidInputError(f"{begin}{problem}. {remedy}.")
