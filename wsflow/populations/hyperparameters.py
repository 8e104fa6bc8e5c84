"""Hyperparameters that differ between runs: a number for all of them, or a range from which each run draws its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, log, nan
from typing import Any

import numpy as np

STREAM = 2  # of random numbers; others are for initial weights and the order of the data, and for the noise
Range = float | Sequence[float]
Runs = Sequence[int] | np.ndarray


@dataclass(frozen=True)
class Hyperparameter:
    """A row of the table: which numbers there are, and by which law a range is drawn."""

    kind: str  # what its numbers are, in words
    below: float = inf
    most: float = inf
    least: float = 0.0
    optional: bool = False  # whether it may be None
    whole: bool = False
    is_uniform: bool = False  # drawn uniformly; else log-uniformly, from a range that begins above zero

    def takes(self, number: float) -> bool:
        """Return whether it may be this number."""
        inside = self.least <= number < self.below and number <= self.most
        return inside and (not self.whole or number == int(number))

    def takes_range(self, low: float, high: float) -> bool:
        """Return whether runs may draw from this range."""
        return self.takes(low) and self.takes(high) and low <= high and (low > 0 or self.is_uniform)


_RATE = Hyperparameter("finite and not negative")
_SHARE = "in [0, 1)"
# in the order in which runs draw them: a new row is the last one
HYPERPARAMETERS: dict[str, Hyperparameter] = {
    "learning_rate": _RATE,
    "momentum": Hyperparameter("below 1 and not negative", below=1),
    "weight_decay": _RATE,
    "temperature": _RATE,
    "initialisation_scale": _RATE,
    "dropout": Hyperparameter(_SHARE, below=1, optional=True, is_uniform=True),
    "data_fraction": Hyperparameter("above 0 and at most 1", most=1, least=1e-9, is_uniform=True),
    "steps": Hyperparameter("a whole number from 1 on", least=1, optional=True, whole=True),
}
RANGES = tuple(HYPERPARAMETERS)


def check_range(name: str, value: Any) -> Any:
    """Check a number, or a range (low, high), of which a log-uniform one is of positive numbers; or None."""
    row = HYPERPARAMETERS[name]
    if value is None and row.optional:
        return None
    try:
        numbers = [float(number) for number in np.atleast_1d(np.asarray(value, dtype=np.float64))]
    except (TypeError, ValueError):
        numbers = []
    if np.ndim(value) == 0 and len(numbers) == 1 and row.takes(numbers[0]):
        return int(numbers[0]) if row.whole else numbers[0]
    if np.ndim(value) == 1 and len(numbers) == 2 and row.takes_range(*numbers):
        return (int(numbers[0]), int(numbers[1])) if row.whole else (numbers[0], numbers[1])
    above = "" if row.is_uniform else " above 0"
    raise ValueError(
        f"The {name!r} of train_population is {row.kind}, or a range (low, high) of two such numbers{above}; "
        f"got {value!r}."
    )


def draw_hyperparameters(values: Mapping[str, Any], random_state: int, runs: Runs) -> np.ndarray:
    """Draw the hyperparameters (len(runs), k) of runs in the order of `RANGES`, where there is a range.

    What a run draws depends on the seed and its number only, and a parameter's value not on the other ranges. What is
    None is NaN.
    """
    shares = np.zeros((len(runs), len(RANGES)))
    if any(isinstance(values[name], Sequence) for name in RANGES):
        streams = [np.random.default_rng((random_state, int(run), STREAM)) for run in runs]
        shares = np.array([stream.random(len(RANGES)) for stream in streams])
    columns = [_drawn(HYPERPARAMETERS[name], values[name], c) for name, c in zip(RANGES, shares.T, strict=True)]
    return np.stack(columns, axis=1)


def _drawn(row: Hyperparameter, value: Any, shares: np.ndarray) -> np.ndarray:
    if not isinstance(value, Sequence):
        return np.full(len(shares), nan if value is None else float(value))
    low, high = value
    if row.is_uniform:
        return low + shares * (high - low)
    # a whole number has the interval up to the next one
    top = high + 1 if row.whole else high
    # one number at a time: vectorised exponentials differ in their last bit with the length of the array
    numbers = np.array([min(max(exp(log(low) + share * log(top / low)), low), top) for share in shares])
    return np.minimum(np.floor(numbers), high) if row.whole else numbers


def drawn_from_ranges(values: Mapping[str, Any], drawn: np.ndarray, runs: np.ndarray) -> dict[str, Any]:
    """Return what runs drew from ranges as JSON data for the provenance; empty if there is no range."""
    columns = {name: drawn[:, i].tolist() for i, name in enumerate(RANGES) if isinstance(values[name], Sequence)}
    return {"run": runs.tolist(), **columns} if columns else {}
