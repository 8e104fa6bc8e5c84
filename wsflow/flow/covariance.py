"""Covariances of Gaussians: a triangular factor where points are many, low rank plus a diagonal where they are few."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import log, pi
from typing import Protocol

import torch
from torch import Tensor

from wsflow.exceptions import NumericalError
from wsflow.memory import check_memory

# the most that a ridge adds to a variance, as a share of it
RIDGE = 1e-2


class Covariance(Protocol):
    """What a Gaussian N(0, C) needs of its covariance."""

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Covariance:
        """The same in another precision, or on another device."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws, a Tensor of shape (n, dimension)."""

    def log_prob(self, z: Tensor) -> Tensor:
        """log N(z; 0, C) of rows."""

    def times(self, z: Tensor) -> Tensor:
        """C z for each row z."""

    @property
    def diagonal(self) -> Tensor:
        """The variance of each coordinate, of shape (dimension,)."""

    def arrays(self) -> dict[str, Tensor]:
        """What it is made of, by field."""


@dataclass(frozen=True, eq=False)
class Triangular:
    """C = L L^T.

    Parameters
    ----------
    factor : Tensor of shape (dimension, dimension)
        Lower triangular L.
    """

    factor: Tensor

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Triangular:
        return Triangular(self.factor.to(device, dtype))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """L e with e standard normal."""
        e = normal(n, len(self.factor), generator, self.factor)
        return e @ self.factor.T

    def log_prob(self, z: Tensor) -> Tensor:
        """By one triangular solve."""
        e = torch.linalg.solve_triangular(self.factor, z.T, upper=False)
        return _log_normal(e.square().sum(0), 2 * self.factor.diagonal().log().sum(), z.shape[1])

    def times(self, z: Tensor) -> Tensor:
        """L (L^T z)."""
        return z @ self.factor @ self.factor.T

    @property
    def diagonal(self) -> Tensor:
        """Of L L^T."""
        return self.factor.square().sum(1)

    def arrays(self) -> dict[str, Tensor]:
        return {"factor": self.factor}


@dataclass(frozen=True, eq=False)
class LowRank:
    """C = U U^T + diag(variance), which never needs a square matrix of the dimension.

    Parameters
    ----------
    root : Tensor of shape (dimension, rank)
        U.
    variance : Tensor of shape (dimension,)
        Positive.
    """

    root: Tensor
    variance: Tensor

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> LowRank:
        return LowRank(self.root.to(device, dtype), self.variance.to(device, dtype))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """U e + sqrt(variance) f with e and f standard normal."""
        dimension, rank = self.root.shape
        e, f = (normal(n, size, generator, self.root) for size in (rank, dimension))
        return torch.addmm(f * self.variance.sqrt(), e, self.root.T)

    def log_prob(self, z: Tensor) -> Tensor:
        """By Woodbury's identity and the matrix determinant lemma, with M = I + U^T diag(variance)^-1 U."""
        scaled = z / self.variance
        seen = torch.linalg.solve_triangular(self._capacitance, (scaled @ self.root).T, upper=False)
        square = (z * scaled).sum(1) - seen.square().sum(0)
        log_det = 2 * self._capacitance.diagonal().log().sum() + self.variance.log().sum()
        return _log_normal(square, log_det, z.shape[1])

    def times(self, z: Tensor) -> Tensor:
        """U (U^T z) + variance z."""
        return z @ self.root @ self.root.T + z * self.variance

    @property
    def diagonal(self) -> Tensor:
        """Of U U^T + diag(variance)."""
        return self.root.square().sum(1) + self.variance

    def arrays(self) -> dict[str, Tensor]:
        return {"root": self.root, "variance": self.variance}

    @cached_property
    def _capacitance(self) -> Tensor:
        """The triangular factor of M."""
        inner = self.root.T @ (self.root / self.variance.unsqueeze(1))
        return torch.linalg.cholesky(inner + torch.eye(len(inner)).to(inner))


@dataclass(frozen=True, eq=False)
class Blocks:
    """Independent parts, in each of which some copies are independent and have one covariance.

    Parameters
    ----------
    parts : tuple of (LongTensor, Covariance)
        Coordinates of shape (copies, k), and what a copy's k coordinates have as covariance. Each coordinate is in one
        part.
    """

    parts: tuple[tuple[Tensor, Covariance], ...]

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Blocks:
        return Blocks(tuple((columns.to(device), part.to(dtype, device)) for columns, part in self.parts))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Copies drawn apart, put where they belong."""
        return self._put([part.sample(n * len(columns), generator) for columns, part in self.parts], n)

    def log_prob(self, z: Tensor) -> Tensor:
        """The sum over all copies of all parts."""
        found = [part.log_prob(self._rows(z, columns)).reshape(len(z), -1).sum(1) for columns, part in self.parts]
        return torch.stack(found).sum(0)

    def times(self, z: Tensor) -> Tensor:
        """Each part's covariance times its copies."""
        return self._put([part.times(self._rows(z, columns)) for columns, part in self.parts], len(z))

    @property
    def diagonal(self) -> Tensor:
        """Of each part's covariance, for each of its copies."""
        return self._put([part.diagonal.expand(len(columns), -1) for columns, part in self.parts], 1)[0]

    def arrays(self) -> dict[str, Tensor]:
        """What the parts are made of, numbered."""
        return {f"{i}.{name}": a for i, (_, part) in enumerate(self.parts) for name, a in part.arrays().items()}

    @staticmethod
    def _rows(z: Tensor, columns: Tensor) -> Tensor:
        return z[:, columns.reshape(-1)].reshape(-1, columns.shape[1])

    def _put(self, pieces: list[Tensor], n: int) -> Tensor:
        flat = torch.cat([piece.reshape(n, -1) for piece in pieces], 1)
        return flat[:, self._back]

    @cached_property
    def _back(self) -> Tensor:
        return torch.cat([columns.reshape(-1) for columns, _ in self.parts]).argsort()


@dataclass(frozen=True, eq=False)
class Scaled:
    """s^2 C, for a positive factor s."""

    covariance: Covariance
    factor: float

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Scaled:
        return Scaled(self.covariance.to(dtype, device), self.factor)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """s times draws of N(0, C)."""
        return self.factor * self.covariance.sample(n, generator)

    def log_prob(self, z: Tensor) -> Tensor:
        """log N(z / s; 0, C) - dimension log s."""
        return self.covariance.log_prob(z / self.factor) - z.shape[1] * log(self.factor)

    def times(self, z: Tensor) -> Tensor:
        """s^2 C z."""
        return self.factor**2 * self.covariance.times(z)

    @property
    def diagonal(self) -> Tensor:
        """s^2 times that of C."""
        return self.factor**2 * self.covariance.diagonal

    def arrays(self) -> dict[str, Tensor]:
        """What C is made of, and s."""
        return {**self.covariance.arrays(), "temperature": torch.tensor(self.factor)}


def covariance_of(arrays: dict[str, Tensor]) -> Covariance:
    """The covariance that is made of what `Covariance.arrays` gave."""
    if "factor" in arrays:
        # column after column, as Cholesky's method puts them, whose products have the same bits
        return Triangular(arrays["factor"].T.contiguous().T)
    return LowRank(**arrays)


class CovarianceSums:
    """(1 - shrinkage) S + shrinkage diag(S), for S = z^T z / n of centred rows z that are added a few at a time.

    It is triangular where there are at least as many rows as dimensions, else low rank: S has no more than rank n.

    Parameters
    ----------
    n, dimension : int
        Of all rows together.
    shrinkage : float
    """

    def __init__(self, n: int, dimension: int, shrinkage: float, dtype: torch.dtype = torch.float64) -> None:
        self._n, self._shrinkage, self._added = n, shrinkage, 0
        self._squares = torch.zeros(dimension, dtype=dtype)
        self._is_low = n < dimension
        if self._is_low:
            check_memory(
                f"The covariance of {n} networks in {dimension} dimensions",
                n * dimension * self._squares.element_size(),
                "Choose source='exchangeable' or 'isotropic', or fit fewer networks.",
            )
        self._sums = torch.zeros(dimension, n if self._is_low else dimension, dtype=dtype)

    def add(self, z: Tensor) -> None:
        """Add centred rows (m, dimension)."""
        self._squares += z.square().sum(0)
        share, stop = (1 - self._shrinkage) / self._n, self._added + len(z)
        if self._is_low:
            torch.mul(z.T, share**0.5, out=self._sums[:, self._added : stop])
        else:
            self._sums.addmm_(share * z.T, z)
        self._added = stop

    def covariance(self) -> Covariance:
        """Return that of all rows.

        Raises
        ------
        NumericalError
            If it is not positive definite although shrunk.
        """
        variance = self._squares / self._n
        ridge = 1e-6 * variance.mean().clamp_min(1e-12)
        # no wider than a coordinate that hardly varies beside the others
        least = RIDGE * variance.clamp_min(torch.finfo(variance.dtype).eps ** 2 * ridge)
        diagonal = self._shrinkage * variance + ridge.minimum(least)
        if self._is_low:
            return LowRank(self._sums, diagonal)
        self._sums.diagonal().add_(diagonal)
        factor, failed = torch.linalg.cholesky_ex(self._sums)
        if failed:
            raise NumericalError("The covariance of the fitted Gaussian source is singular: use a larger shrinkage.")
        return Triangular(factor)


def normal(n: int, size: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers (n, size), drawn on the generator's device, so that they are the same on every other."""
    return torch.randn(n, size, generator=generator, dtype=like.dtype).to(like.device)


def _log_normal(square: Tensor, log_det: Tensor, dimension: int) -> Tensor:
    return -0.5 * (square + log_det + dimension * log(2 * pi))
