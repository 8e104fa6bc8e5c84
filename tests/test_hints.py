"""Hints: gradients of the population's consensus as inputs of the velocity network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wsflow import Architecture, Task, WeightArray, WeightFlow
from wsflow.flow.hints import GradientHints
from wsflow.flow.solvers import RungeKutta
from wsflow.flow.sources import Isotropic
from wsflow.flow.velocity import VelocityField
from wsflow.geometry import GEOMETRIES
from wsflow.manifolds import Euclidean, Product
from wsflow.metanetworks.encoders import READ_HINTS
from wsflow.metanetworks.velocity import velocity_network
from wsflow.models import options
from wsflow.models.options import ConsensusHints, NeuronTransformer, RelationalTransformer
from wsflow.models.settings import settings_of
from wsflow.objectives.consensus import Consensus, fit_consensus
from wsflow.running import forward
from wsflow.symmetry.actions import Action

MLP = Architecture.mlp([4, 5, 3, 2])
SMALL = {"neuron": NeuronTransformer(8, 1, 2), "relational": RelationalTransformer(8, 1, 2), "mlp": options.MLP(32, 1)}
FAST = {"max_iter": 5, "velocity": SMALL["neuron"], "solver": RungeKutta(n_steps=3), "random_state": 0}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def task(seed: int = 0) -> Task:
    """Inputs that depend on no seed, and labels that do."""
    X = np.random.default_rng(0).normal(size=(30, 4))
    return Task(X, np.random.default_rng(seed).permutation(np.arange(30) % 2))


def consensus(geometry: str = "euclidean") -> Consensus:
    place = GEOMETRIES[geometry](MLP)
    return fit_consensus(task(), MLP, place, drawn(20, MLP.n_weights), 16, torch.Generator().manual_seed(0))


def field_of(kind: str = "neuron", identity: str | None = None) -> VelocityField:
    """An untrained velocity with hints that does something."""
    loss = consensus()
    manifold = loss.geometry.manifold
    prior = Isotropic(manifold, torch.full((manifold.size,), 0.7, dtype=torch.float64))
    options = {"dim": 32} if kind == "mlp" else {"dim": 8, "heads": 2, "identity": identity}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = velocity_network(kind, MLP, depth=1, n_hints=GradientHints.count, **options)
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
    field = VelocityField(network, manifold, prior, "velocity", GradientHints(loss, manifold, prior)).double().eval()
    field.fit_scale(drawn(20, MLP.n_weights, seed=2))
    return field.requires_grad_(False)


class TestGradients:
    """The vectors themselves."""

    def test_they_are_the_guess_the_gradient_where_it_leads_and_that_times_the_covariance(self):
        plane = Product([(Euclidean(3), torch.arange(3).unsqueeze(0))])
        matrix = drawn(3, 3)
        scale = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
        hints = GradientHints(lambda x: 0.5 * (x @ matrix).square().sum(-1), plane, Isotropic(plane, scale)).double()
        x, t, guess = drawn(6, 3), torch.linspace(0, 1, 6, dtype=torch.float64), drawn(6, 3, seed=1)
        gradient = (x + (1 - t).unsqueeze(1) * guess) @ matrix @ matrix.T
        raw = torch.stack([gradient, gradient * scale.square()], 1)
        expected = raw / (1 + raw.square().mean((1, 2), keepdim=True)).sqrt()
        torch.testing.assert_close(hints(x, t, guess), torch.cat([guess.unsqueeze(1), expected], 1))

    def test_the_consensus_is_the_mean_probability(self):
        found, points = consensus(), drawn(20, MLP.n_weights).float()
        inputs = found.inputs
        mean = forward(points, MLP, inputs).softmax(-1).mean(0)
        torch.testing.assert_close(found.targets, mean)
        outputs = forward(points[:1], MLP, inputs)[0]
        expected = torch.nn.functional.cross_entropy(outputs, mean)
        torch.testing.assert_close(found(points[:1])[0], expected)

    def test_the_consensus_of_a_regression_is_the_mean_output(self):
        fit = Task(task().X, np.random.default_rng(0).normal(size=(30, 2)), loss="mse")
        points = drawn(7, MLP.n_weights).float()
        place = GEOMETRIES["euclidean"](MLP)
        found = fit_consensus(fit, MLP, place, points, 99, torch.Generator().manual_seed(0))
        assert len(found.inputs) == 30
        outputs = forward(points, MLP, found.inputs)
        torch.testing.assert_close(found(points), (outputs - outputs.mean(0)).square().mean((1, 2)))


class TestVelocities:
    """Velocity networks with hints."""

    @pytest.mark.parametrize("kind", READ_HINTS)
    def test_hints_matter_and_are_followed(self, kind):
        field = field_of(kind)
        x, t = drawn(4, MLP.n_weights), torch.full((4,), 0.6, dtype=torch.float64)
        hints = drawn(4, GradientHints.count, MLP.n_weights, seed=5)
        assert (field.network(x, t, None, hints) - field.network(x, t, None, -hints)).abs().max() > 0.01

    def test_without_names_they_are_equivariant(self):
        field = field_of()
        x, t = drawn(4, MLP.n_weights), torch.linspace(0, 0.9, 4, dtype=torch.float64)
        action = Action.random(MLP, 4, torch.Generator().manual_seed(3))
        action = Action(MLP, action.permutations, {})
        before = field(x, t)
        torch.testing.assert_close(field(action(x), t), action(before), rtol=1e-9, atol=1e-9)

    def test_a_second_look_changes_the_velocity(self):
        field = field_of()
        x, t = drawn(4, MLP.n_weights), torch.linspace(0, 0.9, 4, dtype=torch.float64)
        both = field(x, t)
        field.train()
        # in training the first half has one look, the second half two
        some = field(x, t)
        torch.testing.assert_close(some[2:], both[2:], rtol=1e-9, atol=1e-9)
        assert (some[:2] - both[:2]).abs().max() > 1e-3

    def test_the_divergence_sees_them(self):
        """Automatic derivatives of the velocity, through its gradients, against finite differences."""
        field = field_of()
        x, t = drawn(1, MLP.n_weights), torch.full((1,), 0.5, dtype=torch.float64)
        direction = drawn(1, MLP.n_weights, seed=9)
        leaf = x.clone().requires_grad_()
        (found,) = torch.autograd.grad((field(leaf, t) * direction).sum(), leaf)
        h = 1e-6
        step = drawn(1, MLP.n_weights, seed=11)
        slope = ((field(x + h * step, t) - field(x - h * step, t)) * direction).sum() / (2 * h)
        torch.testing.assert_close((found * step).sum(), slope, rtol=1e-5, atol=1e-7)


class TestFlows:
    """WeightFlow with hints."""

    rows = np.random.default_rng(0).normal(size=(24, MLP.n_weights))

    def fitted(self, seed: int = 0, **changes):
        return WeightFlow("euclidean", **FAST | {"task": task(seed)} | changes).fit(WeightArray(self.rows, MLP))

    def test_labels_are_not_used(self):
        one, other = (self.fitted(seed).sample(5, 0) for seed in (0, 1))
        assert not np.array_equal(task(0).y, task(1).y)
        assert np.array_equal(one, other)

    @pytest.mark.parametrize("velocity", READ_HINTS)
    def test_they_are_the_default_where_there_is_a_task(self, velocity):
        assert self.fitted(velocity=SMALL[velocity]).model_.consensus is not None
        assert self.fitted(velocity=SMALL[velocity], hints=None).model_.consensus is None
        assert self.fitted(task=None).model_.consensus is None

    def test_the_drift_is_left_to_them(self):
        assert self.fitted().velocity_.prediction == "velocity"
        assert self.fitted(hints=None).velocity_.prediction == "preconditioned"
        assert settings_of(MLP, task=task()).prediction == "velocity"
        assert settings_of(MLP, task=task(), hints=None).prediction == "preconditioned"
        assert settings_of(MLP, task=task(), prediction="x1").prediction == "x1"

    @pytest.mark.parametrize("changes", [{"task": None}, {"velocity": SMALL["relational"]}])
    def test_asking_for_them_needs_a_task_and_a_network_that_reads_them(self, changes):
        with pytest.raises(ValueError, match="hints='gradient'"):
            self.fitted(hints="gradient", **changes)

    def test_they_look_at_so_many_inputs(self):
        for n, expected in ((3, 3), (10_000, len(task().X))):
            model = self.fitted(hints=ConsensusHints(n)).model_
            assert model.consensus is not None and len(model.consensus.inputs) == expected

    def test_other_widths_have_them_too(self):
        wide = Architecture.mlp([4, 8, 6, 2])
        assert self.fitted(velocity=NeuronTransformer(8, 1, 2, None)).sample(3, 0, architecture=wide).shape == (
            3,
            wide.n_weights,
        )


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_gradients_of_a_few_points_at_a_time_are_the_same(rows: int) -> None:
    plane = Product.of(Euclidean(4))
    source = Isotropic(plane, torch.ones(4, dtype=torch.float64))
    seen = []

    def loss(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return x.pow(4).sum(1)

    x, t, guess = (
        torch.randn(s, generator=torch.Generator().manual_seed(0), dtype=torch.float64) for s in ((7, 4), (7,), (7, 4))
    )
    expected = GradientHints(loss, plane, source)(x, t, guess)
    assert seen == [7]
    torch.testing.assert_close(GradientHints(loss, plane, source, rows)(x, t, guess), expected, rtol=1e-12, atol=1e-12)
    assert max(seen[1:]) == min(rows, 7) and sum(seen[1:]) == 7


def test_as_many_networks_are_differentiated_at_once_as_keep_a_gigabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = Architecture.mlp([4, 8, 3])
    inputs, targets = torch.zeros(10, 4), torch.zeros(10, 3)
    consensus = Consensus(architecture, GEOMETRIES["euclidean"](architecture), inputs, targets, "cross_entropy")
    # the eight hidden activations of each input, in single precision
    for kept, expected in ((3 * 10 * 8 * 4, 3), (10, 1)):
        monkeypatch.setattr("wsflow.objectives.consensus.BYTES", kept)
        assert consensus.rows() == expected
