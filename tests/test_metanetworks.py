"""Velocity networks: equivariance, names, other widths, where weights go, and that nothing is left out."""

from __future__ import annotations

import copy
import re

import handwritten
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wsflow import WeightArray, WeightFlow
from wsflow.architecture import Architecture, Fixed, NeuronGroup
from wsflow.metanetworks.conditions import CONDITIONS, TimeEmbedding
from wsflow.metanetworks.encoders import ENCODERS, VELOCITY_ENCODERS
from wsflow.metanetworks.layers import ParameterScale
from wsflow.metanetworks.tokens import EdgeTokens, NeuronTokens
from wsflow.metanetworks.velocity import current_keys, velocity_network
from wsflow.models import options
from wsflow.running import take
from wsflow.symmetry.actions import Action
from wsflow.testing import architectures


def two_convolutions() -> Architecture:
    """conv -> relu -> conv -> relu -> mean over pixels -> linear."""
    first, second = NeuronGroup("first", 4), NeuronGroup("second", 5)
    return Architecture(
        [
            *handwritten.convolution("0", first, Fixed(2), 3, (), ()),
            *handwritten.convolution("2", second, first, 3, (), ()),
            *handwritten.linear("5", Fixed(3), second),
        ],
        outputs=["5.weight", "5.bias"],
    )


ARCHITECTURES = {
    "one hidden layer": Architecture.mlp([3, 4, 2]),
    "equal hidden layers": Architecture.mlp([4, 3, 3, 2]),
    "deep": Architecture.mlp([2, 4, 3, 5, 3, 2], "tanh"),
    "without biases": Architecture.mlp([3, 4, 5, 4, 2], bias=False),
    "slopes": Architecture.mlp([3, 4, 3, 2], "prelu"),
    "convolutions": two_convolutions(),
    "residual": handwritten.Residual.architecture(),
    "depthwise": handwritten.Separable.architecture(),
    "attention": handwritten.Attention.architecture(),
}
EQUIVARIANT = [name for name in VELOCITY_ENCODERS if ENCODERS[name].group == ("permutations",)]
MATRICES = ["one hidden layer", "equal hidden layers", "deep", "without biases", "slopes"]
CASES = [(kind, name) for kind in EQUIVARIANT for name in MATRICES]
# heads have no weights of their own here, so that nothing reads what the last layer sends them
NESTED = [("neuron", "attention")]
CASES += [("neuron", name) for name in ARCHITECTURES if name not in (*MATRICES, "attention")]
SIZES = {kind: {"dim": 16, "depth": 2, "heads": 2} for kind in EQUIVARIANT} | {"mlp": {"dim": 64, "depth": 2}}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(kind: str, architecture: Architecture, n_extra: int = 0, seed: int = 0, lively: bool = True, **options):
    """A network in float64; `lively` gives the layers that start at zero random weights."""
    if kind == "mlp":
        options.pop("identity", None)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = velocity_network(kind, architecture, n_extra, **SIZES[kind], **options).double()
        if lively:
            for parameter in network.parameters():
                if not parameter.any():
                    nn.init.normal_(parameter, std=0.3)
    network.fit_scale(drawn(20, architecture.n_weights + n_extra, seed=1) * 2 + 0.1)
    return network


def moved(action: Action, x: torch.Tensor, n_extra: int) -> torch.Tensor:
    """An action on the weights, and not on the coordinates behind them."""
    size = x.shape[1] - n_extra
    return torch.cat([action(x[:, :size]), x[:, size:]], 1)


def permutation(architecture: Architecture, n: int, seed: int = 3) -> Action:
    """A random permutation for each of n networks."""
    action = Action.random(architecture, n, torch.Generator().manual_seed(seed))
    return Action(architecture, action.permutations, {})


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    """Equal up to rounding."""
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference."""
    return (a - b).detach().abs().max().item()


class TestEquivariance:
    """v(P w, t) = P v(w, t)."""

    @pytest.mark.parametrize("n_extra", [0, 1])
    @pytest.mark.parametrize(("kind", "name"), CASES)
    def test_without_names(self, kind, name, n_extra):
        architecture = ARCHITECTURES[name]
        network = built(kind, architecture, n_extra, identity=None)
        x, t = drawn(5, architecture.n_weights + n_extra), torch.linspace(0, 1, 5, dtype=torch.float64)
        action = permutation(architecture, 5)
        before, after = network(x, t), network(moved(action, x, n_extra), t)
        assert distance(after, before) > 0.01
        close(after, moved(action, before, n_extra))

    @pytest.mark.parametrize(("kind", "name"), CASES + NESTED)
    def test_with_names_that_move_along(self, kind, name):
        architecture = ARCHITECTURES[name]
        network = built(kind, architecture, identity="learned")
        x, t = drawn(2, architecture.n_weights), torch.full((2,), 0.3, dtype=torch.float64)
        action = permutation(architecture, 1).rows([0, 0])
        expected = action(network(x, t))
        assert distance(network(action(x), t), expected) > 1e-3
        renamed = copy.deepcopy(network)
        with torch.no_grad():
            for names, space in zip(renamed.encoder.names, self.named(network, architecture), strict=True):
                if isinstance(space, NeuronGroup):
                    names.copy_(names[action.permutations[space.name][0]])
        close(renamed(action(x), t), expected)

    def named(self, network: nn.Module, architecture: Architecture):
        """The spaces whose neurons have the network's names, in order."""
        tokens = network.encoder.tokens
        return tokens.spaces if isinstance(tokens, EdgeTokens) else architecture.groups

    def test_the_flat_network_is_not_equivariant(self):
        architecture = ARCHITECTURES["one hidden layer"]
        network = built("mlp", architecture)
        x, t = drawn(5, architecture.n_weights), torch.zeros(5, dtype=torch.float64)
        action = permutation(architecture, 5)
        assert distance(network(action(x), t), action(network(x, t))) > 1e-3

    @settings(max_examples=10)
    @given(architectures(min_depth=0), st.sampled_from(EQUIVARIANT))
    def test_on_any_mlp(self, architecture, kind):
        network = built(kind, architecture)
        x, t = drawn(3, architecture.n_weights), torch.linspace(0, 1, 3, dtype=torch.float64)
        action = permutation(architecture, 3)
        close(network(action(x), t), action(network(x, t)))


class TestWidths:
    """Without names, a network reads other hidden widths."""

    @pytest.mark.parametrize("kind", EQUIVARIANT)
    def test_a_network_is_the_same_function_on_another_width(self, kind):
        narrow, wide = Architecture.mlp([4, 3, 3, 2]), Architecture.mlp([4, 7, 6, 2])
        network = built(kind, narrow, 1)
        x, t = drawn(5, narrow.n_weights + 1), torch.linspace(0, 1, 5, dtype=torch.float64)
        before, state = network(x, t), copy.deepcopy(network.state_dict())
        other = network.at_width(wide, 1)
        y, action = drawn(5, wide.n_weights + 1), permutation(wide, 5)
        assert other(y, t).shape == y.shape
        close(other(moved(action, y, 1), t), moved(action, other(y, t), 1))
        assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())
        for same in (network, other.at_width(narrow, 1)):
            assert torch.equal(same(x, t), before)

    @pytest.mark.parametrize("kind", VELOCITY_ENCODERS)
    def test_names_and_places_fix_the_width(self, kind):
        network = built(kind, Architecture.mlp([4, 3, 2]), identity="learned")
        with pytest.raises(ValueError, match=r"one width.*identity=None"):
            network.at_width(Architecture.mlp([4, 5, 2]))


class TestNothingIsLeftOut:
    """Every coordinate is read and written, and every parameter is trained."""

    @pytest.mark.parametrize(("n_extra", "identity"), [(0, None), (1, "learned")])
    @pytest.mark.parametrize(("kind", "name"), [*CASES, ("mlp", "deep")])
    def test_coordinates(self, kind, name, n_extra, identity):
        architecture = ARCHITECTURES[name]
        network = built(kind, architecture, n_extra, identity=identity)
        x, t = drawn(1, architecture.n_weights + n_extra), torch.full((1,), 0.4, dtype=torch.float64)
        jacobian, rate = torch.autograd.functional.jacobian(lambda x, t: network(x, t)[0], (x, t))
        jacobian = jacobian.squeeze(1)
        assert (jacobian.abs().amax(1) > 1e-9).all(), "an output coordinate hears nothing"
        assert (jacobian.abs().amax(0) > 1e-9).all(), "an input coordinate is not read"
        assert (rate.abs() > 1e-9).all(), "an output coordinate ignores the time"

    @pytest.mark.parametrize(("n_extra", "identity"), [(0, None), (1, "learned")])
    @pytest.mark.parametrize(("kind", "name"), [*CASES, ("mlp", "deep")])
    def test_parameters(self, kind, name, n_extra, identity):
        architecture = ARCHITECTURES[name]
        network = built(kind, architecture, n_extra, identity=identity)
        x, t = drawn(5, architecture.n_weights + n_extra), torch.linspace(0, 1, 5, dtype=torch.float64)
        network(x, t).square().sum().backward()
        deaf = [name for name, p in network.named_parameters() if p.numel() and (p.grad is None or not p.grad.any())]
        assert not deaf

    @pytest.mark.parametrize(("kind", "name"), [*CASES, ("mlp", "deep")])
    def test_a_fresh_network_is_zero_but_not_stuck(self, kind, name):
        architecture = ARCHITECTURES[name]
        network = built(kind, architecture, 1, lively=False)
        x, t = drawn(5, architecture.n_weights + 1), torch.linspace(0, 1, 5, dtype=torch.float64)
        assert not network(x, t).any()
        optimizer = torch.optim.SGD(network.parameters(), 0.01)
        target = drawn(5, architecture.n_weights + 1, seed=2)
        losses = []
        for _ in range(3):
            loss = (network(x, t) - target).square().mean()
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert losses[2] < losses[1] < losses[0]
        assert (network(x, t).abs().amax(0) > 0).all()

    def test_rows_do_not_see_each_other(self):
        architecture = ARCHITECTURES["deep"]
        x, t = drawn(5, architecture.n_weights), torch.linspace(0, 1, 5, dtype=torch.float64)
        for kind in VELOCITY_ENCODERS:
            network = built(kind, architecture)
            close(torch.cat([network(x[i : i + 1], t[i : i + 1]) for i in range(5)]), network(x, t))


class TestTokens:
    """Features, edges and global coordinates."""

    @given(architectures(max_depth=4, min_depth=0), st.integers(0, 2))
    def test_every_column_goes_to_one_place(self, architecture, n_extra):
        tokens = NeuronTokens(architecture, n_extra)
        places = [*tokens.features, *(edges.columns for edges in tokens.edges), tokens.free]
        columns = torch.cat([place.flatten() for place in places])
        assert columns.sort().values.tolist() == list(range(architecture.n_weights + n_extra))

    @given(architectures(max_depth=4, min_depth=0), st.integers(0, 2))
    def test_join_puts_them_back(self, architecture, n_extra):
        tokens, x = NeuronTokens(architecture, n_extra), drawn(3, architecture.n_weights + n_extra)
        parts = [take(x, columns) for columns in tokens.features]
        edges = [take(x, edges.columns) for edges in tokens.edges]
        assert torch.equal(tokens.join(parts, edges, take(x, tokens.free)), x)

    @pytest.mark.parametrize("name", ["convolutions", "residual", "depthwise"])
    def test_other_architectures_are_covered_too(self, name):
        architecture = ARCHITECTURES[name]
        tokens, x = NeuronTokens(architecture), drawn(3, architecture.n_weights)
        parts = [take(x, columns) for columns in tokens.features]
        edges = [take(x, edges.columns) for edges in tokens.edges]
        assert torch.equal(tokens.join(parts, edges, take(x, tokens.free)), x)

    def test_features_are_the_fixed_axes_of_a_neuron(self):
        architecture = Architecture.mlp([784, 10, 10])
        tokens = NeuronTokens(architecture)
        assert tokens.edges == []
        (features,) = tokens.features
        assert features.shape == (10, 784 + 1 + 10)
        # neuron 3: its incoming weights, its bias, its outgoing weights
        expected = [*range(3 * 784, 4 * 784), 7840 + 3, *range(7850 + 3, 7950, 10)]
        assert sorted(features[3].tolist()) == expected
        assert tokens.free.tolist() == list(range(7950, 7960))

    def test_kernels_are_channels_of_edges(self):
        tokens = NeuronTokens(two_convolutions())
        (edges,) = tokens.edges
        assert edges.columns.shape == (5, 4, 9)
        start = 4 * 2 * 9 + 4
        assert edges.columns[2, 1].tolist() == list(range(start + (2 * 4 + 1) * 9, start + (2 * 4 + 2) * 9))

    def test_the_relational_network_refuses_kernels_by_name(self):
        with pytest.raises(ValueError, match=r"'0\.weight' has 4 axes.*velocity='neuron'"):
            EdgeTokens(two_convolutions())


class TestParts:
    """Scales and times."""

    def test_input_scales_are_those_of_parameters(self):
        architecture = Architecture.mlp([4, 3, 2])
        scale, factors = ParameterScale(architecture, 1).double(), torch.linspace(1, 9, 24, dtype=torch.float64)
        x = drawn(500, 24) * factors
        scale.fit(x)
        scaled = scale(x)
        for columns in [*architecture.slices.values(), slice(23, 24)]:
            assert float(scaled[:, columns].square().mean()) == pytest.approx(1)
            ratio = x[:, columns] / scaled[:, columns]
            close(ratio, ratio[0, 0].expand_as(ratio))
        close(scale.inverse(scaled), x)
        assert float(scale.overall) == pytest.approx(float(x.square().mean().sqrt()))

    def test_what_networks_say_has_the_scale_of_what_they_saw(self):
        architecture = Architecture.mlp([4, 3, 2])
        network, x, t = velocity_network("neuron", architecture, dim=8, depth=1, heads=2), drawn(50, 23), torch.rand(50)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        ends = []
        for factor in (1.0, 100.0):
            network.fit_scale(factor * x.float())
            ends.append(network(factor * x.float(), t))
        torch.testing.assert_close(ends[1], 100 * ends[0], rtol=1e-4, atol=1e-4)

    def test_columns_that_are_always_zero_stay_finite(self):
        scale = ParameterScale(Architecture.mlp([4, 3, 2]))
        scale.fit(torch.zeros(5, 23))
        assert scale(torch.ones(5, 23)).isfinite().all()

    @pytest.mark.parametrize("kind", VELOCITY_ENCODERS)
    def test_scalar_conditions_are_standardized(self, kind):
        architecture = Architecture.mlp([4, 3, 2])
        network, x, t = built(kind, architecture, condition=CONDITIONS["scalar"]), drawn(5, 23), torch.rand(5).double()
        conditions = torch.arange(5).double()
        network.fit_condition(conditions)
        before = network(x, t, conditions)
        assert distance(before, network(x, t)) > 1e-6
        network.fit_condition(100 * conditions + 7)
        close(network(x, t, 100 * conditions + 7), before)

    def test_times_are_told_apart(self):
        embedded = TimeEmbedding(16)(torch.linspace(0, 1, 200)).detach()
        assert float(torch.pdist(embedded).min()) > 1e-4

    def test_the_flat_network_standardizes_its_columns(self):
        network, x = velocity_network("mlp", 6, dim=8, depth=1), drawn(100, 6).float() * 5 + 2
        network.fit_scale(x)
        np.testing.assert_allclose(network.encoder.scale.mean, x.mean(0), rtol=1e-5)
        np.testing.assert_allclose(network.encoder.scale.deviation, x.std(0, correction=0), rtol=1e-5)

    @pytest.mark.parametrize("kind", VELOCITY_ENCODERS)
    def test_the_table_builds_networks_of_the_right_size(self, kind):
        architecture = Architecture.mlp([4, 3, 2])
        network = velocity_network(kind, architecture, 1, **SIZES[kind])
        assert network(torch.zeros(5, 24), torch.zeros(5)).shape == (5, 24)

    def test_the_flat_network_takes_plain_vectors(self):
        network = velocity_network("mlp", 6, **SIZES["mlp"])
        assert network(torch.zeros(5, 6), torch.zeros(5)).shape == (5, 6)


# what held parameters in version 0.1: layers, without ".weight" and ".bias", and tensors by themselves
TIME = """time.frequencies time.network.0 time.network.2 time.condition.unknown time.condition.mean
    time.condition.deviation time.condition.network.0 time.condition.network.2"""
PARTS = ["query", "key_value", "edge", "out"]
ATTENTION = " ".join(f"layers.0.{way}.0.{part}" for way in ("ahead", "behind") for part in PARTS)
OLD = {
    "neuron": f"""kinds scale.rms {TIME} names.0 names.1 read.0 read.1 read_free layers.0.modulation layers.0.norm
        layers.0.qkv layers.0.out layers.0.forwards.0 layers.0.backwards.0 layers.0.norm_feed layers.0.feed.0
        layers.0.feed.2 norm write.0 write.1 write_free write_targets.0 write_sources.0 follow""",
    "relational": f"""scale.rms names.0 names.1 {TIME} read_vector.0 read_free read_edge.0 layers.0.modulation
        layers.0.norm layers.0.norm_edge {ATTENTION} layers.0.feed.0 layers.0.feed.1 layers.0.feed.3 layers.0.edge_in
        layers.0.edge_ends.0 layers.0.edge_out write_vector.0 write_free write_edge.0""",
    "mlp": f"mean deviation {TIME} read blocks.0.0 blocks.0.1 blocks.0.3 write follow",
}
BY_ITSELF = re.compile(r"(kinds|rms|frequencies|unknown|mean|deviation|names\.\d)$")


class TestFilesOf01:
    """State dicts with the keys of version 0.1."""

    def network(self, kind: str) -> nn.Module:
        """With names, conditions and hints, so that no parameter is left out."""
        architecture = Architecture.mlp([4, 2] if kind == "relational" else [4, 3, 3, 2])
        options = {"dim": 8, "depth": 1, "condition": CONDITIONS["scalar"]}
        options |= {"heads": 2, "identity": "learned"} if kind in EQUIVARIANT else {}
        options |= {"n_hints": 2} if "hints" in ENCODERS[kind].reads else {}
        return velocity_network(kind, architecture, 1, **options)

    @pytest.mark.parametrize("kind", OLD)
    def test_every_parameter_has_its_place(self, kind):
        old = [name if BY_ITSELF.search(name) else f"{name}.weight" for name in OLD[kind].split()]
        places = [key.removesuffix(".weight") for key in current_keys(dict.fromkeys(old))]
        now = {re.sub(r"\.(weight|bias)$", "", key) for key in self.network(kind).state_dict()}
        assert len(places) == len(old)
        assert set(places) == now

    @pytest.mark.parametrize("kind", OLD)
    def test_a_state_dict_of_today_is_taken_as_it_is(self, kind):
        state = self.network(kind).state_dict()
        assert list(current_keys(state)) == list(state)

    def test_a_network_loads_one_alone_and_within_a_larger_module(self):
        network = velocity_network("mlp", 3, dim=4, depth=1)
        state = {key: value + 1 for key, value in network.state_dict().items()}
        old = {re.sub(r"^(encoder\.scale|encoder|readout)\.", "", key): value for key, value in state.items()}
        network.load_state_dict(old)
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
        larger = nn.ModuleDict({"network": velocity_network("mlp", 3, dim=4, depth=1)})
        larger.load_state_dict({f"network.{key}": value for key, value in old.items()})
        assert all(torch.equal(value, state[key]) for key, value in larger["network"].state_dict().items())


class TestDropout:
    """It thins out what layers add in training, from a flow's own random numbers, and is not there afterwards."""

    @pytest.mark.parametrize("kind", sorted(VELOCITY_ENCODERS))
    def test_it_is_for_training_only(self, kind):
        architecture = Architecture.mlp([3, 4, 2])
        plain, thinned = (built(kind, architecture, dropout=p) for p in (0.0, 0.5))
        x, t = drawn(6, architecture.n_weights), torch.linspace(0, 1, 6).double()
        assert torch.equal(plain.eval()(x, t), thinned.eval()(x, t))
        assert torch.equal(plain.train()(x, t), plain.eval()(x, t))
        with torch.random.fork_rng():
            one, two = (thinned.train()(x, t) for _ in range(2))
        assert not torch.allclose(one, two) and not torch.allclose(one, plain(x, t))

    def test_a_flow_with_it_is_reproducible_and_leaves_the_global_generator_alone(self):
        rng = np.random.default_rng(0)
        weights = WeightArray(rng.normal(size=(30, 23)), Architecture.mlp([4, 3, 2]))

        def drawn_from(dropout):
            before = torch.get_rng_state()
            velocity = options.NeuronTransformer(8, 1, 2, dropout=dropout)
            flow = WeightFlow("euclidean", velocity=velocity, max_iter=5, random_state=0).fit(weights)
            assert torch.equal(torch.get_rng_state(), before)
            torch.rand(3)
            return flow.sample(4, 0)

        assert np.array_equal(drawn_from(0.5), drawn_from(0.5))
        assert not np.array_equal(drawn_from(0.5), drawn_from(0.0))

    def test_a_share_is_between_none_and_most(self):
        for velocity in (options.NeuronTransformer(dropout=1.0), options.MLP(dropout=-0.1)):
            with pytest.raises(
                ValueError, match=r"'dropout' parameter of \w+ must be a float in the range \[0.0, 0.9\]"
            ):
                WeightFlow(velocity=velocity).fit(np.zeros((4, 3)))
