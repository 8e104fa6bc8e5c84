"""PermutationAligner: choose permutations and signs so that networks lie close to a reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.estimators.validation import (
    check_choices,
    description,
    fit_array,
    later_array,
    output_change,
    restore_description,
    tensor,
    wrapped,
)
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical import canonical_action
from wsflow.symmetry.matching import orbit_matching
from wsflow.weights import WeightArray

REFERENCES = ("mean", "medoid", "first")
BY = ("run", "network")


class PermutationAligner(TransformerMixin, BaseEstimator):
    """Align networks to a reference by weight matching.

    Networks are compared by scale-free representatives, so the result does not depend on whether
    scalings are canonicalized before or after; signs of odd activations are chosen along with the
    permutations. Without an architecture there are no symmetries, and X passes through.

    Parameters
    ----------
    reference : {"mean", "medoid", "first"}
        The iterated mean of the aligned networks (Ainsworth et al. 2023, section 5.3), the network
        nearest to all others, or the first one.
    by : {"run", "network"}
        Whether all networks of a run move as its last snapshot does, or each by itself.
    max_sweeps : int
        Passes over the neuron groups for each network.
    max_iter : int
        Rounds of the iterated mean.
    max_reference : int
        Networks that the reference is made from, evenly spaced over the rows.
    architecture : Architecture, optional
        Needed where X is not a `WeightArray`.

    Attributes
    ----------
    reference_ : ndarray of shape (d,)
        Canonical weights to which networks are aligned.
    distances_ : ndarray
        Root mean square distance to the reference by round of the iterated mean.
    n_iter_ : int
        Rounds that were made.
    output_change_ : float
        Largest relative change of an output caused on the training networks: rounding.
    architecture_ : Architecture or None
    n_features_in_ : int

    References
    ----------
    Ainsworth, Hayase and Srinivasa 2023, "Git Re-Basin", arXiv:2209.04836.

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
        reference: str = "mean",
        by: str = "run",
        max_sweeps: int = 50,
        max_iter: int = 10,
        max_reference: int = 512,
        architecture: Architecture | None = None,
    ) -> None:
        self.reference = reference
        self.by = by
        self.max_sweeps = max_sweeps
        self.max_iter = max_iter
        self.max_reference = max_reference
        self.architecture = architecture

    def fit(self, X: Any, y: Any = None) -> PermutationAligner:
        """Find the reference.

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
            If weights are not finite, or the columns are not the architecture's.
        """
        check_choices(self, {"reference": REFERENCES, "by": BY})
        values = fit_array(self, X)
        self.distances_ = np.empty(0)
        self.n_iter_ = 1
        if self.architecture_ is None:
            self.reference_ = values[0].astype(np.float64)
            self.output_change_ = 0.0
            return self
        ends = _ends(X, self.by)
        rows = ends[np.linspace(0, len(ends) - 1, min(len(ends), self.max_reference)).round().astype(int)]
        self._find_reference(self._scale_free(tensor(values[rows]).double()))
        some = slice(None, None, max(1, len(values) // 64))
        self.output_change_ = output_change(values[some], self._act(values[some], X[some])[0], self.architecture_)
        return self

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
        moved, action = self._act(values, X)
        aligned = wrapped(self, moved, X, aligned=True)
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

    def _scale_free(self, weights: Tensor) -> Tensor:
        return canonical_action(weights, self.architecture_)(weights)

    def _match(self, canonical: Tensor, reference: Tensor) -> Action:
        return orbit_matching(canonical, reference, self.architecture_, self.max_sweeps)

    def _find_reference(self, canonical: Tensor) -> None:
        reference = canonical[0]
        if self.reference == "medoid":
            aligned = self._match(canonical, reference)(canonical)
            reference = aligned[torch.cdist(aligned, aligned).sum(1).argmin()]
        distances: list[float] = []
        for _ in range(self.max_iter if self.reference == "mean" else 0):
            aligned = self._match(canonical, reference)(canonical)
            mean = aligned.mean(0)
            distances.append(float((aligned - mean).square().sum(1).mean().sqrt()))
            reference = mean
            if len(distances) > 1 and distances[-1] > distances[-2] * (1 - 1e-4):
                break
        self.distances_ = np.array(distances)
        self.n_iter_ = max(1, len(distances))
        self.reference_ = reference.numpy()

    def _act(self, values: np.ndarray, X: Any) -> tuple[np.ndarray, Action]:
        owners, position = np.unique(_owners(X, self.by, len(values)), return_inverse=True)
        leaders = tensor(values[owners]).double()
        canonical = canonical_action(leaders, self.architecture_)
        matched = self._match(canonical(leaders), tensor(self.reference_)) @ canonical
        action = _without_scales(matched).rows(torch.from_numpy(position))
        return action(values), action

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _get_fitted(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays = {"reference": self.reference_, "distances": self.distances_}
        return arrays, {"output_change": self.output_change_, **description(self)}

    def _set_fitted(self, arrays: dict[str, np.ndarray], data: dict[str, Any]) -> None:
        self.reference_, self.distances_ = arrays["reference"], arrays["distances"]
        self.n_iter_ = max(1, len(self.distances_))
        self.output_change_ = data["output_change"]
        restore_description(self, data)


def _ends(X: Any, by: str) -> np.ndarray:
    """Rows that stand for the others: the last snapshot of each run, or all."""
    return np.unique(_owners(X, by, len(X)))


def _owners(X: Any, by: str, n: int) -> np.ndarray:
    """For each row, the row with which it moves."""
    if by == "network" or not isinstance(X, WeightArray):
        return np.arange(n)
    order = np.lexsort((np.arange(n), X.steps, X.runs))
    runs = X.runs[order]
    last = np.append(runs[1:] != runs[:-1], True)
    owner_of = dict(zip(runs[last].tolist(), order[last].tolist(), strict=True))
    return np.array([owner_of[run] for run in X.runs.tolist()], dtype=np.int64)


def _without_scales(action: Action) -> Action:
    """Permutations and signs alone: positive scales are not the aligner's business."""
    signs = {name: scale.sign() for name, scale in action.scales.items() if (scale < 0).any()}
    return Action(action.architecture, action.permutations, signs)
