"""The networks of an evaluation: finite, of one architecture, and split by run."""

from __future__ import annotations

import numpy as np

from wsflow.architecture.fixed_entries import difference
from wsflow.evaluation.novelty import check_held_out
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.mapped import finite_rows
from wsflow.running.compatibility import warn_of_classes
from wsflow.task import Task
from wsflow.weights import WeightArray

# the share of the runs that is held out where no held-out networks are given
HELD_OUT_SHARE = 0.2
# runs that are held out at most: the nearest training network of each is looked for
MAX_HELD_OUT = 2000


def finite_samples(samples: WeightArray, notes: list[str]) -> tuple[WeightArray, int]:
    """Return the samples that are finite, and how many are not, which a note says."""
    finite = finite_rows(np.asarray(samples))
    if not finite.any():
        raise NumericalError(f"None of the {len(samples)} samples is finite: sample with more steps, or fit again.")
    lost = np.flatnonzero(~finite)
    if len(lost):
        named = ", ".join(map(str, lost[:5])) + (", ..." if len(lost) > 5 else "")
        notes.append(f"{len(lost)} of {len(samples)} samples are not finite and were left out (rows {named}).")
    return samples[finite], len(lost)


def split_held_out(
    train: WeightArray, held_out: WeightArray | None, random_state: int, notes: list[str]
) -> tuple[WeightArray, WeightArray]:
    """Return training networks and those of held-out runs, which are split off where none are given."""
    if held_out is not None:
        check_held_out(train, held_out)
        return train, held_out
    runs = np.unique(train.runs)
    count = min(MAX_HELD_OUT, max(2, round(HELD_OUT_SHARE * len(runs))))
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


def check_networks(
    samples: WeightArray, train: WeightArray, held_out: WeightArray, task: Task, notes: list[str]
) -> None:
    """Refuse networks that do not fit each other or the task, and note a task without held-out data."""
    for name, weights in (("samples", samples), ("held-out networks", held_out)):
        if weights.architecture != train.architecture:
            raise InvalidInputError(
                f"The {name} are {weights.architecture}, but the training networks are {train.architecture}: "
                "evaluate compares networks of one architecture."
                f"{difference(train.architecture, weights.architecture)}"
            )
    for name, weights in (("training networks", train), ("held-out networks", held_out)):
        lost = np.flatnonzero(~finite_rows(np.asarray(weights)))
        if len(lost):
            raise InvalidInputError(f"{len(lost)} of the {name} are not finite (row {lost[0]} is one): drop them.")
        if len(np.unique(weights.runs)) < 2:
            raise InvalidInputError(f"The {name} are of one run, but distances between runs need 2: train more.")
    warn_of_classes(train.architecture, task)
    if task.held_out is task:
        notes.append("The task has no held-out data: scores and losses are those on the training data.")


def check_nulls(nulls: WeightArray, train: WeightArray) -> None:
    """Refuse what nulls cannot be made of."""
    if not isinstance(nulls, WeightArray) or nulls.architecture != train.architecture:
        raise InvalidInputError(
            f"Nulls are made of training networks, {train.architecture}, in other coordinates: pass nulls=True, or a "
            "WeightArray of them, such as model[:-1].transform(train)."
        )
    if not finite_rows(np.asarray(nulls)).all():
        raise InvalidInputError("Networks that nulls are to be made of are not finite: drop them.")
