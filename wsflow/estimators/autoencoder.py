"""MetaAutoencoder: networks as latents that no symmetry changes, and back."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_array, check_is_fitted
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.devices import resolved_device
from wsflow.estimators.inputs import as_networks, warn_of_plain
from wsflow.estimators.statistics import modelled, weights_alone, with_statistics
from wsflow.estimators.validation import (
    description,
    fit_array,
    held_out_rows,
    later_array,
    of_input,
    restore_description,
    runs_of,
    tensor,
    torch_generator,
    viewed,
)
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.models.autoencoder import (
    AutoencoderSettings,
    WeightAutoencoder,
    build_autoencoder,
    inputs_of,
    train_autoencoder,
)
from wsflow.models.memory import check_metanetwork
from wsflow.models.metanetworks import metanetwork_of
from wsflow.models.options import MLP, resolved
from wsflow.models.predictor import canonical_form
from wsflow.running.compatibility import check_task
from wsflow.task import Task
from wsflow.training.loop import TrainingInterrupted
from wsflow.training.state import History


class MetaAutoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Compress networks to a few numbers that no symmetry changes, and decode such numbers to networks.

    An encoder reads networks, a decoder writes weights, and the loss compares the functions of both on inputs of the
    task: squared errors of outputs that are numbers, the Kullback-Leibler divergence of predicted classes. So it is a
    canonical form (`reconstruct` gives one network for a whole orbit), a denoiser (with `noise`), a merger (see
    `wsflow.merge` with ``method="latent"``), and the first step of a flow over latents, in
    ``make_pipeline(MetaAutoencoder(...), WeightFlow("euclidean"))``.

    Parameters
    ----------
    n_components : int
        Numbers of a latent.
    metanetwork : {"auto", "probe", "neuron", "relational", "neural_graph", "scale_equivariant", "deep_sets", \
"statistics", "convolutional", "mlp"} or object
        The encoder, as in `MetaRegressor`. "auto" is "probe", which reads what networks do, or "mlp" without an
        architecture.
    decoder : {"mlp"} or MLP
        Width and depth of the decoder.
    task : Task, optional
        What the networks are for: its inputs (never its targets) are where functions are compared, by its loss; learned
        probes begin at some of them. Without one, inputs are drawn from a normal distribution, and outputs are numbers.
    canonicalize : {"auto", "unit", "balanced", None}
        The form to which networks are brought before they are read, as in `MetaRegressor`.
    noise : float
        In training, networks are read with normal noise on their weights, and decoded without it. It is the largest
        standard deviation, in units of each parameter's; that of each network is drawn uniformly below.
    training : {"adamw"} or AdamW
        Batch size, learning rate, share of the runs for validation, and early stopping.
    max_iter : int
        Training steps.
    architecture : Architecture, optional
        Needed where X is not a `WeightArray`. Without one, rows are plain vectors, and their standardized columns are
        compared.
    device : str
        Where it is trained, encodes and decodes: "auto" is the CPU, others have torch's names.
    random_state : int, RandomState or None
    progress : callable, optional
        Called with the training steps done and their number.

    Attributes
    ----------
    model_ : WeightAutoencoder
        The fitted model, in torch alone.
    history_ : History
        Losses by training step.
    n_iter_ : int
    n_networks_, n_runs_ : int
    architecture_ : Architecture or None
    n_features_in_ : int

    References
    ----------
    Boufalis et al. 2025, arXiv:2511.12601.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, MetaAutoencoder, WeightArray
    >>> X = WeightArray(np.random.default_rng(0).normal(size=(80, 23)), Architecture.mlp([4, 3, 2]))
    >>> autoencoder = MetaAutoencoder(6, max_iter=20, random_state=0).fit(X)
    >>> autoencoder.transform(X[:5]).shape, autoencoder.reconstruct(X[:5])
    ((5, 6), <WeightArray: 5 networks 4-3-2 relu (23 weights) of 5 runs>)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "decoder": [StrOptions({"mlp"}), MLP],
        "task": [Task, None],
        "canonicalize": [StrOptions({"auto", "unit", "balanced"}), None],
        "noise": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "architecture": [Architecture, None],
    }

    def __init__(
        self,
        n_components: int = 64,
        *,
        metanetwork: Any = "auto",
        decoder: Any = "mlp",
        task: Task | None = None,
        canonicalize: str | None = "auto",
        noise: float = 0.0,
        training: Any = "adamw",
        max_iter: int = 2000,
        architecture: Architecture | None = None,
        device: str = "auto",
        random_state: Any = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.n_components = n_components
        self.metanetwork = metanetwork
        self.decoder = decoder
        self.task = task
        self.canonicalize = canonicalize
        self.noise = noise
        self.training = training
        self.max_iter = max_iter
        self.architecture = architecture
        self.device = device
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> MetaAutoencoder:
        """Learn to encode and decode networks.

        Parameters
        ----------
        X : WeightArray, Population, list of modules, or array-like of shape (n, d)
        y : None
            Ignored.
        groups : array-like of shape (n,), optional
            The run of each row of a plain array; a `WeightArray` knows its runs. Whole runs are held out.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter has a wrong value or needs an architecture that is not known.
        InvalidInputError
            If weights are not finite, networks do not run or are not those of the task, or the encoder does not read
            them.
        KeyboardInterrupt
            At Ctrl-C; the autoencoder then has the best weights so far.
        """
        self._validate_params()
        device = resolved_device(self.device, type(self).__name__)
        X = as_networks(self, X)
        values = fit_array(self, X, ensure_min_samples=2)
        architecture = modelled(self.architecture_)
        if architecture is None:
            warn_of_plain(self, "compares weights, and knows no symmetry of networks")
        elif self.task is not None:
            check_task(architecture, self.task)
        if self.task is None and self.architecture_ is not None and len(self.architecture_.statistic_columns):
            raise InvalidInputError(
                "Decoded networks get the running statistics of their batch norms from inputs of a task, and this "
                "MetaAutoencoder has none: give it the task that the networks are for."
            )
        generator = torch_generator(self.random_state)
        self._loss = "mse" if self.task is None else self.task.loss
        settings = self._settings()
        inputs = None if architecture is None else inputs_of(self.task, architecture, generator)
        runs = runs_of(X, groups, len(values))
        self.n_networks_, self.n_runs_ = len(values), len(np.unique(runs))
        held_out = held_out_rows(runs, settings.training.validation_fraction, generator)
        rows = weights_alone(values.astype(np.float64), self.architecture_)
        model = build_autoencoder(settings, inputs, generator)
        everything = inputs if self.task is None or inputs is None else viewed(self.task.X)
        self._dtype = values.dtype
        try:
            parts = rows[~held_out], rows[held_out], everything
            history = train_autoencoder(model, *parts, generator, self.progress, device)
        except TrainingInterrupted as stop:
            self._finish(model, stop.history)
            raise
        self._finish(model, history)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the latents (n, n_components) of networks: over those of fit, each number has mean 0 and variance 1.

        Parameters
        ----------
        X : WeightArray or array-like of shape (n, d)

        Raises
        ------
        NumericalError
            If a latent is not finite.
        """
        found: np.ndarray = self._model().encode(self._rows(X)).numpy()
        if not np.isfinite(found).all():
            raise NumericalError("Latents are not finite: the networks are far from those of fit, or fit it again.")
        return found

    def inverse_transform(self, X: Any) -> Any:
        """Return the networks of latents.

        Parameters
        ----------
        X : array-like of shape (n, n_components)

        Returns
        -------
        WeightArray, or ndarray without an architecture, of shape (n, d)
            Their neurons correspond. Running statistics of batch norms are computed on inputs of the task.

        Raises
        ------
        InvalidInputError
            If latents are not finite, or of another size.
        """
        check_is_fitted(self)
        with of_input():
            latents = check_array(X, dtype=np.float64, estimator=self, input_name="X")
        if latents.shape[1] != self._n_features_out:
            raise InvalidInputError(
                f"The latents of this MetaAutoencoder have {self._n_features_out} columns, got {latents.shape[1]}."
            )
        with np.errstate(over="ignore"):
            rows = self._model().decode(tensor(latents)).numpy().astype(self._dtype)
        if not np.isfinite(rows).all():
            raise NumericalError("Decoded weights are not finite: the latents are far from those of networks.")
        return rows if self.architecture_ is None else with_statistics(rows, self.architecture_, self.task)

    def reconstruct(self, X: Any) -> Any:
        """Return the networks that are decoded from the latents of others: one for a whole orbit.

        Parameters
        ----------
        X : WeightArray or array-like of shape (n, d)

        Returns
        -------
        WeightArray, or ndarray without an architecture, of shape (n, d)
            With the runs and steps of X.
        """
        X = as_networks(self, X)
        found = self.inverse_transform(self.transform(X))
        return X.like(found, aligned=True) if hasattr(X, "runs") else found

    def reconstruction_loss(self, X: Any) -> np.ndarray:
        """Return how far the reconstruction of each network is from it as a function: (n,).

        It is the loss of training, on inputs of the task: the mean squared error of outputs, or the divergence of
        predictions in nats.

        Parameters
        ----------
        X : WeightArray or array-like of shape (n, d)
        """
        return self._model().divergence(self._rows(X)).numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """Return minus the mean `reconstruction_loss` of networks; y is ignored."""
        return -float(self.reconstruction_loss(X).mean())

    @property
    def _n_features_out(self) -> int:
        # n_components may be another one by now
        return self.model_.settings.n_latent

    def _model(self) -> WeightAutoencoder:
        """The fitted model, on today's device."""
        check_is_fitted(self)
        return self.model_.to(resolved_device(self.device, type(self).__name__))

    def _rows(self, X: Any) -> Tensor:
        return weights_alone(later_array(self, X).astype(np.float64), self.architecture_)

    def _settings(self) -> AutoencoderSettings:
        name, architecture = type(self).__name__, modelled(self.architecture_)
        automatic = isinstance(self.metanetwork, str) and self.metanetwork == "auto" and architecture is not None
        metanetwork = metanetwork_of("probe" if automatic else self.metanetwork, name, architecture is not None)
        decoder = MLP() if isinstance(self.decoder, str) else self.decoder
        decoder.check()
        n_weights = self.n_features_in_ if architecture is None else architecture.n_weights
        for part in (metanetwork, decoder):
            check_metanetwork(part, n_weights + int(self.n_components))
        return AutoencoderSettings(
            metanetwork,
            architecture,
            n_weights,
            int(self.n_components),
            decoder,
            canonical_form(architecture, metanetwork.encoder, self.canonicalize),
            float(self.noise),
            self._loss,
            resolved("training", self.training, name),
            int(self.max_iter),
        )

    def _finish(self, model: WeightAutoencoder, history: History) -> None:
        # a row is encoded alike in every batch
        self.model_: WeightAutoencoder = model.double()
        self.history_ = history
        self.n_iter_ = history.step[-1] if history.step else 0

    def _get_fitted(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays = {f"model.{name}": value.cpu().numpy() for name, value in self.model_.state_dict().items()}
        history = {name: getattr(self.history_, name) for name in ("step", "train", "validation", "best_step")}
        data = {"histories": [history], "fitted_to": [self.n_networks_, self.n_runs_]}
        return arrays, {**data, "loss": self._loss, "dtype": self._dtype.name, **description(self)}

    def _set_fitted(self, arrays: dict[str, np.ndarray], data: dict[str, Any]) -> None:
        restore_description(self, data)
        self.n_networks_, self.n_runs_ = data["fitted_to"]
        self._loss, self._dtype = data["loss"], np.dtype(data["dtype"])
        state = {name.removeprefix("model."): tensor(a) for name, a in arrays.items() if name.startswith("model.")}
        model = build_autoencoder(self._settings(), state.get("inputs"), torch.Generator().manual_seed(0))
        try:
            model.double().load_state_dict(state)
        except RuntimeError as error:
            raise InvalidInputError(
                f"The arrays of a MetaAutoencoder are not those of its networks: {str(error).splitlines()[0]}"
            ) from error
        self._finish(model.eval().requires_grad_(False), History(**data["histories"][0]))
