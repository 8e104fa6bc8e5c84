"""Maps of networks: symmetries move nothing, principal directions are scikit-learn's, and what is found is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex
from sklearn.decomposition import PCA

from wsflow import Architecture, Population, Task, WeightArray
from wsflow.evaluation import network_map, projection
from wsflow.evaluation.embedding import functions_of
from wsflow.evaluation.projection import TRAINING
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.plotting import MapDisplay
from wsflow.plotting.maps import RUN_COLOURS
from wsflow.plotting.style import BLUE, GREEN
from wsflow.symmetry.actions import Action

ARCHITECTURE = Architecture.mlp([4, 5, 3])


def networks(n: int, seed: int = 0, **columns: object) -> WeightArray:
    return WeightArray(np.random.default_rng(seed).standard_normal((n, 43)), ARCHITECTURE, **columns)


def a_task() -> Task:
    rng = np.random.default_rng(1)
    return Task(rng.standard_normal((30, 4)), rng.integers(3, size=30))


class TestMap:
    @pytest.mark.parametrize("space", ["weights", "function"])
    def test_symmetries_move_nothing(self, space, generator):
        weights = networks(20)
        orbit = Action.random(ARCHITECTURE, 20, generator)(weights)
        found = network_map(weights, orbit, a_task(), space=space).points
        # functions are compared in single precision
        # the weights themselves are others
        assert np.abs(np.asarray(orbit) - weights).max() > 0.1
        np.testing.assert_allclose(found["samples"], found[TRAINING], atol=1e-9 if space == "weights" else 1e-4)
        assert found[TRAINING].std() > 0.1

    def test_functions_are_projected_by_their_principal_directions(self):
        weights, others, task = networks(20), networks(5, seed=1), a_task()
        found = network_map(weights, {"others": others}, task, space="function")
        pca = PCA(2).fit(functions_of(weights, task).double().numpy())
        np.testing.assert_allclose(found.points[TRAINING], pca.transform(functions_of(weights, task)), atol=1e-6)
        np.testing.assert_allclose(found.points["others"], pca.transform(functions_of(others, task)), atol=1e-6)
        np.testing.assert_allclose(found.explained, pca.explained_variance_ratio_, rtol=1e-6)

    def test_points_are_as_far_apart_as_networks_of_two_directions(self):
        """Without hidden neurons there are no symmetries, and networks of a plane keep their distances."""
        rng = np.random.default_rng(0)
        plane = WeightArray(rng.standard_normal((10, 2)) @ rng.standard_normal((2, 6)), Architecture.mlp([2, 2]))
        found = network_map(plane)
        for points in (np.asarray(plane), found.points[TRAINING]):
            distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
            np.testing.assert_allclose(distances, np.linalg.norm(plane[:, None] - plane[None], axis=-1), atol=1e-9)
        assert found.explained.sum() == pytest.approx(1)

    def test_snapshots_of_a_run_move_together(self, generator):
        """Each differs by one permutation from a network of a straight line, so the map is of a straight line."""
        start, end = np.asarray(networks(2))
        line = WeightArray(np.linspace(start, end, 9), ARCHITECTURE, runs=np.zeros(9), steps=np.arange(9))
        element = Action.random(ARCHITECTURE, 1, generator, log_scale=0.0)
        moved = line.like(np.concatenate([np.asarray(element(line[[row]])) for row in range(9)]))
        others = networks(20, seed=2)
        known = network_map(others, {"line": line, "moved": moved}).points
        np.testing.assert_allclose(known["moved"], known["line"], atol=1e-9)

    def test_of_many_networks_some_are_drawn(self, monkeypatch):
        monkeypatch.setattr(projection, "DRAWN", 7)
        found = network_map(networks(20), networks(5, seed=1))
        assert {name: len(points) for name, points in found.points.items()} == {TRAINING: 7, "samples": 5}
        assert found.counts == {TRAINING: 20, "samples": 5} and found.runs.tolist() == [0, 3, 6, 9, 12, 15, 19]
        monkeypatch.setattr(projection, "NUMBERS", 43 * 3)
        assert len(network_map(networks(20)).points[TRAINING]) == 3

    def test_networks_that_are_not_finite_are_left_out(self):
        rows = np.array(networks(6))
        rows[2, 0] = np.nan
        found = network_map(networks(20), WeightArray(rows, ARCHITECTURE))
        assert len(found.points["samples"]) == 5 and found.counts["samples"] == 6
        with pytest.raises(NumericalError, match="None of the 6 networks 'samples' is finite"):
            network_map(networks(20), WeightArray(rows * np.nan, ARCHITECTURE))

    def test_errors_are_sentences(self):
        weights = networks(6)
        with pytest.raises(ValueError, match="one of weights, function, got 'outputs'"):
            network_map(weights, space="outputs")
        with pytest.raises(InvalidInputError, match="needs inputs on which they are compared"):
            network_map(weights, space="function")
        with pytest.raises(InvalidInputError, match="the task has 3 inputs"):
            network_map(weights, None, Task(np.eye(3), [0, 1, 2]), space="function")
        with pytest.raises(InvalidInputError, match=r"'b' are 4-2-3 .* a map is of one architecture"):
            network_map(weights, {"b": WeightArray(np.zeros((1, 19)), Architecture.mlp([4, 2, 3]))})
        with pytest.raises(ValueError, match="other names than 'training networks'"):
            network_map(weights, {TRAINING: weights})
        for same in (weights[:1], weights[[0, 0, 0]]):
            with pytest.raises(InvalidInputError, match="at least 2 different networks"):
                network_map(same)


def legend(display: MapDisplay) -> list[str]:
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


class TestDisplay:
    def test_points_are_drawn_in_the_colours_of_their_sets(self):
        sets = {"samples": networks(5, seed=1), "held-out runs": networks(4, seed=2), "mine": networks(3, seed=3)}
        display = MapDisplay.from_networks(Population(networks(20)), sets)
        clouds = display.ax_.collections
        for cloud, points in zip(clouds, display.network_map.points.values(), strict=True):
            np.testing.assert_array_equal(cloud.get_offsets(), points)
        colours = [to_hex(cloud.get_facecolor()[0]).upper() for cloud in clouds]
        assert colours[1:3] == [BLUE, GREEN] and len(set(colours)) == 4
        assert legend(display) == ["training networks: 20", "samples: 5", "held-out runs: 4", "mine: 3"]
        assert display.ax_.get_aspect() == 1 and not display.ax_.lines

    @pytest.mark.parametrize(("n_runs", "words"), [(3, "(colours)"), (8, "(colours, in turn)")])
    def test_runs_have_a_colour_and_a_line_in_the_order_of_steps(self, n_runs, words):
        runs, steps = np.repeat(np.arange(n_runs), 3), np.tile([20, 0, 10], n_runs)
        display = MapDisplay.from_networks(networks(3 * n_runs, runs=runs, steps=steps))
        points = display.network_map.points[TRAINING]
        (cloud,) = display.ax_.collections
        assert len(cloud.get_facecolors()) == 3 * n_runs and len(display.ax_.lines) == n_runs
        for run, line in enumerate(display.ax_.lines):
            np.testing.assert_array_equal(np.transpose(line.get_data()), points[3 * run : 3 * run + 3][[1, 2, 0]])
            assert line.get_color() == RUN_COLOURS[run % 6] == to_hex(cloud.get_facecolors()[3 * run]).upper()
        assert legend(display) == [f"training networks: {3 * n_runs} of {n_runs} runs {words}"]

    def test_it_says_how_many_of_how_many_are_drawn(self, monkeypatch):
        monkeypatch.setattr(projection, "DRAWN", 7)
        assert legend(MapDisplay.from_networks(networks(20))) == ["training networks: 7 of 20"]

    def test_axes_say_what_they_are_and_may_be_given(self):
        from matplotlib.figure import Figure

        ax = Figure().subplots()
        display = MapDisplay.from_networks(networks(20), task=a_task(), space="function", ax=ax)
        share = display.network_map.explained[1]
        assert display.ax_ is ax and display.figure_ is ax.figure and ax.get_title() == "Networks by what they predict"
        assert ax.get_ylabel() == f"second principal direction ({share:.0%} of the variance)"
