"""Phases: the biases of periodic neurons as points of circles."""

from __future__ import annotations

import pickle
from itertools import permutations
from math import pi

import numpy as np
import pytest
import torch

import wsflow
from wsflow import Architecture, PermutationAligner, ScaleCanonicalizer, WeightArray, WeightFlow
from wsflow.architecture import Block, Layer, NeuronGroup, Parameter, Wire
from wsflow.architecture.sequential import mlp_layers
from wsflow.flow.solvers import RungeKutta
from wsflow.geometry import GEOMETRIES, Phases
from wsflow.metanetworks.velocity import velocity_network
from wsflow.models.options import MLP, AdamW, NetworkGeometry, NeuronTransformer, RelationalTransformer
from wsflow.populations.training import train_population
from wsflow.running import forward
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical.phases import with_nearest_phases
from wsflow.symmetry.matching import activation_matching, orbit_matching
from wsflow.symmetry.matching.weight import objective
from wsflow.task import Task
from wsflow.testing import assert_function_preserved

SIREN = Architecture.mlp([1, 4, 3, 1], "sine")
FAST = {"max_iter": 5, "velocity": NeuronTransformer(8, 1, 2), "solver": RungeKutta(n_steps=4), "random_state": 0}


def rows(architecture: Architecture, n: int = 8, scale: float = 3.0, seed: int = 0) -> torch.Tensor:
    """Normal weights, so wide that biases lie several periods away."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, architecture.n_weights, generator=generator, dtype=torch.float64)


def omega(value: float) -> Architecture:
    """A network of sines of another frequency."""
    layers = [
        layer if layer.kind == "linear" else Layer("sine", layer.name, argument=value)
        for layer in mlp_layers([1, 3, 1], "sine", True)
    ]
    return Architecture.sequential(layers)


@pytest.mark.parametrize("architecture", [SIREN, omega(30.0), Architecture.mlp([2, 3, 2], "cosine")], ids=str)
@pytest.mark.parametrize("name", ["geometric", "normalized"])
def test_charts_keep_the_function(architecture, name):
    geometry = GEOMETRIES[name](architecture)
    w = rows(architecture)
    again = geometry.to_weights(geometry.to_points(w))
    assert not torch.allclose(again, w)
    before, after = (WeightArray(rows.numpy(), architecture) for rows in (w, again))
    assert_function_preserved(before, after)
    for chart in geometry.charts:
        assert again[:, chart.columns].abs().max() <= chart.unit + 1e-12
    torch.testing.assert_close(geometry.to_points(again), geometry.to_points(w), rtol=1e-10, atol=1e-10)


def test_the_unit_is_half_a_period():
    assert [chart.unit for chart in GEOMETRIES["geometric"](omega(30.0)).charts] == pytest.approx([pi / 30])
    assert GEOMETRIES["euclidean"](SIREN).charts == ()
    assert GEOMETRIES["geometric"](Architecture.mlp([1, 3, 1], "sine", bias=False)).manifold.is_flat


def test_paths_take_the_short_way_round():
    """From 3.1 to -3.1 through pi: the bias never passes zero."""
    architecture = Architecture.mlp([1, 1, 1], "sine")
    geometry = GEOMETRIES["geometric"](architecture)
    w = torch.tensor([[1.0, 3.1, 1.0, 0.0], [1.0, -3.1, 1.0, 0.0]], dtype=torch.float64)
    x0, x1 = (x.expand(11, -1) for x in geometry.to_points(w).split(1))
    way, speed = geometry.manifold.geodesic(x0, x1, torch.linspace(0, 1, 11, dtype=torch.float64))
    bias = geometry.to_weights(way)[:, 1]
    assert (bias.abs() >= 3.1 - 1e-12).all()
    torch.testing.assert_close(bias.remainder(2 * pi), torch.linspace(3.1, 2 * pi - 3.1, 11, dtype=torch.float64))
    torch.testing.assert_close(speed.norm(dim=1), torch.full((11,), 2 * pi - 6.2, dtype=torch.float64))
    straight = GEOMETRIES["euclidean"](architecture).manifold.geodesic(w[:1], w[1:], torch.tensor([0.5]).double())[0]
    assert float(straight[0, 1]) == 0


def test_periods_do_not_count():
    geometry = GEOMETRIES["geometric"](SIREN)
    w, moved = rows(SIREN), rows(SIREN)
    for chart in geometry.charts:
        moved[:, chart.columns] += 2 * chart.unit * torch.randint(-3, 4, (8, chart.n_extra)).double()
    torch.testing.assert_close(geometry.to_points(moved), geometry.to_points(w), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", ["neuron", "relational"])
def test_sines_belong_to_their_neurons(kind):
    """Networks without names see a permutation of neurons as a permutation of points."""
    geometry = GEOMETRIES["geometric"](SIREN, "polar")
    action = Action.random(SIREN, 5, torch.Generator().manual_seed(0), log_scale=0.0)
    action = Action(SIREN, action.permutations, {})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = velocity_network(kind, geometry.layout, geometry.n_extra, dim=8, depth=2, heads=2).double()
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    assert geometry.n_extra == 1
    w, t = rows(SIREN, 5), torch.linspace(0, 1, 5, dtype=torch.float64)
    on_points = Action(geometry.layout, action.permutations, {})

    def carried(points: torch.Tensor) -> torch.Tensor:
        return torch.cat([on_points(points[:, :-1]), points[:, -1:]], 1)

    points = geometry.to_points(w)
    torch.testing.assert_close(geometry.to_points(action(w)), carried(points), rtol=1e-10, atol=1e-10)
    v = network(points, t)
    assert v[:, SIREN.n_weights :].abs().min() > 1e-6
    torch.testing.assert_close(network(carried(points), t), carried(v), rtol=1e-9, atol=1e-9)


def biases() -> Architecture:
    """Nothing but the biases of two sines."""
    group = NeuronGroup("hidden", 2)
    block = Block((group,), wires=(("hidden", 0, 1),), shifts=(("hidden", 0, pi),))
    return Architecture([Parameter("bias", (2,), (block,))], [Wire("hidden", group, frozenset({"phase"}))])


@pytest.fixture(scope="module")
def torus():
    """A flow fitted to pairs of biases of which one lies on both sides of pi."""
    rng = np.random.default_rng(0)
    X = np.stack([pi + 0.4 * rng.standard_normal(600), 1.2 * rng.standard_normal(600)], 1)
    X = (X + pi) % (2 * pi) - pi
    settings = {"training": AdamW(learning_rate=0.01), "solver": RungeKutta("rk4", 6), "random_state": 0}
    flow = WeightFlow(velocity=MLP(64, 1), source="isotropic", max_iter=300, **settings)
    return flow.fit(WeightArray(X, biases())), X


def test_densities_on_the_torus_integrate_to_one(torus):
    flow, _ = torus
    angles = np.arange(72) * (2 * pi / 72) - pi
    grid = np.stack(np.meshgrid(angles, angles), -1).reshape(-1, 2)
    density = np.exp(flow.score_samples(grid))
    assert density.max() / density.min() > 50
    assert density.sum() * (2 * pi / 72) ** 2 == pytest.approx(1, abs=3e-3)
    # a whole period later is the same network
    np.testing.assert_allclose(flow.score_samples(grid[:9] + [2 * pi, -4 * pi]), np.log(density[:9]), atol=1e-9)


def test_a_law_across_the_cut_is_learned(torus):
    flow, X = torus
    new = np.asarray(flow.sample(1000, random_state=0))
    assert np.abs(new).max() <= pi
    for column in range(2):
        mean, target = (np.exp(1j * a[:, column]).mean() for a in (new, X))
        assert abs(mean - target) < 0.12
    assert ((new[:, 0] > 2.5).any(), (new[:, 0] < -2.5).any()) == (True, True)


PLANE = Architecture.mlp([2, 5, 4, 1], "sine")


def moved_in_orbit(w: torch.Tensor, architecture: Architecture, n: int) -> torch.Tensor:
    """Copies (n, d) of a network (d,), their neurons permuted, with random signs, and with phases."""
    action = Action.random(architecture, n, torch.Generator().manual_seed(1))
    return action(w.expand(n, -1))


@pytest.mark.parametrize("form", ["raw", "unit", "balanced"])
@pytest.mark.parametrize("method", ["weight", "activation", "sinkhorn", "straight-through", "chain"])
def test_an_orbit_of_sines_is_one_network_once_aligned(method, form):
    X = torch.randn(60, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    task = Task(X.numpy(), X.sum(1).sin().numpy(), loss="mse")
    w = rows(PLANE, 1, scale=1.5)[0]
    copies = WeightArray(moved_in_orbit(w, PLANE, 6).numpy(), PLANE)
    assert np.abs(copies[1:] - copies[0]).max() > 3
    aligner = PermutationAligner(method, task=task, reference="first", form=form, random_state=0)
    aligned = aligner.fit_transform(copies)
    assert np.abs(aligned - aligned[0]).max() < 1e-10
    again = ScaleCanonicalizer().fit_transform(aligned)
    assert np.abs(again - again[0]).max() < 1e-10
    assert_function_preserved(copies, aligned)
    # later networks, too
    assert np.abs(aligner.transform(copies[3:]) - aligned[0]).max() < 1e-10


def test_biases_on_both_sides_of_the_cut_are_aligned_to_neighbours():
    """Biases just below and just above half a period, where the canonical form jumps: alignment is not undone by it."""
    half = omega(3.0)
    w = rows(half, 1)[0] / 3
    w[3:6] = pi / 6
    near = WeightArray((w + 0.01 * rows(half, 20)).numpy(), half)
    canonical = ScaleCanonicalizer().fit_transform(near)
    assert np.abs(canonical[:, 3:6] - canonical[0, 3:6]).max() > pi / 3 - 0.2
    for form in ("raw", "unit"):
        aligned = PermutationAligner(form=form).fit_transform(near)
        for found in (aligned, ScaleCanonicalizer().fit_transform(aligned)):
            assert np.abs(found - found.mean(0)).max() < 0.2


def test_weight_matching_of_one_hidden_layer_is_the_best_of_all_signs_phases_and_orders():
    architecture = Architecture.mlp([1, 3, 1], "sine")
    w, reference = rows(architecture, 5), rows(architecture, 1, seed=3)[0]
    orders = torch.tensor(list(permutations(range(3))))
    every = torch.cartesian_prod(torch.arange(len(orders)), *[torch.arange(2)] * 6)
    action = Action(
        architecture, {"hidden1": orders[every[:, 0]]}, {"hidden1": 1.0 - 2 * every[:, 1:4]}, {"hidden1": every[:, 4:]}
    )
    best = [objective(action(row.expand(len(every), -1)), reference, architecture).max() for row in w]
    found = orbit_matching(w, reference, architecture)(w)
    torch.testing.assert_close(objective(found, reference, architecture), torch.stack(best), rtol=1e-12, atol=1e-12)
    assert ((found - reference)[:, 3:6].abs() <= pi + 1e-12).all()


def test_reflections_change_no_activation():
    generator = torch.Generator().manual_seed(0)
    signs, phases = torch.tensor([[-1.0, 1.0, -1.0, 1.0]]), torch.tensor([[1, 0, 3, 2]])
    reflected = Action(SIREN, {}, {"hidden1": signs}, {"hidden1": phases})
    w = rows(SIREN, 1)
    other = reflected(w)
    x = torch.randn(30, 1, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(*((x @ r[:, :4] + r[:, 4:8]).sin() for r in (w, other)), rtol=1e-9, atol=1e-9)
    back = with_nearest_phases(Action.identity(SIREN, 1), other, w)
    torch.testing.assert_close(back(other), w, rtol=1e-12, atol=1e-12)
    found = activation_matching(other, w, SIREN, x)
    torch.testing.assert_close(found(other), w, rtol=1e-12, atol=1e-12)


@pytest.fixture(scope="module")
def sirens():
    """Small networks of sines that were fitted to a curve."""
    x = np.linspace(-2, 2, 40)[:, None]
    return train_population(
        Task(x, np.sin(2 * x), loss="mse"), (4,), 16, activation="sine", epochs=30, learning_rate=0.02
    )


@pytest.mark.parametrize(
    "settings",
    [{}, {"geometry": "normalized"}, {"geometry": NetworkGeometry(last_layer="polar")},
     {"velocity": RelationalTransformer(8, 1, 2)}, {"velocity": MLP(32, 1)},
     {"velocity": NeuronTransformer(8, 1, 2, None)}, {"source": "initialisation"}, {"coupling": "ot"}],
    ids=str,
)  # fmt: skip
def test_flows_of_sirens_fit_and_sample_runnable_networks(sirens, settings):
    weights = PermutationAligner().fit_transform(sirens.weights)
    flow = WeightFlow(**FAST | {"task": sirens.task} | settings).fit(ScaleCanonicalizer().fit_transform(weights))
    new = flow.sample(4, random_state=0)
    assert new.architecture == sirens.weights.architecture
    inputs = torch.linspace(-2, 2, 20, dtype=torch.float64).unsqueeze(1)
    outputs = forward(torch.from_numpy(np.array(new)).double(), new.architecture, inputs)
    assert outputs.shape == (4, 20, 1)
    assert outputs.isfinite().all()
    flow.geometry_.check(torch.from_numpy(np.array(new)).double(), 1e-6)
    again = pickle.loads(pickle.dumps(flow)).sample(4, random_state=0)
    assert np.array_equal(again, new)


def test_sirens_without_names_have_any_width_and_are_saved(sirens, tmp_path):
    flow = WeightFlow(**FAST | {"velocity": NeuronTransformer(8, 1, 2, None)}).fit(sirens.weights)
    wide = Architecture.mlp([1, 9, 1], "sine")
    assert flow.sample(3, random_state=0, architecture=wide).architecture == wide
    wsflow.save_model(flow, tmp_path / "flow.st")
    loaded = wsflow.load_model(tmp_path / "flow.st")
    assert np.array_equal(loaded.sample(3, random_state=0), flow.sample(3, random_state=0))
    np.testing.assert_allclose(loaded.score_samples(sirens.weights), flow.score_samples(sirens.weights))


def test_one_parameter_may_have_several_phases():
    """A bias that is two sines' has one chart for each of its blocks, and names of their own for their sines."""
    one, other = NeuronGroup("one", 2), NeuronGroup("other", 3)
    blocks = [
        Block((group,), slices=((start, start + group.size),), shifts=((group.name, 0, unit),))
        for group, start, unit in ((one, 0, pi), (other, 2, pi / 2))
    ]
    wires = [Wire(group.name, group, frozenset({"phase"})) for group in (one, other)]
    geometry = GEOMETRIES["geometric"](Architecture([Parameter("bias", (5,), blocks)], wires))
    assert geometry.layout.names == ("bias", "bias.sine", "bias.sine.1")
    assert [(type(chart), chart.unit) for chart in geometry.charts] == [(Phases, pi), (Phases, pi / 2)]
    w = rows(geometry.architecture)
    expected = torch.cat([w[:, :2] * 1, w[:, 2:] * 2], 1)
    torch.testing.assert_close(geometry.to_points(w)[:, 5:], expected.sin(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(geometry.to_points(w)[:, :5], expected.cos(), rtol=1e-12, atol=1e-12)
