"""Evidence: barriers, predictions, novelty and dispersion in closed form, and the report that joins them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wsflow.architecture import Architecture
from wsflow.evaluation.barrier import fixed_pairs, loss_barrier, midpoint_barrier
from wsflow.evaluation.calibration import brier_score, expected_calibration_error, negative_log_likelihood
from wsflow.evaluation.embedding import align, canonical, embed, mean_reference
from wsflow.evaluation.measures import measure_average
from wsflow.evaluation.nearest_neighbours import NearestDistances, nearest_distances
from wsflow.evaluation.novelty import dispersion, novelty, novelty_of
from wsflow.evaluation.pareto import TOLERANCE
from wsflow.evaluation.predictive import chunked_outputs, predict
from wsflow.evaluation.report import Report, evaluate
from wsflow.evaluation.verdict import null_wins, verdict_on_samples
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.symmetry.actions import Action
from wsflow.task import Task
from wsflow.weights import WeightArray

WIDTHS = [4, 6, 5, 3]


def networks(n: int, activation: str = "relu", seed: int = 0, first_run: int = 0, widths=WIDTHS) -> WeightArray:
    """Networks around a common centre, so that they may be aligned."""
    architecture = Architecture.mlp(widths, activation)
    centre = np.random.default_rng(1).standard_normal(architecture.n_weights)
    rows = centre + 0.7 * np.random.default_rng([seed, 2]).standard_normal((n, architecture.n_weights))
    return WeightArray(rows, architecture, runs=np.arange(first_run, first_run + n))


def classification(b: int = 40, seed: int = 0) -> Task:
    rng = np.random.default_rng(seed)
    parts = [Task(rng.standard_normal((b, 4)), rng.integers(3, size=b)) for _ in range(2)]
    return Task(parts[0].X, parts[0].y, test=parts[1])


def moved(weights: WeightArray, seed: int = 0, log_scale: float = 1.0) -> WeightArray:
    """Other representatives of the same functions."""
    generator = torch.Generator().manual_seed(seed)
    return Action.random(weights.architecture, len(weights), generator, log_scale)(weights)


TASK = classification()
TRAIN, HELD_OUT = networks(60), networks(20, seed=1, first_run=60)


class TestBarrier:
    def test_a_quadratic_loss_has_its_closed_form(self):
        line = Architecture.mlp([1, 1])
        a, b = WeightArray([[0.0, 0.0], [1.0, 0.0]], line), WeightArray([[2.0, 0.0], [4.0, 0.0]], line)
        task = Task(np.ones((3, 1)), np.zeros(3), loss="mse")
        # a convex L = w^2 has excess -t (1 - t) (b - a)^2, largest nearest to the ends
        np.testing.assert_allclose(midpoint_barrier(a, b, task), [-1.0, -9 / 4], atol=1e-6)
        np.testing.assert_allclose(loss_barrier(a, b, task, n_points=3), [-3 / 4, -27 / 16], atol=1e-6)

    def test_swapped_neurons_make_a_barrier(self):
        weights = networks(1)
        swap = Action(weights.architecture, {"hidden1": torch.tensor([[1, 0, 3, 2, 5, 4]])}, {})
        assert midpoint_barrier(weights, weights, TASK) == pytest.approx(0, abs=1e-6)
        assert abs(midpoint_barrier(weights, swap(weights), TASK)) > 1e-3

    def test_it_is_symmetric_and_the_midpoint_is_one_of_the_points(self):
        a, b = networks(5), networks(5, seed=3)
        np.testing.assert_allclose(loss_barrier(a, b, TASK, 5), loss_barrier(b, a, TASK, 5), atol=1e-5)
        assert (loss_barrier(a, b, TASK, 5) >= midpoint_barrier(a, b, TASK) - 1e-6).all()

    @given(st.lists(st.integers(0, 5), min_size=2, max_size=40), st.integers(1, 100))
    def test_pairs_are_distinct_and_of_different_runs(self, runs, n_pairs):
        runs = np.array(runs)
        possible = sum(runs[i] != runs[j] for i in range(len(runs)) for j in range(i))
        if len(set(runs)) < 2:
            with pytest.raises(InvalidInputError, match="at least 2 runs"):
                fixed_pairs(runs, n_pairs)
            return
        pairs = fixed_pairs(runs, n_pairs)
        assert len(pairs) == min(possible, n_pairs)
        assert (runs[pairs[:, 0]] != runs[pairs[:, 1]]).all()
        assert len({frozenset(pair) for pair in pairs.tolist()}) == len(pairs)
        np.testing.assert_array_equal(pairs, fixed_pairs(runs, n_pairs))

    def test_few_pairs_of_many_runs_share_no_network(self):
        assert len(np.unique(fixed_pairs(np.arange(2000), 200))) == 400

    def test_errors_are_sentences(self):
        with pytest.raises(ValueError, match="'n_points' of loss_barrier"):
            loss_barrier(TRAIN, TRAIN, TASK, n_points=0)
        with pytest.raises(InvalidInputError, match="pairs of networks"):
            loss_barrier(TRAIN, HELD_OUT, TASK)


class TestPredictive:
    def test_it_agrees_with_scikit_learn(self):
        from sklearn.metrics import accuracy_score, log_loss, r2_score

        said = predict(TRAIN, TASK)
        outputs = torch.cat(list(chunked_outputs(TRAIN, TASK.X))).double()
        probabilities = outputs.softmax(-1).numpy()
        assert said.scores[3] == pytest.approx(accuracy_score(TASK.y, probabilities[3].argmax(1)))
        assert said.losses[3] == pytest.approx(log_loss(TASK.y, probabilities[3], labels=range(3)), rel=1e-5)
        average = measure_average(said.average, TASK)
        assert average["nll"] == pytest.approx(log_loss(TASK.y, probabilities.mean(0), labels=range(3)), rel=1e-5)
        task = Task(TASK.X, np.random.default_rng(0).standard_normal((40, 3)), loss="mse")
        r2 = measure_average(predict(TRAIN, task).average, task)["r2"]
        expected = r2_score(task.y, outputs.numpy().mean(0), multioutput="variance_weighted")
        assert r2 == pytest.approx(expected, rel=1e-5)
        assert np.isnan(predict(TRAIN, task).jsd)

    def test_probabilities_are_averaged_and_not_logits(self):
        # one sure network and one that knows nothing: the mean of probabilities is .75, that of logits nearly 1
        line = Architecture.mlp([1, 2])
        sure, blank = [0.0, 0.0, 40.0, 0.0], [0.0, 0.0, 0.0, 0.0]
        said = predict(WeightArray([sure, blank], line), Task(np.ones((1, 1)), [0]))
        np.testing.assert_allclose(said.average, [[0.75, 0.25]], atol=1e-6)

    def test_diversity_of_opposite_certainties_is_log_2_and_of_copies_zero(self):
        line = Architecture.mlp([1, 2])
        rows = [[0.0, 0.0, 90.0, 0.0], [0.0, 0.0, 0.0, 90.0]]
        task = Task(np.ones((2, 1)), [0, 1])
        assert predict(WeightArray(rows, line), task).jsd == pytest.approx(np.log(2), abs=1e-6)
        assert predict(WeightArray([rows[0]] * 3, line), task).jsd == pytest.approx(0, abs=1e-7)

    def test_chunks_change_nothing(self, monkeypatch):
        whole = predict(TRAIN, TASK)
        monkeypatch.setattr("wsflow.evaluation.predictive.CHUNK_NUMBERS", 1)
        parts = predict(TRAIN, TASK)
        np.testing.assert_allclose(parts.losses, whole.losses, rtol=1e-5)
        np.testing.assert_allclose(parts.average, whole.average, atol=1e-6)
        assert parts.jsd == pytest.approx(whole.jsd, abs=1e-6)

    def test_scores_of_probabilities_in_closed_form(self):
        p, y = np.array([[0.8, 0.2], [0.4, 0.6]]), np.array([0, 0])
        assert brier_score(p, y) == pytest.approx((2 * 0.04 + 2 * 0.36) / 2)
        assert negative_log_likelihood(p, y) == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)
        # .8 is right and .6 wrong, in bins of their own
        assert expected_calibration_error(p, y) == pytest.approx((0.2 + 0.6) / 2)
        # in one bin their errors cancel partly: accuracy 1/2, confidence .7
        assert expected_calibration_error(p, y, n_bins=1) == pytest.approx(0.2)

    def test_a_calibrated_forecast_has_no_calibration_error(self):
        p = np.repeat([[0.75, 0.25]], 8, axis=0)
        assert expected_calibration_error(p, np.array([0, 0, 0, 1] * 2)) == pytest.approx(0)
        assert expected_calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0

    def test_a_probability_of_zero_is_a_finite_loss(self):
        assert np.isfinite(negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([1])))

    def test_another_task_is_refused(self):
        with pytest.raises(InvalidInputError, match="4 inputs and 3 outputs"):
            predict(TRAIN, Task(np.ones((2, 5)), [0, 1]))
        with pytest.raises(InvalidInputError, match="no network"):
            predict(TRAIN[:0], TASK)


class TestNovelty:
    @pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
    @pytest.mark.parametrize("disguise", [False, True])
    def test_copies_have_novelty_zero_however_they_are_disguised(self, activation, disguise):
        train, held_out = networks(60, activation), networks(20, activation, seed=1, first_run=60)
        copies = moved(train[:25]) if disguise else train[:25]
        found = novelty(copies, train, held_out, TASK)
        assert found.value == pytest.approx(0, abs=1e-5) and found.q05 == pytest.approx(0, abs=1e-5)
        assert found.weights == pytest.approx(0, abs=1e-9)
        assert (found.copies, found.copies_weights, found.copies_function) == (1, 1, 1)

    @pytest.mark.parametrize("disguise", [False, True])
    def test_held_out_networks_have_novelty_and_dispersion_one(self, disguise):
        samples = moved(HELD_OUT) if disguise else HELD_OUT
        found, apart = novelty(samples, TRAIN, HELD_OUT, TASK), dispersion(samples, HELD_OUT, TASK)
        values = [found.value, found.q05, found.weights, found.function, apart.value, apart.weights, apart.function]
        # a matching from another start may end in another local optimum
        np.testing.assert_allclose(values, 1, rtol=0.02 if disguise else 1e-12)
        assert found.copies <= 2 / len(HELD_OUT)

    def test_noise_that_the_function_does_not_see_is_caught_by_function(self):
        blind = TASK.X * [1, 1, 1, 0]
        task = Task(blind, TASK.y)
        copies = np.array(TRAIN[:20])
        columns = TRAIN.architecture.slices["0.weight"].start + np.arange(3, 24, 4)
        copies[:, columns] += 5 * np.random.default_rng(0).standard_normal((20, 6))
        found = novelty(WeightArray(copies, TRAIN.architecture), TRAIN, HELD_OUT, task)
        assert found.weights > 0.8
        assert found.function == pytest.approx(0, abs=1e-4) and found.value == found.function
        assert found.copies == 1

    def test_half_copies_show_in_the_quantile_and_the_share_not_in_the_mean(self):
        near, far = np.full(10, 0.01), np.full(10, 2.0)
        samples, held_out = np.concatenate([near, far]), np.ones(20)
        found = novelty_of(NearestDistances(samples, samples), NearestDistances(held_out, held_out))
        assert found.value > 1
        assert found.q05 == pytest.approx(0.01) and found.copies == 0.5

    def test_a_distance_that_held_out_networks_lack_does_not_count(self):
        found = novelty_of(NearestDistances(np.ones(4), np.ones(4)), NearestDistances(np.full(4, 2.0), np.zeros(4)))
        assert np.isnan(found.function) and found.value == 0.5

    def test_collapsed_samples_have_no_dispersion(self):
        copies = WeightArray(np.repeat(np.array(TRAIN[:1]), 9, axis=0), TRAIN.architecture)
        assert dispersion(copies, HELD_OUT, TASK).value == pytest.approx(0, abs=1e-6)

    def test_candidates_find_the_nearest_that_matching_all_finds(self):
        reference = mean_reference(TRAIN)
        points, known = (embed(w, TASK, reference) for w in (HELD_OUT, TRAIN))
        few, every = nearest_distances(points, known), nearest_distances(points, known, candidates=len(TRAIN))
        np.testing.assert_allclose(few.function, every.function, rtol=1e-6)
        assert (few.weights >= every.weights - 1e-9).all()
        assert few.weights.mean() <= 1.05 * every.weights.mean()

    def test_alignment_keeps_functions_and_gathers_an_orbit(self):
        orbit = moved(WeightArray(np.repeat(np.array(TRAIN[:1]), 8, axis=0), TRAIN.architecture))
        gathered = align(canonical(orbit), canonical(TRAIN[:1])[0], TRAIN.architecture)
        assert (gathered - gathered[0]).abs().max() < 1e-10
        outputs = [next(chunked_outputs(w, TASK.X)) for w in (orbit, orbit.like(gathered.numpy()))]
        torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-3)

    def test_networks_without_hidden_neurons_have_a_novelty_too(self):
        train, held_out = networks(9, widths=[4, 3]), networks(5, seed=1, first_run=9, widths=[4, 3])
        assert novelty(train[:3], train, held_out, TASK).value == pytest.approx(0, abs=1e-6)
        assert novelty(held_out, train, held_out, TASK).value == 1

    def test_runs_that_were_trained_on_are_not_held_out(self):
        with pytest.raises(InvalidInputError, match="also in training"):
            novelty(HELD_OUT, TRAIN, TRAIN[:5], TASK)


@pytest.fixture(scope="module")
def report() -> Report:
    return evaluate(networks(30, seed=5), TRAIN, HELD_OUT, TASK)


class TestReport:
    def test_training_networks_are_copies_and_held_out_ones_the_measure(self, report):
        assert report.training["novelty"] == pytest.approx(0, abs=1e-6)
        assert report.training["copies"] == 1
        assert report.training["dispersion"] == pytest.approx(1, abs=0.2)
        assert report.held_out["novelty"] == report.held_out["dispersion"] == 1
        assert report.nulls["resampling"]["novelty"] == pytest.approx(0, abs=1e-6)
        assert report.nulls["mean"]["dispersion"] == pytest.approx(0, abs=1e-5)

    def test_samples_of_the_same_law_are_as_new_and_as_different(self, report):
        assert report.samples["novelty"] == pytest.approx(1, abs=0.15)
        assert report.samples["dispersion"] == pytest.approx(1, abs=0.15)

    def test_it_is_json_with_the_headline_numbers_in_every_row(self, report):
        data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
        rows = [data["training"], data["samples"], data["held_out"], *data["nulls"].values()]
        assert all({"accuracy", "loss", "novelty", "dispersion"} <= set(row) for row in rows)
        assert set(data["barrier"]) == {"before", "after", "ratio"}
        assert report.headline == ("accuracy", "loss", "novelty", "dispersion")

    def test_it_keeps_what_a_figure_needs(self, report):
        assert report.predictive["samples"].scores.shape == (30,)
        assert report.predictive["training"].losses.shape == (60,)
        assert report.nearest["held_out"].weights.shape == (20,)
        assert report.barriers["before"].mean() == pytest.approx(report.barrier["before"])

    def test_representatives_do_not_matter(self, report):
        other = evaluate(moved(networks(30, seed=5)), TRAIN, moved(HELD_OUT, 1), TASK, nulls=False)
        for name in ("accuracy", "loss", "novelty_function", "dispersion_function"):
            assert other.samples[name] == pytest.approx(report.samples[name], rel=1e-4)
        assert other.samples["novelty"] == pytest.approx(report.samples["novelty"], rel=0.05)

    def test_nulls_can_be_made_in_the_coordinates_of_a_flow(self, report):
        scaled = TRAIN.like(np.array(TRAIN) * np.linspace(0.5, 2, TRAIN.shape[1]))
        other = evaluate(networks(30, seed=5), TRAIN, HELD_OUT, TASK, nulls=scaled)
        mean = WeightArray(np.array(scaled).mean(0, keepdims=True), scaled.architecture)
        assert other.nulls["mean"]["loss"] == pytest.approx(predict(mean, TASK.held_out).losses.mean(), rel=1e-5)
        assert other.nulls["mean"]["loss"] != pytest.approx(report.nulls["mean"]["loss"], rel=1e-2)
        assert other.nulls.keys() == report.nulls.keys() and other.samples == report.samples

    @pytest.mark.parametrize("nulls", [networks(5, widths=[4, 3]), None, np.zeros((5, 23))])
    def test_nulls_of_something_else_are_refused(self, nulls):
        with pytest.raises(InvalidInputError, match=r"Nulls are made of training networks, .*transform"):
            evaluate(TRAIN[:5], TRAIN, HELD_OUT, TASK, nulls=nulls)

    def test_alignment_lowers_the_barriers_of_shuffled_networks(self):
        # shuffled networks that are all near one that solves the task
        close = networks(1)
        solved = Task(TASK.X, next(chunked_outputs(close, TASK.X))[0].argmax(-1).numpy())
        rows = np.array(close) + 0.05 * np.random.default_rng(0).standard_normal((40, close.shape[1]))
        train = moved(WeightArray(rows, close.architecture), log_scale=0.0)
        with pytest.warns(UserWarning, match="3 outputs, but the task has examples of 2 classes only"):
            report = evaluate(TRAIN[:5], train, HELD_OUT, solved, nulls=False)
        assert report.barrier["ratio"] < 0.1 and report.barrier["before"] > 0.1

    def test_the_same_seed_gives_the_same_report_and_global_state_is_left_alone(self, report):
        state = torch.get_rng_state(), np.random.get_state()[1].copy()
        again = evaluate(networks(30, seed=5), TRAIN, HELD_OUT, TASK)
        assert again.to_dict() == report.to_dict()
        assert torch.equal(state[0], torch.get_rng_state())
        assert (state[1] == np.random.get_state()[1]).all()

    def test_progress_counts_to_the_end(self):
        steps = []
        evaluate(TRAIN[:5], TRAIN, HELD_OUT, TASK, progress=lambda done, total: steps.append((done, total)))
        assert [done for done, _ in steps] == list(range(1, steps[0][1] + 1))

    def test_samples_that_are_not_finite_are_counted_and_named(self):
        rows = np.array(networks(6, seed=5))
        rows[2, 0] = np.nan
        report = evaluate(WeightArray(rows, TRAIN.architecture), TRAIN, HELD_OUT, TASK, nulls=False)
        assert (report.counts["samples"], report.counts["not_finite"]) == (5, 1)
        assert any("rows 2" in sentence for sentence in report.verdict)
        with pytest.raises(NumericalError, match="None of the 6 samples"):
            evaluate(WeightArray(rows * np.nan, TRAIN.architecture), TRAIN, HELD_OUT, TASK)

    def test_runs_are_held_out_where_none_are_given(self):
        report = evaluate(TRAIN[:5], TRAIN, None, TASK, nulls=False)
        assert report.counts["held_out_runs"] == 12 and report.counts["training_runs"] == 48
        assert any("No held-out runs were given" in sentence for sentence in report.verdict)
        single = WeightArray(TRAIN, TRAIN.architecture, runs=np.zeros(60))
        with pytest.raises(InvalidInputError, match=r"of 1 run\(s\)"):
            evaluate(TRAIN[:5], single, None, TASK)

    def test_one_sample_has_no_dispersion(self):
        report = evaluate(TRAIN[:1], TRAIN, HELD_OUT, TASK, nulls=False)
        assert np.isnan(report.samples["dispersion"]) and report.to_dict()["samples"]["dispersion"] is None
        assert any("Dispersion is undefined" in sentence for sentence in report.verdict)

    def test_a_regression_reports_r2(self):
        rng = np.random.default_rng(0)
        task = Task(rng.standard_normal((30, 4)), rng.standard_normal((30, 3)), loss="mse")
        report = evaluate(TRAIN[:5], TRAIN, HELD_OUT, task, nulls=False)
        assert report.headline[0] == "r2" and "accuracy" not in report.samples
        assert any("no held-out data" in sentence for sentence in report.verdict)

    def test_bad_input_is_named(self):
        broken = TRAIN.copy()
        broken[3, 1] = np.inf
        with pytest.raises(InvalidInputError, match="row 3"):
            evaluate(TRAIN[:5], broken, HELD_OUT, TASK)
        with pytest.raises(InvalidInputError, match="one architecture"):
            evaluate(networks(5, "tanh"), TRAIN, HELD_OUT, TASK)
        with pytest.raises(InvalidInputError, match="of one run"):
            evaluate(TRAIN[:5], TRAIN, HELD_OUT[:1], TASK)


class TestVerdict:
    good = {"accuracy": 0.95, "loss": 0.15, "novelty": 1.0, "novelty_q05": 1.0, "copies": 0.01, "dispersion": 1.0}
    counts = {"training_runs": 2000, "held_out": 300}

    def say(self, samples, nulls=None, **counts):
        return " ".join(verdict_on_samples(samples, nulls or {}, self.counts | counts, "accuracy", 802))

    def test_honest_samples_are_new_and_no_null_reaches_them(self):
        nulls = {
            "gaussian_full": self.good | {"accuracy": 0.9},
            "mean": self.good | {"accuracy": 1.0, "dispersion": 0.0},
        }
        text = self.say(self.good, nulls)
        assert "Samples are new" in text and "No null reaches" in text and "gaussian_full" in text
        assert "copies" not in text and "collapse" not in text and "more runs" not in text

    @pytest.mark.parametrize("key, value", [("novelty", 0.2), ("novelty_q05", 0.1)])
    def test_copies_are_called_copies(self, key, value):
        assert "Samples are copies" in self.say(self.good | {key: value})

    def test_a_share_of_likely_copies_is_told(self):
        assert "Not all samples are new: 20% of them are likely copies" in self.say(self.good | {"copies": 0.2})
        assert "Most samples are copies: 60% of them are likely copies" in self.say(self.good | {"copies": 0.6})
        assert "Too few networks are held out (20)" in self.say(self.good | {"copies": 0.2}, held_out=20)

    @pytest.mark.parametrize("held_out", [5, 20, 99, 100, 1000])
    @pytest.mark.parametrize("copies", [0.06, 0.13, 0.3, 0.51, 0.6, 1.0])
    def test_samples_of_which_many_are_copies_are_not_called_new(self, copies, held_out):
        """They are if so many of newly trained networks would be as near by chance, once in 20 times."""
        text = self.say(self.good | {"copies": copies}, held_out=held_out)
        by_chance = held_out < 100 and (1 - copies) ** held_out > 0.05
        assert ("Samples are new" in text) == by_chance
        assert by_chance or f"{copies:.0%} of them" in text
        assert by_chance or ("Most samples" in text) == (copies > 0.5)

    def test_collapse_is_called_collapse(self):
        assert "collapse" in self.say(self.good | {"dispersion": 0.3})

    def test_a_null_that_is_as_good_wins(self):
        nulls = {"noise 0.1": self.good | {"novelty": 0.1}, "gaussian_full": self.good | {"loss": 0.1}}
        assert null_wins(nulls, self.good) == ["gaussian_full"]
        assert "A null wins: gaussian_full has accuracy 0.950 and loss 0.100" in self.say(self.good, nulls)

    def test_a_null_wins_only_on_both_and_within_the_tolerance(self):
        nulls = {
            "worse loss": self.good | {"loss": 0.2},
            "worse score": self.good | {"accuracy": 0.9},
            "within": self.good | {"novelty": 1 - 0.9 * TOLERANCE},
            "beyond": self.good | {"novelty": 1 - 1.1 * TOLERANCE},
        }
        assert null_wins(nulls, self.good) == ["within"]

    def test_few_runs_are_the_first_advice(self):
        assert verdict_on_samples(self.good, {}, self.counts | {"training_runs": 100}, "accuracy", 802)[0].startswith(
            "Train more runs first"
        )
