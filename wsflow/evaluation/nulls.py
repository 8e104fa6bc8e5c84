"""Nulls: trivial generators that a flow has to beat.

Each takes aligned canonical training networks of shape (n, d) and gives rows like them. A flow that
is no better than one of them, at equal novelty and dispersion, has learned nothing that matters.
A null with a knob is a curve: its levels, between the nulls that it ends in (without noise it is resampling).
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
    levels : tuple of float
        In ascending order.
    knob : str
        What the level is; empty for a generator that has none.
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
    """Independent Gaussians with each weight's mean, and `level` times its standard deviation.

    Parameters
    ----------
    train, n_samples, rng
        As in `noise`.
    level : float
        The temperature: 0 gives the mean.

    Returns
    -------
    ndarray of shape (n_samples, d)
    """
    return train.mean(axis=0) + level * train.std(axis=0) * rng.standard_normal((n_samples, train.shape[1]))


def gaussian_full(train: np.ndarray, n_samples: int, rng: np.random.Generator, level: float) -> np.ndarray:
    """A Gaussian with the population's mean and its covariance, shrunk 10% to the diagonal, times `level` squared.

    With centred rows Z, ``Z.T @ e / sqrt(n)`` has covariance ``Z.T @ Z / n``: no d x d matrix is
    needed, and it does not matter that n may be less than d.

    Parameters
    ----------
    train, n_samples, rng
        As in `noise`.
    level : float
        The temperature: 0 gives the mean.

    Returns
    -------
    ndarray of shape (n_samples, d)
    """
    centre = train.mean(axis=0)
    correlated = rng.standard_normal((n_samples, len(train))) @ (train - centre) / np.sqrt(len(train))
    independent = train.std(axis=0) * rng.standard_normal((n_samples, train.shape[1]))
    return centre + level * (np.sqrt(1 - SHRINKAGE) * correlated + np.sqrt(SHRINKAGE) * independent)


def dirichlet(train: np.ndarray, n_samples: int, rng: np.random.Generator, level: float) -> np.ndarray:
    """Mixtures of training networks, with weights from a symmetric Dirichlet distribution.

    Parameters
    ----------
    train, n_samples, rng
        As in `noise`.
    level : float
        The concentration a: near 0 a mixture is one training network, at 1 it is near the mean. The covariance is
        that of the population over n a + 1.

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
    """The name of every null at every level, such as ``"noise 0.1"``.

    Returns
    -------
    list of str
    """
    return [_name(key, null, level) for key, null in NULLS.items() for level in null.levels]


def null_curves() -> dict[str, list[str]]:
    """The names of each null that has a knob, in the order of its levels, with the nulls that it ends in.

    Returns
    -------
    dict from str to list of str

    Examples
    --------
    >>> from wsflow.evaluation.nulls import null_curves
    >>> null_curves()["gaussian_full"]
    ['mean', 'gaussian_full 0.25', 'gaussian_full 0.5', 'gaussian_full 0.75', 'gaussian_full']
    """
    curves = {}
    for key, null in NULLS.items():
        if null.knob:
            names = [_name(key, null, level) for level in null.levels]
            curves[key] = [name for name in (null.ends[0], *names, null.ends[1]) if name]
    return curves


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
            yield _name(key, null, level), null.function(train, n_samples, rng, level)


def _name(key: str, null: Null, level: float) -> str:
    return key if level == null.plain else f"{key} {level:g}"
