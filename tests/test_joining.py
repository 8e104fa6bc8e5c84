"""Joining and rearranging populations: functions of NumPy that move rows keep networks, all others lose them."""

from __future__ import annotations

import numpy as np
import pytest

import wsflow
from wsflow import Architecture, PermutationAligner, Population, Task, WeightArray
from wsflow.exceptions import InvalidInputError

ARCHITECTURE = Architecture.mlp([4, 3, 2])
OTHER = Architecture.mlp([4, 3, 2], "tanh")


def networks(n=6, seed=0, architecture=ARCHITECTURE, **keywords):
    rows = np.random.default_rng(seed).normal(size=(n, architecture.n_weights))
    return WeightArray(rows, architecture, **keywords)


@pytest.fixture
def weights():
    """Six networks, two snapshots of each of three runs."""
    return networks(runs=[7, 7, 8, 8, 9, 9], steps=[1, 2, 1, 2, 1, 2], aligned=True)


def check_rows(result, rows):
    """Networks that are these rows of the six, with their runs and steps."""
    source = networks(runs=[7, 7, 8, 8, 9, 9], steps=[1, 2, 1, 2, 1, 2], aligned=True)
    assert type(result) is WeightArray
    assert result.architecture == ARCHITECTURE and result.aligned
    rows = np.asarray(rows, dtype=int)
    np.testing.assert_array_equal(np.asarray(result), np.asarray(source)[rows])
    np.testing.assert_array_equal(result.runs, source.runs[rows])
    np.testing.assert_array_equal(result.steps, source.steps[rows])


MOVED = {
    "concatenate": (lambda w: np.concatenate([w[4:], w[:1]]), [4, 5, 0]),
    "concatenate, by position": (lambda w: np.concatenate((w, w[:2]), 0), [0, 1, 2, 3, 4, 5, 0, 1]),
    "concatenate, axis -2": (lambda w: np.concatenate([w[:1], w[:1]], axis=-2), [0, 0]),
    "vstack": (lambda w: np.vstack([w[3:], w[:3]]), [3, 4, 5, 0, 1, 2]),
    "r_": (lambda w: np.r_[w[5:], w[:1]], [5, 0]),
    "append": (lambda w: np.append(w[:2], w[5:], axis=0), [0, 1, 5]),
    "insert": (lambda w: np.insert(w[:3], 1, w[5:], axis=0), [0, 5, 1, 2]),
    "delete": (lambda w: np.delete(w, [0, 2], axis=0), [1, 3, 4, 5]),
    "take": (lambda w: np.take(w, [5, 0], axis=0), [5, 0]),
    "take, mode": (lambda w: np.take(w, [-1, 7], axis=0, mode="wrap"), [5, 1]),
    "compress": (lambda w: np.compress([0, 1, 1], w, axis=0), [1, 2]),
    "method compress": (lambda w: w.compress([0, 1, 1], axis=0), [1, 2]),
    "repeat": (lambda w: np.repeat(w[:2], [1, 3], axis=0), [0, 1, 1, 1]),
    "method repeat": (lambda w: w.repeat(2, axis=0), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
    "split": (lambda w: np.split(w, 3)[1], [2, 3]),
    "array_split": (lambda w: np.array_split(w, 4)[0], [0, 1]),
    "vsplit": (lambda w: np.vsplit(w, [4])[1], [4, 5]),
    "flip": (lambda w: np.flip(w, axis=0), [5, 4, 3, 2, 1, 0]),
    "flipud": (np.flipud, [5, 4, 3, 2, 1, 0]),
    "roll": (lambda w: np.roll(w, 2, axis=0), [4, 5, 0, 1, 2, 3]),
    "tile": (lambda w: np.tile(w[:2], (2, 1)), [0, 1, 0, 1]),
    "block": (lambda w: np.block([[w[:1]], [w[4:]]]), [0, 4, 5]),
}


@pytest.mark.parametrize(("move", "rows"), MOVED.values(), ids=MOVED)
def test_rows_that_move_stay_networks(weights, move, rows):
    check_rows(move(weights), rows)


@pytest.mark.parametrize("move", [move for move, _ in MOVED.values()], ids=MOVED)
def test_networks_of_one_weight_are_rows_too(move):
    """A row of one number looks like the number of a row."""
    single = Architecture.mlp([1, 1], bias=False)
    weights = WeightArray(np.arange(6.0)[:, None], single, runs=np.arange(6))
    moved = move(weights)
    assert type(moved) is WeightArray and moved.runs.tolist() == moved[:, 0].tolist()


def test_no_networks_stay_networks(weights):
    for none in (
        np.vstack([weights[:0], weights[:0]]),
        np.unique(weights[:0], axis=0),
        np.delete(weights, range(6), 0),
    ):
        check_rows(none, [])


def test_unique_keeps_the_first_of_equal_networks(weights):
    again = weights[[3, 1, 3, 1]]
    again.runs[2:] = 100
    found, counts = np.unique(again, axis=0, return_counts=True)
    assert counts.tolist() == [2, 2]
    check_rows(found, [1, 3] if weights[1, 0] < weights[3, 0] else [3, 1])


@pytest.mark.parametrize(
    "make",
    [
        lambda w: np.vstack([w, np.asarray(w)]),
        lambda w: np.concatenate([w, networks(architecture=OTHER)]),
        lambda w: np.concatenate([w, w], axis=1),
        lambda w: np.concatenate([w, w], axis=None),
        lambda w: np.concatenate([w, w], dtype=np.int64, casting="unsafe"),
        lambda w: np.concatenate([w, w], out=np.empty((12, 23))),
        lambda w: np.append(w, w),
        lambda w: np.insert(w, 0, 0.0, axis=0),
        lambda w: np.delete(w, [0], axis=1),
        lambda w: np.take(w, np.arange(23)[::-1], axis=1),
        lambda w: np.repeat(w, 2),
        lambda w: np.split(w, [3], axis=1)[0],
        lambda w: np.flip(w),
        lambda w: np.fliplr(w),
        lambda w: np.roll(w, 23, axis=1),
        lambda w: np.roll(w, 23),
        lambda w: np.tile(w, 2),
        lambda w: np.block([[w, w]]),
        lambda w: np.unique(w),
        lambda w: np.stack([w, w]),
        lambda w: np.hstack([w, w]),
        lambda w: np.dstack([w, w]),
        lambda w: np.column_stack([w, w]),
        lambda w: np.sort(w, axis=0),
        lambda w: np.resize(w, (3, 23)),
        lambda w: np.copy(w, subok=False),
        lambda w: np.where(w > 0, w, 0),
    ],
)
def test_what_moves_no_whole_rows_is_plain(weights, make):
    assert type(make(weights)) is np.ndarray


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_follows_numpy(weights, dtype):
    both = np.vstack([weights.astype(np.float32), weights.astype(dtype)])
    assert type(both) is WeightArray and both.dtype == dtype
    assert np.concatenate([weights, weights], dtype=np.float32).dtype == np.float32


def test_networks_of_networks_keep_their_runs(weights):
    check_rows(WeightArray(weights[2:], ARCHITECTURE, aligned=True), [2, 3, 4, 5])
    assert WeightArray(weights, ARCHITECTURE, runs=range(6)).runs.tolist() == [*range(6)]


@pytest.mark.parametrize("join", [np.concatenate, np.vstack, lambda two: list(two[0])])
def test_numpy_does_not_join_populations_and_says_what_does(weights, join):
    with pytest.raises(InvalidInputError, match=r"wsflow.concatenate joins"):
        join([Population(weights), Population(weights)])


def test_networks_are_aligned_if_all_are(weights):
    assert not np.vstack([weights, networks()]).aligned
    assert not wsflow.concatenate([networks(), weights]).aligned


def test_numpy_keeps_the_numbers_of_runs_and_wsflow_tells_populations_apart():
    first, second = networks(3, seed=0), networks(3, seed=1)
    assert np.concatenate([first, second]).runs.tolist() == [0, 1, 2, 0, 1, 2]
    assert wsflow.concatenate([first, second]).runs.tolist() == [0, 1, 2, 3, 4, 5]
    assert wsflow.concatenate([first, second], runs="shared").runs.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([[0, 0, 1], [0, 1, 1]], [0, 0, 1, 2, 3, 3]),
        ([[0, 1], [500, 501]], [0, 1, 500, 501]),
        ([[0, 1], [1, 2]], [0, 1, 2, 3]),
        ([[0, 1], [0, 1], [2, 3]], [0, 1, 2, 3, 4, 5]),
        ([[5, 5], [-3, 5], [-3, 9]], [5, 5, 6, 7, 8, 9]),
        ([[2**63 - 1, 0], [0, 7]], [2**63 - 1, 0, -2, -1]),
    ],
)
def test_runs_of_joined_populations_are_distinct(runs, expected):
    arrays = [networks(len(r), seed=i, runs=r) for i, r in enumerate(runs)]
    joined = wsflow.concatenate(arrays)
    assert joined.runs.tolist() == expected
    assert len(np.unique(joined.runs)) == sum(len(set(r)) for r in runs)


def test_parts_of_one_population_share_their_runs(weights):
    with pytest.raises(InvalidInputError, match=r"run 7 is in two .* runs='shared'"):
        wsflow.concatenate([weights[:3], weights[[5, 1]]])
    check_rows(wsflow.concatenate([weights[:3], weights[[5, 1]]], runs="shared"), [0, 1, 2, 5, 1])


def test_joined_populations_are_aligned_run_by_run():
    """Two populations with a run 0 each: with one number, both would move by one permutation."""
    joined = wsflow.concatenate([networks(3), networks(3, seed=5)])
    _, action = PermutationAligner().fit(joined).transform(joined, return_action=True)
    _, alone = PermutationAligner(by="network").fit(joined).transform(joined, return_action=True)
    for name in action.permutations:
        assert (action.permutations[name] == alone.permutations[name]).all()


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(3)
    return Task(rng.normal(size=(20, 4)), np.arange(20) % 2)


def test_populations_keep_their_task_and_what_their_runs_drew(task):
    first, second = (
        wsflow.train_population(task, (3,), 2, epochs=1, learning_rate=(1e-3, 1e-1), random_state=seed)
        for seed in (0, 1)
    )
    joined = wsflow.concatenate([first, second])
    assert type(joined) is Population and joined.n_runs == 4 and joined.task.checksum == task.checksum
    rates = [p.hyperparameters["learning_rate"] for p in (first, second)]
    np.testing.assert_array_equal(joined.hyperparameters["learning_rate"], np.concatenate(rates))
    assert joined.provenance["joined"] == [first.provenance, second.provenance]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p, t: [], "got nothing"),
        (lambda p, t: [np.zeros((2, 23))], "got ndarray"),
        (lambda p, t: None, "got NoneType"),
        (lambda p, t: [p.weights, networks(architecture=OTHER)], "4-3-2 relu .* and 4-3-2 tanh"),
        (lambda p, t: [p, p.weights], "join the weights of all"),
        (lambda p, t: [p, Population(networks(seed=1), None)], "not all of one task"),
        (lambda p, t: [p, Population(networks(seed=1), Task(t.X + 1, t.y))], "not all of one task"),
    ],
)
def test_what_cannot_be_joined_is_refused(task, make, message):
    population = Population(networks(), task)
    with pytest.raises(InvalidInputError, match=message):
        wsflow.concatenate(make(population, task))
    with pytest.raises(ValueError, match="'runs' of concatenate"):
        wsflow.concatenate([population], runs="apart")
