"""What networks are measured with: training networks, networks of held-out runs, and a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from wsflow.evaluation.barrier import fixed_pairs
from wsflow.evaluation.frontiers import Frontier
from wsflow.evaluation.novelty import PAIRS, check_runs, compare_nearest, compare_spread
from wsflow.evaluation.overlap import largest_overlap
from wsflow.evaluation.points import Nearest, Points, locate, mean_reference, nearest, some, spread
from wsflow.evaluation.predictive import Predictive, calibration, predict
from wsflow.task import Task
from wsflow.weights import WeightArray

# networks of a null or of training that are measured: distances are matched pairwise, and there are many nulls
MEASURED = 200
NULL_PAIRS = 1000

_NOVELTY = ("weights", "function", "q05", "q05_weights", "q05_function")


@dataclass(frozen=True)
class Measured:
    """What was found of some networks.

    Parameters
    ----------
    row : dict from str to float
        As in `wsflow.evaluation.report.Report`.
    predictive : Predictive
    nearest : Nearest
    points : Points
        The networks, or some of them.
    """

    row: dict[str, float]
    predictive: Predictive
    nearest: Nearest
    points: Points


@dataclass(frozen=True)
class Yardstick:
    """Everything that is measured once, whatever is judged; make it with `Yardstick.of`.

    Parameters
    ----------
    train, held_out : Points
    nearest : Nearest
        Of the held-out networks.
    spread : tuple of two floats
        Rms distances between networks of held-out runs, in weights and in function.
    said : Predictive
        What the training networks predict.
    task : Task
    reference : Tensor of shape (d,)
        What networks are aligned to.
    """

    train: Points
    held_out: Points
    nearest: Nearest
    spread: tuple[float, float]
    said: Predictive
    task: Task
    reference: Tensor

    @classmethod
    def of(cls, train: WeightArray, held_out: WeightArray, task: Task, reference: Tensor | None = None) -> Yardstick:
        """Measure what samples will be compared with.

        Parameters
        ----------
        train, held_out : WeightArray of shape (n, d)
        task : Task
        reference : Tensor of shape (d,), optional
            Default: the mean of the aligned training networks.

        Returns
        -------
        Yardstick

        Raises
        ------
        InvalidInputError
            If a held-out run is in training.
        """
        check_runs(train, held_out)
        centre = mean_reference(train) if reference is None else reference
        known, others = locate(train, task, centre), locate(held_out, task, centre)
        apart = spread(others, fixed_pairs(held_out.runs, PAIRS))
        return cls(known, others, nearest(others, known), apart, predict(train, task.held_out), task, centre)

    @property
    def score(self) -> str:
        """The key of the score."""
        return "accuracy" if self.task.is_classification else "r2"

    def measure(self, weights: WeightArray, pairs: int = PAIRS) -> Measured:
        """Measure samples, or a null.

        Parameters
        ----------
        weights : WeightArray of shape (n, d)
        pairs : int
            Of networks of different runs, whose rms distance is the dispersion.

        Returns
        -------
        Measured

        Examples
        --------
        >>> import wsflow
        >>> from wsflow.evaluation.yardstick import Yardstick
        >>> task = wsflow.load_task("iris")
        >>> weights = wsflow.train_population(task, hidden=(4,), n_runs=12, epochs=2).weights
        >>> yardstick = Yardstick.of(weights[:8], weights[8:], task)
        >>> abs(round(yardstick.measure(weights[:8]).row["novelty"], 3))
        0.0
        """
        points = locate(weights, self.task, self.reference)
        spreads = spread(points, fixed_pairs(weights.runs, pairs)) if len(weights) > 1 else (np.nan, np.nan)
        said = predict(weights, self.task.held_out)
        return self._measured(points, said, nearest(points, self.train), spreads)

    def measure_held_out(self, held_out: WeightArray) -> Measured:
        """Measure the held-out networks, of which distances are known.

        Parameters
        ----------
        held_out : WeightArray of shape (n, d)

        Returns
        -------
        Measured
        """
        said = predict(held_out, self.task.held_out)
        return self._measured(self.held_out, said, self.nearest, self.spread)

    def measure_training(self, train: WeightArray) -> Measured:
        """Measure distances and mistakes of some training networks, scores and losses of all.

        Parameters
        ----------
        train : WeightArray of shape (n, d)

        Returns
        -------
        Measured
        """
        points = some(self.train, MEASURED)
        spreads = spread(self.train, fixed_pairs(train.runs, PAIRS))
        return self._measured(points, self.said, nearest(points, self.train), spreads)

    def _measured(self, points: Points, said: Predictive, found: Nearest, spreads: tuple[float, float]) -> Measured:
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
            "iou": self._overlap(said),
            **{f"averaged_{k}": v for k, v in calibration(said.average, self.task.held_out).items()},
            "jsd": said.jsd,
        }
        return Measured(row, said, found, points)

    def _overlap(self, said: Predictive) -> float:
        if said.wrong is None or self.said.wrong is None:
            return float("nan")
        # training networks have themselves among them
        return 1.0 if said is self.said else float(largest_overlap(said.wrong, self.said.wrong).mean())


def frontier(
    samples: Mapping[float, WeightArray], yardstick: Yardstick, name: str = "samples", knob: str = "temperature"
) -> Frontier:
    """The frontier of a generator with a knob: its rows at several levels.

    Parameters
    ----------
    samples : mapping from float to WeightArray of shape (n, d)
        The networks that it gives at each level of the knob.
    yardstick : Yardstick
    name, knob : str

    Returns
    -------
    Frontier

    Examples
    --------
    >>> import wsflow
    >>> from wsflow.evaluation import Yardstick, frontier
    >>> task = wsflow.load_task("iris")
    >>> weights = wsflow.train_population(task, hidden=(4,), n_runs=12, epochs=2).weights
    >>> yardstick = Yardstick.of(weights[:6], weights[6:9], task)
    >>> frontier({0.5: weights[9:10], 1.0: weights[9:]}, yardstick).names
    ('temperature 0.5', 'temperature 1')
    """
    levels = sorted(samples)
    rows = (yardstick.measure(_unrelated(samples[level])).row for level in levels)
    return Frontier(name, tuple(f"{knob} {level:g}" for level in levels), tuple(rows), yardstick.score)


def _unrelated(weights: WeightArray) -> WeightArray:
    """Samples as runs of their own: what runs they are numbered by, if any, says nothing."""
    return WeightArray(weights, weights.architecture, aligned=weights.aligned)
