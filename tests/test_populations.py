"""Populations, and the training of many networks at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.mapped import is_mapped
from wsflow.persistence import load_population, save_population
from wsflow.populations import Population, load_task
from wsflow.populations.training import train_population
from wsflow.running import forward, scores
from wsflow.task import Task
from wsflow.weights import WeightArray


@pytest.fixture(scope="module")
def iris() -> Task:
    return load_task("iris")


def plain(array: np.ndarray) -> np.ndarray:
    return np.asarray(array)


def test_population_knows_its_runs_and_length():
    weights = WeightArray(np.zeros((4, 23)), Architecture.mlp([4, 3, 2]), runs=[7, 7, 9, 9])
    population = Population(weights)
    assert (len(population), population.n_runs, population.architecture) == (4, 2, weights.architecture)


@pytest.mark.parametrize(
    ("widths", "targets", "loss"),
    [([5, 3, 2], [0, 1], "cross_entropy"), ([4, 3, 2], [0, 2, 1], "cross_entropy"), ([4, 3, 2], [0.5, 1.5], "mse")],
)
def test_population_refuses_a_task_of_other_widths(widths, targets, loss):
    weights = WeightArray(np.zeros((1, Architecture.mlp(widths).n_weights)), Architecture.mlp(widths))
    with pytest.raises(InvalidInputError, match="inputs and"):
        Population(weights, Task(np.eye(len(targets), 4), targets, loss))


def test_population_may_have_more_outputs_than_classes_seen():
    architecture = Architecture.mlp([4, 3, 5])
    Population(WeightArray(np.zeros((1, architecture.n_weights)), architecture), Task(np.eye(2, 4), [0, 1]))


def test_population_refuses_a_plain_array():
    with pytest.raises(InvalidInputError, match="WeightArray"):
        Population(np.zeros((2, 23)))


def test_a_run_depends_on_the_seed_and_its_number_only(iris):
    settings = {"hidden": [6], "epochs": 5, "random_state": 3}
    together = train_population(iris, n_runs=5, **settings)
    chunked = train_population(iris, n_runs=5, chunk_size=2, **settings)
    later = train_population(iris, n_runs=2, first_run=3, **settings)
    np.testing.assert_allclose(plain(chunked.weights), plain(together.weights), atol=1e-4)
    np.testing.assert_allclose(plain(later.weights), plain(together.weights)[3:], atol=1e-4)
    assert later.weights.runs.tolist() == [3, 4]


def test_same_seed_same_weights_another_seed_other_weights(iris):
    first, again, other = (
        plain(train_population(iris, [4], n_runs=3, epochs=2, random_state=seed).weights) for seed in (0, 0, 1)
    )
    assert (first == again).all()
    assert np.abs(first - other).min(axis=1).max() > 0
    assert len({row.tobytes() for row in np.concatenate([first, other])}) == 6


OPTIMIZERS_OF_TORCH = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}


@pytest.mark.parametrize("optimizer", OPTIMIZERS_OF_TORCH)
@pytest.mark.parametrize("name", ["iris", "linnerud"])
def test_training_of_many_is_training_of_each(name, optimizer):
    """One full-batch network, stepped by torch's own loop, ends where its row of the batch does."""
    task = load_task(name)
    settings = {"hidden": [5], "n_runs": 3, "activation": "tanh", "optimizer": optimizer, "batch_size": len(task.X)}
    start = train_population(task, learning_rate=0.0, epochs=1, **settings).weights
    trained = train_population(task, learning_rate=0.02, momentum=0.5, weight_decay=0.01, epochs=6, **settings).weights
    module = start[1:2].to_modules()[0]
    momentum = {"momentum": 0.5} if optimizer == "sgd" else {}
    single = OPTIMIZERS_OF_TORCH[optimizer](module.parameters(), lr=0.02, weight_decay=0.01, **momentum)
    loss = nn.functional.cross_entropy if task.is_classification else nn.functional.mse_loss
    for _ in range(6):
        single.zero_grad()
        loss(module(torch.from_numpy(task.X)), torch.from_numpy(task.y)).backward()
        single.step()
    expected = torch.cat([p.detach().flatten() for p in module.parameters()]).numpy()
    np.testing.assert_allclose(plain(trained)[1], expected, atol=2e-5)


def test_snapshots_are_the_last_ones(iris):
    settings = {"hidden": [4], "n_runs": 2, "epochs": 4, "batch_size": 50}
    population = train_population(iris, snapshots=3, snapshot_every=4, **settings)
    assert population.weights.runs.tolist() == [0, 0, 0, 1, 1, 1]
    assert population.weights.steps.tolist() == [4, 8, 12] * 2
    np.testing.assert_array_equal(plain(population.weights)[2::3], plain(train_population(iris, **settings).weights))
    shorter = train_population(iris, **{**settings, "epochs": 8 // 3 + 1, "snapshots": 2, "snapshot_every": 1})
    np.testing.assert_array_equal(plain(population.weights)[[1, 4]], plain(shorter.weights)[[0, 2]])


def test_the_thesis_protocol_trains_good_networks():
    task = load_task("breast_cancer")
    population = train_population(task, n_runs=20, epochs=25)
    test = task.test
    outputs = forward(torch.from_numpy(plain(population.weights)), population.architecture, torch.from_numpy(test.X))
    assert scores(outputs, torch.from_numpy(test.y), task.loss).mean() > 0.95


def test_initial_weights_have_the_variance_of_the_protocol(iris):
    weights = train_population(iris, [64], n_runs=20, learning_rate=0.0, epochs=1).weights
    assert plain(weights).var() == pytest.approx(0.1, rel=0.05)


def test_provenance_is_json_data_and_progress_arrives(iris):
    seen: list[tuple[int, int]] = []
    population = train_population(
        iris, (4,), n_runs=np.int64(3), epochs=2, chunk_size=2, progress=lambda *done: seen.append(done)
    )
    assert seen == [(2, 6), (4, 6), (5, 6), (6, 6)]
    assert population.provenance["hidden"] == [4] and population.provenance["n_runs"] == 3
    assert type(population.provenance["n_runs"]) is int
    assert set(population.provenance["versions"]) == {"wsflow", "torch"}


def test_global_state_is_untouched(iris):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads(), torch.get_default_dtype()
    train_population(iris, [4], n_runs=2, epochs=1)
    after = torch.get_rng_state(), np.random.get_state()[1], torch.get_num_threads(), torch.get_default_dtype()
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(before[:2], after[:2], strict=True))
    assert before[2:] == after[2:]


def test_divergence_names_run_and_epoch(iris):
    with pytest.raises(NumericalError, match=r"Run 4 .*diverged in epoch 1"):
        train_population(
            iris, [4], n_runs=2, first_run=4, epochs=3, optimizer="sgd", learning_rate=1e30, activation="identity"
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_runs": 0}, "'n_runs'"),
        ({"batch_size": 0}, "'batch_size'"),
        ({"chunk_size": 0}, "'chunk_size'"),
        ({"epochs": 1.5}, "'epochs'"),
        ({"random_state": None}, "'random_state'"),
        ({"learning_rate": float("nan")}, "'learning_rate'"),
        ({"optimizer": "lbfgs"}, "adam, sgd, sghmc, sgld"),
        ({"initialisation": "zeros"}, "normal, siren, siren_small, torch, uniform"),
        ({"epochs": 1, "snapshots": 9}, "do not fit"),
        ({"epochs": 4, "cycles": 2, "schedule": "cyclical", "snapshots": 3}, "a cycle of 4"),
        ({"epochs": 1, "cycles": 3, "schedule": "cyclical"}, "a cycle of 0"),
        ({"cycles": 2}, "schedule='cyclical'"),
        ({"schedule": "linear"}, "constant, cosine, cyclical"),
        ({"momentum": 1.0}, "'momentum' .* below 1"),
        ({"weight_decay": (0, 1)}, "'weight_decay' .* above 0"),
        ({"learning_rate": (2, 1)}, "'learning_rate'"),
        ({"learning_rate": [1, 2, 3]}, "'learning_rate'"),
        ({"temperature": "warm"}, "'temperature'"),
        ({"initialisation": "siren"}, "sines between them"),
        ({"resume": True}, "'checkpoint'"),
        ({"activation_argument": 2.0}, "'relu' takes no 'activation_argument'"),
        ({"targets": np.zeros((3, 5))}, "'targets' of 100 runs"),
    ],
)
def test_wrong_settings_are_refused(iris, settings, message):
    with pytest.raises(ValueError, match=message):
        train_population(iris, [4], **settings)


def test_a_request_beyond_memory_is_refused_up_front(iris):
    with pytest.raises(InvalidInputError, match="GiB of memory"):
        train_population(iris, n_runs=10**9)


def test_runs_come_one_after_the_other_with_their_networks_by_step():
    runs, steps = [2, 0, 2, 0, 1], [9, 5, 4, 6, 1]
    weights = WeightArray(np.arange(5.0)[:, None] * np.ones(23), Architecture.mlp([4, 3, 2]), runs=runs, steps=steps)
    found = {run: (few[:, 0].tolist(), few.steps.tolist()) for run, few in Population(weights).iter_runs()}
    assert list(found) == [0, 1, 2]
    assert found == {0: ([1.0, 3.0], [5, 6]), 1: ([4.0], [1]), 2: ([2.0, 0.0], [4, 9])}


def test_the_networks_of_a_run_of_mapped_shards_are_in_memory_and_no_others(tmp_path):
    weights = WeightArray(np.ones((6, 23)), Architecture.mlp([4, 3, 2]), runs=np.arange(6) // 2)
    save_population(Population(weights), tmp_path / "zoo.index.json", shard_size=400)
    population = load_population(tmp_path / "zoo.index.json")
    assert is_mapped(population.weights)
    for _, networks in population.iter_runs():
        assert len(networks) == 2 and not is_mapped(networks)
