"""Nulls: trivial generators that a flow has to beat.

Each takes aligned canonical training networks of shape (n, d) and gives rows like them. A flow that
is no better than one of them, at equal novelty and dispersion, has learned nothing that matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from wsflow.exceptions import InvalidInputError

# the part of the covariance that is replaced by its diagonal, as in the flow's own fitted prior
SHRINKAGE = 0.1


class Null(NamedTuple):
    """A row of the table: a generator and the levels at which it is run.

    Parameters
    ----------
    function : callable
        ``(train, n_samples, rng, level) -> ndarray of shape (n_samples, d)``.
    levels : tuple of float or None
        None for a generator that has no knob.
    """

    function: Callable[[np.ndarray, int, np.random.Generator, float], np.ndarray]
    levels: tuple[float | None, ...] = (None,)


def noise(train: np.ndarray, n_samples: int, rng: np.random.Generator, level: float) -> np.ndarray:
    """Training networks drawn at random, plus Gaussian noise of `level` standard deviations of each weight.

    Parameters
    ----------
    train : ndarray of shape (n, d)
    n_samples : int
    rng : Generator
    level : float

    Returns
    -------
    ndarray of shape (n_samples, d)
    """
    rows = train[rng.integers(len(train), size=n_samples)]
    return rows + level * train.std(axis=0) * rng.standard_normal(rows.shape)


def mean(train: np.ndarray, n_samples: int, rng: np.random.Generator, level: float) -> np.ndarray:
    """The mean of the aligned training networks, over and over.

    Parameters
    ----------
    train, n_samples, rng, level
        As in `noise`; there is nothing random here.

    Returns
    -------
    ndarray of shape (n_samples, d)
    """
    return np.repeat(train.mean(axis=0, keepdims=True), n_samples, axis=0)


def gaussian_diagonal(train: np.ndarray, n_samples: int, rng: np.random.Generator, level: float) -> np.ndarray:
    """Independent Gaussians with each weight's mean and variance.

    Parameters
    ----------
    train, n_samples, rng, level
        As in `noise`.

    Returns
    -------
    ndarray of shape (n_samples, d)
    """
    return train.mean(axis=0) + train.std(axis=0) * rng.standard_normal((n_samples, train.shape[1]))


def gaussian_full(train: np.ndarray, n_samples: int, rng: np.random.Generator, level: float) -> np.ndarray:
    """A Gaussian with the population's mean and its covariance, shrunk 10% to the diagonal.

    With centred rows Z, ``Z.T @ e / sqrt(n)`` has covariance ``Z.T @ Z / n``: no d x d matrix is
    needed, and it does not matter that n may be less than d.

    Parameters
    ----------
    train, n_samples, rng, level
        As in `noise`.

    Returns
    -------
    ndarray of shape (n_samples, d)
    """
    centre = train.mean(axis=0)
    correlated = rng.standard_normal((n_samples, len(train))) @ (train - centre) / np.sqrt(len(train))
    independent = train.std(axis=0) * rng.standard_normal((n_samples, train.shape[1]))
    return centre + np.sqrt(1 - SHRINKAGE) * correlated + np.sqrt(SHRINKAGE) * independent


def dirichlet(train: np.ndarray, n_samples: int, rng: np.random.Generator, level: float) -> np.ndarray:
    """Mixtures of training networks, with weights from a symmetric Dirichlet distribution.

    Parameters
    ----------
    train, n_samples, rng
        As in `noise`.
    level : float
        The concentration: near 0 a mixture is one training network, at 1 it is near the mean.

    Returns
    -------
    ndarray of shape (n_samples, d)
    """
    return rng.dirichlet(np.full(len(train), level), size=n_samples) @ train


def resampling(train: np.ndarray, n_samples: int, rng: np.random.Generator, level: float) -> np.ndarray:
    """Training networks drawn at random: copies.

    Parameters
    ----------
    train, n_samples, rng, level
        As in `noise`.

    Returns
    -------
    ndarray of shape (n_samples, d)
    """
    return train[rng.integers(len(train), size=n_samples)]


NULLS: dict[str, Null] = {
    "noise": Null(noise, (0.02, 0.1, 0.3)),
    "mean": Null(mean),
    "gaussian_diagonal": Null(gaussian_diagonal),
    "gaussian_full": Null(gaussian_full),
    "dirichlet": Null(dirichlet, (0.01, 0.1, 1.0)),
    "resampling": Null(resampling),
}


def null_names() -> list[str]:
    """The name of every null at every level, such as ``"noise 0.1"``.

    Returns
    -------
    list of str
    """
    return [_name(key, level) for key, null in NULLS.items() for level in null.levels]


def null_samples(train: np.ndarray, n_samples: int, random_state: int) -> Iterator[tuple[str, np.ndarray]]:
    """Samples of every null at every level.

    Parameters
    ----------
    train : ndarray of shape (n, d)
        Aligned canonical networks.
    n_samples : int
    random_state : int
        Each null draws from a generator of its own, so that a new row changes no other.

    Yields
    ------
    name : str
    samples : ndarray of shape (n_samples, d)

    Raises
    ------
    InvalidInputError
        If there are fewer than 2 training networks.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.evaluation.nulls import null_samples
    >>> samples = dict(null_samples(np.eye(3), 5, random_state=0))
    >>> samples["dirichlet 0.1"].sum(axis=1).round(6)
    array([1., 1., 1., 1., 1.])
    """
    train = np.asarray(train, dtype=np.float64)
    if len(train) < 2:
        raise InvalidInputError(f"Nulls need at least 2 training networks, got {len(train)}: train more.")
    for index, (key, null) in enumerate(NULLS.items()):
        for at, level in enumerate(null.levels):
            rng = np.random.default_rng([random_state, index, at])
            yield _name(key, level), null.function(train, n_samples, rng, 0.0 if level is None else level)


def _name(key: str, level: float | None) -> str:
    return key if level is None else f"{key} {level:g}"
