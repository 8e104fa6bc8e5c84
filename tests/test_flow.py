"""The flow: orders of solvers, couplings, paths, what training regresses on, stochastic sampling and guidance."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest
import torch
from scipy import special, stats
from scipy.optimize import linear_sum_assignment
from torch import nn

from wsflow.exceptions import NumericalError
from wsflow.flow.couplings import COUPLINGS, optimal_transport, squared_distances
from wsflow.flow.guidance import guided
from wsflow.flow.loss import FlowMatchingLoss
from wsflow.flow.paths import PREDICTIONS, TIMES, gaussian_drift
from wsflow.flow.solvers import TABLEAUX, integrate, integrate_stochastic
from wsflow.flow.sources import Isotropic, WrappedGaussian
from wsflow.flow.velocity import VelocityField
from wsflow.manifolds import Euclidean, Product, Sphere
from wsflow.metanetworks.velocity import VelocityNetwork, velocity_network
from wsflow.training.loop import train
from wsflow.training.state import History, Schedule

PLANE = Product([(Euclidean(2), torch.tensor([[0, 1]]))])
CIRCLE = Product([(Sphere(2), torch.tensor([[0, 1]]))])
SPHERE = Product([(Sphere(3), torch.tensor([[0, 1, 2]]))])
MIXED = Product([(Sphere(3), torch.tensor([[4, 0, 2]])), (Euclidean(2), torch.tensor([[1, 3]]))])


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(axis: torch.Tensor, angle: float) -> torch.Tensor:
    """The matrix that turns about an axis, by its length times the angle."""
    a, b, c = axis.tolist()
    generator = torch.tensor([[0.0, -c, b], [c, 0.0, -a], [-b, a, 0.0]], dtype=torch.float64)
    return torch.linalg.matrix_exp(angle * generator)


class TestSolvers:
    """Runge-Kutta methods on vector spaces and spheres."""

    turn = torch.tensor([[0.0, -2.0], [2.0, 0.0]], dtype=torch.float64)
    axis = torch.tensor([1.0, -2.0, 2.0], dtype=torch.float64)

    def error(self, manifold: Product, method: str, n_steps: int) -> float:
        """Distance from where a field that turns ever faster, by 1 + t, leads in closed form."""
        x = manifold.projection(drawn(10, manifold.size))
        if manifold is PLANE:
            end, field = x @ torch.linalg.matrix_exp(1.5 * self.turn).T, lambda x, t: x @ self.turn.T
        else:
            end, field = x @ rotation(self.axis, 1.5).T, lambda x, t: torch.cross(self.axis.expand_as(x), x, -1)
        found, _ = integrate(lambda x, t: ((1 + t).unsqueeze(1) * field(x, t), None), x, manifold, method, n_steps)
        return float((found - end).norm(dim=1).max())

    @pytest.mark.parametrize("manifold", [PLANE, SPHERE], ids=["plane", "sphere"])
    @pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
    def test_observed_order_of_convergence(self, manifold, method, order):
        errors = [self.error(manifold, method, n) for n in (40, 80, 160)]
        observed = np.log2(np.divide(errors[:-1], errors[1:]))
        assert observed == pytest.approx([order] * 2, abs=0.25)
        assert TABLEAUX[method].order == order

    @pytest.mark.parametrize("method", TABLEAUX)
    def test_tableaux_are_consistent(self, method):
        tableau = TABLEAUX[method]
        assert sum(tableau.weights) == pytest.approx(1)
        assert [len(row) for row in tableau.stages] == list(range(len(tableau.weights)))

    @pytest.mark.parametrize("method", TABLEAUX)
    def test_the_number_of_steps_is_what_was_asked_for(self, method):
        times = []

        def field(x, t):
            times.append(float(t[0]))
            return torch.zeros_like(x), None

        integrate(field, drawn(3, 2), PLANE, method, 7)
        stages = [sum(row) for row in TABLEAUX[method].stages]
        assert times == pytest.approx([(step + stage) / 7 for step in range(7) for stage in stages])

    @pytest.mark.parametrize(("method", "degree"), [("euler", 0), ("midpoint", 1), ("rk4", 3)])
    def test_rates_are_integrated_to_the_degree_of_the_method(self, method, degree):
        _, total = integrate(lambda x, t: (0 * x, (degree + 1) * t**degree), drawn(3, 2), PLANE, method, 3)
        torch.testing.assert_close(total, torch.ones(3, dtype=torch.float64))

    def test_there_and_back(self):
        def field(x, t):
            return torch.cross(self.axis.expand_as(x), x, -1), t

        x = SPHERE.projection(drawn(10, 3))
        there, forth = integrate(field, x, SPHERE, "rk4", 100)
        back, less = integrate(field, there, SPHERE, "rk4", 100, start=1.0, stop=0.0)
        torch.testing.assert_close(back, x, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(forth, -less)

    @pytest.mark.parametrize("method", TABLEAUX)
    def test_points_stay_on_the_manifold(self, method):
        x = MIXED.projection(drawn(10, 5))
        stages = []

        def field(x, t):
            stages.append(x)
            return MIXED.to_tangent(x, 5 * torch.sin(3 * x + 1)), None

        end, _ = integrate(field, x, MIXED, method, 8)
        assert all(MIXED.belongs(stage, 1e-12).all() for stage in [*stages, end])

    def test_what_blows_up_is_named(self):
        def field(x, t):
            return torch.where(x > 0, 10 * x**3, 0 * x), None

        x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, -1.0], [0.0, 0.0]], dtype=torch.float64)
        with pytest.raises(NumericalError, match=r"at t = 0\.\d+ \(step \d+\) for 25\.0% of the points.*n_steps="):
            integrate(field, x, PLANE, "euler", 20)
        with pytest.raises(NumericalError, match=r"at t = 0\.1 \(step 1\) for 100\.0%"):
            integrate(lambda x, t: (x * float("nan"), None), x, PLANE, "rk4", 10)


class TestCouplings:
    """Pairs of source and target points."""

    @pytest.mark.parametrize("manifold", [PLANE, SPHERE, MIXED], ids=["plane", "sphere", "mixed"])
    def test_optimal_transport_is_scipys_assignment(self, manifold):
        x0, x1 = (manifold.projection(drawn(64, manifold.size, seed=seed)) for seed in (1, 2))
        cost = squared_distances(x0, x1, manifold)
        rows, columns = linear_sum_assignment(cost)
        y0, y1 = optimal_transport(x0, x1, manifold)
        assert torch.equal(y0, x0)
        assert torch.equal(y1, x1[torch.from_numpy(columns)])
        paired = manifold.log(y0, y1).square().sum(1)
        torch.testing.assert_close(paired.sum(), cost[rows, columns].sum())
        assert paired.sum() < manifold.log(x0, x1).square().sum()

    def test_costs_are_squared_geodesic_distances(self):
        x, y = (SPHERE.projection(drawn(n, 3, seed=n)) for n in (4, 6))
        sines = torch.cross(x[:, None].expand(4, 6, 3), y[None].expand(4, 6, 3), -1).norm(dim=-1)
        expected = torch.atan2(sines, x @ y.T).square()
        torch.testing.assert_close(squared_distances(x, y, SPHERE), expected, rtol=1e-12, atol=1e-12)

    def test_independent_pairs_stay_as_they_come(self):
        x0, x1 = drawn(5, 2), drawn(5, 2, seed=1)
        pairs = COUPLINGS["independent"](x0, x1, PLANE)
        assert pairs[0] is x0
        assert pairs[1] is x1

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_what_is_not_finite_is_refused(self, bad):
        x1 = drawn(5, 2)
        x1[2, 1] = bad
        with pytest.raises(NumericalError, match="not finite"):
            optimal_transport(drawn(5, 2, seed=1), x1, PLANE)


class TestPaths:
    """Times, drifts and what a prediction means."""

    # by their distribution functions
    laws = {
        "uniform": stats.uniform().cdf,
        "beta": stats.beta(1, 2).cdf,
        "logit_normal": lambda t: stats.norm.cdf(special.logit(t)),
    }

    @pytest.mark.parametrize("name", TIMES)
    def test_laws_of_times(self, name, generator):
        t = TIMES[name](20_000, generator).numpy()
        assert t.min() >= 0
        assert t.max() <= 1
        assert stats.kstest(t, self.laws[name]).pvalue > 0.01
        others = [law for other, law in self.laws.items() if other != name]
        assert all(stats.kstest(t, law).pvalue < 1e-10 for law in others)

    @pytest.mark.parametrize("scale", [1.0, 0.5, 3.0])
    @pytest.mark.parametrize("t", [0.0, 0.2, 0.5, 0.9, 1.0])
    def test_the_drift_is_the_regression_between_gaussians(self, t, scale):
        x0, x1 = drawn(400_000) * 3 + 1, drawn(400_000, seed=1) * 3 * scale + 1
        xt, ut = (1 - t) * x0 + t * x1, x1 - x0
        slope = float(((xt - 1) * ut).sum() / (xt - 1).square().sum())
        assert slope == pytest.approx(float(gaussian_drift(torch.tensor(t), scale**2)), abs=0.01)

    def test_a_velocity_knows_the_ratio_of_variances(self):
        source = Isotropic(PLANE, torch.ones(2).double())
        velocity = VelocityField(lively(PLANE.size), PLANE, source, "preconditioned").double()
        velocity.fit_scale(0.5 * drawn(4000, 2) + 7)
        assert float(velocity.ratio) == pytest.approx(0.25, rel=0.25)
        velocity.fit_scale(drawn(1, 2))
        assert velocity.ratio > 0

    @pytest.mark.parametrize("name", PREDICTIONS)
    def test_drifts_are_finite_at_both_ends(self, name):
        t = torch.linspace(0, 1, 11)
        assert PREDICTIONS[name].drift(t).abs().max() <= 1
        assert PREDICTIONS[name].weight(t).isfinite().all()

    @pytest.mark.parametrize("manifold", [PLANE, SPHERE, MIXED], ids=["plane", "sphere", "mixed"])
    def test_the_x1_loss_is_measured_in_the_tangent_space(self, manifold, generator):
        """|log_xt(predicted x1) - log_xt(x1)|^2, where x1 is predicted by following the velocity to t = 1."""
        x0, x1 = (manifold.projection(drawn(20, manifold.size, seed=seed)) for seed in (1, 2))
        prior = WrappedGaussian.fit(manifold, manifold.projection(drawn(50, manifold.size, seed=3)))
        velocity = VelocityField(lively(manifold.size), manifold, prior, "x1").double()
        for i in range(20):
            pair = x0[i : i + 1], x1[i : i + 1], torch.full((1,), (i + 0.5) / 20, dtype=torch.float64)
            loss = FlowMatchingLoss(velocity)(velocity, *pair, generator)
            xt, _ = manifold.geodesic(*pair)
            predicted = manifold.exp(xt, (1 - pair[2]).unsqueeze(1) * velocity(xt, pair[2]))
            error = manifold.log(xt, predicted) - manifold.log(xt, pair[1])
            torch.testing.assert_close(loss, error.square().sum() / manifold.size)


def matched(
    velocity: VelocityField,
    x1: torch.Tensor,
    schedule: Schedule,
    generator: torch.Generator,
    *,
    batch_size: int = 8,
    validation: torch.Tensor | None = None,
    progress=None,
    **law: str,
) -> History:
    """Train a velocity by flow matching."""
    loss = FlowMatchingLoss(velocity, **law)
    validate = None if validation is None else loss.on_validation(validation, generator)
    batches = loss.on_batches(x1, batch_size)
    return train(velocity, batches, schedule, generator, validate=validate, progress=progress)


def lively(size: int, dim: int = 32, depth: int = 1, seed: int = 0) -> VelocityNetwork:
    """A small network whose output layer is not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = velocity_network("mlp", size, dim=dim, depth=depth)
        nn.init.normal_(network.readout.write.weight, std=0.1)
    return network


class Interpolated(nn.Module):
    """A tangent field on the circle by bilinear interpolation between free values at equal steps of angle and time."""

    def __init__(self, n_angles: int = 96, n_times: int = 48) -> None:
        super().__init__()
        self.n_angles, self.n_times = n_angles, n_times
        self.values = nn.Parameter(torch.zeros(n_angles * (n_times + 1), 1))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The interpolated tangent vector at points (n, 2) and times (n,)."""
        place, time = torch.atan2(x[:, 1], x[:, 0]).remainder(2 * pi) / (2 * pi) * self.n_angles, t * self.n_times
        i, j = place.long().clamp(max=self.n_angles - 1), time.long().clamp(max=self.n_times - 1)
        a, b = place - i, time - j
        rows, columns = torch.stack([i, (i + 1) % self.n_angles], 1), torch.stack([j, j + 1], 1)
        cells = rows.unsqueeze(2) * (self.n_times + 1) + columns.unsqueeze(1)
        weights = torch.stack([1 - a, a], 1).unsqueeze(2) * torch.stack([1 - b, b], 1).unsqueeze(1)
        rate = (nn.functional.embedding(cells, self.values).squeeze(-1) * weights).sum((1, 2))
        return rate.unsqueeze(1) * torch.stack([-x[:, 1], x[:, 0]], 1)


class TestCircleOfThreeMasses:
    """Masses .5, .2 and .3 at three points of a circle, from the uniform distribution."""

    angles = torch.tensor([0.3, 2.0, 4.2], dtype=torch.float64)
    masses = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)

    def on_circle(self, angles: torch.Tensor) -> torch.Tensor:
        """Points of the circle."""
        return torch.stack([angles.cos(), angles.sin()], -1)

    def recovered(self, velocity, n_steps: int, method: str, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """Shares of 4000 equally spaced source points that end nearest to each atom."""
        x = self.on_circle((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000 * 2 * pi).to(dtype)
        with torch.no_grad():
            end, _ = integrate(lambda x, t: (velocity(x, t), None), x, CIRCLE, method, n_steps)
        nearest = (end.double() @ self.on_circle(self.angles).T).max(1)
        assert float(nearest.values.median()) > 0.99
        return nearest.indices.bincount(minlength=3) / 4000

    def logs(self, x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Signed angles from x to the atoms, and the probability of each given x at t.

        The geodesic to an atom at angle a is at distance (1 - t)|d| when it started at distance d < pi,
        so x_t given the atom is uniform within (1 - t) pi of it.
        """
        angle = torch.atan2(x[:, 1], x[:, 0])
        to_atoms = torch.remainder(self.angles - angle.unsqueeze(1) + pi, 2 * pi) - pi
        inside = to_atoms.abs() <= (1 - t).unsqueeze(1) * pi + 1e-12
        # a point that a wrong field left behind, where no geodesic passes, is sent to the nearest atom
        nearest = to_atoms.abs() == to_atoms.abs().amin(1, keepdim=True)
        probability = torch.where(inside.any(1, keepdim=True), inside, nearest) * self.masses
        return to_atoms, probability / probability.sum(1, keepdim=True)

    def turning(self, x: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
        """The tangent vector of an angular velocity."""
        return rate.unsqueeze(1) * torch.stack([-x[:, 1], x[:, 0]], 1)

    def test_the_exact_field_recovers_them(self):
        def velocity(x, t):
            to_atoms, probability = self.logs(x, t)
            return self.turning(x, (to_atoms * probability).sum(1) / (1 - t))

        found = self.recovered(velocity, 400, "euler")
        assert found.tolist() == pytest.approx(self.masses.tolist(), abs=0.01)

    def test_the_log_of_the_projected_mean_does_not(self):
        """What an ambient regression on x1 converges to is another field, with other masses."""

        def velocity(x, t):
            _, probability = self.logs(x, t)
            mean = CIRCLE.projection(probability @ self.on_circle(self.angles))
            return CIRCLE.log(x, mean) / (1 - t).unsqueeze(1)

        found = self.recovered(velocity, 400, "euler")
        assert float((found - self.masses).abs().max()) > 0.03

    def trained(
        self, network: nn.Module, prediction: str, schedule: Schedule, batch_size: int, generator: torch.Generator
    ) -> list[float]:
        """The masses that a network recovers when it was trained by flow matching."""
        x1 = self.on_circle(self.angles).repeat_interleave(torch.tensor([5, 2, 3]), 0).float()
        velocity = VelocityField(network, CIRCLE, Isotropic(CIRCLE, torch.ones(2)), prediction)
        matched(velocity, x1, schedule, generator, batch_size=batch_size)
        return self.recovered(velocity, 50, "midpoint", torch.float32).tolist()

    @pytest.mark.parametrize("prediction", ["velocity", "x1"])
    def test_a_trained_network_recovers_them(self, prediction, generator):
        """Linear in its parameters, so that nothing but the loss decides where it ends."""
        schedule = Schedule(1500, learning_rate=0.02, weight_decay=0.0)
        found = self.trained(Interpolated(), prediction, schedule, 4096, generator)
        assert found == pytest.approx(self.masses.tolist(), abs=0.01)

    def test_so_does_a_flat_network_but_for_its_smoothness(self, generator):
        """The field jumps; a smooth network that is trained for seconds blurs it by one or two hundredths."""
        schedule = Schedule(600, learning_rate=3e-3, weight_decay=0.0)
        found = self.trained(lively(2, 64, 2), "velocity", schedule, 1024, generator)
        assert found == pytest.approx(self.masses.tolist(), abs=0.04)


class Table(nn.Module):
    """A saturated model: a free velocity for each of a few points."""

    def __init__(self, sites: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.sites, self.values = sites, nn.Parameter(values)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The velocity of the nearest site."""
        return self.values[torch.cdist(x, self.sites).argmin(1)]


class TestTraining:
    """What is minimised, averaged, kept and refused."""

    @pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
    def test_a_metric_leaves_the_minimizer_where_it_is(self, share, generator):
        """Many pairs cross at three sites; the gradient vanishes at the means of their velocities, and only there."""
        sites, way = drawn(3, 2), drawn(30, 2, seed=1)
        here = sites.repeat_interleave(10, 0)
        x0, x1, t = here - way / 2, here + way / 2, torch.full((30,), 0.5, dtype=torch.float64)
        means = way.reshape(3, 10, 2).mean(1)
        stretch = drawn(2, 5, seed=2)

        def metric(x, v, generator):
            return (1 + x.square().sum(1, keepdim=True)) * (v @ stretch)

        for values, stationary in ((means, True), (means + 0.1, False)):
            table = Table(sites, values)
            velocity = VelocityField(table, PLANE, Isotropic(PLANE, torch.ones(2).double()), "velocity")
            loss = FlowMatchingLoss(velocity, metric=metric, metric_weight=share)
            loss(velocity, x0, x1, t, generator).backward()
            assert (float(table.values.grad.abs().max()) < 1e-14) == stationary

    def test_the_metric_starts_at_the_scale_of_the_plain_loss(self, generator):
        x0, x1 = drawn(500, 2), drawn(500, 2, seed=1)
        t = torch.full((500,), 0.5, dtype=torch.float64)
        zero = VelocityField(Table(torch.zeros(1, 2).double(), torch.zeros(1, 2).double()), PLANE,
                             Isotropic(PLANE, torch.ones(2).double()), "velocity")  # fmt: skip
        losses = [
            FlowMatchingLoss(zero, metric=lambda x, v, g: 1e5 * v, metric_weight=share)(
                zero, x0, x1, t, generator
            ).item()
            for share in (0.0, 0.5, 1.0)
        ]
        assert losses == pytest.approx([losses[0]] * 3)

    def test_it_ends_with_the_exponential_average(self, generator):
        seen = []
        velocity = self.velocity()
        matched(velocity, self.data(), Schedule(30, ema_decay=0.7), generator, progress=self.spy(velocity, seen))
        average = self.velocity().network.readout.write.weight.detach()
        for step, weight in enumerate(seen):
            decay = min(0.7, (step + 1) / (step + 10))
            average = decay * average + (1 - decay) * weight
        torch.testing.assert_close(velocity.network.readout.write.weight.detach(), average, rtol=1e-5, atol=1e-6)

    def test_patience_stops_and_the_best_weights_are_kept(self, generator):
        seen = []
        velocity = self.velocity()
        # without averaging, the weights of each step are those that are evaluated
        schedule = Schedule(400, learning_rate=0.01, ema_decay=0.0, patience=3, evaluate_every=10)
        few, others = self.data()[:2], self.data()[2:]
        spy = self.spy(velocity, seen)
        history = matched(velocity, few, schedule, generator, batch_size=16, validation=others, progress=spy)
        best = int(np.argmin(history.validation))
        assert history.best_step == history.step[best] == 10 * (best + 1)
        assert len(history.step) == best + 1 + 3 == len(history.validation) == len(history.train)
        assert len(seen) == history.step[-1] < 400
        assert torch.equal(velocity.network.readout.write.weight, seen[history.best_step - 1])
        assert not torch.equal(velocity.network.readout.write.weight, seen[-1])

    def test_without_validation_the_last_weights_are_kept(self, generator):
        history = matched(self.velocity(), self.data(), Schedule(120), generator)
        assert history.step == [50, 100, 120]
        assert history.best_step == 120
        assert history.validation == []

    def test_the_loss_falls(self, generator):
        law = {"coupling": "ot", "time": "beta"}
        history = matched(self.velocity(), 0.1 * self.data() + 3, Schedule(200), generator, batch_size=64, **law)
        assert history.train[-1] < 0.3 * history.train[0]

    def test_equal_generators_give_equal_weights_and_nothing_global_moves(self):
        state, dtype = torch.get_rng_state(), torch.get_default_dtype()
        ends = []
        for seed in (1, 1, 2):
            velocity = self.velocity()
            matched(velocity, self.data(), Schedule(20), torch.Generator().manual_seed(seed))
            ends.append(velocity.network.readout.write.weight)
        assert torch.equal(ends[0], ends[1])
        assert not torch.equal(ends[0], ends[2])
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.get_default_dtype() == dtype

    def test_a_loss_that_is_never_finite_is_an_error(self, generator):
        with pytest.raises(NumericalError, match=r"not finite at step 1:.*learning_rate"):
            matched(self.velocity(), self.data() * float("nan"), Schedule(20), generator)

    def test_a_loss_that_turns_nan_stops_with_the_last_good_weights(self, generator):
        velocity = self.velocity()
        calls = []

        def poison(module, arguments, output):
            # the evaluation at step 10 and 20 calls too, on another network
            calls.append(module)
            return output * (float("nan") if module is velocity.network and len(calls) > 25 else 1.0)

        velocity.network.register_forward_hook(poison)
        with pytest.warns(RuntimeWarning, match=r"not finite at step 26: .*weights of step 20 are kept"):
            history = matched(velocity, self.data(), Schedule(100, evaluate_every=10), generator)
        assert history.step == [10, 20]
        assert all(parameter.isfinite().all() for parameter in velocity.parameters())

    def data(self) -> torch.Tensor:
        """Forty points of the plane."""
        return drawn(40, 2).float()

    def velocity(self) -> VelocityField:
        """The same small field at each call."""
        return VelocityField(lively(2), PLANE, Isotropic(PLANE, torch.ones(2)), "velocity")

    def spy(self, velocity: VelocityField, seen: list[torch.Tensor]):
        """A progress callback that notes the output weights after each step."""
        return lambda step, total: seen.append(velocity.network.readout.write.weight.detach().clone())


class TestStochasticSampling:
    """Langevin noise along the way keeps the marginals."""

    def velocity(self, source: float, target: float, mean: float):
        """E[x1 - x0 | xt] from N(0, source^2) to N(mean, target^2)."""

        def field(x, t):
            t = t.unsqueeze(1)
            variance = (1 - t) ** 2 * source**2 + t**2 * target**2
            return mean + (t * target**2 - (1 - t) * source**2) / variance * (x - t * mean)

        return field

    @pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
    @pytest.mark.parametrize(("source", "target"), [(1.0, 0.5), (2.0, 1.0), (0.5, 2.0)])
    def test_a_gaussian_keeps_its_mean_and_variance(self, source, target, noise, generator):
        line = Product([(Euclidean(10), torch.arange(10).unsqueeze(0))])
        prior = Isotropic(line, torch.full((10,), source, dtype=torch.float64))
        x = prior.sample(10_000, generator)
        end = integrate_stochastic(self.velocity(source, target, 1.0), x, line, prior, noise, generator, 100)
        assert float(end.mean()) == pytest.approx(1, abs=0.02 * max(target, 1))
        assert float(end.std()) == pytest.approx(target, rel=0.02)
        # what the noise is for: with it, the end no longer hangs on the start
        correlation = float(torch.corrcoef(torch.stack([x.flatten(), end.flatten()]))[0, 1])
        assert correlation > 0.999 if noise == 0 else correlation < 0.99

    @pytest.mark.parametrize("method", ["midpoint", "rk4"])
    def test_few_steps_keep_the_variance_too(self, method, generator):
        """Euler steps would lose 9% of it."""
        line = Product([(Euclidean(10), torch.arange(10).unsqueeze(0))])
        prior = Isotropic(line, torch.ones(10, dtype=torch.float64))
        x = prior.sample(20_000, generator)
        end = integrate_stochastic(self.velocity(1.0, 1.0, 1.0), x, line, prior, 0.2, generator, 24, method)
        assert float(end.mean()) == pytest.approx(1, abs=0.01)
        assert float(end.var()) == pytest.approx(1, abs=0.012)

    def test_noise_of_the_wrong_size_would_be_seen(self, generator):
        line = Product([(Euclidean(10), torch.arange(10).unsqueeze(0))])
        prior, wrong = (Isotropic(line, torch.full((10,), s, dtype=torch.float64)) for s in (1.0, 1.5))
        x = prior.sample(10_000, generator)
        end = integrate_stochastic(self.velocity(1.0, 0.5, 1.0), x, line, wrong, 1.0, generator, 100)
        assert float(end.std()) > 0.55

    def test_the_uniform_distribution_on_a_sphere_stays(self, generator):
        prior = Isotropic(SPHERE, torch.ones(3, dtype=torch.float64))
        x = prior.sample(20_000, generator)
        end = integrate_stochastic(lambda x, t: torch.zeros_like(x), x, SPHERE, prior, 0.5, generator, 20)
        assert SPHERE.belongs(end, 1e-12).all()
        assert float((end - x).norm(dim=1).mean()) > 0.3
        torch.testing.assert_close(end.T @ end / len(end), torch.eye(3).double() / 3, rtol=0.03, atol=0.01)

    def test_what_blows_up_is_named(self, generator):
        prior = Isotropic(PLANE, torch.ones(2, dtype=torch.float64))
        with pytest.raises(NumericalError, match=r"step 1\) for 100\.0%"):
            integrate_stochastic(lambda x, t: x * float("nan"), drawn(3, 2), PLANE, prior, 0.1, generator, 5)


class TestGuidance:
    """The gradient of a loss, on the way down."""

    goal = torch.tensor([3.0, -1.0], dtype=torch.float64)

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        """Half the squared distance to the goal."""
        return 0.5 * (x - self.goal).square().sum(1)

    def drift(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """A velocity that is the same everywhere."""
        return torch.tensor([1.0, 2.0], dtype=torch.float64).expand_as(x)

    def test_the_gradient_is_taken_at_the_predicted_end_and_descended(self):
        x, t = drawn(10, 2), torch.full((10,), 0.25, dtype=torch.float64)
        v = self.drift(x, t)
        found = guided(self.drift, self.loss, PLANE, strength=0.1, clip=1e9)(x, t)
        torch.testing.assert_close(found, v - 0.1 * (x + 0.75 * v - self.goal))

    def test_guided_samples_have_a_lower_loss(self):
        x = drawn(50, 2)
        ends = []
        for strength in (0.0, 0.3, 1.0):
            field = guided(self.drift, self.loss, PLANE, strength=strength, clip=10.0)
            end, _ = integrate(lambda x, t, field=field: (field(x, t), None), x, PLANE, "rk4", 20)
            ends.append(self.loss(end))
        assert (ends[1] < ends[0]).all()
        assert (ends[2] < ends[1]).all()
        plain, _ = integrate(lambda x, t: (self.drift(x, t), None), x, PLANE, "rk4", 20)
        torch.testing.assert_close(ends[0], self.loss(plain))

    def test_steps_are_clipped_to_the_velocity(self):
        x, t = 100 * drawn(10, 2), torch.zeros(10, dtype=torch.float64)
        v = self.drift(x, t)
        step = guided(self.drift, self.loss, PLANE, strength=5.0, clip=0.5)(x, t) - v
        torch.testing.assert_close(step.norm(dim=1), 0.5 * v.norm(dim=1))
        downhill = self.goal - (x + v)
        cosine = (step * downhill).sum(1) / step.norm(dim=1) / downhill.norm(dim=1)
        torch.testing.assert_close(cosine, torch.ones(10, dtype=torch.float64))

    def test_a_vanishing_gradient_changes_nothing(self):
        x, t = drawn(10, 2), torch.zeros(10, dtype=torch.float64)
        found = guided(self.drift, lambda x: 0 * x.sum(1), PLANE)(x, t)
        assert torch.equal(found, self.drift(x, t))

    def test_it_stays_tangent_and_descends_on_a_sphere(self):
        axis = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        field = guided(
            lambda x, t: torch.cross(axis.expand_as(x), x, -1), lambda x: -x @ axis, SPHERE, strength=0.5, clip=5.0
        )
        x = SPHERE.projection(drawn(20, 3))
        v = field(x, torch.zeros(20, dtype=torch.float64))
        torch.testing.assert_close(SPHERE.to_tangent(x, v), v)
        # the plain field turns about the axis and keeps the height
        end, _ = integrate(lambda x, t: (field(x, t), None), x, SPHERE, "rk4", 20)
        assert (end @ axis > x @ axis).all()

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_a_gradient_that_is_not_finite_is_named(self, bad):
        def loss(x):
            return x.sum(1) * torch.where(x[:, 0] > 0, bad, 1.0)

        x = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-9.0, 0.0]], dtype=torch.float64)
        field = guided(self.drift, loss, PLANE)
        with pytest.raises(NumericalError, match=r"gradient is not finite at t = 0\.25 for 2 points.*smaller strength"):
            field(x, torch.full((3,), 0.25, dtype=torch.float64))
