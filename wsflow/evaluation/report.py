"""The report: how good samples are, how new and how different, beside training networks and nulls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.evaluation.barrier import fixed_pairs, midpoint_barrier
from wsflow.evaluation.novelty import PAIRS, check_runs, compare_nearest, compare_spread
from wsflow.evaluation.nulls import null_names, null_samples
from wsflow.evaluation.points import (
    Nearest,
    Points,
    align,
    canonical,
    locate,
    mean_reference,
    nearest,
    spread,
)
from wsflow.evaluation.predictive import Predictive, calibration, predict
from wsflow.evaluation.verdict import describe
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.symmetry.matching import orbit_matching
from wsflow.task import Task, check_task
from wsflow.weights import WeightArray

Row = dict[str, float]

# networks of a null or of training that are measured: distances are matched pairwise, and there are many nulls
MEASURED = 200
NULL_PAIRS = 1000
# the part of the runs that is held out where no held-out networks are given
HELD_OUT_PART = 0.2

_NOVELTY = ("weights", "function", "q05", "q05_weights", "q05_function")


@dataclass(frozen=True)
class Report:
    """What `evaluate` found.

    Each row has the score (``"accuracy"``, or ``"r2"`` for a regression), ``"loss"``, ``"novelty"`` and
    ``"dispersion"``, then what they are made of, and the model average: ``"averaged_accuracy"``,
    ``"averaged_nll"``, ``"averaged_brier"``, ``"averaged_ece"`` and the Jensen-Shannon divergence ``"jsd"``.

    Parameters
    ----------
    training, held_out, samples : dict from str to float
    nulls : dict from str to such dicts
    barrier : dict from str to float
        Mean midpoint loss barrier on training data ``"before"`` and ``"after"`` alignment, and their ``"ratio"``.
    verdict : list of str
        Sentences.
    counts : dict from str to int
        Networks and runs; ``"not_finite"`` counts samples that were left out.
    score : str
        The key of the score.
    predictive : dict from str to Predictive
        Scores and losses of each network, by row.
    nearest : dict from str to Nearest
        Distances to the nearest training network, of ``"samples"`` and ``"held_out"``.
    barriers : dict from str to ndarray
        The barriers of each pair, ``"before"`` and ``"after"``.
    """

    training: Row
    held_out: Row
    samples: Row
    nulls: dict[str, Row]
    barrier: Row
    verdict: list[str]
    counts: dict[str, int]
    score: str = "accuracy"
    predictive: dict[str, Predictive] = field(default_factory=dict, repr=False)
    nearest: dict[str, Nearest] = field(default_factory=dict, repr=False)
    barriers: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def headline(self) -> tuple[str, str, str, str]:
        """The keys that a table shows: score, loss, novelty and dispersion."""
        return self.score, "loss", "novelty", "dispersion"

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON data; numbers that do not exist are None.

        Returns
        -------
        dict
        """
        names = ("training", "held_out", "samples", "nulls", "barrier", "verdict", "counts", "score")
        result: dict[str, Any] = _jsonable({name: getattr(self, name) for name in names})
        return result


@dataclass(frozen=True)
class _Yardstick:
    """What rows are measured with: the training networks, those of held-out runs, and the task."""

    train: Points
    held_out: Points
    held_out_pairs: np.ndarray
    nearest: Nearest
    spread: tuple[float, float]
    task: Task
    reference: Tensor
    score: str

    @classmethod
    def of(cls, train: WeightArray, held_out: WeightArray, task: Task, reference: Tensor) -> _Yardstick:
        """Everything that is measured once, whatever is judged."""
        known, others = locate(train, task, reference), locate(held_out, task, reference)
        pairs = fixed_pairs(held_out.runs, PAIRS)
        score = "accuracy" if task.is_classification else "r2"
        return cls(known, others, pairs, nearest(others, known), spread(others, pairs), task, reference, score)

    def measure(
        self,
        weights: WeightArray,
        found: Nearest | None = None,
        spreads: tuple[float, float] | None = None,
        pairs: int = PAIRS,
    ) -> tuple[Row, Predictive, Nearest]:
        """One row; what is known about distances of its networks may be given."""
        if found is None or spreads is None:
            points = locate(weights, self.task, self.reference)
            found = nearest(points, self.train)
            spreads = spread(points, fixed_pairs(weights.runs, pairs)) if len(weights) > 1 else (np.nan, np.nan)
        said = predict(weights, self.task.held_out)
        new, apart = compare_nearest(found, self.nearest), compare_spread(spreads, self.spread)
        row = {
            self.score: float(said.scores.mean()),
            "loss": float(said.losses.mean()),
            "novelty": new.value,
            "dispersion": apart.value,
            f"{self.score}_sd": float(said.scores.std()),
            "loss_sd": float(said.losses.std()),
            **{f"novelty_{name}": getattr(new, name) for name in _NOVELTY},
            **{name: getattr(new, name) for name in ("copies", "copies_weights", "copies_function")},
            **{f"dispersion_{name}": getattr(apart, name) for name in ("weights", "function")},
            **{f"averaged_{k}": v for k, v in calibration(said.average, self.task.held_out).items()},
            "jsd": said.jsd,
        }
        return row, said, found


def evaluate(
    samples: WeightArray,
    train: WeightArray,
    held_out: WeightArray | None,
    task: Task,
    *,
    nulls: bool = True,
    reference: Any = None,
    random_state: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Judge samples by held-out data and networks of held-out runs, beside training networks and nulls.

    All networks may be any representatives: they are canonicalized and aligned to one reference here.

    Parameters
    ----------
    samples, train : WeightArray of shape (n, d)
    held_out : WeightArray of shape (n, d), or None
        Networks of runs that are not in training; without them a fifth of the training runs is held out,
        which is honest only where the flow has not seen them.
    task : Task
        Barriers are measured on its own data, everything else on its test (or validation) part.
    nulls : bool
        Whether to measure the nulls too.
    reference : array-like of shape (d,), optional
        A canonical network to align to (default: the mean of the aligned training networks).
    random_state : int
        Seed of the nulls.
    progress : callable, optional
        Called with the steps done and the steps in all.

    Returns
    -------
    Report

    Raises
    ------
    InvalidInputError
        If the networks do not fit each other or the task, or a held-out run is in training.
    NumericalError
        If no sample is finite.

    Examples
    --------
    Training networks that pass for samples have a perfect score, and are found out:

    >>> import wsflow
    >>> task = wsflow.load_task("iris")
    >>> weights = wsflow.train_population(task, hidden=(4,), n_runs=12, epochs=2).weights
    >>> report = wsflow.evaluate(weights[:4], weights[:8], weights[8:], task, nulls=False)
    >>> report.verdict[1]
    'Samples are copies of training networks: their novelty is 0.00 and ...'
    """
    tell = _Steps(progress, 5 + (len(null_names()) if nulls else 0))
    notes: list[str] = []
    samples, dropped = _finite_samples(samples, notes)
    train, held_out = _runs_apart(train, held_out, random_state, notes)
    _check(samples, train, held_out, task)
    if task.held_out is task:
        notes.append("The task has no held-out data: scores and losses are those on the training data.")
    # the samples' own runs, if they have any, say nothing: each is compared with every other
    samples = WeightArray(samples, samples.architecture, aligned=samples.aligned)
    centre = mean_reference(train) if reference is None else torch.as_tensor(np.asarray(reference, dtype=np.float64))
    yardstick = _Yardstick.of(train, held_out, task, centre)
    tell()
    measured = {
        "samples": yardstick.measure(samples),
        "held_out": yardstick.measure(held_out, yardstick.nearest, yardstick.spread),
    }
    tell()
    measured["training"] = _training(yardstick, train)
    tell()
    barriers = _barriers(train, task, centre, notes)
    tell()
    if nulls:
        aligned = align(canonical(train), centre, train.architecture).numpy()
        for name, rows in null_samples(aligned, min(len(samples), MEASURED), random_state):
            measured[name] = yardstick.measure(WeightArray(rows, train.architecture), pairs=NULL_PAIRS)
            tell()
    counts = {"training": len(train), "training_runs": len(np.unique(train.runs)), "held_out": len(held_out)}
    counts |= {"held_out_runs": len(np.unique(held_out.runs)), "samples": len(samples), "not_finite": dropped}
    report = _report(measured, barriers, counts, yardstick.score, notes, train.shape[1])
    tell()
    return report


def _report(
    measured: dict[str, tuple[Row, Predictive, Nearest]],
    barriers: dict[str, np.ndarray],
    counts: dict[str, int],
    score: str,
    notes: list[str],
    n_weights: int,
) -> Report:
    rows = {name: row for name, (row, _, _) in measured.items()}
    nulls = {name: row for name, row in rows.items() if name not in ("samples", "held_out", "training")}
    before, after = (float(barriers[name].mean()) for name in ("before", "after"))
    return Report(
        training=rows["training"],
        held_out=rows["held_out"],
        samples=rows["samples"],
        nulls=nulls,
        barrier={"before": before, "after": after, "ratio": after / before if before > 0 else float("nan")},
        verdict=[*describe(rows["samples"], nulls, counts, score, n_weights), *notes],
        counts=counts,
        score=score,
        predictive={name: said for name, (_, said, _) in measured.items()},
        nearest={name: measured[name][2] for name in ("samples", "held_out")},
        barriers=barriers,
    )


def _training(yardstick: _Yardstick, train: WeightArray) -> tuple[Row, Predictive, Nearest]:
    """Distances of some training networks, which are their own nearest; scores and losses of all of them."""
    some = np.linspace(0, len(train) - 1, min(len(train), MEASURED)).astype(int)
    points = Points(train.architecture, yardstick.train.weights[some], yardstick.train.functions[some])
    spreads = spread(yardstick.train, fixed_pairs(train.runs, PAIRS))
    return yardstick.measure(train, nearest(points, yardstick.train), spreads)


def _barriers(train: WeightArray, task: Task, reference: Tensor, notes: list[str]) -> dict[str, np.ndarray]:
    """Midpoint barriers of fixed pairs of training runs: as they are, and with neurons permuted and flipped."""
    left, right = fixed_pairs(train.runs).T
    before = midpoint_barrier(train[left], train[right], task)
    if train.aligned:
        notes.append("The training networks came aligned: the barrier 'before' is not that of networks as trained.")
    ends = (train[left], train[right])
    if train.architecture.groups:
        # only the permutations and signs: scaling to unit norms would change the midpoint as well
        ends = tuple(orbit_matching(canonical(w), reference, w.architecture)(w) for w in ends)
    return {"before": before, "after": midpoint_barrier(*ends, task)}


def _finite_samples(samples: WeightArray, notes: list[str]) -> tuple[WeightArray, int]:
    finite = np.isfinite(np.asarray(samples)).all(axis=1)
    if not finite.any():
        raise NumericalError(f"None of the {len(samples)} samples is finite: sample with more steps, or fit again.")
    lost = np.flatnonzero(~finite)
    if len(lost):
        named = ", ".join(map(str, lost[:5])) + (", ..." if len(lost) > 5 else "")
        notes.append(f"{len(lost)} of {len(samples)} samples are not finite and were left out (rows {named}).")
    return samples[finite], len(lost)


def _runs_apart(
    train: WeightArray, held_out: WeightArray | None, random_state: int, notes: list[str]
) -> tuple[WeightArray, WeightArray]:
    """Training networks and those of held-out runs, which are split off where none are given."""
    if held_out is not None:
        check_runs(train, held_out)
        return train, held_out
    runs = np.unique(train.runs)
    count = max(2, round(HELD_OUT_PART * len(runs)))
    if len(runs) < count + 2:
        raise InvalidInputError(
            f"The training networks are of {len(runs)} run(s), and holding out 2 needs at least 4. "
            "Train more runs, or pass networks of held-out runs."
        )
    chosen = np.random.default_rng(random_state).permutation(runs)[:count]
    notes.append(
        f"No held-out runs were given: {count} of the {len(runs)} training runs were held out for this evaluation. "
        "If the flow was fitted to them too, novelty is underestimated."
    )
    mask = np.isin(train.runs, chosen)
    return train[~mask], train[mask]


def _check(samples: WeightArray, train: WeightArray, held_out: WeightArray, task: Task) -> None:
    for name, weights in (("samples", samples), ("held-out networks", held_out)):
        if weights.architecture != train.architecture:
            raise InvalidInputError(
                f"The {name} are {weights.architecture}, but the training networks are {train.architecture}: "
                "evaluate compares networks of one architecture."
            )
    for name, weights in (("training networks", train), ("held-out networks", held_out)):
        lost = np.flatnonzero(~np.isfinite(np.asarray(weights)).all(axis=1))
        if len(lost):
            raise InvalidInputError(f"{len(lost)} of the {name} are not finite (row {lost[0]} is one): drop them.")
        if len(np.unique(weights.runs)) < 2:
            raise InvalidInputError(f"The {name} are of one run, but distances between runs need 2: train more.")
    check_task(train.architecture, task)


class _Steps:
    """Counts the steps of an evaluation and tells them to whoever wants to know."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def __call__(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_jsonable(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
