"""Priors: moments, densities against scipy and series, integral 1 on the sphere, Frechet means against geomstats."""

from __future__ import annotations

from math import log, pi

import numpy as np
import pytest
import torch
from scipy import stats

from wsflow.exceptions import NumericalError
from wsflow.flow.covariance import Blocks, Covariance, CovarianceSums, LowRank, Scaled, Triangular, covariance_of
from wsflow.flow.frame import Frame
from wsflow.flow.sources import Drawn, Isotropic, WrappedGaussian, frechet_mean
from wsflow.manifolds import Euclidean, Product, Sphere

PLANE = Product([(Euclidean(3), torch.tensor([[2, 0, 1]]))])
CIRCLE = Product([(Sphere(2), torch.tensor([[0, 1]]))])
SPHERE = Product([(Sphere(3), torch.tensor([[0, 1, 2]]))])
MIXED = Product(
    [
        (Sphere(3), torch.tensor([[7, 0, 3], [1, 8, 2]])),
        (Euclidean(2), torch.tensor([[5, 4]])),
        (Sphere(2), torch.tensor([[6, 9]])),
    ]
)
ALL = {"plane": PLANE, "circle": CIRCLE, "sphere": SPHERE, "mixed": MIXED}


def fit_covariance(z: torch.Tensor, shrinkage: float) -> Covariance:
    """The shrunk covariance of centred rows, all added at once."""
    sums = CovarianceSums(len(z), z.shape[1], shrinkage, z.dtype)
    sums.add(z)
    return sums.covariance()


def points(manifold: Product, n: int, seed: int = 0) -> torch.Tensor:
    """Points of a manifold."""
    z = torch.randn(n, manifold.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return manifold.projection(z)


def lower(dimension: int, scale: float, seed: int = 0) -> torch.Tensor:
    """A lower triangular matrix with a positive diagonal."""
    z = torch.randn(dimension, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return scale * (0.3 * z.tril(-1) + torch.diag(0.5 + z.diagonal().abs()))


def basis_at(manifold: Product, point: torch.Tensor) -> torch.Tensor:
    """The frame at a point as a matrix (size, dimension)."""
    return Frame(manifold, point).vectors(torch.eye(manifold.dimension, dtype=point.dtype)).T


def basis_of(prior: WrappedGaussian) -> torch.Tensor:
    return basis_at(prior.manifold, prior.mean)


def root_of(prior: WrappedGaussian) -> torch.Tensor:
    """A root of the covariance, as ambient vectors."""
    return basis_of(prior) @ prior.covariance.factor


def wrapped(manifold: Product, scale: float = 0.3, seed: int = 0) -> WrappedGaussian:
    """A wrapped Gaussian about a random point."""
    return WrappedGaussian(
        manifold, points(manifold, 1, seed + 5)[0], Triangular(lower(manifold.dimension, scale, seed))
    )


def quadrature(frame: torch.Tensor, n: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and weights on S^2: Gauss-Legendre in the height, equal steps around the frame's last axis."""
    heights, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(n))
    angles = 2 * pi * torch.arange(2 * n, dtype=torch.float64) / (2 * n)
    ring = torch.stack([angles.cos(), angles.sin()], -1)
    radius = (1 - heights.square()).sqrt()
    grid = torch.cat([radius[:, None, None] * ring, heights[:, None, None].expand(n, 2 * n, 1)], -1)
    return grid.reshape(-1, 3) @ frame.T, (weights * pi / n).repeat_interleave(2 * n)


@pytest.fixture(params=ALL)
def manifold(request):
    """Each manifold."""
    return ALL[request.param]


class TestIsotropic:
    """A Gaussian on vector spaces, uniform on spheres."""

    def test_moments(self, manifold, generator):
        """Uniform on a sphere in R^m, with covariance I/m, whatever scale its coordinates were given."""
        scale = torch.linspace(0.5, 2, manifold.size, dtype=torch.float64)
        x = Isotropic(manifold, scale).sample(40_000, generator)
        assert manifold.belongs(x, 1e-12).all()
        assert float(x.mean(0).abs().max()) < 0.05
        expected = self.variances(manifold, scale)
        torch.testing.assert_close(x.T @ x / len(x), torch.diag(expected), rtol=0.03, atol=0.04)

    def variances(self, manifold: Product, scale: torch.Tensor) -> torch.Tensor:
        """Of each coordinate."""
        parts = zip(manifold.factors, manifold.split(scale), strict=True)
        return manifold.join([torch.full_like(s, 1 / m.size) if isinstance(m, Sphere) else s**2 for (m, _), s in parts])

    def test_density_is_scipys_times_one_over_the_area(self):
        scale = torch.linspace(0.5, 2, MIXED.size, dtype=torch.float64)
        x = points(MIXED, 20)
        found = Isotropic(MIXED, scale).log_prob(x)
        gauss = stats.norm(scale=scale[[5, 4]].numpy()).logpdf(x[:, [5, 4]].numpy()).sum(1)
        np.testing.assert_allclose(found, gauss - 2 * log(4 * pi) - log(2 * pi), rtol=1e-12)

    def test_the_centre_is_the_origin_of_the_flat_part(self, generator):
        prior, x = Isotropic(MIXED, torch.ones(10, dtype=torch.float64)), points(MIXED, 5)
        flat = torch.zeros_like(x)
        flat[:, [4, 5]] = x[:, [4, 5]]
        assert torch.equal(prior.displacement(x), flat)
        assert torch.equal(prior.to_centre(x), -flat)

    def test_noise_is_tangent(self, manifold, generator):
        scale = torch.linspace(0.5, 2, manifold.size, dtype=torch.float64)
        x = points(manifold, 1).expand(40_000, -1)
        noise = Isotropic(manifold, scale).noise(x, generator)
        torch.testing.assert_close(manifold.to_tangent(x, noise), noise)
        basis = basis_at(manifold, x[0])
        expected = basis.T @ torch.diag(self.variances(manifold, scale)) @ basis
        z = noise @ basis
        torch.testing.assert_close(z.T @ z / len(z), expected, rtol=0.03, atol=0.04)


class TestWrappedGaussian:
    """A Gaussian in a tangent space, wrapped onto the manifold."""

    def test_density_in_a_vector_space_is_scipys(self):
        prior, x = wrapped(PLANE), points(PLANE, 20)
        root = root_of(prior)
        covariance = root @ root.T
        expected = stats.multivariate_normal(prior.mean.numpy(), covariance.numpy()).logpdf(x.numpy())
        np.testing.assert_allclose(prior.log_prob(x), expected, rtol=1e-10)

    def test_density_on_the_circle_is_the_sum_over_all_turns(self):
        sigma = 0.5
        prior = WrappedGaussian(CIRCLE, points(CIRCLE, 1)[0], Triangular(torch.tensor([[sigma]], dtype=torch.float64)))
        angles = torch.linspace(-2.5, 2.5, 41, dtype=torch.float64)
        turn = torch.stack([torch.stack([angles.cos(), -angles.sin()]), torch.stack([angles.sin(), angles.cos()])])
        x = torch.einsum("ijk,j->ki", turn, prior.mean)
        series = sum(stats.norm(scale=sigma).pdf(angles + 2 * pi * k) for k in range(-5, 6))
        np.testing.assert_allclose(prior.log_prob(x).exp(), series, rtol=1e-4)

    @pytest.mark.parametrize("seed", range(3))
    def test_density_on_the_sphere_integrates_to_one(self, seed):
        prior = wrapped(SPHERE, 0.25, seed)
        x, weights = quadrature(torch.cat([basis_of(prior), prior.mean.unsqueeze(1)], 1))
        assert float((prior.log_prob(x).exp() * weights).sum()) == pytest.approx(1, abs=1e-4)

    def test_density_is_that_of_its_samples(self, generator):
        """Shares of samples in caps about the mean, against the integral of the density."""
        prior = wrapped(SPHERE, 0.4)
        x, weights = quadrature(torch.cat([basis_of(prior), prior.mean.unsqueeze(1)], 1), 200)
        samples, density = prior.sample(50_000, generator), prior.log_prob(x).exp() * weights
        for height in (0.6, 0.8, 0.9, 0.97):
            expected = float(density[x @ prior.mean > height].sum())
            assert float((samples @ prior.mean > height).double().mean()) == pytest.approx(expected, abs=0.015)

    def test_samples_have_the_covariance_at_the_mean(self, manifold, generator):
        prior = wrapped(manifold, 0.2)
        x = prior.sample(40_000, generator)
        assert manifold.belongs(x, 1e-12).all()
        z = prior.displacement(x) @ basis_of(prior)
        torch.testing.assert_close(
            z.T @ z / len(z), prior.covariance.factor @ prior.covariance.factor.T, rtol=0.06, atol=2e-3
        )

    def test_fit_gives_mean_and_covariance_of_vectors(self):
        x = points(PLANE, 200) @ lower(3, 1.0) + 3
        prior = WrappedGaussian.fit(PLANE, x, shrinkage=0.0)
        torch.testing.assert_close(prior.mean, x.mean(0))
        root = root_of(prior)
        np.testing.assert_allclose(root @ root.T, np.cov(x.T.numpy(), bias=True), rtol=1e-4, atol=1e-5)

    def test_fit_recovers_what_it_was_drawn_from(self, manifold, generator):
        truth = wrapped(manifold, 0.2)
        found = WrappedGaussian.fit(manifold, truth.sample(40_000, generator), shrinkage=0.0)
        assert float(manifold.log(truth.mean, found.mean).norm()) < 0.02
        a, b = (root_of(prior) for prior in (truth, found))
        torch.testing.assert_close(b @ b.T, a @ a.T, rtol=0.1, atol=6e-3)

    @pytest.mark.parametrize("shrinkage", [0.3, 1.0])
    def test_shrinkage_takes_from_the_correlations_only(self, shrinkage):
        x = points(PLANE, 200) @ lower(3, 1.0)
        full, shrunk = (WrappedGaussian.fit(PLANE, x, s).covariance.factor for s in (0.0, shrinkage))
        full, shrunk = full @ full.T, shrunk @ shrunk.T
        expected = (1 - shrinkage) * full + shrinkage * torch.diag(full.diagonal())
        torch.testing.assert_close(shrunk, expected, rtol=1e-5, atol=1e-6)

    def test_fewer_points_than_dimensions_still_have_a_density(self):
        prior = WrappedGaussian.fit(MIXED, points(MIXED, 4))
        assert prior.log_prob(points(MIXED, 5, 1)).isfinite().all()

    def test_the_frechet_mean_is_geomstats(self):
        from geomstats.learning.frechet_mean import FrechetMean

        space = Sphere(3).geomstats()
        x = wrapped(SPHERE, 0.5).sample(100, torch.Generator().manual_seed(3))
        oracle = FrechetMean(space).set(epsilon=1e-20, max_iter=1000).fit(x.numpy())
        np.testing.assert_allclose(WrappedGaussian.fit(SPHERE, x).mean, oracle.estimate_, atol=1e-9)

    def test_the_frechet_mean_is_a_stationary_point(self, manifold, generator):
        x = wrapped(manifold).sample(100, generator)
        mean = WrappedGaussian.fit(manifold, x).mean
        pull = manifold.log(mean.expand_as(x), x).mean(0)
        torch.testing.assert_close(pull, torch.zeros_like(pull), rtol=0, atol=1e-10)

    def test_centre_and_displacement_are_logs(self, manifold):
        prior, x = wrapped(manifold), points(manifold, 10)
        centre = prior.mean.expand_as(x)
        torch.testing.assert_close(manifold.exp(x, prior.to_centre(x)), centre)
        torch.testing.assert_close(manifold.exp(centre, prior.displacement(x)), x)

    def test_noise_at_the_mean_has_the_priors_covariance(self, manifold, generator):
        prior = wrapped(manifold)
        x = prior.mean.expand(40_000, -1)
        noise = prior.noise(x, generator)
        torch.testing.assert_close(manifold.to_tangent(x, noise), noise)
        z = noise @ basis_of(prior)
        torch.testing.assert_close(
            z.T @ z / len(z), prior.covariance.factor @ prior.covariance.factor.T, rtol=0.06, atol=4e-3
        )

    def test_float32_points_are_rated_in_float32(self):
        prior, x = wrapped(MIXED), points(MIXED, 10)
        found = prior.log_prob(x.float())
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), prior.log_prob(x), rtol=1e-4, atol=1e-3)


class TestCovariance:
    """Low rank plus a diagonal, against the dense matrix that it stands for."""

    @pytest.fixture(params=[(3, 7), (1, 4), (6, 7)])
    def both(self, request):
        n, dimension = request.param
        z = torch.randn(n, dimension, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
        low = fit_covariance(z, 0.2)
        assert isinstance(low, LowRank)
        dense = 0.8 / n * z.T @ z + torch.diag(0.2 * z.square().mean(0) + 1e-6 * z.square().mean())
        return low, dense

    def test_fit_is_the_shrunk_covariance(self, both):
        low, dense = both
        torch.testing.assert_close(low.times(torch.eye(len(dense), dtype=torch.float64)), dense)

    def test_density_is_scipys(self, both):
        low, dense = both
        z = torch.randn(9, len(dense), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        expected = stats.multivariate_normal(np.zeros(len(dense)), dense.numpy()).logpdf(z.numpy())
        np.testing.assert_allclose(low.log_prob(z), expected, rtol=1e-9)
        triangular = Triangular(torch.linalg.cholesky(dense))
        np.testing.assert_allclose(triangular.log_prob(z), expected, rtol=1e-9)
        torch.testing.assert_close(triangular.times(z), low.times(z))

    def test_the_diagonal_is_that_of_the_matrix(self, both):
        low, dense = both
        rows = Blocks(((torch.arange(2 * len(dense)).reshape(2, -1).flip(0), low),))
        for covariance in (low, Triangular(torch.linalg.cholesky(dense))):
            torch.testing.assert_close(covariance.diagonal, dense.diagonal())
            torch.testing.assert_close(Scaled(covariance, 3.0).diagonal, 9 * dense.diagonal())
        torch.testing.assert_close(rows.diagonal, dense.diagonal().repeat(2))

    @pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-6, 1e-12])
    def test_the_ridge_is_narrow_beside_each_variance(self, spread):
        z = torch.randn(50, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        z[:, 2] *= spread
        found = fit_covariance(z, 0.1)
        torch.testing.assert_close(found.diagonal, z.square().mean(0), rtol=0.011, atol=0)
        assert found.log_prob(z).isfinite().all()

    def test_draws_have_the_covariance(self, both, generator):
        low, dense = both
        z = low.sample(100_000, generator)
        torch.testing.assert_close(z.T @ z / len(z), dense, rtol=0.05, atol=0.02)

    def test_it_comes_back_from_its_arrays(self, both):
        low, dense = both
        for covariance in (low, Triangular(torch.linalg.cholesky(dense))):
            again = covariance_of(covariance.arrays())
            assert type(again) is type(covariance)
            torch.testing.assert_close(again.times(dense), covariance.times(dense))


def test_tangent_bases_are_orthonormal_and_tangent(manifold):
    poles = torch.eye(manifold.size, dtype=torch.float64)
    for point in [*points(manifold, 10), *manifold.projection(poles + 1e-9), *manifold.projection(-poles - 1e-9)]:
        basis = basis_at(manifold, point)
        torch.testing.assert_close(basis.T @ basis, torch.eye(manifold.dimension, dtype=torch.float64))
        torch.testing.assert_close(manifold.to_tangent(point.expand(manifold.dimension, -1), basis.T), basis.T)


@pytest.mark.parametrize("make", [lambda m: Isotropic(m, torch.ones(m.size).double()), wrapped])
def test_samples_follow_the_generator_only(make, manifold):
    prior, state = make(manifold), torch.get_rng_state()
    a, b, c = (prior.sample(5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_only_drawn_has_no_density_and_no_noise(generator):
    prior = Drawn(SPHERE, lambda n, generator: points(SPHERE, n))
    x = prior.sample(5, generator)
    assert torch.equal(x, points(SPHERE, 5))
    assert torch.equal(prior.to_centre(x), torch.zeros_like(x))
    assert torch.equal(prior.displacement(x), torch.zeros_like(x))
    with pytest.raises(NumericalError, match=r"no density.*source='gaussian'"):
        prior.log_prob(x)
    with pytest.raises(NumericalError, match="Stochastic sampling needs source='gaussian'"):
        prior.noise(x, generator)


def test_the_mean_of_opposite_points_is_one_of_them():
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    assert frechet_mean(Product.of(Sphere(1)), x).tolist() == [[1.0]]
