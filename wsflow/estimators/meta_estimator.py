"""What MetaRegressor and MetaClassifier have in common: an ensemble of metanetworks, trained on whole runs."""

from __future__ import annotations

from abc import abstractmethod
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.devices import resolved_device
from wsflow.estimators.inputs import as_networks, warn_of_plain
from wsflow.estimators.validation import (
    check_targets,
    description,
    fit_array,
    held_out_rows,
    later_array,
    restore_description,
    runs_of,
    tensor,
    torch_generator,
)
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.models.memory import check_metanetwork
from wsflow.models.metanetworks import metanetwork_of
from wsflow.models.options import resolved
from wsflow.models.predictor import (
    PredictorSettings,
    WeightPredictor,
    build_predictor,
    canonical_form,
    train_predictor,
)
from wsflow.training.loop import TrainingInterrupted
from wsflow.training.state import History


class MetaEstimator(BaseEstimator):
    """A predictor of networks; what its targets are, and what it learns of its errors, its subclasses say."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "canonicalize": [StrOptions({"auto", "unit", "balanced"}), None],
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "architecture": [Architecture, None],
    }
    classes_: np.ndarray

    def fit(self, X: Any, y: Any, groups: Any = None) -> Any:
        """Learn to predict y from networks.

        Parameters
        ----------
        X : WeightArray, Population, list of modules, or array-like of shape (n, d)
        y : array-like of shape (n,)
            A number, or the class, of each network.
        groups : array-like of shape (n,), optional
            The run of each row of a plain array; a `WeightArray` knows its runs. Whole runs are held out.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter has a wrong value or needs an architecture that is not known, or y is missing or has one
            class alone.
        InvalidInputError
            If weights are not finite, y has another length, or the encoder does not read such networks.
        KeyboardInterrupt
            At Ctrl-C; the estimator then predicts with the best weights so far.
        """
        self._validate_params()
        device = resolved_device(self.device, type(self).__name__)
        X = as_networks(self, X)
        values = fit_array(self, X, ensure_min_samples=2)
        targets = self._targets(check_targets(self, y, len(values)))
        if self.architecture_ is None and isinstance(self.metanetwork, str) and self.metanetwork == "auto":
            warn_of_plain(self, "reads plain vectors, and knows no symmetry of networks")
        settings = self._settings()
        generator = torch_generator(self.random_state)
        runs = runs_of(X, groups, len(values))
        self.n_networks_, self.n_runs_ = len(values), len(np.unique(runs))
        calibration = held_out_rows(runs, getattr(self, "calibration_fraction", 0.0), generator)
        fraction = settings.training.validation_fraction
        validation = torch.zeros_like(calibration)
        validation[~calibration] = held_out_rows(runs[~calibration.numpy()], fraction, generator)
        learned = ~(calibration | validation)
        rows = tensor(values).double()
        model = build_predictor(settings, generator)
        parts = (rows[learned], targets[learned], rows[validation], targets[validation])
        try:
            histories = train_predictor(model, *parts, generator, self.progress, device)
        except TrainingInterrupted as stop:
            self._finish(model, [stop.history])
            self._calibrate(rows, targets, runs, (learned, validation, calibration), generator)
            raise
        self._finish(model, histories)
        self._calibrate(rows, targets, runs, (learned, validation, calibration), generator)
        return self

    def _settings(self) -> PredictorSettings:
        name, architecture = type(self).__name__, self.architecture_
        metanetwork = metanetwork_of(self.metanetwork, name, architecture is not None)
        check_metanetwork(metanetwork, self.n_features_in_, int(self.n_estimators))
        return PredictorSettings(
            metanetwork,
            architecture,
            self.n_features_in_,
            len(self.classes_) if hasattr(self, "classes_") else None,
            canonical_form(architecture, metanetwork.encoder, self.canonicalize),
            int(self.n_estimators),
            resolved("training", self.training, name),
            int(self.max_iter),
        )

    def _finish(self, model: WeightPredictor, histories: list[History]) -> None:
        # a row is predicted alike in every batch
        self.model_: WeightPredictor = model.double()
        self.history_: list[History] = histories
        self.n_iter_ = max((history.step[-1] for history in histories if history.step), default=0)

    def _members(self, X: Any) -> np.ndarray:
        """What each member predicts, (members, n, 1) or (members, n, classes)."""
        check_is_fitted(self)
        self.model_.to(resolved_device(self.device, type(self).__name__))
        found: np.ndarray = self.model_.predict(tensor(later_array(self, X)).double()).numpy()
        if not np.isfinite(found).all():
            raise NumericalError(
                f"Predictions of this {type(self).__name__} are not finite: the networks are far from those of fit, or "
                "the metanetwork is damaged. Fit it again."
            )
        return found

    def _calibrate(
        self, rows: Tensor, targets: Tensor, runs: np.ndarray, parts: tuple[Tensor, ...], generator: torch.Generator
    ) -> None:
        """Learn errors from what was held out."""

    @abstractmethod
    def _targets(self, y: np.ndarray) -> Tensor:
        """Return numbers, or positions of classes, which are learned here."""

    def _get_fitted(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays = {f"model.{name}": value.cpu().numpy() for name, value in self.model_.state_dict().items()}
        histories = [
            {name: getattr(h, name) for name in ("step", "train", "validation", "best_step")} for h in self.history_
        ]
        data = {"histories": histories, "fitted_to": [self.n_networks_, self.n_runs_]}
        return arrays, {**data, "n_members": len(self.model_.members), **description(self)}

    def _set_fitted(self, arrays: dict[str, np.ndarray], data: dict[str, Any]) -> None:
        restore_description(self, data)
        self.n_networks_, self.n_runs_ = data["fitted_to"]
        model = build_predictor(self._settings(), torch.Generator().manual_seed(0))
        # fewer than were asked for, where training was interrupted
        model.members = model.members[: data["n_members"]]
        state = {name.removeprefix("model."): tensor(a) for name, a in arrays.items() if name.startswith("model.")}
        try:
            model.double().load_state_dict(state)
        except RuntimeError as error:
            raise InvalidInputError(
                f"The arrays of a {type(self).__name__} are not those of its metanetwork: {str(error).splitlines()[0]}"
            ) from error
        self._finish(model.eval().requires_grad_(False), [History(**history) for history in data["histories"]])
