"""Networks as points of two feature spaces: canonical weights aligned to a reference, and predictions on a task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsflow import mapped
from wsflow.architecture import Architecture
from wsflow.evaluation.predictive import chunked_outputs
from wsflow.mapped import empty_like
from wsflow.representation import in_a_line
from wsflow.symmetry.canonical import canonical_action
from wsflow.symmetry.matching import orbit_matching
from wsflow.task import Task
from wsflow.weights import WeightArray

# inputs on which functions are compared: memory for a population grows with them
MAX_INPUTS = 512
# networks from which a reference is made, and how often it is matched again
REFERENCE_NETWORKS, REFERENCE_SWEEPS = 400, 3
# numbers of one chunk of rows: 4 MiB stay in the cache, and matching is twenty times slower on 64 MiB with two threads
CHUNK_NUMBERS = 2**19


@in_a_line
@dataclass(frozen=True)
class Embedding:
    """Networks in both spaces; Euclidean distance in `functions` is the rms difference of predictions."""

    architecture: Architecture
    weights: Tensor  # (n, d), canonical and aligned; statistics are zero, they are no coordinates
    functions: Tensor  # (n, f)

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, rows: np.ndarray) -> Embedding:
        return Embedding(self.architecture, self.weights[rows], self.functions[rows])

    def thinned(self, count: int) -> Embedding:
        """Return at most `count` networks, evenly spaced."""
        return self[evenly_spaced(len(self), count)]


def embed(weights: WeightArray, task: Task, reference: Tensor) -> Embedding:
    """Embed networks: align them to `reference` (d,), and predict the held-out inputs of `task`."""
    architecture = weights.architecture
    rows = aligned(weights, reference)
    rows[:, torch.from_numpy(architecture.statistic_columns)] = 0
    return Embedding(architecture, rows, functions_of(weights, task))


def functions_of(weights: WeightArray, task: Task) -> Tensor:
    """Return predictions (n, f) of held-out inputs of a task, whose Euclidean distance is their rms difference."""
    inputs = task.held_out.X
    inputs = inputs[evenly_spaced(len(inputs), MAX_INPUTS)]
    functions, start = np.empty((0, 0)), 0
    for outputs in chunked_outputs(weights, inputs):
        part = task.criterion.compared(outputs).flatten(1)
        if not start:
            functions = empty_like(np.asarray(weights), (len(weights), part.shape[1]), part.numpy().dtype)
        functions[start : start + len(part)] = part / part.shape[1] ** 0.5
        start += len(part)
    return torch.from_numpy(functions)


def concatenate(first: Embedding, second: Embedding) -> Embedding:
    """Return the networks of both."""
    pairs = (first.weights, second.weights), (first.functions, second.functions)
    return Embedding(first.architecture, *(torch.cat(pair) for pair in pairs))


def aligned(weights: WeightArray, reference: Tensor) -> Tensor:
    """Return the canonical networks (n, d) in float64, aligned to one reference (d,), mapped where the networks are."""
    rows = empty_like(np.asarray(weights), dtype=np.float64)
    for part in chunks(*weights.shape):
        rows[part] = align(canonical(weights[part]), reference, weights.architecture).numpy()
    return torch.from_numpy(rows)


def canonical(weights: WeightArray) -> Tensor:
    """Return the canonical representatives (n, d) in float64, with the signs left for a reference to decide."""
    found = torch.empty(weights.shape, dtype=torch.float64)
    for part in chunks(*weights.shape):
        rows = torch.from_numpy(np.array(weights[part], dtype=np.float64))
        found[part] = canonical_action(rows, weights.architecture, signs=False)(rows)
    return found


def mean_reference(train: WeightArray) -> Tensor:
    """Return the mean (d,) of canonical networks aligned to it, iterated as MergeMany (Ainsworth et al. 2023) does."""
    rows = canonical(train[evenly_spaced(len(train), REFERENCE_NETWORKS)])
    reference = rows.mean(0) if train.aligned else rows[0]
    for _ in range(0 if train.aligned else REFERENCE_SWEEPS):
        sums = [align(rows[part], reference, train.architecture).sum(0) for part in chunks(*rows.shape)]
        reference = torch.stack(sums).sum(0) / len(rows)
    return reference


def align(weights: Tensor, reference: Tensor, architecture: Architecture) -> Tensor:
    """Permute and flip canonical networks (n, d) towards one reference (d,), or each towards its own (n, d)."""
    if not architecture.groups:
        return weights
    references = reference.expand(weights.shape)
    parts = chunks(len(weights), architecture.n_weights)
    return torch.cat([orbit_matching(weights[r], references[r], architecture)(weights[r]) for r in parts])


def evenly_spaced(n: int, count: int) -> np.ndarray:
    """Return the indices of at most `count` of n things."""
    return np.linspace(0, n - 1, min(n, count)).astype(int)


def chunks(n: int, width: int) -> Iterator[slice]:
    """Yield slices of n rows of `width` numbers that stay in the cache."""
    return mapped.chunks(n, width, CHUNK_NUMBERS)
