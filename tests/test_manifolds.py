"""Manifolds: exponentials, logarithms and geodesics, against each other, finite differences and geomstats."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest
import torch

from wsflow.manifolds import Euclidean, Product, Sphere

MANIFOLDS = {
    "line": Euclidean(1),
    "space": Euclidean(5),
    "circle": Sphere(2),
    "sphere": Sphere(3),
    "hypersphere": Sphere(32),
    "product": Product(
        [
            (Sphere(3), torch.tensor([[7, 0, 3], [1, 9, 2]])),
            (Euclidean(2), torch.tensor([[5, 4]])),
            (Sphere(2), torch.tensor([[6, 8]])),
        ]
    ),
}
SPHERES = ["circle", "sphere", "hypersphere"]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def points(manifold, n: int = 50, seed: int = 0) -> torch.Tensor:
    """Points of a manifold."""
    return manifold.projection(drawn(n, manifold.size, seed=seed))


def tangents(manifold, x: torch.Tensor, seed: int = 9) -> torch.Tensor:
    """Tangent vectors that stay within the radius of injectivity of each factor."""
    v = manifold.to_tangent(x, drawn(*x.shape, seed=seed))
    return v / v.norm(dim=-1, keepdim=True).clamp_min(1e-9) * torch.linspace(0.01, 3.1, len(x)).unsqueeze(1).double()


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-12) -> None:
    """Equal up to rounding."""
    torch.testing.assert_close(a, b, rtol=atol, atol=atol)


def pair(distance: float, dtype: torch.dtype, antipodal: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Two points of S^2 at a distance, or at that distance from being antipodal; both are exact in any dtype."""
    x = torch.tensor([[1.0, 0.0, 0.0]], dtype=dtype)
    angle = torch.tensor(distance, dtype=torch.float64)
    y = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)]).unsqueeze(0).to(dtype)
    return x, y * torch.tensor([-1.0, 1.0, 1.0], dtype=dtype) if antipodal else y


@pytest.fixture(params=MANIFOLDS)
def manifold(request):
    """Each manifold."""
    return MANIFOLDS[request.param]


class TestEveryManifold:
    """What holds on any of them."""

    def test_points_belong_and_others_do_not(self, manifold):
        x = points(manifold)
        assert manifold.belongs(x, 1e-12).all()
        assert manifold.belongs(x, 1e-12).shape == (50,)
        assert not manifold.belongs(x * float("nan"), 1e-12).any()
        if not isinstance(manifold, Euclidean):
            assert not manifold.belongs(1.01 * x, 1e-3).any()
            assert manifold.belongs(1.01 * x, 2e-2).all()

    def test_projections_are_projections(self, manifold):
        x, v = drawn(50, manifold.size), drawn(50, manifold.size, seed=1)
        p = manifold.projection(x)
        close(manifold.projection(p), p)
        tangent = manifold.to_tangent(p, v)
        close(manifold.to_tangent(p, tangent), tangent)
        # what is taken off is normal: orthogonal to every tangent vector
        other = manifold.to_tangent(p, drawn(50, manifold.size, seed=2))
        close(((v - tangent) * other).sum(-1), torch.zeros(50, dtype=torch.float64))

    def test_tangent_vectors_are_velocities_of_curves(self, manifold):
        x, h = points(manifold), 1e-5
        v = tangents(manifold, x)
        slope = (manifold.projection(x + h * v) - manifold.projection(x - h * v)) / (2 * h)
        close(slope, v, 1e-8)

    def test_dimension_is_the_rank_of_the_tangent_projection(self, manifold):
        x = points(manifold, 1)
        rows = manifold.to_tangent(x.expand(manifold.size, -1), torch.eye(manifold.size, dtype=torch.float64))
        assert int(torch.linalg.matrix_rank(rows)) == manifold.dimension

    def test_log_undoes_exp(self, manifold):
        x = points(manifold)
        v = tangents(manifold, x)
        y = manifold.exp(x, v)
        assert manifold.belongs(y, 1e-14).all()
        # arguments near pi lose digits: sin(theta) is small there
        close(manifold.log(x, y), v, 1e-11)

    def test_exp_undoes_log(self, manifold):
        x, y = points(manifold), points(manifold, seed=1)
        v = manifold.log(x, y)
        close(manifold.to_tangent(x, v), v)
        close(manifold.exp(x, v), y)

    def test_distance_is_symmetric(self, manifold):
        x, y = points(manifold), points(manifold, seed=1)
        close(manifold.log(x, y).norm(dim=-1), manifold.log(y, x).norm(dim=-1))

    def test_geodesics_start_and_end_where_they_should(self, manifold):
        x, y = points(manifold), points(manifold, seed=1)
        zeros, ones = torch.zeros(50, dtype=torch.float64), torch.ones(50, dtype=torch.float64)
        start, velocity = manifold.geodesic(x, y, zeros)
        close(start, x)
        close(velocity, manifold.log(x, y))
        end, velocity = manifold.geodesic(x, y, ones)
        close(end, y)
        close(velocity, -manifold.log(y, x))

    def test_velocities_of_geodesics_are_their_derivatives(self, manifold):
        x, y, h = points(manifold), points(manifold, seed=1), 1e-6
        t = torch.linspace(0.05, 0.95, 50, dtype=torch.float64)
        slope = (manifold.geodesic(x, y, t + h)[0] - manifold.geodesic(x, y, t - h)[0]) / (2 * h)
        point, velocity = manifold.geodesic(x, y, t)
        close(slope, velocity, 1e-8)
        close(manifold.to_tangent(point, velocity), velocity)
        assert manifold.belongs(point, 1e-14).all()

    def test_geodesics_have_constant_speed(self, manifold):
        x, y = points(manifold), points(manifold, seed=1)
        t = torch.linspace(0, 1, 50, dtype=torch.float64)
        point, velocity = manifold.geodesic(x, y, t)
        length = manifold.log(x, y).norm(dim=-1)
        close(velocity.norm(dim=-1), length)
        # and what is left of them is the rest of the way
        close(manifold.log(point, y), (1 - t).unsqueeze(1) * velocity)

    def test_geomstats_agrees(self, manifold):
        if isinstance(manifold, Product):
            pytest.skip("a product is compared factor after factor below")
        space = manifold.geomstats()
        x, y = points(manifold), points(manifold, seed=1)
        v = tangents(manifold, x)
        assert space.dim == manifold.dimension
        np.testing.assert_allclose(manifold.exp(x, v), space.metric.exp(v.numpy(), x.numpy()), atol=1e-10)
        np.testing.assert_allclose(manifold.log(x, y), space.metric.log(y.numpy(), x.numpy()), atol=1e-10)
        np.testing.assert_allclose(manifold.log(x, y).norm(dim=-1), space.metric.dist(x.numpy(), y.numpy()), atol=1e-10)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_dtype_is_kept(self, manifold, dtype):
        x, y = points(manifold).to(dtype), points(manifold, seed=1).to(dtype)
        v, t = manifold.log(x, y), torch.full((50,), 0.3, dtype=dtype)
        for result in (v, manifold.exp(x, v), manifold.projection(2 * x), *manifold.geodesic(x, y, t)):
            assert result.dtype == dtype
        close(manifold.exp(x, v).double(), y.double(), 2e-6 if dtype == torch.float32 else 1e-12)


class TestDegeneratePairs:
    """Coincident and antipodal points of a sphere, and those that nearly are."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("distance", [1e-4, 1e-6, 1e-8, 1e-10, 1e-12])
    def test_short_distances_keep_their_digits(self, distance, dtype):
        x, y = pair(distance, dtype)
        found = float(Sphere(3).log(x, y).norm())
        assert found == pytest.approx(distance, rel=1e-6 if dtype == torch.float32 else 1e-12)

    def test_short_distances_between_any_points(self):
        sphere = Sphere(10)
        x = points(sphere)
        v = tangents(sphere, x)
        y = sphere.exp(x, 1e-8 * v)
        # coordinates are rounded to 1e-16, so the eighth digit is the last
        torch.testing.assert_close(sphere.log(x, y), 1e-8 * v, rtol=0, atol=1e-15)

    @pytest.mark.parametrize("distance", [1e-4, 1e-6, 1e-8, 1e-10, 1e-12])
    def test_almost_antipodal_distances_keep_their_digits(self, distance):
        x, y = pair(distance, torch.float64, antipodal=True)
        assert pi - float(Sphere(3).log(x, y).norm()) == pytest.approx(distance, abs=1e-15)

    @pytest.mark.parametrize("name", SPHERES)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_antipodal_points_have_a_shortest_geodesic(self, name, dtype):
        sphere = MANIFOLDS[name]
        x = points(sphere).to(dtype)
        v = sphere.log(x, -x)
        tolerance = 1e-5 if dtype == torch.float32 else 1e-12
        close(v.norm(dim=-1), torch.full((50,), pi, dtype=dtype), tolerance)
        close(sphere.exp(x, v), -x, tolerance)
        middle, _ = sphere.geodesic(x, -x, torch.full((50,), 0.5, dtype=dtype))
        close((middle * x).sum(-1), torch.zeros(50, dtype=dtype), tolerance)

    def test_no_path_connects_the_two_points_of_the_smallest_one(self):
        x = torch.tensor([[1.0], [-1.0]])
        assert Sphere(1).log(x, -x).tolist() == [[0.0], [0.0]]
        assert torch.equal(Sphere(1).exp(x, Sphere(1).log(x, -x)), x)

    @pytest.mark.parametrize("antipodal", [False, True])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("distance", [0.0, 1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-4])
    def test_values_and_gradients_are_finite(self, distance, dtype, antipodal):
        sphere = Sphere(3)
        x, y = (p.requires_grad_() for p in pair(distance, dtype, antipodal))
        for t in (0.0, 0.5, 1.0):
            point, velocity = sphere.geodesic(x, y, torch.full((1,), t, dtype=dtype))
            log = sphere.log(x, y)
            results = (point, velocity, log, log.norm(dim=-1), sphere.exp(x, log))
            for result in results:
                assert result.isfinite().all()
                for gradient in torch.autograd.grad(result.sum(), (x, y), retain_graph=True):
                    assert gradient.isfinite().all()

    @pytest.mark.parametrize("distance", [1e-8, 1e-6, 1e-4, 1e-2, 1.0, 3.0])
    def test_the_gradient_of_the_squared_distance_is_minus_twice_the_log(self, distance):
        sphere = Sphere(3)
        x, y = pair(distance, torch.float64)
        y.requires_grad_()
        (gradient,) = torch.autograd.grad(sphere.log(x, y).square().sum(), y)
        expected = -2 * sphere.log(y, x).detach()
        torch.testing.assert_close(sphere.to_tangent(y, gradient).detach(), expected, rtol=1e-8, atol=1e-15)

    @pytest.mark.parametrize("length", [0.0, 1e-12, 1e-8, 1e-4, 1.0])
    def test_the_derivative_of_exp_is_finite_and_right(self, length):
        sphere, x = Sphere(3), torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
        v = torch.tensor([[0.0, length, 0.0]], dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(lambda v: sphere.exp(x, v), v).reshape(3, 3)
        along = torch.tensor([-np.sin(length), np.cos(length), 0.0])
        across = torch.tensor([0.0, 0.0, np.sinc(length / pi)])
        close(jacobian[:, 1:], torch.stack([along, across], 1), 1e-9)

    def test_the_zero_vector_is_projected_to_something_finite(self):
        assert Sphere(3).projection(torch.zeros(2, 3)).isfinite().all()


class TestProduct:
    """Many factors over the columns of one vector."""

    product = MANIFOLDS["product"]

    def test_split_and_join_undo_each_other(self):
        x = drawn(4, 7, 10)
        parts = self.product.split(x)
        assert [tuple(part.shape) for part in parts] == [(4, 7, 2, 3), (4, 7, 1, 2), (4, 7, 1, 2)]
        assert torch.equal(parts[0][..., 1, :], x[..., [1, 9, 2]])
        assert torch.equal(self.product.join(parts), x)

    @pytest.mark.parametrize("name", ["exp", "log", "to_tangent"])
    def test_maps_are_those_of_a_loop_over_the_factors(self, name):
        x, y = points(self.product), points(self.product, seed=1)
        other = y if name == "log" else self.product.log(x, y)
        expected = torch.empty_like(x)
        for factor, columns in self.product.factors:
            for copy in columns:
                expected[:, copy] = getattr(factor, name)(x[:, copy], other[:, copy])
        close(getattr(self.product, name)(x, other), expected, 1e-15)

    def test_geodesics_are_those_of_a_loop_over_the_factors(self):
        x, y = points(self.product), points(self.product, seed=1)
        t = torch.linspace(0, 1, 50, dtype=torch.float64)
        point, velocity = self.product.geodesic(x, y, t)
        for factor, columns in self.product.factors:
            for copy in columns:
                expected = factor.geodesic(x[:, copy], y[:, copy], t)
                close(point[:, copy], expected[0], 1e-15)
                close(velocity[:, copy], expected[1], 1e-15)

    def test_geomstats_agrees(self):
        space, order = self.product.geomstats(), self.product.order
        x, y = points(self.product), points(self.product, seed=1)
        a, b = x[:, order].numpy(), y[:, order].numpy()
        v = self.product.log(x, y)
        assert space.dim == self.product.dimension == 7
        assert space.belongs(a).all()
        np.testing.assert_allclose(v[:, order], space.metric.log(b, a), atol=1e-10)
        expected = space.metric.exp(0.7 * v[:, order].numpy(), a)
        np.testing.assert_allclose(self.product.exp(x, 0.7 * v)[:, order], expected, atol=1e-10)
        np.testing.assert_allclose(v.norm(dim=-1), space.metric.dist(a, b), atol=1e-10)

    @pytest.mark.parametrize("columns", [[[0, 1], [1, 2]], [[0, 1], [3, 4]]])
    def test_columns_are_covered_once(self, columns):
        with pytest.raises(ValueError, match="every column once"):
            Product([(Sphere(2), torch.tensor(columns))])

    def test_a_flat_product_is_euclidean(self):
        flat = Product([(Euclidean(2), torch.tensor([[2, 0]])), (Euclidean(1), torch.tensor([[1]]))])
        x, y = drawn(5, 3), drawn(5, 3, seed=1)
        assert flat.is_flat
        assert not self.product.is_flat
        assert torch.equal(flat.log(x, y), y - x)
        assert torch.equal(flat.geodesic(x, y, torch.zeros(5).double())[0], x)


@pytest.mark.parametrize(("size", "area"), [(2, 2 * pi), (3, 4 * pi), (4, 2 * pi**2)])
def test_areas_of_spheres(size, area):
    assert Sphere(size).log_volume == pytest.approx(np.log(area))
