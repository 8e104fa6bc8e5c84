"""ScaleCanonicalizer: one representative of each orbit of scalings, signs, flips and phases."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import StrOptions

from wsflow.architecture import Architecture
from wsflow.estimators.transformer import OrbitTransformer
from wsflow.estimators.validation import description, output_change, restore_description, run_rows, viewed
from wsflow.exceptions import NumericalError
from wsflow.mapped import chunks, empty_like
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical import canonical_action


class ScaleCanonicalizer(OrbitTransformer):
    """Bring networks to a canonical form: unit incoming norm, or the smallest sum of squares.

    The scale that a neuron gives up goes into the weights behind it, so the function is kept.
    Neurons with odd activations get a sign (sigmoids a flip), and biases of sines get within half a period of zero,
    unless they were aligned to a reference, which has decided. Where wires feed back, such as a residual stream, the
    producers that come first get unit norm. A dead neuron, with no incoming weights, keeps its scale. Without an
    architecture there are no symmetries: X passes through, with a warning.

    Parameters
    ----------
    form : {"unit", "balanced"}
        Incoming weights of unit norm for each neuron with positive scalings, which is what the geometric flow needs;
        or the scales with the smallest sum of squares of all weights, where incoming and outgoing weights balance.
    bias : {"inside", "outside"}
        Whether norms, or sums of squares, include biases. Inside, a neuron with a bias alone stays defined.
    last_layer : {"keep", "unit"}
        Whether the output layer keeps its scale, or is divided by its norm (Erdogan 2025). "unit"
        keeps predicted labels but not probabilities; `inverse_transform` then gives the output layer the
        median norm of the training networks.
    architecture : Architecture, optional
        Needed where X is not a `WeightArray`.

    Attributes
    ----------
    output_norm_ : float
        Median norm of the output layer over the training networks.
    output_change_ : float
        Largest relative change of an output caused on the training networks: rounding for "keep".

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, ScaleCanonicalizer, WeightArray
    >>> weights = WeightArray(np.random.default_rng(0).normal(size=(20, 23)), Architecture.mlp([4, 3, 2]))
    >>> canonical = ScaleCanonicalizer().fit_transform(weights)
    >>> bool(np.allclose((canonical[:, :15] ** 2).sum(axis=1), 3))
    True
    >>> balanced = ScaleCanonicalizer(form="balanced").fit_transform(weights)
    >>> bool(((balanced**2).sum(axis=1) < (canonical**2).sum(axis=1)).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "form": [StrOptions({"unit", "balanced"})],
        "bias": [StrOptions({"inside", "outside"})],
        "last_layer": [StrOptions({"keep", "unit"})],
        "architecture": [Architecture, None],
    }

    def __init__(
        self,
        form: str = "unit",
        bias: str = "inside",
        last_layer: str = "keep",
        architecture: Architecture | None = None,
    ) -> None:
        self.form = form
        self.bias = bias
        self.last_layer = last_layer
        self.architecture = architecture

    def fit(self, X: Any, y: Any = None) -> ScaleCanonicalizer:
        """Learn the norm of the output layer.

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
        NumericalError
            If a canonical form is beyond the range of the weights' precision.
        """
        X, values = self._fit_array(X, "leaves the scales and signs of networks as they are")
        self.output_norm_ = 1.0
        if self.architecture_ is None:
            return self
        norms = []
        for rows, action in self._actions(values, X):
            canonical = action(values[rows])
            self._check_range(canonical, rows.start)
            norms.append(_norms(canonical[:, self.architecture_.output_columns])[:, 0])
        self.output_norm_ = float(np.median(np.concatenate(norms))) or 1.0
        some = values[run_rows(len(values))]
        moved = self._with_last_layer(self._action(some, X)(some).copy())
        self.output_change_ = output_change(some, moved, self.architecture_)
        return self

    def _action(self, values: np.ndarray, X: Any) -> Action:
        signs = not getattr(X, "aligned", False)
        return canonical_action(viewed(values), self.architecture_, self.bias, signs, self.form)  # type: ignore[arg-type]

    def _finished(self, moved: np.ndarray, X: Any) -> Any:
        for rows in chunks(*moved.shape):
            self._check_range(moved[rows], rows.start)
            self._with_last_layer(moved[rows])
        return super()._finished(moved, X)

    def _check_range(self, canonical: np.ndarray, first: int) -> None:
        """Refuse canonical forms that are not finite; the first of these rows has the number `first` among all."""
        bad = ~np.isfinite(canonical)
        if not bad.any():
            return
        row, column = (int(i) for i in np.argwhere(bad)[0])
        name, where = self.architecture_.locate(column)
        raise NumericalError(
            f"The canonical form of network {first + row} is beyond the range of {canonical.dtype} in the parameter "
            f"{name!r} at {where}: the scale that neurons give up goes into the weights behind them. Pass weights in "
            "float64, or use form='balanced'."
        )

    def _with_last_layer(self, canonical: np.ndarray) -> np.ndarray:
        """Change the output layer of canonical networks (n, d) in place, and return them."""
        if self.last_layer == "unit":
            columns = self.architecture_.output_columns
            norms = _norms(canonical[:, columns])
            canonical[:, columns] /= np.where(norms > 0, norms, 1)
        return canonical

    def _runnable(self, values: np.ndarray) -> np.ndarray:
        if self.architecture_ is None or self.last_layer == "keep":
            return values
        result = empty_like(values)
        for rows in chunks(*values.shape):
            result[rows] = values[rows]
            result[rows, self.architecture_.output_columns] *= self.output_norm_
        return result

    def _get_fitted(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        data = {"output_norm": self.output_norm_, "output_change": self.output_change_}
        return {}, {**data, **description(self)}

    def _set_fitted(self, arrays: dict[str, np.ndarray], data: dict[str, Any]) -> None:
        self.output_norm_, self.output_change_ = data["output_norm"], data["output_change"]
        restore_description(self, data)


def _norms(rows: np.ndarray) -> np.ndarray:
    """The norms (n, 1) of rows, whose squares may be beyond the range of numbers."""
    # a power of two changes no digit
    _, exponent = np.frexp(np.abs(rows).max(1, keepdims=True, initial=0))
    return np.ldexp(np.linalg.norm(np.ldexp(rows, -exponent), axis=1, keepdims=True), exponent)
