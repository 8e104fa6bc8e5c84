"""The Gaussian that does not tell neurons apart: the source of flows that are equivariant to their permutations.

A neuron's own coordinates, those of its weights on fixed axes, have one mean and one covariance, whichever neuron of
its group it is; neurons are independent of each other, and so are weights between two neurons. It is the
Gaussian fit of all reorderings of the networks, but for correlations between neurons, and it fits any hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wsflow.flow.covariance import Blocks, covariance_of, fit_covariance
from wsflow.flow.frame import Frame
from wsflow.flow.priors import WrappedGaussian
from wsflow.geometry import Geometry
from wsflow.manifolds import Product, Sphere
from wsflow.metanetworks.tokens import NeuronTokens


@dataclass(frozen=True)
class Plan:
    """Which coordinates of the tangent space are copies of each other.

    Parameters
    ----------
    folding : NeuronTokens
    blocks : list of LongTensor of shape (copies, k)
        A group's neurons; the entries of a block of edges; the global coordinates.
    """

    folding: NeuronTokens
    blocks: list[Tensor]

    def symmetric(self, v: Tensor) -> Tensor:
        """The mean of a vector (size,) over all permutations of neurons."""
        parts = [v[columns].mean(0, keepdim=True).expand(len(columns), -1) for columns in self.folding.features]
        edges = [v[e.columns].mean((0, 1), keepdim=True).expand(e.columns.shape) for e in self.folding.edges]
        return self.folding.join(
            [part.unsqueeze(0) for part in parts],
            [edge.unsqueeze(0) for edge in edges],
            v[self.folding.free].unsqueeze(0),
        )[0]


def plan_of(geometry: Geometry) -> Plan:
    """What is exchangeable in the points of a geometry.

    Parameters
    ----------
    geometry : Geometry

    Returns
    -------
    Plan
    """
    folding = _folding(geometry)
    flat, spheres = _coordinates(geometry.manifold)
    own: list[list[Tensor]] = [[] for _ in folding.features]
    blocks: list[Tensor] = []
    for columns, coordinates in spheres:
        group = _group_of(columns, folding)
        if group is None:
            # a sphere of weights from other neurons has no coordinates that all permutations keep
            blocks.append(coordinates.reshape(-1, 1))
        else:
            own[group].append(coordinates)
    for mine, columns in zip(own, folding.features, strict=True):
        found = flat[columns]
        mine.append(found[:, (found >= 0).all(0)])
        blocks.append(torch.cat(mine, 1))
    for edges in folding.edges:
        blocks += [c.reshape(-1, 1) for c in flat[edges.columns].unbind(-1) if (c >= 0).all()]
    free = flat[folding.free]
    blocks.append(free[free >= 0].unsqueeze(0))
    return Plan(folding, [block for block in blocks if block.numel()])


def fit_exchangeable(geometry: Geometry, x: Tensor, shrinkage: float, steps: int = 20) -> WrappedGaussian:
    """The Gaussian of all reorderings of points.

    Parameters
    ----------
    geometry : Geometry
        Of networks.
    x : Tensor of shape (n, size)
    shrinkage : float
        Of each covariance towards its diagonal.
    steps : int
        Of the iteration for the Frechet mean.

    Returns
    -------
    WrappedGaussian
    """
    manifold, x = geometry.manifold, x.double()
    plan = plan_of(geometry)
    mean = manifold.projection(plan.symmetric(x.mean(0)).unsqueeze(0))
    for _ in range(0 if manifold.is_flat else steps):
        step = manifold.log(mean.expand_as(x), x).mean(0)
        mean = manifold.exp(mean, manifold.to_tangent(mean, plan.symmetric(step).unsqueeze(0)))
    z = Frame(manifold, mean[0]).coordinates(manifold.log(mean.expand_as(x), x))
    rows = (z[:, block.reshape(-1)].reshape(-1, block.shape[1]) for block in plan.blocks)
    covariances = [fit_covariance(some, shrinkage) for some in rows]
    return WrappedGaussian(manifold, mean[0], Blocks(tuple(zip(plan.blocks, covariances, strict=True))))


def restore_exchangeable(geometry: Geometry, arrays: dict[str, Tensor]) -> WrappedGaussian:
    """The Gaussian that is made of saved arrays.

    Parameters
    ----------
    geometry : Geometry
    arrays : dict from str to Tensor
        As `WrappedGaussian.arrays` gives them.

    Returns
    -------
    WrappedGaussian
    """
    plan = plan_of(geometry)
    parts = [
        covariance_of({k.partition(".")[2]: v for k, v in arrays.items() if k.startswith(f"{i}.")})
        for i in range(len(plan.blocks))
    ]
    return WrappedGaussian(geometry.manifold, arrays["mean"], Blocks(tuple(zip(plan.blocks, parts, strict=True))))


def exchangeable_of_width(prior: WrappedGaussian, fitted: Geometry, geometry: Geometry) -> WrappedGaussian:
    """The same Gaussian for other hidden widths.

    Parameters
    ----------
    prior : WrappedGaussian
        From `fit_exchangeable`.
    fitted : Geometry
        What it was fitted to.
    geometry : Geometry
        Of the same layers with other hidden widths.

    Returns
    -------
    WrappedGaussian
    """
    old, new = _folding(fitted), plan_of(geometry)
    m, folding = prior.mean, new.folding
    features = [m[a][:1].expand(len(b), -1) for a, b in zip(old.features, folding.features, strict=True)]
    edges = [m[a.columns][:1, :1].expand(b.columns.shape) for a, b in zip(old.edges, folding.edges, strict=True)]
    mean = folding.join([f.unsqueeze(0) for f in features], [e.unsqueeze(0) for e in edges], m[old.free].unsqueeze(0))
    covariance: Any = prior.covariance
    parts = tuple((columns, part) for columns, (_, part) in zip(new.blocks, covariance.parts, strict=True))
    return WrappedGaussian(geometry.manifold, geometry.manifold.projection(mean)[0], Blocks(parts))


def _folding(geometry: Geometry) -> NeuronTokens:
    if geometry.layout is None:
        raise ValueError("prior='exchangeable' knows neurons, so it needs an architecture: fit a WeightArray.")
    return NeuronTokens(geometry.layout, geometry.n_extra)


def _coordinates(manifold: Product) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Coordinates of the tangent space: of each flat column (-1 on spheres), and of the copies of each sphere."""
    flat = torch.full((manifold.size,), -1)
    spheres, start = [], 0
    for factor, columns in manifold.factors:
        stop = start + len(columns) * factor.dimension
        coordinates = torch.arange(start, stop).reshape(len(columns), factor.dimension)
        if isinstance(factor, Sphere):
            spheres.append((columns, coordinates))
        else:
            flat[columns] = coordinates
        start = stop
    return flat, spheres


def _group_of(columns: Tensor, folding: NeuronTokens) -> int | None:
    """The group whose neurons have the rows of columns (copies, k) among their own, in their order."""
    for group, features in enumerate(folding.features):
        if len(columns) == len(features) and all(
            bool(torch.isin(row, own).all()) for row, own in zip(columns, features, strict=True)
        ):
            return group
    return None
