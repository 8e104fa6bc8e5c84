"""VariationalNetwork: a Gaussian over the weights of a network, learned from data by variational inference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import ClassifierTags, RegressorTags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, check_random_state, check_scalar

from wsflow.activations import ACTIVATIONS
from wsflow.architecture import Architecture
from wsflow.devices import resolved_device
from wsflow.estimators.examples import classes_of, classifies, fit_examples, later_examples
from wsflow.estimators.validation import tensor, torch_generator
from wsflow.evaluation.model_averaging import posterior_predictive
from wsflow.evaluation.predictive import chunked_outputs
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.losses import LOSSES
from wsflow.models.variational import LowRankGaussian, VariationalSettings, train_posterior
from wsflow.populations.architectures import networks_of
from wsflow.populations.asymmetry import ASYMMETRIES, Asymmetry, asymmetry_of, with_constants
from wsflow.running import predictions
from wsflow.running.example_inputs import declared_input
from wsflow.running.initialisation import INITIALISATIONS
from wsflow.task import Task
from wsflow.training.loop import TrainingInterrupted
from wsflow.training.state import History
from wsflow.weights import WeightArray

SEEDS = 2**31


class VariationalNetwork(BaseEstimator):
    """Learn a Gaussian over the weights of a network from data, and predict by the average of networks drawn from it.

    q(w) = N(m, diag(s^2) + F F^T), with a mean, a diagonal and k columns F that are all learned, maximises the evidence
    lower bound: the mean log-likelihood of the data under networks drawn from q, minus ``kl_weight`` KL(q || prior).
    It is a classifier, or with ``loss="gaussian_nll"``, ``"mse"`` or ``"poisson"`` a regressor. Fixed entries of
    networks without symmetries stay as they are.

    Parameters
    ----------
    hidden : sequence of int, optional
        Hidden widths of a perceptron (default: 16, 16). It or `architecture` says which network it is.
    rank : int
        Columns k of F; 0 is mean-field.
    architecture : Architecture or str, optional
        Any that runs and reads rows of X, or a name with sizes, as in `train_population`.
    activation : str, optional
        A key of `wsflow.activations.ACTIVATIONS`, of perceptrons and named architectures.
    loss : {"cross_entropy", "binary_cross_entropy", "mse", "gaussian_nll", "poisson"}
        Minus the log-likelihood. The squared error of k targets is that of noise with variance k / 2, for standardized
        targets; a network with ``"gaussian_nll"`` predicts the variance as well.
    initialisation : str
        Where the mean begins, a key of `wsflow.running.initialisation.INITIALISATIONS`. With He's weights the signal
        keeps its size through ReLU layers of any number. torch's own default shrinks its variance by a factor of six in
        each: behind 16 layers nothing is left to learn from, beside the noise of the weights.
    asymmetry : {"weights", "activations", "mask"} or Asymmetry, optional
    anchor : bool
        Constants that tell neurons apart, and whether they are mere first values, as in `train_population`.
    prior_scale : float
        The prior has mean 0 and the variance of He's weights (1 for biases), times the square of this; gains of norms
        have the mean 1.
    kl_weight : float
        1 is Bayes' rule; less is a cold posterior, which underfits less where networks have more weights than data.
    warm_up : float
        Share of the steps in which the weight of the KL rises from 0.
    n_networks : int
        Of how many networks predictions are the average.
    learning_rate : float
        The highest one of AdamW.
    batch_size : int
        Examples in each step, shared out among the four networks that are drawn for it.
    max_iter : int
        Training steps.
    device : str
        Where the Gaussian is learned: "auto" is the CPU, others have torch's names. It predicts on the CPU.
    random_state : int, RandomState or None
    progress : callable, optional
        Called with the steps done and their number.

    Attributes
    ----------
    model_ : LowRankGaussian
        The fitted Gaussian, in torch alone.
    architecture_ : Architecture
    classes_ : ndarray
        Of a classifier: the classes in the order of the outputs.
    history_ : History
        Minus the ELBO over the number of examples, by training step.
    n_iter_ : int
    n_features_in_ : int

    References
    ----------
    Tomczak, Swaroop and Turner 2020, "Efficient low rank Gaussian variational inference for neural networks" (NeurIPS);
    He et al. 2015, arXiv:1502.01852; Wenzel et al. 2020, arXiv:2002.02405 (cold posteriors).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from wsflow import VariationalNetwork
    >>> X, y = load_iris(return_X_y=True)
    >>> model = VariationalNetwork((8,), rank=2, max_iter=200, random_state=0).fit(X, y)
    >>> model.predict_proba(X[:3]).shape, model.sample(50, random_state=0).shape, sorted(model.evaluate(X, y))
    ((3, 3), (50, 67), ['accuracy', 'brier', 'ece', 'nll'])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden": ["array-like", None],
        "rank": [Interval(Integral, 0, None, closed="left")],
        "architecture": [Architecture, str, None],
        "activation": [StrOptions(set(ACTIVATIONS)), None],
        "loss": [StrOptions(set(LOSSES))],
        "initialisation": [StrOptions(set(INITIALISATIONS))],
        "asymmetry": [StrOptions(set(ASYMMETRIES)), Asymmetry, None],
        "anchor": ["boolean"],
        "prior_scale": [Interval(Real, 0, None, closed="neither")],
        "kl_weight": [Interval(Real, 0, None, closed="left")],
        "warm_up": [Interval(Real, 0, 1, closed="both")],
        "n_networks": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        hidden: Sequence[int] | None = None,
        rank: int = 4,
        *,
        architecture: Architecture | str | None = None,
        activation: str | None = None,
        loss: str = "cross_entropy",
        initialisation: str = "he",
        asymmetry: str | Asymmetry | None = None,
        anchor: bool = False,
        prior_scale: float = 1.0,
        kl_weight: float = 1.0,
        warm_up: float = 0.5,
        n_networks: int = 30,
        learning_rate: float = 2e-3,
        batch_size: int = 128,
        max_iter: int = 2000,
        device: str = "auto",
        random_state: Any = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.hidden = hidden
        self.rank = rank
        self.architecture = architecture
        self.activation = activation
        self.loss = loss
        self.initialisation = initialisation
        self.asymmetry = asymmetry
        self.anchor = anchor
        self.prior_scale = prior_scale
        self.kl_weight = kl_weight
        self.warm_up = warm_up
        self.n_networks = n_networks
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.device = device
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: Any, y: Any) -> VariationalNetwork:
        """Learn the Gaussian.

        Parameters
        ----------
        X : array-like of shape (b, p), or (b, ...) for an architecture that reads it
        y : array-like of shape (b,), or (b, m) for several labels or numbers

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter has a wrong value, or all of y is one class.
        InvalidInputError
            If X and y are not finite or do not fit each other or the architecture.
        NumericalError
            If the ELBO is not finite before anything was learned.
        KeyboardInterrupt
            At Ctrl-C; the estimator then has the best weights so far.
        """
        self._validate_params()
        device = resolved_device(self.device, type(self).__name__)
        task, generator = self._task(X, y), torch_generator(self.random_state)
        plain = networks_of(task, self.hidden, self.architecture, None, self.activation, None, None)
        initial = INITIALISATIONS[self.initialisation](plain.architecture, 1, generator)
        networks, start = with_constants(plain, task, asymmetry_of(self.asymmetry), bool(self.anchor))
        self.architecture_ = networks.architecture
        initial = initial if start is None else start.of(initial)
        self._seed = int(torch.randint(SEEDS, (), generator=generator))
        model = LowRankGaussian(self._settings(), initial[0], generator)
        try:
            history = train_posterior(model, task, generator, self.progress, device)
        except TrainingInterrupted as stop:
            self._finish(model, stop.history)
            raise
        self._finish(model, history)
        return self

    def _task(self, X: Any, y: Any) -> Task:
        """Return the data as a task, whose classes are numbers."""
        X, y = fit_examples(self, X, y)
        classes = None
        if classifies(self):
            self.classes_, y = classes_of(self, y)
            classes = np.arange(len(self.classes_)) if y.ndim == 1 else None
        self._is_column = y.ndim == 1
        return Task(X, y, self.loss, classes=classes)

    def _settings(self) -> VariationalSettings:
        return VariationalSettings(
            self.architecture_, int(self.rank), float(self.prior_scale), float(self.kl_weight), float(self.warm_up),
            float(self.learning_rate), int(self.batch_size), int(self.max_iter),
        )  # fmt: skip

    def _finish(self, model: LowRankGaussian, history: History) -> None:
        self.model_, self.history_ = model, history
        self.n_iter_ = history.step[-1] if history.step else 0

    def sample(self, n_samples: int = 1, random_state: Any = None) -> WeightArray:
        """Draw networks, a `WeightArray` of shape (n_samples, d).

        Parameters
        ----------
        n_samples : int
        random_state : int, RandomState or None
        """
        check_is_fitted(self)
        check_scalar(n_samples, "n_samples", Integral, min_val=1)
        return self._drawn(int(n_samples), int(check_random_state(random_state).randint(SEEDS)))

    def _drawn(self, n: int, seed: int) -> WeightArray:
        rows = self.model_.sample(n, torch.Generator().manual_seed(seed))
        if not rows.isfinite().all():
            raise NumericalError("Networks of this VariationalNetwork are not finite: fit it again.")
        return WeightArray(rows.numpy(), self.architecture_)

    def _average(self, X: Any) -> np.ndarray:
        """The average prediction (b, k) of the same networks at every call, computed in the precision of X."""
        X = later_examples(self, X)
        networks = self._drawn(self.n_networks, self._seed)
        dtype = X.dtype if X.dtype.kind == "f" else np.float32
        parts = [predictions(outputs, self.loss).sum(0) for outputs in chunked_outputs(networks, X, dtype)]
        return (torch.stack(parts).sum(0) / len(networks)).numpy()

    @available_if(classifies)
    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict the probability (b, classes) of each class, or of each label: the mean over networks.

        Parameters
        ----------
        X : array-like of shape (b, p)
        """
        found = self._average(X).astype(np.float64)
        # single precision rounds sums
        return found / found.sum(1, keepdims=True) if self._is_column else found

    def predict(self, X: Any) -> np.ndarray:
        """Predict the most probable classes, or the expected targets, (b,) or (b, m).

        Parameters
        ----------
        X : array-like of shape (b, p)
        """
        average = self._average(X)
        if not classifies(self):
            return average[:, 0] if self._is_column else average
        return self.classes_[average.argmax(1)] if self._is_column else (average > 0.5).astype(np.int64)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy of a classifier, or the coefficient of determination R^2.

        Parameters
        ----------
        X : array-like of shape (b, p)
        y : array-like of shape (b,) or (b, m)
        sample_weight : array-like of shape (b,), optional
        """
        measure = accuracy_score if classifies(self) else r2_score
        return float(measure(y, self.predict(X), sample_weight=sample_weight))

    def evaluate(self, X: Any, y: Any) -> dict[str, float]:
        """Measure the average as a forecast.

        Parameters
        ----------
        X : array-like of shape (b, p)
        y : array-like of shape (b,) or (b, m)

        Returns
        -------
        dict
            Of a classifier accuracy, negative log-likelihood, Brier score and expected calibration error; of a
            regressor R^2, mean squared error and, where a density is predicted, the negative log-likelihood.

        References
        ----------
        Guo et al. 2017, arXiv:1706.04599 (calibration error).
        """
        X, y = later_examples(self, X, y)
        classes = self.classes_ if classifies(self) and self._is_column else None
        task = Task(X, y, self.loss, classes=classes)
        return posterior_predictive(self._drawn(self.n_networks, self._seed), task).numbers

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        if classifies(self):
            tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        else:
            tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        return tags

    def _get_fitted(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays = {name: value.numpy() for name, value in self.model_.state_dict().items()}
        names, history = getattr(self, "feature_names_in_", None), self.history_
        data = {
            "n_features": self.n_features_in_,
            "architecture": self.architecture_,
            "history": {name: getattr(history, name) for name in ("step", "train", "best_step")},
            "seed": self._seed,
            "is_column": self._is_column,
            "labels": self.classes_.tolist() if classifies(self) else None,
        }
        return arrays, data if names is None else {**data, "feature_names": names.tolist()}

    def _set_fitted(self, arrays: dict[str, np.ndarray], data: dict[str, Any]) -> None:
        self.n_features_in_, self.architecture_ = data["n_features"], data["architecture"]
        self._check_inputs()
        self._seed, self._is_column = data["seed"], data["is_column"]
        if data["labels"] is not None:
            self.classes_ = np.array(data["labels"])
        if "feature_names" in data:
            self.feature_names_in_ = np.array(data["feature_names"], dtype=object)
        model = LowRankGaussian(self._settings(), torch.zeros(self.architecture_.n_weights), torch.Generator())
        try:
            model.load_state_dict({name: tensor(array) for name, array in arrays.items()})
        except RuntimeError as error:
            why = str(error).splitlines()[-1].strip()
            raise InvalidInputError(f"The arrays of a VariationalNetwork are not of its network: {why}") from error
        self._finish(model.eval().requires_grad_(False), History(**data["history"]))

    def _check_inputs(self) -> None:
        """Refuse a fitted state whose networks take another number of inputs."""
        declared = declared_input(self.architecture_)
        own = None if declared is None or len(declared.shape) != 2 else declared.shape[1]
        if own not in (None, self.n_features_in_):
            raise InvalidInputError(
                f"The networks of this VariationalNetwork take {own} inputs, and its fitted state is of "
                f"{self.n_features_in_}. Fit again."
            )
