"""Guidance: functionals and their gradients, schedules, descents along a flow, natural gradients, standardizing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.pipeline import make_pipeline

import wsflow
from wsflow import Architecture, Guidance, PermutationAligner, ScaleCanonicalizer, Task, WeightArray, WeightFlow
from wsflow.evaluation.transfer import LearningCurves, learning_curves
from wsflow.flow.guidance import COOLINGS, OPTIMIZERS, SCHEDULES, Descent, guided, guided_sample, slope_of
from wsflow.geometry import GEOMETRIES
from wsflow.losses import LOSSES
from wsflow.manifolds import Euclidean, Sphere
from wsflow.models.options import NeuronTransformer
from wsflow.objectives.functionals import Fairness, Robustness, Sparsity, Sum, TaskLoss, bind, density
from wsflow.objectives.kfac import NaturalGradient
from wsflow.objectives.lsuv import standardized
from wsflow.running import forward, losses, predictions

MLP = Architecture.mlp([4, 3, 3, 2])
FAST = {"max_iter": 30, "velocity": NeuronTransformer(16, 1), "random_state": 0}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    return Task(X, (X[:, 0] > 0).astype(int))


@pytest.fixture(scope="module")
def flow(task):
    rows = WeightArray(np.random.default_rng(1).normal(size=(40, MLP.n_weights)), MLP)
    return WeightFlow("euclidean", **FAST).fit(rows)


def functionals(task):
    regression = Task(task.X, task.X[:, :2], loss="mse")
    return {
        "loss": TaskLoss(task),
        "regression": TaskLoss(regression),
        "noise": Robustness(task, 0.3),
        "l1": Sparsity("l1"),
        "hoyer": Sparsity("hoyer"),
        "fairness": Fairness(task, task.X[:, 1] > 0),
        "sum": 2.0 * TaskLoss(task) + Sparsity() * 0.5,
    }


class TestFunctionals:
    @pytest.mark.parametrize("name", ["loss", "regression", "noise", "l1", "hoyer", "fairness", "sum"])
    def test_gradients_are_finite_differences_and_each_of_its_own_network(self, name, task):
        functional = functionals(task)[name]
        x, v, h = drawn(3, MLP.n_weights), drawn(3, MLP.n_weights, seed=1), 1e-6
        value = lambda w: functional.bind(MLP, generator())(w)  # noqa: E731
        slope = (slope_of(value)(x) * v).sum(1)
        torch.testing.assert_close(slope, (value(x + h * v) - value(x - h * v)) / (2 * h), rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(value(x)[1:2], value(x[1:2]), rtol=1e-12, atol=1e-12)

    def test_minibatches_are_seeded_fresh_and_unbiased(self, task):
        bound = TaskLoss(task, 10).bind(MLP, generator(3))
        w = drawn(2, MLP.n_weights)
        values = torch.stack([bound(w) for _ in range(1000)])
        assert not torch.equal(values[0], values[1])
        again = TaskLoss(task, 10).bind(MLP, generator(3))
        assert torch.equal(values[:2], torch.stack([again(w), again(w)]))
        error = values.std(0) / 1000**0.5
        assert ((values.mean(0) - TaskLoss(task).bind(MLP, generator())(w)).abs() < 4 * error).all()

    def test_the_sign_attack_raises_a_linear_networks_loss_by_its_dual_norm(self):
        """For a network w x + b and squares, the worst change of each input moves the output by r |w|_1."""
        line, r = Architecture.mlp([3, 1]), 0.2
        X = drawn(8, 3).numpy()
        task, w = Task(X, np.full(8, 100.0), loss="mse"), drawn(5, 4)
        found = Robustness(task, r, "sign").bind(line, generator())(w)
        outputs = forward(w, line, torch.from_numpy(X))[..., 0]
        expected = (outputs - 100.0 - r * w[:, :3].abs().sum(1, keepdim=True)).square().mean(1)
        torch.testing.assert_close(found, expected)

    @given(st.floats(0.1, 100), st.integers(1, 8))
    def test_density_is_that_of_equal_weights_at_any_scale(self, scale, k):
        w = torch.zeros(1, 9, dtype=torch.float64)
        w[:, :k] = scale
        expected = (k**0.5 - 1) / 2
        assert float(density(w)) == pytest.approx(expected, abs=1e-10)

    def test_fairness_is_the_difference_of_the_rates(self, task):
        group, w = task.X[:, 2] > 0.3, drawn(4, MLP.n_weights)
        said = predictions(forward(w, MLP, torch.from_numpy(task.X)), task.loss)[..., 1]
        expected = (said[:, group].mean(1) - said[:, ~group].mean(1)).abs()
        torch.testing.assert_close(Fairness(task, group).bind(MLP, generator())(w), expected)

    def test_sums_add_up(self, task):
        w = drawn(4, MLP.n_weights)
        one, two = (f.bind(MLP, generator())(w) for f in (TaskLoss(task), Sparsity()))
        mixed = 3.0 * (TaskLoss(task) + 2.0 * Sparsity()) + Sum(((1.0, lambda v: v[:, 0]),))
        torch.testing.assert_close(mixed.bind(MLP, generator())(w), 3 * one + 6 * two + w[:, 0])

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda t: Robustness(t, attack="bribe"), "'attack' of a functional"),
            (lambda t: Sparsity("l0"), "'penalty' of a functional"),
            (lambda t: Fairness(t, np.ones(60, bool)), "neither all nor none"),
            (lambda t: Fairness(t, np.arange(60)), "by True or False"),
            (lambda t: Guidance(t, schedule="never"), "'schedule' of Guidance"),
            (lambda t: Descent(4, flow_steps=5), "no more steps along the flow"),
            (lambda t: Descent(optimizer="magic"), "'optimizer' of Descent"),
            (lambda t: Descent(rate=0.0), "are positive"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, make, message, task):
        with pytest.raises(ValueError, match=message):
            make(task)

    def test_objectives_that_value_nothing_are_refused(self):
        with pytest.raises(TypeError, match="got str"):
            Guidance("fashion")
        with pytest.raises(ValueError, match=r"tensor of shape \(3,\), got \(\)"):
            bind(lambda w: w.sum(), MLP, generator())(drawn(3, MLP.n_weights))


class TestSchedules:
    @pytest.mark.parametrize("name", SCHEDULES)
    def test_all_spend_the_same(self, name):
        t = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
        assert float(SCHEDULES[name](t).mean()) == pytest.approx(1, abs=1e-3)

    def test_the_schedule_scales_the_guidance_at_its_time(self):
        field = lambda x, t: torch.ones_like(x)  # noqa: E731
        x, t = drawn(3, 2), torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64)
        steps = {
            name: guided(field, lambda x: x.square().sum(1), Euclidean(2), 0.1, 1e9, name)(x, t) - 1
            for name in ("constant", "rise", "decay", "late")
        }
        torch.testing.assert_close(steps["rise"], 2 * t.unsqueeze(1) * steps["constant"])
        torch.testing.assert_close(steps["decay"], 2 * (1 - t).unsqueeze(1) * steps["constant"])
        assert not steps["late"][:2].any()

    def test_normalized_guidance_has_the_length_of_the_velocity(self):
        field, x, t = (lambda x, t: 3.0 * torch.ones_like(x)), drawn(5, 2), torch.zeros(5, dtype=torch.float64)
        step = guided(field, lambda x: 1e6 * x.square().sum(1), Euclidean(2), 0.5, 1e9, normalize=True)(x, t) - 3
        torch.testing.assert_close(step.norm(dim=1), torch.full((5,), 0.5 * 3 * 2**0.5, dtype=torch.float64))

    def test_coolings_start_at_one_and_never_rise(self):
        for name, cooling in COOLINGS.items():
            values = [cooling(k / 10) for k in range(11)]
            assert values[0] == 1.0 and values == sorted(values, reverse=True)
            assert name == "constant" or values[-1] == pytest.approx(0, abs=1e-12)


class TestDescent:
    still = staticmethod(lambda x, t: torch.zeros_like(x))
    curvature = torch.tensor([1.0, 4.0], dtype=torch.float64)

    def bowl(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * (self.curvature * x.square()).sum(1)

    def test_every_step_takes_one_gradient(self):
        calls = []

        def slope(points):
            calls.append(len(points))
            return points

        guided_sample(self.still, slope, drawn(3, 2), Euclidean(2), Descent(20, flow_steps=7))
        assert calls == [3] * 20

    def test_without_a_velocity_it_is_gradient_descent(self):
        x = drawn(4, 2)
        descent = Descent(5, flow_steps=2, optimizer="gradient", rate=0.1, cooling="constant", clip=1e9)
        found = guided_sample(self.still, slope_of(self.bowl), x, Euclidean(2), descent)
        torch.testing.assert_close(found, x * (1 - 0.1 * self.curvature) ** 5)

    @pytest.mark.parametrize("name", ["momentum", "adam"])
    def test_its_optimizers_are_torchs(self, name):
        x = drawn(4, 2)
        leaf = x.clone().requires_grad_()
        torch_ones = {
            "momentum": lambda: torch.optim.SGD([leaf], 0.05, momentum=0.8),
            "adam": lambda: torch.optim.Adam([leaf], 0.05, betas=(0.8, 0.99)),
        }
        optimizer = torch_ones[name]()
        for _ in range(10):
            optimizer.zero_grad()
            self.bowl(leaf).sum().backward()
            optimizer.step()
        descent = Descent(10, flow_steps=0, optimizer=name, rate=0.05, momentum=0.8, cooling="constant", clip=1e9)
        found = guided_sample(self.still, slope_of(self.bowl), x, Euclidean(2), descent)
        torch.testing.assert_close(found, leaf.detach(), rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("name", sorted(OPTIMIZERS))
    def test_it_stays_on_a_sphere_and_descends(self, name):
        axis = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        x = Sphere(3).projection(drawn(20, 3))
        turn = lambda p, t: torch.cross(axis.expand_as(p), p, -1)  # noqa: E731
        end = guided_sample(turn, slope_of(lambda p: -p @ axis), x, Sphere(3), Descent(30, 10, name, rate=0.05))
        assert Sphere(3).belongs(end, 1e-12).all()
        assert (end @ axis > x @ axis).all()

    def test_a_strength_of_almost_nothing_is_the_flow_itself(self):
        field = lambda x, t: (1 + t).unsqueeze(1) * torch.ones_like(x)  # noqa: E731
        x = drawn(4, 2)
        found = guided_sample(field, slope_of(self.bowl), x, Euclidean(2), Descent(20, 16), strength=1e-14)
        torch.testing.assert_close(found, x + 1.5)

    def test_steps_are_clipped_to_the_point(self):
        x, huge = drawn(4, 2), lambda p: 1e12 * p
        end = guided_sample(self.still, huge, x, Euclidean(2), Descent(1, 0, "gradient", rate=1.0, clip=0.25))
        torch.testing.assert_close(end, 0.75 * x)

    def test_points_arrive_once_when_the_flow_ends(self):
        seen = []

        def arrive(x):
            seen.append(x.clone())
            return x + 10

        one = lambda x, t: torch.ones_like(x)  # noqa: E731
        descent = Descent(6, 4)
        end = guided_sample(one, torch.zeros_like, drawn(2, 2), Euclidean(2), descent, arrive=arrive)
        assert len(seen) == 1
        torch.testing.assert_close(seen[0], drawn(2, 2) + 1)
        torch.testing.assert_close(end, drawn(2, 2) + 11)


class TestNatural:
    @pytest.mark.parametrize("classes", [2, 5])
    def test_the_root_of_the_curvature_is_one(self, classes):
        z = drawn(2, 3, classes)
        columns = torch.stack(LOSSES["cross_entropy"].curvature_root(z), -1)
        p = z.softmax(-1)
        hessian = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
        torch.testing.assert_close(columns @ columns.transpose(-1, -2), hessian, rtol=1e-10, atol=1e-10)

    def test_one_step_solves_a_linear_regression(self):
        """A single layer's factors are exact: G^-1 D A^-1 is Newton's step."""
        line, X = Architecture.mlp([3, 2]), drawn(50, 3).numpy()
        y = X @ drawn(3, 2, seed=1).numpy() + 0.7
        geometry = GEOMETRIES["euclidean"](line)
        slope = NaturalGradient(TaskLoss(Task(X, y, loss="mse")), line, geometry, 1e-16, generator())
        w = drawn(4, line.n_weights, seed=2)
        solved = w - slope(w)
        value = losses(forward(solved, line, torch.from_numpy(X)), torch.from_numpy(y), "mse")
        assert value.max() < 1e-10

    def test_it_does_not_see_a_linear_change_of_the_inputs(self):
        """Networks on A x with weights W A^-1 take the same steps in their outputs."""
        line, X = Architecture.mlp([3, 2], bias=False), drawn(60, 3).numpy()
        y = drawn(60, 2, seed=4).numpy()
        change = np.array([[5.0, 1.0, 0.0], [0.0, 0.2, 0.0], [0.3, 0.0, 1.0]])
        w = drawn(2, line.n_weights)
        other = (w.reshape(2, 2, 3) @ torch.from_numpy(np.linalg.inv(change))).reshape(2, -1)
        geometry, moved = GEOMETRIES["euclidean"](line), []
        for inputs, weights in ((X, w), (X @ change.T, other)):
            slope = NaturalGradient(TaskLoss(Task(inputs, y, loss="mse")), line, geometry, 1e-24, generator())
            moved.append(forward(weights - slope(weights), line, torch.from_numpy(inputs)))
        torch.testing.assert_close(moved[0], moved[1], rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("geometry", sorted(GEOMETRIES))
    @pytest.mark.parametrize("last_layer", ["euclidean", "polar"])
    def test_it_descends_in_every_geometry(self, geometry, last_layer, task):
        space = GEOMETRIES[geometry](MLP, last_layer)
        x = space.target.projection(space.to_points(drawn(6, MLP.n_weights)))
        slope = NaturalGradient(TaskLoss(task), MLP, space, 0.1, generator())
        value = lambda p: TaskLoss(task).bind(MLP, generator())(space.to_weights(space.target.projection(p)))  # noqa: E731
        direction = space.manifold.to_tangent(x, slope(x))
        after = value(space.manifold.exp(x, -0.02 * direction))
        assert (after < value(x)).all()

    def test_it_is_for_tasks(self, task):
        with pytest.raises(ValueError, match="natural=False"):
            NaturalGradient(Sparsity(), MLP, GEOMETRIES["euclidean"](MLP), 0.1, generator())


class TestStandardizing:
    @pytest.mark.parametrize("architecture", [MLP, Architecture.mlp([4, 5, 3], "tanh")])
    def test_neurons_and_outputs_have_the_moments_that_were_asked_for(self, architecture):
        inputs, w = 3 * drawn(40, 4) + 2, 5 * drawn(3, architecture.n_weights, seed=1)
        new = standardized(w, architecture, inputs, 0.3)
        first = Architecture.mlp([4, architecture.layers[0].outputs])
        hidden = forward(new[:, : first.n_weights], first, inputs)
        torch.testing.assert_close(hidden.mean(1), torch.zeros_like(hidden.mean(1)), rtol=0, atol=1e-9)
        torch.testing.assert_close(hidden.var(1, correction=0), torch.ones_like(hidden.mean(1)))
        outputs = forward(new, architecture, inputs)
        torch.testing.assert_close(outputs.var(1, correction=0).mean(1).sqrt(), torch.full((3,), 0.3).double())

    def test_it_depends_on_directions_only(self):
        """Other scales and biases of the neurons before it give the same networks."""
        architecture, inputs, w = Architecture.mlp([4, 5, 2]), drawn(40, 4), drawn(3, 37, seed=1)
        other = w.clone()
        other[:, :20] *= torch.tensor([0.1, 1, 2, 5, 30]).double().repeat_interleave(4)
        other[:, 20:25] += 7
        torch.testing.assert_close(*(standardized(v, architecture, inputs) for v in (w, other)), rtol=1e-9, atol=1e-9)


class TestSampling:
    def mean_loss(self, rows, task):
        return float(TaskLoss(task).bind(MLP, generator())(torch.from_numpy(np.array(rows)).double()).mean())

    @pytest.mark.parametrize("natural", [False, True])
    @pytest.mark.parametrize("flow_steps", [0, 8])
    def test_a_descent_samples_networks_that_are_good_at_the_task(self, natural, flow_steps, flow, task):
        descent = Descent(40, flow_steps, rate=0.3 if natural else 0.2, clip=0.5, natural=natural, standardize=True)
        guidance = Guidance(task, batch_size=30, descent=descent)
        new = flow.sample(10, 0, guidance=guidance)
        # guessing costs log 2
        assert self.mean_loss(new, task) < 0.55 < math.log(2) < self.mean_loss(flow.sample(10, 0), task)
        assert np.array_equal(new, flow.sample(10, 0, guidance=guidance))
        assert np.array_equal(new[:4], flow.sample(4, 0, guidance=guidance))

    def test_sparsity_and_a_function_of_ones_own(self, flow):
        plain, sparse, small = (
            np.array(flow.sample(20, 0, guidance=g))
            for g in (
                None,
                Guidance(Sparsity("hoyer"), descent=Descent(30, 8, rate=1.0, momentum=0.5)),
                Guidance(lambda w: w.square().sum(1), strength=0.3),
            )
        )
        assert density(torch.from_numpy(sparse)).mean() < 0.9 * density(torch.from_numpy(plain)).mean()
        assert np.square(small).sum() < 0.8 * np.square(plain).sum()

    def test_fairness_falls(self, flow, task):
        penalty = Fairness(task, task.X[:, 0] > 0)
        gap = lambda rows: float(penalty.bind(MLP, generator())(torch.from_numpy(np.array(rows)).double()).mean())  # noqa: E731
        fair = flow.sample(20, 0, guidance=Guidance(penalty, descent=Descent(40, 8, "adam", rate=0.05)))
        assert gap(fair) < 0.5 * gap(flow.sample(20, 0))

    def test_a_geometric_flow_stays_on_its_manifold(self, task):
        rows = WeightArray(np.random.default_rng(1).normal(size=(40, MLP.n_weights)), MLP)
        pipe = make_pipeline(PermutationAligner(), ScaleCanonicalizer(), WeightFlow("geometric", **FAST)).fit(rows)
        new = wsflow.sample(pipe, 5, 0, guidance=Guidance(task, descent=Descent(20, 8, natural=True)))
        pipe[-1].geometry_.check(torch.from_numpy(np.array(new)), atol=1e-12)
        assert self.mean_loss(new, task) < self.mean_loss(wsflow.sample(pipe, 5, 0), task)
        with pytest.raises(ValueError, match="in a flat geometry"):
            wsflow.sample(pipe, 5, 0, guidance=Guidance(task, descent=Descent(20, 8, standardize=True)))

    def test_a_gradient_that_is_not_finite_is_named(self, flow):
        with pytest.raises(wsflow.exceptions.NumericalError, match=r"gradient is not finite at t = 0 for"):
            flow.sample(3, 0, guidance=Guidance(lambda w: w.sum(1) * math.nan, descent=Descent(5, 2)))


class TestLearningCurves:
    def test_steps_are_interpolated(self):
        curves = LearningCurves(np.array([0, 10, 20]), np.array([[0.0], [0.4], [0.8]]), np.zeros((3, 1)))
        assert curves.steps_to(0.6) == pytest.approx(15)
        assert curves.steps_to(-1.0) == 0 and math.isinf(curves.steps_to(0.9))

    @pytest.mark.parametrize("optimizer", ["sgd", "adam"])
    def test_networks_learn_and_the_given_ones_stay(self, optimizer, task):
        rows = np.random.default_rng(0).normal(size=(5, MLP.n_weights)).astype(np.float32)
        networks = WeightArray(rows.copy(), MLP)
        curves = learning_curves(networks, task, n_steps=60, every=25, optimizer=optimizer, batch_size=20)
        assert curves.steps.tolist() == [0, 25, 50, 60] and curves.scores.shape == (4, 5)
        assert curves.losses[-1].mean() < 0.7 * curves.losses[0].mean()
        assert np.array_equal(networks, rows)
        alone = learning_curves(networks[2:3], task, n_steps=60, every=60, optimizer=optimizer, batch_size=20)
        assert np.allclose(alone.losses[-1], curves.losses[-1][2:3], rtol=1e-3)

    def test_an_unknown_optimizer_is_refused(self, task):
        with pytest.raises(ValueError, match="one of"):
            learning_curves(WeightArray(np.zeros((1, MLP.n_weights)), MLP), task, optimizer="lion")
