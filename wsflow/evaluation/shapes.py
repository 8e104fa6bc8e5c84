"""The shape of the loss along a path: its chord, its largest increase, whether it is monotonic, where it is convex.

These are functions of the losses alone, so they serve any path: from an initialisation to the trained network, between
two networks, or along a training run.

References
----------
Goodfellow, Vinyals and Saxe 2015, arXiv:1412.6544, and Lucas, Bae, Zhang, Fort, Zemel and Grosse 2021,
arXiv:2104.11044 (monotonic linear interpolation); Lim, Putterman, Walters, Maron and Jegelka 2024, "The empirical
impact of neural parameter symmetries", arXiv:2405.20231 (the measures together).
"""

from __future__ import annotations

from typing import Any

import numpy as np


def chord(values: np.ndarray, t: np.ndarray | None = None) -> np.ndarray:
    """The straight line between the first and the last value of each path.

    Parameters
    ----------
    values : ndarray of shape (..., k)
    t : ndarray of shape (k,), optional
        Default: evenly spaced.

    Returns
    -------
    ndarray of shape (..., k)

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.evaluation.shapes import chord
    >>> chord(np.array([0.0, 5.0, 2.0]))
    array([0., 1., 2.])
    """
    t = np.linspace(0, 1, values.shape[-1]) if t is None else t
    start = values[..., :1]
    return start + t * (values[..., -1:] - start)


def largest_increase(losses: Any) -> np.ndarray:
    """By how much the loss rises along a path at most, max over s < t of L(t) - L(s), or 0 where it never does.

    Parameters
    ----------
    losses : array-like of shape (..., k)

    Returns
    -------
    ndarray of shape (...)

    Raises
    ------
    ValueError
        If there are fewer than 2 points.

    References
    ----------
    Lucas et al. 2021, arXiv:2104.11044, definition 1.

    Examples
    --------
    >>> from wsflow.evaluation.shapes import largest_increase
    >>> largest_increase([[3.0, 1.0, 1.5, 1.25, 2.0, 0.0], [3.0, 2.0, 2.0, 1.0, 0.5, 0.0]])
    array([1., 0.])
    """
    values = _along(losses, 2)
    return (values - np.minimum.accumulate(values, axis=-1)).max(-1)


def is_monotonic(losses: Any) -> np.ndarray:
    """Whether the loss never rises along a path: monotonic linear interpolation.

    Parameters
    ----------
    losses : array-like of shape (..., k)

    Returns
    -------
    ndarray of bool, shape (...)

    Examples
    --------
    >>> from wsflow.evaluation.shapes import is_monotonic
    >>> is_monotonic([[3.0, 1.0, 1.5], [3.0, 2.0, 2.0]])
    array([False,  True])
    """
    values = _along(losses, 2)
    return np.asarray(_at_most(values[..., 1:], values[..., :-1], values).all(-1))


def local_convexity(losses: Any) -> np.ndarray:
    """The share of points between the ends at which a path is convex, L_i <= (L_(i-1) + L_(i+1)) / 2.

    Parameters
    ----------
    losses : array-like of shape (..., k)
        At evenly spaced points.

    Returns
    -------
    ndarray of shape (...)

    Raises
    ------
    ValueError
        If there are fewer than 3 points.

    Examples
    --------
    >>> from wsflow.evaluation.shapes import local_convexity
    >>> local_convexity([[0.0, 1.0, 4.0, 9.0], [0.0, 1.0, 4.0, 3.0]])
    array([1. , 0.5])
    """
    values = _along(losses, 3)
    return _at_most(values[..., 1:-1], (values[..., :-2] + values[..., 2:]) / 2, values).mean(-1)


def global_convexity(losses: Any, t: np.ndarray | None = None) -> np.ndarray:
    """The share of points between the ends at which a path is not above its chord; 1 where there is no barrier.

    Parameters
    ----------
    losses : array-like of shape (..., k)
    t : ndarray of shape (k,), optional
        Default: evenly spaced.

    Returns
    -------
    ndarray of shape (...)

    Raises
    ------
    ValueError
        If there are fewer than 3 points.

    Examples
    --------
    >>> from wsflow.evaluation.shapes import global_convexity
    >>> global_convexity([[0.0, 1.0, 4.0, 9.0], [0.0, 1.5, 1.0, 3.0]])
    array([1. , 0.5])
    """
    values = _along(losses, 3)
    return _at_most(values[..., 1:-1], chord(values, t)[..., 1:-1], values).mean(-1)


def _along(losses: Any, least: int) -> np.ndarray:
    values = np.asarray(losses, dtype=np.float64)
    if not values.ndim or values.shape[-1] < least:
        raise ValueError(f"This measure of a path needs losses at {least} points or more, got shape {values.shape}.")
    return values


def _at_most(values: np.ndarray, bounds: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Whether values are at most their bounds, up to the rounding of the path."""
    return values <= bounds + 8 * np.finfo(np.float64).eps * np.abs(path).max(-1, keepdims=True)
