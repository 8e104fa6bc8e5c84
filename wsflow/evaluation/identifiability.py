"""Whether neurons are identifiable: is the neuron of another network that a neuron resembles most the one of its place?

References
----------
Bürgin, Herbst, Lin and Jegelka 2026, arXiv:2606.04754 (neuron identifiability across training runs); Li, Yosinski,
Clune, Lipson and Hopcroft 2016, "Convergent learning", arXiv:1511.07543 (matching by correlations of activations).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture.program import Value
from wsflow.evaluation.connectivity import row_pairs
from wsflow.exceptions import InvalidInputError
from wsflow.populations.arguments import takes_networks
from wsflow.running import unflatten
from wsflow.running.affine import SPATIAL
from wsflow.running.execution import evaluation_run
from wsflow.running.runner import Run
from wsflow.running.steps import is_own
from wsflow.task import Task
from wsflow.weights import WeightArray

# examples on which activations are compared, and numbers of each neuron at most
EXAMPLES, NUMBERS = 1024, 4096


@takes_networks("a", "b")
def neuron_identifiability(a: WeightArray, b: WeightArray, task: Task, pairs: Any = None) -> np.ndarray:
    """Measure the share of neurons whose best match in another network is the neuron in the same place.

    The best match is the neuron of the same layer whose activations on the task's inputs correlate most. Neurons are
    the channels that linear layers and convolutions take in, without those of the inputs, and without dead ones.

    Parameters
    ----------
    a, b : WeightArray of shape (n, d)
        Of one architecture with a program or layers.
    task : Task
        Its first 1,024 inputs are used.
    pairs : array-like of shape (pairs, 2), optional
        Rows of `a` and of `b` (default: row by row).

    Returns
    -------
    ndarray of shape (pairs,)
        Between 0 and 1; NaN without neurons that are alive in both. Chance is one over the width of a layer.

    Raises
    ------
    InvalidInputError
        If the networks do not pair up, or do not run by themselves.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, Task, WeightArray
    >>> from wsflow.evaluation.identifiability import neuron_identifiability
    >>> rng = np.random.default_rng(0)
    >>> networks = WeightArray(rng.normal(size=(2, 58)), Architecture.mlp([4, 8, 2]))
    >>> task = Task(rng.normal(size=(50, 4)), [0, 1] * 25)
    >>> neuron_identifiability(networks, networks, task)
    array([1., 1.])
    """
    left, right = row_pairs(a, b, pairs)
    inputs = torch.from_numpy(np.array(task.X[:EXAMPLES]))
    own = [_features(x, inputs) for x in (a, b)]
    matched, counted = np.zeros(len(left)), np.zeros(len(left))
    for one, other in zip(*own, strict=True):
        for pair, (i, j) in enumerate(zip(left, right, strict=True)):
            correlation, alive = _correlations(one[i], other[j])
            same = correlation.argmax(1) == torch.arange(len(correlation))
            matched[pair] += float((same & alive).sum())
            counted[pair] += float(alive.sum())
    with np.errstate(invalid="ignore"):
        return matched / counted


def _features(weights: WeightArray, inputs: Tensor) -> list[Tensor]:
    """Return what each linear layer and convolution takes in (n, numbers, channels), once where several take it."""
    architecture = weights.architecture
    rows = torch.from_numpy(np.array(weights))
    with torch.no_grad():
        run = evaluation_run(unflatten(rows, architecture), architecture)
        if run is None:
            raise InvalidInputError(
                "What these networks compute could not be kept as a program, so their neurons cannot be compared."
            )
        return list(_taken_in(run, inputs.to(rows.dtype) if inputs.is_floating_point() else inputs))


def _taken_in(run: Run, inputs: Tensor) -> Iterator[Tensor]:
    seen: set[str] = set()
    for operation, arguments, _ in run.operations(inputs):
        if operation.base not in SPATIAL or len(arguments) < 2 or not (is_own(arguments[0]) and is_own(arguments[1])):
            continue
        source = operation.arguments[0]
        if isinstance(source, Value) and source.name not in seen:
            seen.add(source.name)
            x = arguments[0].value
            x = x.movedim(2, -1) if SPATIAL[operation.base] else x
            x = x.reshape(len(x), -1, x.shape[-1])
            yield x[:, :: -(-x.shape[1] // NUMBERS)]


def _correlations(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return correlations (channels, channels) of two networks' channels, and which are alive in both."""
    one, other = (x - x.mean(0) for x in (one.double(), other.double()))
    norms = one.norm(dim=0), other.norm(dim=0)
    unit = [torch.where(n > 0, x / n, 0.0) for x, n in zip((one, other), norms, strict=True)]
    return unit[0].T @ unit[1], (norms[0] > 0) & (norms[1] > 0)
