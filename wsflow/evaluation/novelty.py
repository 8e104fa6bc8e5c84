"""Novelty and dispersion: how far samples are from the training networks, and from each other.

Both are ratios to the same distance for networks of held-out runs: at novelty 1 a sample is as new as a newly trained
network, at 0 it is a copy. Distances are measured twice, and the smaller ratio counts:

- in weights, between canonical representatives, minimised over permutations and signs for each pair, because
  alignment to a reference is unstable and would make a noisy copy look new;
- in function, the rms difference of predictions on held-out inputs, because most weights hardly matter and
  noise in those looks new as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsflow.evaluation.barrier import fixed_pairs
from wsflow.evaluation.embedding import embed, mean_reference
from wsflow.evaluation.nearest_neighbours import NearestDistances, nearest_distances, rms_distances
from wsflow.exceptions import InvalidInputError
from wsflow.populations.arguments import takes_networks
from wsflow.representation import in_a_line
from wsflow.task import Task
from wsflow.weights import WeightArray

# pairs whose rms distance is the dispersion
PAIRS = 2000


@in_a_line
@dataclass(frozen=True)
class Novelty:
    """Distances of samples to the training networks, over those of networks of held-out runs.

    Parameters
    ----------
    value, q05, copies : float
        Ratio of the means, ratio of the 5% quantiles, and share of likely copies: samples nearer to a training
        network than the 1% quantile of held-out runs' networks. In weights or in function, whichever looks less new.
    weights, function, q05_weights, q05_function, copies_weights, copies_function : float
        The same in one space. NaN where held-out networks have no distance at all.
    """

    value: float
    q05: float
    copies: float
    weights: float
    function: float
    q05_weights: float
    q05_function: float
    copies_weights: float
    copies_function: float


@dataclass(frozen=True)
class Dispersion:
    """The rms distance between samples, over that between networks of held-out runs: `value` is the smaller ratio."""

    value: float
    weights: float
    function: float


@takes_networks("samples", "train", "held_out")
def novelty(samples: WeightArray, train: WeightArray, held_out: WeightArray, task: Task) -> Novelty:
    """Measure how new samples are; networks may be any representatives, so that a copy in disguise has novelty 0."""
    check_held_out(train, held_out)
    reference = mean_reference(train)
    known, others, new = (embed(w, task, reference) for w in (train, held_out, samples))
    return novelty_of(nearest_distances(new, known), nearest_distances(others, known))


@takes_networks("samples", "held_out")
def dispersion(samples: WeightArray, held_out: WeightArray, task: Task) -> Dispersion:
    """Measure how different samples are from each other; each sample counts as a run of its own."""
    reference = mean_reference(held_out)
    distances = (
        rms_distances(embed(weights, task, reference), fixed_pairs(runs, PAIRS))
        for weights, runs in ((samples, np.arange(len(samples))), (held_out, held_out.runs))
    )
    return dispersion_of(*distances)


def check_held_out(train: WeightArray, held_out: WeightArray) -> None:
    """Refuse held-out networks of runs that are also in training."""
    shared = np.intersect1d(train.runs, held_out.runs)
    if len(shared):
        raise InvalidInputError(
            f"{len(shared)} of the held-out runs are also in training (run {shared[0]} is one), so their networks are "
            "not held out. Split by run, or number the runs of separately trained networks apart with runs=."
        )


def novelty_of(samples: NearestDistances, held_out: NearestDistances) -> Novelty:
    """Return the novelty that follows from distances to training networks."""
    pairs = (samples.weights, held_out.weights), (samples.function, held_out.function)
    means = [_ratio(s.mean(), h.mean()) for s, h in pairs]
    quantiles = [_ratio(np.quantile(s, 0.05), np.quantile(h, 0.05)) for s, h in pairs]
    copies = [float((s < np.quantile(h, 0.01)).mean()) for s, h in pairs]
    return Novelty(_smaller(*means), _smaller(*quantiles), max(copies), *means, *quantiles, *copies)


def dispersion_of(samples: tuple[float, float], held_out: tuple[float, float]) -> Dispersion:
    """Return the dispersion that follows from rms distances in weights and in function."""
    ratios = [_ratio(s, h) for s, h in zip(samples, held_out, strict=True)]
    return Dispersion(_smaller(*ratios), *ratios)


def _ratio(value: float, held_out: float) -> float:
    return float(value / held_out) if held_out > 0 else float("nan")


def _smaller(a: float, b: float) -> float:
    return min((x for x in (a, b) if not np.isnan(x)), default=float("nan"))
