"""The energy score: how well samples have the law of networks of held-out runs, a strictly proper score.

ES(P, y) = E |X - y| - E |X - X'| / 2 for X, X' from P: of all laws P, that of y has the lowest expected score, and no
other one has it (Gneiting and Raftery 2007, "Strictly proper scoring rules, prediction, and estimation", section 4.2).
It needs samples only, no densities, so flows in different geometries, behind different preprocessing, and generators
without a density compare.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.evaluation.embedding import align, canonical, functions_of, mean_reference
from wsflow.exceptions import InvalidInputError
from wsflow.running.compatibility import check_task
from wsflow.task import Task
from wsflow.weights import WeightArray


def energy_score(samples: Any, held_out: Any, task: Task | None = None) -> float:
    """Compare the law of samples with that of held-out networks; lower is better.

    Networks are compared by their predictions on the held-out inputs of a task, by rms difference; without a task by
    their canonical weights, aligned to one reference; and rows without an architecture as they are.

    Parameters
    ----------
    samples : WeightArray of shape (n, d), or array-like without an architecture
        At least two.
    held_out : WeightArray of shape (m, d), or array-like without an architecture
        Of runs that the generator has not seen.

    Returns
    -------
    float
        The mean over held-out networks. It compares between generators only, with the same held-out networks.

    Raises
    ------
    InvalidInputError
        If there are too few, or they are of different architectures, or not those of the task.

    References
    ----------
    Gneiting and Raftery 2007, section 4.2; Szekely and Rizzo 2013, "Energy statistics".

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.evaluation import energy_score
    >>> held_out = np.random.default_rng(0).normal(size=(500, 2))
    >>> laws = {sd: np.random.default_rng(1).normal(scale=sd, size=(500, 2)) for sd in (0.5, 1.0, 2.0)}
    >>> min(laws, key=lambda sd: energy_score(laws[sd], held_out))
    1.0
    """
    x, y = _points(samples, held_out, task)
    if len(x) < 2 or not len(y):
        raise InvalidInputError(f"An energy score needs 2 samples and a held-out network, got {len(x)} and {len(y)}.")
    return float(torch.cdist(x, y).mean() - _spread(x) / 2)


def _spread(x: Tensor) -> Tensor:
    """Return the mean distance of two different rows."""
    return torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))


def _points(samples: Any, held_out: Any, task: Task | None) -> tuple[Tensor, Tensor]:
    known = isinstance(samples, WeightArray), isinstance(held_out, WeightArray)
    if not any(known):
        return _rows(samples), _rows(held_out)
    if not all(known) or samples.architecture != held_out.architecture:
        described = [_described(samples), _described(held_out)]
        raise InvalidInputError(
            f"Samples are {described[0]}, and held-out ones {described[1]}: compare like with like."
        )
    if task is not None:
        check_task(held_out.architecture, task)
        return functions_of(samples, task).double(), functions_of(held_out, task).double()
    reference = mean_reference(held_out)
    return _weights(samples, reference), _weights(held_out, reference)


def _described(networks: Any) -> str:
    return f"networks {networks.architecture}" if isinstance(networks, WeightArray) else "plain rows"


def _rows(rows: Any) -> Tensor:
    return torch.from_numpy(np.asarray(rows, dtype=np.float64))


def _weights(networks: WeightArray, reference: Tensor) -> Tensor:
    rows = align(canonical(networks), reference, networks.architecture).double()
    rows[:, torch.from_numpy(networks.architecture.statistic_columns)] = 0
    return rows
