"""Hyperparameters that differ between runs: a number for all of them, or a range from which each run draws its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, inf, log
from typing import Any

import numpy as np

RANGES = ("learning_rate", "momentum", "weight_decay", "temperature")
STREAM = 2  # of random numbers; others are for initial weights and the order of the data, and for the noise
Range = float | Sequence[float]
Runs = Sequence[int] | np.ndarray


def check_range(name: str, value: Any) -> float | tuple[float, float]:
    """Check a number that is not negative, or a range (low, high) of positive numbers; a momentum is below 1."""
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


def draw_hyperparameters(values: Mapping[str, Range], random_state: int, runs: Runs) -> np.ndarray:
    """Draw the hyperparameters (len(runs), 4) of runs in the order of `RANGES`, log-uniformly where there is a range.

    What a run draws depends on the seed and its number only, and a parameter's value not on the other ranges.
    """
    shares = np.array([np.random.default_rng((random_state, int(run), STREAM)).random(len(RANGES)) for run in runs])
    columns = [_log_uniform(values[name], column) for name, column in zip(RANGES, shares.T, strict=True)]
    return np.stack(columns, axis=1)


def _log_uniform(value: Range, shares: np.ndarray) -> np.ndarray:
    if isinstance(value, float | int):
        return np.full(len(shares), float(value))
    low, high = value
    # one number at a time: vectorised exponentials differ in their last bit with the length of the array
    return np.array([min(max(exp(log(low) + share * log(high / low)), low), high) for share in shares])


def drawn_from_ranges(values: Mapping[str, Range], drawn: np.ndarray, runs: np.ndarray) -> dict[str, Any]:
    """Return what runs drew from ranges as JSON data for the provenance; empty if there is no range."""
    columns = {name: drawn[:, i].tolist() for i, name in enumerate(RANGES) if not isinstance(values[name], float | int)}
    return {"run": runs.tolist(), **columns} if columns else {}
