"""WeightFlow: the distribution of trained networks, by flow matching on the right manifold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted

from wsflow.architecture import Architecture
from wsflow.estimators import assembly, conditioning, consensus, density, drawing, orbits, sources, widths
from wsflow.estimators.validation import (
    description,
    fit_array,
    later_array,
    restore_description,
    tensor,
    torch_generator,
)
from wsflow.flow.matching import match_predictions
from wsflow.flow.training import History, Objective, TrainingInterrupted, train
from wsflow.task import Task
from wsflow.weights import WeightArray


class WeightFlow(DensityMixin, BaseEstimator):
    """A continuous normalizing flow over the weights of networks, trained by flow matching.

    Parameters
    ----------
    geometry : {"auto", "euclidean", "normalized", "geometric"} or dict
        The manifold: a vector space; a vector space whose samples are projected to unit neurons; or a
        sphere for each neuron with positive scalings and a circle for each phase, times a vector space. "auto" is
        geometric where the architecture is known, and a plain vector space where it is not. A dict names manifolds
        of geomstats for some parameters, see `Geometry.from_manifolds`.
    last_layer : {"euclidean", "polar"}
        Whether the output layer is a vector, or a direction and a log-norm.
    bias : {"inside", "outside"}
        Whether a neuron's sphere includes its bias; as in `ScaleCanonicalizer`.
    velocity : {"auto", "neuron", "relational", "mlp"}
        The network v(x, t); "auto" is "neuron", or "mlp" without an architecture.
    identity : {"learned", None}
        Whether aligned neurons have names (sharper law, fixed width), or the network is equivariant to
        permutations (the law up to relabelling, any hidden width; for few runs of small networks).
    width, depth, heads : int
        Of the velocity network.
    prior : {"auto", "gaussian", "exchangeable", "isotropic", "standard", "initialisation"}
        The source: a Gaussian fitted to the networks (wrapped on spheres), the one that does not tell neurons apart
        (`wsflow.estimators.exchangeable`), an isotropic one of their scale (uniform on spheres) or of scale 1, or
        networks as they look before training. "auto" is "gaussian", or "isotropic" where neurons have no names.
    shrinkage : float
        Of the fitted covariance towards its diagonal.
    initialisation : {"normal", "uniform"}
        For ``prior="initialisation"``.
    coupling : {"independent", "ot", "orbit"}
        How source and target points of a batch are paired: as they come, by optimal transport, or as they come with
        that representative of the target which is nearest to the source, by signs and phases and, where neurons have
        no names, by permutations: transport modulo the symmetries. The law is then known up to them.
    prediction : {"auto", "preconditioned", "x1", "velocity"}
        How the velocity is made and regressed: the drift between equal Gaussians plus the network's output;
        the same with the errors of x_1, which weigh (1 - t)^2; or the network's output alone. "auto" is "velocity"
        where hints show the drift, else "preconditioned".
    time : {"uniform", "beta", "logit_normal"}
        Of the training times; "beta" is Beta(1, 2), "logit_normal" has most of them in the middle. With "x1", which
        weighs late times down already, use "uniform".
    task : Task, optional
        What the networks are for: its inputs (never its targets) define the function metric.
    metric : {"auto", "euclidean", "function"}
        How errors of the velocity are weighed: by their length, or by the change of the network's
        outputs that they cause where the velocity leads (the pull-back metric of the Jacobian there). The minimizer
        is the same; capacity goes where it matters. "auto" is "function" where a task is known.
    metric_weight : float
        Share of the function metric in the loss; the rest is Euclidean.
    metric_inputs : int
        Inputs of the task on which it is measured in each step.
    hints : {"auto", "gradient", None}
        Whether the velocity network sees, beside x_t, gradients of the networks' distance from what the population
        predicts on average on inputs of the task (never its targets): see `wsflow.flow.hints`. It learns what to make
        of them. "auto" is "gradient" where a task is known and the velocity network reads hints.
    hint_inputs : int
        Inputs of the task that hints are measured on; they are drawn once.
    condition : {None, "scalar", "label"}
        What y of `fit` is: nothing, a number for each network (a loss, an accuracy, a hyperparameter), or a label
        (a data set). The flow then learns the law of networks given it, and the law over all.
    condition_dropout : float
        Share of the conditions that are forgotten in training, from which the law over all is learned.
    max_iter, batch_size : int
        Training steps, and networks in each.
    predictive_iter : int
        Further steps, after those, which also bring what samples predict on inputs of the task (never its targets) to
        the law of what the training networks predict: see `wsflow.flow.matching`. For networks of many weights,
        whose samples are worse than they are; a step takes three to four times as long.
    predictive_weight : float
        Of the energy distance of predictions in the loss of these steps.
    learning_rate, weight_decay, ema_decay, clip : float
        Of AdamW with a cosine schedule, gradient clipping and weight averaging.
    dropout : float
        Of what each part of a layer of the velocity network adds, in training.
    validation_fraction : float
        Share of the runs held out; the weights with the lowest loss on them are kept.
    patience : int, optional
        Stop early after so many evaluations (every 50 steps) without a better one.
    solver : {"midpoint", "euler", "rk4", "dopri5"}
        "dopri5" is adaptive: each network takes steps of its own length, in float64.
    solver_steps : int
        Of the solvers with fixed steps.
    rtol, atol : float
        Error of a step of "dopri5", relative to the coordinates of a point and absolute.
    divergence : {"auto", "exact", "hutchinson", "gaussian", "hutch++"}
        For log-densities: exact, or estimated along random signs, along normal numbers, or along signs after the
        largest directions have been taken off. "auto" is exact up to 64 columns, and above it "hutchinson".
    n_probes : int
        Directions of an estimate, drawn from an integer `random_state`. Each costs a backward pass at each stage of
        the solver, and three with "hutch++".
    probes : {"shared", "row"}
        Whether all rows see the same directions, so that their scores compare best, or each its own, so that errors
        average out over rows; these are drawn from what is in the row, so that its score does not depend on its batch.
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
    labels_ : ndarray
        Only with ``condition="label"``: the labels, sorted.

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
        geometry: Any = "auto",
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
        prediction: str = "auto",
        time: str = "logit_normal",
        task: Task | None = None,
        metric: str = "auto",
        metric_weight: float = 0.9,
        metric_inputs: int = 32,
        hints: str | None = "auto",
        hint_inputs: int = 512,
        condition: str | None = None,
        condition_dropout: float = 0.1,
        max_iter: int = 600,
        predictive_iter: int = 0,
        predictive_weight: float = 1.0,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.01,
        ema_decay: float = 0.998,
        clip: float = 1.0,
        dropout: float = 0.0,
        validation_fraction: float = 0.1,
        patience: int | None = None,
        solver: str = "midpoint",
        solver_steps: int = 8,
        rtol: float = 1e-5,
        atol: float = 1e-6,
        divergence: str = "auto",
        n_probes: int = 4,
        probes: str = "shared",
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
        self.hints = hints
        self.hint_inputs = hint_inputs
        self.condition = condition
        self.condition_dropout = condition_dropout
        self.max_iter = max_iter
        self.predictive_iter = predictive_iter
        self.predictive_weight = predictive_weight
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.ema_decay = ema_decay
        self.clip = clip
        self.dropout = dropout
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.solver = solver
        self.solver_steps = solver_steps
        self.rtol = rtol
        self.atol = atol
        self.divergence = divergence
        self.n_probes = n_probes
        self.probes = probes
        self.architecture = architecture
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> WeightFlow:
        """Learn the distribution of the rows.

        Parameters
        ----------
        X : WeightArray or array-like of shape (n, d)
        y : array-like of shape (n,), optional
            The condition of each row; ignored without one.
        groups : array-like of shape (n,), optional
            The run of each row of a plain array; a `WeightArray` knows its runs.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter has a wrong value or needs an architecture that is not known, or conditions are missing.
        InvalidInputError
            If rows do not lie on the geometry's manifold, or conditions are not what they should be.
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
        conditions = conditioning.read_conditions(self, y, len(points))
        known = None if conditions is None else (conditions[~held_out], conditions[held_out])
        self.prior_ = sources.prior_of(self, learned)
        self.consensus_ = consensus.consensus_of(self, learned, generator)
        self.velocity_ = assembly.velocity_field_of(self, generator)
        self.velocity_.fit_scale(learned.float())
        if known is not None:
            self.velocity_.network.fit_condition(known[0])
        settings, metric, nearest = assembly.settings_of(self), assembly.metric_of(self), orbits.nearest_of(self)
        matching = assembly.matching_of(self)
        self._dtype = values.dtype
        first, second = assembly.stages(self.progress, self.max_iter, self.predictive_iter)
        try:
            parts = (metric, points[held_out].float(), first, known, nearest)
            history = train(self.velocity_, learned.float(), settings, generator, *parts)
            if matching is not None:
                objective = Objective(self.velocity_, settings, metric, nearest)
                rows = None if known is None else known[0]
                match_predictions(
                    self.velocity_, learned.float(), objective, *matching, generator, history, second, rows
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
        guidance: Any = None,
        temperature: float = 1.0,
        noise: float = 0.0,
        architecture: Architecture | None = None,
        condition: Any = None,
        condition_scale: float = 1.0,
        return_log_prob: bool = False,
    ) -> Any:
        """Draw new networks.

        Parameters
        ----------
        n_samples : int
        random_state : int, RandomState or None
            With the same one, the first networks of a larger sample are those of a smaller one, bit for bit.
        guidance : Guidance, optional
            Descend a task's loss, or another functional of the networks, on the way; a Task or functional stands for
            a `Guidance` by it.
        temperature : float
            Scales the source around its centre, where it has one: below 1, samples are better and less diverse.
        noise : float
            Strength of stochastic sampling, in `solver_steps` steps whatever the solver; 0 solves the differential
            equation. It needs independent coupling, and on spheres it is approximate.
        architecture : Architecture, optional
            Other hidden widths. A flow with ``identity=None`` samples them itself; one that knows neurons by name makes
            a wider network of several sampled ones (see `wsflow.estimators.widths`).
        condition : float or label, optional
            Of all samples, for a flow with a condition; None samples the law over all.
        condition_scale : float
            Of classifier-free guidance: above 1, the condition is exaggerated.
        return_log_prob : bool
            Whether to return log-densities too. Paths are then followed in float64.

        Returns
        -------
        networks : WeightArray, or ndarray without an architecture, of shape (n_samples, d)
        log_prob : ndarray of shape (n_samples,)
            Only if `return_log_prob`: as `score_samples` of the networks, up to the error of the solver, and at another
            temperature with the density of the source at that temperature.

        Raises
        ------
        ValueError
            If `n_samples` is not positive, or the samples have no log-density that could be returned: those of a flow
            without one, guided and stochastic ones, wider ones of several, and those at temperature 0.
        NumericalError
            If the flow leaves the finite numbers.
        """
        check_is_fitted(self)
        assembly.check_count("n_samples", n_samples)
        drawing.check_request(self, temperature, noise)
        if architecture is not None:
            widths.check_width(self, architecture, return_log_prob)
        wide = architecture if sources.is_named(self) else None
        copies = 1 if wide is None else widths.copies_needed(self, wide)
        flow = self if architecture is None or wide is not None else widths.of_width(self, architecture)
        flow = conditioning.under(flow, condition, condition_scale)
        generator = torch_generator(random_state)
        transport = drawing.plain(flow, drawing.velocity_of(flow), noise)
        if guidance is not None:
            transport = drawing.guided(flow, guidance, noise, generator)
        if return_log_prob:
            drawing.check_rated(flow, guidance is not None, temperature, noise)
            transport = drawing.with_density(flow, temperature)
        points, log_prob = drawing.draw(flow, transport, n_samples * copies, temperature, generator)
        weights = flow.geometry_.to_weights(flow.geometry_.target.projection(points.double()))
        if wide is not None:
            return widths.combined_networks(flow, weights, wide)
        rows = weights.numpy().astype(self._dtype)
        networks = rows if flow.architecture_ is None else WeightArray(rows, flow.architecture_, aligned=True)
        return (networks, log_prob.numpy()) if return_log_prob else networks

    def score_samples(self, X: Any, return_std: bool = False, condition: Any = None) -> Any:
        """Log-density of networks, with respect to the Riemannian volume of their canonical forms.

        Parameters
        ----------
        X : WeightArray or array-like of shape (n, d)
        return_std : bool
            Whether to return standard errors too.
        condition : float or label, optional
            Of all rows, for a flow with a condition; None takes the law over all.

        Returns
        -------
        log_density : ndarray of shape (n,)
            In nats. They compare within one geometry and one preprocessing only.
        standard_error : ndarray of shape (n,)
            Only if `return_std`: of the mean over the probes, from the spread of their own estimates. It is zero with
            the exact divergence, and not a number with a single probe. It has ``n_probes - 1`` degrees of freedom: with
            4 probes 86% of the means lie within two standard errors. Errors of the solver are not in it.

        Raises
        ------
        ValueError
            If there is no density: for the normalized geometry and for a prior that is only drawn from.
        """
        check_is_fitted(self)
        found, error = density.scores(conditioning.under(self, condition, 1.0), X)
        return (found.numpy(), error.numpy()) if return_std else found.numpy()

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

    def _get_fitted(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays = {f"network.{k}": v.numpy() for k, v in self.velocity_.network.state_dict().items()}
        arrays |= {f"prior.{k}": v.numpy() for k, v in self.prior_.arrays().items()}
        arrays["ratio"] = self.velocity_.ratio.numpy()
        history = {name: getattr(self.history_, name) for name in ("step", "train", "validation", "energy")}
        data = {"history": history, "best_step": self.history_.best_step, "dtype": str(self._dtype)}
        if self.consensus_ is not None and self.velocity_.hints is not None:
            agreed = {"inputs": self.consensus_.inputs, "targets": self.consensus_.targets}
            agreed["scale"] = self.velocity_.hints.scale
            arrays |= {f"consensus.{k}": v.numpy() for k, v in agreed.items()}
            data["is_classification"] = self.consensus_.is_classification
        if self.condition == "label":
            data["labels"] = self.labels_.tolist()
        return arrays, {**data, **description(self)}

    def _set_fitted(self, arrays: dict[str, np.ndarray], data: dict[str, Any]) -> None:
        restore_description(self, data)
        if self.condition == "label":
            self.labels_ = np.array(data["labels"])
        self.geometry_ = assembly.geometry_of(self)
        prior = {k.removeprefix("prior."): tensor(v) for k, v in arrays.items() if k.startswith("prior.")}
        self.prior_ = sources.restored_prior(self, prior)
        agreed = {k.removeprefix("consensus."): tensor(v) for k, v in arrays.items() if k.startswith("consensus.")}
        scale = agreed.pop("scale", None)
        self.consensus_ = consensus.restored_consensus(self, agreed, data.get("is_classification", True))
        self.velocity_ = assembly.velocity_field_of(self, torch.Generator())
        if scale is not None and self.velocity_.hints is not None:
            self.velocity_.hints.scale.copy_(scale)
        network = {k.removeprefix("network."): tensor(v) for k, v in arrays.items() if k.startswith("network.")}
        self.velocity_.network.load_state_dict(network)
        self.velocity_.ratio.copy_(tensor(arrays["ratio"]))
        self._finish(History(**data["history"], best_step=data["best_step"]))
        self._dtype = np.dtype(data["dtype"])
