"""Hyperparameters that differ between runs: a number for all of them, or a range from which each run draws its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, inf, log
from typing import Any

import numpy as np

RANGES = ("learning_rate", "momentum", "weight_decay", "temperature")
STREAM = 2  # beside the stream of initial weights and order of the data, and that of the noise
Range = float | Sequence[float]
Runs = Sequence[int] | np.ndarray


def check_range(name: str, value: Any) -> float | tuple[float, float]:
    """A number that is not negative, or a range of positive numbers; a momentum is below 1.

    Parameters
    ----------
    name : str
    value : float, or (float, float)

    Returns
    -------
    float or tuple of two float

    Raises
    ------
    ValueError

    Examples
    --------
    >>> from wsflow.populations.hyperparameters import check_range
    >>> check_range("learning_rate", [0.001, 0.1]), check_range("momentum", 0)
    ((0.001, 0.1), 0.0)
    """
    limit = 1 if name == "momentum" else inf
    try:
        numbers = [float(number) for number in np.atleast_1d(np.asarray(value, dtype=np.float64))]
    except (TypeError, ValueError):
        numbers = []
    if np.ndim(value) == 0 and len(numbers) == 1 and 0 <= numbers[0] < limit:
        return numbers[0]
    if np.ndim(value) == 1 and len(numbers) == 2 and 0 < numbers[0] <= numbers[1] < limit:
        return numbers[0], numbers[1]
    kind = "below 1" if limit == 1 else "finite"
    raise ValueError(
        f"The {name!r} of train_population is {kind} and not negative, or a range (low, high) of two such numbers "
        f"above 0; got {value!r}."
    )


def draw(values: Mapping[str, Range], random_state: int, runs: Runs) -> np.ndarray:
    """Each run's own hyperparameters, log-uniform where there is a range.

    What a run draws depends on the seed and its number only, and a parameter's value not on the other ranges.

    Parameters
    ----------
    values : mapping from str to float or (float, float)
        One for each of `RANGES`.
    random_state : int
    runs : sequence of int
        Their numbers.

    Returns
    -------
    ndarray of shape (len(runs), 4)
        In the order of `RANGES`.

    Examples
    --------
    >>> from wsflow.populations.hyperparameters import draw
    >>> values = {"learning_rate": (0.001, 0.1), "momentum": 0.9, "weight_decay": 0.0, "temperature": 1.0}
    >>> drawn = draw(values, 0, [0, 1, 2])
    >>> bool((drawn[1:] == draw(values, 0, [1, 2])).all()), drawn[:, 1]
    (True, array([0.9, 0.9, 0.9]))
    """
    places = np.array([np.random.default_rng((random_state, int(run), STREAM)).random(len(RANGES)) for run in runs])
    columns = [_between(values[name], place) for name, place in zip(RANGES, places.T, strict=True)]
    return np.stack(columns, axis=1)


def _between(value: Range, places: np.ndarray) -> np.ndarray:
    if isinstance(value, float | int):
        return np.full(len(places), float(value))
    low, high = value
    # one number at a time: vectorised exponentials differ in their last bit with the length of the array
    return np.array([min(max(exp(log(low) + place * log(high / low)), low), high) for place in places])


def recorded(values: Mapping[str, Range], drawn: np.ndarray, runs: np.ndarray) -> dict[str, Any]:
    """What was drawn from ranges, as JSON data for the provenance.

    Parameters
    ----------
    values : mapping from str to float or (float, float)
    drawn : ndarray of shape (n, 4)
        Of `draw`.
    runs : ndarray of shape (n,)

    Returns
    -------
    dict from str to list
        Besides the numbers of the runs; empty where there is no range.
    """
    found = {name: drawn[:, i].tolist() for i, name in enumerate(RANGES) if not isinstance(values[name], float | int)}
    return {"run": runs.tolist(), **found} if found else {}
