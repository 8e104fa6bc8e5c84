"""PermutationAligner: choose permutations and signs so that networks lie close to a reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any, ClassVar, cast, get_args

import numpy as np
import torch
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted, check_random_state
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.estimators.aligned_parts import PartAlignment
from wsflow.estimators.transformer import OrbitTransformer
from wsflow.estimators.validation import (
    description,
    later_array,
    output_change,
    restore_description,
    tensor,
    viewed,
    wrapped,
)
from wsflow.exceptions import InvalidInputError
from wsflow.mapped import chunks, empty_like, taken
from wsflow.parallel import side_by_side
from wsflow.progress import Progress, stages
from wsflow.running.compatibility import warn_of_classes
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical import Form
from wsflow.symmetry.matching import fixed_groups
from wsflow.symmetry.matching.alignment import Alignment
from wsflow.symmetry.matching.methods import AUTO, METHODS, Method, method_of
from wsflow.symmetry.matching.references import REFERENCES as COMPUTED
from wsflow.symmetry.matching.references import STEPS as SEARCH_STEPS
from wsflow.symmetry.matching.references import spaced
from wsflow.symmetry.matching.snapshots import SnapshotPart, snapshot_parts
from wsflow.task import Task

REFERENCES = ("auto", "first", *COMPUTED)
# networks from which a reference is found, evenly spaced over the rows
MAX_NETWORKS = 512
REPORTED = ("objective", "n_passes", "barrier_before", "barrier_after")


class PermutationAligner(OrbitTransformer):
    """Align networks to a reference by permutations, by signs where activations are odd, and by phases of sines.

    Networks are compared by scale-free representatives (but see `form`), so the result does not depend on whether
    scalings are canonicalized before or after. What is equal in all networks of fit (a frozen backbone, a head, what
    one initialisation has left) and tells the neurons of a group apart fixes that group. Without an
    architecture there are no symmetries: X passes through, with a warning.

    Parameters
    ----------
    method : {"auto", "weight", "activation", "sinkhorn", "straight-through", "chain"} or object
        How networks are compared with the reference: by weights (Ainsworth et al. 2023), by activations on the task's
        inputs, by gradient descent on relaxed permutations (Pena et al. 2023), or on the loss half-way. "chain" goes
        from one to the next and keeps what has the smallest loss half-way. "auto" is "chain" where there is a task, and
        else "weight". A name stands for an object with its defaults: `WeightMatching`, `ActivationMatching`,
        `SinkhornMatching`, `StraightThroughMatching` or `ChainMatching` of `wsflow.symmetry.matching.methods`.
    task : Task, optional
        Inputs, targets and a loss; barriers are measured on it too.
    reference : {"auto", "mean", "medoid", "first", "universe"}, int, or array-like of shape (d,) or (1, d)
        The iterated mean of the networks, aligned to it by their weights (Ainsworth et al. 2023, section 5.3); the
        network nearest to all others, of 16 evenly spaced ones where there are more; the first one; the mean of a
        cycle-consistent matching (Crisostomi et al. 2024); a row of X; or a network. "auto" is "medoid" where there is
        a task, and else "mean": a mean of networks brings their weights closest together, but is a poor network
        itself, and a loss half-way to it tells little.
    form : {"auto", "unit", "balanced", "raw"}
        In which representatives networks are compared. The first two are scale-free, as in `ScaleCanonicalizer`: with
        unit incoming norms every neuron counts the same; with the smallest sum of squares, as trained networks nearly
        have, strong ones count more. "raw" compares networks as they are, with scales that training has left, which
        for networks of one recipe mean something; scalings then decide too. "auto" is "unit" for "weight", and
        "balanced" for the others.
    by : {"run", "network"}
        Whether all networks of a run move as its last snapshot does, or each by itself.
    random_state : int, RandomState instance or None
        For the methods that draw; later networks are matched with the same seed.
    architecture : Architecture, optional
        Needed where X is not a `WeightArray`.
    progress : callable, optional
        Called with the steps done and their number: those of the reference, and one for each network that is aligned,
        and whose barrier is measured.
    n_jobs : int, optional
        Processes in which networks are aligned, some 2**20 weights at a time: joblib's (default: those of
        ``joblib.parallel_config``, if any). Numbers do not depend on them. The reference is found in one.

    Attributes
    ----------
    reference_ : ndarray of shape (d,)
        Weights to which networks are aligned, of the form in which they are compared.
    distances_ : ndarray
        Root mean square distance to the reference by round of the iterated mean.
    n_iter_ : int
        Rounds that were made.
    fixed_groups_ : tuple of str
        Groups that are fixed in networks that agree with those of fit.
    objective_ : ndarray of shape (n,)
        Inner product of each training network, aligned, with the reference.
    n_passes_ : ndarray of int, shape (n,)
        Passes of weight matching that each training network took; 0 for other methods.
    barrier_before_, barrier_after_ : ndarray of shape (n,)
        Excess of the loss half-way to the reference, before and after alignment, of the representatives; not a
        number without a task.
    report_ : dict from str to ndarray of shape (n,)
        The four of them.
    output_change_ : float
        Largest relative change of an output caused on the training networks: rounding.

    References
    ----------
    Ainsworth, Hayase and Srinivasa 2023, "Git Re-Basin", arXiv:2209.04836; Pena et al. 2023, arXiv:2212.12042;
    Crisostomi et al. 2024, "C2M3", arXiv:2405.17897.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, PermutationAligner, WeightArray
    >>> weights = WeightArray(np.random.default_rng(0).normal(size=(20, 23)), Architecture.mlp([4, 3, 2]))
    >>> aligned = PermutationAligner().fit_transform(weights)
    >>> bool(aligned.std(axis=0).mean() < weights.std(axis=0).mean())
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "method": [StrOptions({AUTO, *METHODS}), Method],
        "task": [Task, None],
        "reference": [StrOptions(set(REFERENCES)), Integral, "array-like"],
        "form": [StrOptions({"auto", "unit", "balanced", "raw"})],
        "by": [StrOptions({"run", "network"})],
        "random_state": ["random_state"],
        "architecture": [Architecture, None],
        "progress": [callable, None],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        method: str | Method = "auto",
        task: Task | None = None,
        reference: Any = "auto",
        form: str = "auto",
        by: str = "run",
        random_state: Any = None,
        architecture: Architecture | None = None,
        progress: Progress | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.method = method
        self.task = task
        self.reference = reference
        self.form = form
        self.by = by
        self.random_state = random_state
        self.architecture = architecture
        self.progress = progress
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any = None) -> PermutationAligner:
        """Find the reference, and align the networks to it.

        Parameters
        ----------
        X : WeightArray, Population, list of modules, or array-like of shape (n, d)
        y : ignored

        Raises
        ------
        ValueError
            If a parameter has a wrong value.
        InvalidInputError
            If weights are not finite, the columns are not the architecture's, or the task is not that of the networks.
        """
        self._fit(X)
        return self

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Fit, and return the aligned networks without matching them twice.

        Parameters
        ----------
        X : WeightArray or array-like of shape (n, d)
        y : ignored

        Returns
        -------
        WeightArray, or ndarray without an architecture
        """
        return self._fit(X)

    def distances_to_reference(self, X: Any) -> np.ndarray:
        """Return how far networks, by the representatives that are compared, are from the reference before alignment.

        Parameters
        ----------
        X : WeightArray or array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n,)
            Euclidean distances, statistics left out.
        """
        check_is_fitted(self)
        values = later_array(self, X)
        if self.architecture_ is None:
            return np.linalg.norm(values - self.reference_, axis=1)
        distances = np.empty(len(values))
        for rows in chunks(*values.shape):
            difference = (self._representatives(values[rows]) - tensor(self.reference_)).numpy()
            difference[:, self.architecture_.statistic_columns] = 0
            distances[rows] = np.linalg.norm(difference, axis=1)
        return distances

    @property
    def report_(self) -> dict[str, np.ndarray]:
        """What alignment did to each training network."""
        return {name: getattr(self, f"{name}_") for name in REPORTED}

    def _fit(self, X: Any) -> Any:
        X, values = self._fit_array(
            X, "leaves networks as they are, not aligned, and its objectives and barriers are NaN"
        )
        self._reset(len(values))
        if self.architecture_ is None:
            self.reference_ = values[0].astype(np.float64)
            return values
        if self.task is not None:
            warn_of_classes(self.architecture_, self.task)
        rows, parts = snapshot_parts(X, self.by, *values.shape)
        matched = values if len(rows) == len(values) else taken(values, rows)
        self._fix_groups(viewed(matched))
        lengths = [part.n_matched + (0 if self.task is None else part.n_moved) for part in parts]
        search, *steps = stages(self.progress, SEARCH_STEPS, *lengths)
        self._find_reference(values, matched, search)
        aligned = empty_like(values)
        self._fit_parts(values, aligned, parts, steps)
        self.output_change_ = output_change(values, aligned, self.architecture_)
        return self._finished(aligned, X)

    def _fit_parts(
        self, values: np.ndarray, aligned: np.ndarray, parts: Sequence[SnapshotPart], steps: Sequence[Progress | None]
    ) -> None:
        """Align the networks of all parts, and report on them."""
        is_everyone = parts[0].n_matched == len(values)
        calls = ((part, values[part.matched], [values[rows] for rows, _ in part.moved], is_everyone) for part in parts)
        results = side_by_side(self._parts.align, calls, len(parts), self.n_jobs, steps, in_batches=False)
        for part, found in zip(parts, results, strict=True):
            for (rows, _), few in zip(part.moved, found, strict=True):
                aligned[rows] = few.weights
                for name in REPORTED:
                    getattr(self, f"{name}_")[rows] = getattr(few, name)

    def _reset(self, n: int) -> None:
        """Set fitted values to those before anything is aligned."""
        if isinstance(self.reference, (int, np.integer)) and not 0 <= self.reference < n:
            raise ValueError(
                f"The 'reference' parameter of PermutationAligner is row {self.reference} of X, but X has {n} rows. "
                f"Choose one from 0 to {n - 1}."
            )
        draws = self._method.draws and self.architecture_ is not None
        self._seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max)) if draws else 0
        self._fixed: dict[str, Tensor] = {}
        self._first = np.empty(0)
        self.fixed_groups_: tuple[str, ...] = ()
        self.distances_ = np.empty(0)
        self.n_iter_ = 1
        self.n_passes_ = np.zeros(n, dtype=np.int64)
        self.objective_, self.barrier_before_, self.barrier_after_ = (np.full(n, np.nan) for _ in range(3))

    def _fix_groups(self, raw: Tensor) -> None:
        given = self._given()
        # compared as they are: scalings would blur what is equal
        self._fixed = fixed_groups(raw, self._architecture, None if given is None else tensor(given)[0])
        self.fixed_groups_ = tuple(self._fixed)
        self._first = raw[0].numpy().copy() if self._fixed else np.empty(0)

    def _given(self) -> np.ndarray | None:
        """Return the reference network that was passed, as one row."""
        if isinstance(self.reference, (str, int, np.integer)):
            return None
        carried = getattr(self.reference, "architecture", self.architecture_)
        row = np.asarray(self.reference, dtype=np.float64).reshape(-1)
        if carried != self.architecture_ or row.shape != (self.n_features_in_,) or not np.isfinite(row).all():
            raise InvalidInputError(
                f"The 'reference' parameter of PermutationAligner is no network {self.architecture_}: expected "
                f"{self.n_features_in_} finite weights, got shape {np.shape(self.reference)}. Pass one row, such as "
                f"weights[:1], or one of {', '.join(map(repr, REFERENCES))}."
            )
        return row[None]

    @property
    def _architecture(self) -> Architecture:
        if self.architecture_ is None:
            raise ValueError(
                "Networks without an architecture have no symmetries to be aligned by. Pass architecture=."
            )
        return self.architecture_

    @property
    def _method(self) -> Method:
        return method_of(self.method, self.task)

    @property
    def _alignment(self) -> Alignment:
        form = cast(Form, self.form) if self.form in get_args(Form) else self._method.form
        return Alignment(self._architecture, form, self.form != "raw", self._fixed, tensor(self._first))

    def _representatives(self, values: np.ndarray) -> Tensor:
        return self._alignment.networks(viewed(values)).representatives

    def _find_reference(self, values: np.ndarray, matched: np.ndarray, progress: Progress | None) -> None:
        kind = self.reference
        if isinstance(kind, str) and kind == "auto":
            kind = "mean" if self.task is None else "medoid"
        if isinstance(kind, str) and kind in COMPUTED:
            used = self._alignment.networks(tensor(matched[spaced(len(matched), MAX_NETWORKS)]))
            reference, distances = COMPUTED[kind](self._alignment, used, progress)
            self.distances_ = np.array(distances)
            self.n_iter_ = max(1, len(distances))
        else:
            given = self._given()
            if given is None:
                given = matched[:1] if isinstance(kind, str) else values[[int(kind)]]
            reference = self._representatives(given)[0]
        self.reference_ = reference.double().numpy().copy()

    @property
    def _parts(self) -> PartAlignment:
        return PartAlignment(self._alignment, tensor(self.reference_), self._method, self.task, self._seed)

    def _actions(self, values: np.ndarray, X: Any) -> Iterator[tuple[Any, Action]]:
        _, parts = snapshot_parts(X, self.by, *values.shape)
        steps = stages(self.progress, *(part.n_matched for part in parts))
        calls = ((part, values[part.matched]) for part in parts)
        results = side_by_side(self._parts.actions, calls, len(parts), self.n_jobs, steps, in_batches=False)
        for part, actions in zip(parts, results, strict=True):
            for (rows, _), action in zip(part.moved, actions, strict=True):
                yield rows, action

    def _finished(self, moved: np.ndarray, X: Any) -> Any:
        return wrapped(self, moved, X, aligned=True)

    def _get_fitted(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays = {"reference": self.reference_, "distances": self.distances_, "first": self._first, **self.report_}
        fixed = {name: columns.tolist() for name, columns in self._fixed.items()}
        data = {"output_change": self.output_change_, "seed": self._seed, "held": list(fixed.items())}
        return arrays, {**data, **description(self)}

    def _set_fitted(self, arrays: dict[str, np.ndarray], data: dict[str, Any]) -> None:
        self.reference_, self.distances_, self._first = arrays["reference"], arrays["distances"], arrays["first"]
        for name in REPORTED:
            setattr(self, f"{name}_", arrays[name])
        self.n_iter_ = max(1, len(self.distances_))
        self.output_change_, self._seed = data["output_change"], data["seed"]
        self._fixed = {name: torch.tensor(columns, dtype=torch.long) for name, columns in data["held"]}
        self.fixed_groups_ = tuple(self._fixed)
        restore_description(self, data)
        self._check_fitted()

    def _check_fitted(self) -> None:
        """Refuse a fitted state whose parts do not go together."""
        n = self.n_features_in_
        names = {group.name for group in self._architecture.groups} if self.architecture_ else set()
        known = names.issuperset(self._fixed)
        inside = all(len(held) == 0 or int(held.max()) < n for held in self._fixed.values())
        if self.reference_.shape != (n,) or not known or not inside:
            raise InvalidInputError(
                f"The fitted state of this PermutationAligner is not one of {n} weights. Fit again."
            )
