"""Tokens of any architecture: nested groups, direct sums, weights of many neurons, and what no block covers."""

from __future__ import annotations

import warnings
from functools import cache

import handwritten
import numpy as np
import pytest
import torch
from families import FAMILIES, traced
from torch import Tensor, nn

from wsflow import Architecture, ScaleCanonicalizer, WeightArray, WeightFlow
from wsflow.architecture import Block, DirectSum, Fixed, NeuronGroup, Parameter, Space
from wsflow.exceptions import InvalidInputError
from wsflow.geometry.geometries import GEOMETRIES
from wsflow.metanetworks.tokens import NeuronTokens
from wsflow.metanetworks.velocity import velocity_network
from wsflow.models.exchangeable import fit_exchangeable
from wsflow.models.options import AdamW, NeuronTransformer
from wsflow.running import take
from wsflow.running.without_statistics import without_statistics
from wsflow.symmetry.actions import Action
from wsflow.tracing.certificate import random_weights

HEADS, STREAM, OTHER = NeuronGroup("heads", 3), NeuronGroup("stream", 4), NeuronGroup("other", 2)
CHANNELS = NeuronGroup("channels", 2, parent=HEADS)
KEPT = NeuronGroup("kept", 3, parent=Fixed(2, "places"))
DEEP = NeuronGroup("deep", 2, parent=CHANNELS)


def table(*axes: tuple[Space, ...]) -> Architecture:
    """Parameters with such axes."""
    blocks = [Block(spaces) for spaces in axes]
    return Architecture([Parameter(f"p{i}", block.extents, (block,)) for i, block in enumerate(blocks)])


def uncovered() -> Architecture:
    """A parameter of which a block covers three of four rows."""
    part = Block((OTHER, Fixed(3)), slices=((0, 2), (0, 3)))
    return Architecture([Parameter("p", (4, 3), (part,)), Parameter("q", (2,), (Block((OTHER,)),))])


TABLES = {
    "attention": handwritten.Attention.architecture(),
    "channels of heads": table((HEADS, CHANNELS, STREAM), (STREAM, HEADS, CHANNELS), (HEADS,), (STREAM, Fixed(2))),
    "channels over all heads": table((CHANNELS, STREAM), (CHANNELS,), (HEADS, Fixed(3))),
    "parents behind": table((STREAM, CHANNELS, HEADS), (CHANNELS, HEADS)),
    "within each head": table((HEADS, CHANNELS, CHANNELS, Fixed(2)), (HEADS, CHANNELS, Fixed(2))),
    "two kinds within a head": table(
        (HEADS, CHANNELS, NeuronGroup("more", 3, parent=HEADS)), (NeuronGroup("more", 3, parent=HEADS), OTHER)
    ),
    "heads that stay": table((Fixed(2, "places"), KEPT, STREAM), (KEPT, Fixed(2)), (STREAM, STREAM)),
    "three deep": table((HEADS, CHANNELS, DEEP, STREAM), (DEEP, OTHER), (STREAM,)),
    "direct sum": table(
        (OTHER, DirectSum((STREAM, Fixed(2), HEADS)), Fixed(3)), (STREAM, Fixed(3)), (HEADS, DirectSum((OTHER, STREAM)))
    ),
    "direct sum of nested ones": table((DirectSum((CHANNELS, STREAM)), OTHER), (HEADS, CHANNELS), (STREAM, Fixed(2))),
    "three groups": table((STREAM, OTHER, HEADS), (STREAM, Fixed(2)), (OTHER,), (HEADS,)),
    "four axes of two groups": table((STREAM, OTHER, STREAM, OTHER), (STREAM, OTHER)),
    "uncovered": uncovered(),
}
# the others take longer to be read
QUICK = ("grouped", "concatenation")
NAMES = [*TABLES, *(pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES)]


@cache
def architecture_of(name: str) -> Architecture:
    return TABLES[name] if name in TABLES else traced(name)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def velocity(architecture: Architecture, n_hints: int = 0, identity: str | None = None, depth: int = 1) -> nn.Module:
    """A network in float64, none of whose layers is zero."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        options = {"dim": 8, "depth": depth, "heads": 2, "identity": identity, "n_hints": n_hints}
        network = velocity_network("neuron", architecture, 1, **options).double()
        for parameter in network.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.3)
    network.fit_scale(normal(20, architecture.n_weights + 1, seed=1) * 2)
    return network


def permutation(architecture: Architecture, n: int, seed: int = 3) -> Action:
    action = Action.random(architecture, n, torch.Generator().manual_seed(seed))
    return Action(architecture, action.permutations, {})


@pytest.mark.parametrize("name", NAMES)
def test_every_column_has_one_place(name: str) -> None:
    architecture = architecture_of(name)
    tokens, x = NeuronTokens(architecture, 2), normal(2, architecture.n_weights + 2)
    places = [*tokens.features, *(e.columns for e in tokens.edges), tokens.free, *(t.columns for t in tokens.tensors)]
    assert torch.cat([p.flatten() for p in places]).sort().values.tolist() == list(range(architecture.n_weights + 2))
    parts = [[take(x, columns) for columns in tokens.features], [take(x, edge.columns) for edge in tokens.edges]]
    rest = take(x, tokens.free), [take(x, block.columns) for block in tokens.tensors]
    assert torch.equal(tokens.join(*parts, *rest), x)
    assert [len(columns) for columns in tokens.features] == [group.total for group in architecture.groups]


@pytest.mark.parametrize("name", NAMES)
def test_velocities_are_equivariant_to_the_group_and_to_nothing_else(name: str) -> None:
    """v(P w) = P v(w), with hints that move along."""
    architecture = architecture_of(name)
    network = velocity(architecture, n_hints=2)
    x, hints = normal(3, architecture.n_weights + 1), normal(3, 2, architecture.n_weights + 1, seed=1)
    t = torch.linspace(0, 1, 3, dtype=torch.float64)
    before = network(x, t, hints=hints)

    def moved(change, y: Tensor) -> Tensor:
        return torch.cat([change(y[:, :-1]), y[:, -1:]], 1)

    def deviation(change) -> float:
        others = torch.stack([moved(change, hints[:, i]) for i in range(2)], 1)
        return float((network(moved(change, x), t, hints=others) - moved(change, before)).detach().abs().max())

    scale = float(before.detach().abs().max())
    action = permutation(architecture, 3)
    assert deviation(action) < 1e-12 * max(1.0, scale)
    if architecture.groups:
        assert float((moved(action, before) - before).detach().abs().max()) > 1e-3 * scale
    # outside of the group: columns in any order
    order = torch.randperm(architecture.n_weights, generator=torch.Generator().manual_seed(5))
    assert deviation(lambda y: y[:, order]) > 1e-3 * scale


@pytest.mark.parametrize("name", ["channels over all heads", "direct sum of nested ones"])
def test_neurons_keep_to_their_parents(name: str) -> None:
    """Exchanging neurons of two parents is no symmetry, though nothing but the nesting says so."""
    architecture = architecture_of(name)
    # what parents receive from one neuron reaches the others in the second layer
    network, tokens = velocity(architecture, depth=2), NeuronTokens(architecture)
    group = architecture.groups.index(CHANNELS)
    for first, second, is_symmetry in ((0, 1, True), (0, CHANNELS.size, False)):
        neurons = torch.arange(CHANNELS.total)
        neurons[[first, second]] = neurons[[second, first]]
        order = torch.arange(architecture.n_weights + 1)
        order[tokens.features[group]] = tokens.features[group][neurons]
        for edge in tokens.edges:
            if edge.target == group:
                order[edge.columns] = edge.columns[neurons]
            elif edge.source == group:
                order[edge.columns] = edge.columns[:, neurons]
        x, t = normal(1, architecture.n_weights + 1), torch.full((1,), 0.5, dtype=torch.float64)
        before = network(x, t)
        deviation = float((network(x[:, order], t) - before[:, order]).detach().abs().max())
        assert (deviation < 1e-12) == is_symmetry
        assert is_symmetry or deviation > 1e-4 * float(before.detach().abs().max())


@pytest.mark.parametrize("name", TABLES)
def test_every_weight_is_seen_and_written(name: str) -> None:
    architecture = architecture_of(name)
    network = velocity(architecture, identity="learned")
    x = normal(1, architecture.n_weights + 1).requires_grad_()
    v = network(x, torch.full((1,), 0.5, dtype=torch.float64))
    (seen,) = torch.autograd.grad(v.square().sum(), x)
    assert (seen != 0).all() and (v != 0).all()


@pytest.mark.parametrize("name", TABLES)
def test_the_exchangeable_source_has_the_symmetry(name: str) -> None:
    architecture = architecture_of(name)
    geometry = GEOMETRIES["euclidean"](architecture)
    x = normal(60, architecture.n_weights) + normal(1, architecture.n_weights, seed=2)
    source, action = fit_exchangeable(geometry, x, 0.1), permutation(architecture, 5)
    new = source.sample(5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(source.log_prob(action(new)), source.log_prob(new))


def networks(architecture: Architecture, geometry: str) -> WeightArray:
    rows = WeightArray(random_weights(architecture, 12, torch.Generator().manual_seed(0)).numpy(), architecture)
    return rows if geometry == "euclidean" else ScaleCanonicalizer().fit_transform(rows)


@pytest.mark.parametrize("geometry", ["geometric", "normalized", "euclidean"])
@pytest.mark.parametrize("name", NAMES)
def test_flows_are_fitted_to_every_architecture(name: str, geometry: str) -> None:
    architecture = architecture_of(name)
    try:
        without_statistics(architecture)
    except InvalidInputError as error:
        assert "is none of a batch norm" in str(error) or "does not say how they run" in str(error)
        pytest.skip("its statistics are refused by name")
    weights = networks(architecture, geometry)
    if len(architecture.statistic_columns):
        pytest.skip("sampling takes a task, see test_flows_with_batch_norm.py")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No activation of this architecture", UserWarning)
        options = {"training": AdamW(batch_size=4), "max_iter": 2, "random_state": 0}
        for velocity in (NeuronTransformer(8, 1, 2), NeuronTransformer(8, 1, 2, identity=None)):
            flow = WeightFlow(geometry, velocity=velocity, **options).fit(weights)
            samples = flow.sample(3, random_state=0)
            assert samples.architecture == architecture and np.isfinite(samples).all()
            # those that lie on spheres do so
            flow.geometry_.check(torch.from_numpy(np.array(samples)).double(), 1e-5)
