"""Which symmetries constants leave: by search against all permutations, on five families, and in what they compute."""

from __future__ import annotations

from functools import cache
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from deviations import smallest_deviation
from torch import Tensor, nn

from wsflow import Architecture
from wsflow.layers import asymmetrize
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical import canonical_action
from wsflow.tracing import RemainingSymmetries, remaining_of_module, remaining_symmetries
from wsflow.tracing.automorphisms import Relation, Structure, Undecided

X = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def structure(generator: np.random.Generator, n: int, labels: int) -> Structure:
    """A directed graph with labels, and a relation of three vertices."""
    pairs = np.stack(np.meshgrid(range(n), range(n), indexing="ij")).reshape(2, -1)
    triples = generator.integers(n, size=(3, 2 * n))
    triples = np.unique(triples, axis=1)
    relations = [
        Relation(pairs, generator.integers(labels, size=n * n)),
        Relation(triples, generator.integers(labels, size=triples.shape[1])),
    ]
    return Structure(np.zeros(n, dtype=np.uint64), relations[: generator.integers(1, 3)])


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_the_search_agrees_with_all_permutations(n: int) -> None:
    generator, found = np.random.default_rng(n), set()
    for _ in range(40):
        case = structure(generator, n, labels=2)
        images = [np.array(p) for p in permutations(range(n)) if p != tuple(range(n))]
        exists = any(case.keeps(image) for image in images)
        image = case.automorphism()
        assert (image is not None) == exists
        assert image is None or case.keeps(image)
        found.add(exists)
    assert found == {True, False}


def cycles(lengths: tuple[int, ...]) -> Structure:
    """Directed cycles beside each other, all of whose vertices look alike to refinement."""
    first = np.cumsum([0, *lengths])
    pairs = [(a + i, a + (i + 1) % n) for a, n in zip(first, lengths, strict=False) for i in range(n)]
    return Structure(np.zeros(sum(lengths), dtype=np.uint64), [Relation(np.array(pairs).T, np.zeros(len(pairs)))])


def test_the_search_goes_on_where_refinement_ends() -> None:
    for lengths in ((12,), (5, 7), (3, 3, 3)):
        case = cycles(lengths)
        assert len(np.unique(case.refined(case.colours))) == 1
        image = case.automorphism()
        assert image is not None
        assert case.keeps(image)


def rigid(n: int) -> Structure:
    """A tournament of residues with one edge turned, which refinement tells apart."""
    pairs = np.array([(i, (i + r * r) % n) for i in range(n) for r in range(1, n // 2 + 1)])
    pairs[0] = pairs[0][::-1]
    return Structure(np.zeros(n, dtype=np.uint64), [Relation(pairs.T, np.zeros(len(pairs)))])


def test_a_long_search_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rigid(7).automorphism() is None
    monkeypatch.setattr("wsflow.tracing.automorphisms.BUDGET", 0)
    with pytest.raises(Undecided):
        cycles((5, 7)).automorphism()
    table = Architecture.mlp([2, 3, 2])
    left = remaining_symmetries(table, {"0.weight": np.ones((3, 2))})
    assert left.permutation is None
    assert not left.is_proven_trivial
    assert "could not be decided" in str(left)


def test_permutations_of_two_layers_agree_with_all_of_them() -> None:
    table, generator, found = Architecture.mlp([2, 3, 3, 2]), np.random.default_rng(0), set()
    every = [*product(permutations(range(3)), repeat=2)][1:]
    action = Action(table, {f"hidden{k + 1}": torch.tensor([pair[k] for pair in every]) for k in (0, 1)}, {})
    for _ in range(40):
        constants = {"2.weight": generator.integers(1, 3, size=(3, 3)).astype(float)}
        row = torch.zeros(1, table.n_weights, dtype=torch.float64)
        columns = table.slices["2.weight"]
        row[:, columns] = torch.from_numpy(constants["2.weight"]).reshape(1, -1)
        kept = (action(row.repeat(len(every), 1))[:, columns] == row[:, columns]).all(1)
        left = remaining_symmetries(table, constants)
        assert bool(left.permutation) == bool(kept.any())
        if left.permutation:
            own = {name: torch.tensor([order]) for name, order in left.permutation.items()}
            identity = Action.identity(table, 1).permutations
            assert torch.equal(Action(table, {**identity, **own}, {})(row)[:, columns], row[:, columns])
        found.add(bool(kept.any()))
    assert found == {True, False}


def test_rows_that_differ_may_still_change_places_together() -> None:
    """A circulant matrix between two layers: no two of its rows are equal, and both layers turn together."""
    circulant = np.array([np.roll([1.0, 2.0, 0.0, 0.0, 0.0], k) for k in range(5)])
    left = remaining_symmetries(Architecture.mlp([2, 5, 5, 2]), {"2.weight": circulant})
    assert left.permutation is not None
    assert set(left.permutation) == {"hidden1", "hidden2"}
    assert len(np.unique(circulant, axis=0)) == 5
    circulant[0, 0] = 3.0
    assert remaining_symmetries(Architecture.mlp([2, 5, 5, 2]), {"2.weight": circulant}).permutation == {}


def test_constants_between_hidden_layers_leave_one_scale_to_both() -> None:
    """W1 -> c W1, W3 -> W3 / c, and W2 as it is: neither layer can be scaled by itself."""
    matrix = np.arange(1.0, 10.0).reshape(3, 3)
    left = remaining_symmetries(Architecture.mlp([2, 3, 3, 2]), {"2.weight": matrix})
    assert (left.permutation, left.scalings, left.joint) == ({}, {}, 1)
    # without edges between them, three scales are free
    left = remaining_symmetries(Architecture.mlp([2, 3, 3, 2]), {"2.weight": np.diag([1.0, 2.0, 3.0])})
    assert (left.permutation, left.scalings, left.joint) == ({}, {}, 3)
    left = remaining_symmetries(Architecture.mlp([2, 3, 3, 2], "tanh"), {"2.weight": np.diag([1.0, 2.0, 3.0])})
    assert (left.signs, left.joint) == ({}, 3)
    # the first two neurons keep their scales, and the third is free
    left = remaining_symmetries(Architecture.mlp([2, 3, 2]), {"0.weight": np.array([[1.0, 0], [0, 1.0], [0, 0]])})
    assert (left.permutation, left.scalings) == ({}, {"hidden1": (2,)})


def test_sines_keep_their_periods() -> None:
    left = remaining_symmetries(Architecture.mlp([2, 3, 2], "sine"), {"0.weight": np.arange(1.0, 7.0).reshape(3, 2)})
    assert left.permutation == {}
    assert left.shifts == ("hidden1",)
    assert not left.is_proven_trivial


class Block(nn.Module):
    """A residual block between a stem and a mean over pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1)
        self.norm, self.head = nn.BatchNorm2d(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = (x + self.second(self.norm(self.first(x)).relu())).relu()
        return self.head(x.mean((2, 3)))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4, 3)
    )


def mlp(activation: type[nn.Module] = nn.GELU) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 7), activation(), nn.Linear(7, 7), activation(), nn.Linear(7, 3))


class GIN(nn.Module):
    """A graph isomorphism network of torch-geometric, whose first layer is wide enough for constants."""

    def __init__(self) -> None:
        super().__init__()
        from torch_geometric.nn import GINConv

        self.conv1 = GINConv(nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 5)), train_eps=True)
        self.conv2 = GINConv(nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6)))
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.head(self.conv2(self.conv1(x, edges).relu(), edges).relu())


def graph() -> tuple[Tensor, Tensor]:
    """Forty nodes with four edges each."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.stack([torch.arange(40).repeat(4), torch.randint(40, (160,), generator=generator)])
    return torch.randn(40, 6, generator=generator), edges


FAMILIES: dict[str, tuple[Any, Any]] = {
    "MLP": (mlp, X),
    "CNN": (cnn, IMAGES),
    "GNN": (GIN, graph()),
    "ResNet": (Block, IMAGES),
    "ViT": (zoo.TorchTransformer, torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))),
}
# on few inputs two neurons may be dead both, and nothing changes where they change places
MANY = {"ViT": torch.randn(64, 4, 5, generator=torch.Generator().manual_seed(0))}


@cache
def family(name: str, kind: str = "weights") -> tuple[nn.Module, RemainingSymmetries, Architecture]:
    torch.manual_seed(0)
    build, inputs = FAMILIES[name]
    module = asymmetrize(build(), inputs, kind, kappa=1.0)
    found = remaining_of_module(module, inputs)
    assert found is not None
    return module, *found


def constants_of(module: nn.Module, table: Architecture) -> set[str]:
    return set(table.names) & {name for name, _ in module.named_buffers() if "running" not in name}


@pytest.mark.parametrize("name", FAMILIES)
def test_asymmetric_networks_have_no_symmetries(name: str) -> None:
    module, left, table = family(name)
    assert len(table.groups) >= 2
    assert left.is_proven_trivial
    assert str(left) == "no symmetries: proven"
    inputs = MANY.get(name, FAMILIES[name][1])
    least = smallest_deviation(table, constants_of(module, table), module, inputs)
    assert 1e-6 < least < float("inf")


def test_gated_activations_leave_no_symmetries() -> None:
    module, left, table = family("MLP", "activations")
    assert left.is_proven_trivial
    assert smallest_deviation(table, constants_of(module, table), module, X, n_random=100) > 1e-6


def test_exchanges_change_nothing_without_constants() -> None:
    """The control of the measurement: with constants that move along, every permutation is a symmetry."""
    _, _, table = family("MLP")
    plain, architecture = mlp(), Architecture.from_module(mlp(), X)
    assert [g.size for g in architecture.groups] == [g.size for g in table.groups]
    assert smallest_deviation(architecture, (), plain, X, n_random=20) < 1e-12


def test_the_mask_alone_leaves_the_scalings_of_relu() -> None:
    module = asymmetrize(mlp(nn.ReLU), X, kappa=0.0)
    architecture = Architecture.from_module(module, X)
    assert architecture.groups == ()
    assert [(wire.space.total, set(wire.scalings)) for wire in architecture.wires] == [(7, {"positive"})] * 2
    assert architecture.certify(inputs=X) < 1e-10
    assert Architecture.from_json(architecture.to_json()) == architecture
    weights = torch.randn(3, architecture.n_weights, dtype=torch.float64)
    weights[:, architecture.fixed_columns] = 0
    action = Action.random(architecture, 3, torch.Generator().manual_seed(0))
    canonical = [canonical_action(w, architecture)(w) for w in (weights, action(weights))]
    assert torch.allclose(*canonical, atol=1e-10)
    assert not torch.allclose(weights, action(weights), atol=0.1)
    found = remaining_of_module(module, X)
    assert found is not None
    assert found[0].permutation == {}
    assert [len(neurons) for neurons in found[0].scalings.values()] == [7, 7]
    assert "positive scalings of 7 neurons" in str(found[0])


def test_the_mask_alone_leaves_the_signs_of_tanh() -> None:
    architecture = Architecture.from_module(asymmetrize(mlp(nn.Tanh), X, kappa=0.0), X)
    assert [(wire.space.total, set(wire.scalings)) for wire in architecture.wires] == [(7, {"sign"})] * 2
    assert architecture.certify(inputs=X) < 1e-10


def test_neurons_that_no_constant_reaches_keep_their_symmetries() -> None:
    """With three inputs and six outputs, no rows could all fix different entries, and the first layer has none."""
    table = Architecture.mlp([3, 6, 5, 2])
    constants = {"2.weight": np.zeros((5, 6)), "4.weight": np.zeros((2, 5))}
    constants["2.weight"][range(5), range(5)] = np.arange(1.0, 6.0)
    left = remaining_symmetries(table, constants)
    assert left.permutation == {}, "the sixth neuron is the only one that is not reached"
    assert left.scalings == {"hidden1": (5,)}
    assert left.joint == 5
    constants["2.weight"][4, 4] = 0.0
    left = remaining_symmetries(table, constants)
    assert left.permutation == {"hidden1": (0, 1, 2, 3, 5, 4)}
    assert left.scalings == {"hidden1": (4, 5), "hidden2": (4,)}


def test_modules_without_constants_have_nothing_to_tell() -> None:
    assert remaining_of_module(mlp(), X) is None
