"""Hints: gradients of a loss L at the predicted end of a path, as inputs of a velocity network.

If points at t = 1 have a density proportional to exp(-L), the gradient of L is their score up to the sign. A velocity
network that sees gradients need not learn from few points what the loss contains. How it uses them is learned by flow
matching like everything else, so the minimizer is still the conditional mean E[u_t | x_t]: hints inform the regression
and do not guide samples. Gradients say most where the predicted end is right, so the network is evaluated twice: the
velocity that it returns for a first guess is the guess of the second evaluation.

References
----------
Chen, Zhang and Hinton 2023, arXiv:2208.04202 (self-conditioning); Adler and Oktem 2017, arXiv:1704.04058 (gradients as
inputs of learned iterations).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wsflow.flow.paths import gaussian_drift
from wsflow.flow.sources import Source
from wsflow.manifolds import Manifold


class GradientHints(nn.Module):
    """Three tangent vectors at (x, t): a guess u of the velocity, and the gradient g of a loss where u leads, and C g.

    The loss is taken at x_1 = exp_x((1 - t) u), and C is the source's covariance. All are in the source's units. Each
    vector is divided by its root mean square over the population, and the gradients are softly clipped.

    Parameters
    ----------
    loss : callable
        From points (n, size) to losses (n,).
    manifold : Manifold
    source : Source
    rows : int, optional
        At how many points the loss is differentiated at once (default: all); what it computes takes memory for each.

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.hints import GradientHints
    >>> from wsflow.flow.sources import Isotropic
    >>> from wsflow.manifolds import Euclidean, Product
    >>> plane = Product.of(Euclidean(2))
    >>> hints = GradientHints(lambda x: x.square().sum(-1), plane, Isotropic(plane, torch.ones(2)))
    >>> hints(torch.ones(1, 2), torch.ones(1), torch.zeros(1, 2))[0, 1]
    tensor([0.8944, 0.8944])
    """

    count = 3
    scale: Tensor
    units: Tensor | None

    def __init__(
        self, loss: Callable[[Tensor], Tensor], manifold: Manifold, source: Source, rows: int | None = None
    ) -> None:
        super().__init__()
        self.loss, self.rows = loss, rows
        self.manifold = manifold
        self.source = source
        self.register_buffer("scale", torch.ones(self.count, dtype=torch.float32))
        self.register_buffer("units", source.units, persistent=False)

    def first_guess(self, x: Tensor, t: Tensor) -> Tensor:
        """The velocity (n, size) between two Gaussians like the source, at points (n, size) and times (n,)."""
        return -gaussian_drift(t).unsqueeze(-1) * self.source.to_centre(x)

    def fit_scale(self, x: Tensor, t: Tensor, u: Tensor) -> None:
        """Take scales from paths: of guesses from velocities (n, size), of gradients from those at the first guess."""
        vectors = self._vectors(x, t, self.first_guess(x, t))
        vectors[:, 0] = u if self.units is None else u / self.units.to(u)
        rms = vectors.square().mean((0, 2)).sqrt()
        self.scale.copy_(rms.clamp_min(torch.finfo(rms.dtype).tiny))

    def forward(self, x: Tensor, t: Tensor, guess: Tensor) -> Tensor:
        """Hints (n, 3, size) at points (n, size), times (n,) and guesses (n, size) of the velocity."""
        found = self._vectors(x, t, guess) / self.scale.to(x).unsqueeze(-1)
        guess, gradients = found[:, :1], found[:, 1:]
        return torch.cat([guess, gradients / (1 + gradients.square().mean((1, 2), keepdim=True)).sqrt()], 1)

    def _vectors(self, x: Tensor, t: Tensor, guess: Tensor) -> Tensor:
        # a divergence differentiates hints too; training does not
        differentiable = x.requires_grad
        with torch.enable_grad():
            end = self.manifold.exp(x, (1 - t).unsqueeze(-1) * guess)
            if differentiable:
                (gradient,) = torch.autograd.grad(self.loss(end).sum(), end, create_graph=True)
            else:
                gradient = torch.cat([self._gradient(part) for part in end.detach().split(self.rows or len(end))])
        gradient = self.manifold.to_tangent(x, gradient)
        spread = self.manifold.to_tangent(x, self.source.spread(gradient))
        if self.units is None:
            return torch.stack([guess, gradient, spread], 1)
        units = self.units.to(x)
        return torch.stack([guess / units, gradient * units, spread / units], 1)

    def _gradient(self, end: Tensor) -> Tensor:
        end = end.requires_grad_()
        (gradient,) = torch.autograd.grad(self.loss(end).sum(), end)
        return gradient
