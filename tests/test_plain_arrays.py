"""What is passed as networks: populations and modules are read, plain arrays and few runs are warned about."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from torch import nn

import wsflow
from wsflow import (
    Architecture,
    EnergyScorer,
    PermutationAligner,
    Population,
    ScaleCanonicalizer,
    Task,
    WeightArray,
    WeightFlow,
)
from wsflow.cli.main import main
from wsflow.evaluation import predict
from wsflow.evaluation.novelty import novelty
from wsflow.exceptions import FewRunsWarning, InvalidInputError, MissingArchitectureWarning
from wsflow.models.options import MLP, NetworkGeometry

ARCHITECTURE = Architecture.mlp([4, 3, 2])
FAST = {"velocity": MLP(8, 1), "max_iter": 1, "random_state": 0}
ESTIMATORS = {
    "aligner": (PermutationAligner, "leaves networks as they are, not aligned"),
    "canonicalizer": (ScaleCanonicalizer, "leaves the scales and signs"),
    "flow": (lambda **keywords: WeightFlow(**FAST | keywords), "learns plain vectors, without symmetries"),
}
NAMES = [(make, text) for make, text in ESTIMATORS.values()]


def networks(n=12, seed=0, **keywords):
    rows = np.random.default_rng(seed).normal(size=(n, ARCHITECTURE.n_weights))
    return WeightArray(rows, ARCHITECTURE, **keywords)


def warned(fit):
    """The warnings of a call that Python shows by default."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        fit()
    return [w for w in found if issubclass(w.category, UserWarning)]


@pytest.mark.parametrize(("make", "text"), NAMES, ids=ESTIMATORS)
@pytest.mark.parametrize(
    "plain",
    [np.asarray, np.ndarray.tolist, lambda w: np.hstack([w[:, :10], w[:, 10:]]), lambda w: w + 0.0],
    ids=["array", "lists", "hstack", "sum"],
)
class TestPlainArrays:
    def test_they_warn_once_and_say_what_is_not_done(self, make, text, plain):
        found = warned(lambda: make().fit(plain(networks())))
        assert [w.category for w in found] == [MissingArchitectureWarning]
        assert text in str(found[0].message) and "Pass a WeightArray" in str(found[0].message)
        assert found[0].filename == __file__

    def test_an_architecture_is_all_that_is_missing(self, make, text, plain):
        geometry = {"geometry": "euclidean"} if isinstance(make(), WeightFlow) else {}
        assert not warned(lambda: make(architecture=ARCHITECTURE, **geometry).fit(plain(networks())))


def test_a_pipeline_warns_once_for_each_step_and_at_the_line_of_its_user():
    model = make_pipeline(*(make() for make, _ in NAMES))
    found = warned(lambda: model.fit(np.asarray(networks())))
    assert len(found) == 3 and {w.filename for w in found} == {__file__}


@pytest.mark.parametrize("geometry", ["euclidean", NetworkGeometry("euclidean")])
def test_who_asks_for_plain_vectors_gets_them_without_a_warning(geometry):
    assert not warned(lambda: WeightFlow(geometry, **FAST).fit(np.asarray(networks())))


def test_networks_do_not_warn():
    assert not warned(lambda: make_pipeline(*(make() for make, _ in NAMES)).fit(networks()))


def sequential(n=12):
    modules = [nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)) for _ in range(n)]
    for module, row in zip(modules, np.asarray(networks(n)), strict=True):
        nn.utils.vector_to_parameters(torch.from_numpy(row).float(), module.parameters())
    return modules


@pytest.mark.parametrize(
    "passed",
    [
        lambda w: Population(w),
        lambda w: sequential(),
        lambda w: tuple(sequential()),
        lambda w: iter(sequential()),
        lambda w: np.array([*sequential(), None], dtype=object)[:-1],
        lambda w: w.astype(np.float32),
    ],
    ids=["population", "modules", "tuple of modules", "iterator", "array of modules", "array"],
)
def test_populations_and_modules_are_networks(passed):
    weights = networks().astype(np.float32)
    model = make_pipeline(PermutationAligner(), ScaleCanonicalizer()).fit(weights)
    other = make_pipeline(PermutationAligner(), ScaleCanonicalizer())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved = other.fit_transform(passed(weights))
        again = other.transform(passed(weights))
        flow = WeightFlow(**FAST).fit(moved)
        scores = flow.score_samples(Population(moved))
    assert type(moved) is WeightArray and moved.architecture == ARCHITECTURE
    np.testing.assert_array_equal(moved, model.transform(weights))
    np.testing.assert_array_equal(again, moved)
    np.testing.assert_array_equal(scores, flow.score_samples(moved))


@pytest.mark.parametrize(
    "tensors",
    [
        lambda rows: torch.tensor(rows, requires_grad=True),
        lambda rows: [torch.tensor(row, requires_grad=True) for row in rows],
        lambda rows: torch.tensor(rows).bfloat16(),
        lambda rows: torch.tensor(rows).to_sparse(),
    ],
    ids=["gradient", "list", "bfloat16", "sparse"],
)
def test_tensors_are_arrays(tensors):
    rows = np.round(4 * np.asarray(networks()))
    aligner = PermutationAligner(architecture=ARCHITECTURE)
    np.testing.assert_array_equal(aligner.fit_transform(tensors(rows)), aligner.fit_transform(rows))
    np.testing.assert_array_equal(WeightArray(tensors(rows), ARCHITECTURE), rows)


def test_runs_of_a_population_are_its_own():
    population = Population(networks(runs=np.repeat(np.arange(6), 2), steps=[1, 2] * 6))
    moved = PermutationAligner().fit_transform(population)
    np.testing.assert_array_equal(moved.runs, population.weights.runs)
    expected = PermutationAligner().fit_transform(population.weights)
    np.testing.assert_array_equal(moved, expected)


def test_state_dicts_need_their_activation():
    states = networks().state_dicts()
    with pytest.raises(InvalidInputError, match=r"from_state_dicts\(states, activation='relu'\)"):
        PermutationAligner().fit(states)
    moved = PermutationAligner(architecture=ARCHITECTURE).fit_transform(states)
    np.testing.assert_array_equal(moved, PermutationAligner().fit_transform(networks()))


class Convolution(nn.Module):
    """What is no nn.Sequential."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 3)

    def forward(self, x):
        return self.layer(x).relu()


@pytest.mark.parametrize(
    ("passed", "remedy"),
    [
        (lambda: sequential()[0], "one Sequential: pass a list"),
        (lambda: networks().state_dicts()[0], "one dict: pass a list"),
        (lambda: [Convolution() for _ in range(3)], "from_modules(modules, example_input=x)"),
        (lambda: "zoo.safetensors", "wsflow.load_population('zoo.safetensors').weights"),
        (lambda: ["zoo.pt", "two.pt"], "wsflow.load_population('zoo.pt').weights"),
        (lambda: [networks(), networks(seed=1)], "wsflow.concatenate"),
        (
            lambda: np.ma.masked_array(np.asarray(networks()), np.arange(276).reshape(12, 23) == 4),
            "network 0 has it in column 4",
        ),
        (lambda: torch.zeros(12, 23, device="meta"), "is a tensor without numbers"),
        (lambda: [Population(networks())], "wsflow.concatenate"),
    ],
    ids=["module", "state dict", "convolutions", "path", "paths", "arrays", "masked", "meta", "populations"],
)
@pytest.mark.parametrize("make", [make for make, _ in NAMES], ids=ESTIMATORS)
def test_what_is_no_population_says_what_to_pass(make, passed, remedy):
    with pytest.raises(InvalidInputError, match=re.escape(remedy)):
        make().fit(passed())


TASK = Task(np.random.default_rng(0).normal(size=(20, 4)), np.arange(20) % 2)
FUNCTIONS = {
    "merge": lambda p: wsflow.merge(p),
    "loss_barrier": lambda p: wsflow.loss_barrier(p, p, TASK, 3),
    "interpolate": lambda p: wsflow.interpolate(p, p, 0.5),
    "posterior_predictive": lambda p: wsflow.posterior_predictive(p, TASK).average,
    "predictive_curve": lambda p: wsflow.predictive_curve(p, TASK, (2,)).mean["nll"],
    "predict": lambda p: predict(p, TASK).losses,
    "novelty": lambda p: novelty(p, p, networks(seed=1, runs=range(50, 62)), TASK).value,
    "evaluate": lambda p: wsflow.evaluate(p, p, None, TASK, nulls=False).samples["loss"],
    "EnergyScorer": lambda p: EnergyScorer(TASK, 5)(WeightFlow("euclidean", **FAST).fit(networks()), p),
}


@pytest.mark.parametrize("call", FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions_of_networks_take_populations_and_say_what_else(call):
    np.testing.assert_array_equal(call(Population(networks(), TASK)), call(networks()))
    with pytest.raises(InvalidInputError, match=r"WeightArray\(array, architecture\)|plain rows"):
        call(np.asarray(networks()))


def test_a_missing_argument_is_said_by_the_function():
    with pytest.raises(TypeError, match=r"loss_barrier\(\) missing"):
        wsflow.loss_barrier(Population(networks()))


@pytest.mark.parametrize("task", [(TASK.X, TASK.y), "iris", TASK.X], ids=["pair", "name", "array"])
@pytest.mark.parametrize(
    "call",
    [
        lambda task: Population(networks(), task),
        lambda task: wsflow.train_population(task, (3,), 2),
        lambda task: predict(networks(), task),
        lambda task: wsflow.loss_barrier(networks(), networks(), task, 3),
        lambda task: WeightFlow(task=task, **FAST).fit(networks()),
        lambda task: EnergyScorer(task, 5)(WeightFlow("euclidean", **FAST).fit(networks()), networks()),
    ],
)
def test_what_is_no_task_says_what_to_pass(call, task):
    with pytest.raises(InvalidInputError, match=r"Task\(X, y\)"):
        call(task)


def test_an_array_is_saved_as_a_population(tmp_path):
    with pytest.raises(InvalidInputError, match=r"Population\(weights, task\)"):
        wsflow.save_population(networks(), tmp_path / "zoo.safetensors")


def test_populations_are_split_by_run():
    population = Population(networks(runs=np.repeat(np.arange(6), 2)), TASK)
    part = population[[0, 1, 6]]
    assert type(part) is Population and part.weights.runs.tolist() == [0, 0, 3] and part.task is TASK
    flow = WeightFlow("euclidean", **FAST)
    runs = population.weights.runs
    scores = [cross_val_score(flow, x, groups=runs, cv=GroupKFold(3)) for x in (population, population.weights)]
    np.testing.assert_array_equal(*scores)
    for key in (0, (0, 1), (slice(None), 3), None):
        with pytest.raises(InvalidInputError, match="indexed by rows"):
            population[key]


@pytest.mark.parametrize(
    ("rows", "few"),
    [
        (lambda: networks(3), "3 rows of 3 runs"),
        (lambda: networks(9), "9 rows of 9 runs"),
        (lambda: networks(40, runs=np.repeat([0, 1], 20)), "40 rows of 2 runs"),
        (lambda: networks(10), ""),
        (lambda: networks(40, runs=np.repeat(np.arange(10), 4)), ""),
    ],
)
def test_few_runs_are_said(rows, few):
    found = warned(lambda: WeightFlow("euclidean", **FAST).fit(rows()))
    assert [w.category for w in found] == [FewRunsWarning] * bool(few)
    assert not few or (few in str(found[0].message) and "about 16 for such networks" in str(found[0].message))


def test_few_rows_of_other_groups_are_said():
    found = warned(lambda: WeightFlow("euclidean", **FAST).fit(np.asarray(networks(40)), groups=np.repeat([0, 1], 20)))
    assert "40 rows of 2 runs" in str(found[0].message)


def test_the_command_line_says_it_too(tmp_path):
    wsflow.save_population(Population(networks(3)), tmp_path / "zoo.safetensors")
    options = ["--iterations", "1", "-p", "velocity=mlp", "-p", "velocity.width=8"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = CliRunner().invoke(
            main, ["fit", str(tmp_path / "zoo.safetensors"), "-o", str(tmp_path / "model.st"), *options]
        )
    assert done.exit_code == 0 and "3 rows of 3 runs" in done.stderr
    assert "training loss" in done.stdout and "validation" not in done.stdout
