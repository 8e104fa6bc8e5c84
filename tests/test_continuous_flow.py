"""A flow without networks: closed forms on a plane and a sphere, bits, temperatures, conditions, and torch alone."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from wsflow.exceptions import NumericalError
from wsflow.flow.adaptive import DormandPrince
from wsflow.flow.continuous import LONG, SAMPLED, SCORED, ContinuousFlow
from wsflow.flow.covariance import Triangular
from wsflow.flow.divergence import TraceEstimator
from wsflow.flow.loss import FlowMatchingLoss
from wsflow.flow.solvers import RungeKutta
from wsflow.flow.sources import Drawn, Isotropic, WrappedGaussian
from wsflow.flow.velocity import VelocityField
from wsflow.manifolds import Euclidean, Product, Sphere
from wsflow.metanetworks.velocity import velocity_network
from wsflow.training.loop import train
from wsflow.training.state import Schedule

PLANE, SPHERE = Product.of(Euclidean(2)), Product.of(Sphere(3))
# an expansion by a and b, and a rotation about an axis by an angle
RATES = torch.tensor([0.5, -0.3], dtype=torch.float64)
AXIS = 1.5 * torch.tensor([2.0, -1.0, 2.0], dtype=torch.float64) / 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def isotropic(manifold: Product) -> Isotropic:
    return Isotropic(manifold, torch.ones(manifold.size, dtype=torch.float64))


def wrapped() -> WrappedGaussian:
    """A Gaussian around a pole, on the sphere."""
    pole = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    return WrappedGaussian(SPHERE, pole, Triangular(0.4 * torch.eye(2, dtype=torch.float64)))


def expanding(x, t):
    return RATES.to(x) * x


def turning(x, t):
    return torch.cross(AXIS.to(x).expand_as(x), x, -1)


def turned(x: torch.Tensor, sign: float = 1.0) -> torch.Tensor:
    """Where the rotation leads."""
    a, b, c = AXIS.tolist()
    matrix = torch.tensor([[0, -c, b], [c, 0, -a], [-b, a, 0]], dtype=torch.float64)
    return x @ torch.linalg.matrix_exp(sign * matrix).T


def on_plane(**settings) -> ContinuousFlow:
    return ContinuousFlow(PLANE, isotropic(PLANE), expanding, **{"solver": RungeKutta("rk4", 32)} | settings)


def on_sphere(**settings) -> ContinuousFlow:
    return ContinuousFlow(SPHERE, wrapped(), turning, **{"solver": RungeKutta("rk4", 64)} | settings)


def normal(x: torch.Tensor) -> torch.Tensor:
    """The log-density of N(0, diag(exp(2 a), exp(2 b)))."""
    return -0.5 * (x / RATES.exp()).square().sum(1) - RATES.sum() - math.log(2 * math.pi)


class TestClosedForms:
    """Laws that are known."""

    @pytest.mark.parametrize("method", ["exact", "hutchinson"])
    def test_densities_on_a_plane(self, method):
        # the Jacobian is diagonal, so that random signs have no error
        flow, x = on_plane(divergence=TraceEstimator(method, 2)), 2 * drawn(2 * SCORED + 3, 2)
        found, error = flow.log_prob_and_error(x)
        torch.testing.assert_close(found, normal(x), rtol=0, atol=1e-7)
        torch.testing.assert_close(error, torch.zeros_like(error), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("solver", [RungeKutta("rk4", 64), DormandPrince(1e-8, 1e-8)], ids=["rk4", "dopri5"])
    def test_densities_on_a_sphere(self, solver):
        x = SPHERE.projection(drawn(20, 3) + torch.tensor([0, 0, 2.0]))
        found = on_sphere(solver=solver).log_prob(turned(x))
        torch.testing.assert_close(found, wrapped().log_prob(x), rtol=0, atol=1e-6)

    def test_samples_on_a_plane_have_its_moments(self):
        x = on_plane().sample(20_000, generator())
        assert x.dtype == torch.float32
        torch.testing.assert_close(x.double().std(0), RATES.exp(), rtol=0.02, atol=0)
        torch.testing.assert_close(x.double().mean(0), torch.zeros(2).double(), rtol=0, atol=0.03)

    def test_samples_on_a_sphere_are_those_of_the_source_turned(self):
        still = ContinuousFlow(SPHERE, wrapped(), lambda x, t: torch.zeros_like(x))
        x, start = on_sphere().sample(50, generator()), still.sample(50, generator())
        assert SPHERE.belongs(x, 1e-6).all()
        torch.testing.assert_close(x.double(), turned(start.double()), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("flow", [on_plane(), on_sphere()], ids=["plane", "sphere"])
    def test_log_densities_along_the_way_are_those_of_the_samples(self, flow):
        x, log_prob = flow.sample_with_log_prob(SAMPLED + 5, generator())
        assert x.dtype == log_prob.dtype == torch.float64
        torch.testing.assert_close(flow.log_prob(x), log_prob, rtol=0, atol=1e-6)
        torch.testing.assert_close(x.float(), flow.sample(SAMPLED + 5, generator()), rtol=0, atol=1e-5)

    def test_a_source_that_is_only_drawn_from_has_none(self):
        flow = ContinuousFlow(PLANE, Drawn(PLANE, lambda n, g: torch.zeros(n, 2)), expanding)
        assert flow.sample(3, generator()).shape == (3, 2)
        for ask in (lambda: flow.log_prob(drawn(3, 2)), lambda: flow.sample_with_log_prob(3, generator())):
            with pytest.raises(NumericalError, match="no density"):
                ask()


class TestBits:
    """The first points of a larger sample are those of a smaller one."""

    def guide(self, field, solve):
        return lambda x: solve(lambda p, t: field(p, t) - 0.1 * p, x)

    @pytest.mark.parametrize(
        "options", [{}, {"noise": 0.2}, {"temperature": 0.5}, {"guide": True}], ids=["plain", "noise", "cold", "guided"]
    )
    @pytest.mark.parametrize("flow", [on_plane(), on_sphere()], ids=["plane", "sphere"])
    def test_of_samples(self, flow, options):
        options = options | ({"guide": self.guide} if "guide" in options else {})
        many = flow.sample(SAMPLED + 9, generator(3), **options)
        for n in (1, 5, SAMPLED, SAMPLED + 1):
            assert torch.equal(flow.sample(n, generator(3), **options), many[:n])
        assert len(many.unique(dim=0)) == len(many)
        assert not torch.equal(flow.sample(5, generator(4), **options), many[:5])

    def test_of_long_samples_which_few_others_are_drawn_with(self):
        space, drawn_with, scored_with = Product.of(Euclidean(8 * LONG + 1)), [], []

        def velocity(x, t, seen=drawn_with):
            seen.append(len(x))
            return 0.5 * x

        how = RungeKutta("euler", 2), TraceEstimator("hutchinson", 1)
        flow = ContinuousFlow(space, isotropic(space), velocity, *how)
        many = flow.sample(SAMPLED // 16 + 1, generator(3))
        assert torch.equal(flow.sample(2, generator(3)), many[:2])
        assert set(drawn_with) == {SAMPLED // 16}
        scoring = ContinuousFlow(space, isotropic(space), lambda x, t: velocity(x, t, scored_with), *how)
        # two steps back, each by a quarter of the point, and a divergence of a half in each coordinate
        expected = flow.source.log_prob(many[:3].double() * 0.75**2) - 0.5 * space.size
        torch.testing.assert_close(scoring.log_prob(many[:3]), expected, rtol=1e-5, atol=0)
        assert set(scored_with) == {SCORED // 16}

    @pytest.mark.parametrize("probes", ["shared", "row"])
    def test_of_their_log_densities(self, probes):
        flow = on_sphere(divergence=TraceEstimator("gaussian", 2, probes))
        many, few = (flow.sample_with_log_prob(n, generator(3), seed=1) for n in (SAMPLED + 9, 4))
        assert all(torch.equal(a[:4], b) for a, b in zip(many, few, strict=True))

    @pytest.mark.parametrize("probes", ["shared", "row"])
    def test_a_row_scores_as_it_does_alone(self, probes):
        flow = on_sphere(divergence=TraceEstimator("gaussian", 2, probes))
        x = SPHERE.projection(drawn(SCORED + 8, 3))
        found = flow.log_prob(x, seed=5)
        alone = torch.cat([flow.log_prob(x[i : i + 1], seed=5) for i in (0, SCORED - 1, SCORED + 7)])
        torch.testing.assert_close(alone, found[[0, SCORED - 1, SCORED + 7]], rtol=1e-12, atol=1e-12)
        assert not torch.equal(flow.log_prob(x, seed=6), found)


class TestTemperature:
    """Source points move on geodesics towards the centre."""

    @pytest.mark.parametrize("temperature", [0.0, 0.4, 1.5])
    def test_of_linear_flows_samples_are_scaled(self, temperature):
        flow = on_plane()
        one, other = (flow.sample(40, generator(), temperature=t) for t in (1.0, temperature))
        torch.testing.assert_close(other, temperature * one, rtol=1e-4, atol=1e-5)

    def test_on_a_sphere_distances_from_the_centre_are(self):
        flow = on_sphere()
        centre = turned(wrapped().mean).expand(40, -1)
        near, far = (
            SPHERE.log(centre, flow.sample(40, generator(), temperature=t).double()).norm(dim=1) for t in (0.5, 1.0)
        )
        torch.testing.assert_close(near, 0.5 * far, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("flow", [on_plane(), on_sphere()], ids=["plane", "sphere"])
    def test_log_densities_are_those_of_the_source_at_it(self, flow):
        x, log_prob = flow.sample_with_log_prob(20, generator(), temperature=0.6)
        cold = ContinuousFlow(flow.manifold, flow.source.at_temperature(0.6), flow.velocity, flow.solver)
        torch.testing.assert_close(cold.log_prob(x), log_prob, rtol=0, atol=1e-6)
        assert (flow.log_prob(x) - log_prob).abs().min() > 0.01


class Pushed(nn.Module):
    """v(x, t | c) = p c, and zero without a condition."""

    def __init__(self) -> None:
        super().__init__()
        self.push = nn.Parameter(torch.tensor([1.0, -2.0]))

    def forward(self, x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """The velocity (n, 2)."""
        return torch.zeros_like(x) if condition is None else condition.unsqueeze(1).to(x) * self.push


class TestConditions:
    """given(): the flow under a condition."""

    velocity = VelocityField(Pushed(), PLANE, isotropic(PLANE)).requires_grad_(False)
    flow = ContinuousFlow(PLANE, isotropic(PLANE), velocity)
    push = torch.tensor([1.0, -2.0], dtype=torch.float64)

    @pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
    def test_samples_and_densities_are_those_given_it(self, scale):
        given = self.flow.given(torch.tensor(3.0), scale)
        free, moved = (flow.sample(30, generator()) for flow in (self.flow, given))
        torch.testing.assert_close((moved - free).double(), (3 * scale * self.push).expand(30, -1), rtol=0, atol=1e-5)
        x = drawn(10, 2)
        expected = isotropic(PLANE).log_prob(x - 3 * scale * self.push)
        torch.testing.assert_close(given.log_prob(x), expected, rtol=0, atol=1e-9)
        torch.testing.assert_close(self.flow.log_prob(x), isotropic(PLANE).log_prob(x), rtol=0, atol=1e-9)

    def test_it_keeps_how_the_flow_is_solved(self):
        solver, divergence = RungeKutta("euler", 3), TraceEstimator("gaussian", 1)
        flow = ContinuousFlow(PLANE, self.flow.source, self.flow.velocity, solver, divergence)
        given = flow.given(torch.tensor(1.0))
        assert (given.solver, given.divergence, given.source) == (solver, divergence, flow.source)


@pytest.fixture(scope="module")
def fitted():
    """A flow that was trained on points about a pole, the points, and the history."""
    pole = torch.tensor([0.0, 0.0, 1.0])
    data = SPHERE.projection(pole + 0.3 * torch.randn(2000, 3, generator=generator()))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        velocity = VelocityField(velocity_network("mlp", 3, dim=64, depth=1), SPHERE, isotropic(SPHERE))
    history = train(velocity, FlowMatchingLoss(velocity).on_batches(data, 256), Schedule(400), generator(1))
    return ContinuousFlow(SPHERE, velocity.source, velocity.eval().requires_grad_(False)), data, history


class TestTraining:
    """Flow matching on a sphere, of plain points."""

    def test_samples_are_as_the_data(self, fitted):
        flow, data, history = fitted
        assert history.train[-1] < history.train[0]
        x = flow.sample(2000, generator())
        assert SPHERE.belongs(x, 1e-5).all()
        torch.testing.assert_close(x.mean(0), data.mean(0), rtol=0, atol=0.06)
        torch.testing.assert_close(x.std(0), data.std(0), rtol=0, atol=0.08)

    def test_the_data_are_likely(self, fitted):
        flow, data, _ = fitted
        uniform = -math.log(4 * math.pi)
        assert flow.log_prob(data[:64]).mean() > uniform + 1
        assert flow.log_prob(-data[:64]).mean() < uniform - 1

    def test_its_velocity_is_in_its_state(self, fitted):
        flow, _, _ = fitted
        assert {f"velocity.{name}" for name in flow.velocity.state_dict()} == set(flow.state_dict())


ALONE = """
import sys
import torch
from wsflow.flow.continuous import ContinuousFlow
from wsflow.flow.loss import FlowMatchingLoss
from wsflow.flow.sources import Isotropic
from wsflow.flow.velocity import VelocityField
from wsflow.manifolds import Product, Sphere
from wsflow.training.loop import train
from wsflow.training.state import Schedule

class Network(torch.nn.Linear):
    def forward(self, x, t):
        return super().forward(torch.cat([x, t.unsqueeze(1)], 1))

sphere, generator = Product.of(Sphere(3)), torch.Generator().manual_seed(0)
velocity = VelocityField(Network(4, 3), sphere, Isotropic(sphere, torch.ones(3)))
train(velocity, FlowMatchingLoss(velocity).on_batches(torch.eye(3), 8), Schedule(3), generator)
flow = ContinuousFlow(sphere, velocity.source, velocity.eval())
assert flow.log_prob(flow.sample(5, generator)).isfinite().all()
print(*sorted(name for name in sys.modules if name.partition(".")[0] in ("sklearn", "geomstats")))
"""


def test_it_needs_torch_alone():
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
