"""How populations are trained: hyperparameters by run, schedules, samplers, targets of one's own, several jobs."""

from __future__ import annotations

import dataclasses

import joblib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import solve_discrete_lyapunov

from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.persistence import load_population, save_population
from wsflow.populations import Population, load_task
from wsflow.populations.hyperparameters import RANGES, check_range, draw_hyperparameters
from wsflow.populations.schedules import SCHEDULES, cycle_ends, factors, snapshot_steps
from wsflow.populations.training import train_population
from wsflow.running import forward, losses
from wsflow.task import Task

DRAWN = {"learning_rate": (1e-3, 1e-1), "momentum": (0.1, 0.9), "weight_decay": (1e-5, 1e-2), "temperature": (0.1, 10)}
FURTHER = {"initialisation_scale": (0.5, 2.0), "dropout": (0.0, 0.5), "data_fraction": (0.2, 1.0), "steps": (2, 9)}
EVERY = DRAWN | FURTHER


@pytest.fixture(scope="module")
def iris() -> Task:
    return load_task("iris")


def rows(population: Population) -> np.ndarray:
    return np.asarray(population.weights)


# hyperparameters


@given(st.integers(0, 50), st.integers(0, 2**40), st.lists(st.sampled_from(RANGES), unique=True))
def test_what_a_run_draws_depends_on_seed_and_number_alone(seed, first, names):
    fixed = dict.fromkeys(RANGES, 0.5)
    runs = np.arange(first, first + 6)
    everything = draw_hyperparameters(EVERY, seed, runs)
    np.testing.assert_array_equal(everything[4:], draw_hyperparameters(EVERY, seed, runs[4:]))
    some = draw_hyperparameters({**fixed, **{name: EVERY[name] for name in names}}, seed, runs)
    for i, name in enumerate(RANGES):
        np.testing.assert_array_equal(some[:, i], everything[:, i] if name in names else 0.5)


def test_ranges_are_drawn_by_their_laws_and_independently():
    drawn = draw_hyperparameters(EVERY, 0, np.arange(4000))[:, :-1]
    logs = [np.log if name not in ("dropout", "data_fraction") else np.asarray for name in RANGES[:-1]]
    low, high = ([log(EVERY[name][end]) for log, name in zip(logs, RANGES, strict=False)] for end in (0, 1))
    transformed = np.stack([log(column) for log, column in zip(logs, drawn.T, strict=True)], axis=1)
    places = (transformed - low) / (np.array(high) - low)
    assert places.min() >= 0 and places.max() <= 1
    quantiles = np.quantile(places, [0.1, 0.25, 0.5, 0.75, 0.9], axis=0)
    np.testing.assert_allclose(quantiles.T, [[0.1, 0.25, 0.5, 0.75, 0.9]] * 7, atol=0.035)
    assert np.abs(np.corrcoef(places.T) - np.eye(7)).max() < 4 / 4000**0.5


@pytest.mark.parametrize(("low", "high"), [(1, 3), (5, 5), (10, 1000)])
def test_numbers_of_steps_are_whole_and_log_uniform(low, high):
    steps = draw_hyperparameters({**EVERY, "steps": (low, high)}, 0, np.arange(4000))[:, -1]
    assert (steps == steps.astype(int)).all() and steps.min() >= low and steps.max() <= high
    for k in {low, (low + high) // 2, high}:
        expected = np.log((k + 1) / low) / np.log((high + 1) / low)
        assert abs((steps <= k).mean() - expected) < 4 * 0.5 / 4000**0.5


@given(st.floats(1e-8, 1e3), st.floats(1, 1e3))
def test_a_range_is_kept_within_its_ends(low, ratio):
    drawn = draw_hyperparameters({**dict.fromkeys(RANGES, 0.0), "learning_rate": (low, low * ratio)}, 1, range(20))[
        :, 0
    ]
    assert (low <= drawn).all() and (drawn <= low * ratio).all()


@pytest.mark.parametrize("value", [-1, np.inf, np.nan, "a", None, (1,), (0, 1), (2, 1), (1, np.inf), [[1, 2]], {}])
def test_other_ranges_are_refused(value):
    with pytest.raises(ValueError, match="'learning_rate'"):
        check_range("learning_rate", value)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "sghmc", "sgld"])
def test_a_run_with_drawn_rates_is_the_run_with_these_rates(iris, optimizer):
    settings = {"hidden": [4], "epochs": 4, "activation": "tanh", "optimizer": optimizer, "random_state": 5}
    ranges = {**DRAWN, "learning_rate": (1e-3, 1e-2)}
    population = train_population(iris, n_runs=3, **ranges, **settings)
    known = population.hyperparameters
    assert list(known) == sorted(known, key=RANGES.index) and set(known) == set(DRAWN)
    for run in range(3):
        rates = {name: float(values[run]) for name, values in known.items()}
        alone = train_population(iris, n_runs=1, first_run=run, **rates, **settings)
        np.testing.assert_allclose(rows(alone)[0], rows(population)[run], atol=2e-5)
        assert alone.hyperparameters == {}


def test_hyperparameters_go_with_the_networks_and_into_the_file(iris, tmp_path):
    settings = {"hidden": [3], "epochs": 2, "snapshots": 2, "snapshot_every": 1, "first_run": 7}
    population = train_population(iris, n_runs=4, learning_rate=(1e-4, 1e-2), **settings)
    values = population.hyperparameters["learning_rate"]
    assert values.shape == (8,) and len(set(values)) == 4 and (values[::2] == values[1::2]).all()
    save_population(population, tmp_path / "zoo")
    loaded = load_population(tmp_path / "zoo")
    np.testing.assert_array_equal(loaded.hyperparameters["learning_rate"], values)
    part = Population(loaded.weights[5:2:-1], loaded.task, loaded.provenance)
    np.testing.assert_array_equal(part.hyperparameters["learning_rate"], values[5:2:-1])
    chunked = train_population(iris, n_runs=4, learning_rate=(1e-4, 1e-2), chunk_size=3, **settings)
    np.testing.assert_array_equal(chunked.hyperparameters["learning_rate"], values)
    other = train_population(iris, [3], 1, epochs=1)
    with pytest.raises(InvalidInputError, match="no hyperparameters of run 0"):
        _ = Population(other.weights, provenance=population.provenance).hyperparameters


# schedules


@given(st.integers(1, 8), st.integers(0, 60))
def test_every_cycle_begins_at_the_full_rate_and_falls(cycles, more):
    total = cycles + more
    ends = cycle_ends(cycles, total)
    lengths = np.diff(ends, prepend=0)
    assert ends[-1] == total and lengths.max() - lengths.min() <= 1
    rates = factors("cyclical", cycles, total)
    for start, end in zip(ends - lengths, ends, strict=True):
        length = end - start
        # the formula of the paper, with iterations from 1 on
        expected = [(np.cos(np.pi * ((k - 1) % length) / length) + 1) / 2 for k in range(1, length + 1)]
        np.testing.assert_allclose(rates[start:end], expected, rtol=1e-12, atol=1e-15)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 5), st.integers(0, 7))
def test_snapshots_are_the_last_ones_of_each_cycle(cycles, snapshots, every, more):
    total = cycles * ((snapshots - 1) * every + 1 + more)
    steps = snapshot_steps(cycles, total, snapshots, every)
    assert steps == sorted(set(steps)) and len(steps) == cycles * snapshots and steps[0] >= 1
    assert steps[snapshots - 1 :: snapshots] == cycle_ends(cycles, total).tolist()
    assert all(b - a == every for i, (a, b) in enumerate(zip(steps, steps[1:], strict=False)) if (i + 1) % snapshots)


def test_the_first_of_two_cycles_is_a_training_of_half_the_length(iris):
    settings = {"hidden": [4], "n_runs": 2, "optimizer": "sgd", "learning_rate": 0.05}
    cyclical = train_population(iris, epochs=6, schedule="cyclical", cycles=2, **settings)
    cosine = train_population(iris, epochs=3, schedule="cosine", **settings)
    assert cyclical.weights.steps.tolist() == [6, 12] * 2
    np.testing.assert_array_equal(rows(cyclical)[::2], rows(cosine))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_schedule_is_that_of_the_learning_rate(schedule):
    """One weight, the loss w^2 on every example: plain gradient descent multiplies it by 1 - 2 times the rate."""
    task = Task(np.ones((4, 1)), np.zeros(4), "mse")
    settings = {"hidden": [], "n_runs": 3, "optimizer": "sgd", "momentum": 0.0, "batch_size": 1}
    cycles = 2 if SCHEDULES[schedule].cycles else 1
    start = rows(train_population(task, learning_rate=0.0, epochs=1, **settings)).sum(1)
    end = rows(train_population(task, learning_rate=0.1, epochs=3, schedule=schedule, cycles=cycles, **settings)).sum(1)
    # weight and bias move alike, so their sum sees twice the gradient
    expected = start[:, None] * np.cumprod(1 - 4 * 0.1 * factors(schedule, cycles, 12))
    np.testing.assert_allclose(end, expected[:, [5, 11] if cycles == 2 else [11]].ravel(), rtol=1e-12)


# samplers: the stationary law of a quadratic loss is known in closed form, step size included


def line(n: int = 20) -> tuple[Task, np.ndarray]:
    """A line through points, with the design matrix of slope and intercept."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 1))
    return Task(X, 1.5 * X[:, 0] - 0.5 + rng.normal(size=n), "mse"), np.hstack([X, np.ones((n, 1))])


def transition(optimizer: str, hessian: np.ndarray, rate: float, momentum: float) -> tuple[np.ndarray, float]:
    """The matrix of one step on deviations from the mean, and the variance that its noise has per temperature / N."""
    one = np.eye(2)
    if optimizer == "sgld":
        return one - rate * hessian, 2 * rate
    step = np.block([[one - rate * hessian, momentum * one], [-rate * hessian, momentum * one]])
    return step, 2 * (1 - momentum) * rate


@pytest.mark.parametrize("temperature", [1.0, 0.25])
@pytest.mark.parametrize("optimizer", ["sgld", "sghmc"])
def test_samplers_have_the_gaussian_posterior(optimizer, temperature):
    (task, design), n = line(), 1500
    rate, momentum, decay = 0.03, 0.6, 0.2
    hessian = 2 * design.T @ design / len(design) + decay * np.eye(2)
    mean = np.linalg.solve(hessian, 2 * design.T @ task.y[:, 0] / len(design))
    matrix, noise = transition(optimizer, hessian, rate, momentum)
    kick = np.vstack([np.eye(2)] * (len(matrix) // 2))
    covariance = solve_discrete_lyapunov(matrix, kick @ kick.T * noise * temperature / len(design))[:2, :2]
    posterior = np.linalg.inv(hessian) * temperature / len(design)
    # the step is small enough: what the discretised dynamics leave is the posterior but for some per cent
    np.testing.assert_allclose(covariance, posterior, atol=0.06 * posterior.diagonal().max())

    sampled = rows(
        train_population(
            task, [], n, optimizer=optimizer, learning_rate=rate, momentum=momentum, weight_decay=decay,
            temperature=temperature, epochs=150, batch_size=len(design), random_state=1,
        )
    )  # fmt: skip
    assert np.abs(np.linalg.matrix_power(matrix, 150)).max() < 2e-3
    z = (sampled.mean(0) - mean) / np.sqrt(covariance.diagonal() / n)
    assert np.abs(z).max() < 4
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), (sampled - mean).T)
    spread = whitened @ whitened.T / n
    deviations = (spread - np.eye(2)) / np.array([[2, 1], [1, 2]]) ** 0.5 * n**0.5
    assert np.abs(deviations).max() < 4
    # a Gaussian has no excess kurtosis
    assert np.abs((whitened**4).mean(1) - 3).max() < 4 * (24 / n) ** 0.5 + 0.1


@pytest.mark.parametrize("optimizer", ["sgld", "sghmc"])
def test_a_sampler_without_temperature_is_gradient_descent(optimizer, iris):
    settings = {"hidden": [4], "n_runs": 2, "epochs": 3, "activation": "tanh", "learning_rate": 0.02}
    momentum = 0.0 if optimizer == "sgld" else 0.7
    cold = train_population(iris, optimizer=optimizer, momentum=momentum, temperature=0.0, **settings)
    plain = train_population(iris, optimizer="sgd", momentum=momentum, **settings)
    np.testing.assert_allclose(rows(cold), rows(plain), atol=1e-6)


def test_noise_is_that_of_the_run(iris):
    settings = {"hidden": [4], "optimizer": "sgld", "epochs": 3, "activation": "tanh", "learning_rate": 1e-2}
    together = rows(train_population(iris, n_runs=5, **settings))
    np.testing.assert_allclose(rows(train_population(iris, n_runs=5, chunk_size=2, **settings)), together, atol=2e-5)
    np.testing.assert_allclose(rows(train_population(iris, n_runs=2, first_run=3, **settings)), together[3:], atol=2e-5)
    noise = together - rows(train_population(iris, n_runs=5, **{**settings, "optimizer": "sgd", "momentum": 0.0}))
    correlations = np.corrcoef(noise) - np.eye(5)
    assert np.abs(correlations).max() < 0.5 and (noise != 0).all()


# targets of one's own, precision, regression


@pytest.mark.parametrize(("loss", "k"), [("mse", 2), ("cross_entropy", None)])
def test_targets_of_each_run_are_those_of_a_task_of_its_own(rng, loss, k):
    X = rng.normal(size=(20, 3)).astype(np.float32)
    targets = rng.integers(2, size=(4, 20)) if k is None else rng.normal(size=(4, 20, k)).astype(np.float32)
    settings = {"hidden": [5], "epochs": 4, "batch_size": 8, "learning_rate": 0.01, "activation": "tanh"}
    task = Task(X, targets[0], loss)
    own = train_population(task, n_runs=4, first_run=2, targets=targets, chunk_size=3, **settings)
    for i, y in enumerate(targets):
        alone = train_population(Task(X, y, loss), n_runs=1, first_run=2 + i, **settings)
        np.testing.assert_allclose(rows(own)[i], rows(alone)[0], atol=2e-5)
    assert len(own.provenance["targets"]) == 64


def test_targets_that_do_not_fit_are_refused(iris):
    with pytest.raises(InvalidInputError, match=r"shape \(2, 120\) or \(2, 120, k\), got \(3, 120\)"):
        train_population(iris, [3], 2, targets=np.zeros((3, 120)))
    with pytest.raises(InvalidInputError, match="label 7 of row 0 is not among the classes"):
        train_population(iris, [3], 2, targets=np.full((2, 120), 7))


def test_training_has_the_precision_of_the_data_and_takes_integers(iris):
    double = dataclasses.replace(iris, X=iris.X.astype(np.float64))
    assert train_population(double, [3], 2, epochs=1).weights.dtype == np.float64
    whole = Task(np.eye(4, dtype=np.int64), [0, 1, 0, 1])
    assert train_population(whole, [3], 2, epochs=1).weights.dtype == np.float32


@pytest.mark.parametrize("name", ["diabetes", "linnerud"])
def test_linear_networks_find_the_least_squares_of_a_regression(name):
    task = load_task(name)
    design = np.hstack([task.X, np.ones((len(task.X), 1))])
    residual = design @ np.linalg.lstsq(design, task.y, rcond=None)[0] - task.y
    rates = {"learning_rate": 0.05, "schedule": "cosine", "epochs": 600, "batch_size": len(task.X)}
    networks = train_population(task, [], 3, **rates).weights
    outputs = forward(torch.from_numpy(np.array(networks)), networks.architecture, torch.from_numpy(task.X))
    found = losses(outputs, torch.from_numpy(task.y), task.loss).numpy()
    smallest = (residual**2).mean()
    assert (found >= smallest * (1 - 1e-5)).all() and (found < smallest * 1.002).all()


# several jobs, several devices


def test_jobs_change_nothing(iris):
    settings = {"hidden": [4], "n_runs": 7, "epochs": 2, "chunk_size": 2, "optimizer": "sgld"}
    settings |= {"learning_rate": (1e-3, 1e-2)}
    seen: list[tuple[int, int]] = []
    alone = train_population(iris, **settings)
    with joblib.parallel_config("threading", n_jobs=3):
        several = train_population(iris, progress=lambda *done: seen.append(done), **settings)
    np.testing.assert_array_equal(rows(several), rows(alone))
    assert seen == [(4, 14), (8, 14), (12, 14), (14, 14)]


def test_a_run_that_diverges_ends_all_jobs(iris):
    settings = {"hidden": [4], "n_runs": 6, "epochs": 2, "chunk_size": 2, "optimizer": "sgd", "activation": "identity"}
    with joblib.parallel_config("threading", n_jobs=2), pytest.raises(NumericalError, match=r"Run \d .*diverged"):
        train_population(iris, learning_rate=1e30, **settings)


def test_a_loss_that_is_not_finite_is_no_trained_network(iris):
    """Squares that overflow have gradients of no direction that the optimizer, which scales them, turns into steps."""
    task = Task(iris.X.astype(np.float32), np.full(len(iris.X), 1e30), "mse")
    with pytest.raises(NumericalError, match="in epoch 1: its weights or its loss are not finite"):
        train_population(task, [4], 2, epochs=1)


@pytest.mark.slow
def test_processes_change_nothing(iris):
    targets = np.arange(5 * 120).reshape(5, -1) % 3
    settings = {"hidden": [4], "n_runs": 5, "epochs": 2, "chunk_size": 2, "targets": targets}
    several = train_population(iris, n_jobs=2, **settings)
    np.testing.assert_array_equal(rows(several), rows(train_population(iris, **settings)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("optimizer", ["adam", "sgld"])
def test_a_gpu_trains_the_same_networks(iris, optimizer):
    settings = {"hidden": [4], "n_runs": 3, "epochs": 2, "activation": "tanh", "optimizer": optimizer}
    there = train_population(iris, device="cuda", **settings)
    np.testing.assert_allclose(rows(there), rows(train_population(iris, **settings)), atol=1e-4)
