"""The evaluator: measures sets of networks beside training networks and networks of held-out runs, on one task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from wsflow.evaluation.barrier import fixed_pairs
from wsflow.evaluation.embedding import Embedding, embed, mean_reference
from wsflow.evaluation.measures import MEASURES, Evidence, measure
from wsflow.evaluation.nearest_neighbours import NearestDistances, nearest_distances, rms_distances
from wsflow.evaluation.novelty import PAIRS, check_held_out, dispersion_of, novelty_of
from wsflow.evaluation.pareto import Frontier
from wsflow.evaluation.predictive import Predictive, predict, score_key
from wsflow.parallel import side_by_side
from wsflow.representation import in_a_line
from wsflow.task import Task
from wsflow.weights import WeightArray

# networks of a null or of training that are measured: distances are matched pairwise, and there are many nulls
MEASURED = 200
NULL_PAIRS = 1000


@in_a_line
@dataclass(frozen=True)
class Measured:
    """The row of a set of networks in a report, and what it was computed from (all networks, or a part of them)."""

    row: dict[str, float]
    predictive: Predictive
    nearest: NearestDistances
    embedding: Embedding


@in_a_line
@dataclass(frozen=True)
class Evaluator:
    """What every set of networks is compared with, measured once; make it with `Evaluator.of`.

    Parameters
    ----------
    nearest : NearestDistances
        Of the held-out networks to the training networks.
    rms : tuple of two floats
        Rms distances between networks of held-out runs, in weights and in function.
    training : Predictive
        What the training networks predict.
    reference : Tensor of shape (d,)
        What networks are aligned to.

    Examples
    --------
    >>> import wsflow
    >>> from wsflow.evaluation import Evaluator, frontier
    >>> task = wsflow.load_task("iris")
    >>> weights = wsflow.train_population(task, hidden=(4,), n_runs=12, epochs=2).weights
    >>> evaluator = Evaluator.of(weights[:6], weights[6:9], task)
    >>> abs(round(evaluator.measure(weights[:6]).row["novelty"], 3))
    0.0
    >>> frontier({0.5: weights[9:10], 1.0: weights[9:]}, evaluator).names
    ('temperature 0.5', 'temperature 1')
    """

    train: Embedding
    held_out: Embedding
    nearest: NearestDistances
    rms: tuple[float, float]
    training: Predictive
    task: Task
    reference: Tensor

    @classmethod
    def of(cls, train: WeightArray, held_out: WeightArray, task: Task, reference: Tensor | None = None) -> Evaluator:
        """Measure what samples will be compared with, aligned to `reference` (d,) or the mean training network."""
        check_held_out(train, held_out)
        centre = mean_reference(train) if reference is None else reference
        known, others = embed(train, task, centre), embed(held_out, task, centre)
        rms = rms_distances(others, fixed_pairs(held_out.runs, PAIRS))
        return cls(known, others, nearest_distances(others, known), rms, predict(train, task.held_out), task, centre)

    @property
    def score(self) -> str:
        """The key of the score."""
        return score_key(self.task)

    def measure(self, weights: WeightArray, pairs: int = PAIRS) -> Measured:
        """Measure samples or a null, with dispersion over so many pairs of networks of different runs."""
        networks = embed(weights, self.task, self.reference)
        rms = rms_distances(networks, fixed_pairs(weights.runs, pairs)) if len(weights) > 1 else (np.nan, np.nan)
        predictive = predict(weights, self.task.held_out)
        return self._measured(networks, predictive, nearest_distances(networks, self.train), rms)

    def measure_held_out(self, held_out: WeightArray) -> Measured:
        """Measure the held-out networks, whose distances are known."""
        return self._measured(self.held_out, predict(held_out, self.task.held_out), self.nearest, self.rms)

    def measure_training(self, train: WeightArray) -> Measured:
        """Measure the scores and losses of all training networks, and the distances of 200 of them."""
        networks = self.train.thinned(MEASURED)
        rms = rms_distances(self.train, fixed_pairs(train.runs, PAIRS))
        return self._measured(networks, self.training, nearest_distances(networks, self.train), rms)

    def _measured(
        self, networks: Embedding, predictive: Predictive, nearest: NearestDistances, rms: tuple[float, float]
    ) -> Measured:
        data = self.task.held_out
        found = Evidence(
            predictive, novelty_of(nearest, self.nearest), dispersion_of(rms, self.rms), self.training, data
        )
        return Measured(measure(MEASURES, data, found), predictive, nearest, networks)


def frontier(
    samples: Mapping[float, WeightArray],
    evaluator: Evaluator,
    name: str = "samples",
    knob: str = "temperature",
    n_jobs: int | None = None,
) -> Frontier:
    """Measure the frontier of a generator with a knob: a row for the networks that it gives at each level."""
    levels = sorted(samples)
    calls = ((as_own_runs(samples[level]),) for level in levels)
    rows = tuple(found.row for found in side_by_side(evaluator.measure, calls, len(levels), n_jobs))
    return Frontier(name, tuple(f"{knob} {level:g}" for level in levels), rows, evaluator.score)


def as_own_runs(weights: WeightArray) -> WeightArray:
    """Return samples with a run for each: the runs by which samples are numbered, if any, say nothing."""
    return WeightArray(weights, weights.architecture, aligned=weights.aligned)
