"""What a fitted WeightFlow tells: log-densities, its manifold, and its parts."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted, check_scalar

from wsflow.estimators.inputs import warn
from wsflow.estimators.statistics import weights_alone
from wsflow.estimators.validation import later_array, torch_generator
from wsflow.exceptions import IncomparableScoresWarning
from wsflow.flow.sources import Source
from wsflow.flow.velocity import VelocityField
from wsflow.geometry import Geometry
from wsflow.mapped import chunks, empty_like
from wsflow.models.weight_flow import WeightFlowModel
from wsflow.parallel import jobs


class FittedFlow:
    """Log-densities and parts of the fitted `model_` of an estimator, which has the rest of its interface."""

    model_: WeightFlowModel
    architecture_: Any
    geometry: Any
    n_jobs: int | None

    def _model(self, condition: Any = None, scale: float = 1.0) -> WeightFlowModel:
        raise NotImplementedError

    def score_samples(self, X: Any, return_std: bool = False, condition: Any = None) -> Any:
        """Compute the log-density of networks, with respect to the Riemannian volume of their canonical forms.

        A row's score depends on the other rows by rounding only, because matrix kernels treat a row differently by its
        place. Velocities are in double precision where divergences are exact, and in single precision, as those of
        samples are, where they are estimated; sums are in double precision. With an adaptive solver rounding may decide
        whether a step is accepted, and then scores differ by the solver's tolerances. What is equal in all networks of
        `fit` is no dimension: the density is that of the others, and zero, with a score of minus infinity, for networks
        that differ in it. Running statistics have no part in it.

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
            If there is no density: for the normalized geometry and for a source that is only drawn from.
        """
        rows = weights_alone(later_array(self, X), self.architecture_)
        with jobs(self.n_jobs):
            found, error = self._model(condition).log_prob_and_error(rows)
        return (found.numpy(), error.numpy()) if return_std else found.numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """Compute the mean log-density of networks; y is ignored.

        Scores of other geometries, or behind other preprocessing, are with respect to other volumes and do not compare:
        a search over these takes a `wsflow.EnergyScorer` as its `scoring`. Where `set_params` has changed the
        geometry, as a search does, an ``IncomparableScoresWarning`` says so.
        """
        if getattr(self, "_other_geometry", False):
            warn(
                "Log-densities of flows in different geometries are with respect to different volumes, so their order "
                "means nothing, and the geometry of this flow was set by set_params, as a search over geometries does. "
                "Search with scoring=wsflow.EnergyScorer(task), which compares samples.",
                IncomparableScoresWarning,
            )
        return float(self.score_samples(X).mean())

    def trajectories(
        self,
        n_samples: int = 1,
        random_state: Any = None,
        *,
        temperature: float = 1.0,
        condition: Any = None,
        condition_scale: float = 1.0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Follow samples from the source to the networks that `sample` draws with the same `random_state`.

        Parameters
        ----------
        n_samples : int
        random_state : int, RandomState or None
        temperature, condition, condition_scale
            As of `sample`.

        Returns
        -------
        times : ndarray of shape (k,)
            From 0, the source, to 1: those between the solver's steps, or evenly spaced ones of an adaptive solver.
        points : ndarray of shape (k, n_samples, ambient size)
            Of `manifold_`, as `to_manifold` gives them.

        Raises
        ------
        NumericalError
            If the flow leaves the finite numbers.
        """
        check_scalar(n_samples, "n_samples", Integral, min_val=1)
        flow = self._model(condition, condition_scale).flow
        generator = torch_generator(random_state)
        with jobs(self.n_jobs):
            times, points = flow.trajectories(int(n_samples), generator, temperature=temperature)
        return times.numpy(), points.cpu()[..., self.geometry_.manifold.varying].double().numpy()

    @property
    def geometry_(self) -> Geometry:
        """The fitted geometry."""
        return self.model_.geometry

    @property
    def velocity_(self) -> VelocityField:
        """The trained velocity."""
        return self.model_.velocity

    @property
    def source_(self) -> Source:
        """The distribution at t = 0."""
        return self.model_.flow.source

    @property
    def manifold_(self) -> Any:
        """The flow's manifold as a geomstats ProductManifold."""
        return self.geometry_.manifold.geomstats()

    def to_manifold(self, X: Any) -> np.ndarray:
        """Map networks to points of `manifold_`, an array of shape (n, ambient size).

        Parameters
        ----------
        X : WeightArray or array-like of shape (n, d)
        """
        check_is_fitted(self)
        values = later_array(self, X)
        rows, varying = weights_alone(values, self.architecture_), self.geometry_.manifold.varying
        points = empty_like(values, (len(values), len(varying)), np.float64)
        for part in chunks(*rows.shape):
            points[part] = self.geometry_.to_points(rows[part].double())[:, varying].numpy()
        return points
