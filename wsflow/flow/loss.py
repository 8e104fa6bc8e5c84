"""The flow-matching loss E w(t) |v(x_t, t) - u_t|^2, in the tangent space at x_t.

A metric that depends on (x_t, t) alone, in place of the identity, leaves the minimizer, the conditional mean
E[u_t | x_t], as it is: it only says where the network's capacity goes. A function's metric is taken where the velocity
leads, x_1 = exp_{x_t}((1 - t) v) with v held fixed: at x_t, which is half noise, it is that of no trained network.

References
----------
Lipman et al. 2023, arXiv:2210.02747; Chen and Lipman 2024, arXiv:2302.03660 (manifolds).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from wsflow.flow.couplings import COUPLINGS, Nearest
from wsflow.flow.paths import PREDICTIONS, TIMES
from wsflow.flow.sources import Source
from wsflow.flow.velocity import VelocityField
from wsflow.training.distributed import ALONE, Processes
from wsflow.training.loop import Loss, seeded

# metric(x, v, generator) maps tangent vectors v at x linearly to (n, k); its squared norm is the metric's
Metric = Callable[[Tensor, Tensor, torch.Generator], Tensor]


class FlowMatchingLoss:
    """The loss of a velocity on pairs of source and target points and times.

    Parameters
    ----------
    velocity : VelocityField
        Whose manifold, source and prediction count.
    coupling, time : str
        Keys of `COUPLINGS` and `TIMES`.
    metric : callable, optional
        ``metric(x, v, generator)`` maps tangent vectors v (n, size) at x linearly to (n, k).
    metric_weight : float
        Share of the metric in the loss, between 0 (none) and 1.
    nearest : callable, optional
        For ``coupling="orbit"``: see `wsflow.flow.couplings.orbit`.
    processes : Processes
        Among which batches are divided: the mean of their losses is that of the batch.

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.loss import FlowMatchingLoss
    >>> from wsflow.flow.sources import Isotropic
    >>> from wsflow.flow.velocity import VelocityField
    >>> from wsflow.manifolds import Euclidean, Product
    >>> plane = Product.of(Euclidean(2))
    >>> still = VelocityField(lambda x, t: torch.zeros_like(x), plane, Isotropic(plane, torch.ones(2)), "velocity")
    >>> loss, zero, one = FlowMatchingLoss(still), torch.zeros(1, 2), torch.ones(1, 2)
    >>> loss(still, zero, one, torch.tensor([0.5]), torch.Generator())
    tensor(1.)
    """

    def __init__(
        self,
        velocity: VelocityField,
        coupling: str = "independent",
        time: str = "uniform",
        metric: Metric | None = None,
        metric_weight: float = 0.9,
        nearest: Nearest | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.processes, self.device = processes, velocity.device
        self.manifold = velocity.manifold
        self.source = velocity.source
        self.prediction = PREDICTIONS[velocity.prediction]
        self.coupling, self.nearest = COUPLINGS[coupling], nearest
        self.times = TIMES[time]
        self.metric, self.metric_weight = metric, metric_weight
        self.units = velocity.units
        self.measured: dict[str, float] = {}

    def pairs(self, x1: Tensor, source: Source, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw coupled source points, target points and times for targets (n, size)."""
        x0 = source.sample(len(x1), generator).to(x1)
        x0, x1 = self.coupling(x0, x1, self.manifold, self.nearest)
        return x0, x1, self.times(len(x1), generator).to(x1)

    def _part(self, x0: Tensor, x1: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What this process has of the pairs and times of a batch."""
        return self.processes.part(x0), self.processes.part(x1), self.processes.part(t)

    def __call__(self, velocity: nn.Module, x0: Tensor, x1: Tensor, t: Tensor, generator: torch.Generator) -> Tensor:
        """The mean loss on pairs (n, size) and times (n,); the generator is the metric's."""
        xt, ut = self.manifold.geodesic(x0, x1, t)
        v = velocity(xt, t)
        error = v - ut
        loss = self._in_units(error).square().mean(-1)
        if self.metric is not None:
            end = self.manifold.exp(xt, (1 - t).unsqueeze(-1) * v.detach())
            share = self.metric_weight
            seen = self.metric(end, self.manifold.to_tangent(end, error), generator).square().mean(-1)
            loss = share * self._normalization(end, ut, generator) * seen + (1 - share) * loss
        return (self.prediction.weight(t) * loss).mean()

    def _normalization(self, end: Tensor, ut: Tensor, generator: torch.Generator) -> float:
        """What makes the metric's loss of the zero velocity equal to the Euclidean one; measured once."""
        if not self.measured and self.metric is not None:
            seen = self.processes.mean(self.metric(end, self.manifold.to_tangent(end, ut), generator).square().mean())
            own = self.processes.mean(self._in_units(ut).square().mean())
            scale = own / seen.clamp_min(torch.finfo(seen.dtype).tiny)
            self.measured["normalization"] = float(scale)
        return self.measured.get("normalization") or 1.0

    def _in_units(self, v: Tensor) -> Tensor:
        """v / u, with the source's units u: a metric in which what hardly varies counts as the rest does."""
        return v if self.units is None else v / self.units.to(v)

    def on_batches(
        self,
        x1: Tensor,
        batch_size: int,
        conditions: Tensor | None = None,
        condition_dropout: float = 0.1,
        dtype: torch.dtype | None = None,
    ) -> Loss:
        """The loss on random batches of points (n, size), some of whose conditions (n,) are forgotten, for `train`.

        Batches are in `dtype`, by default that of the points.
        """
        processes = self.processes
        if batch_size < processes.size:
            raise ValueError(
                f"A batch of {batch_size} cannot be divided among {processes.size} processes. Use a larger batch_size, "
                "or fewer processes."
            )
        source = self.source.to(dtype or x1.dtype)

        def loss(velocity: VelocityField, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            rows = torch.randint(len(x1), (batch_size,), generator=generator)
            # drawn by all processes for the whole batch, so that it is the same one
            pairs = self._part(*self.pairs(x1[rows].to(self.device, dtype or x1.dtype), source, generator))
            known = None if conditions is None else forgotten(conditions[rows], condition_dropout, generator)
            known = None if known is None else known.to(self.device)
            drops = any(isinstance(part, nn.Dropout) for part in velocity.modules())
            with seeded(generator, drops, processes.rank):
                view = bound(velocity, None if known is None else processes.part(known))
                value = self(view, *pairs, generator) * processes.weight(batch_size)
            return value, value

        return loss

    def on_validation(
        self, x1: Tensor, generator: torch.Generator, conditions: Tensor | None = None
    ) -> Callable[[VelocityField], float] | None:
        """The loss on points (n, size) with fixed pairs and times, for `train`; None where there are no points."""
        seed = int(torch.randint(2**31, (1,), generator=generator))
        if not len(x1):
            return None
        processes = self.processes
        pairs = self._part(*self.pairs(x1.to(self.device), self.source, generator))
        known = None if conditions is None else processes.part(conditions).to(self.device)

        def validate(velocity: VelocityField) -> float:
            loss = pairs[0].new_zeros(())
            if len(pairs[0]):
                loss = self(bound(velocity, known), *pairs, torch.Generator().manual_seed(seed))
            return float(processes.mean(loss * processes.weight(len(x1))))

        return validate


def forgotten(condition: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Replace some of the conditions (n,) by NaN, so that a velocity learns to do without them too."""
    lost = torch.rand(len(condition), generator=generator, dtype=torch.float32) < probability
    return condition.masked_fill(lost.to(condition.device), math.nan)


def bound(velocity: VelocityField, condition: Tensor | None) -> nn.Module:
    """The velocity with its conditions (n,) bound, where there are some."""
    return velocity if condition is None else velocity.given(condition)
