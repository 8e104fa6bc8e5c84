"""Log-densities against closed forms (Gaussians, spheres, conformal flows); integral 1; Hutchinson; order."""

from __future__ import annotations

from functools import partial
from math import log, pi

import numpy as np
import pytest
import torch
from scipy import stats

from wsflow.flow.adaptive import integrate_adaptive
from wsflow.flow.covariance import Triangular
from wsflow.flow.divergence import DIVERGENCES, Rate, mean_and_error
from wsflow.flow.likelihood import log_density, sample_with_log_density
from wsflow.flow.solvers import integrate
from wsflow.flow.sources import Isotropic, WrappedGaussian
from wsflow.manifolds import Euclidean, Product, Sphere
from wsflow.metanetworks.velocity import VelocityNetwork, velocity_network

SPACE = Product([(Euclidean(4), torch.tensor([[2, 0, 3, 1]]))])
SPHERE = Product([(Sphere(3), torch.tensor([[0, 1, 2]]))])
MIXED = Product([(Sphere(3), torch.tensor([[4, 0, 2]])), (Euclidean(2), torch.tensor([[1, 3]]))])
AXIS = torch.tensor([2.0, -1.0, 2.0], dtype=torch.float64) / 3


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def isotropic(manifold: Product, scale: float = 1.0) -> Isotropic:
    """The isotropic prior of one scale."""
    return Isotropic(manifold, torch.full((manifold.size,), scale, dtype=torch.float64))


def exact(manifold: Product) -> Rate:
    """The trace itself."""
    return DIVERGENCES["exact"].along(torch.eye(manifold.size, dtype=torch.float64))


def density(field, x, manifold, prior, method="midpoint", n_steps=32) -> torch.Tensor:
    """Log-densities by the exact divergence."""
    solver = partial(integrate, method=method, n_steps=n_steps)
    return log_density(field, x, manifold, prior, exact(manifold), solver).squeeze(1)


def between_gaussians(x: torch.Tensor, t: torch.Tensor, source=2.0, target=0.5, mean=1.0) -> torch.Tensor:
    """E[x1 - x0 | xt] from N(0, source^2) to N(mean, target^2)."""
    t = t.unsqueeze(1)
    variance = (1 - t) ** 2 * source**2 + t**2 * target**2
    return mean + (t * target**2 - (1 - t) * source**2) / variance * (x - t * mean)


def turning(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A rotation of the sphere, ever faster: it keeps every volume."""
    return (1 + t).unsqueeze(1) * torch.cross(AXIS.expand_as(x), x, -1)


def rising(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The gradient of the height: a conformal flow with du/dt = 1 - u^2 for the height u."""
    return AXIS - (x @ AXIS).unsqueeze(1) * x


def risen(x: torch.Tensor) -> torch.Tensor:
    """The log-density of the uniform distribution after `rising`."""
    end = x @ AXIS
    start = torch.tanh(torch.atanh(end) - 1)
    return torch.log((1 - start.square()) / (1 - end.square())) - log(4 * pi)


def network(size: int, seed: int = 0) -> VelocityNetwork:
    """A small smooth network in float64 that is not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = velocity_network("mlp", size, dim=16, depth=1)
        torch.nn.init.normal_(made.readout.write.weight, std=0.15)
    return made.double().requires_grad_(False)


def quadrature(n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and weights on S^2: Gauss-Legendre in the height, equal steps around."""
    heights, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(n))
    angles = 2 * pi * torch.arange(2 * n, dtype=torch.float64) / (2 * n)
    radius = (1 - heights.square()).sqrt()
    rings = radius[:, None, None] * torch.stack([angles.cos(), angles.sin()], -1)
    grid = torch.cat([rings, heights[:, None, None].expand(n, 2 * n, 1)], -1)
    return grid.reshape(-1, 3), (weights * pi / n).repeat_interleave(2 * n)


class TestClosedForms:
    """Densities that are known."""

    def test_between_gaussians(self):
        x = 1 + drawn(20, 4)
        found = density(between_gaussians, x, SPACE, isotropic(SPACE, 2.0), "rk4", 64)
        expected = stats.norm(1, 0.5).logpdf(x).sum(1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)

    def test_a_linear_flow_multiplies_by_its_determinant(self):
        matrix = 0.5 * drawn(4, 4)
        x = drawn(20, 4, seed=1)
        found = density(lambda x, t: x @ matrix.T, x, SPACE, isotropic(SPACE), "rk4", 64)
        source = torch.linalg.solve(torch.linalg.matrix_exp(matrix), x.T).T
        expected = stats.norm.logpdf(source).sum(1) - float(matrix.trace())
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
    def test_rotations_keep_the_uniform_distribution(self, method):
        x = SPHERE.projection(drawn(20, 3))
        found = density(turning, x, SPHERE, isotropic(SPHERE), method, 16)
        torch.testing.assert_close(found, torch.full((20,), -log(4 * pi), dtype=torch.float64), rtol=0, atol=1e-12)

    def test_rotations_take_a_wrapped_gaussian_along(self):
        prior = WrappedGaussian(
            SPHERE, SPHERE.projection(drawn(3)), Triangular(0.4 * torch.eye(2, dtype=torch.float64))
        )
        x = SPHERE.projection(prior.mean + 0.5 * drawn(20, 3))
        found = density(turning, x, SPHERE, prior, "rk4", 64)
        a, b, c = (1.5 * AXIS).tolist()
        turn = torch.linalg.matrix_exp(torch.tensor([[0, -c, b], [c, 0, -a], [-b, a, 0]], dtype=torch.float64))
        torch.testing.assert_close(found, prior.log_prob(x @ turn), rtol=0, atol=1e-6)

    def test_a_flow_that_stands_still_has_its_priors_density(self):
        x = MIXED.projection(drawn(20, 5))
        prior = WrappedGaussian.fit(MIXED, x)
        found = density(lambda x, t: torch.zeros_like(x), x, MIXED, prior)
        torch.testing.assert_close(found, prior.log_prob(x))

    def test_the_conformal_flow_of_the_sphere(self):
        """With u the height, artanh(u) grows by 1, and the density is that of u alone: (1 - u0^2)/(1 - u^2)/4 pi."""
        x = SPHERE.projection(drawn(20, 3))
        found = density(rising, x, SPHERE, isotropic(SPHERE), "rk4", 64)
        torch.testing.assert_close(found, risen(x), rtol=0, atol=1e-6)

    def test_factors_of_a_product_add_up(self):
        def both(x, t):
            v = torch.zeros_like(x)
            v = v.index_copy(1, torch.tensor([4, 0, 2]), rising(x[:, [4, 0, 2]], t))
            return v.index_copy(1, torch.tensor([1, 3]), between_gaussians(x[:, [1, 3]], t, source=1.0))

        x = MIXED.projection(drawn(20, 5))
        found = density(both, x, MIXED, isotropic(MIXED), "rk4", 64)
        sphere = density(rising, x[:, [4, 0, 2]], SPHERE, isotropic(SPHERE), "rk4", 64)
        expected = sphere + torch.from_numpy(stats.norm(1, 0.5).logpdf(x[:, [1, 3]]).sum(1))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


class TestIntegral:
    """Densities of flows on spheres integrate to one."""

    @pytest.mark.parametrize("seed", range(3))
    def test_of_a_network(self, seed):
        x, weights = quadrature()
        field = network(3, seed)
        found = density(field, x, SPHERE, isotropic(SPHERE), "midpoint", 24)
        assert float(found.max() - found.min()) > 0.3
        assert float((found.exp() * weights).sum()) == pytest.approx(1, abs=1e-3)

    def test_of_a_network_on_a_circle(self):
        circle = Product([(Sphere(2), torch.tensor([[1, 0]]))])
        angles = 2 * pi * torch.arange(200, dtype=torch.float64) / 200
        x = torch.stack([angles.sin(), angles.cos()], -1)
        found = density(network(2), x, circle, isotropic(circle), "rk4", 24)
        assert float(found.max() - found.min()) > 0.3
        assert float(found.exp().mean()) * 2 * pi == pytest.approx(1, abs=1e-5)

    def test_and_are_those_of_the_samples(self, generator):
        x, weights = quadrature(60)
        masses = density(rising, x, SPHERE, isotropic(SPHERE), "rk4", 16).exp() * weights
        source = isotropic(SPHERE).sample(40_000, generator)
        samples, _ = integrate(lambda x, t: (rising(x, t), None), source, SPHERE, "rk4", 16)
        for height in (-0.5, 0.0, 0.5, 0.9):
            share = float((samples @ AXIS > height).double().mean())
            assert share == pytest.approx(float(masses[x @ AXIS > height].sum()), abs=0.02)


class TestEstimates:
    """Densities by an estimated divergence."""

    @pytest.mark.parametrize("name", [name for name, row in DIVERGENCES.items() if not row.is_exact])
    @pytest.mark.parametrize("manifold", [SPACE, SPHERE, MIXED], ids=["space", "sphere", "mixed"])
    def test_they_scatter_about_the_exact_one(self, name, manifold, generator):
        """Each draw's own, along one path: their mean is off by less than 4 of its standard errors."""
        x = manifold.projection(drawn(4, manifold.size))
        field, prior, row = network(manifold.size), isotropic(manifold), DIVERGENCES[name]
        right = density(field, x, manifold, prior, n_steps=4)
        # a new draw for each: of many in one draw, the sketch alone would be exact in so few dimensions
        rates = [row.along(row.draw(manifold.size, 1, generator)) for _ in range(60)]

        def every(points, v):
            return torch.cat([rate(points, v) for rate in rates], 1)

        estimates = log_density(field, x, manifold, prior, every, partial(integrate, n_steps=4))
        error = estimates.std(1) / 60**0.5
        assert (error > 1e-4).all()
        assert ((estimates.mean(1) - right).abs() < 4 * error).all()

    def test_a_constant_field_has_none(self):
        x = drawn(5, 4)
        found = density(lambda x, t: torch.ones_like(x), x, SPACE, isotropic(SPACE), "euler", 4)
        torch.testing.assert_close(found, isotropic(SPACE).log_prob(x - 1))


class Gaussians:
    """The flow from N(0, I) to N(m, C) in 802 dimensions, with C = H diag(l) H and H a product of two reflections.

    x_t is N(t m, C_t) with C_t = t^2 C + (1 - t)^2 I, and E[x_1 - x_0 | x_t] = m + (t C - (1 - t) I) C_t^-1 (x - t m).
    """

    size = 802
    space = Product([(Euclidean(802), torch.arange(802).unsqueeze(0))])

    def __init__(self, kind: str) -> None:
        spectra = {"isotropic": torch.full((802,), 0.49), "anisotropic": torch.logspace(-1.2, 0.6, 802)}
        self.variance = spectra.get(kind, spectra["anisotropic"]).double()
        self.mirrors = [] if kind != "correlated" else [drawn(802, seed=seed) for seed in (1, 2)]
        self.mean = torch.ones(802, dtype=torch.float64)

    def turned(self, x: torch.Tensor, mirrors: list[torch.Tensor]) -> torch.Tensor:
        """Reflections, one after the other."""
        for w in mirrors:
            x = x - 2 * (x @ w).unsqueeze(-1) * w / w.dot(w)
        return x

    def sample(self, n: int) -> torch.Tensor:
        """n points."""
        return self.mean + self.turned(drawn(n, 802, seed=3) * self.variance.sqrt(), self.mirrors)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """By scipy, with the whole covariance."""
        columns = self.turned(torch.eye(802, dtype=torch.float64), self.mirrors)
        covariance = columns.T @ torch.diag(self.variance) @ columns
        return torch.from_numpy(stats.multivariate_normal(self.mean, covariance).logpdf(x)).reshape(-1)

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The velocity."""
        t = t.unsqueeze(1)
        factor = (t * self.variance - (1 - t)) / (t**2 * self.variance + (1 - t) ** 2)
        inner = self.turned(x - t * self.mean, self.mirrors[::-1])
        return self.mean + self.turned(factor * inner, self.mirrors)


SOLVERS = {
    "rk4": partial(integrate, method="rk4", n_steps=12),
    "dopri5": partial(integrate_adaptive, rtol=1e-4, atol=1e-4),
}


class TestManyDimensions:
    """Gaussians as large as the weights of a 30-16-16-2 network."""

    def prior(self) -> Isotropic:
        """N(0, I)."""
        return isotropic(Gaussians.space)

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["isotropic", "anisotropic", "correlated"])
    @pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
    def test_the_exact_divergence_is_within_a_tenth_of_a_nat(self, kind, solver):
        flow = Gaussians(kind)
        x = flow.sample(3)
        found = log_density(flow, x, flow.space, self.prior(), exact(flow.space), solver).squeeze(1)
        expected = flow.log_prob(x)
        assert float(expected.abs().min()) > 100
        assert float((found - expected).abs().max()) < 0.1

    @pytest.mark.parametrize("name", [name for name, row in DIVERGENCES.items() if not row.is_exact])
    def test_estimates_are_within_two_standard_errors_as_often_as_they_should(self, name, generator):
        """Each of 150 points has probes of its own: a linear field has the same divergence everywhere."""
        flow, row = Gaussians("correlated"), DIVERGENCES[name]
        x = flow.sample(150)
        rate = row.along(torch.stack([row.draw(802, 16, generator) for _ in x], 1))
        solver = SOLVERS["rk4"] if name != "hutch++" else partial(integrate, method="rk4", n_steps=6)
        mean, error = mean_and_error(log_density(flow, x, flow.space, self.prior(), rate, solver))
        off = mean - flow.log_prob(x)
        assert 0.5 < float(error.median()) < 30
        share, expected = float((off.abs() < 2 * error).double().mean()), 1 - 2 * stats.t(15).sf(2)
        assert share == pytest.approx(expected, abs=3.5 * (expected * (1 - expected) / 150) ** 0.5)
        assert float(off.mean().abs()) < 4 * float(off.std()) / 150**0.5


class TestSampling:
    """Densities along the path of samples."""

    @pytest.mark.parametrize("manifold", [SPACE, SPHERE, MIXED], ids=["space", "sphere", "mixed"])
    @pytest.mark.parametrize("name", DIVERGENCES)
    def test_they_are_those_of_the_way_back(self, manifold, name, generator):
        field, prior, row = network(manifold.size), isotropic(manifold), DIVERGENCES[name]
        rate = row.along(row.draw(manifold.size, 2, generator))
        solver = partial(integrate, method="rk4", n_steps=48)
        x, found = sample_with_log_density(field, prior.sample(6, generator), manifold, prior, rate, solver)
        assert manifold.belongs(x, 1e-12).all()
        expected = log_density(field, x, manifold, prior, rate, solver)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        assert not found.requires_grad

    def test_in_closed_form(self, generator):
        prior = isotropic(SPACE, 2.0)
        solver = partial(integrate, method="rk4", n_steps=64)
        x, found = sample_with_log_density(
            between_gaussians, prior.sample(20, generator), SPACE, prior, exact(SPACE), solver
        )
        np.testing.assert_allclose(found[:, 0], stats.norm(1, 0.5).logpdf(x).sum(1), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("kind", ["isotropic", "wrapped"])
    @pytest.mark.parametrize("temperature", [0.3, 1.0, 1.4])
    def test_a_prior_at_a_temperature_is_what_its_moved_points_have(self, kind, temperature, generator):
        """By change of variables: the log-determinant of the move, in coordinates at the centre, is dim log T."""
        prior = isotropic(SPACE, 1.7) if kind == "isotropic" else WrappedGaussian.fit(MIXED, nearby(MIXED))
        manifold = prior.manifold
        x = prior.sample(10, generator)
        moved = manifold.exp(x, (1 - temperature) * prior.to_centre(x))
        expected = prior.log_prob(x) - manifold.dimension * log(temperature)
        if kind == "wrapped":
            before, after = (manifold.split(prior.displacement(p))[0].norm(dim=-1).squeeze(1) for p in (x, moved))
            expected = expected + torch.log(torch.sinc(before / pi) / torch.sinc(after / pi))
        torch.testing.assert_close(prior.at_temperature(temperature).log_prob(moved), expected, rtol=1e-9, atol=1e-9)

    def test_temperatures_draw_what_they_rate(self, generator):
        prior = WrappedGaussian.fit(MIXED, nearby(MIXED))
        states = [torch.Generator().manual_seed(3) for _ in range(2)]
        hot, cold = prior.at_temperature(0.5).sample(10, states[0]), prior.sample(10, states[1])
        torch.testing.assert_close(hot, MIXED.exp(cold, 0.5 * prior.to_centre(cold)), rtol=1e-9, atol=1e-9)


def nearby(manifold: Product) -> torch.Tensor:
    """Points about one point, on spheres within a radius in which geodesics are unique."""
    return manifold.projection(drawn(1, manifold.size, seed=8) + 0.3 * drawn(30, manifold.size, seed=9))


class TestNumerics:
    """Order, batches, gradients."""

    @pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
    @pytest.mark.parametrize("manifold", [SPACE, SPHERE], ids=["space", "sphere"])
    def test_observed_order_of_convergence(self, manifold, method, order):
        x = manifold.projection(drawn(10, manifold.size))
        if manifold is SPHERE:
            field, right = rising, risen(x)
        else:
            field = partial(between_gaussians, source=1.0, target=0.7)
            right = torch.from_numpy(stats.norm(1, 0.7).logpdf(x).sum(1))
        errors = []
        for n in (40, 80, 160):
            found = density(field, x, manifold, isotropic(manifold), method, n)
            errors.append(float((found - right).abs().max()))
        assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx([order] * 2, abs=0.35)

    def test_a_row_has_the_density_that_it_has_in_any_batch(self):
        field, prior = network(5), isotropic(MIXED)
        x = MIXED.projection(drawn(7, 5))
        together = density(field, x, MIXED, prior)
        padded = density(field, torch.cat([x[:3], x[:1].expand(13, -1)]), MIXED, prior)[:3]
        torch.testing.assert_close(padded, together[:3], rtol=1e-12, atol=1e-12)
        order = torch.tensor([4, 2, 0, 6, 5, 3, 1])
        shuffled = density(field, x[order], MIXED, prior)
        torch.testing.assert_close(shuffled, together[order], rtol=1e-12, atol=1e-12)

    def test_it_keeps_no_graph(self):
        x = SPHERE.projection(drawn(3, 3))
        assert not density(rising, x, SPHERE, isotropic(SPHERE)).requires_grad
        with torch.no_grad():
            density(rising, x, SPHERE, isotropic(SPHERE))

    def test_it_asks_for_the_velocity_on_the_manifold_only(self):
        """The field is extended by its values there, whatever a network does elsewhere."""
        seen = []

        def field(x, t):
            seen.append(x.detach())
            return rising(x, t) + 5 * x

        x = SPHERE.projection(drawn(5, 3))
        found = density(field, x, SPHERE, isotropic(SPHERE), "rk4", 8)
        assert all(SPHERE.belongs(points, 1e-12).all() for points in seen)
        # and its normal part, which is not a motion on the sphere, does not count
        torch.testing.assert_close(found, density(rising, x, SPHERE, isotropic(SPHERE), "rk4", 8))
