"""Modules as people have them: the groups that theory gives, certified."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peoples_modules import (
    Answer,
    Attends,
    Bag,
    Between,
    Bilinear,
    Constants,
    Folded,
    FrozenNorm,
    FunctionalNorm,
    GatheredExperts,
    HandwrittenNorm,
    InGlobals,
    InList,
    InMapping,
    InTensor,
    MaskedExperts,
    ModelOutput,
    Noisy,
    OneHotExperts,
    Packs,
    Plain,
    RadialBasis,
    ScaledPatches,
    ScatteredGates,
    Spectrum,
    Steps,
    TakesPacked,
    TwoHeads,
    cnn,
    in_closure,
    mlp,
    normed,
    parametrized,
    pruned,
)
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.nn.utils.rnn import pack_sequence
from torch.optim.swa_utils import AveragedModel

from wsflow import Architecture, WeightArray
from wsflow.architecture.spaces import groups_of
from wsflow.exceptions import InvalidInputError
from wsflow.running import forward

X, IMAGE = torch.zeros(3, 4), torch.zeros(2, 1, 8, 8)
SEQUENCES, LENGTHS = torch.zeros(3, 4, 4), torch.tensor([4, 3, 2])
TOKENS = torch.tensor([[1, 2, 3, 4, 5], [6, 0, 1, 2, 3]])
PACKED = pack_sequence([torch.ones(3, 4), torch.ones(2, 4)])
# torch warns that its own older functions are old
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*(weight_norm|spectral_norm).*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.(jit|ao).*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*quantize.*:UserWarning"),
]


@dataclass(frozen=True)
class Theory:
    """A network, and what is known of its symmetries.

    Groups are (size, size of the parent or 0), by number; signs counts the wires with signs. `moves` has sizes of the
    groups on each axis (0 for none) of some parameters.
    """

    module: Callable[[], nn.Module]
    inputs: Any
    groups: dict[tuple[int, int], int]
    positive: int
    signs: int
    moves: dict[str, tuple[int, ...]] = field(default_factory=dict)


MLP = {(5, 0): 1, (6, 0): 1}
PLAIN = {"0.weight": (5, 0), "0.bias": (5,), "2.weight": (6, 5), "2.bias": (6,), "4.weight": (0, 6), "4.bias": (0,)}
NORM = ("weight", "bias", "running_mean", "running_var")
ORTHOGONAL = parametrizations.orthogonal

REPARAMETRIZED: dict[str, Theory] = {
    # directions may have any length (2), and their sign is that of the gain (2); layers behind a ReLU read a norm of
    # their inputs' weights, so that only the last one, which is plain, takes a scale (1)
    "weight norm, old": Theory(
        partial(mlp, nn.ReLU, weight_norm), X, MLP, 3, 2, {"2.weight_g": (6, 0), "2.weight_v": (6, 5)}
    ),
    "weight norm, new": Theory(
        partial(mlp, nn.ReLU, parametrizations.weight_norm),
        X,
        MLP,
        3,
        2,
        {"2.parametrizations.weight.original0": (6, 0), "2.parametrizations.weight.original1": (6, 5)},
    ),
    "weight norm of convolutions": Theory(
        partial(cnn, parametrizations.weight_norm), IMAGE, {(4, 0): 1, (5, 0): 1}, 3, 2
    ),
    # one norm for all: rows are not scaled by themselves
    "weight norm of the whole": Theory(partial(mlp, nn.ReLU, partial(weight_norm, dim=None)), X, MLP, 0, 0),
    # of columns, whose lengths and signs are free where they are neurons; no row can be scaled
    "weight norm of columns": Theory(partial(mlp, nn.ReLU, partial(weight_norm, dim=1)), X, MLP, 1, 1),
    # singular vectors move along; they forbid positive scalings, and only ReLUs forbid signs
    "spectral norm, old": Theory(
        partial(mlp, nn.ReLU, spectral_norm), X, MLP, 0, 0, {"2.weight_u": (6,), "2.weight_v": (5,)}
    ),
    "spectral norm, new": Theory(partial(mlp, nn.Tanh, parametrizations.spectral_norm), X, MLP, 0, 2),
    "spectral norm of convolutions": Theory(
        partial(cnn, parametrizations.spectral_norm), IMAGE, {(4, 0): 1, (5, 0): 1}, 0, 0
    ),
    # the rows of an orthogonal matrix move with its base; its columns are fixed, and with them the neurons before it
    "orthogonal": Theory(
        partial(mlp, nn.Tanh, ORTHOGONAL), X, {(6, 0): 1}, 0, 1, {"2.parametrizations.weight.0.base": (6, 0)}
    ),
    "orthogonal by Cayley's map": Theory(
        partial(mlp, nn.ReLU, partial(ORTHOGONAL, orthogonal_map="cayley")), X, {(6, 0): 1}, 0, 0
    ),
    # without a base the matrix has no neurons
    "orthogonal without a base": Theory(
        partial(mlp, nn.ReLU, partial(ORTHOGONAL, use_trivialization=False)), X, {}, 0, 0
    ),
    # masks are permuted with the weights, and never scaled
    "pruned": Theory(
        partial(pruned, partial(prune.random_unstructured, name="weight", amount=0.4)),
        X,
        MLP,
        2,
        0,
        {"2.weight_orig": (6, 5), "2.weight_mask": (6, 5), "2.bias": (6,)},
    ),
    "pruned twice": Theory(
        partial(
            pruned,
            partial(prune.ln_structured, name="weight", amount=2, n=2, dim=0),
            partial(prune.l1_unstructured, name="weight", amount=3),
            partial(prune.identity, name="bias"),
        ),
        X,
        MLP,
        2,
        0,
        {"2.bias_mask": (6,)},
    ),
    "a parametrization of one's own": Theory(
        partial(mlp, nn.ReLU, parametrized), X, MLP, 2, 0, {"2.parametrizations.weight.original": (6, 5)}
    ),
}

GATES = {"cell.weight_ih": (5, 0), "cell.weight_hh": (5, 5), "head.weight": (0, 5)}
# a state starts with zeros: tanh passes its signs through all steps, ReLU its scales, and a projection both
RECURRENT: dict[str, Theory] = {
    "RNNCell": Theory(partial(Steps, partial(nn.RNNCell, nonlinearity="relu")), SEQUENCES, {(5, 0): 1}, 1, 0, GATES),
    "GRUCell": Theory(partial(Steps, nn.GRUCell), SEQUENCES, {(5, 0): 1}, 0, 1, GATES),
    "LSTMCell": Theory(partial(Steps, nn.LSTMCell), SEQUENCES, {(5, 0): 1}, 0, 1, GATES),
    "packed LSTM": Theory(partial(Packs, nn.LSTM), (SEQUENCES, LENGTHS), {(5, 0): 1}, 0, 1),
    # a state for each direction
    "packed GRU in two directions": Theory(
        partial(Packs, nn.GRU, bidirectional=True), (SEQUENCES, LENGTHS), {(5, 0): 2}, 0, 2
    ),
    "packed RNN, not sorted": Theory(
        partial(Packs, nn.RNN, sort=False), (SEQUENCES, LENGTHS.flip(0)), {(5, 0): 1}, 0, 1
    ),
    "packed input": Theory(TakesPacked, PACKED, {(5, 0): 1}, 0, 1, {"rnn.weight_hh_l0": (5, 5)}),
}

# units of each of three experts, and what they add up to, without an activation behind it
EXPERTS = {(5, 0): 3, (4, 0): 1}
UNITS = {"experts.1.0.weight": (5, 0), "experts.1.2.weight": (4, 5), "gate.weight": (0, 0), "head.weight": (0, 4)}
NEURONS = {(5, 0): 1}
OPERATIONS: dict[str, Theory] = {
    "routing by gather": Theory(GatheredExperts, X, EXPERTS, 4, 1, UNITS),
    "routing by scatter": Theory(ScatteredGates, X, EXPERTS, 4, 1, UNITS),
    "routing by masks": Theory(MaskedExperts, X, EXPERTS, 4, 1, UNITS),
    "routing by one-hot vectors": Theory(OneHotExperts, X, EXPERTS, 4, 1, UNITS),
    "bag of sums": Theory(partial(Bag, "sum"), TOKENS, NEURONS, 1, 0, {"bag.weight": (0, 5)}),
    "bag of means, with offsets": Theory(
        partial(Bag, "mean"), (torch.arange(6), torch.tensor([0, 2])), NEURONS, 1, 0, {"bag.weight": (0, 5)}
    ),
    "bag of maxima": Theory(partial(Bag, "max"), TOKENS, NEURONS, 1, 0, {"bag.weight": (0, 5)}),
    "bag with weights": Theory(
        partial(Bag, "sum"), (TOKENS, None, torch.ones(2, 5)), NEURONS, 1, 0, {"bag.weight": (0, 5)}
    ),
    "bilinear": Theory(Bilinear, X, {(5, 0): 1, (6, 0): 1, (7, 0): 1}, 2, 1, {"both.weight": (7, 5, 6)}),
    # distances do not see the signs of features, and centres have weights of their own
    "distances": Theory(RadialBasis, X, {(5, 0): 1, (6, 0): 1}, 0, 1, {"centres": (6, 5), "a.weight": (5, 0)}),
    "distances of absolute values": Theory(partial(RadialBasis, 1.0), X, {(5, 0): 1, (6, 0): 1}, 0, 1),
    "fold": Theory(ScaledPatches, IMAGE, {(6, 0): 1}, 1, 0, {"gain": (6, 0), "head.weight": (0, 6, 0, 0)}),
    # a channel's scale would be that of all of its patches, whose weights are scaled by one number only one by one
    "fold of computed patches": Theory(partial(Folded, 2), X, {(6, 0): 1}, 0, 0, {"head.weight": (0, 6, 0, 0)}),
    "fold of patches that overlap": Theory(partial(Folded, 1), X, {(6, 0): 1}, 0, 0),
    "RReLU": Theory(partial(mlp, nn.RReLU), X, MLP, 2, 0, PLAIN),
    "dropout of channels": Theory(
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.Dropout2d(), nn.ReLU(), nn.FeatureAlphaDropout(), nn.Flatten(), nn.Linear(144, 2)
        ),
        IMAGE,
        {(4, 0): 1},
        1,
        0,
    ),
    # noise has one law for all neurons: what is added keeps no scale, what multiplies does
    "added noise": Theory(partial(Noisy, lambda z: z + torch.randn_like(z)), X, NEURONS, 0, 0),
    "normal noise": Theory(partial(Noisy, lambda z: z + torch.normal(0.0, 1.0, z.shape)), X, NEURONS, 0, 0),
    "noise that multiplies": Theory(partial(Noisy, lambda z: z * torch.rand(z.shape)), X, NEURONS, 1, 0),
    "a random mask": Theory(partial(Noisy, lambda z: z * torch.bernoulli(torch.full_like(z, 0.5))), X, NEURONS, 1, 0),
    "dropout that stays on": Theory(partial(Noisy, lambda z: F.dropout(z, 0.5)), X, NEURONS, 1, 0),
    "Gumbel's softmax": Theory(partial(Noisy, F.gumbel_softmax), X, NEURONS, 0, 0),
    # a random order is a number of each neuron
    "a random order": Theory(partial(Noisy, lambda z: z[:, torch.randperm(5)]), X, {}, 0, 0),
}

CONV = {(4, 0): 1}
BUFFERS: dict[str, Theory] = {
    # scales in front of the norm, which mean and gain take up, and behind it; signs in front
    "frozen batch norm": Theory(
        partial(normed, partial(FrozenNorm, names=NORM)),
        IMAGE,
        CONV,
        2,
        1,
        {**{f"1.{name}": (4,) for name in NORM}, "0.weight": (4, 0, 0, 0), "4.weight": (0, 4)},
    ),
    # batch_norm's own rule keeps what is in front, which computed statistics would undo
    "batch norm of buffers": Theory(
        partial(normed, partial(FunctionalNorm, names=NORM)), IMAGE, CONV, 1, 1, {f"1.{name}": (4,) for name in NORM}
    ),
    "under other names": Theory(
        partial(normed, partial(FrozenNorm, names=("gamma", "beta", "mu", "variance"))), IMAGE, CONV, 2, 1
    ),
    "written by hand": Theory(
        partial(normed, HandwrittenNorm), IMAGE, CONV, 2, 1, {"1.moving_mean": (0, 4, 0, 0), "1.gain": (4,)}
    ),
    "constants in single precision": Theory(Constants, X, NEURONS, 1, 0, {"a.weight": (5, 0), "b.weight": (0, 5)}),
}

# residual stream, heads with query-key and value-output channels in them, units; scales: those two kinds of channels,
# and the gains of three norms (and their signs)
LANGUAGE = {(8, 0): 1, (2, 0): 1, (4, 2): 2, (10, 0): 1}
RETURNED: dict[str, Callable[[Tensor, Any], Any]] = {
    "an object": partial(ModelOutput, None),
    "a dictionary": lambda logits, cache: {"loss": None, "logits": logits, "past": cache.layers},
    "a tuple with a cache": lambda logits, cache: (logits, cache.layers),
    "a tuple with an object": lambda logits, cache: (logits, cache),
    "a named tuple": Answer,
    "an object without logits": Plain,
}
OUTPUTS = {name: Theory(partial(Attends, returned), TOKENS, LANGUAGE, 5, 5) for name, returned in RETURNED.items()}

THEORY = {**REPARAMETRIZED, **RECURRENT, **OPERATIONS, **BUFFERS, **OUTPUTS}


def moved(architecture: Architecture, name: str) -> tuple[int, ...]:
    """Return the size of the group on each dimension of a parameter (0 for none), as all of its blocks have it."""
    parameter = next(p for p in architecture.parameters if p.name == name)
    found: set[tuple[int, ...]] = set()
    for block in parameter.blocks:
        extents, sizes, axes = list(parameter.shape), [], list(block.axes)
        for size in block.slices or [(0, n) for n in extents]:
            length, group = 1, 0
            while axes and length * max(1, axes[0].total) <= size[1] - size[0]:
                space = axes.pop(0)
                length *= space.total
                group = max([group, *(g.size for g in groups_of(space))])
            sizes.append(group)
        found.add(tuple(sizes))
    assert len(found) == 1, found
    return found.pop()


# further members of kinds that others show
VARIANTS = (
    *("weight norm of convolutions", "weight norm of the whole", "spectral norm of convolutions", "pruned twice"),
    *("orthogonal by Cayley's map", "packed GRU in two directions", "routing by scatter", "routing by one-hot vectors"),
    *(
        "bag of means, with offsets",
        "fold of patches that overlap",
        "normal noise",
        "a random mask",
        "Gumbel's softmax",
    ),
    *("distances of absolute values", "a tuple with an object", "a named tuple", "a dictionary", "under other names"),
)
CASES = [pytest.param(name, marks=pytest.mark.slow if name in VARIANTS else ()) for name in THEORY]


@pytest.mark.parametrize("name", CASES)
def test_groups_and_scalings_are_those_of_theory_and_certified(name: str) -> None:
    theory = THEORY[name]
    torch.manual_seed(0)
    module = theory.module()
    architecture = Architecture.from_module(module, theory.inputs)
    groups = Counter((g.size, g.parent.size if g.parent else 0) for g in architecture.groups)
    assert groups == theory.groups
    assert sum("positive" in wire.scalings for wire in architecture.wires) == theory.positive
    assert sum(bool(wire.scalings & {"sign", "flip"}) for wire in architecture.wires) == theory.signs
    assert {key: moved(architecture, key) for key in theory.moves} == theory.moves
    if not architecture.layers:
        # with random numbers in the place of the example's zeros, and of the module's own weights
        inputs = theory.inputs if isinstance(theory.inputs, tuple) and theory.inputs is not PACKED else (theory.inputs,)
        random = tuple(torch.randn(x.shape) if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)
        assert architecture.certify(module, random, seed=1) < 1e-11
        assert architecture.certify(inputs=random, seed=2) < 1e-11


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "compiled": torch.compile,
    "averaged": AveragedModel,
    "compiled and parallel": lambda module: nn.DataParallel(torch.compile(module)),
    "a subclass": type("Parallel", (nn.DataParallel,), {}),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("build", [partial(cnn, lambda x: x), mlp], ids=["traced", "sequential"])
def test_wrappers_are_taken_off_on_the_way_in_and_stay_on_the_way_out(
    wrap: Callable[[nn.Module], nn.Module], build: Callable[[], nn.Module]
) -> None:
    inputs = IMAGE if build is not mlp else X
    bare = build()
    wrapped = wrap(bare)
    assert Architecture.from_module(wrapped, inputs) == Architecture.from_module(bare, inputs)
    weights = WeightArray.from_modules([wrapped, bare], example_input=inputs)
    torch.testing.assert_close(weights[0], weights[1])
    back = weights.to_modules(wrap(build()))[0]
    assert type(back) is type(wrapped)
    state = {name.replace("module.", "").replace("_orig_mod.", ""): x for name, x in back.state_dict().items()}
    assert all(torch.equal(state[name], x) for name, x in bare.state_dict().items())


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["DataParallel", "compiled"])
def test_a_wrapper_inside_keeps_its_names(wrap: Callable[[nn.Module], nn.Module]) -> None:
    network = cnn(lambda x: x)
    network[2] = wrap(network[2])
    architecture = Architecture.from_module(network, IMAGE)
    assert set(architecture.names) == set(network.state_dict())
    assert [g.size for g in architecture.groups] == [4, 5]
    assert architecture.certify(inputs=torch.randn(2, 1, 8, 8)) < 1e-12


def test_only_a_compiled_copy_of_a_module_is_compiled() -> None:
    network = cnn(lambda x: x)
    network.compile()
    assert [g.size for g in Architecture.from_module(network, IMAGE).groups] == [4, 5]


@pytest.mark.parametrize(
    "name", ["weight norm, old", "pruned", "frozen batch norm", "spectral norm, old", "orthogonal"]
)
def test_each_network_keeps_the_buffers_of_its_own(name: str) -> None:
    """Also those of networks that ran before, whose attributes have a history; and the architecture pickles."""
    theory = THEORY[name]
    inputs = torch.randn(theory.inputs.shape)
    networks = [theory.module() for _ in range(3)]
    outputs = [network.eval()(inputs) for network in networks]
    weights = WeightArray.from_modules(networks, example_input=theory.inputs)
    if name != "orthogonal":
        # torch does not pickle modules with parametrizations
        pickle.loads(pickle.dumps(weights.architecture))
    for network, expected in zip(weights.to_modules(theory.module().eval()), outputs, strict=True):
        torch.testing.assert_close(network(inputs), expected)


def test_reading_leaves_what_a_layer_computed_as_it_was() -> None:
    network = mlp(nn.ReLU, weight_norm)
    before = network[0].weight
    Architecture.from_module(network, X)
    assert network[0].weight is before


@pytest.mark.parametrize("output", ["logits", "deep.0", -1, "cache.layers.0.1"])
def test_an_output_is_chosen_by_name_position_or_path(output: str | int) -> None:
    def returned(logits: Tensor, cache: Any) -> Any:
        made = {"logits": logits, "deep": [logits, cache], "cache": cache}
        return (cache, logits) if output == -1 else made

    architecture = Architecture.from_module(Attends(returned), TOKENS, output=output)
    groups = Counter((g.size, g.parent.size if g.parent else 0) for g in architecture.groups)
    # where the values are the output, nothing uses the queries and keys, whose order is free
    assert groups == (LANGUAGE if "cache" not in str(output) else {(8, 0): 3})
    assert architecture.certify(inputs=TOKENS) < 1e-12


def test_two_heads_are_both_outputs_unless_one_is_chosen() -> None:
    """A head that is left out would change when the neurons below it change places."""
    for returned in (lambda p, v, _: (p, v), lambda p, v, _: {"logits": p, "value": v}, lambda p, v, _: (p, [v])):
        architecture = Architecture.from_module(TwoHeads(returned), X)
        assert {name: moved(architecture, name) for name in ("policy.weight", "value.weight")} == {
            "policy.weight": (0, 5),
            "value.weight": (0, 5),
        }
    chosen = Architecture.from_module(TwoHeads(lambda p, v, _: (p, v)), X, output=0)
    assert moved(chosen, "value.weight") == (0, 0)


def test_hidden_states_among_the_outputs_are_said_to_fix_neurons() -> None:
    network = TwoHeads(lambda p, v, hidden: (p + v, hidden))
    with pytest.warns(UserWarning, match="returns 2 tensors, and all of them count .* choose it with output=0"):
        assert Architecture.from_module(network, X).groups == ()
    assert [g.size for g in Architecture.from_module(network, X, output=0).groups] == [5]


def test_an_architecture_runs_the_chosen_output() -> None:
    network = Attends(partial(ModelOutput, None))
    weights = WeightArray.from_modules([network, Attends(partial(ModelOutput, None))], example_input=TOKENS)
    outputs = forward(torch.from_numpy(weights), weights.architecture, TOKENS)
    torch.testing.assert_close(outputs[0], network.eval()(TOKENS).logits)
    torch.testing.assert_close(forward(torch.from_numpy(weights), weights.architecture, TOKENS, network), outputs)


CAUSAL = ["GPT2", "Llama", pytest.param("Qwen2", marks=pytest.mark.slow), pytest.param("OPT", marks=pytest.mark.slow)]


@pytest.mark.parametrize("family", CAUSAL)
def test_causal_language_models_are_read(family: str) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 17, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3}
    sizes |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "max_position_embeddings": 32}
    sizes |= {"ffn_dim": 20, "word_embed_proj_dim": 12} if family == "OPT" else {"intermediate_size": 20}
    sizes |= {"n_inner": 20} if family == "GPT2" else {"num_key_value_heads": 3}
    network = getattr(transformers, f"{family}ForCausalLM" if family != "GPT2" else "GPT2LMHeadModel")(
        getattr(transformers, f"{family}Config")(**sizes)
    )
    architecture = Architecture.from_module(network, TOKENS)
    groups = Counter((g.size, g.parent.size if g.parent else 0) for g in architecture.groups)
    # the stream; heads, channels and units of two blocks; rotations fix the channels of queries and keys
    rotated = family in ("Llama", "Qwen2")
    assert groups == {(12, 0): 1, (3, 0): 2, (4, 3): 2 if rotated else 4, (20, 0): 2}
    assert architecture.certify(network, TOKENS) < 1e-11


class Labels(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(-1)


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(2))


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build()


def quantized(network: nn.Module) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.qint8)


@dataclass(frozen=True)
class Refusal:
    """A module, and what the refusal says of it: what it is, why, and what to do."""

    module: Callable[[], Any]
    inputs: Any
    says: tuple[str, ...]


BY_HAND = "describe the network by hand with Architecture(parameters=..., wires=...)"
ITEM = ("(.item())", "Keep numbers in tensors", BY_HAND)
REFUSED: dict[str, Refusal] = {
    "lazy": Refusal(lazy, IMAGE, ("'0' (LazyConv2d)", "'weight'", "no shape yet", "module(example_input)")),
    "meta": Refusal(partial(on_meta, Bilinear), X, ("'a' (Linear)", "on the meta device", "to_empty(device='cpu')")),
    "meta, sequential": Refusal(partial(on_meta, mlp), X, ("'0' (Linear)", "on the meta device")),
    "quantized": Refusal(lambda: quantized(mlp()), X, ("'0' (Linear) is quantized", "from before")),
    "quantized in part": Refusal(
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), quantized(mlp())), X, ("'2.0' (Linear) is quantized",)
    ),
    "scripted": Refusal(lambda: torch.jit.script(mlp()), X, ("TorchScript", "Pass the Python module")),
    "traced by jit": Refusal(lambda: torch.jit.trace(mlp(), X), X, ("TorchScript", "Pass the Python module")),
    "scripted in part": Refusal(
        lambda: nn.Sequential(nn.Linear(4, 4), torch.jit.script(mlp())),
        X,
        ("'1' (RecursiveScriptModule)", "TorchScript"),
    ),
    "complex": Refusal(
        lambda: nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2, dtype=torch.cfloat)),
        X,
        ("'1' (Linear)", "complex", "two parameters"),
    ),
    "item": Refusal(lambda: Between(lambda z: z / z.abs().max().item()), X, ITEM),
    "tolist": Refusal(lambda: Between(lambda z: torch.tensor(z.tolist())), X, ITEM),
    "a mask as an index": Refusal(lambda: Between(lambda z: z[z.sum(1) > 0]), X, ("a mask as an index", BY_HAND)),
    "nonzero": Refusal(lambda: Between(lambda z: z[(z.sum(1) > 0).nonzero().squeeze(1)]), X, ("nonzero", BY_HAND)),
    "an if": Refusal(lambda: Between(lambda z: -z if z.sum() > 0 else z), X, ("values of tensors (an if", BY_HAND)),
    "cond": Refusal(
        lambda: Between(lambda z: torch.cond(z.sum() > 0, torch.relu, torch.tanh, (z,))),
        X,
        ("torch.cond", "torch.where"),
    ),
    "numpy": Refusal(lambda: Between(lambda z: torch.from_numpy(z.numpy())), X, (".numpy()", "operations of torch")),
    "in a list": Refusal(
        lambda: InList(layers=[nn.Linear(4, 5)]), X, ("a Linear in the attribute 'layers'", "nn.ModuleList")
    ),
    "in a dictionary of tuples": Refusal(
        lambda: InMapping(parts={"first": (nn.Linear(4, 5),)}),
        X,
        ("a Linear in the attribute 'parts'", "nn.ModuleDict"),
    ),
    "a tensor that learns": Refusal(
        lambda: InTensor(matrix=torch.ones(4, 5, requires_grad=True)),
        X,
        ("a tensor (4, 5) in the attribute 'matrix'", "nn.Parameter"),
    ),
    "in a closure": Refusal(in_closure, X, ("a Linear in the closure variable 'layer'", "an attribute of the module")),
    "in a lambda": Refusal(
        lambda: Between(partial(lambda layer, z: layer(z), nn.Linear(5, 5))),
        X,
        ("a Linear in the attribute 'function'",),
    ),
    "in a global variable": Refusal(
        InGlobals, X, ("a Linear in the global variable 'EMBEDDER'", "requires_grad_(False)")
    ),
    "no output": Refusal(
        lambda: Between(lambda z: None, last=False), X, ("a NoneType", "no tensor of real numbers", "output=")
    ),
    "classes": Refusal(lambda: nn.Sequential(nn.Linear(4, 2), Labels()), X, ("no tensor of real numbers", "logits")),
    "no examples": Refusal(Bilinear, torch.zeros(0, 4), ("shape (0, 4)", "more than one example")),
    "too many inputs": Refusal(Bilinear, (X, X), ("takes fewer inputs", "example_input")),
    "too few inputs": Refusal(Bilinear, (), ("takes more inputs", "example_input")),
    "an attribute that cannot be copied": Refusal(
        lambda: Between((x for x in ()).__next__), X, ("could not be copied", "locks, files and generators")
    ),
    # freezing is advised only where neurons are left
    "an unknown layer that is the network": Refusal(
        lambda: nn.Sequential(Spectrum(4)),
        X,
        ("'0' (Spectrum) uses the operation _fft", "freezing it is no way on", BY_HAND),
    ),
    "an unknown operation of the whole": Refusal(
        lambda: Spectrum(4), X, ("The module itself (Spectrum)", "freezing it is no way on", BY_HAND)
    ),
    "an unknown layer of several": Refusal(
        lambda: nn.Sequential(*mlp()[:4], Spectrum(6), nn.Linear(5, 2)), X, ("'4' (Spectrum)", "frozen=('4',)", BY_HAND)
    ),
    "two unknown layers": Refusal(
        lambda: nn.Sequential(Spectrum(4), *mlp()[2:], Spectrum()), X, ("'0' (Spectrum)", "frozen=('0', '4')")
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_by_what_it_is_why_and_what_to_do(name: str) -> None:
    refusal = REFUSED[name]
    torch.manual_seed(0)
    with pytest.raises(InvalidInputError) as caught:
        Architecture.from_module(refusal.module(), refusal.inputs)
    assert [part for part in refusal.says if part not in str(caught.value)] == []


def test_a_choice_that_is_not_there_names_what_there_is() -> None:
    network = Attends(partial(ModelOutput, None))
    with pytest.raises(InvalidInputError, match=r"'output' .* is 'scores', .* 'logits' \(Tensor\)"):
        Architecture.from_module(network, TOKENS, output="scores")


def test_a_hidden_layer_that_is_a_constant_stays_one() -> None:
    network = InList(layers=[nn.Linear(4, 5).requires_grad_(False)])
    architecture = Architecture.from_module(network, X)
    assert set(architecture.names) == {"head.weight", "head.bias"} and architecture.groups == ()


@pytest.mark.parametrize("frozen", [("4",), ("0", "4")])
def test_the_advice_to_freeze_is_right(frozen: tuple[str, ...]) -> None:
    name = {1: "an unknown layer of several", 2: "two unknown layers"}[len(frozen)]
    architecture = Architecture.from_module(REFUSED[name].module(), X, frozen)
    assert [g.size for g in architecture.groups] == ([5] if len(frozen) == 1 else [6])
    assert architecture.certify(inputs=torch.randn(3, 4)) < 1e-12
