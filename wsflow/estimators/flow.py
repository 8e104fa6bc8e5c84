"""WeightFlow: the distribution of trained networks, by flow matching on the right manifold."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted, check_scalar
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.devices import resolved_device
from wsflow.estimators.checkpoints import FitCheckpoint
from wsflow.estimators.conditions import condition_value, read_conditions
from wsflow.estimators.fitted_flow import FittedFlow
from wsflow.estimators.flow_state import restored, state_of
from wsflow.estimators.inputs import as_networks, warn_of_few, warn_of_plain, warn_of_unequal_spreads
from wsflow.estimators.sampling import check_path
from wsflow.estimators.statistics import check_statistics, guided_task, modelled, weights_alone, with_statistics
from wsflow.estimators.validation import (
    fit_array,
    held_out_rows,
    restore_description,
    runs_of,
    torch_generator,
    viewed,
)
from wsflow.exceptions import NumericalError
from wsflow.geometry import Geometry
from wsflow.mapped import chunks, empty_like, thinned
from wsflow.models.flow_training import FlowHistory, take_over, train_weight_flow
from wsflow.models.memory import check_flow, check_gradients, check_samples
from wsflow.models.options import DEFAULTS, resolved
from wsflow.models.settings import FlowSettings, settings_of
from wsflow.models.weight_flow import WeightFlowModel, build_weight_flow
from wsflow.parallel import jobs
from wsflow.running.compatibility import warn_of_classes
from wsflow.running.without_statistics import without_statistics
from wsflow.task import Task
from wsflow.training.distributed import current_processes
from wsflow.training.loop import TrainingInterrupted

# networks that are in double precision at once, beside their points
ROWS = 64
# held-out networks on which the loss is evaluated at once, every 50 steps: they are in memory
VALIDATED = 1024


class WeightFlow(FittedFlow, DensityMixin, BaseEstimator):
    """A continuous normalizing flow over the weights of networks, trained by flow matching.

    A string stands for an object of `wsflow.models.options` with its defaults: ``WeightFlow(velocity="neuron")`` is
    ``WeightFlow(velocity=NeuronTransformer())``, and ``velocity=NeuronTransformer(width=128)`` changes one of them.

    Parameters
    ----------
    geometry : {"auto", "euclidean", "normalized", "geometric"}, dict or NetworkGeometry
        The manifold. "auto" is geometric where the architecture is known; where it is not, rows are plain vectors, and
        "auto" is "euclidean". A dict names manifolds of geomstats for some parameters.
    velocity : {"auto", "neuron", "relational", "mlp"}, NeuronTransformer, RelationalTransformer or MLP
        The network v(x, t); "auto" is "neuron", or "mlp" without an architecture.
    source : {"auto", "gaussian", "exchangeable", "isotropic", "standard", "initialisation"} or an object
        The distribution at t = 0: a `GaussianSource`, `ExchangeableSource`, `IsotropicSource` or `InitialSource`.
        "auto" is "gaussian", or "isotropic" where neurons have no names.
    coupling : {"independent", "ot", "orbit"}
        How source and target points of a batch are paired: as they come, by optimal transport, or as they come with
        that representative of the target which is nearest to the source, by signs and phases and, where neurons have
        no names, by permutations: transport modulo the symmetries. The law is then known up to them.
    task : Task, optional
        What the networks are for: its inputs (never its targets) define metric, hints and energy.
    metric : {"auto", "euclidean", "function"}
        How errors of the velocity are weighed: by their length, or by the change of the networks' outputs that they
        cause where the velocity leads. The minimizer is the same; the metric decides which errors a network of limited
        capacity makes smallest. "auto" is "function" where a task is known.
    hints : {"auto", "gradient", None} or ConsensusHints
        Whether the velocity network sees, beside x_t, gradients of the networks' distance from what the population
        predicts on average on inputs of the task: see `wsflow.flow.hints`. It learns how to use them. "auto" is
        "gradient" where a task is known and the velocity network reads hints.
    energy : {None, "predictions"} or EnergyMatching
        Whether further training matches the law of the samples' predictions on inputs of the task to that of the
        networks' predictions; for networks of many weights.
    condition : {None, "scalar", "label"}, ScalarCondition or LabelCondition
        What y of `fit` is: nothing, a number for each network (a loss, an accuracy, a hyperparameter), or a label
        (a data set). The flow then learns the law of networks given it, and the law over all.
    training : {"adamw"} or AdamW
        Batch size, learning rate, share of the runs for validation, and early stopping.
    solver : {"midpoint", "euler", "rk4", "dopri5"}, RungeKutta or DormandPrince
        "dopri5" is adaptive: each network takes steps of its own length, in float64.
    density : {"auto", "exact", "hutchinson", "gaussian", "hutch++"} or TraceEstimator
        How divergences are taken for log-densities; probes are drawn from an integer `random_state`.
    max_iter : int
        Training steps.
    architecture : Architecture, optional
        Needed where X is not a `WeightArray`.
    device : str
        Where the velocity network is trained, sampled and scored, such as "cuda"; "auto" is the CPU, and what precedes
        it is on the CPU. Random numbers are drawn there too, so that they are the same everywhere.
    random_state : int, RandomState or None
    progress : callable, optional
        Called with the training steps done and their number.
    checkpoint : str or Path, optional
        A folder in which `fit` puts its state away, and from which it takes it up again after it was interrupted or
        killed: it ends with the same numbers. With other data or settings it says what differs, and does nothing.
    checkpoint_every : int
        Training steps between states.
    warm_start : bool
        Whether `fit` begins with the velocity network of the last `fit`, whose sizes must be the same.
    n_jobs : int, optional
        Processes that sample and score, by blocks of networks: joblib's (default: those of
        ``joblib.parallel_config``, if any). Numbers do not depend on them.

    Attributes
    ----------
    model_ : WeightFlowModel
        The fitted model, in torch alone.
    geometry_ : Geometry
    manifold_ : geomstats ProductManifold
        For Frechet means, tangent PCA and the like; `to_manifold` gives its points.
    velocity_ : VelocityField
    source_ : Source
    history_ : FlowHistory
        Losses by training step.
    n_iter_ : int
    n_networks_, n_runs_ : int or None
        To how many networks, of how many runs, it was fitted; None where a file does not say it.
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
    >>> flow = WeightFlow("euclidean", max_iter=50, random_state=0).fit(X)
    >>> flow.sample(5, random_state=0).shape, flow.score_samples(X[:3]).shape
    ((5, 2), (3,))
    """

    def __init__(
        self,
        geometry: Any = "auto",
        *,
        velocity: Any = "auto",
        source: Any = "auto",
        coupling: str = "independent",
        task: Task | None = None,
        metric: Any = "auto",
        hints: Any = "auto",
        energy: Any = None,
        condition: Any = None,
        training: Any = "adamw",
        solver: Any = "midpoint",
        density: Any = "auto",
        max_iter: int = 600,
        architecture: Architecture | None = None,
        device: str = "auto",
        random_state: Any = None,
        progress: Callable[[int, int], None] | None = None,
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 100,
        warm_start: bool = False,
        n_jobs: int | None = None,
    ) -> None:
        self.geometry = geometry
        self.velocity = velocity
        self.source = source
        self.coupling = coupling
        self.task = task
        self.metric = metric
        self.hints = hints
        self.energy = energy
        self.condition = condition
        self.training = training
        self.solver = solver
        self.density = density
        self.max_iter = max_iter
        self.architecture = architecture
        self.device = device
        self.random_state = random_state
        self.progress = progress
        self.checkpoint = checkpoint
        self.checkpoint_every = checkpoint_every
        self.warm_start = warm_start
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> WeightFlow:
        """Learn the distribution of the rows.

        Parameters
        ----------
        X : WeightArray, Population, list of modules, or array-like of shape (n, d)
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
        device = resolved_device(self.device, "WeightFlow")
        X = as_networks(self, X)
        values = fit_array(self, X, ensure_min_samples=2)
        if self.task is not None and self.architecture_ is not None:
            warn_of_classes(self.architecture_, self.task)
        settings = self._settings()
        check_gradients(settings, modelled(self.architecture_), len(values))
        if settings.geometry is None:
            warn_of_plain(self, "learns plain vectors, without symmetries (geometry='euclidean' says that they are)")
        weights = weights_alone(values, self.architecture_)
        geometry = settings.geometry_for(modelled(self.architecture_), weights.shape[1], weights)
        generator = torch_generator(self.random_state)
        before = self.model_.velocity if self.warm_start and hasattr(self, "model_") else None
        runs = runs_of(X, groups, len(values))
        data = {"networks": values, "runs": runs, "start": before}
        data["conditions"] = None if settings.condition is None else y
        processes = current_processes()
        checkpoint = processes.on_first(lambda: self._checkpoint(settings, data, generator))
        processes.synchronize(generator)
        self.n_networks_, self.n_runs_ = len(values), len(np.unique(runs))
        warn_of_few(self, self.n_networks_, self.n_runs_)
        held_out = held_out_rows(runs, settings.training.validation_fraction, generator)
        rows = (~held_out).nonzero()[:, 0], _validated(held_out.nonzero()[:, 0], weights.shape[1])
        points, validation = (self._points(values, weights, geometry, chosen) for chosen in rows)
        conditions, labels = read_conditions(settings.condition, y, len(values))
        n_labels = 0 if labels is None else len(labels)
        model = build_weight_flow(settings, geometry, points, generator, n_labels)
        if model.flow.source.units is None:
            warn_of_unequal_spreads(geometry, thinned(points))
        if before is not None:
            take_over(model.velocity, before)
        model = model.to(device)
        known = None if conditions is None else (conditions[rows[0]], conditions[rows[1]])
        try:
            history = train_weight_flow(model, points, validation, generator, known, self.progress, checkpoint)
        except TrainingInterrupted as stop:
            self._finish(model, stop.history, labels, values.dtype)
            raise
        self._finish(model, history, labels, values.dtype)
        return self

    def _points(self, values: np.ndarray, weights: Tensor, geometry: Geometry, rows: Tensor) -> Tensor:
        """The points (m, size) of some of the networks, mapped where these are."""
        points = empty_like(values, (len(rows), geometry.manifold.size), np.float64)
        for part in range(0, len(rows), ROWS):
            chosen = rows[part : part + ROWS]
            points[part : part + ROWS] = geometry.to_points(weights[chosen].double()).numpy()
        return viewed(points)

    def _settings(self, prediction: str | None = None) -> FlowSettings:
        parameters = {name: getattr(self, name) for name in DEFAULTS}
        architecture = modelled(self.architecture_)
        settings = settings_of(architecture, prediction=prediction, **parameters)
        check_flow(settings, architecture, self.n_features_in_)
        return settings

    def _checkpoint(
        self, settings: FlowSettings, data: dict[str, Any], generator: torch.Generator
    ) -> tuple[FitCheckpoint, int] | None:
        if self.checkpoint is None:
            return None
        check_scalar(self.checkpoint_every, "checkpoint_every", Integral, min_val=1)
        found = FitCheckpoint.begin(self.checkpoint, settings, self.architecture_, data, self.random_state, generator)
        return found, int(self.checkpoint_every)

    def _finish(self, model: WeightFlowModel, history: Any, labels: np.ndarray | None, dtype: Any) -> None:
        self.model_: WeightFlowModel = model
        self.history_: FlowHistory = history
        self.n_iter_ = history.step[-1] if history.step else 0
        self._dtype = np.dtype(dtype)
        if labels is not None:
            self.labels_ = labels

    def _model(self, condition: Any = None, scale: float = 1.0) -> WeightFlowModel:
        """The fitted model, with today's solver and density, under a condition where there is one."""
        check_is_fitted(self)
        solver, density = resolved("solver", self.solver), resolved("density", self.density)
        seed = int(self.random_state) if isinstance(self.random_state, Integral) else 0
        self.model_ = self.model_.to(resolved_device(self.device, "WeightFlow"))
        model = self.model_.following(solver, density, seed)
        if condition is None:
            return model
        value = condition_value(model.settings.condition, getattr(self, "labels_", None), condition)
        return model.given(value, scale)

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
        task: Task | None = None,
        return_log_prob: bool = False,
    ) -> Any:
        """Draw new networks.

        A flow models weights. The running statistics of networks with batch norms are computed anew, as means over
        batches of about 512, on inputs of a task: 2,048 at most, evenly spaced.

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
            Strength of stochastic sampling, in the solver's fixed steps; 0 solves the differential equation. It needs
            independent coupling, and on spheres it is approximate.
        architecture : Architecture, optional
            Other hidden widths. A flow with ``identity=None`` samples them itself; one that knows neurons by name makes
            a wider network of several sampled ones (see `wsflow.models.widths`).
        condition : float or label, optional
            Of all samples, for a flow with a condition; None samples the law over all.
        condition_scale : float
            Of classifier-free guidance: above 1, the condition is exaggerated.
        task : Task, optional
            On whose inputs running statistics are computed (default: that of the guidance, or else the flow's own).
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
        InvalidInputError
            If the networks have running statistics, and no task is known.
        NumericalError
            If the flow leaves the finite numbers.
        """
        check_scalar(n_samples, "n_samples", Integral, min_val=1)
        model = self._model(condition, condition_scale)
        model = model if architecture is None else model.at_width(without_statistics(architecture))
        task = task or guided_task(guidance) or self.task
        check_statistics(self.architecture_, task)
        wide = 0 if architecture is None else architecture.n_weights
        check_samples(int(n_samples), max(self.n_features_in_, wide))
        generator = torch_generator(random_state)
        if not return_log_prob:
            options = {"temperature": temperature, "noise": noise, "guidance": guidance}
            with jobs(self.n_jobs):
                weights = model.sample(int(n_samples), generator, **options)
            return self._networks(weights, architecture, task)
        check_path(guidance, noise)
        with jobs(self.n_jobs):
            weights, log_prob = model.sample_with_log_prob(int(n_samples), generator, temperature=temperature)
        return self._networks(weights, architecture, task), log_prob.numpy()

    def _networks(self, weights: Tensor, architecture: Architecture | None, task: Task | None) -> Any:
        with np.errstate(over="ignore"):
            rows, own = weights.numpy().astype(self._dtype), architecture or self.architecture_
        if not np.isfinite(rows).all():
            raise NumericalError(
                f"Samples are beyond the range of {rows.dtype}: rescale the data, or pass them as float64."
            )
        return rows if own is None else with_statistics(rows, own, task)

    def set_params(self, **params: Any) -> WeightFlow:
        """Set parameters, and note where the geometry is another one, whose scores do not compare."""
        before = repr(self.geometry)
        super().set_params(**params)
        if repr(self.geometry) != before:
            self._other_geometry = True
        return self

    def _get_fitted(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return state_of(self)

    def _set_fitted(self, arrays: dict[str, np.ndarray], data: dict[str, Any]) -> None:
        restore_description(self, data)
        labels = np.array(data["labels"]) if "labels" in data else None
        model, history = restored(self._settings(data["prediction"]), modelled(self.architecture_), arrays, data)
        self._finish(model, history, labels, data["dtype"])
        # files of 0.1 do not say it
        self.n_networks_, self.n_runs_ = data.get("fitted_to", (None, None))


def _validated(held_out: Tensor, size: int) -> Tensor:
    """Every k-th of the rows (n,) that are held out, so that they are no more than `VALIDATED`, and than a chunk."""
    most = min((VALIDATED, *(part.stop for part in chunks(len(held_out), size))))
    return held_out[:: max(1, -(-len(held_out) // most))]
