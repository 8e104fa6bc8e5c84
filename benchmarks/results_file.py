"""A JSON file that grows row by row, so that a benchmark that was interrupted keeps what it has measured.

Each row says on which machine it was measured; all rows of a file have the same settings.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measure import hardware

import wsflow
from wsflow.evaluation import Frontier, Report
from wsflow.evaluation.pareto import TOLERANCE, Bound
from wsflow.models.options import AUTOMATIC, CHOICES, resolved
from wsflow.options import Options

DIGITS = 6


class ResultsFile:
    """The rows of a file, to which those that it lacks are added as they are measured.

    Parameters
    ----------
    out : Path
        It need not exist.
    settings : dict
        What all rows have in common, beside the defaults of `WeightFlow`.
    again : bool
        Measure rows that the file has, too; and forget all of them, if they were made with other settings.
    """

    def __init__(self, out: Path, settings: dict[str, Any], again: bool = False) -> None:
        self.out, self.settings, self.again = out, plain(settings), again
        self.defaults = plain(defaults())
        content = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
        same = not content or self._same(content)
        if not same and not again:
            raise SystemExit(f"{out} was made with other settings. Choose another file, or forget it with --again.")
        self.rows: dict[str, dict[str, Any]] = content.get("rows", {}) if same else {}
        self._fresh: set[str] = set()

    def _same(self, content: dict[str, Any]) -> bool:
        """Whether rows were made with these settings; a parameter that was not there then had no influence."""
        then = content.get("defaults", {})
        known = then.keys() & self.defaults.keys()
        return content.get("settings") == self.settings and all(then[k] == self.defaults[k] for k in known)

    def measure(self, key: str, function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of a key, which is measured and written if it is not there."""
        if key not in self.rows or (self.again and key not in self._fresh):
            self.rows[key] = plain(function()) | {"hardware": hardware()}
            self._fresh.add(key)
            self.write()
        return self.rows[key]

    def write(self) -> None:
        """Replace the file in one piece."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        data = {"settings": self.settings, "defaults": self.defaults, "rows": self.rows}
        draft = self.out.with_name(f"{self.out.name}.part")
        draft.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(draft, self.out)


def defaults() -> dict[str, Any]:
    """The defaults of `WeightFlow`, and those of the objects that they stand for, by dotted names."""
    found = wsflow.WeightFlow().get_params()
    for name in CHOICES:
        value = AUTOMATIC[name]() if name in AUTOMATIC else resolved(name, found[name])
        if isinstance(value, Options):
            found |= {f"{name}.{key}": default for key, default in value.get_params().items()}
    return found


class Clock:
    """Seconds by stage, and in all."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {"all": 0.0}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time one stage; stages of one name add up."""
        start = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - start)

    def add(self, stage: str, spent: float) -> None:
        """Add seconds to a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
        self.seconds["all"] += spent


def plain(value: Any) -> Any:
    """Convert a value to JSON data: tuples to lists, floats to six digits, and numbers that are not finite to None."""
    if isinstance(value, dict):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def rival(report: Report, row: dict[str, float]) -> dict[str, Any]:
    """The best null that is about as new and as different as a row, and whether none is as good."""
    nulls = [curve for name, curve in report.frontiers.items() if name != "samples"]
    points = [point for curve in nulls if (point := beside(curve, row)) is not None]
    ahead = all(curve.reaches(row) is None for curve in nulls)
    if not points:
        return {"ahead": ahead, "null": None}
    name, best = max(points, key=lambda point: (point[1][report.score], -point[1]["loss"]))
    return {"ahead": ahead, "null": name, **{f"null_{key}": best[key] for key in report.headline}}


def beside(curve: Frontier, row: dict[str, float]) -> tuple[str, dict[str, float]] | None:
    """The best point of a curve at a row's novelty and dispersion."""
    return curve.best([Bound(key, row[key] - TOLERANCE) for key in ("novelty", "dispersion")])


def mean_and_sd(values: Iterable[float], digits: int = 3) -> str:
    """The mean over seeds, with their standard deviation where there are several."""
    numbers = list(values)
    text = f"{statistics.fmean(numbers):.{digits}f}"
    return text if len(numbers) == 1 else f"{text} ± {statistics.stdev(numbers):.{digits}f}"
