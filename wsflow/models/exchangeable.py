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

from wsflow.flow.covariance import Blocks, CovarianceSums, covariance_of
from wsflow.flow.sources import WrappedGaussian, frechet_mean, tangent_coordinates
from wsflow.geometry import Geometry
from wsflow.manifolds import Product, Sphere
from wsflow.metanetworks.tokens import NeuronTokens


@dataclass(frozen=True)
class Exchangeability:
    """Which coordinates of the tangent space are copies of each other: the rows of each block, (copies, k).

    A block holds a group's neurons, the entries of a block of edges, or the global coordinates.
    """

    tokens: NeuronTokens
    blocks: list[Tensor]

    def symmetric(self, v: Tensor) -> Tensor:
        """The mean of a vector (size,) over all permutations of neurons."""
        parts = [v[columns].mean(0, keepdim=True).expand(len(columns), -1) for columns in self.tokens.features]
        edges = [_pooled(v, e.columns).expand(e.columns.shape) for e in self.tokens.edges]
        tensors = [_pooled(v, t.columns).expand(t.columns.shape).unsqueeze(0) for t in self.tokens.tensors]
        return self.tokens.join(
            [part.unsqueeze(0) for part in parts],
            [edge.unsqueeze(0) for edge in edges],
            v[self.tokens.free].unsqueeze(0),
            tensors,
        )[0]


def exchangeability_of(geometry: Geometry) -> Exchangeability:
    """What is exchangeable in the points of a geometry."""
    tokens = _tokens(geometry)
    flat, spheres = _coordinates(geometry.manifold)
    own: list[list[Tensor]] = [[] for _ in tokens.features]
    blocks: list[Tensor] = []
    for columns, coordinates in spheres:
        group = _group_of(columns, tokens)
        if group is None:
            # a sphere of weights from other neurons has no coordinates that all permutations keep
            blocks.append(coordinates.reshape(-1, 1))
        else:
            own[group].append(coordinates)
    for mine, columns in zip(own, tokens.features, strict=True):
        found = flat[columns]
        known = found >= 0
        mine.append(found[:, known.all(0)])
        blocks.append(torch.cat(mine, 1))
        # what is constant in some of the neurons
        blocks += [found[known[:, i], i].unsqueeze(1) for i in (known.any(0) & ~known.all(0)).nonzero()[:, 0]]
    for columns in (*(e.columns for e in tokens.edges), *(t.columns for t in tokens.tensors)):
        blocks += [c[c >= 0].unsqueeze(1) for c in flat[columns].unbind(-1)]
    free = flat[tokens.free]
    blocks.append(free[free >= 0].unsqueeze(0))
    return Exchangeability(tokens, [block for block in blocks if block.numel()])


def fit_exchangeable(geometry: Geometry, x: Tensor, shrinkage: float) -> WrappedGaussian:
    """The Gaussian of all reorderings of points (n, size), each covariance shrunk towards its diagonal."""
    manifold, exchangeable = geometry.manifold, exchangeability_of(geometry)
    mean = frechet_mean(manifold, x, exchangeable.symmetric)[0]
    sums = [CovarianceSums(len(x) * len(block), block.shape[1], shrinkage) for block in exchangeable.blocks]
    for z in tangent_coordinates(manifold, mean, x):
        for block, copies in zip(exchangeable.blocks, sums, strict=True):
            copies.add(z[:, block.reshape(-1)].reshape(-1, block.shape[1]))
    parts = [copies.covariance() for copies in sums]
    return WrappedGaussian(manifold, mean, Blocks(tuple(zip(exchangeable.blocks, parts, strict=True))))


def restore_exchangeable(geometry: Geometry, arrays: dict[str, Tensor]) -> WrappedGaussian:
    """The Gaussian that is made of what `WrappedGaussian.arrays` gave."""
    blocks = exchangeability_of(geometry).blocks
    parts = [
        covariance_of({k.partition(".")[2]: v for k, v in arrays.items() if k.startswith(f"{i}.")})
        for i in range(len(blocks))
    ]
    return WrappedGaussian(geometry.manifold, arrays["mean"], Blocks(tuple(zip(blocks, parts, strict=True))))


def exchangeable_of_width(source: WrappedGaussian, fitted: Geometry, geometry: Geometry) -> WrappedGaussian:
    """The Gaussian of `fit_exchangeable` in one geometry, for the same layers with other hidden widths."""
    old, new = _tokens(fitted), exchangeability_of(geometry)
    m, tokens = source.mean, new.tokens
    features = [m[a][:1].expand(len(b), -1) for a, b in zip(old.features, tokens.features, strict=True)]
    edges = [m[a.columns][:1, :1].expand(b.columns.shape) for a, b in zip(old.edges, tokens.edges, strict=True)]
    pairs = zip(old.tensors, tokens.tensors, strict=True)
    tensors = [_pooled(m, a.columns).expand(b.columns.shape).unsqueeze(0) for a, b in pairs]
    free = m[old.free].unsqueeze(0)
    mean = tokens.join([f.unsqueeze(0) for f in features], [e.unsqueeze(0) for e in edges], free, tensors)
    covariance: Any = source.covariance
    parts = tuple((columns, part) for columns, (_, part) in zip(new.blocks, covariance.parts, strict=True))
    return WrappedGaussian(geometry.manifold, geometry.manifold.projection(mean)[0], Blocks(parts))


def _tokens(geometry: Geometry) -> NeuronTokens:
    if geometry.layout is None:
        raise ValueError("source='exchangeable' knows neurons, so it needs an architecture: fit a WeightArray.")
    return NeuronTokens(geometry.layout, geometry.n_extra)


def _pooled(v: Tensor, columns: Tensor) -> Tensor:
    """The mean of a vector over all axes of columns but the last one."""
    return v[columns].mean(tuple(range(columns.dim() - 1)), keepdim=True)


def _coordinates(manifold: Product) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Coordinates of the tangent space: of each flat column (-1 on spheres), and of the copies of each sphere."""
    flat = torch.full((manifold.size,), -1)
    spheres, start = [], 0
    for factor, columns in manifold.factors:
        stop = start + len(columns) * factor.dimension
        coordinates = torch.arange(start, stop).reshape(len(columns), factor.dimension)
        if isinstance(factor, Sphere):
            spheres.append((columns, coordinates))
        elif factor.dimension:
            flat[columns] = coordinates
        start = stop
    return flat, spheres


def _group_of(columns: Tensor, tokens: NeuronTokens) -> int | None:
    """The group whose neurons have the rows of columns (copies, k) among their own, in their order."""
    for group, features in enumerate(tokens.features):
        if len(columns) == len(features) and all(
            bool(torch.isin(row, own).all()) for row, own in zip(columns, features, strict=True)
        ):
            return group
    return None
