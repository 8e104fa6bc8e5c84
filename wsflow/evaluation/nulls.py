"""Nulls: trivial generators that a flow has to beat.

Each takes aligned canonical training networks of shape (n, d), a number of samples, a random generator and a level, and
returns samples (n_samples, d). A flow that is no better than one of them, at equal novelty and dispersion, has learned
nothing that matters. A null with a knob is a curve: its levels, between the nulls that it ends in (without noise it is
resampling).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from wsflow.exceptions import InvalidInputError
from wsflow.mapped import chunks

# the share of the covariance that is replaced by its diagonal, as in the Gaussian source that a flow fits
SHRINKAGE = 0.1
# of random numbers that are drawn at once, one for each training network: with more, these are read less often
DRAWN_NUMBERS = 2**24


class Null(NamedTuple):
    """A row of the table: a generator and the levels at which it is run.

    Parameters
    ----------
    function : callable
        ``(train, n_samples, rng, level) -> ndarray of shape (n_samples, d)``.
    knob : str
        What the levels, in ascending order, are of; empty for a generator that has none.
    plain : float, optional
        The level that a name leaves out, such as temperature 1.
    ends : tuple of two str
        The nulls that it becomes at both ends of its levels, or "".
    """

    function: Callable[[np.ndarray, int, np.random.Generator, float], np.ndarray]
    levels: tuple[float, ...] = (1.0,)
    knob: str = ""
    plain: float | None = 1.0
    ends: tuple[str, str] = ("", "")


def noise(train: np.ndarray, n_samples: int, rng: np.random.Generator, level: float) -> np.ndarray:
    """Training networks drawn at random, plus Gaussian noise of `level` standard deviations of each weight."""
    rows = train[rng.integers(len(train), size=n_samples)]
    return rows + level * _mean_and_deviation(train)[1] * rng.standard_normal(rows.shape)


def mean(train: np.ndarray, n_samples: int, rng: np.random.Generator, level: float) -> np.ndarray:
    """The mean of the aligned training networks, over and over."""
    return np.repeat(_mean_and_deviation(train)[0][None], n_samples, axis=0)


def gaussian_diagonal(train: np.ndarray, n_samples: int, rng: np.random.Generator, level: float) -> np.ndarray:
    """Independent Gaussians with each weight's mean, and `level` times its standard deviation: 0 gives the mean."""
    centre, deviation = _mean_and_deviation(train)
    return centre + level * deviation * rng.standard_normal((n_samples, train.shape[1]))


def gaussian_full(train: np.ndarray, n_samples: int, rng: np.random.Generator, level: float) -> np.ndarray:
    """A Gaussian with the population's mean and its covariance, shrunk 10% to the diagonal, times `level` squared."""
    # with centred rows Z, Z.T @ e / sqrt(n) has covariance Z.T @ Z / n: no d x d matrix is needed. The covariances of
    # wsflow.flow draw with torch, and published reports have the numbers of this generator
    centre, deviation = _mean_and_deviation(train)
    correlated = np.zeros((n_samples, train.shape[1]))
    for drawn in chunks(n_samples, len(train), DRAWN_NUMBERS):
        mixing = rng.standard_normal((drawn.stop - drawn.start, len(train)))
        for rows in chunks(*train.shape):
            correlated[drawn] += mixing[:, rows] @ (train[rows] - centre)
    correlated /= np.sqrt(len(train))
    independent = deviation * rng.standard_normal((n_samples, train.shape[1]))
    return centre + level * (np.sqrt(1 - SHRINKAGE) * correlated + np.sqrt(SHRINKAGE) * independent)


def dirichlet(train: np.ndarray, n_samples: int, rng: np.random.Generator, level: float) -> np.ndarray:
    """Mixtures of training networks, with weights from a symmetric Dirichlet distribution of concentration `level`."""
    # near 0 a mixture is one training network, at 1 it is near the mean; the covariance is the population's / (n a + 1)
    parts = chunks(n_samples, len(train), DRAWN_NUMBERS)
    alpha = np.full(len(train), level)
    return np.concatenate([rng.dirichlet(alpha, size=part.stop - part.start) @ train for part in parts])


def _mean_and_deviation(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means and standard deviations (d,) of the weights of networks."""
    parts = list(chunks(*train.shape))
    mean = np.sum([train[rows].sum(axis=0) for rows in parts], axis=0) / len(train)
    squares = np.sum([np.square(train[rows] - mean).sum(axis=0) for rows in parts], axis=0)
    return mean, np.sqrt(squares / len(train))


def resampling(train: np.ndarray, n_samples: int, rng: np.random.Generator, level: float) -> np.ndarray:
    """Training networks drawn at random: copies."""
    return train[rng.integers(len(train), size=n_samples)]


TEMPERATURES = (0.25, 0.5, 0.75, 1.0)
NULLS: dict[str, Null] = {
    "noise": Null(noise, (0.02, 0.1, 0.3, 1.0), "standard deviations", None, ("resampling", "")),
    "mean": Null(mean),
    "gaussian_diagonal": Null(gaussian_diagonal, TEMPERATURES, "temperature", ends=("mean", "")),
    "gaussian_full": Null(gaussian_full, TEMPERATURES, "temperature", ends=("mean", "")),
    "dirichlet": Null(dirichlet, (1e-4, 1e-3, 0.01, 0.1, 1.0), "concentration", None, ("resampling", "mean")),
    "resampling": Null(resampling),
}


def null_names() -> list[str]:
    """Name every null at every level, such as ``"noise 0.1"``."""
    return [_name(key, null, level) for key, null in NULLS.items() for level in null.levels]


def null_curves() -> dict[str, list[str]]:
    """Name the levels of each null that has a knob, in their order, with the nulls that it ends in.

    >>> null_curves()["gaussian_full"]
    ['mean', 'gaussian_full 0.25', 'gaussian_full 0.5', 'gaussian_full 0.75', 'gaussian_full']
    """
    curves = {}
    for key, null in NULLS.items():
        if null.knob:
            names = [_name(key, null, level) for level in null.levels]
            curves[key] = [name for name in (null.ends[0], *names, null.ends[1]) if name]
    return curves


def draw_null(name: str, train: np.ndarray, n_samples: int, random_state: int) -> np.ndarray:
    """Draw the samples (n_samples, d) of a null at a level, such as ``"noise 0.1"``, from networks (n, d)."""
    if len(train) < 2:
        raise InvalidInputError(f"Nulls need at least 2 training networks, got {len(train)}: train more.")
    for index, (key, null) in enumerate(NULLS.items()):
        for at, level in enumerate(null.levels):
            if _name(key, null, level) == name:
                # each null has a generator of its own, so that a new row changes no other
                rng = np.random.default_rng([random_state, index, at])
                return null.function(np.asarray(train, dtype=np.float64), n_samples, rng, level)
    raise ValueError(f"There is no null {name!r}. Choose one of {', '.join(null_names())}.")


def _name(key: str, null: Null, level: float) -> str:
    return key if level == null.plain else f"{key} {level:g}"
