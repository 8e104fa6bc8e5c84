"""Priors at a temperature: their points drawn towards the centre, or away from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import singledispatch
from math import log

import torch
from torch import Tensor

from wsflow.flow.covariance import Covariance
from wsflow.flow.priors import Isotropic, Prior, WrappedGaussian


@dataclass(frozen=True, eq=False)
class Scaled:
    """s^2 C.

    Parameters
    ----------
    covariance : Covariance
        C.
    factor : float
        s, positive.

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.covariance import Triangular
    >>> Scaled(Triangular(torch.eye(2)), 3.0).times(torch.ones(1, 2))
    tensor([[9., 9.]])
    """

    covariance: Covariance
    factor: float

    def to(self, dtype: torch.dtype) -> Scaled:
        """The same in another precision."""
        return Scaled(self.covariance.to(dtype), self.factor)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """s times draws of N(0, C)."""
        return self.factor * self.covariance.sample(n, generator)

    def log_prob(self, z: Tensor) -> Tensor:
        """log N(z / s; 0, C) - dimension log s."""
        return self.covariance.log_prob(z / self.factor) - z.shape[1] * log(self.factor)

    def times(self, z: Tensor) -> Tensor:
        """s^2 C z."""
        return self.factor**2 * self.covariance.times(z)

    def arrays(self) -> dict[str, Tensor]:
        """What C is made of, and s."""
        return {**self.covariance.arrays(), "temperature": torch.tensor(self.factor)}


@singledispatch
def tempered(prior: Prior, temperature: float) -> Prior:
    """The law of a prior's points, each moved on a geodesic to `temperature` times its distance from the centre.

    Parameters
    ----------
    prior : Isotropic or WrappedGaussian
        Factors with the uniform distribution have no centre, and stay.
    temperature : float
        Positive.

    Returns
    -------
    Prior

    Raises
    ------
    ValueError
        If it is not known for a prior of this kind.

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.priors import Isotropic
    >>> from wsflow.flow.tempering import tempered
    >>> from wsflow.manifolds import Euclidean, Product
    >>> line = Product([(Euclidean(1), torch.tensor([[0]]))])
    >>> tempered(Isotropic(line, torch.ones(1)), 0.5).scale
    tensor([0.5000])
    """
    raise ValueError(f"The density of a {type(prior).__name__} prior is known at temperature=1 only.")


@tempered.register
def _(prior: Isotropic, temperature: float) -> Prior:
    return replace(prior, scale=temperature * prior.scale)


@tempered.register
def _(prior: WrappedGaussian, temperature: float) -> Prior:
    return replace(prior, covariance=Scaled(prior.covariance, temperature))
