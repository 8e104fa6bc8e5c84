"""PermutationAligner: choose permutations and signs so that networks lie close to a reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast, get_args

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, check_random_state
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.architecture.restriction import restricted
from wsflow.estimators.leaders import Leaders, owners
from wsflow.estimators.matchers import CHOICES, Method, Setting, method_of
from wsflow.estimators.validation import (
    check_choices,
    description,
    fit_array,
    later_array,
    output_change,
    restore_description,
    tensor,
    viewed,
    wrapped,
)
from wsflow.evaluation.barrier import midpoint_barrier
from wsflow.exceptions import InvalidInputError
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical import Form, canonical_action
from wsflow.symmetry.holding import held_groups, patterns, thawed, together
from wsflow.symmetry.matching import objective, orbit_matching
from wsflow.symmetry.universe import universe_matching
from wsflow.task import Task, check_task
from wsflow.weights import WeightArray

REFERENCES = ("auto", "mean", "medoid", "first", "universe")
FORMS = ("auto", "unit", "balanced", "raw")
BY = ("run", "network")
# networks that may be the medoid: to know how far all others are, they have to be matched to each
MEDOIDS = 16
REPORTED = ("objective", "n_passes", "barrier_before", "barrier_after")


class PermutationAligner(TransformerMixin, BaseEstimator):
    """Align networks to a reference by permutations, and signs where activations are odd.

    Networks are compared by scale-free representatives (but see `form`), so the result does not depend on whether
    scalings are canonicalized before or after. What is equal in all networks of fit (a frozen backbone, a head, what
    one initialisation has left) and tells the neurons of a group apart holds that group where it is. Without an
    architecture there are no symmetries, and X passes through.

    Parameters
    ----------
    method : {"auto", "weight", "activation", "sinkhorn", "straight-through", "chain"}
        How networks are compared with the reference: by weights (Ainsworth et al. 2023), by activations on the task's
        inputs, by gradient descent on relaxed permutations (Pena et al. 2023), or on the loss half-way. "chain" goes
        from one to the next and keeps what has the smallest loss half-way. "auto" is "chain" where there is a task, and
        else "weight".
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
    max_sweeps : int
        Passes of weight matching over the neuron groups for each network.
    max_iter : int
        Rounds of the iterated mean.
    max_reference : int
        Networks that the reference is made from, evenly spaced over the rows.
    options : dict, optional
        Further keywords for the function of the method.
    random_state : int, RandomState instance or None
        For the methods that draw; later networks are matched with the same seed.
    architecture : Architecture, optional
        Needed where X is not a `WeightArray`.

    Attributes
    ----------
    reference_ : ndarray of shape (d,)
        Weights to which networks are aligned, of the form in which they are compared.
    distances_ : ndarray
        Root mean square distance to the reference by round of the iterated mean.
    n_iter_ : int
        Rounds that were made.
    held_ : tuple of str
        Groups that are held fixed in networks that agree with those of fit.
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
    architecture_ : Architecture or None
    n_features_in_ : int

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

    def __init__(
        self,
        method: str = "auto",
        task: Task | None = None,
        reference: Any = "auto",
        form: str = "auto",
        by: str = "run",
        max_sweeps: int = 50,
        max_iter: int = 10,
        max_reference: int = 512,
        options: dict[str, Any] | None = None,
        random_state: Any = None,
        architecture: Architecture | None = None,
    ) -> None:
        self.method = method
        self.task = task
        self.reference = reference
        self.form = form
        self.by = by
        self.max_sweeps = max_sweeps
        self.max_iter = max_iter
        self.max_reference = max_reference
        self.options = options
        self.random_state = random_state
        self.architecture = architecture

    def fit(self, X: Any, y: Any = None) -> PermutationAligner:
        """Find the reference, and align the networks to it.

        Parameters
        ----------
        X : WeightArray or array-like of shape (n, d)
        y : ignored

        Returns
        -------
        self

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

    def transform(self, X: Any, return_action: bool = False) -> Any:
        """Align networks to the reference.

        Parameters
        ----------
        X : WeightArray or array-like of shape (n, d)
        return_action : bool
            Whether to return the group elements too; ``action.inverse()(aligned)`` undoes them.

        Returns
        -------
        aligned : WeightArray, or ndarray without an architecture
        action : Action
            Only if `return_action`; None without an architecture.

        Raises
        ------
        InvalidInputError
            If weights are not finite, or X holds networks of another architecture.
        """
        check_is_fitted(self)
        values = later_array(self, X)
        if self.architecture_ is None:
            return (values, None) if return_action else values
        action = self._found(values, X)
        aligned = wrapped(self, action(values), X, aligned=True)
        return (aligned, action) if return_action else aligned

    def inverse_transform(self, X: Any) -> Any:
        """The networks themselves: an aligned network is the same function already.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        WeightArray, or ndarray without an architecture
        """
        check_is_fitted(self)
        return wrapped(self, later_array(self, X), X, aligned=getattr(X, "aligned", None))

    def distances_to_reference(self, X: Any) -> np.ndarray:
        """How far networks, by the representatives that are compared, are from the reference, without being aligned.

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
        difference = (self._representatives(values) - tensor(self.reference_)).numpy()
        difference[:, self.architecture_.statistic_columns] = 0
        return np.linalg.norm(difference, axis=1)

    @property
    def report_(self) -> dict[str, np.ndarray]:
        """What alignment did to each training network."""
        return {name: getattr(self, f"{name}_") for name in REPORTED}

    def _fit(self, X: Any) -> Any:
        check_choices(self, {"method": CHOICES, "form": FORMS, "by": BY})
        values = fit_array(self, X)
        self._check_reference(len(values))
        self._begin(len(values))
        if self.architecture_ is None:
            self.reference_ = values[0].astype(np.float64)
            return values
        if self.task is not None:
            if not isinstance(self.task, Task):
                raise ValueError(f"The 'task' of PermutationAligner is a Task(X, y), got {type(self.task).__name__}.")
            check_task(self.architecture_, self.task)
        leaders = self._leaders(values, X)
        self._hold(leaders.raw)
        self._find_reference(values, leaders)
        matched, passes = self._match(leaders)
        action = leaders.for_all(matched @ leaders.scaling)
        aligned = action(values)
        self.output_change_ = output_change(values, aligned, self.architecture_)
        self.n_passes_ = passes[leaders.position].numpy()
        everyone = len(leaders.raw) == len(values)
        after = (matched @ leaders.scaling)(leaders.precise) if everyone else self._representatives(aligned)
        self._report(values, after)
        return wrapped(self, aligned, X, aligned=True)

    def _check_reference(self, n: int) -> None:
        if isinstance(self.reference, str) and self.reference not in REFERENCES:
            check_choices(self, {"reference": REFERENCES})
        if isinstance(self.reference, (int, np.integer)) and not 0 <= self.reference < n:
            raise ValueError(
                f"The 'reference' parameter of PermutationAligner is row {self.reference} of X, but X has {n} rows. "
                f"Choose one from 0 to {n - 1}."
            )

    def _begin(self, n: int) -> None:
        """Fitted values before anything is aligned."""
        drawn = self._method.draws and self.architecture_ is not None
        self._seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max)) if drawn else 0
        self._held: dict[str, Tensor] = {}
        self._first = np.empty(0)
        self.held_: tuple[str, ...] = ()
        self.distances_ = np.empty(0)
        self.n_iter_ = 1
        self.output_change_ = 0.0
        self.n_passes_ = np.zeros(n, dtype=np.int64)
        self.objective_, self.barrier_before_, self.barrier_after_ = (np.full(n, np.nan) for _ in range(3))

    def _hold(self, raw: Tensor) -> None:
        given = self._given()
        rows = raw if given is None else torch.cat([tensor(given).to(raw), raw])
        # compared as they are: scalings would blur what is equal
        self._held = held_groups(rows, self._architecture)
        self.held_ = tuple(self._held)
        self._first = raw[0].numpy().copy() if self._held else np.empty(0)

    def _given(self) -> np.ndarray | None:
        """The reference network that was passed, as one row."""
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
    def _form(self) -> Form:
        return cast(Form, self.form) if self.form in get_args(Form) else self._method.form

    def _leaders(self, values: np.ndarray, X: Any) -> Leaders:
        rows, position = np.unique(owners(X, self.by, len(values)), return_inverse=True)
        raw = viewed(values if len(rows) == len(values) else values[rows])
        precise = self._precise(raw)
        return Leaders(raw, precise, self._scaling(precise), torch.from_numpy(position))

    def _precise(self, rows: Tensor) -> Tensor:
        """Rows in the precision in which they are compared: descents, and balancing, need double."""
        return rows.double() if self._form == "balanced" else rows

    def _scaling(self, weights: Tensor) -> Action:
        if self.form == "raw":
            return Action.identity(self._architecture, len(weights))
        return canonical_action(weights, self._architecture, form=self._form)

    def _representatives(self, values: np.ndarray) -> Tensor:
        rows = self._precise(viewed(values))
        moved: Tensor = self._scaling(rows)(rows)
        return moved

    def _find_reference(self, values: np.ndarray, leaders: Leaders) -> None:
        given = self._given()
        if given is None and isinstance(self.reference, (int, np.integer)):
            given = values[[int(self.reference)]]
        if given is None and self._reference == "first":
            given = leaders.raw[:1].numpy()
        if given is not None:
            self.reference_ = self._representatives(given)[0].double().numpy().copy()
            return
        n = len(leaders.raw)
        few = torch.from_numpy(_spaced(n, self.max_reference))
        raw, rows = (part if len(few) == n else part[few] for part in (leaders.raw, leaders.representatives))
        find = {"mean": self._mean, "medoid": self._medoid, "universe": self._universe}[self._reference]
        self.reference_ = find(raw, rows).double().numpy().copy()

    @property
    def _reference(self) -> str:
        if self.reference != "auto":
            return str(self.reference)
        return "mean" if self.task is None else "medoid"

    def _medoid(self, raw: Tensor, rows: Tensor) -> Tensor:
        candidates = _spaced(len(rows), MEDOIDS)
        far = [(self._by_weights(raw, rows, rows[i]) - rows[i]).norm(dim=1).sum() for i in candidates]
        return rows[candidates[int(torch.stack(far).argmin())]]

    def _mean(self, raw: Tensor, rows: Tensor) -> Tensor:
        reference, distances = rows[0], []
        for _ in range(self.max_iter):
            aligned = self._by_weights(raw, rows, reference)
            reference = aligned.mean(0)
            distances.append(float((aligned - reference).square().sum(1).mean().sqrt()))
            if len(distances) > 1 and distances[-1] > distances[-2] * (1 - 1e-4):
                break
        self.distances_ = np.array(distances)
        self.n_iter_ = max(1, len(distances))
        return reference

    def _universe(self, raw: Tensor, rows: Tensor) -> Tensor:
        # those who are held agree already, and whoever differs is matched by the others' rule later
        architecture = restricted(self._architecture, self.held_)
        return universe_matching(rows, architecture, max_sweeps=self.max_sweeps)(rows).mean(0)

    def _by_weights(self, raw: Tensor, rows: Tensor, reference: Tensor) -> Tensor:
        """Rows aligned by their weights: how a reference is found, whatever the method."""

        def match(some: Tensor, architecture: Architecture) -> tuple[Action, None]:
            return orbit_matching(some, reference, architecture, self.max_sweeps), None

        return self._free(raw, rows, match)[0](rows)

    def _free(self, raw: Tensor, rows: Tensor, match: Any) -> tuple[Action, Tensor]:
        """What a method finds for each row, the groups that hold it being fixed."""
        passes = torch.zeros(len(rows), dtype=torch.long)
        actions = []
        for index, names in patterns(raw, tensor(self._first), self._held):
            # all of them need not be copied
            some = rows if len(index) == len(rows) else rows[index]
            action, taken = match(some, restricted(self._architecture, names))
            passes[index] = 0 if taken is None else taken
            actions.append((index, thawed(action, self._architecture, len(index))))
        return together(self._architecture, actions), passes

    def _match(self, leaders: Leaders) -> tuple[Action, Tensor]:
        setting = Setting(self.task, self.max_sweeps, self._seed, self.options or {})
        reference = tensor(self.reference_)
        if self._method.scales and not self._held:
            setting = replace(setting, scaling=leaders.scaling)
            action, passes = self._method.match(leaders.precise, reference, self._architecture, setting)
            return action, torch.zeros(len(leaders.raw), dtype=torch.long) if passes is None else passes

        def match(some: Tensor, architecture: Architecture) -> Any:
            return self._method.match(some, reference, architecture, setting)

        return self._free(leaders.raw, leaders.representatives, match)

    def _found(self, values: np.ndarray, X: Any) -> Action:
        """What aligns networks; the representatives are forgotten, and give their memory to what comes next."""
        leaders = self._leaders(values, X)
        return leaders.for_all(self._match(leaders)[0] @ leaders.scaling)

    def _report(self, values: np.ndarray, after: Tensor) -> None:
        self.objective_ = objective(after, tensor(self.reference_), self._architecture).numpy()
        if self.task is None or not (self._architecture.layers or self._architecture.module):
            return
        goal = WeightArray(self.reference_[None], self._architecture)
        networks = (WeightArray(rows.numpy(), self._architecture) for rows in (self._representatives(values), after))
        self.barrier_before_, self.barrier_after_ = (midpoint_barrier(rows, goal, self.task) for rows in networks)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _get_fitted(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays = {"reference": self.reference_, "distances": self.distances_, "first": self._first, **self.report_}
        held = {name: columns.tolist() for name, columns in self._held.items()}
        data = {"output_change": self.output_change_, "seed": self._seed, "held": list(held.items())}
        return arrays, {**data, **description(self)}

    def _set_fitted(self, arrays: dict[str, np.ndarray], data: dict[str, Any]) -> None:
        self.reference_, self.distances_, self._first = arrays["reference"], arrays["distances"], arrays["first"]
        for name in REPORTED:
            setattr(self, f"{name}_", arrays[name])
        self.n_iter_ = max(1, len(self.distances_))
        self.output_change_, self._seed = data["output_change"], data["seed"]
        self._held = {name: torch.tensor(columns) for name, columns in data["held"]}
        self.held_ = tuple(self._held)
        restore_description(self, data)


def _spaced(n: int, count: int) -> np.ndarray:
    """So many of n rows, evenly spaced."""
    return np.linspace(0, n - 1, min(n, count)).round().astype(int)
