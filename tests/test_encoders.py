"""Encoders of predictors: what they read, and that the group of each changes nothing that it gives."""

from __future__ import annotations

import builtins
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from families import FAMILIES, traced
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from wsflow import Architecture
from wsflow.activations import POSITIVE, SIGN
from wsflow.exceptions import InvalidInputError
from wsflow.metanetworks.encoders import ENCODERS, VELOCITY_ENCODERS
from wsflow.metanetworks.graph import NeuralGraphEncoder
from wsflow.metanetworks.invariant import InvariantNetwork, invariant_network
from wsflow.metanetworks.probe import ProbeEncoder
from wsflow.metanetworks.statistics import weight_statistics
from wsflow.metanetworks.velocity import velocity_network
from wsflow.symmetry.actions import Action
from wsflow.testing import architectures
from wsflow.tracing.certificate import random_weights

SIZES = {
    "neuron": {"dim": 8, "depth": 2, "heads": 2},
    "relational": {"dim": 8, "depth": 2, "heads": 2},
    "neural_graph": {"dim": 8, "depth": 2},
    "scale_equivariant": {"dim": 8, "depth": 2},
    "deep_sets": {"dim": 8},
    "statistics": {"dim": 16},
    "convolutional": {"dim": 8, "depth": 2},
    "mlp": {"dim": 16, "depth": 1},
    "probe": {"dim": 16, "n_probes": 6},
}
SYMMETRIC = [name for name, entry in ENCODERS.items() if entry.group]
# the others take longer to be read
QUICK = ("MLP", "SIREN", "sigmoid", "concatenation", "grouped", "GLU", "RNN")
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES]
TANH = Architecture.mlp([3, 5, 4, 2], "tanh")
RELU = Architecture.mlp([3, 5, 4, 2], "relu")


def weights_of(architecture: Architecture, n: int = 4, seed: int = 0) -> Tensor:
    return random_weights(architecture, n, torch.Generator().manual_seed(seed))


def built(kind: str, architecture: Architecture, x: Tensor | None = None, **options) -> InvariantNetwork:
    """A network in float64, none of whose layers is zero."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = invariant_network(kind, architecture, 2, **SIZES[kind] | options).double().eval()
        for parameter in network.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.3)
    network.fit_scale(network.prepare(weights_of(architecture) if x is None else x))
    return network


def element(architecture: Architecture, n: int, group: tuple[str, ...], seed: int = 3) -> Action:
    """A random element for each of n networks, with the symmetries of a group alone."""
    full = Action.random(architecture, n, torch.Generator().manual_seed(seed))
    if "function" in group:
        return full
    kinds = {wire.name: wire.scalings for wire in architecture.wires}
    scales = {}
    for name, s in full.scales.items():
        size = s.abs() if "positive" in group and POSITIVE in kinds[name] else torch.ones_like(s)
        scales[name] = size * s.sign() if "sign" in group and SIGN in kinds[name] else size
    return Action(architecture, full.permutations if "permutations" in group else {}, scales)


def change(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """The largest change of a number, over the largest number of the network."""
    with torch.no_grad():
        before, after = network(x), network(y)
    return float(((after - before).abs().amax(1) / before.abs().amax(1)).max())


def shuffled(architecture: Architecture, x: Tensor) -> Tensor:
    """Networks with their weights in any order, which is no symmetry; statistics stay, as variances are positive."""
    columns = torch.from_numpy(np.setdiff1d(np.arange(architecture.n_weights), architecture.statistic_columns))
    y = x.clone()
    y[:, columns] = x[:, columns[torch.randperm(len(columns), generator=torch.Generator().manual_seed(5))]]
    return y


def skip_if_unread(kind: str, architecture: Architecture) -> None:
    if kind == "relational" and any(len(block.axes) > 2 for _, block, _ in architecture.blocks):
        pytest.skip("reads matrices and vectors")


class TestGroups:
    """f(g w) = f(w) for g in the declared group, and for no other changes."""

    @pytest.mark.parametrize("kind", SYMMETRIC)
    @pytest.mark.parametrize("name", NAMES)
    def test_on_every_family(self, kind: str, name: str) -> None:
        architecture = traced(name)
        skip_if_unread(kind, architecture)
        x = weights_of(architecture, 8)
        # no adjacency matrix is drawn at random
        given = {"inputs": (torch.randn(4, 3), FAMILIES[name][1][1])} if (kind, name) == ("probe", "neighbours") else {}
        network = built(kind, architecture, **given)
        assert change(network, x, element(architecture, 8, ENCODERS[kind].group)(x)) < 1e-9
        assert change(network, x, shuffled(architecture, x)) > 1e-4
        assert change(network, x[:4], x[4:]) > 1e-4

    @pytest.mark.parametrize("kind", SYMMETRIC)
    def test_two_hundred_elements(self, kind: str) -> None:
        architecture = Architecture.mlp([3, 5, 4, 5, 2], "tanh")
        x = weights_of(architecture, 1).expand(200, -1)
        group = ENCODERS[kind].group
        assert change(built(kind, architecture), x, element(architecture, 200, group)(x)) < 1e-9

    @settings(max_examples=5, deadline=None)
    @given(architectures(min_depth=1), st.sampled_from(SYMMETRIC), st.integers(0, 99))
    def test_on_any_mlp(self, architecture: Architecture, kind: str, seed: int) -> None:
        x = weights_of(architecture, 3, seed)
        moved = element(architecture, 3, ENCODERS[kind].group, seed)(x)
        # networks of few neurons may be dead on all probes
        assert float((built(kind, architecture)(moved) - built(kind, architecture)(x)).detach().abs().max()) < 1e-9

    @pytest.mark.parametrize("kind", ENCODERS)
    @pytest.mark.parametrize(("symmetry", "architecture"), [("positive", RELU), ("sign", TANH), ("permutations", RELU)])
    def test_what_is_not_declared_changes_the_answer(self, kind: str, symmetry: str, architecture) -> None:
        x = weights_of(architecture, 6)
        found = change(built(kind, architecture), x, element(architecture, 6, (symmetry,))(x))
        declared = symmetry in ENCODERS[kind].group or "function" in ENCODERS[kind].group
        assert found < 1e-9 if declared else found > 1e-4

    @pytest.mark.parametrize("kind", ["scale_equivariant", "probe"])
    def test_half_of_a_symmetry_is_none(self, kind: str) -> None:
        """Signs of what goes into neurons, without those of what comes out of them."""
        x = weights_of(TANH, 6)
        y = x.clone()
        y[:, :20] = -y[:, :20]
        assert change(built(kind, TANH), x, y) > 1e-4


class TestScales:
    """Positive scales are exact and finite wherever they are."""

    @pytest.mark.parametrize("log_scale", [0.1, 3.0, 10.0])
    def test_far_scales(self, log_scale: float) -> None:
        x = weights_of(RELU, 20)
        action = Action.random(RELU, 20, torch.Generator().manual_seed(1), log_scale)
        assert change(built("scale_equivariant", RELU), x, action(x)) < 1e-9

    def test_dead_neurons_and_zeros_are_finite(self) -> None:
        x = weights_of(RELU, 3)
        x[0] = 0
        x[1, RELU.slices["0.weight"]] = 0
        x[1, RELU.slices["0.bias"]] = 0
        network = built("scale_equivariant", RELU)
        y = network(x)
        y.sum().backward()
        assert y.isfinite().all() and all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())

    def test_numbers_follow_weights_without_jumps(self) -> None:
        """Where a sign convention would jump, as a weight passes zero."""
        x = weights_of(TANH, 1).repeat(2, 1)
        rows = x[:, :15].reshape(2, 5, 3)
        rows -= rows.mean(-1, keepdim=True)
        x[:, :15], x[0, :15], x[1, :15] = rows.flatten(1), x[0, :15] + 1e-9, x[1, :15] - 1e-9
        assert change(built("scale_equivariant", TANH), x[:1], x[1:]) < 1e-6


class TestNothingIsLeftOut:
    """Every weight is read, and every parameter is trained."""

    @pytest.mark.parametrize("kind", [kind for kind in ENCODERS if "outputs" not in ENCODERS[kind].reads])
    @pytest.mark.parametrize("name", QUICK)
    def test_weights(self, kind: str, name: str) -> None:
        architecture = traced(name)
        skip_if_unread(kind, architecture)
        x = weights_of(architecture, 3).requires_grad_()
        built(kind, architecture, dropout=0.0)(x).square().sum().backward()
        assert (x.grad.abs().amax(0) > 1e-12).all()

    @pytest.mark.parametrize("kind", ENCODERS)
    def test_parameters(self, kind: str) -> None:
        network = built(kind, TANH)
        network(weights_of(TANH, 5)).square().sum().backward()
        deaf = [name for name, p in network.named_parameters() if p.numel() and (p.grad is None or not p.grad.any())]
        # nothing reads edges and odd states behind the last layer
        assert not [name for name in deaf if not re.match(r"encoder\.(encoder\.)?layers\.1\.(edge|gate)", name)]

    @pytest.mark.parametrize("kind", ENCODERS)
    def test_rows_are_read_one_by_one(self, kind: str) -> None:
        network, x = built(kind, TANH), weights_of(TANH, 5)
        each = torch.cat([network(row.unsqueeze(0)) for row in x])
        torch.testing.assert_close(network(x), each, rtol=1e-10, atol=1e-12)


class TestStatistics:
    """Mean, variance and quantiles of each parameter."""

    def test_they_are_those_of_numpy(self) -> None:
        x = weights_of(TANH, 6)
        found = weight_statistics(x, TANH).reshape(6, len(TANH.parameters), 7).numpy()
        for i, name in enumerate(TANH.names):
            values = x[:, TANH.slices[name]].numpy()
            quantiles = np.quantile(values, [0, 0.25, 0.5, 0.75, 1], axis=1)
            expected = np.stack([values.mean(1), values.var(1), *quantiles], 1)
            np.testing.assert_allclose(found[:, i], expected, rtol=1e-12, atol=1e-14)

    def test_permutations_change_no_bit(self) -> None:
        x = weights_of(RELU, 6)
        moved = element(RELU, 6, ("permutations",))(x)
        assert torch.equal(weight_statistics(moved, RELU), weight_statistics(x, RELU))


class TestDeepSets:
    """Neurons hear of nothing but their own weights."""

    def test_a_state_depends_on_the_weights_of_its_neuron(self) -> None:
        network = built("deep_sets", RELU)

        def state(x: Tensor) -> Tensor:
            return network.encoder(x)[0][0, 2]

        read = torch.autograd.functional.jacobian(state, weights_of(RELU, 1))[:, 0].abs().amax(0) > 0
        columns = torch.arange(RELU.n_weights)
        own = torch.zeros(RELU.n_weights, dtype=torch.bool)
        own[columns[RELU.slices["0.weight"]].reshape(5, 3)[2]] = True
        own[columns[RELU.slices["0.bias"]][2]] = True
        own[columns[RELU.slices["2.weight"]].reshape(4, 5)[:, 2]] = True
        assert torch.equal(read, own)


class TestGraphs:
    """Graphs of different architectures in one batch."""

    KNOWN = (RELU, Architecture.mlp([3, 4, 2]), Architecture.mlp([5, 3, 3, 3, 1], bias=False))

    def encoder(self) -> NeuralGraphEncoder:
        pytest.importorskip("torch_geometric")
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            return NeuralGraphEncoder(self.KNOWN, dim=8, depth=2).double().eval()

    def test_a_mixed_batch_is_its_parts(self) -> None:
        encoder = self.encoder()
        batch = [(weights_of(own, 2 + i), own) for i, own in enumerate(self.KNOWN)]
        each = torch.cat([encoder(*part) for part in batch])
        torch.testing.assert_close(encoder.mixed(batch), each, rtol=1e-10, atol=1e-12)

    def test_networks_that_were_not_there_before(self) -> None:
        encoder, wide = self.encoder(), Architecture.mlp([3, 9, 2])
        x = weights_of(wide, 3)
        assert change(lambda rows: encoder(rows, wide), x, element(wide, 3, ("permutations",))(x)) < 1e-9

    def test_more_numbers_than_it_reads_are_refused(self) -> None:
        with pytest.raises(InvalidInputError, match=r"more numbers.*NeuralGraphEncoder\(\["):
            self.encoder()(weights_of(traced("grouped"), 1), traced("grouped"))

    def test_every_weight_has_one_place(self) -> None:
        graph = NeuralGraphEncoder(traced("grouped"), dim=4, depth=1)._graph(None)
        numbers = torch.cat([columns for *_, columns in graph.vectors])
        edges = graph.edge_columns[graph.edge_columns >= 0]
        assert edges.bincount(minlength=traced("grouped").n_weights).unique().tolist() == [0, 2]
        both = torch.cat([numbers, edges.unique()])
        assert both.sort().values.tolist() == list(range(traced("grouped").n_weights))

    def test_without_torch_geometric_it_says_what_to_install(self, monkeypatch) -> None:
        real = builtins.__import__

        def without(name, *arguments, **keywords):
            if name.startswith("torch_geometric"):
                raise ImportError(name)
            return real(name, *arguments, **keywords)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(InvalidInputError, match=r"pip install 'wsflow\[graphs\]'"):
            NeuralGraphEncoder(RELU)


class TestProbes:
    """Outputs for inputs that are learned or given."""

    def test_given_inputs_are_what_the_networks_see(self) -> None:
        inputs, x = torch.randn(7, 3, dtype=torch.float64), weights_of(RELU, 4)
        encoder = ProbeEncoder(RELU, inputs=inputs, learned=False).double()
        w1, b1, w2, b2, w3, b3 = (x[:, RELU.slices[name]] for name in RELU.names)
        h = (inputs @ w1.reshape(4, 5, 3).mT + b1.unsqueeze(1)).relu()
        h = (h @ w2.reshape(4, 4, 5).mT + b2.unsqueeze(1)).relu()
        expected = (h @ w3.reshape(4, 2, 4).mT + b3.unsqueeze(1)).flatten(1)
        torch.testing.assert_close(encoder.outputs(x), expected)
        assert not any("probe" in name for name, _ in encoder.named_parameters())

    def test_real_probes_are_learned_and_tokens_are_not(self) -> None:
        network = built("probe", RELU)
        network(weights_of(RELU)).sum().backward()
        assert network.encoder.probe0.grad.any() and network.encoder.probe0.shape == (6, 3)

    @pytest.mark.slow
    def test_probes_that_networks_do_not_take_are_refused(self) -> None:
        with pytest.raises(InvalidInputError, match="Give the probe inputs of theirs"):
            built("probe", traced("neighbours"))

    @pytest.mark.slow
    def test_tokens_are_kept(self) -> None:
        encoder = ProbeEncoder(traced("GPT"), n_probes=4)
        assert not any("probe" in name for name, _ in encoder.named_parameters())
        assert encoder.probe0.dtype == torch.int64 and encoder.n_tensors == math.ceil(4 / len(encoder.probe0))

    def test_networks_that_do_not_run_are_refused(self) -> None:
        still = replace(RELU, layers=())
        with pytest.raises(InvalidInputError, match="does not say how"):
            ProbeEncoder(still)


def test_refusals_are_sentences() -> None:
    with pytest.raises(InvalidInputError, match="no encoder 'nn'"):
        invariant_network("nn", RELU, 1)
    with pytest.raises(InvalidInputError, match="needs to know what the columns are"):
        invariant_network("neuron", 5, 1)
    with pytest.raises(ValueError, match=r"no equivariant readout.*neuron"):
        velocity_network("statistics", RELU)


def test_the_table_is_complete() -> None:
    assert set(VELOCITY_ENCODERS) == {"neuron", "relational", "mlp"}
    for entry in ENCODERS.values():
        assert entry.formula and entry.reference and entry.cost
