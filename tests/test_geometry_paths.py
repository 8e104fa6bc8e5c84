"""What every geometry's flow does, whatever the architecture: tangent velocities, geodesic paths, points in place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from wsflow.activations import ACTIVATIONS
from wsflow.architecture import Architecture
from wsflow.flow.solvers import TABLEAUX, integrate
from wsflow.flow.sources import Isotropic, WrappedGaussian
from wsflow.flow.velocity import VelocityField
from wsflow.geometry import GEOMETRIES, Geometry
from wsflow.manifolds import Euclidean, Sphere
from wsflow.metanetworks.velocity import velocity_network
from wsflow.symmetry.canonical import canonical_action
from wsflow.testing import architectures

CURVED = ["relu", "leaky_relu", "sine", "cosine", "identity", "tanh"]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


@st.composite
def geometries(draw, names=tuple(GEOMETRIES)) -> Geometry:
    """Any geometry of any small network, with any treatment of its last layer and biases."""
    architecture = draw(architectures(max_width=4, max_depth=2, activations=CURVED))
    options = draw(st.sampled_from(["euclidean", "polar"])), draw(st.sampled_from(["inside", "outside"]))
    return GEOMETRIES[draw(st.sampled_from(names))](architecture, *options)


def points(geometry: Geometry, n: int = 6, seed: int = 0) -> torch.Tensor:
    """Canonical networks of random weights as points."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(n, geometry.architecture.n_weights, generator=generator, dtype=torch.float64)
    return geometry.target.projection(geometry.to_points(canonical_action(w, geometry.architecture)(w)))


def velocity(geometry: Geometry, kind: str, prediction: str, seed: int) -> VelocityField:
    """A velocity field with a random network, and a source fitted to random points."""
    options = {"dim": 32} if kind == "mlp" else {"dim": 8, "heads": 2, "identity": "learned"}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = velocity_network(kind, geometry.layout, geometry.n_extra, depth=1, **options)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.5)
    prior = WrappedGaussian.fit(geometry.manifold, points(geometry, seed=seed + 1))
    return VelocityField(network, geometry.manifold, prior, prediction).requires_grad_(False)


@settings(max_examples=40)
@given(
    geometries(),
    st.sampled_from(["neuron", "mlp", "relational"]),
    st.sampled_from(["preconditioned", "x1", "velocity"]),
    st.sampled_from(list(TOLERANCE)),
    st.integers(0, 1000),
)
def test_velocities_are_tangent_at_any_point_and_time(geometry, kind, prediction, dtype, seed):
    field = velocity(geometry, kind, prediction, seed).to(dtype)
    # off the data, too: anywhere on the manifold
    x = geometry.manifold.projection(torch.randn(9, geometry.manifold.size, dtype=torch.float64)).to(dtype)
    t = torch.linspace(0, 1, 9, dtype=dtype)
    v = field(x, t)
    assert v.abs().max() > 0
    scale = float(v.abs().max().clamp_min(1))
    torch.testing.assert_close(
        geometry.manifold.to_tangent(x, v), v, rtol=10 * TOLERANCE[dtype], atol=10 * scale * TOLERANCE[dtype]
    )
    for (factor, _), part, at in zip(
        geometry.manifold.factors, geometry.manifold.split(v), geometry.manifold.split(x), strict=True
    ):
        if isinstance(factor, Sphere):
            assert (part * at).sum(-1).abs().max() <= 10 * scale * TOLERANCE[dtype]


@settings(max_examples=40)
@given(geometries(), st.integers(0, 1000))
def test_paths_are_shortest_geodesics(geometry, seed):
    """Great circles of constant speed, in one plane, no longer than half of the circle; straight lines elsewhere."""
    manifold = geometry.manifold
    x0, x1 = (points(geometry, seed=seed + i) for i in range(2))
    times = [torch.full((6,), t, dtype=torch.float64) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    way, speeds = zip(*(manifold.geodesic(x0, x1, t) for t in times), strict=True)
    length = manifold.log(x0, x1).norm(dim=-1)
    for t, x, v in zip(times, way, speeds, strict=True):
        assert manifold.belongs(x, 1e-12).all()
        torch.testing.assert_close(v.norm(dim=-1), length, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(manifold.log(x0, x).norm(dim=-1), t * length, rtol=1e-9, atol=1e-9)
    for (factor, _), *parts in zip(manifold.factors, *(manifold.split(x) for x in way), strict=True):
        start, *middle, end = parts
        if isinstance(factor, Euclidean):
            torch.testing.assert_close(middle[1], (start + end) / 2, rtol=1e-12, atol=1e-12)
            continue
        assert (factor.log(start, end).norm(dim=-1) <= np.pi + 1e-12).all()
        # the middle of a great circle's shorter arc is in the middle of its chord, put on the sphere
        torch.testing.assert_close(middle[1], factor.projection(start + end), rtol=1e-6, atol=1e-6)


@settings(max_examples=15)
@given(geometries(("geometric",)), st.integers(0, 1000))
def test_geomstats_has_the_same_paths(geometry, seed):
    manifold = geometry.manifold
    # it has no sphere of two points
    assume(all(factor.dimension > 0 for factor, _ in manifold.factors))
    x0, x1 = (points(geometry, 3, seed + i) for i in range(2))
    a, b = (x[:, manifold.order].numpy() for x in (x0, x1))
    path = manifold.geomstats().metric.geodesic(initial_point=a, end_point=b)
    for t in (0.2, 0.7):
        found = manifold.geodesic(x0, x1, torch.full((3,), t, dtype=torch.float64))[0][:, manifold.order]
        np.testing.assert_allclose(found, np.asarray(path(t)).reshape(3, -1), atol=1e-8)


@settings(max_examples=25)
@given(
    geometries(), st.sampled_from(sorted(TABLEAUX)), st.sampled_from(list(TOLERANCE)), st.booleans(), st.integers(0, 99)
)
def test_samples_lie_on_the_manifold_and_are_runnable(geometry, method, dtype, fitted, seed):
    field = velocity(geometry, "mlp", "preconditioned", seed).to(dtype)
    scale = torch.ones(geometry.manifold.size, dtype=torch.float64)
    prior = field.source if fitted else Isotropic(geometry.manifold, scale)
    x = prior.sample(5, torch.Generator().manual_seed(seed)).to(dtype)
    assert geometry.manifold.belongs(x, TOLERANCE[dtype]).all()
    end, _ = integrate(lambda x, t: (0.2 * field(x, t), None), x, geometry.manifold, method, 4)
    assert geometry.manifold.belongs(end, TOLERANCE[dtype]).all()
    networks = geometry.to_weights(geometry.target.projection(end))
    assert networks.shape == (5, geometry.architecture.n_weights)
    assert networks.isfinite().all()
    # a log-norm of 10 is a network's, too, but its rounding is not that of a unit vector
    on_target = geometry.target.projection(end)
    assert geometry.target.belongs(on_target, TOLERANCE[dtype]).all()


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_output_layer_keeps_its_scale_in_every_geometry(name, activation):
    """Only the direction of hidden neurons is fixed: twice the last layer is twice the logits, and another point."""
    architecture = Architecture.mlp([3, 4, 2], activation)
    w = torch.randn(5, architecture.n_weights, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    w = canonical_action(w, architecture)(w)
    twice = w.clone()
    twice[:, architecture.output_columns] *= 2
    for last_layer in ("euclidean", "polar"):
        geometry = GEOMETRIES[name](architecture, last_layer)
        geometry.check(twice, 1e-12)
        torch.testing.assert_close(geometry.to_weights(geometry.to_points(twice)), twice, rtol=1e-12, atol=1e-12)
        assert not torch.allclose(geometry.to_points(twice), geometry.to_points(w))
