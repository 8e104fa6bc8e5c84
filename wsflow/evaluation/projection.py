"""Networks in the plane: along the two directions in which training networks differ most."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture.fixed_entries import difference
from wsflow.evaluation.embedding import canonical, evenly_spaced, functions_of, mean_reference
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.mapped import finite_rows
from wsflow.populations.arguments import takes_networks
from wsflow.representation import in_a_line
from wsflow.running.compatibility import check_task
from wsflow.symmetry.matching import orbit_matching
from wsflow.symmetry.matching.snapshots import snapshot_parts
from wsflow.task import Task
from wsflow.weights import WeightArray

SPACES = ("weights", "function")
TRAINING = "training networks"
# of each set are drawn at most: more points hide each other
DRAWN = 1000
# numbers of the networks of a set that are decomposed: 256 MiB in float64
NUMBERS = 2**25


@in_a_line
@dataclass(frozen=True, eq=False)
class NetworkMap:
    """Sets of networks as points of the plane.

    Parameters
    ----------
    points : dict from str to ndarray of shape (m, 2)
        Of each set, the training networks first.
    counts : dict from str to int
        Networks of each set, of which the points may be some.
    runs, steps : ndarray of shape (m,)
        Of the points of the training networks.
    explained : ndarray of shape (2,)
        Shares of the variance of the training networks along the two directions.
    space : {"weights", "function"}
    """

    points: dict[str, np.ndarray]
    counts: dict[str, int]
    runs: np.ndarray
    steps: np.ndarray
    explained: np.ndarray
    space: str = "weights"


@takes_networks("train")
@takes_networks("others", named=True)
def network_map(
    train: WeightArray,
    others: WeightArray | Mapping[str, WeightArray] | None = None,
    task: Task | None = None,
    *,
    space: str = "weights",
) -> NetworkMap:
    """Project networks onto the two principal directions of training networks.

    In weights, networks are canonical and aligned to the mean training network, so that equal functions are one point
    wherever their neurons and scales are; snapshots of a run move as the last of them does. In function, networks are
    their predictions on at most 512 held-out inputs of the task, and the distance is the rms difference of predictions.
    Of each set at most 1,000 networks are projected, evenly spaced, and fewer of large ones; those that are not finite
    are left out.

    Parameters
    ----------
    train : WeightArray of shape (n, d)
        They decide the directions.
    others : WeightArray of shape (m, d), or mapping from names to such, optional
        Other networks of the same architecture; an array alone is named ``"samples"``.
    task : Task, optional
        Needed in function.
    space : {"weights", "function"}

    Raises
    ------
    ValueError
        If `space` has a wrong value.
    InvalidInputError
        If the architectures differ, the task is missing or not that of the networks, or fewer than 2 training networks
        are different.

    References
    ----------
    Pearson 1901, "On lines and planes of closest fit to systems of points in space".

    Examples
    --------
    Permutations and scalings of neurons do not move a network:

    >>> import numpy as np
    >>> import torch
    >>> from wsflow import Architecture, WeightArray
    >>> from wsflow.evaluation import network_map
    >>> from wsflow.symmetry.actions import Action
    >>> weights = WeightArray(np.random.default_rng(0).normal(size=(20, 23)), Architecture.mlp([4, 3, 2]))
    >>> action = Action.random(weights.architecture, 20, torch.Generator().manual_seed(0))
    >>> found = network_map(weights, action(weights))
    >>> bool(np.allclose(found.points["training networks"], found.points["samples"]))
    True
    """
    if space not in SPACES:
        raise ValueError(f"The 'space' of network_map is one of {', '.join(SPACES)}, got {space!r}.")
    named = others if isinstance(others, Mapping) else {} if others is None else {"samples": others}
    _check(train, named)
    sets = {TRAINING: train, **named}
    chosen = {name: _chosen(name, weights) for name, weights in sets.items()}
    coordinates = _coordinates(chosen[TRAINING], task, space)
    found = {name: coordinates(weights) for name, weights in chosen.items()}
    directions = principal_directions(found[TRAINING])
    return NetworkMap(
        {name: directions.transform(values) for name, values in found.items()},
        {name: len(weights) for name, weights in sets.items()},
        chosen[TRAINING].runs,
        chosen[TRAINING].steps,
        directions.explained_variance_ratio_,
        space,
    )


def principal_directions(points: np.ndarray) -> Any:
    """Fit scikit-learn's PCA with two components to points (n, f), which are not all equal."""
    from sklearn.decomposition import PCA

    if len(points) < 2 or points.shape[1] < 2 or (points == points[0]).all():
        raise InvalidInputError(
            f"A map needs at least 2 different networks of 2 numbers or more, got {len(points)} of {points.shape[1]}: "
            "there is no direction in which they differ."
        )
    return PCA(2, random_state=0).fit(points)


def _check(train: WeightArray, others: Mapping[str, WeightArray]) -> None:
    if TRAINING in others:
        raise ValueError(f"Other networks of a map have other names than {TRAINING!r}.")
    for name, weights in others.items():
        if weights.architecture != train.architecture:
            raise InvalidInputError(
                f"The networks {name!r} are {weights.architecture}, but the training networks are "
                f"{train.architecture}: a map is of one architecture."
                f"{difference(train.architecture, weights.architecture)}"
            )


def _chosen(name: str, weights: WeightArray) -> WeightArray:
    """Return some of the finite networks of a set, evenly spaced."""
    finite = np.flatnonzero(finite_rows(np.asarray(weights)))
    if not len(finite):
        raise NumericalError(f"None of the {len(weights)} networks {name!r} is finite: there is nothing to draw.")
    return weights[finite[evenly_spaced(len(finite), min(DRAWN, max(2, NUMBERS // weights.shape[1])))]]


def _coordinates(train: WeightArray, task: Task | None, space: str) -> Callable[[WeightArray], np.ndarray]:
    """Return what embeds networks: among aligned, canonical ones, or by what they predict."""
    if space == "weights":
        reference = mean_reference(train)
        return lambda weights: _aligned(weights, reference).numpy()
    if task is None:
        raise InvalidInputError("A map of functions needs inputs on which they are compared: give a task.")
    check_task(train.architecture, task)
    return lambda weights: functions_of(weights, task).double().numpy()


def _aligned(weights: WeightArray, reference: Tensor) -> Tensor:
    """Return canonical networks (n, d) without statistics; all snapshots of a run move as its last one is aligned."""
    rows, architecture = canonical(weights), weights.architecture
    for part in snapshot_parts(weights, "run", *weights.shape)[1] if architecture.groups else []:
        matched = rows[part.matched]
        action = orbit_matching(matched, reference.expand(matched.shape), architecture)
        for moved, which in part.moved:
            rows[moved] = action.rows(which)(rows[moved])
    rows[:, torch.from_numpy(architecture.statistic_columns)] = 0
    return rows
