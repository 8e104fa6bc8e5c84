"""Evidence by sets of networks: copies in disguise, mistakes, recall, two-sample tests, frontiers, detection."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wsflow.architecture import Architecture
from wsflow.evaluation import (
    Evaluator,
    Frontier,
    Report,
    compare_frontiers,
    compute_prdc,
    detect,
    dominates,
    duplicates,
    evaluate,
    foreign,
    frontier,
    max_iou,
    mmd_test,
    null_wins,
)
from wsflow.evaluation.distribution import one_per_run
from wsflow.evaluation.embedding import Embedding
from wsflow.evaluation.iou import intersection_over_union
from wsflow.evaluation.novelty import novelty
from wsflow.evaluation.pareto import Bound
from wsflow.evaluation.prdc import expected_coverage
from wsflow.evaluation.verdict import verdict_on_frontier, verdict_on_mistakes, verdict_on_samples
from wsflow.exceptions import InvalidInputError
from wsflow.symmetry.actions import Action
from wsflow.task import Task
from wsflow.weights import WeightArray

ROW = {"accuracy": 0.9, "loss": 0.2, "novelty": 1.0, "dispersion": 1.0}


def networks(n: int, activation: str = "relu", seed: int = 0, first_run: int = 0) -> WeightArray:
    architecture = Architecture.mlp([4, 6, 5, 3], activation)
    centre = np.random.default_rng(1).standard_normal(architecture.n_weights)
    rows = centre + 0.7 * np.random.default_rng([seed, 2]).standard_normal((n, architecture.n_weights))
    return WeightArray(rows, architecture, runs=np.arange(first_run, first_run + n))


def disguised(weights: WeightArray, seed: int = 0) -> WeightArray:
    """The same functions: permuted, scaled and with other signs."""
    return Action.random(weights.architecture, len(weights), torch.Generator().manual_seed(seed))(weights)


def points(rows: np.ndarray) -> Embedding:
    return Embedding(Architecture.mlp([4, 3]), torch.from_numpy(rows), torch.from_numpy(rows))


RNG = np.random.default_rng(0)
TASK = Task(RNG.standard_normal((60, 4)), RNG.integers(3, size=60))
TRAIN, HELD_OUT = networks(60), networks(30, seed=1, first_run=60)


class TestCopiesInDisguise:
    @pytest.mark.parametrize("activation", ["relu", "tanh", "leaky_relu", "sine", "sigmoid", "relu_power", "gelu"])
    def test_a_planted_copy_has_novelty_zero(self, activation):
        train, held_out = networks(40, activation), networks(20, activation, seed=1, first_run=40)
        found = novelty(disguised(train[:8], seed=3), train, held_out, TASK)
        assert found.weights == pytest.approx(0, abs=1e-8) and found.value == pytest.approx(0, abs=1e-5)
        assert found.copies == 1

    def test_copies_with_a_little_noise_in_disguise_stay_near(self):
        rows = np.array(TRAIN[:10]) + 0.02 * np.random.default_rng(5).standard_normal((10, TRAIN.shape[1]))
        found = novelty(disguised(WeightArray(rows, TRAIN.architecture), seed=3), TRAIN, HELD_OUT, TASK)
        assert found.value < 0.15 and found.copies == 1


class TestMistakes:
    @given(st.integers(0, 2**12 - 1), st.integers(0, 2**12 - 1))
    def test_it_is_that_of_sets(self, a, b):
        left, right = (np.array([[bool(x >> i & 1) for i in range(12)]]) for x in (a, b))
        sets = [set(np.flatnonzero(rows[0])) for rows in (left, right)]
        union = sets[0] | sets[1]
        expected = len(sets[0] & sets[1]) / len(union) if union else 1.0
        assert intersection_over_union(left, right)[0, 0] == pytest.approx(expected, abs=1e-7)

    def test_a_subset_of_the_training_networks_overlaps_fully_and_blocks_change_nothing(self, monkeypatch):
        train = np.random.default_rng(0).random((40, 30)) < 0.3
        others = np.random.default_rng(1).random((9, 30)) < 0.3
        assert (max_iou(train[5:8], train) == 1).all()
        whole = max_iou(others, train)
        assert (whole < 1).all()
        monkeypatch.setattr("wsflow.evaluation.iou.BLOCK_NUMBERS", 70)
        np.testing.assert_array_equal(max_iou(others, train), whole)

    def test_below_the_noise_frontier_is_said_only_where_trained_networks_are_above_it(self):
        noise = Frontier(
            "noise", ("a", "b"), ({"accuracy": 0.9, "loss": 0, "iou": 1.0}, {"accuracy": 0.5, "loss": 0, "iou": 0.2})
        )
        good, poor = {"accuracy": 0.9, "iou": 0.5}, {"accuracy": 0.6, "iou": 0.5}
        # at an overlap of .5 the line has .65
        assert "below the noise frontier" in verdict_on_mistakes(poor, good, noise)
        assert "above the noise frontier" in verdict_on_mistakes(good | {"accuracy": 0.66}, good, noise)
        assert verdict_on_mistakes(poor, poor, noise) == "" == verdict_on_mistakes(poor, good | {"iou": 0.95}, noise)


class TestPRDC:
    @given(st.integers(0, 50), st.integers(1, 4))
    def test_it_is_the_definition(self, seed, k):
        rng = np.random.default_rng(seed)
        real, samples = rng.standard_normal((9, 2)), rng.standard_normal((7, 2)) + 0.5

        def radius(rows: np.ndarray, i: int) -> float:
            return sorted(np.linalg.norm(rows - rows[i], axis=1))[k]

        inside = np.array([[np.linalg.norm(r - s) <= radius(real, i) for s in samples] for i, r in enumerate(real)])
        around = np.array([[np.linalg.norm(r - s) <= radius(samples, j) for j, s in enumerate(samples)] for r in real])
        found = compute_prdc(torch.from_numpy(samples), torch.from_numpy(real), k)
        assert found.precision == pytest.approx(inside.any(0).mean())
        assert found.recall == pytest.approx(around.any(1).mean())
        assert found.density == pytest.approx(inside.sum() / (k * 7))
        assert found.coverage == pytest.approx(inside.any(1).mean())

    def test_one_law_has_density_one_and_the_expected_coverage(self):
        rng = torch.Generator().manual_seed(0)
        found = [compute_prdc(*torch.randn(2, 100, 3, generator=rng), k=3) for _ in range(60)]
        assert np.mean([f.density for f in found]) == pytest.approx(1, abs=0.03)
        assert np.mean([f.coverage for f in found]) == pytest.approx(expected_coverage(100, 100, 3), abs=0.01)

    def test_collapse_keeps_precision_and_loses_coverage(self):
        real = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        found = compute_prdc(real[:1].repeat(50, 1), real)
        assert found.precision == 1 and found.recall <= 0.01 and found.coverage < 0.15

    def test_too_few_points_say_nothing(self):
        assert np.isnan(compute_prdc(torch.zeros(3, 2), torch.zeros(50, 2)).precision)
        with pytest.raises(ValueError, match="positive number of neighbours"):
            compute_prdc(torch.zeros(9, 2), torch.zeros(9, 2), k=0)


class TestTwoSamples:
    def test_the_estimate_is_the_definition(self):
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((5, 2)), rng.standard_normal((7, 2)) + 1

        def mean(a: np.ndarray, b: np.ndarray, same: bool) -> float:
            pairs = [(p, q) for i, p in enumerate(a) for j, q in enumerate(b) if not (same and i == j)]
            return float(np.mean([np.exp(-np.square(p - q).sum() / (2 * 0.8**2)) for p, q in pairs]))

        expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
        found = mmd_test(torch.from_numpy(x), torch.from_numpy(y), torch.Generator(), bandwidth=0.8)
        assert found.mmd2 == pytest.approx(expected, abs=1e-12)

    def test_under_the_hypothesis_p_values_are_uniform(self):
        generator = torch.Generator().manual_seed(0)
        p = [mmd_test(*torch.randn(2, 12, 3, generator=generator), generator, 99).p_value for _ in range(400)]
        # Kolmogorov's distance of 400 uniform values is below .08 with probability .99
        assert np.abs(np.sort(p) - (np.arange(400) + 0.5) / 400).max() < 0.08
        assert np.mean(np.array(p) <= 0.05) < 0.085

    def test_it_sees_a_shift_and_a_change_of_scale(self):
        generator = torch.Generator().manual_seed(0)
        x, y = torch.randn(2, 60, 5, generator=generator)
        assert mmd_test(x, y + 0.7, generator, 199).p_value == 1 / 200
        assert mmd_test(x, 0.5 * y, generator, 199).p_value == 1 / 200

    def test_equal_points_are_no_error_and_one_point_is(self):
        assert mmd_test(torch.zeros(4, 2), torch.zeros(5, 2), torch.Generator(), 49).p_value == 1
        with pytest.raises(InvalidInputError, match="2 points"):
            mmd_test(torch.zeros(1, 2), torch.zeros(5, 2), torch.Generator())

    def test_one_network_of_each_run_the_last(self):
        found = one_per_run(points(np.arange(12.0).reshape(6, 2)), np.array([3, 3, 1, 1, 1, 2]))
        assert found.weights[:, 0].tolist() == [2, 8, 10]


class TestFrontiers:
    cold = {"accuracy": 0.98, "loss": 0.06, "novelty": 0.8, "dispersion": 0.5}
    curve = Frontier("gaussian", ("cold", "hot"), (cold, ROW))

    def test_between_two_levels_it_is_a_line(self):
        found = self.curve.at(novelty=0.9, dispersion=0.6, tolerance=0)
        # novelty .9 is reached half-way, dispersion .6 before that
        assert found == pytest.approx({"accuracy": 0.94, "loss": 0.13, "novelty": 0.9, "dispersion": 0.75})
        assert self.curve.at(1.0, 1.0, tolerance=0) == ROW
        assert self.curve.at(1.1, 1.0, tolerance=0) is None

    def test_a_curve_wins_between_its_levels_where_no_level_does(self):
        samples = {"accuracy": 0.93, "loss": 0.15, "novelty": 0.9, "dispersion": 0.75}
        assert null_wins({"cold": self.cold, "hot": ROW}, samples) == []
        assert null_wins({"gaussian": self.curve}, samples) == ["a mixture of cold and hot"]
        text = " ".join(
            verdict_on_samples(
                samples | {"novelty_q05": 1, "copies": 0}, {"gaussian": self.curve}, COUNTS, "accuracy", 9
            )
        )
        assert "A null wins: a mixture of cold and hot has accuracy 0.948 and loss 0.116" in text

    @given(
        st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=4),
        st.tuples(*[st.floats(0, 1)] * 4),
    )
    def test_it_agrees_with_a_fine_grid(self, rows, row):
        keys = ("accuracy", "loss", "novelty", "dispersion")
        curve = Frontier("c", tuple(map(str, range(len(rows)))), tuple(dict(zip(keys, r, strict=True)) for r in rows))
        target = dict(zip(keys, row, strict=True))
        pairs = list(zip(rows[:-1], rows[1:], strict=True)) or [(rows[0], rows[0])]
        t = np.linspace(0, 1, 101)[:, None]
        grid = np.concatenate([(1 - t) * np.array(a) + t * np.array(b) for a, b in pairs])
        signs = np.array([1, -1, 1, 1])
        on_grid = (signs * (grid - np.array(row)) >= 0).all(1)
        found = curve.reaches(target, tolerance=0)
        if on_grid.any():
            assert found is not None and found[1]["accuracy"] >= grid[on_grid][:, 0].max() - 1e-9
        if found is not None:
            point = np.array([found[1][key] for key in keys])
            assert (signs * (point - np.array(row)) >= -1e-9).all()

    def test_two_curves_are_compared_row_by_row(self):
        better = Frontier("flow", ("1",), (ROW | {"accuracy": 0.95},))
        assert dominates(better, self.curve) and not dominates(self.curve, better)
        first, second = compare_frontiers(self.curve, better)
        assert first["ahead"] and first["other"] == {"accuracy": 0.95, "loss": 0.2}
        assert not second["ahead"]
        collapsed = Frontier("mean", ("mean",), (ROW | {"dispersion": 0.0},))
        assert compare_frontiers(better, collapsed)[0]["other"] is None and dominates(better, collapsed)

    def test_a_number_that_does_not_exist_asks_for_nothing(self):
        assert self.curve.best([Bound("novelty", float("nan"))])[1]["accuracy"] == 0.98
        assert Frontier("none", (), ()).best([]) is None

    def test_the_verdict_names_the_levels_at_which_a_null_is_as_good(self):
        own = Frontier("samples", ("t 0.5", "t 1"), (self.cold | {"loss": 0.5}, ROW | {"accuracy": 0.99}))
        said = verdict_on_frontier(own, {"gaussian": self.curve})
        assert (
            "does not lie above every null" in said and "t 0.5 (cold)" in said and said.endswith("above them at t 1.")
        )

    def test_rows_of_a_frontier_are_those_of_the_evaluator(self):
        evaluator = Evaluator.of(TRAIN, HELD_OUT, TASK)
        own = frontier({1.0: networks(9, seed=7), 0.5: networks(9, seed=8)}, evaluator)
        assert own.names == ("temperature 0.5", "temperature 1")
        assert own.rows[1] == evaluator.measure(WeightArray(networks(9, seed=7), TRAIN.architecture)).row


COUNTS = {"training_runs": 2000, "held_out": 300}


@pytest.fixture(scope="module")
def report() -> Report:
    curve = {0.5: networks(10, seed=8), 1.0: networks(10, seed=9)}
    return evaluate(networks(25, seed=5), TRAIN, HELD_OUT, TASK, curve=curve)


class TestReportInFull:
    def test_sections_are_json(self, report):
        data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
        spaces = data["distribution"]["samples"]
        assert set(spaces) == {"weights", "function"} and set(data["distribution"]) == {"samples", "training"}
        assert 0 < spaces["weights"]["p_value"] <= 1 and 0 <= spaces["function"]["coverage"] <= 1
        assert data["frontiers"]["gaussian_full"]["levels"][0] == "mean"
        assert list(data["frontiers"]["samples"]["rows"]) == ["temperature 0.5", "temperature 1"]
        assert "rows" not in data["frontiers"]["noise"], "rows stand among the nulls"

    def test_samples_of_the_same_law_are_not_told_from_held_out_networks(self, report):
        assert report.distribution["samples"]["function"]["p_value"] > 0.01
        # samples that prefer the last class
        biased = networks(25, seed=5)
        biased[:, -1] += 8
        other = evaluate(biased, TRAIN, HELD_OUT, TASK, nulls=False)
        assert other.distribution["samples"]["function"]["p_value"] < 0.01
        assert any("A test tells samples" in sentence for sentence in other.verdict)

    def test_mistakes_of_copies_are_those_of_training_networks(self, report):
        assert report.training["iou"] == report.nulls["resampling"]["iou"] == 1
        assert report.held_out["iou"] < report.nulls["noise 0.02"]["iou"] <= 1

    def test_reliability_sums_to_the_calibration_error(self, report):
        found = report.reliability["samples"]
        known = found.share > 0
        error = (found.share * np.abs(found.accuracy - found.confidence))[known].sum()
        assert error == pytest.approx(report.samples["averaged_ece"]) and found.share.sum() == pytest.approx(1)

    def test_barriers_are_measured_on_a_part_of_many_examples(self, monkeypatch):
        monkeypatch.setattr("wsflow.evaluation.report.BARRIER_EXAMPLES", 20)
        part = np.linspace(0, 59, 20).astype(int)
        few = Task(TASK.X[part], TASK.y[part])
        expected = evaluate(TRAIN[:3], TRAIN, HELD_OUT, few, nulls=False).barrier
        assert evaluate(TRAIN[:3], TRAIN, HELD_OUT, TASK, nulls=False).barrier == pytest.approx(expected, nan_ok=True)

    def test_the_frontier_of_the_samples_is_in_the_verdict(self, report):
        assert any("The frontier of samples" in sentence for sentence in report.verdict)


class TestDetection:
    def test_p_values_of_fresh_scores_are_at_most_uniform(self):
        rng = np.random.default_rng(0)
        p = np.concatenate([foreign(rng.standard_normal(20), rng.standard_normal(99)).p_values for _ in range(200)])
        for level in (0.01, 0.05, 0.2):
            assert (p <= level).mean() == pytest.approx(level, abs=0.25 * level + 0.003)

    def test_ties_and_missing_scores(self):
        found = foreign([0.0, np.nan, 1.0], np.zeros(99), level=0.05)
        np.testing.assert_allclose(found.p_values, [1.0, 0.01, 1.0])
        assert found.flags.tolist() == [False, True, False]

    def test_the_number_of_held_out_networks_bounds_the_level(self):
        with pytest.raises(InvalidInputError, match="needs 99 held-out networks, got 98"):
            foreign([0.0], np.zeros(98), level=0.01)
        with pytest.raises(InvalidInputError, match="not a number"):
            foreign([0.0], [np.nan])

    def test_duplicates_of_training_networks_and_of_each_other_are_found(self):
        fresh = networks(6, seed=9)
        rows = np.concatenate([fresh, disguised(TRAIN[3:4], 1), disguised(fresh[:1], 2)])
        found = duplicates(WeightArray(rows, TRAIN.architecture), TRAIN, HELD_OUT, TASK, level=0.05)
        assert found.flags.tolist() == [True, False, False, False, False, False, True, True]

    def test_both_in_one_call(self):
        odd = TRAIN[:1].like(5 * np.array(TRAIN[:1]))
        found = detect(odd, TRAIN, HELD_OUT, TASK, lambda w: -np.square(w).sum(1), level=0.05)
        assert found["foreign"].flags.all() and not found["duplicate"].flags.any()
        assert set(detect(odd, TRAIN, HELD_OUT, TASK, level=0.05)) == {"duplicate"}
