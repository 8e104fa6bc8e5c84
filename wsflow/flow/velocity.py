"""Velocity fields: a network's output on a manifold, with a drift, hints and conditions.

References
----------
Ho and Salimans 2022, "Classifier-free diffusion guidance", arXiv:2207.12598 (conditions); Chen, Zhang and Hinton 2023,
arXiv:2208.04202 (a second look).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wsflow.flow.hints import GradientHints
from wsflow.flow.paths import PREDICTIONS
from wsflow.flow.sources import Source
from wsflow.manifolds import Product

SCALED = 256  # points from which the scale of hints is taken


class VelocityField(nn.Module):
    """v(x, t) = P_x F(x, t) - c(t, r) log_x(m): the network's output, made tangent, and the drift between Gaussians.

    Parameters
    ----------
    network : callable
        F, from x (n, size) and t (n,) to (n, size); to be trained, an nn.Module. It gets keywords `hints` (n, 3, size)
        and `condition` (n,) where the field has hints or conditions.
    manifold : Product
    source : Source
        Its centre is m.
    prediction : str
        A key of `PREDICTIONS`, which decides c. The ratio r of the variances of points and source is fitted.
    hints : GradientHints, optional
        Further inputs of the network at each point.
    """

    ratio: Tensor
    units: Tensor | None

    def __init__(
        self,
        network: Any,
        manifold: Product,
        source: Source,
        prediction: str = "velocity",
        hints: GradientHints | None = None,
    ) -> None:
        super().__init__()
        self.hints = hints
        self.network = network
        self.manifold = manifold
        self.source = source
        self.prediction = prediction
        self.register_buffer("ratio", torch.ones((), dtype=torch.float32))
        self.register_buffer("units", source.units, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.ratio.device

    def move(self, device: torch.device) -> None:
        """Go to a device, with the source."""
        self.to(device)
        self.source = self.source.to(device=device)
        if self.hints is not None:
            self.hints.source = self.source

    def fit_scale(self, x: Tensor) -> None:
        """Take the scale of points (n, size) at t = 1, that of the source, and that of hints along the way."""
        if hasattr(self.network, "fit_scale"):
            self.network.fit_scale(self._in_units(x))
        x = x[:: -(-len(x) // SCALED)]
        x0 = self.source.sample(len(x), torch.Generator().manual_seed(0)).to(x)
        after, before = (self.source.to_centre(points).var(0, correction=0).mean() for points in (x, x0))
        if before > 0 and after > 0:
            self.ratio.copy_(after / before)
        if self.hints is not None:
            t = torch.linspace(0, 1, len(x), dtype=x.dtype, device=x.device)
            xt, ut = self.manifold.geodesic(x0, x, t)
            self.hints.fit_scale(xt, t, ut)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """The velocity (n, size) at points (n, size) and times (n,), given conditions (n,) if there are some."""
        if self.hints is None:
            return self._look(x, t, condition, None)
        guess = self.hints.first_guess(x, t)
        # in training half of the points have a second look: both are learned, by one gradient
        first = slice(len(x) // 2 if self.training else 0, None)
        with torch.set_grad_enabled(x.requires_grad):
            mine = None if condition is None else condition[first]
            better = self._look(x[first], t[first], mine, guess[first])
        return self._look(x, t, condition, torch.cat([guess[: len(x) - len(better)], better]))

    def _look(self, x: Tensor, t: Tensor, condition: Tensor | None, guess: Tensor | None) -> Tensor:
        seen: dict[str, Tensor] = {} if condition is None else {"condition": condition}
        if self.hints is not None and guess is not None:
            seen["hints"] = self.hints(x, t, guess)
        drift = PREDICTIONS[self.prediction].drift(t, self.ratio.to(t)).unsqueeze(-1)
        found = self.network(self._in_units(x), t, **seen)
        found = found if self.units is None else found * self.units.to(x)
        return self.manifold.to_tangent(x, found - drift * self.source.to_centre(x))

    def _in_units(self, x: Tensor) -> Tensor:
        """x + (1/u - 1) log_m(x), in the source's units u: the network sees what hardly varies like the rest."""
        return x if self.units is None else x + (1 / self.units.to(x) - 1) * self.source.displacement(x)

    def given(self, condition: Tensor, scale: float = 1.0) -> GivenVelocity:
        """This velocity under conditions of shape () or (n,), as a field of points and times."""
        return GivenVelocity(self, condition, scale)


class GivenVelocity(nn.Module):
    """v(x, t) + s (v(x, t | c) - v(x, t)): a velocity with its condition bound, which solvers need not know of.

    Parameters
    ----------
    velocity : VelocityField
    condition : Tensor of shape () or (n,)
        c, one for all points or one for each.
    scale : float
        s: 1 is the conditional law, 0 the unconditional one; above 1 the condition is exaggerated.

    References
    ----------
    Ho and Salimans 2022, "Classifier-free diffusion guidance", arXiv:2207.12598.
    """

    condition: Tensor

    def __init__(self, velocity: VelocityField, condition: Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.velocity = velocity
        self.register_buffer("condition", condition)
        self.scale = scale

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.velocity.device

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The velocity (n, size) at points (n, size) and times (n,)."""
        given = self.velocity(x, t, self.condition.expand(len(x)))
        if self.scale == 1.0:
            return given
        free = self.velocity(x, t)
        return free + self.scale * (given - free)
