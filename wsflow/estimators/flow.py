"""WeightFlow: the distribution of trained networks, by flow matching on the right manifold."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.estimators import assembly
from wsflow.estimators.function import Guidance, task_loss
from wsflow.estimators.validation import (
    description,
    fit_array,
    later_array,
    restore_description,
    tensor,
    torch_generator,
)
from wsflow.flow.guidance import guided
from wsflow.flow.likelihood import log_density
from wsflow.flow.priors import Drawn, Isotropic, WrappedGaussian
from wsflow.flow.solvers import Field, integrate, integrate_stochastic
from wsflow.flow.training import History, TrainingInterrupted, VelocityField, train
from wsflow.task import Task, check_task
from wsflow.weights import WeightArray


class WeightFlow(DensityMixin, BaseEstimator):
    """A continuous normalizing flow over the weights of networks, trained by flow matching.

    Parameters
    ----------
    geometry : {"auto", "euclidean", "normalized", "geometric"}
        The manifold: a vector space; a vector space whose samples are projected to unit neurons; or a
        sphere for each neuron with positive scalings, times a vector space. "auto" is geometric
        where the architecture is known, and a plain vector space where it is not.
    last_layer : {"euclidean", "polar"}
        Whether the output layer is a vector, or a direction and a log-norm.
    bias : {"inside", "outside"}
        Whether a neuron's sphere includes its bias; as in `ScaleCanonicalizer`.
    velocity : {"auto", "neuron", "relational", "mlp"}
        The network v(x, t); "auto" is "neuron", or "mlp" without an architecture.
    identity : {"learned", None}
        Whether aligned neurons have names (sharper law, fixed width), or the network is equivariant to
        permutations (the law up to relabelling, any hidden width).
    width, depth, heads : int
        Of the velocity network.
    prior : {"auto", "gaussian", "isotropic", "initialisation"}
        The source: a Gaussian fitted to the networks (wrapped on spheres), an isotropic one (uniform on
        spheres), or networks as they look before training. "auto" is "gaussian", or "isotropic"
        where neurons have no names.
    shrinkage : float
        Of the fitted covariance towards its diagonal.
    initialisation : {"normal", "uniform"}
        For ``prior="initialisation"``.
    coupling : {"independent", "ot"}
        How source and target points of a batch are paired: as they come, or by optimal transport.
    prediction : {"preconditioned", "x1", "velocity"}
        How the velocity is made and regressed: the drift between equal Gaussians plus the network's output;
        the same with the errors of x_1, which weigh (1 - t)^2; or the network's output alone.
    time : {"uniform", "beta"}
        Of the training times; "beta" is Beta(1, 2). With "x1", which weighs late times down already, use "uniform".
    task : Task, optional
        What the networks are for: its inputs (never its targets) define the function metric.
    metric : {"auto", "euclidean", "function"}
        How errors of the velocity are weighed: by their length, or by the change of the network's
        outputs that they cause at x_t (the pull-back metric of x_t's own Jacobian). The minimizer is the
        same; capacity goes where it matters. "auto" is "function" where a task is known.
    metric_weight : float
        Share of the function metric in the loss; the rest is Euclidean.
    metric_inputs : int
        Inputs of the task on which it is measured in each step.
    max_iter, batch_size : int
        Training steps, and networks in each.
    learning_rate, weight_decay, ema_decay, clip : float
        Of AdamW with a cosine schedule, gradient clipping and weight averaging.
    validation_fraction : float
        Share of the runs held out; the weights with the lowest loss on them are kept.
    patience : int, optional
        Stop early after so many evaluations (every 50 steps) without a better one.
    solver : {"midpoint", "euler", "rk4"}
    solver_steps : int
    divergence : {"auto", "exact", "hutchinson"}
        For log-densities; "auto" is exact up to 64 columns.
    n_probes : int
        Of Hutchinson's estimate; drawn from an integer `random_state` and shared by all rows, so that their
        scores compare and a row's score does not depend on its batch.
    architecture : Architecture, optional
        Needed where X is not a `WeightArray`.
    random_state : int, RandomState or None
    progress : callable, optional
        Called with the training steps done and their number.

    Attributes
    ----------
    geometry_ : Geometry
    manifold_ : geomstats ProductManifold
        For Frechet means, tangent PCA and the like; `to_manifold` gives its points.
    velocity_ : VelocityField
    prior_ : Prior
    history_ : History
        Losses by training step.
    n_iter_ : int
    architecture_ : Architecture or None
    n_features_in_ : int

    References
    ----------
    Erdogan 2025, "Geometric Flow Models over Neural Network Weights"; Lipman et al. 2023,
    arXiv:2210.02747; Chen and Lipman 2024, arXiv:2302.03660.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import WeightFlow
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> flow = WeightFlow(max_iter=50, random_state=0).fit(X)
    >>> flow.sample(5, random_state=0).shape, flow.score_samples(X[:3]).shape
    ((5, 2), (3,))
    """

    def __init__(
        self,
        geometry: str = "auto",
        *,
        last_layer: str = "euclidean",
        bias: str = "inside",
        velocity: str = "auto",
        identity: str | None = "learned",
        width: int = 64,
        depth: int = 3,
        heads: int = 4,
        prior: str = "auto",
        shrinkage: float = 0.1,
        initialisation: str = "normal",
        coupling: str = "independent",
        prediction: str = "preconditioned",
        time: str = "uniform",
        task: Task | None = None,
        metric: str = "auto",
        metric_weight: float = 0.9,
        metric_inputs: int = 32,
        max_iter: int = 1000,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.01,
        ema_decay: float = 0.998,
        clip: float = 1.0,
        validation_fraction: float = 0.1,
        patience: int | None = None,
        solver: str = "midpoint",
        solver_steps: int = 16,
        divergence: str = "auto",
        n_probes: int = 2,
        architecture: Architecture | None = None,
        random_state: Any = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.geometry = geometry
        self.last_layer = last_layer
        self.bias = bias
        self.velocity = velocity
        self.identity = identity
        self.width = width
        self.depth = depth
        self.heads = heads
        self.prior = prior
        self.shrinkage = shrinkage
        self.initialisation = initialisation
        self.coupling = coupling
        self.prediction = prediction
        self.time = time
        self.task = task
        self.metric = metric
        self.metric_weight = metric_weight
        self.metric_inputs = metric_inputs
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.ema_decay = ema_decay
        self.clip = clip
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.solver = solver
        self.solver_steps = solver_steps
        self.divergence = divergence
        self.n_probes = n_probes
        self.architecture = architecture
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> WeightFlow:
        """Learn the distribution of the rows.

        Parameters
        ----------
        X : WeightArray or array-like of shape (n, d)
        y : ignored
        groups : array-like of shape (n,), optional
            The run of each row of a plain array; a `WeightArray` knows its runs.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter has a wrong value or needs an architecture that is not known.
        InvalidInputError
            If rows do not lie on the geometry's manifold.
        KeyboardInterrupt
            At Ctrl-C; the flow then has the best weights so far, and samples if `n_iter_` is not 0.
        """
        assembly.check_parameters(self)
        values = fit_array(self, X, ensure_min_samples=2)
        self.geometry_ = assembly.geometry_of(self)
        weights = tensor(values).double()
        self.geometry_.check(weights, atol=1e-4)
        generator = torch_generator(self.random_state)
        points = self.geometry_.to_points(weights)
        held_out = assembly.held_out_rows(X, groups, len(points), self.validation_fraction, generator)
        learned = points[~held_out]
        self.prior_ = assembly.prior_of(self, learned)
        self.velocity_ = assembly.velocity_field_of(self, generator)
        self.velocity_.fit_scale(learned.float())
        settings, metric = assembly.settings_of(self), assembly.metric_of(self)
        self._dtype = values.dtype
        try:
            history = train(
                self.velocity_, learned.float(), settings, generator, metric, points[held_out].float(), self.progress
            )
        except TrainingInterrupted as stop:
            self._finish(stop.history)
            raise
        self._finish(history)
        return self

    def _finish(self, history: History) -> None:
        self.velocity_.eval().requires_grad_(False)
        self.history_ = history
        self.n_iter_ = history.step[-1] if history.step else 0

    def sample(
        self,
        n_samples: int = 1,
        random_state: Any = None,
        *,
        guidance: Guidance | Task | None = None,
        temperature: float = 1.0,
        noise: float = 0.0,
        architecture: Architecture | None = None,
    ) -> Any:
        """Draw new networks.

        Parameters
        ----------
        n_samples : int
        random_state : int, RandomState or None
        guidance : Guidance or Task, optional
            Descend a task's loss on the way.
        temperature : float
            Scales the source around its centre, where it has one: below 1, samples are better and less diverse.
        noise : float
            Strength of stochastic sampling, by Euler-Maruyama in `solver_steps` steps whatever the solver; 0
            solves the differential equation. It needs independent coupling, and on spheres it is approximate.
        architecture : Architecture, optional
            Other hidden widths, for a flow with ``identity=None``.

        Returns
        -------
        WeightArray, or ndarray without an architecture, of shape (n_samples, d)

        Raises
        ------
        ValueError
            If `n_samples` is not positive.
        NumericalError
            If the flow leaves the finite numbers.
        """
        check_is_fitted(self)
        if noise > 0 and self.coupling != "independent":
            raise ValueError("Stochastic sampling needs the score of coupling='independent'. Use noise=0.")
        assembly.check_count("n_samples", n_samples)
        if min(temperature, noise) < 0:
            raise ValueError(f"'temperature' and 'noise' are not negative, got {temperature} and {noise}.")
        flow = self if architecture is None else self._for_width(architecture)
        generator = torch_generator(random_state)
        source = flow._source(n_samples, temperature, generator)
        field: Field = flow.velocity_
        if guidance is not None:
            if flow.architecture_ is None:
                raise ValueError("Guidance runs the networks, so it needs an architecture: fit a WeightArray.")
            if isinstance(guidance, Task):
                guidance = Guidance(guidance)
            check_task(flow.architecture_, guidance.task)
            loss = task_loss(guidance.task, flow.architecture_, flow.geometry_)
            field = guided(field, loss, flow.geometry_.manifold, guidance.strength, guidance.clip)
        points = assembly.in_chunks(functools.partial(flow._transport, field, noise, generator), source.float())
        weights = flow.geometry_.to_weights(flow.geometry_.target.projection(points.double()))
        rows = weights.numpy().astype(self._dtype)
        return rows if flow.architecture_ is None else WeightArray(rows, flow.architecture_, aligned=True)

    def score_samples(self, X: Any) -> np.ndarray:
        """Log-density of networks, with respect to the Riemannian volume of their canonical forms.

        Parameters
        ----------
        X : WeightArray or array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n,)
            In nats. They compare within one geometry and one preprocessing only.

        Raises
        ------
        ValueError
            If there is no density: for the normalized geometry and for a prior that is only drawn from.
        """
        check_is_fitted(self)
        if not self.geometry_.has_density:
            raise ValueError(
                "The normalized geometry has no density: its networks lie on spheres, which have no volume in the "
                "space in which it flows. Use geometry='geometric' or 'euclidean'."
            )
        if isinstance(self.prior_, Drawn):
            raise ValueError("prior='initialisation' has no density. Use prior='gaussian' or 'isotropic'.")
        weights = tensor(later_array(self, X)).double()
        self.geometry_.check(weights, atol=1e-4)
        field = copy.deepcopy(self.velocity_).double()
        points = self.geometry_.to_points(weights)
        probes = assembly.probes_of(self)
        manifold = self.geometry_.manifold

        def density(chunk: Tensor) -> Tensor:
            return log_density(field, chunk, manifold, self.prior_, probes, self.solver, self.solver_steps)

        return assembly.in_chunks(density, points).numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-density of networks.

        Parameters
        ----------
        X : WeightArray or array-like of shape (n, d)
        y : ignored

        Returns
        -------
        float
        """
        return float(self.score_samples(X).mean())

    @property
    def manifold_(self) -> Any:
        """The flow's manifold as a geomstats ProductManifold."""
        return self.geometry_.manifold.geomstats()

    def to_manifold(self, X: Any) -> np.ndarray:
        """Networks as points of `manifold_`.

        Parameters
        ----------
        X : WeightArray or array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n, ambient size)
        """
        check_is_fitted(self)
        points = self.geometry_.to_points(tensor(later_array(self, X)).double())
        return points[:, self.geometry_.manifold.order].numpy()

    def _source(self, n: int, temperature: float, generator: torch.Generator) -> Tensor:
        """Points of the prior, moved along geodesics to or from its centre by the temperature."""
        x = self.prior_.sample(n, generator)
        if temperature == 1.0:
            return x
        return self.geometry_.manifold.exp(x, (1 - temperature) * self.prior_.to_centre(x))

    def _transport(self, field: Any, noise: float, generator: torch.Generator, x: Tensor) -> Tensor:
        manifold = self.geometry_.manifold
        if noise > 0:
            return integrate_stochastic(field, x, manifold, self.prior_, noise, generator, self.solver_steps)
        return integrate(lambda p, t: (field(p, t), None), x, manifold, self.solver, self.solver_steps)[0]

    def _for_width(self, architecture: Architecture) -> WeightFlow:
        """This flow for networks of another hidden width."""
        if self.architecture_ is None or self.identity is not None or not hasattr(self.velocity_.network, "bind"):
            raise ValueError(
                "Only a flow with identity=None and velocity='neuron' or 'relational' samples networks of another "
                "width."
            )
        if not assembly.same_but_for_widths(architecture, self.architecture_):
            raise ValueError(f"Another width means the same layers: {self.architecture_} against {architecture}.")
        other = copy.copy(self)
        other.architecture_ = architecture
        other.geometry_ = assembly.geometry_of(other)
        other.n_features_in_ = architecture.n_weights
        network = copy.deepcopy(self.velocity_.network)
        network.bind(architecture, other.geometry_.manifold.size - architecture.n_weights)
        other.prior_ = assembly.prior_of_width(other, self)
        other.velocity_ = VelocityField(network, other.geometry_.manifold, other.prior_, self.prediction).eval()
        return other

    def _get_fitted(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays = {f"network.{k}": v.numpy() for k, v in self.velocity_.network.state_dict().items()}
        for name in ("mean", "factor", "scale"):
            if hasattr(self.prior_, name):
                arrays[f"prior.{name}"] = getattr(self.prior_, name).numpy()
        history = {"step": self.history_.step, "train": self.history_.train, "validation": self.history_.validation}
        data = {"history": history, "best_step": self.history_.best_step, "dtype": str(self._dtype)}
        return arrays, {**data, **description(self)}

    def _set_fitted(self, arrays: dict[str, np.ndarray], data: dict[str, Any]) -> None:
        restore_description(self, data)
        self.geometry_ = assembly.geometry_of(self)
        prior = {k.removeprefix("prior."): tensor(v) for k, v in arrays.items() if k.startswith("prior.")}
        manifold = self.geometry_.manifold
        if "factor" in prior:
            self.prior_ = WrappedGaussian(manifold, prior["mean"], prior["factor"])
        elif "scale" in prior:
            self.prior_ = Isotropic(manifold, prior["scale"])
        else:
            self.prior_ = assembly.prior_of(self, torch.empty(0))
        self.velocity_ = assembly.velocity_field_of(self, torch.Generator())
        network = {k.removeprefix("network."): tensor(v) for k, v in arrays.items() if k.startswith("network.")}
        self.velocity_.network.load_state_dict(network)
        self._finish(History(**data["history"], best_step=data["best_step"]))
        self._dtype = np.dtype(data["dtype"])
