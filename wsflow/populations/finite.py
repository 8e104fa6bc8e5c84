"""Networks with weights that are not finite: named, or dropped by choice."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from wsflow.exceptions import InvalidInputError
from wsflow.weights import WeightArray

ON_INVALID = ("error", "drop")


def check_on_invalid(on_invalid: str, owner: str) -> None:
    """Refuse a choice that there is not.

    Parameters
    ----------
    on_invalid : str
    owner : str
        Whose parameter it is.

    Raises
    ------
    ValueError
    """
    if on_invalid not in ON_INVALID:
        raise ValueError(f"The 'on_invalid' of {owner} is 'error' or 'drop', got {on_invalid!r}.")


def finite_networks(
    weights: WeightArray, on_invalid: str, where: str = "", names: Sequence[str] | None = None
) -> WeightArray:
    """The networks whose weights are all finite.

    Parameters
    ----------
    weights : WeightArray of shape (n, d)
    on_invalid : {"error", "drop"}
    where : str
        The file, with which errors begin.
    names : sequence of str, optional
        What errors call the networks (default: network 0, network 1, ...).

    Returns
    -------
    WeightArray

    Raises
    ------
    InvalidInputError
        If there are others and they are not to be dropped, or none is left; the first parameter is named.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.populations.finite import finite_networks
    >>> from wsflow.weights import WeightArray
    >>> finite_networks(WeightArray([[1.0, 2.0]], Architecture.mlp([1, 1])), "error").shape
    (1, 2)
    """
    finite = np.isfinite(np.asarray(weights))
    good = finite.all(axis=1)
    if good.all():
        return weights
    count = int((~good).sum())
    begin = f"{where}: " if where else ""
    if on_invalid == "drop" and good.any():
        warnings.warn(f"{begin}{count} of {len(weights)} networks were dropped, not being finite.", stacklevel=3)
        kept: WeightArray = weights[good]
        return kept
    row = int(np.argmin(good))
    parameter, _ = weights.architecture.locate(int(np.argmin(finite[row])))
    name = f"network {row}" if names is None else names[row]
    more = f" ({count} of {len(weights)} networks have such weights)" if count > 1 else ""
    remedy = "Drop such networks with on_invalid='drop'" if good.any() else "No network is left: train them again"
    raise InvalidInputError(f"{begin}{name} has a weight in {parameter!r} that is not finite{more}. {remedy}.")
