"""Couplings: which source point is paired with which target point of a minibatch.

References
----------
Tong et al. 2024, "Improving and generalizing flow-based generative models with minibatch optimal
transport", arXiv:2302.00482; Klein, Kraemer and Noe 2023, "Equivariant flow matching", arXiv:2306.15030 (modulo a
group).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wsflow.exceptions import NumericalError
from wsflow.manifolds import Manifold

# from points x and y (n, size) to what of each y's orbit is nearest to x
Nearest = Callable[[Tensor, Tensor], Tensor]
Coupling = Callable[[Tensor, Tensor, Manifold, Nearest | None], tuple[Tensor, Tensor]]


def independent(x0: Tensor, x1: Tensor, manifold: Manifold, nearest: Nearest | None = None) -> tuple[Tensor, Tensor]:
    """Pair points as they come."""
    return x0, x1


def orbit(x0: Tensor, x1: Tensor, manifold: Manifold, nearest: Nearest | None = None) -> tuple[Tensor, Tensor]:
    """Pair points as they come, and take of each target the point of its orbit that is nearest to its source.

    With a group G of isometries that the law of x1 does not tell apart, this is transport modulo G: paths are shorter,
    and the marginals are the same up to G. Without ``nearest(x0, x1)``, orbits are single points.
    """
    return x0, x1 if nearest is None else nearest(x0, x1)


def optimal_transport(
    x0: Tensor, x1: Tensor, manifold: Manifold, nearest: Nearest | None = None
) -> tuple[Tensor, Tensor]:
    """Pair points with the smallest sum of squared geodesic distances: x1 comes in another order.

    A NumericalError says that a distance is not finite: for such a cost, POT gives a plan all the same.

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.couplings import optimal_transport
    >>> from wsflow.manifolds import Euclidean
    >>> x0, x1 = optimal_transport(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.1], [0.1]]), Euclidean(1))
    >>> x1
    tensor([[0.1000], [1.1000]])
    """
    import ot

    cost = squared_distances(x0, x1, manifold)
    if not cost.isfinite().all():
        raise NumericalError("A distance between source and target points is not finite: check the weights for NaN.")
    weight = torch.full((len(x0),), 1 / len(x0), dtype=torch.float64).numpy()
    plan = ot.emd(weight, weight, cost.double().cpu().numpy())
    return x0, x1[torch.from_numpy(plan.argmax(1)).to(x1.device)]


def squared_distances(x: Tensor, y: Tensor, manifold: Manifold) -> Tensor:
    """Squared geodesic distances (n, m) between points (n, size) and (m, size)."""
    return torch.stack([manifold.log(row.expand_as(y), y).square().sum(-1) for row in x])


COUPLINGS: dict[str, Coupling] = {"independent": independent, "ot": optimal_transport, "orbit": orbit}
