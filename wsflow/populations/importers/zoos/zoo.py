"""A zoo: its networks, the run and the step of each, and what is known of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.zoos.matrix import Matrix
from wsflow.populations.importers.zoos.tables import Columns, Row, columns_of

# names under which tables say the activation of a network
ACTIVATION = re.compile(r"(^|[.:_])(activation|nlin|nonlinearity)$", re.IGNORECASE)


@dataclass(frozen=True)
class Zoo:
    """The networks of a zoo, a file each or the rows of a matrix, and what is known of each of them.

    Steps may be None, labels may be missing, and rows may have different names.
    """

    networks: Sequence[Path] | Matrix
    runs: Sequence[int]
    steps: Sequence[int | None]
    measured: Sequence[Row]
    drawn: Sequence[Row]  # hyperparameters
    labels: Sequence[Any] | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.runs)

    def of_activation(self, activation: str | None) -> Zoo:
        """Return the networks of an activation, where tables say which each of them has."""
        name = next((key for row in self.drawn[:1] for key in row if ACTIVATION.search(key)), None)
        if name is None:
            return self
        known = [str(row.get(name, "")).lower() for row in self.drawn]
        kinds = ", ".join(map(repr, sorted(set(known))))
        if activation is None and len(set(known)) > 1:
            raise InvalidInputError(
                f"The networks of this zoo have the activations {kinds}. Pass activation= with one of them, beside the "
                "module= that it is in."
            )
        if activation is None or set(known) == {activation}:
            return self
        if activation not in known:
            raise InvalidInputError(f"No network of this zoo has the activation {activation!r}, but {kinds}. Choose.")
        kept = [kind == activation for kind in known]
        notes = {**self.notes, "of_other_activations": len(kept) - sum(kept)}
        rows = {name: getattr(self, name) for name in ("runs", "steps", "measured", "drawn", "labels")}
        chosen: dict[str, Any] = {name: x if x is None else list(compress(x, kept)) for name, x in rows.items()}
        own = self.networks
        networks = own.of(kept) if isinstance(own, Matrix) else list(compress(own, kept))
        return Zoo(networks, notes=notes, **chosen)

    def placed(self, runs: Any, steps: Any) -> Zoo:
        """Return the zoo with these runs and steps instead of its own, if they are given, and with steps of all."""
        for name, given in (("runs", runs), ("steps", steps)):
            if given is not None and len(given) != len(self):
                raise InvalidInputError(f"The {name!r} are {len(given)}, and the zoo has {len(self)} networks.")
        own = [int(run) for run in (self.runs if runs is None else runs)]
        known = _whole(self.steps if steps is None else steps, own)
        pairs = list(zip(own, known, strict=True))
        if len(set(pairs)) < len(pairs):
            run, step = next(pair for pair in pairs if pairs.count(pair) > 1)
            raise InvalidInputError(
                f"Two networks of run {run} have the step {step}. Give the runs and steps of all networks."
            )
        return replace(self, runs=own, steps=known)

    def provenance(self) -> dict[str, Any]:
        """Return what is known of the networks as JSON data for the provenance, once they have runs and steps."""
        keys: Columns = {"run": list(self.runs), "step": list(self.steps)}
        first = np.unique(self.runs, return_index=True)[1].tolist()
        drawn = columns_of([self.drawn[i] for i in first])
        varying = {name: values for name, values in drawn.items() if len({str(value) for value in values}) > 1}
        runs: Columns = {"run": [int(self.runs[i]) for i in first]}
        label: Columns = {"label": [self.labels[i] for i in first]} if self.labels is not None else {}
        measured = columns_of(self.measured)
        found: dict[str, Columns] = {
            "hyperparameters": runs | varying if varying else {},
            "labels": runs | label if label else {},
            "properties": keys | measured if measured else {},
        }
        settings = {name: values[0] for name, values in drawn.items() if name not in varying}
        others = {"settings": settings, "zoo": self.notes}
        return {name: value for name, value in {**found, **others}.items() if value}


def is_whole(value: Any) -> bool:
    """Return whether a value is a whole number of 64 bits."""
    return isinstance(value, (int, float, np.integer)) and bool(-(2**63) < value < 2**63 and value == int(value))


def _whole(steps: Sequence[Any], runs: Sequence[int]) -> list[int]:
    """Return steps as whole numbers, those of a run in the order of its networks where they are not known."""
    if all(is_whole(step) for step in steps):
        return [int(step) for step in steps]
    counts: dict[int, int] = {}
    found = []
    for run in runs:
        found.append(counts.get(run, 0))
        counts[run] = found[-1] + 1
    return found
