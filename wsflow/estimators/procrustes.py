"""ProcrustesAligner: align channels between two linear maps to a reference, by invertible matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils._param_validation import StrOptions
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.estimators.transformer import OrbitTransformer
from wsflow.estimators.validation import description, output_change, restore_description, run_rows, viewed
from wsflow.exceptions import InvalidInputError
from wsflow.mapped import taken
from wsflow.symmetry.invertible import InvertibleAction, LinearWire
from wsflow.symmetry.matching import fixed_groups
from wsflow.symmetry.matching.references import spaced
from wsflow.tracing.linear_wires import linear_wires

# networks of which the mean is found
MAX_NETWORKS = 512
ROUNDS = 20
# relative change of the mean at which rounds end
SETTLED = 1e-6


class ProcrustesAligner(OrbitTransformer):
    """Align channels between two linear maps to a reference: queries with keys, values with outputs, linear layers.

    Permutations are a small part of what such channels commute with: every invertible matrix between the two maps keeps
    the function. Of the networks of an orbit this gives the one with the smallest sum of squares that is nearest to the
    reference, so that all of them become equal. Heads, and all other neurons, should be in order before:
    `PermutationAligner` comes first. Channels that weights tell apart which are equal in all networks of fit (a frozen
    layer) stay as they are. Networks without such channels pass through, and so do those without an architecture, with
    a warning.

    Parameters
    ----------
    reference : {"mean", "first"}
        The iterated mean of the networks, each aligned to it (Gower 1975), or the first of them.
    architecture : Architecture, optional
        Needed where X is not a `WeightArray`.

    Attributes
    ----------
    reference_ : ndarray of shape (d,)
        Weights to which networks are aligned.
    wires_ : tuple of str
        The wires that are aligned. Random networks have shown that matrices keep their outputs.
    output_change_ : float
        Largest relative change of an output caused on the training networks: rounding.

    References
    ----------
    Gower 1975, "Generalized Procrustes analysis", Psychometrika 40; Zhang et al. 2025, "Beyond the permutation symmetry
    of transformers: the role of rotation for model fusion", arXiv:2502.00264.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, ProcrustesAligner, WeightArray
    >>> rows = np.random.default_rng(0).normal(size=(20, 23))
    >>> aligner = ProcrustesAligner().fit(WeightArray(rows, Architecture.mlp([4, 3, 2], activation="identity")))
    >>> aligner.wires_, bool(aligner.output_change_ < 1e-12)
    (('hidden1',), True)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "reference": [StrOptions({"mean", "first"})],
        "architecture": [Architecture, None],
    }

    def __init__(self, reference: str = "mean", architecture: Architecture | None = None) -> None:
        self.reference = reference
        self.architecture = architecture

    def fit(self, X: Any, y: Any = None) -> ProcrustesAligner:
        """Find the reference.

        Parameters
        ----------
        X : WeightArray, Population, list of modules, or array-like of shape (n, d)
        y : ignored

        Raises
        ------
        ValueError
            If a parameter has a wrong value.
        InvalidInputError
            If weights are not finite, or the columns are not the architecture's.
        """
        X, values = self._fit_array(X, "leaves networks as they are")
        self.wires_: tuple[str, ...] = ()
        self.reference_ = values[0].astype(np.float64)
        if self.architecture_ is None:
            return self
        fixed = fixed_groups(viewed(values), self.architecture_)
        self.wires_ = tuple(wire.name for wire in linear_wires(self.architecture_) if wire.group not in fixed)
        if wires := self._wires:
            chosen = spaced(len(values), MAX_NETWORKS) if self.reference == "mean" else np.zeros(1, dtype=int)
            self.reference_ = _mean(viewed(taken(values, chosen)).double(), wires).numpy()
        some = values[run_rows(len(values))]
        self.output_change_ = output_change(some, self._action(some, X)(some), self.architecture_)
        return self

    @property
    def _wires(self) -> tuple[LinearWire, ...]:
        return tuple(wire for wire in linear_wires(self.architecture_) if wire.name in self.wires_)

    def _action(self, values: np.ndarray, X: Any) -> InvertibleAction:
        reference = torch.from_numpy(self.reference_.astype(np.float64))
        return InvertibleAction.towards(viewed(values).double(), self._wires, reference)

    def _joined(self, actions: Sequence[Any]) -> InvertibleAction:
        return InvertibleAction.concatenated(actions)

    def _get_fitted(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        data = {"output_change": self.output_change_, "wires": list(self.wires_)}
        return {"reference": self.reference_}, {**data, **description(self)}

    def _set_fitted(self, arrays: dict[str, np.ndarray], data: dict[str, Any]) -> None:
        self.reference_, self.output_change_ = arrays["reference"], data["output_change"]
        self.wires_ = tuple(data["wires"])
        restore_description(self, data)
        if self.reference_.shape != (self.n_features_in_,) or not np.isfinite(self.reference_).all():
            raise InvalidInputError(
                f"The fitted state of this ProcrustesAligner is not one of {self.n_features_in_} weights. Fit again."
            )


def _mean(weights: Tensor, wires: Sequence[LinearWire]) -> Tensor:
    """The mean of weights (n, d) that are aligned to it, found from the first of them."""
    mean = InvertibleAction.towards(weights[:1], wires, weights[0])(weights[:1])[0]
    for _ in range(ROUNDS):
        before, mean = mean, InvertibleAction.towards(weights, wires, mean)(weights).mean(0)
        if torch.linalg.vector_norm(mean - before) <= SETTLED * torch.linalg.vector_norm(mean):
            break
    return mean
