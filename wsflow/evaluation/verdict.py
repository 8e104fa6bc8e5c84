"""The verdict: what the numbers of a report mean, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan

Row = Mapping[str, float]

# of networks of held-out runs 1% are that near to a training network, and of 200 honest samples hardly ever 5%
MAX_COPIES = 0.05
# with fewer held-out networks their 1% quantile is the very nearest of them, and says nothing
HELD_OUT_FOR_COPIES = 100
# halfway from a copy to a newly trained network
MIN_NOVELTY = 0.5
# the nearest samples may be nearer, but a cluster of near-copies in a good mean shows here
MIN_NOVELTY_Q05 = 0.3
# below it samples are about half the variance of trained networks: .7^2 = .49
MIN_DISPERSION = 0.7
# how far below the samples a null may be in novelty and dispersion: two samplings differ by that much
TOLERANCE = 0.05
# runs per weight below which more than 5% were likely copies: at 802 weights 22% of 100 runs, 17% of 300, 4% of 600
RUNS_PER_WEIGHT = 0.7


def null_wins(nulls: Mapping[str, Row], samples: Row, score: str = "accuracy") -> list[str]:
    """The nulls that are at least as good as the samples, at their novelty and dispersion.

    Parameters
    ----------
    nulls : mapping from str to row
    samples : row
        With the score, ``"loss"``, ``"novelty"`` and ``"dispersion"``.
    score : str
        The key of the score.

    Returns
    -------
    list of str
        The best score first.

    Examples
    --------
    >>> from wsflow.evaluation.verdict import null_wins
    >>> samples = {"accuracy": 0.93, "loss": 0.2, "novelty": 1.0, "dispersion": 1.0}
    >>> null_wins({"mean": samples | {"dispersion": 0.0}, "noise 0.1": samples | {"loss": 0.1}}, samples)
    ['noise 0.1']
    """
    winners = [n for n in comparable(nulls, samples) if _at_least_as_good(nulls[n], samples, score)]
    return sorted(winners, key=lambda name: -nulls[name][score])


def comparable(nulls: Mapping[str, Row], samples: Row) -> list[str]:
    """The nulls that are about as new and as different as the samples.

    Parameters
    ----------
    nulls : mapping from str to row
    samples : row

    Returns
    -------
    list of str
    """
    keys = ("novelty", "dispersion")
    return [name for name, row in nulls.items() if all(not row[k] < samples[k] - TOLERANCE for k in keys)]


def describe(
    samples: Row, nulls: Mapping[str, Row], counts: Mapping[str, int], score: str, n_weights: int
) -> list[str]:
    """The verdict on samples.

    Parameters
    ----------
    samples : row
    nulls : mapping from str to row
    counts : mapping from str to int
        With ``"training_runs"`` and ``"held_out"``.
    score : str
    n_weights : int

    Returns
    -------
    list of str
        Sentences; the advice to train more runs comes first where it applies.
    """
    sentences = [
        _few_runs(counts["training_runs"], n_weights),
        _copies(samples, counts["held_out"]),
        _collapse(samples),
    ]
    if nulls:
        sentences.append(_nulls(samples, nulls, score))
    return [sentence for sentence in sentences if sentence]


def _at_least_as_good(row: Row, samples: Row, score: str) -> bool:
    return row["loss"] <= samples["loss"] and row[score] >= samples[score]


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
    new = f"Samples are new: their novelty is {samples['novelty']:.2f}, where 1 is a newly trained network."
    if samples["copies"] <= MAX_COPIES:
        return new
    if n_held_out < HELD_OUT_FOR_COPIES:
        return (
            f"{new} Too few networks are held out ({n_held_out}) to say how many are copies: hold out "
            f"{HELD_OUT_FOR_COPIES}."
        )
    return (
        f"{new} But {samples['copies']:.0%} of them are likely copies: nearer to a training network than 99% of newly "
        "trained networks are."
    )


def _collapse(samples: Row) -> str:
    value = samples["dispersion"]
    if isnan(value):
        return "Dispersion is undefined: it needs 2 samples, and held-out networks that differ."
    if value < MIN_DISPERSION:
        return f"Samples collapse: they are {value:.2f} times as far from each other as newly trained networks are."
    return f"Samples differ from each other {value:.2f} times as much as newly trained networks do."


def _nulls(samples: Row, nulls: Mapping[str, Row], score: str) -> str:
    winners = null_wins(nulls, samples, score)
    if winners:
        first, others = winners[0], winners[1:]
        also = f" So do {', '.join(others)}." if others else ""
        return (
            f"A null wins: {first} has {_numbers(nulls[first], score)}, where the samples have "
            f"{_numbers(samples, score)}.{also}"
        )
    rivals = comparable(nulls, samples)
    if not rivals:
        return f"No null reaches the samples' {_numbers(samples, score)}: none is as new and as different."
    best = max(rivals, key=lambda name: nulls[name][score])
    return (
        f"No null reaches the samples' {_numbers(samples, score)}: the best that is as new and as different is {best}, "
        f"with {_numbers(nulls[best], score)}."
    )


def _numbers(row: Row, score: str) -> str:
    return (
        f"{'R^2' if score == 'r2' else score} {row[score]:.3f} and loss {row['loss']:.3f} at novelty "
        f"{row['novelty']:.2f} and dispersion {row['dispersion']:.2f}"
    )
