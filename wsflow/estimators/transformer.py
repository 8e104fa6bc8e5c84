"""What the transformers that move networks within their orbits have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from wsflow.estimators.inputs import as_networks, warn_of_plain
from wsflow.estimators.validation import fit_array, later_array, returned_array, wrapped
from wsflow.mapped import chunks, empty_like
from wsflow.symmetry.batches import concatenate


class OrbitTransformer(TransformerMixin, BaseEstimator):
    """A transformer whose networks are the same functions; without an architecture X passes through."""

    def transform(self, X: Any, return_action: bool = False) -> Any:
        """Move networks within their orbits.

        Parameters
        ----------
        X : WeightArray or array-like of shape (n, d)
        return_action : bool
            Whether to return the group elements too; ``action.inverse()(moved)`` undoes them. The output norm that
            ``last_layer="unit"`` of `ScaleCanonicalizer` drops is no symmetry, and not among them.

        Returns
        -------
        moved : WeightArray, or ndarray without an architecture
        action : Action
            Only if `return_action`; None without an architecture.

        Raises
        ------
        InvalidInputError
            If weights are not finite, or X holds networks of another architecture.

        Notes
        -----
        Networks are moved a few at a time. Where the rows of X are mapped (see `wsflow.load_population`), so are those
        that are returned, and neither needs to fit into memory.
        """
        check_is_fitted(self)
        X = as_networks(self, X)
        values = later_array(self, X)
        if self.architecture_ is None:
            return (values, None) if return_action else values
        found: list[tuple[np.ndarray, Any]] = []
        moved = empty_like(values)
        for rows, action in self._actions(values, X):
            moved[rows] = action(values[rows])
            if return_action:
                found.append((np.arange(len(values))[rows], action))
        moved = self._finished(moved, X)
        return (moved, self._in_order(found)) if return_action else moved

    def inverse_transform(self, X: Any) -> Any:
        """Return runnable networks: those of X, which are the same functions already.

        Nothing is undone: which member of its orbit a network was is in the action that `transform` returns. Only the
        output layer gets its median norm back after ``last_layer="unit"`` of `ScaleCanonicalizer`.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        WeightArray, or ndarray without an architecture
        """
        check_is_fitted(self)
        X = as_networks(self, X)
        return wrapped(self, self._runnable(returned_array(self, X)), X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the columns: those of fit, or else of the architecture's weights.

        With them, ``set_output(transform="pandas")`` gives data frames. A data frame has no architecture, so that
        estimators behind need ``architecture=``.

        Parameters
        ----------
        input_features : array-like of str, optional
            Names instead, which are those of fit where it was given names.

        Returns
        -------
        ndarray of str, shape (d,)
        """
        check_is_fitted(self)
        if input_features is None and self.architecture_ is not None and not hasattr(self, "feature_names_in_"):
            return np.asarray(self.architecture_.weight_names, dtype=object)
        return _check_feature_names_in(self, input_features)

    def _in_order(self, found: Sequence[tuple[np.ndarray, Any]]) -> Any:
        """Return the group elements of some rows each as those of all rows, in their order."""
        if len(found) == 1:
            return found[0][1]
        order = np.argsort(np.concatenate([rows for rows, _ in found]), kind="stable")
        return self._joined([action for _, action in found]).rows(torch.from_numpy(order))

    def _joined(self, actions: Sequence[Any]) -> Any:
        """Return the group elements of several actions, one after the other."""
        return concatenate(self.architecture_, actions)

    def _fit_array(self, X: Any, does: str) -> tuple[Any, np.ndarray]:
        """Begin to fit: return X as networks and as an array, with a warning of what plain rows are spared."""
        self._validate_params()
        X = as_networks(self, X)
        values = fit_array(self, X)
        self.output_change_ = 0.0
        if self.architecture_ is None:
            warn_of_plain(self, does)
        return X, values

    def _actions(self, values: np.ndarray, X: Any) -> Iterator[tuple[Any, Any]]:
        """Yield a few rows of the values (n, d) of X, a slice or numbers, with their group elements, until all are."""
        for rows in chunks(*values.shape):
            yield rows, self._action(values[rows], X)

    @abstractmethod
    def _action(self, values: np.ndarray, X: Any) -> Any:
        """Return the group elements of some rows of X."""

    def _finished(self, moved: np.ndarray, X: Any) -> Any:
        """Return moved networks (n, d), which may be changed in place, as the user gets them."""
        return wrapped(self, moved, X)

    def _runnable(self, values: np.ndarray) -> np.ndarray:
        return values

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
