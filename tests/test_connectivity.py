"""Lines between networks: closed forms of quadratic losses, exact ends, and what the shape of a path says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsflow import Architecture, PermutationAligner, Task, WeightArray, interpolate, loss_barrier
from wsflow.evaluation import connectivity
from wsflow.evaluation.barrier import barrier_matrix, midpoint_barrier
from wsflow.evaluation.connectivity import LossPath, chord, loss_path
from wsflow.evaluation.predictive import predict
from wsflow.exceptions import InvalidInputError
from wsflow.symmetry.actions import Action

LINE = Architecture.mlp([1, 1])
SQUARE = Task(np.ones((3, 1)), np.zeros(3), loss="mse")  # of the networks (w, 0): L = w^2
curves = arrays(np.float64, st.integers(3, 30), elements=st.floats(-10, 10))


def points(*values: float) -> WeightArray:
    return WeightArray(np.array([[value, 0.0] for value in values]), LINE)


def networks(n: int, widths: tuple[int, ...] = (4, 6, 3), seed: int = 0, dtype: type = np.float64) -> WeightArray:
    architecture = Architecture.mlp(widths)
    rng = np.random.default_rng(seed)
    return WeightArray(rng.standard_normal((n, architecture.n_weights)).astype(dtype), architecture)


def classification(b: int = 60) -> Task:
    rng = np.random.default_rng(1)
    return Task(rng.standard_normal((b, 4)), rng.integers(3, size=b))


class TestInterpolate:
    @given(st.floats(-1, 2), st.integers(1, 4))
    def test_it_is_the_convex_combination(self, t, n):
        a, b = networks(n), networks(n, seed=1)
        np.testing.assert_allclose(interpolate(a, b, t), (1 - t) * np.asarray(a) + t * np.asarray(b), atol=1e-14)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_ends_and_equal_networks_are_met_exactly(self, dtype):
        a, b = networks(3, dtype=dtype), networks(3, seed=1, dtype=dtype)
        np.testing.assert_array_equal(interpolate(a, b, 0), a)
        np.testing.assert_array_equal(interpolate(a, b, 1), b)
        np.testing.assert_array_equal(interpolate(a, a, 0.3), a)
        assert interpolate(a, b, 0.3).dtype == dtype

    def test_several_t_go_pair_by_pair(self):
        a, b = networks(3), networks(3, seed=1)
        t = [0.0, 0.25, 1.0]
        rows = np.asarray(interpolate(a, b, t)).reshape(3, 3, -1)
        for i, place in enumerate(t):
            np.testing.assert_array_equal(rows[:, i], interpolate(a, b, place))
        assert interpolate(a, b, t).runs.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]

    def test_one_network_goes_with_many(self):
        a, b = networks(1), networks(3, seed=1)
        np.testing.assert_allclose(interpolate(a, b, 0.5), (np.asarray(a) + np.asarray(b)) / 2)
        np.testing.assert_allclose(interpolate(b, a, 0.5), interpolate(a, b, 0.5))

    def test_errors_are_sentences(self):
        with pytest.raises(InvalidInputError, match="fixed_pairs"):
            interpolate(networks(2), networks(3), 0.5)
        with pytest.raises(InvalidInputError, match="one architecture"):
            interpolate(networks(2), networks(2, (4, 5, 3)), 0.5)
        with pytest.raises(InvalidInputError, match="'t' of interpolate"):
            interpolate(networks(2), networks(2), [0.5, np.nan])


class TestLossPath:
    @given(st.floats(-3, 3), st.floats(-3, 3), st.integers(1, 30))
    def test_a_quadratic_loss_has_its_closed_form(self, a, b, n_points):
        path = loss_path(points(a), points(b), SQUARE, n_points)
        t = np.linspace(0, 1, n_points + 2)
        np.testing.assert_allclose(path.losses[0], ((1 - t) * a + t * b) ** 2, atol=1e-12)
        np.testing.assert_allclose(path.excess[0], -t * (1 - t) * (b - a) ** 2, atol=1e-12)
        np.testing.assert_allclose(path.barrier, (-t * (1 - t) * (b - a) ** 2)[1:-1].max(), atol=1e-12)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_a_network_has_no_barrier_to_itself(self, dtype):
        weights = networks(7, (4, 33, 17, 3), dtype=dtype)
        path = loss_path(weights, weights, classification())
        assert np.abs(path.excess).max() <= 1e-12
        assert np.abs(path.barrier).max() <= 1e-12 and np.abs(path.score_barrier).max() <= 1e-12

    def test_its_losses_and_accuracies_are_those_of_the_networks_on_the_line(self):
        a, b, task = networks(4), networks(4, seed=1), classification()
        path = loss_path(a, b, task, n_points=3)
        for i, t in enumerate(path.t):
            said = predict(interpolate(a, b, t), task)
            np.testing.assert_allclose(path.losses[:, i], said.losses, rtol=1e-5)
            np.testing.assert_allclose(path.scores[:, i], said.scores, atol=1e-6)

    def test_chunks_change_nothing(self, monkeypatch):
        a, b, task = networks(5), networks(5, seed=1), classification()
        whole = loss_path(a, b, task, 9)
        monkeypatch.setattr(connectivity, "CHUNK_NUMBERS", 7 * a.shape[1])
        seen = []
        parts = loss_path(a, b, task, 9, progress=lambda done, total: seen.append((done, total)))
        np.testing.assert_allclose(parts.losses, whole.losses, rtol=1e-14)
        assert seen[-1] == (55, 55) and len(seen) == 9

    def test_pairs_are_rows_of_both(self):
        weights, task = networks(4), classification()
        path = loss_path(weights, weights, task, 5, pairs=[[0, 1], [3, 2]])
        expected = loss_path(weights[[0, 3]], weights[[1, 2]], task, 5)
        np.testing.assert_allclose(path.losses, expected.losses, rtol=1e-14)

    def test_a_path_backwards_has_the_same_barrier(self):
        a, b, task = networks(5), networks(5, seed=1), classification()
        there, back = loss_path(a, b, task, 25), loss_path(b, a, task, 25)
        np.testing.assert_allclose(there.losses, back.losses[:, ::-1], rtol=1e-12)
        np.testing.assert_allclose(there.barrier, loss_barrier(b, a, task), rtol=1e-12)
        assert (there.barrier >= midpoint_barrier(a, b, task) - 1e-12).all()

    def test_a_hill_between_two_valleys(self):
        t = np.linspace(0, 1, 5)
        path = LossPath(t, np.array([[0, 1, 3, 2, 1.0]]), np.array([[1, 0.6, 0.2, 0.5, 0.8]]))
        assert path.barrier == 2.5 and path.score_barrier == pytest.approx(0.7)
        assert path.largest_increase == 3 and not path.is_monotonic
        summary = path.summary()
        assert summary["barrier"] == 2.5 and summary["monotonic"] == summary["below_chord"] == 0

    def test_a_regression_without_spread_has_no_r2(self):
        assert np.isnan(loss_path(points(1.0), points(2.0), SQUARE, 1).scores).all()

    def test_errors_are_sentences(self):
        weights, task = networks(3), classification()
        with pytest.raises(ValueError, match="'n_points' of loss_path"):
            loss_path(weights, weights, task, 0)
        with pytest.raises(InvalidInputError, match="no pair"):
            loss_path(weights[:0], weights[:0], task)
        with pytest.raises(InvalidInputError, match="inputs"):
            loss_path(weights, weights, Task(np.eye(3), [0, 1, 2]))


class TestMatrix:
    def test_it_is_the_barrier_of_each_pair(self):
        weights, task = networks(4), classification()
        matrix = barrier_matrix(weights, task, 5)
        for i in range(4):
            for j in range(4):
                expected = loss_barrier(weights[[i]], weights[[j]], task, 5)
                np.testing.assert_allclose(matrix.losses[i, j], expected[0], atol=1e-12)
        np.testing.assert_array_equal(matrix.scores, matrix.scores.T)

    def test_other_networks_have_columns_of_their_own(self):
        rows, columns, task = networks(2), networks(3, seed=1), classification()
        matrix = barrier_matrix(rows, task, 3, others=columns)
        assert matrix.losses.shape == (2, 3) and not matrix.symmetric
        expected = loss_path(rows[[1]], columns[[2]], task, 3)
        np.testing.assert_allclose(matrix.losses[1, 2], expected.barrier[0], rtol=1e-12)
        np.testing.assert_allclose(matrix.scores[1, 2], expected.score_barrier[0], rtol=1e-12)

    def test_aligning_lowers_planted_barriers_to_nothing(self, generator):
        one, task = networks(1), classification()
        orbit = WeightArray(np.repeat(np.asarray(one), 4, 0), one.architecture)
        moved = Action.random(orbit.architecture, 4, generator, log_scale=0.0)(orbit)
        assert np.abs(barrier_matrix(moved, task, 5).losses).max() > 0.1
        aligned = PermutationAligner().fit_transform(moved)
        assert np.abs(barrier_matrix(aligned, task, 5).losses).max() < 1e-10

    def test_one_network_makes_no_pair(self):
        with pytest.raises(InvalidInputError, match="at least two"):
            barrier_matrix(networks(1), classification())


def path_of(losses):
    """The path of some losses at times that are evenly spaced."""
    losses = np.atleast_2d(losses)
    return LossPath(np.linspace(0, 1, losses.shape[1]), losses, -losses)


class TestMeasures:
    @given(st.floats(-5, 5), st.floats(0.01, 5), st.integers(3, 40))
    def test_parabolas_are_convex(self, centre, curvature, k):
        t = np.linspace(0, 1, k)
        losses = curvature * (t - centre) ** 2
        path = path_of(losses)
        assert path.local_convexity == path.global_convexity == 1
        # it rises from its lowest point on the grid to the right end
        rise = max(0.0, losses[-1] - losses.min())
        assert path.largest_increase == pytest.approx(rise, abs=1e-12)
        assert path_of(losses[::-1]).largest_increase == pytest.approx(max(0.0, losses[0] - losses.min()), abs=1e-12)

    def test_concave_paths_are_nowhere_convex(self):
        t = np.linspace(0, 1, 21)
        path = path_of(-(t**2))
        assert path.local_convexity == path.global_convexity == 0
        assert path.is_monotonic and not path_of(-((t - 0.5) ** 2)).is_monotonic

    @given(curves)
    def test_the_largest_increase_is_that_of_all_pairs(self, losses):
        pairs = losses[None, :] - losses[:, None]
        expected = max(0.0, np.triu(pairs).max())
        assert path_of(losses).largest_increase == pytest.approx(expected, abs=1e-12)
        assert path_of(losses).is_monotonic == (np.diff(losses) <= 1e-14 * np.abs(losses).max()).all()

    @given(curves)
    def test_a_path_that_is_convex_everywhere_lies_below_its_chord(self, losses):
        convex = np.concatenate([[0.0], np.cumsum(np.sort(np.diff(losses)))])
        assert path_of(convex).local_convexity == 1 and path_of(convex).global_convexity == 1

    @given(curves, st.floats(-3, 3), st.floats(-3, 3))
    def test_barriers_do_not_see_a_slope(self, losses, start, slope):
        t = np.linspace(0, 1, len(losses))
        tilted = losses + start + slope * t
        np.testing.assert_allclose(tilted - chord(tilted), losses - chord(losses), atol=1e-12)

    def test_a_constant_path_is_all_of_it(self):
        flat = path_of(np.full((2, 9), 0.1))
        assert flat.is_monotonic.all() and (flat.local_convexity == 1).all() and (flat.global_convexity == 1).all()
