"""Log-densities against closed forms (Gaussians, spheres, conformal flows); integral 1; Hutchinson; order."""

from __future__ import annotations

from functools import partial
from math import log, pi

import numpy as np
import pytest
import torch
from scipy import stats

from wsflow.flow.likelihood import divergence_along, log_density, rademacher_probes, unit_probes
from wsflow.flow.priors import Isotropic, WrappedGaussian
from wsflow.flow.solvers import integrate
from wsflow.manifolds import Euclidean, Product, Sphere
from wsflow.velocity.mlp import FlatMLP

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


def exact(manifold: Product) -> torch.Tensor:
    """Probes for the exact trace."""
    return unit_probes(manifold.size, torch.float64)


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


def network(size: int, seed: int = 0) -> FlatMLP:
    """A small smooth network in float64 that is not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = FlatMLP(size, dim=16, depth=1)
        torch.nn.init.normal_(made.write.weight, std=0.15)
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
        found = log_density(between_gaussians, x, SPACE, isotropic(SPACE, 2.0), exact(SPACE), "rk4", 64)
        expected = stats.norm(1, 0.5).logpdf(x).sum(1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)

    def test_a_linear_flow_multiplies_by_its_determinant(self):
        matrix = 0.5 * drawn(4, 4)
        x = drawn(20, 4, seed=1)
        found = log_density(lambda x, t: x @ matrix.T, x, SPACE, isotropic(SPACE), exact(SPACE), "rk4", 64)
        source = torch.linalg.solve(torch.linalg.matrix_exp(matrix), x.T).T
        expected = stats.norm.logpdf(source).sum(1) - float(matrix.trace())
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
    def test_rotations_keep_the_uniform_distribution(self, method):
        x = SPHERE.projection(drawn(20, 3))
        found = log_density(turning, x, SPHERE, isotropic(SPHERE), exact(SPHERE), method, 16)
        torch.testing.assert_close(found, torch.full((20,), -log(4 * pi), dtype=torch.float64), rtol=0, atol=1e-12)

    def test_rotations_take_a_wrapped_gaussian_along(self):
        prior = WrappedGaussian(SPHERE, SPHERE.projection(drawn(3)), 0.4 * torch.eye(2, dtype=torch.float64))
        x = SPHERE.projection(prior.mean + 0.5 * drawn(20, 3))
        found = log_density(turning, x, SPHERE, prior, exact(SPHERE), "rk4", 64)
        a, b, c = (1.5 * AXIS).tolist()
        turn = torch.linalg.matrix_exp(torch.tensor([[0, -c, b], [c, 0, -a], [-b, a, 0]], dtype=torch.float64))
        torch.testing.assert_close(found, prior.log_prob(x @ turn), rtol=0, atol=1e-6)

    def test_a_flow_that_stands_still_has_its_priors_density(self):
        x = MIXED.projection(drawn(20, 5))
        prior = WrappedGaussian.fit(MIXED, x)
        found = log_density(lambda x, t: torch.zeros_like(x), x, MIXED, prior, exact(MIXED))
        torch.testing.assert_close(found, prior.log_prob(x))

    def test_the_conformal_flow_of_the_sphere(self):
        """With u the height, artanh(u) grows by 1, and the density is that of u alone: (1 - u0^2)/(1 - u^2)/4 pi."""
        x = SPHERE.projection(drawn(20, 3))
        found = log_density(rising, x, SPHERE, isotropic(SPHERE), exact(SPHERE), "rk4", 64)
        torch.testing.assert_close(found, risen(x), rtol=0, atol=1e-6)

    def test_factors_of_a_product_add_up(self):
        def both(x, t):
            v = torch.zeros_like(x)
            v = v.index_copy(1, torch.tensor([4, 0, 2]), rising(x[:, [4, 0, 2]], t))
            return v.index_copy(1, torch.tensor([1, 3]), between_gaussians(x[:, [1, 3]], t, source=1.0))

        x = MIXED.projection(drawn(20, 5))
        found = log_density(both, x, MIXED, isotropic(MIXED), exact(MIXED), "rk4", 64)
        sphere = log_density(rising, x[:, [4, 0, 2]], SPHERE, isotropic(SPHERE), exact(SPHERE), "rk4", 64)
        expected = sphere + torch.from_numpy(stats.norm(1, 0.5).logpdf(x[:, [1, 3]]).sum(1))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


class TestIntegral:
    """Densities of flows on the sphere integrate to one."""

    @pytest.mark.parametrize("seed", range(3))
    def test_of_a_network(self, seed):
        x, weights = quadrature()
        field = network(3, seed)
        found = log_density(field, x, SPHERE, isotropic(SPHERE), exact(SPHERE), "midpoint", 24)
        assert float(found.max() - found.min()) > 0.3
        assert float((found.exp() * weights).sum()) == pytest.approx(1, abs=1e-3)

    def test_and_are_those_of_the_samples(self, generator):
        x, weights = quadrature(60)
        density = log_density(rising, x, SPHERE, isotropic(SPHERE), exact(SPHERE), "rk4", 16).exp() * weights
        source = isotropic(SPHERE).sample(40_000, generator)
        samples, _ = integrate(lambda x, t: (rising(x, t), None), source, SPHERE, "rk4", 16)
        for height in (-0.5, 0.0, 0.5, 0.9):
            share = float((samples @ AXIS > height).double().mean())
            assert share == pytest.approx(float(density[x @ AXIS > height].sum()), abs=0.02)


class TestDivergence:
    """The trace of the Jacobian, exact and estimated."""

    matrix = drawn(6, 6, seed=4)

    def along(self, probes: torch.Tensor, matrix: torch.Tensor) -> float:
        """The divergence of a linear field at one point."""
        x = drawn(1, 6).requires_grad_()
        return float(divergence_along(probes)(x, x @ matrix.T))

    def test_unit_probes_give_the_trace(self):
        assert self.along(unit_probes(6, torch.float64), self.matrix) == pytest.approx(float(self.matrix.trace()))

    def test_hutchinsons_estimate_is_unbiased(self, generator):
        probes = rademacher_probes(6, 2000, torch.float64, generator)
        assert float(probes.abs().max()) == pytest.approx(2000**-0.5)
        symmetric = self.matrix + self.matrix.T
        # the variance of e^T A e for random signs is the sum of (A_ij + A_ji)^2 over pairs
        error = float(symmetric.tril(-1).square().sum() / 2000) ** 0.5
        found = self.along(probes, self.matrix)
        assert abs(found - float(self.matrix.trace())) < 3 * error
        singles = [self.along(probe.unsqueeze(0) * 2000**0.5, self.matrix) for probe in probes[:500]]
        assert np.std(singles) == pytest.approx(error * 2000**0.5, rel=0.15)

    def test_it_is_exact_for_diagonal_fields(self, generator):
        diagonal = torch.diag(self.matrix.diagonal())
        probes = rademacher_probes(6, 1, torch.float64, generator)
        assert self.along(probes, diagonal) == pytest.approx(float(diagonal.trace()))

    def test_estimated_log_densities_scatter_about_the_exact_one(self, generator):
        x = SPACE.projection(drawn(5, 4))
        field, prior = network(4), isotropic(SPACE)
        right = log_density(field, x, SPACE, prior, exact(SPACE), n_steps=8)
        estimates = torch.stack(
            [
                log_density(field, x, SPACE, prior, rademacher_probes(4, 1, torch.float64, generator), n_steps=8)
                for _ in range(200)
            ]
        )
        error = estimates.std(0) / 200**0.5
        assert ((estimates.mean(0) - right).abs() < 3 * error).all()

    def test_a_constant_field_has_none(self):
        x = drawn(5, 4)
        found = log_density(lambda x, t: torch.ones_like(x), x, SPACE, isotropic(SPACE), exact(SPACE), "euler", 4)
        torch.testing.assert_close(found, isotropic(SPACE).log_prob(x - 1))


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
            found = log_density(field, x, manifold, isotropic(manifold), exact(manifold), method, n)
            errors.append(float((found - right).abs().max()))
        assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx([order] * 2, abs=0.35)

    def test_a_row_has_the_density_that_it_has_in_any_batch(self):
        field, prior = network(5), isotropic(MIXED)
        x = MIXED.projection(drawn(7, 5))
        together = log_density(field, x, MIXED, prior, exact(MIXED))
        padded = log_density(field, torch.cat([x[:3], x[:1].expand(13, -1)]), MIXED, prior, exact(MIXED))[:3]
        torch.testing.assert_close(padded, together[:3], rtol=1e-12, atol=1e-12)
        order = torch.tensor([4, 2, 0, 6, 5, 3, 1])
        shuffled = log_density(field, x[order], MIXED, prior, exact(MIXED))
        torch.testing.assert_close(shuffled, together[order], rtol=1e-12, atol=1e-12)

    def test_it_keeps_no_graph(self):
        x = SPHERE.projection(drawn(3, 3))
        assert not log_density(rising, x, SPHERE, isotropic(SPHERE), exact(SPHERE)).requires_grad
        with torch.no_grad():
            log_density(rising, x, SPHERE, isotropic(SPHERE), exact(SPHERE))

    def test_it_asks_for_the_velocity_on_the_manifold_only(self):
        """The field is extended by its values there, whatever a network does elsewhere."""
        seen = []

        def field(x, t):
            seen.append(x.detach())
            return rising(x, t) + 5 * x

        x = SPHERE.projection(drawn(5, 3))
        found = log_density(field, x, SPHERE, isotropic(SPHERE), exact(SPHERE), "rk4", 8)
        assert all(SPHERE.belongs(points, 1e-12).all() for points in seen)
        # and its normal part, which is not a motion on the sphere, does not count
        torch.testing.assert_close(found, log_density(rising, x, SPHERE, isotropic(SPHERE), exact(SPHERE), "rk4", 8))
