"""The bridge to geomstats: its manifolds as factors of a flow, with our own kernels as the oracle where there are."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from geomstats.geometry.grassmannian import Grassmannian
from geomstats.geometry.hyperboloid import Hyperboloid
from geomstats.geometry.hypersphere import Hypersphere
from geomstats.geometry.spd_matrices import SPDMatrices
from geomstats.geometry.special_orthogonal import SpecialOrthogonal
from geomstats.geometry.stiefel import Stiefel
from sklearn.base import clone

import wsflow
from wsflow import Architecture, WeightArray, WeightFlow
from wsflow.exceptions import InvalidInputError
from wsflow.flow.frame import Frame
from wsflow.flow.solvers import RungeKutta, integrate
from wsflow.flow.sources import WrappedGaussian
from wsflow.flow.velocity import VelocityField
from wsflow.geometry import Geometry
from wsflow.manifolds import Bridge, Euclidean, Product, Sphere
from wsflow.metanetworks.velocity import velocity_network
from wsflow.models.options import MLP, AdamW, NetworkGeometry, NeuronTransformer

SPACES = {
    "rotations": SpecialOrthogonal(3),
    "sphere": Hypersphere(3),
    "hyperbolic": Hyperboloid(2),
    "positive": SPDMatrices(2),
    "subspaces": Grassmannian(3, 1),
}
ARCHITECTURE = Architecture.mlp([2, 3, 3, 1], "tanh")
N = 6
FAST = {"max_iter": 5, "velocity": NeuronTransformer(8, 1, 2), "solver": RungeKutta(n_steps=3), "random_state": 0}
BLOCKS = {"0.weight": Hypersphere(1), "2.weight": Hyperboloid(2)}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-10) -> None:
    """Equal up to rounding."""
    torch.testing.assert_close(a, b, rtol=atol, atol=atol)


def points(bridge: Bridge, n: int = N, seed: int = 0) -> torch.Tensor:
    """Points not far from one another."""
    centre = {1: torch.eye(bridge.size)[0], 2: torch.eye(*bridge.shape[-2:]).flatten()}[len(bridge.shape)]
    return bridge.projection(centre.double() + 0.3 * drawn(n, bridge.size, seed=seed))


@pytest.fixture(params=SPACES)
def bridge(request) -> Bridge:
    """Each space."""
    return Bridge(SPACES[request.param])


class TestEverySpace:
    """What a flow asks of a manifold."""

    def test_points_belong(self, bridge):
        x = points(bridge)
        assert x.shape == (N, bridge.size)
        assert bridge.belongs(x, 1e-10).tolist() == [True] * N
        close(bridge.projection(x), x, 1e-9)
        if not isinstance(bridge.space, SPDMatrices):
            assert not bridge.belongs(1.1 * x, 1e-4).any()

    def test_tangent_parts_are_tangent_and_linear(self, bridge):
        x, v = points(bridge), drawn(N, bridge.size, seed=1)
        tangent = bridge.to_tangent(x, v)
        close(bridge.to_tangent(x, tangent), tangent)
        close(bridge.to_tangent(x, 2 * v - tangent), 2 * tangent - tangent)
        rank = torch.linalg.matrix_rank(bridge._tangent_matrix(x), rtol=1e-8)
        assert rank.tolist() == [bridge.dimension] * N

    def test_gradients_flow_through_the_tangent_projection(self, bridge):
        x, v = points(bridge), drawn(N, bridge.size, seed=1).requires_grad_()
        close(bridge.to_tangent(x, v).detach(), bridge.to_tangent(x, v.detach()))
        assert torch.autograd.gradcheck(lambda v: bridge.to_tangent(x, v), v)

    def test_exp_and_log_undo_each_other(self, bridge):
        x, y = points(bridge), points(bridge, seed=1)
        v = bridge.log(x, y)
        close(bridge.to_tangent(x, v), v, 1e-8)
        close(bridge.exp(x, v), y, 1e-6)

    def test_geodesics_have_the_velocity_of_their_points(self, bridge):
        x, y, h = points(bridge), points(bridge, seed=1), 1e-5
        t = torch.linspace(0.02, 0.98, N, dtype=torch.float64)
        point, velocity = bridge.geodesic(x, y, t)
        assert bridge.belongs(point, 1e-8).all()
        slope = (bridge.geodesic(x, y, t + h)[0] - bridge.geodesic(x, y, t - h)[0]) / (2 * h)
        close(velocity, slope, 1e-6)
        # constant speed, in the space's own metric
        shape = (N, *bridge.shape)
        squared = bridge.space.metric.squared_norm(
            velocity.reshape(shape).numpy(), base_point=point.reshape(shape).numpy()
        )
        start = bridge.log(x, y).reshape(shape).numpy()
        np.testing.assert_allclose(
            squared, bridge.space.metric.squared_norm(start, x.reshape(shape).numpy()), rtol=1e-5
        )

    def test_rows_that_are_not_finite_stay_so_and_do_not_hurt_the_others(self, bridge):
        x = points(bridge)
        broken = x.clone()
        broken[3] = torch.nan
        close(bridge.projection(broken)[:3], bridge.projection(x)[:3], 1e-14)
        assert bridge.projection(broken)[3].isnan().all()
        assert bridge.belongs(broken, 1e-8).tolist() == [True] * 3 + [False] + [True] * 2

    def test_the_frame_is_orthonormal(self, bridge):
        product = Product([(bridge, torch.arange(2 * bridge.size).reshape(2, -1))])
        x = points(bridge, 2).reshape(-1)
        frame = Frame(product, x)
        z = drawn(5, product.dimension)
        v = frame.vectors(z)
        close(product.to_tangent(x.expand_as(v), v), v, 1e-8)
        close(frame.coordinates(v), z)
        close(v.norm(dim=1), z.norm(dim=1))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_dtype_and_batches_are_kept(self, bridge, dtype):
        x, y = (points(bridge, seed=seed).to(dtype).reshape(2, 3, -1) for seed in (0, 1))
        t = torch.full((2,), 0.3, dtype=dtype)
        for found in (bridge.log(x, y), bridge.to_tangent(x, y), bridge.exp(x, 0 * x), *bridge.geodesic(x, y, t)):
            assert found.dtype == dtype
            assert found.shape == (2, 3, bridge.size)
        one = bridge.log(x[:1, 0], y[:1, 0])
        close(one, bridge.log(x, y)[:1, 0], 1e-5)


class TestAgainstOurSphere:
    """Hypersphere through the bridge, and Sphere."""

    ours, theirs = Sphere(4), Bridge(Hypersphere(3))

    def test_maps_agree(self):
        x, y, v = (drawn(20, 4, seed=seed) for seed in range(3))
        x, y = self.ours.projection(x), self.ours.projection(y)
        close(self.theirs.projection(3 * x), x)
        close(self.theirs.to_tangent(x, v), self.ours.to_tangent(x, v))
        v = self.ours.to_tangent(x, v)
        close(self.theirs.exp(x, v), self.ours.exp(x, v))
        close(self.theirs.log(x, y), self.ours.log(x, y))
        t = torch.linspace(0, 1, 20, dtype=torch.float64)
        for found, expected in zip(self.theirs.geodesic(x, y, t), self.ours.geodesic(x, y, t), strict=True):
            close(found, expected, 1e-8)

    def test_the_derivative_of_the_projection_agrees_on_the_manifold(self):
        x, w = self.ours.projection(drawn(6, 4)), drawn(6, 4, seed=1)
        gradients = []
        for manifold in (self.ours, self.theirs):
            at = x.clone().requires_grad_()
            (gradient,) = torch.autograd.grad((manifold.projection(at) * w).sin().sum(), at)
            gradients.append(gradient)
        close(*gradients)

    def test_flows_agree(self):
        """The same network and the same source, so the same loss and the same samples."""
        columns = torch.arange(8).reshape(2, 4)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = velocity_network("mlp", 8, dim=8, depth=1).double()
            torch.nn.init.normal_(network.readout.write.weight, std=0.3)
        x, ends = Product([(self.ours, columns)]).projection(drawn(6, 8)), []
        for factor in (self.ours, self.theirs):
            manifold = Product([(factor, columns)])
            prior = WrappedGaussian.fit(manifold, manifold.projection(drawn(40, 8, seed=2)))
            field = VelocityField(network, manifold, prior, "preconditioned").requires_grad_(False)
            ends.append(integrate(lambda x, t, f=field: (f(x, t), None), x, manifold, "midpoint", 8)[0])
        close(*ends, 1e-8)


def test_frames_that_are_close():
    """The logarithm of Stiefel manifolds is an iteration, which converges for near frames of at most half the size."""
    frames = Bridge(Stiefel(4, 2))
    x, y = (frames.projection(torch.eye(4, 2).double().flatten() + 0.1 * drawn(3, 8, seed=seed)) for seed in (0, 1))
    point, velocity = frames.geodesic(x, y, torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64))
    assert frames.belongs(point, 1e-9).all()
    close(frames.to_tangent(point, velocity), velocity, 1e-7)
    close(frames.exp(x, frames.log(x, y)), y, 1e-7)


def networks(n: int = 30, dtype=np.float64) -> WeightArray:
    """Networks whose first matrix has unit rows, and whose second one has rows of a hyperbolic plane."""
    geometry = Geometry.from_manifolds(ARCHITECTURE, BLOCKS)
    centre = drawn(1, ARCHITECTURE.n_weights)
    rows = geometry.target.projection(centre + 0.3 * drawn(n, ARCHITECTURE.n_weights, seed=1))
    return WeightArray(rows.numpy().astype(dtype), ARCHITECTURE)


class TestOwnBlocks:
    """Geometries by name of the parameter."""

    def test_factors_lie_where_their_parameters_are(self):
        geometry = Geometry.from_manifolds(ARCHITECTURE, {"2.weight": Sphere(3), "4.bias": Euclidean(1)}, "euclidean")
        found = [(type(factor).__name__, columns.tolist()) for factor, columns in geometry.manifold.factors[:2]]
        assert found == [("Sphere", [[9, 10, 11], [12, 13, 14], [15, 16, 17]]), ("Euclidean", [[24]])]
        assert geometry.has_density
        assert not Geometry.from_manifolds(ARCHITECTURE, BLOCKS).has_density
        polar = Geometry.from_manifolds(ARCHITECTURE, BLOCKS, "polar")
        assert polar.manifold.size == ARCHITECTURE.n_weights + 1

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"velocity": MLP(32, 1)},
            {"geometry": NetworkGeometry(BLOCKS, "polar")},
            {"coupling": "ot"},
            {"source": "isotropic"},
        ],
    )
    def test_samples_lie_on_the_manifolds(self, settings, dtype):
        flow = WeightFlow(**{"geometry": BLOCKS} | FAST | settings).fit(networks(dtype=dtype))
        new = flow.sample(4, random_state=0)
        assert new.dtype == dtype
        for name, space in BLOCKS.items():
            part = np.asarray(new[:, ARCHITECTURE.slices[name]], dtype=float).reshape(-1, *space.shape)
            assert space.belongs(part, atol=2e-6 if dtype == np.float32 else 1e-12).all()
        assert flow.manifold_.dim == flow.geometry_.manifold.dimension
        assert flow.to_manifold(networks(dtype=dtype)).shape == (30, flow.geometry_.manifold.size)

    def test_rotations(self):
        """With a uniform source, whose sampling needs no logarithm: those of matrices are slow."""
        rows = 0.1 * drawn(12, ARCHITECTURE.n_weights)
        blocks = {"2.weight": SpecialOrthogonal(3)}
        rows[:, ARCHITECTURE.slices["2.weight"]] += torch.eye(3).flatten()
        rows = Geometry.from_manifolds(ARCHITECTURE, blocks).target.projection(rows)
        flow = WeightFlow(geometry=blocks, source="isotropic", training=AdamW(batch_size=6), **FAST)
        new = flow.fit(WeightArray(rows.numpy(), ARCHITECTURE)).sample(4, random_state=0)
        found = np.asarray(new[:, ARCHITECTURE.slices["2.weight"]]).reshape(4, 3, 3)
        np.testing.assert_allclose(found @ found.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (4, 3, 3)), atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(found), 1, atol=1e-12)

    def test_networks_before_training_are_put_on_the_manifolds(self):
        flow = WeightFlow(geometry=BLOCKS, source="initialisation", **FAST).fit(networks())
        source = flow.source_.sample(5, torch.Generator().manual_seed(0))
        assert flow.geometry_.manifold.belongs(source, 1e-10).all()
        flow.geometry_.check(torch.from_numpy(np.array(flow.sample(3, random_state=0))), 1e-10)

    def test_guidance_goes_through_the_bridge(self):
        rng = np.random.default_rng(0)
        task = wsflow.Task(rng.normal(size=(30, 2)), rng.normal(size=(30, 1)), loss="mse")
        flow = WeightFlow(geometry=BLOCKS, **FAST).fit(networks())
        plain, guided = (flow.sample(4, random_state=0, guidance=g) for g in (None, wsflow.Guidance(task)))
        assert not np.allclose(plain, guided)
        flow.geometry_.check(torch.from_numpy(np.array(guided)), 1e-6)

    def test_it_is_an_estimator_like_others(self):
        flow = WeightFlow(geometry=BLOCKS, **FAST)
        copied = clone(flow)
        assert list(copied.get_params()["geometry"]) == list(BLOCKS)
        expected = flow.fit(networks()).sample(3, random_state=0)
        assert np.array_equal(copied.fit(networks()).sample(3, random_state=0), expected)
        for again in (pickle.loads(pickle.dumps(flow)), copy.deepcopy(flow)):
            assert np.array_equal(again.sample(3, random_state=0), expected)

    def test_what_is_not_possible_is_said(self, tmp_path):
        flow = WeightFlow(geometry=BLOCKS, **FAST).fit(networks())
        with pytest.raises(ValueError, match=r"vector spaces and spheres.*wsflow.manifolds.Sphere"):
            flow.score_samples(networks())
        with pytest.raises(InvalidInputError, match=r"geometry.*is of the type .*, which is not saved"):
            wsflow.save_model(flow, tmp_path / "flow.st")
        bad = networks()
        bad[2, :6] *= 2
        with pytest.raises(
            InvalidInputError, match=r"1 of 30 rows, the first of them row 2, .* '0.weight', '2.weight'"
        ):
            WeightFlow(geometry=BLOCKS, **FAST).fit(bad)

    @pytest.mark.parametrize(
        ("blocks", "last_layer", "message"),
        [
            ({"1.weight": Stiefel(3, 2)}, "euclidean", "'1.weight', which this architecture does not have: it has 0.w"),
            ({"0.weight": Stiefel(2, 1)}, "euclidean", r"the shape \(3, 2\).*Stiefel, \(2, 1\)"),
            ({"4.weight": Hypersphere(2)}, "polar", "'4.weight' has a manifold of its own.*last_layer='euclidean'"),
            ({"0.weight": object()}, "euclidean", "object is not a manifold for a flow: it has no shape, dim"),
            ({"0.weight": SpecialOrthogonal(3, equip=False)}, "euclidean", "has no metric"),
        ],
    )
    def test_errors_are_sentences_with_the_remedy(self, blocks, last_layer, message):
        with pytest.raises(ValueError, match=message):
            WeightFlow(geometry=NetworkGeometry(blocks, last_layer=last_layer), **FAST).fit(networks())
