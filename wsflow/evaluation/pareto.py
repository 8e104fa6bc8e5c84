"""Quality against novelty and dispersion: a generator's frontier over the levels of its knob, and who dominates whom.

Near the mean of a population accuracy is cheap, and near its training networks too. So a generator is judged at its
novelty and dispersion: another is as good if a point of its frontier is about as new and as different, and no worse in
score and in loss. Between two levels of the knob the frontier is a straight line, because a mixture of the two levels
reaches it: scores, losses and distances are means over networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from wsflow.representation import in_a_line

Row = Mapping[str, float]

# the measures at which generators are compared: a copy has no novelty, a collapsed generator no dispersion
DIVERSITY = ("novelty", "dispersion")
# how far below the samples a null may be in novelty and dispersion: two samplings differ by that much
TOLERANCE = 0.05


class Bound(NamedTuple):
    """A bound on one measure of a row, from below or from above; a value of NaN bounds nothing."""

    key: str
    value: float
    at_most: bool = False


@in_a_line
@dataclass(frozen=True)
class Frontier:
    """A generator's rows at several levels of its knob; one row is a generator without a knob.

    Parameters
    ----------
    names : tuple of str
        Of the rows, such as ``"temperature 0.5"``.
    rows : tuple of mapping from str to float
        In the order of the levels, with the score, ``"loss"``, ``"novelty"`` and ``"dispersion"``.
    score : str
        The key of the score.

    Examples
    --------
    >>> from wsflow.evaluation import Frontier
    >>> cold = {"accuracy": 0.98, "loss": 0.06, "novelty": 0.8, "dispersion": 0.5}
    >>> hot = {"accuracy": 0.90, "loss": 0.20, "novelty": 1.0, "dispersion": 1.0}
    >>> curve = Frontier("flow", ("temperature 0.5", "temperature 1"), (cold, hot))
    >>> round(curve.at(novelty=0.8, dispersion=0.8)["accuracy"], 3)  # a dispersion of 0.75 is near enough
    0.94
    """

    name: str
    names: tuple[str, ...]
    rows: tuple[Row, ...]
    score: str = "accuracy"

    def at(self, novelty: float, dispersion: float, tolerance: float = TOLERANCE) -> dict[str, float] | None:
        """Return the point with the best score that is at most `tolerance` less new and less different, or None."""
        found = self.best([Bound("novelty", novelty - tolerance), Bound("dispersion", dispersion - tolerance)])
        return None if found is None else found[1]

    def reaches(self, row: Row, tolerance: float = TOLERANCE) -> tuple[str, dict[str, float]] | None:
        """Return the level and the numbers of a point that is about as new and as different, and no worse; or None."""
        bounds = [Bound(key, row[key] - tolerance) for key in DIVERSITY]
        return self.best([*bounds, Bound(self.score, row[self.score]), Bound("loss", row["loss"], at_most=True)])

    def best(self, bounds: Sequence[Bound]) -> tuple[str, dict[str, float]] | None:
        """Return the level and the numbers of the point within bounds with the best score, then the lowest loss."""
        if not self.rows:
            return None
        low, high = _within(self.rows, bounds)
        positions = [(i, float(t[i])) for i in np.flatnonzero(low <= high) for t in (low, high)]
        points = [(position, self._point(*position)) for position in positions]
        if not points:
            return None
        position, row = max(points, key=lambda found: (found[1][self.score], -found[1]["loss"]))
        return self._level(*position), row

    def _point(self, index: int, t: float) -> dict[str, float]:
        start, end = self.rows[index], self.rows[min(index + 1, len(self.rows) - 1)]
        if t in (0.0, 1.0):
            return dict(end if t else start)
        return {key: (1 - t) * start[key] + t * end[key] for key in start if key in end}

    def _level(self, index: int, t: float) -> str:
        if t in (0.0, 1.0):
            return self.names[min(index + int(t), len(self.names) - 1)]
        return f"a mixture of {self.names[index]} and {self.names[index + 1]}"


def compare_frontiers(a: Frontier, b: Frontier, tolerance: float = TOLERANCE) -> list[dict[str, object]]:
    """Put every row of one generator beside the other generator at that novelty and dispersion.

    A row has its ``"name"``, ``"novelty"`` and ``"dispersion"``, the score and loss of both (``"other"`` is None where
    `b` is nowhere as new and as different), and whether `a` is ``"ahead"``: no point of `b` that is as new and as
    different is as good in both.
    """
    found: list[dict[str, object]] = []
    for name, row in zip(a.names, a.rows, strict=True):
        other = b.at(row["novelty"], row["dispersion"], tolerance)
        numbers = {key: row[key] for key in (*DIVERSITY, a.score, "loss")}
        best = None if other is None else {key: other[key] for key in (a.score, "loss")}
        found.append({"name": name, **numbers, "other": best, "ahead": b.reaches(row, tolerance) is None})
    return found


def dominates(a: Frontier, b: Frontier, tolerance: float = TOLERANCE) -> bool:
    """Return whether no row of one generator is reached by the other; neither dominates where frontiers cross."""
    return all(b.reaches(row, tolerance) is None for row in a.rows)


def _within(rows: Sequence[Row], bounds: Sequence[Bound]) -> tuple[np.ndarray, np.ndarray]:
    """Return from where to where, in [0, 1], a segment between neighbours is within bounds; nowhere if low > high."""
    # a single row is a segment from itself to itself
    bounds = [bound for bound in bounds if not np.isnan(bound.value)]
    signs = np.array([-1.0 if bound.at_most else 1.0 for bound in bounds])
    values = np.array([[row[bound.key] for bound in bounds] for row in rows]).reshape(len(rows), len(bounds))
    room = signs * (values - np.array([bound.value for bound in bounds]))
    # a number that does not exist is no reason to leave a row out
    room = np.where(np.isnan(room), 0.0, room)
    start, end = (room, room) if len(rows) == 1 else (room[:-1], room[1:])
    change = np.where(start == end, 1.0, start - end)
    crossing = start / change
    low = np.where(start >= 0, 0.0, np.where(end >= 0, crossing, 2.0))
    high = np.where(end >= 0, 1.0, np.where(start >= 0, crossing, -1.0))
    if not bounds:
        return np.zeros(len(start)), np.ones(len(start))
    return low.max(1), high.min(1)
