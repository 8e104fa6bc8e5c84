"""Sources: the distributions at t = 0.

Each draws points, knows its centre m (for the drift between Gaussians), its log-density with respect to the Riemannian
volume where it has one, and the noise that keeps it (for stochastic sampling).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import log, pi
from typing import Any, Protocol

import torch
from torch import Tensor

from wsflow.exceptions import NumericalError
from wsflow.flow.covariance import Covariance, CovarianceSums, Scaled, normal
from wsflow.flow.frame import Frame
from wsflow.manifolds import Euclidean, Product, Sphere
from wsflow.mapped import chunks

# a factor that varies less than this share of what another one does has a unit of its own; a trained velocity is wrong
# by about a thousandth of its largest values
HARDLY = 0.01


class Source(Protocol):
    """What a flow needs of its source."""

    @property
    def no_density(self) -> str:
        """Why there is no density, as a sentence with the remedy; empty where there is one."""

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Source:
        """The same in another precision, or on another device, where its points are too."""

    def at_temperature(self, temperature: float) -> Source:
        """The law of its points, each moved on a geodesic to `temperature` times its distance from the centre."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n points of the manifold."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density with respect to the Riemannian volume."""

    def to_centre(self, x: Tensor) -> Tensor:
        """log_x(m), the tangent vector from x to the centre; zero on factors without one."""

    def noise(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A Gaussian tangent vector at x with the source's covariance."""

    def displacement(self, x: Tensor) -> Tensor:
        """log_m(x) as an ambient vector: x - m in a vector space; zero on factors without a centre."""

    def spread(self, v: Tensor) -> Tensor:
        """C v for vectors v, with the source's covariance C."""

    @property
    def units(self) -> Tensor | None:
        """What columns (size,) are measured in, where some hardly vary beside the others; None where none does."""

    def arrays(self) -> dict[str, Tensor]:
        """What it was fitted to be, by name."""


@dataclass(frozen=True, eq=False)
class Isotropic:
    """N(0, scale^2) on Euclidean factors and the uniform distribution on spheres.

    Parameters
    ----------
    manifold : Product
    scale : Tensor of shape (size,)
        Standard deviation of each Euclidean coordinate; not used on spheres.

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.sources import Isotropic
    >>> from wsflow.manifolds import Product, Sphere
    >>> circle = Product.of(Sphere(2))
    >>> Isotropic(circle, torch.ones(2)).log_prob(torch.tensor([[1.0, 0.0]])).exp()  # 1 / (2 pi)
    tensor([0.1592])
    """

    manifold: Product
    scale: Tensor
    no_density = ""
    units = None

    def __deepcopy__(self, memo: object) -> Isotropic:
        # it never changes, and copies of a flow may share it
        return self

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Isotropic:
        return Isotropic(self.manifold, self.scale.to(device, dtype))

    def at_temperature(self, temperature: float) -> Isotropic:
        """Scaled on Euclidean factors; the uniform distribution on spheres has no centre, and stays."""
        return replace(self, scale=temperature * self.scale)

    def _flat(self, x: Tensor) -> Tensor:
        """x on Euclidean factors, zero on spheres."""
        return x * self._mask.to(x)

    @cached_property
    def _mask(self) -> Tensor:
        parts = [
            self.scale.new_full(columns.shape, float(isinstance(factor, Euclidean)), dtype=torch.float32)
            for factor, columns in self.manifold.factors
        ]
        return self.manifold.join(parts)

    @cached_property
    def _deviation(self) -> Tensor:
        """Of each coordinate; m^-1/2 on a sphere in R^m, whatever the scale: another one is not uniform."""
        pieces = zip(self.manifold.factors, self.manifold.split(self.scale), strict=True)
        return self.manifold.join(
            [torch.full_like(s, m.size**-0.5) if isinstance(m, Sphere) else s for (m, _), s in pieces]
        )

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n points: a normalized Gaussian is uniform on the sphere."""
        z = normal(n, self.manifold.size, generator, self.scale)
        return self.manifold.projection(z * self._deviation)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density with respect to the Riemannian volume."""
        total = x.new_zeros(len(x))
        pieces = zip(self.manifold.factors, self.manifold.split(x), self.manifold.split(self.scale.to(x)), strict=True)
        for (factor, columns), part, scale in pieces:
            if isinstance(factor, Sphere):
                total = total - len(columns) * factor.log_volume
            elif isinstance(factor, Euclidean):
                total = total - (0.5 * (part / scale).square() + scale.log() + 0.5 * log(2 * pi)).sum((-1, -2))
        return total

    def to_centre(self, x: Tensor) -> Tensor:
        """-x on Euclidean factors, zero on spheres."""
        return -self._flat(x)

    def noise(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Independent noise of each coordinate's standard deviation, made tangent."""
        z = normal(len(x), x.shape[1], generator, x)
        return self.manifold.to_tangent(x, z * self._deviation.to(x))

    def displacement(self, x: Tensor) -> Tensor:
        """x on Euclidean factors, zero on spheres."""
        return self._flat(x)

    def spread(self, v: Tensor) -> Tensor:
        """Each coordinate times its variance."""
        return v * self._deviation.to(v).square()

    def arrays(self) -> dict[str, Tensor]:
        return {"scale": self.scale}


@dataclass(frozen=True, eq=False)
class WrappedGaussian:
    """exp_m(B z) with z from N(0, C): a Gaussian in the tangent space at m, wrapped onto the manifold.

    The density counts the nearest preimage of a point only: the mass that the Gaussian has beyond a distance of
    pi from m on some sphere is missing from it, and nothing else is.

    Parameters
    ----------
    manifold : Product
    mean : Tensor of shape (size,)
        The centre m.
    covariance : Covariance
        C, in an orthonormal basis B of the tangent space.

    References
    ----------
    Pennec 2006, "Intrinsic statistics on Riemannian manifolds"; Nagano et al. 2019, arXiv:1902.02992
    (the Jacobian of exp).

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.sources import WrappedGaussian
    >>> from wsflow.manifolds import Product, Sphere
    >>> sphere = Product.of(Sphere(3))
    >>> points = sphere.projection(torch.tensor([[1.0, 0.1, 0.0], [1.0, -0.1, 0.1], [1.0, 0.0, -0.1]]))
    >>> source = WrappedGaussian.fit(sphere, points)
    >>> new = source.sample(5, torch.Generator().manual_seed(0))
    >>> bool(sphere.belongs(new, 1e-12).all()), source.log_prob(new).shape
    (True, torch.Size([5]))
    """

    manifold: Product
    mean: Tensor
    covariance: Covariance
    no_density = ""

    @classmethod
    def fit(cls, manifold: Product, x: Tensor, shrinkage: float = 0.1) -> WrappedGaussian:
        """Fit the Frechet mean and the covariance of points.

        Parameters
        ----------
        manifold : Product
        x : Tensor of shape (n, size)
        shrinkage : float
            0: the sample covariance; 1: its diagonal.

        Returns
        -------
        WrappedGaussian
            In float64.

        Raises
        ------
        NumericalError
            If the covariance is not positive definite although shrunk.
        """
        mean = frechet_mean(manifold, x)[0]
        sums = CovarianceSums(len(x), manifold.dimension, shrinkage)
        for z in tangent_coordinates(manifold, mean, x):
            sums.add(z)
        return cls(manifold, mean, sums.covariance())

    @cached_property
    def frame(self) -> Frame:
        """B, an orthonormal basis of the tangent space at m."""
        return Frame(self.manifold, self.mean)

    def __deepcopy__(self, memo: object) -> WrappedGaussian:
        # it never changes, it can be large, and copies of a flow may share it
        return self

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> WrappedGaussian:
        return WrappedGaussian(self.manifold, self.mean.to(device, dtype), self.covariance.to(dtype, device))

    def at_temperature(self, temperature: float) -> WrappedGaussian:
        """N(0, temperature^2 C) in the tangent space."""
        return replace(self, covariance=Scaled(self.covariance, temperature))

    def _centre(self, x: Tensor) -> Tensor:
        return self.mean.to(x).expand_as(x)

    def _tangent(self, n: int, generator: torch.Generator) -> Tensor:
        return self.frame.vectors(self.covariance.sample(n, generator))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self.manifold.exp(self.mean.expand(n, -1), self._tangent(n, generator))

    def log_prob(self, x: Tensor) -> Tensor:
        """log N(log_m(x); 0, C) - sum_f (dim_f - 1) log(sin(theta_f) / theta_f) over the spheres f."""
        v = self.manifold.log(self._centre(x), x)
        total = self._covariance(x.dtype).log_prob(self.frame.coordinates(v))
        for (manifold, _), part in zip(self.manifold.factors, self.manifold.split(v), strict=True):
            if isinstance(manifold, Sphere):
                theta = torch.linalg.vector_norm(part, dim=-1)
                total = total - (manifold.dimension - 1) * torch.sinc(theta / pi).log().sum(-1)
        return total

    def to_centre(self, x: Tensor) -> Tensor:
        """log_x(m)."""
        return self.manifold.log(x, self._centre(x))

    def noise(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The tangent Gaussian at m, made tangent at x."""
        return self.manifold.to_tangent(x, self._tangent(len(x), generator).to(x))

    def displacement(self, x: Tensor) -> Tensor:
        """log_m(x)."""
        return self.manifold.log(self._centre(x), x)

    def spread(self, v: Tensor) -> Tensor:
        """B C B^T v, in the basis B at m wherever v is."""
        return self.frame.vectors(self._covariance(v.dtype).times(self.frame.coordinates(v)))

    @cached_property
    def units(self) -> Tensor | None:
        """Of copies of curved factors that vary less than `HARDLY` as much as another one: their share of that."""
        sizes = [len(columns) * factor.dimension for factor, columns in self.manifold.factors]
        pieces = zip(self.manifold.factors, self.covariance.diagonal.split(sizes), strict=True)
        deviations = [part.reshape(len(columns), -1).mean(1).sqrt() for (_, columns), part in pieces]
        curved = [bool(m.dimension) and not isinstance(m, Euclidean) for m, _ in self.manifold.factors]
        largest = max((float(d.amax()) for d, bends in zip(deviations, curved, strict=True) if bends), default=0.0)
        small = [bends & (d < HARDLY * largest) for d, bends in zip(deviations, curved, strict=True)]
        if not any(which.any() for which in small):
            return None
        shares = [torch.where(which, d / largest, 1.0) for which, d in zip(small, deviations, strict=True)]
        known = zip(shares, self.manifold.factors, strict=True)
        return self.manifold.join([share.unsqueeze(1).expand(columns.shape) for share, (_, columns) in known])

    def _covariance(self, dtype: torch.dtype) -> Covariance:
        if dtype not in self._covariances:
            self._covariances[dtype] = self.covariance.to(dtype)
        return self._covariances[dtype]

    @cached_property
    def _covariances(self) -> dict[torch.dtype, Covariance]:
        """The covariance by precision: it can be large."""
        return {}

    def arrays(self) -> dict[str, Tensor]:
        return {"mean": self.mean, **self.covariance.arrays()}


def frechet_mean(
    manifold: Product, x: Tensor, symmetrize: Callable[[Tensor], Tensor] | None = None, steps: int = 20
) -> Tensor:
    """The Frechet mean (1, size) of points (n, size), by the fixed-point iteration m <- exp_m(mean log_m(x)).

    `symmetrize` maps a vector (size,) to its mean over a group of isometries that the mean is to be invariant under.
    """
    parts = [x[rows] for rows in chunks(*x.shape)]
    start = torch.stack([part.double().sum(0) for part in parts]).sum(0) / len(x)
    mean = manifold.projection((start if symmetrize is None else symmetrize(start)).unsqueeze(0))
    if symmetrize is None and not manifold.belongs(mean, 1e-6).all():
        # half of the points lie opposite the other half, as on a sphere of two points
        mean = x[:1].double()
    for _ in range(0 if manifold.is_flat else steps):
        logs = (manifold.log(mean.expand_as(part), part.double()).sum(0, keepdim=True) for part in parts)
        step = torch.cat(list(logs)).sum(0, keepdim=True) / len(x)
        if symmetrize is not None:
            step = manifold.to_tangent(mean, symmetrize(step[0]).unsqueeze(0))
        mean = manifold.exp(mean, step)
    return mean


def tangent_coordinates(manifold: Product, mean: Tensor, x: Tensor) -> Iterator[Tensor]:
    """Yield the coordinates (m, dimension) of log_m(x) in the frame at m, of a few points (n, size) at a time."""
    frame = Frame(manifold, mean)
    for rows in chunks(*x.shape):
        part = x[rows].double()
        yield frame.coordinates(manifold.log(mean.expand_as(part), part))


@dataclass(frozen=True, eq=False)
class Drawn:
    """Points from a function, such as networks as they look before training; it has no density.

    Parameters
    ----------
    manifold : Product
    draw : callable
        ``draw(n, generator)`` gives a Tensor of shape (n, size) on the manifold.
    """

    manifold: Product
    draw: Callable[[int, torch.Generator], Tensor]
    device: torch.device | None = None
    units = None
    no_density = "A source that is only drawn from has no density. Use source='gaussian' or 'isotropic'."

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Drawn:
        """The same on another device; points are drawn in the function's own precision."""
        return self if device is None else replace(self, device=device)

    def at_temperature(self, temperature: float) -> Drawn:
        """Refused, but at temperature 1."""
        if temperature != 1.0:
            raise NumericalError(self.no_density)
        return self

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self.draw(n, generator).to(self.device)

    def log_prob(self, x: Tensor) -> Any:
        """Refused."""
        raise NumericalError(self.no_density)

    def to_centre(self, x: Tensor) -> Tensor:
        """Zero: nothing is known of its centre."""
        return torch.zeros_like(x)

    def noise(self, x: Tensor, generator: torch.Generator) -> Any:
        """Refused: there is no covariance to draw from."""
        raise NumericalError("Stochastic sampling needs source='gaussian' or 'isotropic'.")

    def displacement(self, x: Tensor) -> Tensor:
        """Zero."""
        return torch.zeros_like(x)

    def spread(self, v: Tensor) -> Tensor:
        """The vectors themselves."""
        return v

    def arrays(self) -> dict[str, Tensor]:
        return {}
