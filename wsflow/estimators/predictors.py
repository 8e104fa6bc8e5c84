"""MetaRegressor and MetaClassifier: what a network is like, predicted from its weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import assert_all_finite, check_is_fitted, check_scalar
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.estimators.examples import classes_of
from wsflow.estimators.meta_estimator import MetaEstimator
from wsflow.estimators.validation import tensor
from wsflow.exceptions import InvalidInputError


class MetaRegressor(RegressorMixin, MetaEstimator):
    """Predict a number of each network from its weights: its accuracy, a loss, a hyperparameter.

    Networks are brought to a canonical form, an encoder reads them, and a readout that knows no order of neurons gives
    the number: with ``canonicalize="auto"`` and an encoder that respects permutations, networks that are the same
    function by a symmetry of their architecture get the same number.

    Parameters
    ----------
    metanetwork : {"auto", "neuron", "relational", "neural_graph", "scale_equivariant", "deep_sets", "statistics", \
"convolutional", "mlp", "probe"} or object
        The encoder, a key of `wsflow.metanetworks.encoders.ENCODERS`; a string stands for an object of
        `wsflow.models.metanetworks` with its defaults, "neuron" for ``NeuronTransformer(identity=None, dropout=0.1)``:
        with names, which are for aligned networks, permutations are seen. "auto" is "neuron", or "mlp" without an
        architecture.
    canonicalize : {"auto", "unit", "balanced", None}
        The form to which scales, signs and phases are brought first, as by `ScaleCanonicalizer`. "auto" is "balanced"
        where the encoder does not respect them by itself; None is no form.
    n_estimators : int
        Metanetworks of which the mean is taken.
    calibration_fraction : float
        Share of the runs that nothing is learned from, for `predict_interval`.
    training : {"adamw"} or AdamW
        Batch size, learning rate, share of the runs for validation, and early stopping.
    max_iter : int
        Training steps of each metanetwork.
    architecture : Architecture, optional
        Needed where X is not a `WeightArray`.
    device : str
        Where it is trained and predicts: "auto" is the CPU, others have torch's names.
    random_state : int, RandomState or None
    progress : callable, optional
        Called with the training steps done and their number.

    Attributes
    ----------
    model_ : WeightPredictor
        The fitted model, in torch alone.
    history_ : list of History
        Losses by training step, of each metanetwork.
    residual_std_ : float
        Root mean square error of held-out networks.
    calibration_scores_ : ndarray
        Errors of the networks for calibration, one of each run, in units of their predicted errors.
    n_iter_ : int
    n_networks_, n_runs_ : int
    architecture_ : Architecture or None
    n_features_in_ : int

    References
    ----------
    Unterthiner et al. 2020, arXiv:2002.11448; Dunn, Wasserman and Ramdas 2023, "Distribution-free prediction sets for
    two-layer hierarchical models", arXiv:1809.07441 (one network of each run for calibration).

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, MetaRegressor, WeightArray
    >>> X = WeightArray(np.random.default_rng(0).normal(size=(80, 23)), Architecture.mlp([4, 3, 2]))
    >>> y = np.asarray(X[:, 15:21]).std(axis=1)
    >>> model = MetaRegressor("statistics", canonicalize=None, max_iter=50, random_state=0).fit(X, y)
    >>> model.predict(X[:5]).shape, model.predict_interval(X[:5], coverage=0.8).shape
    ((5,), (5, 2))
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **MetaEstimator._parameter_constraints,
        "calibration_fraction": [Interval(Real, 0, 0.9, closed="both")],
    }

    def __init__(
        self,
        metanetwork: Any = "auto",
        *,
        canonicalize: str | None = "auto",
        n_estimators: int = 1,
        calibration_fraction: float = 0.1,
        training: Any = "adamw",
        max_iter: int = 600,
        architecture: Architecture | None = None,
        device: str = "auto",
        random_state: Any = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.metanetwork = metanetwork
        self.canonicalize = canonicalize
        self.n_estimators = n_estimators
        self.calibration_fraction = calibration_fraction
        self.training = training
        self.max_iter = max_iter
        self.architecture = architecture
        self.device = device
        self.random_state = random_state
        self.progress = progress

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predict the number of each network.

        Parameters
        ----------
        X : WeightArray or array-like of shape (n, d)
        return_std : bool
            Whether to return standard errors too: the error on held-out runs and the spread of the metanetworks,
            their squares added.

        Returns
        -------
        y : ndarray of shape (n,)
        std : ndarray of shape (n,)
            Only if `return_std`.
        """
        members = self._members(X)[..., 0]
        mean: np.ndarray = members.mean(0)
        return (mean, self._std(members)) if return_std else mean

    def predict_interval(self, X: Any, coverage: float = 0.9) -> np.ndarray:
        """Return intervals that hold the number of a network of a new run with this probability.

        By split conformal prediction: predictions plus and minus a quantile of the errors on runs of which nothing was
        learned. It holds on average over runs that are drawn like those of fit, whatever their law.

        Parameters
        ----------
        X : WeightArray or array-like of shape (n, d)
        coverage : float
            Between 0 and 1.

        Returns
        -------
        ndarray of shape (n, 2)
            Lower and upper ends.

        Raises
        ------
        InvalidInputError
            If too few runs were held out for such a coverage.

        References
        ----------
        Lei et al. 2018, "Distribution-free predictive inference for regression", arXiv:1604.04173.
        """
        check_is_fitted(self)
        check_scalar(coverage, "coverage", Real, min_val=0, max_val=1, include_boundaries="neither")
        n = len(self.calibration_scores_)
        # rounding of (n + 1) * coverage is no reason for one more
        rank = math.ceil((n + 1) * coverage - 1e-9)
        if rank > n:
            raise InvalidInputError(
                f"Intervals of coverage {coverage:g} need {math.ceil(coverage / (1 - coverage) - 1e-9)} runs for "
                f"calibration, and {n} were held out. Fit with more runs or a larger calibration_fraction, or ask for "
                "less coverage."
            )
        members = self._members(X)[..., 0]
        half = np.sort(self.calibration_scores_)[rank - 1] * self._std(members)
        return np.stack([members.mean(0) - half, members.mean(0) + half], 1)

    def _std(self, members: np.ndarray) -> np.ndarray:
        return np.sqrt(self.residual_std_**2 + members.var(0))

    def _targets(self, y: np.ndarray) -> Tensor:
        try:
            values = np.asarray(y, dtype=np.float64)
            assert_all_finite(values, input_name="y")
        except (TypeError, ValueError) as error:
            raise InvalidInputError(f"The y of MetaRegressor is one finite number for each network: {error}") from error
        return tensor(values)

    def _calibrate(
        self, rows: Tensor, targets: Tensor, runs: np.ndarray, parts: tuple[Tensor, ...], generator: torch.Generator
    ) -> None:
        members = self.model_.predict(rows)[..., 0].numpy()
        learned, _, calibration = (part.numpy() for part in parts)
        errors = np.abs(members.mean(0) - targets.numpy())
        self.residual_std_ = float(np.sqrt(np.mean(errors[~learned if not learned.all() else learned] ** 2)))
        order = torch.randperm(len(rows), generator=generator).numpy()
        held_out = order[calibration[order]]
        # networks of one run are not independent: one of each is
        chosen = held_out[np.unique(runs[held_out], return_index=True)[1]]
        std = np.maximum(self._std(members)[chosen], np.finfo(float).tiny)
        self.calibration_scores_: np.ndarray = errors[chosen] / std

    def _get_fitted(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays, data = super()._get_fitted()
        scores = {"calibration_scores": self.calibration_scores_} if len(self.calibration_scores_) else {}
        return {**arrays, **scores}, {**data, "residual_std": self.residual_std_}

    def _set_fitted(self, arrays: dict[str, np.ndarray], data: dict[str, Any]) -> None:
        super()._set_fitted(arrays, data)
        self.calibration_scores_ = arrays.get("calibration_scores", np.empty(0))
        self.residual_std_ = data["residual_std"]


class MetaClassifier(ClassifierMixin, MetaEstimator):
    """Predict the class of each network from its weights: its data set, its optimizer, the digit that it shows.

    Parameters and attributes are those of `MetaRegressor`, but for what belongs to its errors and intervals.

    Parameters
    ----------
    metanetwork, canonicalize, n_estimators, training, max_iter, architecture, device, random_state, progress
        As in `MetaRegressor`.

    Attributes
    ----------
    classes_ : ndarray
        The classes, sorted.
    model_, history_, n_iter_, n_networks_, n_runs_, architecture_, n_features_in_
        As in `MetaRegressor`.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, MetaClassifier, WeightArray
    >>> X = np.random.default_rng(0).normal(size=(80, 23)) * np.repeat([1.0, 3.0], 40)[:, None]
    >>> X = WeightArray(X, Architecture.mlp([4, 3, 2]))
    >>> model = MetaClassifier("statistics", canonicalize=None, max_iter=50, random_state=0)
    >>> model.fit(X, np.repeat(["small", "large"], 40)).predict(X[:2])
    array(['small', 'small'], dtype='<U5')
    """

    def __init__(
        self,
        metanetwork: Any = "auto",
        *,
        canonicalize: str | None = "auto",
        n_estimators: int = 1,
        training: Any = "adamw",
        max_iter: int = 600,
        architecture: Architecture | None = None,
        device: str = "auto",
        random_state: Any = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.metanetwork = metanetwork
        self.canonicalize = canonicalize
        self.n_estimators = n_estimators
        self.training = training
        self.max_iter = max_iter
        self.architecture = architecture
        self.device = device
        self.random_state = random_state
        self.progress = progress

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability (n, classes) of each class, the mean over the metanetworks.

        Parameters
        ----------
        X : WeightArray or array-like of shape (n, d)
        """
        return self._members(X).mean(0)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class (n,) of each network.

        Parameters
        ----------
        X : WeightArray or array-like of shape (n, d)
        """
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    def _targets(self, y: np.ndarray) -> Tensor:
        # what is not finite cannot be told from whole numbers
        assert_all_finite(y, input_name="y")
        self.classes_, positions = classes_of(self, y)
        return torch.from_numpy(positions.astype(np.int64))

    def _get_fitted(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays, data = super()._get_fitted()
        return arrays, {**data, "labels": self.classes_.tolist()}

    def _set_fitted(self, arrays: dict[str, np.ndarray], data: dict[str, Any]) -> None:
        self.classes_ = np.array(data["labels"])
        super()._set_fitted(arrays, data)
