"""Detection of networks that are foreign to a population or duplicates, by conformal p-values from held-out runs.

A fresh network of the population is as likely to have any rank among the held-out ones, so with n of those the p-value
(1 + #{at least as extreme}) / (n + 1) is at most a with a probability of at most a, whatever the score is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wsflow.evaluation.embedding import concatenate, embed, mean_reference
from wsflow.evaluation.nearest_neighbours import nearest_distances
from wsflow.evaluation.novelty import check_held_out
from wsflow.exceptions import InvalidInputError
from wsflow.populations.arguments import takes_networks
from wsflow.representation import in_a_line
from wsflow.task import Task
from wsflow.weights import WeightArray


@in_a_line
@dataclass(frozen=True)
class Detection:
    """The p-values (n,) of networks, and flags (n,) where they are at most the level."""

    p_values: np.ndarray
    flags: np.ndarray


def foreign(scores: Any, held_out_scores: Any, level: float = 0.01) -> Detection:
    """Flag networks whose score (n,) is lower than that of held-out networks (m,), such as a log-density.

    The model was not fitted to held-out networks, which are one of each run. Of fresh networks a share of `level` is
    flagged (Vovk, Gammerman and Shafer 2005; Bates, Candes, Lei, Romano and Sesia 2023, arXiv:2104.08279).

    >>> foreign([-50.0, 10.0], np.arange(99.0), level=0.01).flags
    array([ True, False])
    """
    new, known = (np.asarray(values, dtype=np.float64).ravel() for values in (scores, held_out_scores))
    if np.isnan(known).any():
        raise InvalidInputError("A score of a held-out network is not a number: drop that network.")
    if 1 / (len(known) + 1) > level:
        raise InvalidInputError(
            f"A level of {level:g} needs {int(np.ceil(1 / level)) - 1} held-out networks, got {len(known)}: hold out "
            "more runs, or raise 'level'."
        )
    # a score that is not a number is as low as any
    new = np.where(np.isnan(new), -np.inf, new)
    lower = np.searchsorted(np.sort(known), new, side="right")
    p_values = (1 + lower) / (len(known) + 1)
    return Detection(p_values, p_values <= level)


@takes_networks("weights", "train", "held_out")
def duplicates(
    weights: WeightArray, train: WeightArray, held_out: WeightArray, task: Task, level: float = 0.01
) -> Detection:
    """Flag networks nearer to a training network, or to each other, than held-out networks are to training networks.

    The distance is the smaller of those in weights (canonical, minimised over permutations and signs) and in function,
    each in units of its median for held-out networks, which are of runs that are not in training, one of each run.
    """
    check_held_out(train, held_out)
    reference = mean_reference(train)
    known, others, new = (embed(w, task, reference) for w in (train, held_out, weights))
    # held-out networks are compared with all of these too, so that a fresh network is one of many like it
    everything = concatenate(known, new)
    usual = nearest_distances(others, everything)
    found = nearest_distances(new, everything, own=len(known) + torch.arange(len(new)))
    units = [float(np.median(d)) or 1.0 for d in (usual.weights, usual.function)]
    near, expected = (np.minimum(d.weights / units[0], d.function / units[1]) for d in (found, usual))
    return foreign(near, expected, level)


@takes_networks("weights", "train", "held_out")
def detect(
    weights: WeightArray,
    train: WeightArray,
    held_out: WeightArray,
    task: Task,
    score: Callable[[WeightArray], Any] | None = None,
    level: float = 0.01,
) -> dict[str, Detection]:
    """Flag duplicated networks (``"duplicate"``) and, where a score is given, foreign ones (``"foreign"``).

    Parameters
    ----------
    held_out : WeightArray of shape (n, d)
        One network of each run that is not in training; a level of 1% needs 99 of them.
    score : callable, optional
        Such as a fitted pipeline's ``score_samples``.
    level : float
        The share of fresh networks that each of the two may flag.

    Raises
    ------
    InvalidInputError
        If a held-out run is in training, or there are too few for the level.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, Task, WeightArray, detect
    >>> rows, architecture = np.random.default_rng(0).normal(size=(60, 17)), Architecture.mlp([2, 3, 2])
    >>> train, unseen = (WeightArray(rows[i : i + 30], architecture, runs=range(i, i + 30)) for i in (0, 30))
    >>> odd, task = train[:1].like(9 * np.array(train[:1])), Task(np.eye(2), [0, 1])
    >>> detect(odd, train, unseen, task, lambda w: -np.square(w).sum(1), level=0.05)["foreign"].flags
    array([ True])
    """
    found = {"duplicate": duplicates(weights, train, held_out, task, level)}
    if score is not None:
        found["foreign"] = foreign(score(weights), score(held_out), level)
    return found
