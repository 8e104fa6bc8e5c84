"""Alignment with data: planted symmetries are found, functions kept, derivatives those of finite differences."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import handwritten
import numpy as np
import pytest
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from wsflow.activations import SIGN
from wsflow.architecture import Architecture
from wsflow.populations.datasets import load_task
from wsflow.populations.training import train_population
from wsflow.running import forward, losses
from wsflow.running.activation_statistics import Moments, activations
from wsflow.symmetry.actions import Action
from wsflow.symmetry.batches import concatenate, replaced, where
from wsflow.symmetry.matching import (
    activation_matching,
    best_chain,
    sinkhorn_matching,
    straight_through_matching,
    weight_matching,
)
from wsflow.symmetry.matching import examples as examples_module
from wsflow.symmetry.matching.assignment import assignment
from wsflow.symmetry.matching.examples import Examples
from wsflow.symmetry.matching.relaxation import Relaxation, Similarities
from wsflow.symmetry.matching.scales import scale_matching
from wsflow.symmetry.matching.selection import BestAction
from wsflow.symmetry.matching.sinkhorn import Annealing, descend
from wsflow.symmetry.matching.sinkhorn_operator import sinkhorn

F64 = torch.float64
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=10)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_rows(architecture: Architecture, n: int, seed: int = 0) -> Tensor:
    """Networks of random weights; variances are positive."""
    rows = torch.randn(n, architecture.n_weights, generator=seeded(seed), dtype=F64)
    for parameter in architecture.parameters:
        if parameter.name.endswith("running_var"):
            rows[:, architecture.slices[parameter.name]].abs_().add_(0.5)
    return rows


def moved_by(rows: Tensor, architecture: Architecture, seed: int = 0) -> Tensor:
    """Networks that are moved by random permutations and signs."""
    action = Action.random(architecture, len(rows), seeded(seed), log_scale=0.0)
    return Action(architecture, action.permutations, action.scales)(rows)


def permuted(rows: Tensor, architecture: Architecture, seed: int = 0) -> Tensor:
    """Networks that are moved by random permutations."""
    return Action(architecture, Action.random(architecture, len(rows), seeded(seed)).permutations, {})(rows)


IMAGES = torch.zeros(2, 3, 8, 8)
TRACED = {
    "vgg": (zoo.vgg, IMAGES),
    "resnet": (lambda: zoo.ResNet20(3, 4), IMAGES),
    "gpt": (zoo.GPT, torch.tensor([[1, 2, 3, 4, 5], [6, 0, 1, 2, 3]])),
    "grouped": (zoo.Grouped, IMAGES),
    "mixer": (zoo.Mixer, IMAGES),
    "dense": (zoo.Dense, IMAGES),
}


@cache
def traced(name: str) -> Architecture:
    make, inputs = TRACED[name]
    return Architecture.from_module(make().eval(), inputs)


NETWORKS = {
    "relu": (lambda: Architecture.mlp([5, 6, 4, 3]), torch.zeros(1, 5)),
    "tanh": (lambda: Architecture.mlp([5, 6, 4, 3], "tanh"), torch.zeros(1, 5)),
    "vgg": (lambda: traced("vgg"), torch.zeros(1, 3, 8, 8)),
    "resnet": (lambda: traced("resnet"), torch.zeros(1, 3, 8, 8)),
    "attention": (
        lambda: replace(handwritten.Attention.architecture(), module=handwritten.Attention().eval()),
        torch.zeros(1, 5, 6),
    ),
}
METHODS = {
    "activation": lambda w, r, a, X, y: activation_matching(w, r, a, X),
    "sinkhorn": lambda w, r, a, X, y: sinkhorn_matching(w, r, a, (X, y, "cross_entropy"), loss="midpoint", steps=4),
    "straight-through": lambda w, r, a, X, y: straight_through_matching(w, r, a, X, y, "cross_entropy", steps=3),
    "chain": lambda w, r, a, X, y: best_chain(w, r, a, X, y, "cross_entropy", steps=4),
    "scale": lambda w, r, a, X, y: scale_matching(w, r, a, X, y, "cross_entropy", steps=3),
}


def batch(name: str, size: int = 24) -> tuple[Architecture, Tensor, Tensor]:
    make, example = NETWORKS[name]
    X = torch.randn(size, *example.shape[1:], generator=seeded(3), dtype=F64)
    return make(), X, torch.arange(size) % 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_method_keeps_every_function(name, method):
    architecture, X, y = batch(name)
    if name == "attention" and method == "activation":
        pytest.skip("attention written by hand has no activation sites")
    rows = random_rows(architecture, 3)
    action = METHODS[method](rows[1:], rows[0], architecture, X, y)
    before, after = (forward(w, architecture, X) for w in (rows[1:], action(rows[1:])))
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10 * float(before.abs().max()))


@given(st.sampled_from(["tanh", "gelu", "softplus", "identity"]), st.integers(1, 3), seeds)
def test_planted_permutations_and_signs_are_found_by_activations(activation, depth, seed):
    architecture = Architecture.mlp([7, *[9, 5, 8][:depth], 2], activation)
    rows = random_rows(architecture, 2, seed) / 3
    # of the identity only signs are planted, no scales
    moved = moved_by(rows, architecture, seed + 1)
    X = torch.randn(300, 7, generator=seeded(seed), dtype=F64)
    found = activation_matching(moved, rows, architecture, X)(moved)
    torch.testing.assert_close(found, rows, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TRACED)
def test_planted_permutations_are_found_through_activation_sites(name):
    """Groups nested in groups, streams that are read in several places, and heads that are not read at all."""
    architecture, example = traced(name), TRACED[name][1]
    rows = random_rows(architecture, 2)
    moved = permuted(rows, architecture, 1)
    floating = example.is_floating_point()
    X = torch.randn(16, *example.shape[1:], generator=seeded(2), dtype=F64) if floating else example
    found = activation_matching(moved, rows, architecture, X)(moved)
    torch.testing.assert_close(found, rows, rtol=0, atol=0)


def test_dead_constant_and_equal_neurons_are_matched_the_same_way_every_time():
    architecture = Architecture.mlp([4, 6, 2])
    rows = random_rows(architecture, 2)
    weight, bias = rows[:, :24].view(2, 6, 4), rows[:, 24:30]
    weight[:, 0], bias[:, 0] = 0, -1  # dead
    weight[:, 1], bias[:, 1] = 0, 1e6  # constant
    weight[:, 2], bias[:, 2] = weight[:, 3].clone(), bias[:, 3].clone()
    X = torch.randn(50, 4, generator=seeded(), dtype=F64)
    first, second = (activation_matching(permuted(rows, architecture), rows, architecture, X) for _ in range(2))
    assert torch.equal(first.permutations["hidden1"], second.permutations["hidden1"])
    assert torch.equal(first.permutations["hidden1"].sort(1)[0], torch.arange(6).expand(2, 6))


def test_architectures_that_cannot_be_read_are_refused_with_the_remedy():
    architecture = handwritten.Convolutional.architecture()
    rows = torch.zeros(1, architecture.n_weights)
    with pytest.raises(ValueError, match="Give it a module and activation_sites"):
        activation_matching(rows, rows[0], architecture, torch.zeros(2, 2, 5, 5))
    with pytest.raises(ValueError, match="'statistic'"):
        activation_matching(
            torch.zeros(1, 23), torch.zeros(23), Architecture.mlp([4, 3, 2]), torch.zeros(2, 4), statistic="x"
        )


@given(seeds, st.integers(1, 7))
def test_moments_of_blocks_are_those_of_numpy(seed, block):
    rng = np.random.default_rng(seed)
    a, b = (torch.from_numpy(rng.normal(5, 2, size=(1, 20, 3))) for _ in range(2))
    moments = Moments()
    for x, y in zip(a.split(block, 1), b.split(block, 1), strict=True):
        moments.add([("g", x)], [("g", y)])
    both = np.concatenate([a[0], b[0]], axis=1)
    ((_, covariance),), ((_, correlation),) = moments.covariance(), moments.correlation()
    np.testing.assert_allclose(covariance[0], np.cov(both.T, bias=True)[:3, 3:], atol=1e-12)
    np.testing.assert_allclose(correlation[0], np.corrcoef(both.T)[:3, 3:], atol=1e-12)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_program_has_the_activations_of_its_module(dropout):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout, batch_first=True)
    read = Architecture.from_module(nn.Sequential(layer, nn.Linear(8, 2)), torch.randn(2, 5, 8))
    opened = Architecture.from_json(read.to_json())
    assert opened.module is None and opened.executable is not None
    rows, X = random_rows(read, 3), torch.randn(4, 5, 8, generator=seeded(), dtype=F64)
    one, other = (activations(rows, architecture, X) for architecture in (read, opened))
    assert [name for name, _ in one] == [name for name, _ in other]
    assert {"0.linear1"} <= {name for name, _ in one}
    for (_, first), (_, second) in zip(one, other, strict=True):
        torch.testing.assert_close(first, second)


def test_activations_of_layers_are_read_behind_the_activation():
    architecture = Architecture.mlp([4, 3, 5, 2])
    rows, X = random_rows(architecture, 2), torch.randn(7, 4, dtype=F64, generator=seeded())
    (_, first), (_, second) = activations(rows, architecture, X)
    head = rows[:, -12:-2].reshape(2, 2, 5)
    torch.testing.assert_close(second @ head.mT + rows[:, None, -2:], forward(rows, architecture, X))
    assert bool((first >= 0).all())


# --- soft permutations ---


WRITTEN = {
    "mlp": lambda: Architecture.mlp([5, 4, 6, 3], "tanh"),
    "attention": handwritten.Attention.architecture,
    "convolution": handwritten.Convolutional.architecture,
    "residual": handwritten.Residual.architecture,
    "separable": handwritten.Separable.architecture,
    "batch norm": lambda: handwritten.BatchNormed.architecture(True),
    "grouped": lambda: traced("grouped"),
    "concatenation": lambda: traced("dense"),
}


def vertex(relaxation: Relaxation, action: Action) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """An action as matrices and signs; what pairs of parents that are not chosen would do is drawn at random."""
    matrices, signs = {}, {}
    for name, group in relaxation.groups.items():
        matrix = relaxation.by_parents(name, nn.functional.one_hot(action.permutations[name], group.total).to(F64))
        if group.parent is not None:
            parents = action.permutations[group.parent.name]
            chosen = nn.functional.one_hot(parents, parents.shape[1]).bool()[..., None, None]
            others = torch.rand(matrix.shape[:-1], generator=seeded()).argsort(-1)
            matrix = torch.where(chosen, matrix, nn.functional.one_hot(others, group.size).to(F64))
        matrices[name] = matrix
        if name in relaxation.signed:
            wire, offset, _ = relaxation.signed[name]
            sign = action.scales[wire][:, offset : offset + group.total, None].expand(-1, -1, group.total)
            signs[name] = relaxation.by_parents(name, sign)
    return matrices, signs


def weights_only(architecture: Architecture) -> Tensor:
    kept = torch.ones(architecture.n_weights, dtype=torch.bool)
    kept[torch.from_numpy(architecture.statistic_columns)] = False
    return kept


@pytest.mark.parametrize("name", WRITTEN)
def test_at_a_permutation_a_soft_one_is_the_action(name):
    architecture = WRITTEN[name]()
    relaxation, rows = Relaxation.of(architecture), random_rows(architecture, 3)
    full = Action.random(architecture, 3, seeded(), log_scale=0.0)
    single = {part[0] for part in relaxation.signed.values()}
    action = Action(architecture, full.permutations, {k: s for k, s in full.scales.items() if k in single})
    kept = weights_only(architecture)
    torch.testing.assert_close(
        relaxation.apply(rows, *vertex(relaxation, action))[:, kept], action(rows)[:, kept], rtol=0, atol=1e-14
    )


@pytest.mark.parametrize("name", WRITTEN)
def test_rounding_a_permutation_gives_it_back(name):
    architecture = WRITTEN[name]()
    relaxation = Relaxation.of(architecture)
    action = Action.random(architecture, 3, seeded(1), log_scale=0.0)
    rounded = relaxation.rounded(vertex(relaxation, action)[0])
    for group in relaxation.groups:
        assert torch.equal(rounded.permutations[group], action.permutations[group])


def test_the_mean_permutation_makes_all_neurons_equal():
    architecture = handwritten.Residual.architecture()
    relaxation = Relaxation.of(architecture)
    mean = {name: torch.full((1, g.size, g.size), 1 / g.size, dtype=F64) for name, g in relaxation.groups.items()}
    moved = relaxation.apply(random_rows(architecture, 1), mean)
    up = moved[0, architecture.slices["up1.weight"]].reshape(8, 6)
    torch.testing.assert_close(up, up.mean().expand(8, 6))


@given(seeds, st.integers(1, 6))
def test_sinkhorn_is_doubly_stochastic_and_ignores_constants_of_rows_and_columns(seed, size):
    scores = torch.randn(2, size, size, generator=seeded(seed), dtype=F64)
    matrix, potentials = sinkhorn(scores, 300)
    torch.testing.assert_close(matrix.sum(-1), torch.ones(2, size, dtype=F64))
    torch.testing.assert_close(matrix.sum(-2), torch.ones(2, size, dtype=F64))
    row, column = torch.randn(2, 2, size, generator=seeded(seed + 1), dtype=F64)
    torch.testing.assert_close(sinkhorn(scores + row[..., None] + column[:, None, :], 300)[0], matrix)
    torch.testing.assert_close(sinkhorn(scores, 1, potentials)[0], matrix)


@few
@given(seeds)
def test_cold_sinkhorn_is_the_assignment(seed):
    scores = torch.randn(3, 5, 5, generator=seeded(seed), dtype=F64)
    best = nn.functional.one_hot(assignment(scores), 5).to(F64)
    value = (sinkhorn(scores / 1e-2, 300)[0] * scores).sum((1, 2))
    torch.testing.assert_close(value, (best * scores).sum((1, 2)), rtol=0, atol=2e-2)


@pytest.mark.parametrize("differentiation", ["implicit", "unrolled"])
def test_derivatives_of_sinkhorn_are_those_of_finite_differences(differentiation):
    scores = torch.randn(2, 4, 4, generator=seeded(), dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: sinkhorn(z, 60, None, differentiation)[0], (scores,))


@few
@given(seeds, st.floats(0.5, 2))
def test_implicit_and_unrolled_derivatives_agree(seed, temperature):
    scores = torch.randn(2, 5, 5, generator=seeded(seed), dtype=F64, requires_grad=True)
    weight = torch.randn(2, 5, 5, generator=seeded(seed + 1), dtype=F64)
    one, two = (
        torch.autograd.grad((sinkhorn(scores / temperature, 300, None, way)[0] * weight).sum(), scores)[0]
        for way in ("implicit", "unrolled")
    )
    torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-8)


def test_the_loss_at_a_soft_midpoint_has_the_derivatives_of_finite_differences():
    architecture = Architecture.mlp([3, 4, 3, 2], "tanh")
    relaxation, rows = Relaxation.of(architecture), random_rows(architecture, 2)
    X, y = torch.randn(8, 3, generator=seeded(), dtype=F64), torch.arange(8) % 2
    data = Examples.of(architecture, X, y, "cross_entropy")
    signs = {"hidden1": torch.randint(2, (1, 4, 4), generator=seeded()).to(F64) * 2 - 1}

    def loss(first: Tensor, second: Tensor) -> Tensor:
        soft = {"hidden1": sinkhorn(first, 60)[0], "hidden2": sinkhorn(second, 60)[0]}
        return data.losses((relaxation.apply(rows[1:], soft, signs) + rows[0]) / 2)

    scores = [torch.randn(1, k, k, generator=seeded(k), dtype=F64, requires_grad=True) for k in (4, 3)]
    assert torch.autograd.gradcheck(loss, scores)


def test_exhausted_rows_of_sinkhorn_have_finite_derivatives():
    scores = (1e4 * torch.randn(2, 6, 6, generator=seeded())).requires_grad_()
    matrix, _ = sinkhorn(scores, 3)
    (gradient,) = torch.autograd.grad((matrix * torch.randn(2, 6, 6, generator=seeded(1))).sum(), scores)
    assert bool(gradient.isfinite().all())


def test_wrong_choices_are_refused():
    architecture, rows = Architecture.mlp([4, 3, 2]), torch.zeros(1, 23)
    with pytest.raises(ValueError, match="measured on a task"):
        sinkhorn_matching(rows, rows[0], architecture, loss="midpoint")
    with pytest.raises(ValueError, match="l2, midpoint, random"):
        sinkhorn_matching(rows, rows[0], architecture, loss="l1")
    with pytest.raises(ValueError, match="implicit, unrolled"):
        sinkhorn_matching(rows, rows[0], architecture, differentiation="both")


# --- matching ---


def test_sinkhorn_descends_to_the_nearest_network_from_a_bad_start():
    """From the identity and flat scores, the gradient of the distance alone leads to the planted permutation."""
    architecture = Architecture.mlp([12, 6, 5, 2])
    rows = random_rows(architecture, 2)
    moved = permuted(rows, architecture)
    relaxation = Relaxation.of(architecture)
    flat = Similarities({name: torch.zeros(2, g.size, g.size, dtype=F64) for name, g in relaxation.groups.items()})
    annealing = Annealing(steps=200, learning_rate=0.05, temperatures=(0.5, 0.05))
    found = descend(moved, rows, relaxation, flat, None, "l2", annealing, seeded())
    torch.testing.assert_close(found(moved), rows, rtol=0, atol=0)


@pytest.fixture(scope="module")
def digits() -> tuple[Architecture, Tensor, tuple[Tensor, Tensor, str]]:
    """Three trained networks 64-16-16-10."""
    task = load_task("digits")
    population = train_population(task, [16, 16, 16], 3, initialisation="uniform", epochs=15, learning_rate=1e-2)
    rows = torch.from_numpy(np.array(population.weights))
    return population.architecture, rows, (torch.from_numpy(task.X), torch.from_numpy(task.y), task.loss)


def midpoints(action: Action, rows: Tensor, goal: Tensor, data: tuple[Tensor, Tensor, str]) -> Tensor:
    outputs = forward((action(rows) + goal) / 2, action.architecture, data[0])
    return losses(outputs, data[1], data[2])


def test_the_chain_beats_every_link_at_the_midpoint(digits):
    architecture, rows, data = digits
    moving, goal = rows[1:], rows[0]
    chain = midpoints(best_chain(moving, goal, architecture, *data), moving, goal, data)
    activated = activation_matching(moving, goal, architecture, data[0])
    links = [
        Action.identity(architecture, 2),
        weight_matching(moving, goal, architecture),
        activated,
        weight_matching(activated(moving), goal, architecture) @ activated,
    ]
    worth = torch.stack([midpoints(link, moving, goal, data) for link in links])
    assert bool((chain <= worth.amin(0) + 1e-5).all())
    ends = losses(forward(rows, architecture, data[0]), data[1], data[2])
    ends = (ends[0] + ends[1:]) / 2
    # what is left of the best link's excess, by the descent
    assert float((chain - ends).mean()) < 0.8 * float((worth.amin(0) - ends).mean())


def test_straight_through_is_better_than_where_it_starts(digits):
    architecture, rows, data = digits
    found = straight_through_matching(rows[1:], rows[0], architecture, *data, steps=30)
    nearest = weight_matching(rows[1:], rows[0], architecture)
    one, two = (midpoints(action, rows[1:], rows[0], data).mean() for action in (found, nearest))
    assert one < two


def test_scales_lower_the_loss_at_the_midpoint(digits):
    architecture, rows, data = digits
    start = weight_matching(rows[1:], rows[0], architecture)
    moved = start(rows[1:])
    action = scale_matching(moved, rows[0], architecture, *data, steps=50)
    before, after = (midpoints(a, moved, rows[0], data) for a in (Action.identity(architecture, 2), action))
    assert bool((after < before).all())
    assert not scale_matching(random_rows(Architecture.mlp([4, 3, 2], "gelu"), 1), torch.zeros(23), *gelu()).scales


def gelu() -> tuple[Architecture, Tensor, Tensor, str]:
    return Architecture.mlp([4, 3, 2], "gelu"), torch.eye(4, dtype=F64), torch.tensor([0, 1, 0, 1]), "cross_entropy"


def test_networks_of_one_orbit_are_brought_together(digits):
    architecture, rows, data = digits
    moved = permuted(rows, architecture)
    assert torch.equal(best_chain(moved, rows, architecture, *data, steps=3)(moved), rows)
    # the first network has two dead neurons in one layer, which activations do not tell apart
    moved, rows = moved[1:], rows[1:]
    assert torch.equal(activation_matching(moved, rows, architecture, data[0])(moved), rows)


def test_results_depend_on_the_generator_only_and_not_on_how_rows_are_cut(digits, monkeypatch):
    architecture, rows, data = digits
    state = torch.get_rng_state()
    run = [best_chain(rows[1:], rows[0], architecture, *data, generator=seeded(7), steps=20) for _ in range(2)]
    monkeypatch.setattr(examples_module, "CHUNK_NUMBERS", 1)
    run.append(best_chain(rows[1:], rows[0], architecture, *data, generator=seeded(7), steps=20))
    for name in run[0].permutations:
        assert torch.equal(run[0].permutations[name], run[1].permutations[name])
        assert torch.equal(run[0].permutations[name], run[2].permutations[name])
    assert torch.equal(state, torch.get_rng_state())


def test_signs_are_found_where_activations_are_odd(digits):
    _, _, data = digits
    architecture = Architecture.mlp([64, 12, 8, 10], "tanh")
    assert SIGN in architecture.wires[0].scalings
    rows = random_rows(architecture, 2).float() / 5
    moved = moved_by(rows, architecture)
    action = best_chain(moved, rows, architecture, *data, steps=3)
    torch.testing.assert_close(action(moved), rows, rtol=0, atol=1e-6)


# --- examples, and choosing ---


def test_losses_of_batch_norms_do_not_depend_on_running_statistics():
    module = handwritten.BatchNormed(eps=1e-5).eval()
    architecture = replace(handwritten.BatchNormed.architecture(True), module=module)
    rows = random_rows(architecture, 2)
    changed = rows.clone()
    changed[:, ~weights_only(architecture)] += 3
    X, y = torch.randn(64, 4, generator=seeded(), dtype=F64), torch.arange(64) % 2
    data = Examples.of(architecture, X, y, "cross_entropy")
    assert torch.equal(data.evaluate(rows), data.evaluate(changed))
    # with the statistics of the batch, the module in training mode says the same
    module = handwritten.BatchNormed(eps=1e-5).double().train()
    state = {p.name: rows[0, architecture.slices[p.name]].reshape(p.shape) for p in architecture.parameters}
    module.load_state_dict({**state, "norm.num_batches_tracked": torch.tensor(0)})
    expected = nn.functional.cross_entropy(module(X), y)
    torch.testing.assert_close(data.losses(rows)[0], expected)


@given(st.integers(1, 5000))
def test_evaluation_in_blocks_is_the_mean_loss(size):
    architecture, rows = Architecture.mlp([1, 1]), torch.tensor([[2.0, 1.0]], dtype=F64)
    X = torch.linspace(-1, 1, size, dtype=F64).unsqueeze(1)
    data = Examples.of(architecture, X, torch.zeros(size, 1), "mse")
    torch.testing.assert_close(data.evaluate(rows), (2 * X + 1).square().mean().reshape(1))


def test_trivial_losses_are_entropy_and_variance():
    architecture = Architecture.mlp([1, 2])
    classes = Examples.of(architecture, torch.zeros(4, 1), torch.tensor([0, 1, 0, 1]), "cross_entropy")
    reals = Examples.of(architecture, torch.zeros(2, 1), torch.tensor([[1.0], [3.0]]), "mse")
    assert (round(classes.constant_loss, 6), reals.constant_loss) == (round(float(np.log(2)), 6), 1.0)


def test_drawn_examples_keep_inputs_and_targets_together():
    X = torch.arange(100.0).unsqueeze(1)
    some = Examples.of(Architecture.mlp([1, 1]), X, X, "mse").draw(10, seeded())
    assert len(some) == 10 and torch.equal(some.inputs, some.targets) and len(some.inputs.unique()) == 10


def test_choosing_and_joining_of_actions_is_row_by_row():
    architecture = handwritten.Attention.architecture()
    rows = random_rows(architecture, 4)
    one, two = (Action.random(architecture, 4, seeded(i)) for i in (1, 2))
    # without scales, and with parents only
    two = Action(architecture, {"heads": two.permutations["heads"]}, {})
    chosen = torch.tensor([True, False, True, False])
    mixed = torch.where(chosen.unsqueeze(1), one(rows), two(rows))
    torch.testing.assert_close(where(chosen, one, two)(rows), mixed, rtol=0, atol=0)
    torch.testing.assert_close(replaced(two, chosen, one.rows(chosen))(rows), mixed, rtol=0, atol=0)
    joined = concatenate(architecture, [one.rows(slice(0, 1)), two.rows(slice(1, 4))])
    torch.testing.assert_close(joined(rows), torch.cat([one(rows)[:1], two(rows)[1:]]), rtol=0, atol=0)


def test_below_the_ends_the_nearest_is_the_best():
    """The loss w^2 is the lowest at 0, half-way to the mirror image; but no path needs to be lower than its ends."""
    architecture = Architecture.mlp([1, 1, 1], "tanh", bias=False)
    w, X = torch.tensor([[1.0, 1.0]], dtype=F64), torch.ones(1, 1, dtype=F64)
    data = Examples.of(architecture, X, torch.zeros(1, 1, dtype=F64), "mse")
    stay = Action.identity(architecture, 1)
    flip = Action(architecture, {}, {"hidden1": torch.tensor([[-1.0]])})
    best = BestAction(w, w, architecture, data)
    best.update(flip)
    best.update(stay)
    assert best.distance.item() == 0 == best.excess.item()
    assert torch.equal(best.action(w), w)
