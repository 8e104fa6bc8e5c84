"""Columns of any scale are learned alike, and what is equal in all networks stays so."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from scipy.stats import norm

import wsflow
from wsflow import Architecture, Guidance, ScaleCanonicalizer, Task, WeightArray, WeightFlow
from wsflow.exceptions import InvalidInputError, NumericalError, UnequalSpreadsWarning
from wsflow.geometry import GEOMETRIES, fit_coordinates, vectors
from wsflow.geometry.fitting import moments
from wsflow.manifolds import Sphere
from wsflow.models.options import (
    MLP,
    EnergyMatching,
    ExchangeableSource,
    IsotropicSource,
    NetworkGeometry,
    NeuronTransformer,
)

RELU = Architecture.mlp([3, 4, 2])
TASK = Task(np.random.default_rng(9).normal(size=(40, 3)), np.resize([0, 1], 40))
QUICK = {"max_iter": 2, "random_state": 0, "solver": "euler"}
SMALL = NeuronTransformer(8, 1, 2)


def normal(n: int, *scales: float, mean: object = 0.0, seed: int = 0) -> np.ndarray:
    """Independent columns with exactly these means and standard deviations."""
    z = np.random.default_rng(seed).normal(size=(n, len(scales)))
    z -= z.mean(0)
    z = z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / n)).T
    return np.asarray(mean) + z * np.asarray(scales)


def networks(architecture: Architecture = RELU, n: int = 40, seed: int = 0) -> WeightArray:
    return WeightArray(np.random.default_rng(seed).normal(size=(n, architecture.n_weights)), architecture)


VECTORS = {
    "thousandth and thousand": normal(400, 1e-3, 1e3),
    "the other way round": normal(400, 1e3, 1e-3),
    "twenty orders of magnitude": normal(400, 1e-12, 1.0, 1e8),
    "far from zero": normal(400, 1e-3, 1.0, mean=[1e6, -1e9]),
    "nearly constant": normal(400, 1e-9, 1.0, mean=[5.0, 0.0]),
    "single precision": normal(400, 1e-6, 1e6).astype(np.float32),
    "edges of single precision": normal(400, 1e-37, 1e37).astype(np.float32),
    "half precision": normal(400, 1e-2, 1e4).astype(np.float16),
    "whole numbers": np.rint(normal(400, 2.0, 1e6)).astype(np.int64),
}


FAST = ("thousandth and thousand", "nearly constant", "edges of single precision")


@functools.cache
def flow_of(name: str) -> WeightFlow:
    return WeightFlow("euclidean", velocity=MLP(32, 1), max_iter=200, random_state=0).fit(VECTORS[name])


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in VECTORS]
)
def test_samples_have_the_spread_of_each_column(name):
    X, samples = VECTORS[name].astype(np.float64), flow_of(name).sample(2000, random_state=0).astype(np.float64)
    spread = X.std(0)
    # three standard errors of a sample's mean and standard deviation are 7% and 5%
    np.testing.assert_allclose(samples.std(0), spread, rtol=0.1)
    np.testing.assert_allclose((samples.mean(0) - X.mean(0)) / spread, 0, atol=0.1)


@pytest.mark.parametrize("name", ["thousandth and thousand", pytest.param("far from zero", marks=pytest.mark.slow)])
def test_densities_are_those_of_a_diagonal_gaussian(name):
    X = VECTORS[name]
    expected = norm.logpdf(X, X.mean(0), X.std(0)).sum(1)
    found = flow_of(name).score_samples(X[:100])
    # the mean over points is up to the flow's Kullback-Leibler divergence, and scales alone would change it by tens
    assert abs(found.mean() - expected[:100].mean()) < 0.1


def test_units_of_vectors_move_samples_and_densities_as_they_should():
    X = normal(60, 1.0, 1.0, 1.0)
    factor, shift = np.array([2.0**-20, 1.0, 2.0**30]), np.array([0.0, 3.0, 0.0])
    plain, scaled = (WeightFlow("euclidean", velocity=MLP(8, 1), **QUICK).fit(x) for x in (X, X * factor + shift))
    np.testing.assert_allclose(
        scaled.sample(5, random_state=0), plain.sample(5, random_state=0) * factor + shift, rtol=1e-5
    )
    difference = scaled.score_samples(X * factor + shift) - plain.score_samples(X)
    np.testing.assert_allclose(difference, -np.log(factor).sum(), rtol=1e-6)


def test_sampled_densities_are_those_that_are_scored():
    X = np.column_stack([normal(60, 1e-4, 1e4), np.full(60, 2.5)])
    flow = WeightFlow("euclidean", velocity=MLP(8, 1), **QUICK | {"solver": "rk4"}).fit(X)
    samples, densities = flow.sample(5, random_state=0, return_log_prob=True)
    np.testing.assert_allclose(flow.score_samples(samples), densities, atol=1e-3)


class TestNetworks:
    SCALES = {
        "a tiny layer": {"0.weight": 1e-5},
        "a huge layer": {"2.weight": 1e6},
        "both": {"0.weight": 1e-4, "2.weight": 1e4},
        "tiny biases": {"0.bias": 1e-7, "2.bias": 1e-9},
        "all tiny": dict.fromkeys(RELU.names, 1e-8),
    }

    @staticmethod
    def scaled(scales: dict[str, float], n: int = 300) -> WeightArray:
        rows = np.array(networks(n=n))
        for name, scale in scales.items():
            rows[:, RELU.slices[name]] *= scale
        return WeightArray(rows, RELU)

    @pytest.mark.parametrize("scales", SCALES)
    def test_samples_have_the_spread_of_each_layer(self, scales):
        weights = self.scaled(self.SCALES[scales])
        flow = WeightFlow("euclidean", velocity=SMALL, task=TASK, max_iter=50, random_state=0).fit(weights)
        samples = np.asarray(flow.sample(500, random_state=0))
        for name, columns in RELU.slices.items():
            ratio = samples[:, columns].std() / np.asarray(weights)[:, columns].std()
            assert 0.8 < ratio < 1.25, (name, ratio)

    @pytest.mark.parametrize("identity", [None, "learned"])
    @pytest.mark.parametrize("kind", GEOMETRIES)
    def test_ordinary_networks_keep_the_metric_of_their_weights(self, kind, identity):
        weights = ScaleCanonicalizer().fit_transform(self.scaled({"0.weight": 0.05, "2.weight": 20.0}))
        geometry = GEOMETRIES[kind](RELU)
        assert fit_coordinates(geometry, torch.tensor(np.asarray(weights)), identity == "learned") is geometry

    def test_without_names_columns_of_a_parameter_have_one_unit_and_no_centre(self):
        weights = torch.tensor(np.asarray(self.scaled({"0.weight": 1e-5})))
        geometry = fit_coordinates(GEOMETRIES["euclidean"](RELU), weights, is_named=False)
        found = geometry.coordinates
        assert (found.centre == 0).all()
        for columns in RELU.slices.values():
            rms = weights[:, columns].square().mean().sqrt()
            torch.testing.assert_close(found.scale[columns], rms.expand(found.scale[columns].shape))

    @pytest.mark.parametrize("source", [IsotropicSource(), ExchangeableSource()])
    def test_flows_without_names_sample_other_widths_in_these_units(self, source):
        weights = self.scaled({"0.weight": 1e-5, "2.weight": 1e5})
        velocity = NeuronTransformer(8, 1, 2, None)
        flow = WeightFlow("euclidean", velocity=velocity, source=source, **QUICK).fit(weights)
        wide = Architecture.mlp([3, 9, 2])
        samples = np.asarray(flow.sample(300, random_state=0, architecture=wide))
        for name, scale in {"0.weight": 1e-5, "2.weight": 1e5}.items():
            assert 0.5 < samples[:, wide.slices[name]].std() / scale < 2

    @pytest.mark.parametrize("coupling", ["ot", "orbit"])
    def test_couplings_keep_to_the_units(self, coupling):
        weights = self.scaled({"0.weight": 1e-5, "2.weight": 1e5})
        flow = WeightFlow("euclidean", velocity=NeuronTransformer(8, 1, 2, None), coupling=coupling, **QUICK)
        samples = np.asarray(flow.fit(weights).sample(300, random_state=0))
        assert 0.5 < samples[:, RELU.slices["0.weight"]].std() / 1e-5 < 2

    def test_a_model_file_keeps_them(self, tmp_path):
        weights = self.scaled({"0.weight": 1e-5, "2.weight": 1e5})
        flow = WeightFlow("euclidean", velocity=SMALL, **QUICK).fit(weights)
        wsflow.save_model(flow, tmp_path / "flow.st")
        loaded = wsflow.load_model(tmp_path / "flow.st")
        np.testing.assert_array_equal(loaded.sample(3, random_state=0), flow.sample(3, random_state=0))
        np.testing.assert_allclose(loaded.score_samples(weights[:2]), flow.score_samples(weights[:2]), rtol=1e-12)


ALL_CONSTANTS = {
    "a frozen first layer": ["0.weight", "0.bias"],
    "a frozen output layer": ["2.weight", "2.bias"],
    "biases at zero": ["zero 0.bias", "zero 2.bias"],
    "a constant output bias": ["2.bias"],
    "a masked weight": ["mask 1"],
    "several masked weights": ["mask 0", "mask 4", "mask 5", "mask 17"],
    "a neuron with one input": ["mask 1", "mask 2", "zero 0.bias"],
}


def with_constants(what: list[str], canonical: bool, n: int = 30) -> tuple[WeightArray, np.ndarray]:
    """Networks, and which of their weights are equal in all of them."""
    rows = np.array(networks(n=n))
    for name in what:
        kind, _, column = name.partition(" ")
        if kind == "mask":
            rows[:, int(column)] = 0
        elif kind == "zero":
            rows[:, RELU.slices[column]] = 0
        else:
            rows[:, RELU.slices[name]] = rows[0, RELU.slices[name]]
    weights = WeightArray(rows, RELU)
    if canonical:
        weights = ScaleCanonicalizer().fit_transform(weights)
    same = (np.asarray(weights) == np.asarray(weights)[:1]).all(0)
    return weights, same


class TestConstants:
    @pytest.mark.parametrize("kind", GEOMETRIES)
    @pytest.mark.parametrize("what", ALL_CONSTANTS)
    def test_what_is_constant_stays_so_bit_for_bit(self, what, kind):
        weights, same = with_constants(ALL_CONSTANTS[what], canonical=kind != "euclidean")
        assert same.any()
        flow = WeightFlow(kind, velocity=SMALL, task=TASK, **QUICK).fit(weights)
        samples = np.asarray(flow.sample(20, random_state=0))
        np.testing.assert_array_equal(samples[:, same], np.asarray(weights)[:20, same])
        assert (samples[:, ~same] != samples[:1, ~same]).any(0).all()
        assert flow.geometry_.target.belongs(flow.geometry_.to_points(torch.tensor(samples)), 1e-6).all()
        lost = flow.geometry_.base.target.dimension - flow.geometry_.target.dimension
        assert lost == same.sum() if kind == "euclidean" else 0 < lost <= same.sum()

    @pytest.mark.parametrize(
        "options",
        [
            {"source": "isotropic"},
            {"source": "initialisation"},
            {"velocity": MLP(8, 1)},
            {"velocity": NeuronTransformer(8, 1, 2, None)},
            {"velocity": NeuronTransformer(8, 1, 2, None), "source": "exchangeable"},
            {"velocity": NeuronTransformer(8, 1, 2, None), "coupling": "orbit"},
            {"velocity": "relational"},
            {"coupling": "ot"},
            {"solver": "dopri5"},
            {"task": TASK, "energy": EnergyMatching(2)},
        ],
        ids=lambda options: ", ".join(options),
    )
    @pytest.mark.parametrize(
        ("what", "last_layer"),
        [
            ("several masked weights", "euclidean"),
            pytest.param("several masked weights", "polar", marks=pytest.mark.slow),
            pytest.param("a frozen output layer", "polar", marks=pytest.mark.slow),
            pytest.param("a constant output bias", "polar", marks=pytest.mark.slow),
        ],
    )
    def test_it_does_whatever_else_is_chosen(self, what, last_layer, options):
        weights, same = with_constants(ALL_CONSTANTS[what], canonical=True)
        geometry = NetworkGeometry("geometric", last_layer)
        flow = WeightFlow(geometry, **{"velocity": SMALL} | QUICK | options).fit(weights)
        samples = np.asarray(flow.sample(5, random_state=0))
        np.testing.assert_array_equal(samples[:, same], np.asarray(weights)[:5, same])

    @pytest.mark.parametrize(
        "how",
        [
            {"guidance": Guidance(TASK)},
            {"guidance": Guidance(TASK, descent=wsflow.Descent(4, flow_steps=2))},
            {"guidance": Guidance(TASK, descent=wsflow.Descent(4, flow_steps=0, natural=True))},
            {"guidance": Guidance(TASK, descent=wsflow.Descent(4, flow_steps=2, standardize=True))},
            {"noise": 0.5},
            {"temperature": 0.0},
        ],
        ids=["guided", "descent", "natural", "standardized", "noise", "cold"],
    )
    def test_it_does_however_it_is_sampled(self, how):
        weights, same = with_constants(["zero 0.bias", "2.weight", "mask 3"], canonical=False)
        flow = WeightFlow("euclidean", velocity=SMALL, **QUICK).fit(weights)
        samples = np.asarray(flow.sample(5, random_state=0, **how))
        np.testing.assert_array_equal(samples[:, same], np.asarray(weights)[:5, same])

    @pytest.mark.parametrize("activation", ["sine", "tanh", "sigmoid", "gelu"])
    def test_it_does_with_signs_flips_and_phases(self, activation):
        architecture = Architecture.mlp([2, 3, 2], activation)
        rows = np.array(networks(architecture))
        for name in architecture.names[1:3]:
            rows[:, architecture.slices[name]] = 0.3
        weights = WeightArray(rows, architecture)
        same = (rows == rows[:1]).all(0)
        for kind, coupling in (("geometric", "independent"), ("euclidean", "orbit")):
            flow = WeightFlow(kind, velocity=MLP(8, 1), coupling=coupling, **QUICK)
            with np.testing.suppress_warnings() as ignored:
                ignored.filter(UserWarning)
                samples = np.asarray(flow.fit(weights).sample(5, random_state=0))
            np.testing.assert_array_equal(samples[:, same], rows[:5, same])

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_what_was_frozen_before_it_was_scaled_is_constant_up_to_rounding(self, dtype):
        weights, _ = with_constants(["0.weight", "0.bias"], canonical=False)
        rows = np.array(weights, dtype=dtype)
        factors = np.exp(np.random.default_rng(3).normal(size=(len(rows), 4))).astype(dtype)
        rows[:, :12] *= factors.repeat(3, 1)
        rows[:, 12:16] *= factors
        rows[:, 16:24] /= np.tile(factors, (1, 2))
        canonical = np.asarray(ScaleCanonicalizer().fit_transform(WeightArray(rows, RELU)))
        assert (canonical[:, :16] != canonical[:1, :16]).any()
        flow = WeightFlow(velocity=SMALL, task=TASK, **QUICK).fit(WeightArray(canonical, RELU))
        samples = np.asarray(flow.sample(5, random_state=0))
        np.testing.assert_array_equal(samples[:, :16], canonical[:1, :16].repeat(5, 0))
        assert np.isfinite(flow.score_samples(WeightArray(canonical, RELU))).all()

    def test_a_column_that_hardly_varies_is_not_constant(self):
        rows = np.array(networks(n=300))
        rows[:, 3] = 0.5 + 1e-9 * rows[:, 3]
        flow = WeightFlow("euclidean", velocity=SMALL, task=TASK, max_iter=50, random_state=0)
        samples = np.asarray(flow.fit(WeightArray(rows, RELU)).sample(500, random_state=0))
        assert 0.8e-9 < samples[:, 3].std() < 1.25e-9 and abs(samples[:, 3].mean() - 0.5) < 1e-9

    def test_the_density_is_that_of_the_other_columns(self):
        X = normal(60, 1.0, 2.0)
        wide = np.column_stack([X[:, 0], np.full(60, -3.0), X[:, 1], np.zeros(60)])
        narrow, with_more = (WeightFlow("euclidean", velocity=MLP(8, 1), **QUICK).fit(x) for x in (X, wide))
        assert with_more.geometry_.manifold.dimension == 2
        # the source alone: velocity networks differ in size
        source = with_more.source_.log_prob(with_more.geometry_.to_points(torch.tensor(wide)))
        expected = narrow.source_.log_prob(narrow.geometry_.to_points(torch.tensor(X)))
        torch.testing.assert_close(source, expected)

    def test_networks_that_differ_in_it_have_no_density(self):
        weights, _ = with_constants(["2.bias"], canonical=True)
        flow = WeightFlow("geometric", velocity=SMALL, **QUICK).fit(weights)
        other = np.array(weights[:3])
        other[0, -1] += 1e-3
        other[1] = other[1].astype(np.float32)
        scores = flow.score_samples(WeightArray(other, RELU))
        assert scores[0] == -np.inf and np.isfinite(scores[1:]).all()

    def test_a_part_of_a_sphere_that_is_constant_leaves_a_smaller_one(self):
        rows = np.array(ScaleCanonicalizer().fit_transform(networks()))
        incoming = np.array([0, 1, 2, 12])
        rest = rows[:, incoming[1:]]
        rows[:, 0] = 0.6
        rows[:, incoming[1:]] = 0.8 * rest / np.linalg.norm(rest, axis=1, keepdims=True)
        flow = WeightFlow("geometric", velocity=SMALL, **QUICK).fit(WeightArray(rows, RELU))
        samples = np.asarray(flow.sample(5, random_state=0))
        assert (samples[:, 0] == 0.6).all()
        np.testing.assert_allclose(np.linalg.norm(samples[:, incoming[1:]], axis=1), 0.8, rtol=1e-6)
        # of the scaled sphere, of dimension 2
        assert flow.geometry_.log_det == pytest.approx(2 * np.log(0.8))

    def test_a_model_file_keeps_it(self, tmp_path):
        weights, _ = with_constants(["2.bias", "mask 1", "zero 0.bias"], canonical=True)
        flow = WeightFlow("geometric", velocity=SMALL, task=TASK, **QUICK).fit(weights)
        wsflow.save_model(flow, tmp_path / "flow.st")
        loaded = wsflow.load_model(tmp_path / "flow.st")
        np.testing.assert_array_equal(loaded.sample(3, random_state=0), flow.sample(3, random_state=0))
        np.testing.assert_allclose(loaded.score_samples(weights[:2]), flow.score_samples(weights[:2]), rtol=1e-12)

    def test_other_widths_have_constants_that_they_can_have(self):
        weights, _ = with_constants(["zero 0.bias", "2.bias"], canonical=False)
        flow = WeightFlow("euclidean", velocity=NeuronTransformer(8, 1, 2, None), **QUICK).fit(weights)
        wide = Architecture.mlp([3, 7, 2])
        samples = np.asarray(flow.sample(3, random_state=0, architecture=wide))
        assert (samples[:, wide.slices["0.bias"]] == 0).all()
        np.testing.assert_array_equal(samples[:, wide.slices["2.bias"]], np.asarray(weights)[:3, -2:])
        frozen, _ = with_constants(["0.weight"], canonical=False)
        with pytest.raises(ValueError, match=r"weights of '0.weight' are equal in all networks.*own width"):
            flow.fit(frozen).sample(3, random_state=0, architecture=wide)

    @pytest.mark.parametrize("rows", [np.ones((5, 3)), WeightArray(np.ones((5, RELU.n_weights)), RELU)])
    def test_networks_that_are_all_equal_have_no_distribution(self, rows):
        with pytest.raises(InvalidInputError, match="All 5 networks are equal"):
            WeightFlow("euclidean", **QUICK).fit(rows)

    def test_the_manifold_of_geomstats_has_the_dimensions_that_vary(self):
        weights, _ = with_constants(["2.bias", "0.weight", "0.bias"], canonical=True)
        flow = WeightFlow("geometric", velocity=SMALL, **QUICK).fit(weights)
        points = flow.to_manifold(weights)
        assert flow.manifold_.dim == flow.geometry_.manifold.dimension == 8
        assert flow.manifold_.belongs(points, atol=1e-6).all()


@pytest.mark.parametrize("size", [1e-308, 1e-200, 1e-30, 1.0, 1e30, 1e200, 1e307])
def test_moments_do_not_leave_the_range_of_numbers(size):
    z = torch.tensor(normal(50, 1.0, 1.0, mean=[0.5, 0.0]))
    mean, deviation = moments(lambda: iter((z * size).split(7)))
    torch.testing.assert_close(mean / size, torch.tensor([0.5, 0.0]).double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(deviation / size, torch.ones(2).double(), rtol=1e-6, atol=0)


def test_a_single_varying_column_is_left():
    X = np.column_stack([np.full(30, 1e30), normal(30, 1e-20), np.zeros(30)])
    geometry = fit_coordinates(vectors(3), torch.tensor(X))
    assert geometry.manifold.dimension == 1
    np.testing.assert_array_equal(geometry.to_weights(geometry.to_points(torch.tensor(X)))[:, [0, 2]], X[:, [0, 2]])


def test_samples_beyond_the_range_of_their_numbers_are_an_error():
    rows = 3e38 * np.sign(normal(40, 1.0, 1.0)).astype(np.float32)
    flow = WeightFlow("euclidean", velocity=MLP(8, 1), max_iter=2, random_state=0).fit(rows)
    with pytest.raises(NumericalError, match="beyond the range of float32"):
        flow.sample(200, random_state=0)


class TestNeuronsThatHardlyVary:
    """Unit neurons of very different spread have units of their own where they have names, and a warning else."""

    def population(self, spread: float, n: int = 120) -> WeightArray:
        rng = np.random.default_rng(0)
        deviations = np.full(RELU.n_weights, 0.2)
        # the weights and the bias of the first neuron
        deviations[[0, 1, 2, 12]] = spread
        rows = rng.normal(size=RELU.n_weights) + deviations * rng.normal(size=(n, RELU.n_weights))
        return ScaleCanonicalizer().fit_transform(WeightArray(rows, RELU))

    @pytest.mark.parametrize("spread", [1e-3, 1e-6])
    @pytest.mark.parametrize("other", [{"velocity": NeuronTransformer(8, 1, 2, None)}, {"source": "isotropic"}])
    def test_they_are_named_where_all_have_one_unit(self, spread, other):
        with pytest.warns(UnequalSpreadsWarning, match=r"^1 of 4 neurons vary less than 1% as much as others do,"):
            WeightFlow("geometric", **{"velocity": SMALL, **QUICK, **other}).fit(self.population(spread))

    @pytest.mark.parametrize(
        ("geometry", "spread"),
        # what is equal in all networks is no dimension
        [("geometric", 0.2), ("geometric", 1e-5), ("geometric", 0.0), ("euclidean", 1e-5), ("normalized", 1e-5)],
    )
    def test_others_are_not(self, geometry, spread):
        WeightFlow(geometry, velocity=SMALL, **QUICK).fit(self.population(spread))

    @pytest.mark.parametrize(("spread", "are_alike"), [(0.2, True), (0.01, True), (1e-3, False), (1e-5, False)])
    def test_units_are_shares_of_the_largest_deviation(self, spread, are_alike):
        model = WeightFlow("geometric", velocity=SMALL, **QUICK).fit(self.population(spread)).model_
        assert (model.flow.source.units is None) is are_alike
        if are_alike:
            return
        units, x = model.flow.source.units, model.flow.source.sample(4000, torch.Generator().manual_seed(0))
        small = [0, 1, 2, 12]
        assert (np.delete(units.numpy(), small) == 1).all()
        spheres = [rows for manifold, rows in model.geometry.manifold.factors if isinstance(manifold, Sphere)]
        deviations = model.flow.source.displacement(x).square().mean(0)
        copies = torch.cat([deviations[rows].sum(1).sqrt() for rows in spheres])
        torch.testing.assert_close(units[small], (copies.min() / copies.max()).expand(4), rtol=0.03, atol=0)
        # the network sees them vary as it sees the others
        seen = model.velocity._in_units(x).var(0)
        shown = torch.cat([seen[rows].sum(1).sqrt() for rows in spheres])
        assert shown[copies.argmin()] > 0.8 * shown.max()

    def test_a_model_file_keeps_them(self, tmp_path):
        flow = WeightFlow("geometric", velocity=SMALL, task=TASK, **QUICK).fit(self.population(1e-4))
        wsflow.save_model(flow, tmp_path / "flow.st")
        loaded = wsflow.load_model(tmp_path / "flow.st")
        np.testing.assert_array_equal(loaded.sample(3, random_state=0), flow.sample(3, random_state=0))

    @pytest.mark.slow
    @pytest.mark.parametrize("geometry", ["euclidean", "geometric"])
    @pytest.mark.parametrize("task", [None, TASK])
    @pytest.mark.parametrize("spread", [1e-3, 1e-5])
    def test_samples_vary_as_they_do(self, geometry, task, spread):
        population = self.population(spread, 300)
        velocity = NeuronTransformer(32, 2, 2)
        flow = WeightFlow(geometry, task=task, velocity=velocity, max_iter=300, random_state=0).fit(population)
        ratios = flow.sample(1000, random_state=1).std(0) / population.std(0)
        assert (ratios > 0.8).all() and (ratios < 1.25).all()
