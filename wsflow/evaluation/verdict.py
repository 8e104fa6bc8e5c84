"""The verdict: what the numbers of a report mean, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan

from wsflow.evaluation.measures import MEASURES
from wsflow.evaluation.pareto import DIVERSITY, TOLERANCE, Bound, Frontier, Row

# of networks of held-out runs 1% are that near to a training network, and of 200 honest samples hardly ever 5%
MAX_COPIES = 0.05
# with fewer held-out networks their 1% quantile is the very nearest of them, and says nothing
HELD_OUT_FOR_COPIES = 100
MOST = 0.5
# halfway from a copy to a newly trained network
MIN_NOVELTY = 0.5
# the nearest samples may be nearer, but a cluster of near-copies in a good mean shows here
MIN_NOVELTY_Q05 = 0.3
# below it samples are about half the variance of trained networks: .7^2 = .49
MIN_DISPERSION = 0.7
# with more overlap there are too few mistakes, or they are the task's and not the networks'
MAX_OVERLAP = 0.9
# of the test whether samples have the law of held-out networks
LEVEL = 0.05
# runs per weight below which more than 5% were likely copies: at 802 weights 22% of 100 runs, 17% of 300, 4% of 600
RUNS_PER_WEIGHT = 0.7


def null_wins(nulls: Mapping[str, Row | Frontier], samples: Row, score: str = "accuracy") -> list[str]:
    """Name the nulls that are at least as good as the samples, at their novelty and dispersion, the best score first.

    A curve wins with any of its points, also between two levels.

    >>> samples = {"accuracy": 0.93, "loss": 0.2, "novelty": 1.0, "dispersion": 1.0}
    >>> null_wins({"mean": samples | {"dispersion": 0.0}, "noise 0.1": samples | {"loss": 0.1}}, samples)
    ['noise 0.1']
    """
    return [level for level, _ in _winners(nulls, samples, score)]


def comparable(nulls: Mapping[str, Row], samples: Row) -> list[str]:
    """Name the nulls that are about as new and as different as the samples."""
    return [name for name, row in nulls.items() if all(not row[k] < samples[k] - TOLERANCE for k in DIVERSITY)]


def verdict_on_samples(
    samples: Row,
    nulls: Mapping[str, Row | Frontier],
    counts: Mapping[str, int],
    score: str,
    n_weights: int,
    distribution: Mapping[str, Row] | None = None,
) -> list[str]:
    """Return the verdict in sentences, the advice to train more runs first; `distribution` is by space."""
    sentences = [
        _few_runs(counts["training_runs"], n_weights),
        _copies(samples, counts["held_out"]),
        _collapse(samples),
        _law(distribution or {}),
    ]
    if nulls:
        sentences.append(_nulls(samples, nulls, score))
    return [sentence for sentence in sentences if sentence]


def verdict_on_frontier(curve: Frontier, nulls: Mapping[str, Row | Frontier]) -> str:
    """Return the sentence on a generator with a knob: at which levels a null is as good."""
    found = {name: null_wins(nulls, row, curve.score) for name, row in zip(curve.names, curve.rows, strict=True)}
    behind = [f"{name} ({winners[0]})" for name, winners in found.items() if winners]
    if not behind:
        return f"The frontier of {curve.name} lies above every null, at {', '.join(curve.names)}."
    ahead = [name for name, winners in found.items() if not winners]
    above = f", above them at {', '.join(ahead)}" if ahead else ""
    return (
        f"The frontier of {curve.name} does not lie above every null: a null is as good at {', '.join(behind)}{above}."
    )


def verdict_on_mistakes(samples: Row, held_out: Row, noise: Frontier) -> str:
    """Return the sentence on the noise frontier of Zeng et al. 2025, arXiv:2506.07998.

    It is "" where newly trained networks lie below that frontier too, or where hardly any mistakes differ.
    """
    if not held_out.get("iou", 1.0) <= MAX_OVERLAP or _noise_reaches(noise, held_out):
        return ""
    found = _noise_reaches(noise, samples)
    if found is None:
        return "Samples lie above the noise frontier, as newly trained networks do."
    level, row = found
    return (
        f"Samples lie below the noise frontier: {level} has accuracy {row['accuracy']:.3f} at an overlap of mistakes "
        f"of {row['iou']:.2f}, they {samples['accuracy']:.3f} at {samples['iou']:.2f} (newly trained networks "
        f"{held_out['accuracy']:.3f} at {held_out['iou']:.2f})."
    )


def _noise_reaches(noise: Frontier, row: Row) -> tuple[str, dict[str, float]] | None:
    return noise.best([Bound("iou", row["iou"], at_most=True), Bound("accuracy", row["accuracy"])])


def _frontier(name: str, null: Row | Frontier, score: str) -> Frontier:
    return null if isinstance(null, Frontier) else Frontier(name, (name,), (null,), score)


def _winners(nulls: Mapping[str, Row | Frontier], samples: Row, score: str) -> list[tuple[str, Row]]:
    """Return the level at which each null is no worse, and the numbers there, the best score first."""
    found = (_frontier(name, null, score).reaches(samples) for name, null in nulls.items())
    # curves share their ends: a point that two of them have counts once
    points: dict[str, Row] = dict(point for point in found if point is not None)
    return sorted(points.items(), key=lambda point: -point[1][score])


def _rivals(nulls: Mapping[str, Row | Frontier], samples: Row, score: str) -> list[tuple[str, Row]]:
    """Return the best point of each null that is as new and as different, the best score first."""
    bounds = [Bound(key, samples[key] - TOLERANCE) for key in DIVERSITY]
    found = (_frontier(name, null, score).best(bounds) for name, null in nulls.items())
    return sorted((point for point in found if point is not None), key=lambda point: -point[1][score])


def _few_runs(n_runs: int, n_weights: int) -> str:
    needed = round(RUNS_PER_WEIGHT * n_weights)
    if n_runs >= needed:
        return ""
    return (
        f"Train more runs first: {n_runs} for networks of {n_weights} weights are few, and with fewer than about "
        f"{needed} samples tend towards copies, and nulls are hard to beat."
    )


def _copies(samples: Row, n_held_out: int) -> str:
    if isnan(samples["novelty"]):
        return "Novelty is undefined: networks of held-out runs are no further from the training networks than copies."
    found = [f"their novelty is {samples['novelty']:.2f}"] if samples["novelty"] < MIN_NOVELTY else []
    if samples["novelty_q05"] < MIN_NOVELTY_Q05:
        found.append(f"the 5% quantile of their novelty is {samples['novelty_q05']:.2f}")
    if found:
        return f"Samples are copies of training networks: {' and '.join(found)}, where 1 is a newly trained network."
    mean = f"novelty is {samples['novelty']:.2f}, where 1 is a newly trained network"
    if samples["copies"] <= MAX_COPIES:
        return f"Samples are new: their {mean}."
    if n_held_out < HELD_OUT_FOR_COPIES:
        return _likely_copies(samples["copies"], n_held_out, mean)
    first = "Most samples are copies" if samples["copies"] > MOST else "Not all samples are new"
    return (
        f"{first}: {samples['copies']:.0%} of them are likely copies, nearer to a training network than 99% of newly "
        f"trained networks are, although their mean {mean}."
    )


def _likely_copies(share: float, n_held_out: int, mean: str) -> str:
    """Return the sentence where the 1% quantile of held-out networks is hardly more than the nearest one of them.

    Of the law of newly trained networks, the share that is nearer than the nearest of n exceeds s by chance with
    probability (1 - s)^n.
    """
    few = f"Too few networks are held out ({n_held_out}) to say how many are copies: hold out {HELD_OUT_FOR_COPIES}."
    if (1 - share) ** n_held_out > LEVEL:
        return f"Samples are new: their {mean}. {few}"
    return (
        f"{'Most' if share > MOST else 'Some'} samples look like copies: {share:.0%} of them are nearer to a training "
        f"network than newly trained networks are, although their mean {mean}. {few}"
    )


def _collapse(samples: Row) -> str:
    value = samples["dispersion"]
    if isnan(value):
        return "Dispersion is undefined: it needs 2 samples, and held-out networks that differ."
    if value < MIN_DISPERSION:
        return f"Samples collapse: they are {value:.2f} times as far from each other as newly trained networks are."
    return f"Samples differ from each other {value:.2f} times as much as newly trained networks do."


def _law(distribution: Mapping[str, Row]) -> str:
    rejected = [f"{row['p_value']:.3f} in {space}" for space, row in distribution.items() if row["p_value"] <= LEVEL]
    if rejected:
        return f"A test tells samples from networks of held-out runs: p = {' and '.join(rejected)}."
    known = [row["p_value"] for row in distribution.values() if not isnan(row["p_value"])]
    if not known:
        return ""
    return f"A test does not tell samples from networks of held-out runs: p is {min(known):.2f} or more."


def _nulls(samples: Row, nulls: Mapping[str, Row | Frontier], score: str) -> str:
    winners = _winners(nulls, samples, score)
    if winners:
        (first, row), others = winners[0], [name for name, _ in winners[1:]]
        also = f" So do {', '.join(others)}." if others else ""
        return (
            f"A null wins: {first} has {_numbers(row, score)}, where the samples have {_numbers(samples, score)}.{also}"
        )
    rivals = _rivals(nulls, samples, score)
    if not rivals:
        return f"No null reaches the samples' {_numbers(samples, score)}: none is as new and as different."
    best, row = rivals[0]
    return (
        f"No null reaches the samples' {_numbers(samples, score)}: the best that is as new and as different is {best}, "
        f"with {_numbers(row, score)}."
    )


def _numbers(row: Row, score: str) -> str:
    return (
        f"{MEASURES[score].label} {row[score]:.3f} and loss {row['loss']:.3f} at novelty "
        f"{row['novelty']:.2f} and dispersion {row['dispersion']:.2f}"
    )
