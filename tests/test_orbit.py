"""All members of one network's orbit are one point, under aligner and canonicalizer, in both orders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, traced
from hypothesis import HealthCheck, given, settings
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline
from test_tracing import modules
from torch import Tensor, nn

from wsflow import Architecture, PermutationAligner, ScaleCanonicalizer, Task, WeightArray
from wsflow.activations import ACTIVATIONS
from wsflow.architecture import Block, Fixed, NeuronGroup, Parameter, Wire
from wsflow.architecture.parameters import fixed_parameter
from wsflow.geometry import GEOMETRIES
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical.incoming import incoming_weights
from wsflow.symmetry.matching.methods import ChainMatching, SinkhornMatching
from wsflow.tracing import certify_orbits
from wsflow.tracing.certificate import random_weights

MEMBERS = 12
FORMS = ("unit", "balanced")
# those of the quick run: signs, flips, phases, nested heads, direct sums, norms, grouped channels, and wires that meet
QUICK = ("MLP", "GPT", "SIREN", "sigmoid", "grouped", "concatenation", "tied tanh", "U-Net")
JOINT = ("even abs", "position table", "talking heads", "gains behind shared norms", "batch ensemble", "outer gains")


def orbit(architecture: Architecture, log_scale: float = 1.0) -> WeightArray:
    """One network, its neurons permuted, scaled, flipped and shifted at random."""
    generator = torch.Generator().manual_seed(0)
    row = random_weights(architecture, 1, generator).double()
    action = Action.random(architecture, MEMBERS, generator, log_scale)
    return WeightArray(action(row.expand(MEMBERS, -1)).numpy(), architecture)


def spread(members: WeightArray, *steps: BaseEstimator) -> float:
    """The largest distance between two networks after some steps."""
    done = torch.from_numpy(np.array(make_pipeline(*steps, "passthrough").fit_transform(members)))
    return float(torch.cdist(done, done, compute_mode="donot_use_mm_for_euclid_dist").max())


def assert_one_point(members: WeightArray, form: str = "unit", **keywords: Any) -> None:
    """Networks that lie apart are one after aligning and canonicalizing, in both orders."""
    assert spread(members) > 0.1
    aligner, canonicalizer = PermutationAligner(**keywords), ScaleCanonicalizer(form)
    assert spread(members, aligner, canonicalizer) < 1e-10
    assert spread(members, canonicalizer, aligner) < 1e-10


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_mlp_with_every_activation(name: str) -> None:
    assert_one_point(orbit(Architecture.mlp([5, 8, 7, 3], name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("width", [2, 64])
def test_narrow_and_wide_mlps_in_every_form(name: str, width: int) -> None:
    members = orbit(Architecture.mlp([20, width, width, 10], name))
    for form in FORMS:
        assert_one_point(members, form)


@pytest.mark.parametrize("reference", ["mean", "medoid", "first", "universe"])
def test_any_reference(reference: str) -> None:
    assert_one_point(orbit(Architecture.mlp([5, 8, 7, 3], "tanh")), reference=reference)


@pytest.mark.parametrize("method", ["activation", ChainMatching(steps=3)])
def test_with_a_task(method: Any) -> None:
    X = np.random.default_rng(0).normal(size=(60, 5))
    task = Task(X, (X[:, :2] > 0).sum(1))
    members = orbit(Architecture.mlp([5, 8, 7, 3]))
    assert_one_point(members, method=method, task=task, random_state=0)


def planted(
    architecture: Architecture, n: int, seed: int, stays: Callable[[NeuronGroup], bool], scale: float
) -> Action:
    """Random group elements, of which some groups keep the order of their neurons (of nested ones, within parents)."""
    drawn = Action.random(architecture, n, torch.Generator().manual_seed(seed), scale)
    permutations: dict[str, Tensor] = {}
    for group in architecture.groups:
        within = drawn.permutations[group.name].reshape(n, -1, group.size) % group.size
        within = torch.arange(group.size).expand(within.shape) if stays(group) else within
        above = torch.arange(within.shape[1]).expand(n, -1)
        above = permutations[group.parent.name] if group.parent else above
        permutations[group.name] = (within + group.size * above.unsqueeze(2)).flatten(1)
    return Action(architecture, permutations, drawn.scales if scale else {}, drawn.phases if scale else {})


# which groups keep the order of their neurons, and the standard deviation of log-scales (none, and no signs, for zero)
PLANTS: dict[str, tuple[Callable[[NeuronGroup], bool], float]] = {
    "anything": (lambda group: False, 1.0),
    "nothing nested": (lambda group: group.parent is not None, 1.0),
    "what is nested": (lambda group: group.parent is None, 1.0),
    "permutations of what is nested": (lambda group: group.parent is None, 0.0),
    "scales": (lambda group: True, 1.0),
    "permutations": (lambda group: False, 0.0),
    "nothing": (lambda group: True, 0.0),
}


def plants_of(architecture: Architecture) -> list[str]:
    """The plants that differ from each other."""
    nested = any(group.parent for group in architecture.groups)
    return [plant for plant in PLANTS if nested or "nested" not in plant]


def networks(architecture: Architecture, n: int, seed: int, shared: tuple[str, ...] = ()) -> Tensor:
    """Random networks (n, d), with some parameters in common."""
    rows = random_weights(architecture, n, torch.Generator().manual_seed(seed))
    for name in shared:
        rows[:, architecture.slices[name]] = rows[0, architecture.slices[name]].clone()
    return rows


def orbits(architecture: Architecture, rows: Tensor, plant: str, seed: int, members: int = 4) -> WeightArray:
    """The orbits of several networks (n, d), one behind the other."""
    stays, scale = PLANTS[plant]
    rows = rows.repeat_interleave(members, 0)
    return WeightArray(planted(architecture, len(rows), seed, stays, scale)(rows).numpy(), architecture)


def largest_spread(population: WeightArray, n: int, *steps: BaseEstimator) -> float:
    """The largest distance within one of n orbits after some steps, over the norm of the network."""
    done = np.asarray(make_pipeline(*steps).fit_transform(population)).reshape(n, -1, population.shape[1])
    spreads = np.linalg.norm(done - done[:, :1], axis=2) / np.linalg.norm(done[:, :1], axis=2)
    return float(spreads.max())


def assert_orbits_are_points(population: WeightArray, n: int, form: str) -> None:
    """Each of n orbits is one point, in both orders."""
    aligner, canonicalizer = PermutationAligner(), ScaleCanonicalizer(form)
    assert largest_spread(population, n, aligner, canonicalizer) < 1e-10
    assert largest_spread(population, n, canonicalizer, aligner) < 1e-10


@pytest.mark.parametrize("name", [*QUICK, *JOINT])
def test_of_each_plant(name: str) -> None:
    """One network's orbit, and orbits among each other."""
    architecture = traced(name)
    for plant in plants_of(architecture):
        assert_orbits_are_points(orbits(architecture, networks(architecture, 1, 0), plant, 1), 1, "unit")
    assert_orbits_are_points(orbits(architecture, networks(architecture, 3, 0), "anything", 1), 3, "balanced")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_of_all_traced_families_with_three_seeds(name: str) -> None:
    architecture = traced(name)
    for seed in range(3):
        for i, plant in enumerate(plants_of(architecture)):
            form, n = FORMS[(seed + i) % 2], 1 + (seed + i) % 3
            population = orbits(architecture, networks(architecture, n, seed), plant, seed, members=3)
            steps = [PermutationAligner(), ScaleCanonicalizer(form)]
            assert largest_spread(population, n, *(steps if (seed + i) % 4 < 2 else steps[::-1])) < 1e-10


# parameters that networks share, and the groups that they identify; a matrix that is scaled along identifies none
SHARED = {
    "position table": (("table",), "what is nested", 1),
    "relative table": (("table.weight",), "what is nested", 1),
    "slopes": (("slope",), "what is nested", 1),
    "talking heads": (("mix",), "permutations of what is nested", 2),
    "grouped": (("head.weight",), "permutations of what is nested", 0),
    "GPT": (("wte.weight", "wpe.weight"), "what is nested", 1),
}


@pytest.mark.parametrize("name", SHARED)
def test_of_networks_that_share_a_frozen_table(name: str) -> None:
    """What a table identifies stays; what it does not, such as channels within heads, is aligned."""
    architecture, (shared, plant, fixed) = traced(name), SHARED[name]
    population = orbits(architecture, networks(architecture, 3, 0, shared), plant, 1)
    aligner = PermutationAligner().fit(population)
    _, action = aligner.transform(population, return_action=True)
    moved = {group: (index.diff(dim=1) != 1).any() for group, index in action.permutations.items()}
    assert len(aligner.fixed_groups_) == fixed
    assert not any(moved[group] for group in aligner.fixed_groups_)
    assert all(moved[group.name] for group in architecture.groups if group.parent is not None)
    assert_orbits_are_points(population, 3, "unit")


@pytest.mark.parametrize("name", [name for name, (_, _, fixed) in SHARED.items() if fixed == 1])
def test_of_later_networks_whose_table_is_in_another_order(name: str) -> None:
    """Networks of fit and their copies with heads in any order come to the same points."""
    architecture, (shared, plant, _) = traced(name), SHARED[name]
    rows = networks(architecture, 3, 0, shared)
    aligner, canonicalizer = PermutationAligner(), ScaleCanonicalizer()
    expected = np.asarray(canonicalizer.fit_transform(aligner.fit_transform(orbits(architecture, rows, plant, 1))))
    done = np.asarray(canonicalizer.transform(aligner.transform(orbits(architecture, rows, "anything", 2))))
    np.testing.assert_allclose(done, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("settings", [{"reference": "universe"}, {"method": SinkhornMatching(steps=5)}], ids=str)
def test_of_heads_that_stay_by_other_ways_to_match(settings: dict[str, Any]) -> None:
    architecture = traced("position table")
    population = orbits(architecture, networks(architecture, 3, 0, ("table",)), "what is nested", 1)
    assert largest_spread(population, 3, PermutationAligner(**settings), ScaleCanonicalizer()) < 1e-10


class TestJointForms:
    """Wires that wait for each other have canonical forms with a meaning."""

    @staticmethod
    def gains(*more: Parameter) -> Architecture:
        """A matrix of gains that rows and columns scale, and what else there is."""
        row, column = (NeuronGroup(name, size) for name, size in (("row", 3), ("column", 4)))
        gains = Parameter("gains", (3, 4), (Block((row, column), wires=(("row", 0, 1), ("column", 1, 1))),))
        both = frozenset({"positive", "sign"})
        return Architecture((gains, *more), (Wire("row", row, both), Wire("column", column, both)))

    def test_rows_and_columns_of_gains_have_mean_square_one(self) -> None:
        """As in Sinkhorn's theorem: each matrix of positive numbers is scaled to given marginals in one way."""
        architecture = self.gains()
        rows = networks(architecture, 5, 0)
        gains = np.asarray(ScaleCanonicalizer(architecture=architecture).fit_transform(rows.numpy())).reshape(-1, 3, 4)
        np.testing.assert_allclose((gains**2).mean(1), 1, rtol=1e-12)
        np.testing.assert_allclose((gains**2).mean(2), 1, rtol=1e-12)

    def test_the_largest_gains_that_are_free_are_positive(self) -> None:
        """Signs of rows and columns make a spanning tree of the gains positive: that of the largest ones."""
        architecture = self.gains()
        gains = np.asarray(
            ScaleCanonicalizer(architecture=architecture).fit_transform(networks(architecture, 5, 0).numpy())
        ).reshape(-1, 3, 4)
        for matrix in gains:
            parts = [{("row", i)} for i in range(3)] + [{("column", j)} for j in range(4)]
            for i, j in sorted(np.ndindex(3, 4), key=lambda index: -abs(matrix[index])):
                ends = [next(part for part in parts if node in part) for node in (("row", i), ("column", j))]
                if ends[0] is not ends[1]:
                    assert matrix[i, j] > 0
                    parts = [part for part in parts if part not in ends] + [ends[0] | ends[1]]

    @pytest.mark.parametrize("form", FORMS)
    def test_a_circle_that_nothing_enters(self, form: str) -> None:
        one, two = NeuronGroup("one", 3), NeuronGroup("two", 4)
        rows = [
            Parameter("there", (4, 3), (Block((two, one), wires=(("b", 0, 1), ("a", 1, -1))),)),
            Parameter("back", (3, 4), (Block((one, two), wires=(("a", 0, 1), ("b", 1, -1))),)),
            Parameter("out", (2, 3), (Block((Fixed(2), one), wires=(("a", 1, -1),)),)),
        ]
        wires = (Wire("a", one, frozenset({"positive"})), Wire("b", two, frozenset({"positive"})))
        architecture = Architecture(tuple(rows), wires)
        assert_orbits_are_points(orbits(architecture, networks(architecture, 3, 0), "anything", 1), 3, form)

    @pytest.mark.parametrize("name", ["gains behind shared norms", "batch ensemble", "outer gains"])
    def test_balanced_gains_have_the_smallest_sum_of_squares(self, name: str) -> None:
        """The gradient with respect to all log-scales vanishes: what rows and columns produce is what they consume."""
        architecture = traced(name)
        assert any(not incoming.acyclic for incoming in incoming_weights(architecture))
        done = ScaleCanonicalizer("balanced").fit_transform(
            WeightArray(networks(architecture, 4, 0).numpy(), architecture)
        )
        rows = torch.from_numpy(np.array(done))
        for wire in (wire for wire in architecture.wires if "positive" in wire.scalings):
            logs = torch.zeros(4, wire.space.total, dtype=rows.dtype, requires_grad=True)
            total = Action(architecture, {}, {wire.name: logs.exp()})(rows).square().sum()
            (gradient,) = torch.autograd.grad(total, logs)
            assert float(gradient.abs().max()) < 1e-11 * float(total.detach())

    @pytest.mark.parametrize("name", JOINT)
    def test_canonical_networks_are_points_of_the_geometric_manifold(self, name: str) -> None:
        """Wires that cross have no unit norms, and no spheres; all others have."""
        architecture = traced(name)
        rows = WeightArray(networks(architecture, 4, 0).numpy(), architecture)
        canonical = torch.from_numpy(np.array(ScaleCanonicalizer().fit_transform(rows)))
        geometry = GEOMETRIES["geometric"](architecture, "euclidean", "inside")
        geometry.check(canonical, 1e-10)
        torch.testing.assert_close(geometry.to_weights(geometry.to_points(canonical)), canonical)


class TestCertificate:
    """The architecture says what is only nearly aligned."""

    @pytest.mark.parametrize("name", [*QUICK, *JOINT])
    def test_of_traced_families_there_is_nothing(self, name: str) -> None:
        assert traced(name).approximations(2) == ()

    @pytest.mark.slow
    @pytest.mark.parametrize("name", FAMILIES)
    def test_of_all_traced_families_there_is_nothing(self, name: str) -> None:
        certificate = certify_orbits(traced(name))
        assert certificate.deviation < 1e-12 and certificate.approximations == ()

    @pytest.mark.slow
    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(modules())
    def test_of_random_networks_there_is_nothing(self, network: nn.Module) -> None:
        images = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert Architecture.from_module(network, images).approximations(2) == ()

    def test_what_is_not_compared_is_named(self) -> None:
        """Statistics have no say in a matching: a group of statistics alone stays in the order in which it came."""
        group = NeuronGroup("channels", 5)
        counts = Parameter("counts", (5,), (Block((group,)),), "statistic")
        architecture = Architecture([counts, fixed_parameter("weight", (2, 3))])
        (sentence,) = architecture.approximations()
        assert sentence.startswith("counts: ") and "weight matching" in sentence

    def test_it_finds_scales_that_no_form_decides(self, monkeypatch: pytest.MonkeyPatch) -> None:
        architecture = Architecture.mlp([3, 4, 2])
        monkeypatch.setattr("wsflow.tracing.orbits.canonical_action", lambda w, a: Action.identity(a, len(w)))
        first, *_ = architecture.approximations()
        assert first.startswith("0.weight, 0.bias, 2.weight: ") and "no canonical scale" in first
