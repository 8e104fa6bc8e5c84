"""The bridge to geomstats: any of its manifolds as a factor of a flow, in NumPy and float64.

It is slow but general. Training needs no gradient through points: a geodesic's points and velocities are targets,
and the velocity network's output is made tangent by a matrix, through which gradients flow. A loss that guides a flow
differentiates the projection, whose derivative at a point of the manifold is the projection to its tangent space.

References
----------
Miolane et al. 2020, "Geomstats: A Python Package for Riemannian Geometry in Machine Learning", arXiv:2004.04667.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.manifolds.kernels import at


@dataclass(frozen=True)
class Bridge:
    """A manifold of geomstats with its own metric, its points flattened to vectors of R^size.

    Parameters
    ----------
    space : geomstats manifold
        With ``projection``, ``to_tangent`` and ``belongs``, and a metric with ``exp`` and ``log``.

    Raises
    ------
    ValueError
        If the space lacks one of them.

    Examples
    --------
    >>> import torch
    >>> from geomstats.geometry.special_orthogonal import SpecialOrthogonal
    >>> from wsflow.manifolds import Bridge
    >>> rotations = Bridge(SpecialOrthogonal(3))
    >>> start = torch.randn(5, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> x = rotations.projection(start)
    >>> rotations.dimension, bool(rotations.belongs(x, 1e-12).all())
    (3, True)
    """

    space: Any

    def __post_init__(self) -> None:
        needs = {"": ("shape", "dim", "projection", "to_tangent", "belongs", "metric"), "metric": ("exp", "log")}
        missing = [
            f"{owner}.{name}".lstrip(".")
            for owner, names in needs.items()
            for name in names
            if not hasattr(getattr(self.space, owner, None) if owner else self.space, name)
        ]
        if missing:
            raise ValueError(
                f"A {type(self.space).__name__} is not a manifold for a flow: it has no {', '.join(missing)}. Use a "
                "space of geomstats that is equipped with a metric, or an object with the methods of "
                "wsflow.manifolds.Manifold."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.space.shape)

    @cached_property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def dimension(self) -> int:
        return int(self.space.dim)

    def projection(self, x: Tensor) -> Tensor:
        """Return the space's own projection; its derivative is taken to be that at points of the manifold."""
        point = self._apply(self.space.projection, x)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return point
        # the value of the point, the derivative of the tangent projection
        return point + self.to_tangent(point, x - x.detach())

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Return the tangent part at x of an ambient vector: a linear map of v, constant in x for its gradients."""
        if not (torch.is_grad_enabled() and v.requires_grad):
            return self._apply(self.space.to_tangent, v, x)
        return torch.einsum("...ij,...j->...i", self._tangent_matrix(x), v)

    def _tangent_matrix(self, x: Tensor) -> Tensor:
        """Return the matrix (..., size, size) of `to_tangent` at x."""
        axes = torch.eye(self.size).to(x).expand(*x.shape, self.size)
        rows = self._apply(self.space.to_tangent, axes, x.unsqueeze(-2).expand_as(axes))
        return rows.transpose(-1, -2)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        """Return the point at time 1 of the geodesic from x with velocity v, projected against rounding."""
        return self._apply(lambda v, x: self.space.projection(self.space.metric.exp(v, x)), v, x)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        project = self.space.projection
        # rounded to float32, points lie beside the manifold, where some logarithms do not converge
        return self._apply(lambda y, x: self.space.metric.log(project(y), project(x)), y, x)

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return exp_x(t log_x(y)) and its velocity, from the longer part of the geodesic, ahead or behind.

        log_xt(y) = (1 - t) u_t and log_xt(x) = -t u_t, so nothing small is divided by something small.
        """
        t = at(t, x)
        point = self.exp(x, t * self.log(x, y))
        early = t < 0.5
        way = self.log(point, torch.where(early, y, x))
        return point, way / torch.where(early, 1 - t, -t)

    def belongs(self, x: Tensor, atol: float) -> Tensor:
        """Return whether each point is on the manifold, up to atol."""
        rows, finite = self._rows(x)
        inside = torch.zeros(len(finite), dtype=torch.bool)
        if finite.any():
            inside[finite] = torch.from_numpy(np.asarray(self.space.belongs(rows[0], atol=atol)).reshape(-1))
        return inside.reshape(x.shape[:-1]).to(x.device)

    def geomstats(self) -> Any:
        """Return the space itself."""
        return self.space

    def _rows(self, *tensors: Tensor) -> tuple[list[np.ndarray], Tensor]:
        """Return the tensors' finite rows as arrays of points, and which rows are finite: LAPACK refuses others."""
        flat = [tensor.detach().double().cpu().reshape(-1, self.size) for tensor in tensors]
        finite = torch.stack([rows.isfinite().all(-1) for rows in flat]).all(0)
        return [rows[finite].reshape(-1, *self.shape).numpy() for rows in flat], finite

    def _apply(self, function: Callable[..., Any], *tensors: Tensor) -> Tensor:
        """Return a function of the space on each row; NaN where a row is not finite."""
        rows, finite = self._rows(*tensors)
        result = torch.full((len(finite), self.size), torch.nan, dtype=torch.float64)
        if finite.any():
            found = np.asarray(function(*rows), dtype=np.float64)
            result[finite] = torch.from_numpy(found.reshape(-1, self.size))
        return result.reshape(tensors[0].shape).to(tensors[0])
