"""Files of models: parameters, arrays and samples come back; nothing is ever pickled."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from safetensors.numpy import load_file
from saved import ARCHITECTURE, assert_refused, make_population
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Binarizer

from wsflow.architecture import Architecture
from wsflow.estimators.aligner import PermutationAligner
from wsflow.estimators.canonicalizer import ScaleCanonicalizer
from wsflow.estimators.flow import WeightFlow
from wsflow.estimators.sampling import sample
from wsflow.exceptions import InvalidInputError
from wsflow.flow.solvers import RungeKutta
from wsflow.models.options import NetworkGeometry, NeuronTransformer
from wsflow.persistence import classes, describe, load_model, models, save_model, save_population
from wsflow.persistence.format import KEY, read, write
from wsflow.populations import Population, load_task
from wsflow.task import Task


class Shift(TransformerMixin, BaseEstimator):
    """An estimator of the kind that wsflow saves."""

    def __init__(self, amount=1.0, widths=(3, 4), task=None, architecture=None, random_state=None, progress=None):
        self.amount = amount
        self.widths = widths
        self.task = task
        self.architecture = architecture
        self.random_state = random_state
        self.progress = progress

    def fit(self, X, y=None):
        self.mean_ = np.asarray(X).mean(axis=0)
        self.count_ = np.asarray(len(X))
        self.empty_ = np.zeros((0, 3))
        self.curve_ = [1.5, float("nan")]
        self.architecture_ = ARCHITECTURE
        self.range_ = (0, 1)
        return self

    def transform(self, X):
        return np.asarray(X) - self.mean_ + self.amount

    def _get_fitted(self):
        arrays = {"mean_": self.mean_, "count_": self.count_, "empty_": self.empty_}
        return arrays, {"curve_": self.curve_, "range_": self.range_, "architecture": self.architecture_.to_json()}

    def _set_fitted(self, arrays, data):
        self.architecture_ = Architecture.from_json(data["architecture"])
        self.curve_, self.range_ = data["curve_"], data["range_"]
        for name in ("mean_", "count_", "empty_"):
            setattr(self, name, arrays[name])


class Network(BaseEstimator):
    """An object that holds parameters, as a parameter of an estimator may be."""

    def __init__(self, width=16, inner=None):
        self.width = width
        self.inner = inner


class Impostor(Shift):
    """A class of its own, whatever its base."""


@pytest.fixture(autouse=True)
def shift_is_a_step(monkeypatch):
    monkeypatch.setitem(models.STEPS, "Shift", __name__)
    monkeypatch.setitem(classes.HOLDERS, "Network", __name__)


def fitted(**params: object) -> Shift:
    return Shift(**params).fit(np.random.default_rng(2).normal(size=(6, 27)))


@pytest.mark.parametrize("pipeline", [False, True])
def test_a_model_comes_back_with_parameters_arrays_and_values(tmp_path, pipeline):
    params = {
        "amount": np.float64(0.1), "widths": {"a": [(1, 2), float("inf")]}, "task": load_task("iris"),
        "architecture": ARCHITECTURE, "random_state": 3, "progress": print,
    }  # fmt: skip
    step = fitted(**params)
    model = make_pipeline(fitted(), step) if pipeline else step
    save_model(model, tmp_path / "model.st")
    loaded = load_model(tmp_path / "model.st")
    assert not pipeline or [name for name, _ in loaded.steps] == ["shift-1", "shift-2"]
    last = loaded[-1] if pipeline else loaded
    assert (last.amount, last.widths, last.architecture) == (0.1, params["widths"], ARCHITECTURE)
    assert (
        last.random_state == 3
        and last.progress is None
        and last.range_ == (0, 1)
        and last.task.checksum == params["task"].checksum
    )
    assert last.mean_.tobytes() == step.mean_.tobytes() and last.mean_.dtype == np.float64
    assert (last.count_.shape, last.count_, last.empty_.shape) == ((), 6, (0, 3))
    assert last.architecture_ == ARCHITECTURE and last.curve_[0] == 1.5 and np.isnan(last.curve_[1])
    X = np.random.default_rng(3).normal(size=(4, 27))
    np.testing.assert_array_equal(loaded.transform(X), model.transform(X))
    save_model(loaded, tmp_path / "again.st")
    assert (tmp_path / "again.st").read_bytes() == (tmp_path / "model.st").read_bytes()
    assert set(load_file(tmp_path / "model.st")) >= {"shift-2.mean_" if pipeline else "shift.mean_"}


def test_a_models_task_without_source_is_saved_with_its_data(tmp_path):
    task = Task(np.eye(4), [0, 1, 2, 0], validation=Task(np.eye(4), [0, 1, 2, 0]))
    save_model(fitted(task=task), tmp_path / "model.st")
    assert load_model(tmp_path / "model.st").task.checksum == task.checksum


def test_a_model_is_described_by_its_header(tmp_path):
    save_model(make_pipeline(fitted(task=load_task("iris"), amount=2)), tmp_path / "model.st")
    description = describe(tmp_path / "model.st")
    assert description["architecture"] == "4-3-3 relu (27 weights)"
    assert description["steps"][0]["class"] == "Shift"
    assert description["steps"][0]["params"]["widths"] == [3, 4]
    assert description["steps"][0]["params"]["task"]["name"] == "iris"
    json.dumps(description, allow_nan=False)


def test_objects_that_hold_parameters_come_back_and_are_described(tmp_path):
    save_model(fitted(amount=Network(width=np.int64(8), inner=Network(inner=np.ones(3)))), tmp_path / "model.st")
    amount = load_model(tmp_path / "model.st").amount
    assert type(amount) is Network and (amount.width, amount.inner.width) == (8, 16)
    np.testing.assert_array_equal(amount.inner.inner, np.ones(3))
    params = describe(tmp_path / "model.st")["steps"][0]["params"]
    assert params["amount"]["class"] == "Network" and params["amount"]["width"] == 8


def test_parameters_of_an_older_version_are_migrated(tmp_path, monkeypatch):
    save_model(fitted(amount=Network(width=8)), tmp_path / "model.st")
    monkeypatch.setitem(models.MIGRATIONS, "Network", lambda params: {**params, "width": params["width"] + 1})
    monkeypatch.setitem(models.MIGRATIONS, "Shift", lambda params: {**params, "widths": params["amount"].width})
    loaded = load_model(tmp_path / "model.st")
    assert (loaded.amount.width, loaded.widths) == (9, 9)


def test_classes_of_parameters_that_are_not_in_the_table_are_refused(tmp_path, monkeypatch):
    save_model(fitted(amount=Network()), tmp_path / "model.st")
    monkeypatch.delitem(classes.HOLDERS, "Network")
    assert_refused(tmp_path / "model.st", "the class 'Network' of a parameter is unknown", load_model)
    with pytest.raises(InvalidInputError, match=r"'shift\.params\.amount' is of the type Network"):
        save_model(fitted(amount=Network()), tmp_path / "other.st")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Binarizer(), "'binarizer' is Binarizer, which wsflow does not save"),
        ("passthrough", "is 'passthrough'"),
        (make_pipeline(Shift()), "is Pipeline"),
        (Impostor(), "is Impostor"),
        (Shift(), "not fitted"),
        (fitted(random_state=np.random.RandomState(0)), "'random_state' of Shift is a RandomState"),
        (fitted(amount=object()), "'shift.params.amount' is of the type object"),
        (fitted(widths={"$tuple": 3}), "is of the type dict"),
    ],
)
def test_what_is_not_wsflows_is_refused_by_name(tmp_path, step, message):
    with pytest.raises(InvalidInputError, match=message):
        save_model(make_pipeline(step), tmp_path / "model.st")
    assert not list(tmp_path.iterdir())


def test_arrays_of_objects_are_never_pickled(tmp_path):
    step = fitted()
    step.mean_ = np.array([object()])
    with pytest.raises(InvalidInputError, match=r"'shift\.mean_' of dtype object"):
        save_model(step, tmp_path / "model.st")


def test_names_that_would_collide_are_refused(tmp_path):
    step = fitted()
    step._get_fitted = lambda: ({"params.amount": np.zeros(1)}, {})
    step.amount = np.ones(2)
    with pytest.raises(InvalidInputError, match=r"'shift\.params\.amount'"):
        save_model(step, tmp_path / "model.st")


def test_a_population_is_no_model_and_a_model_no_population(tmp_path):
    save_model(fitted(), tmp_path / "model.st")
    assert_refused(tmp_path / "model.st", "is a model, not a population")
    save_population(make_population(), tmp_path / "zoo.safetensors")
    assert_refused(tmp_path / "zoo.safetensors", "is a population, not a model", load_model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda step: step.update({"class": "os.system"}), "'os.system', which this wsflow does not have"),
        (lambda step: step["params"].update(colour=1), "colour"),
        (lambda step: step.pop("data"), "'steps.0.data' is missing"),
        (lambda step: step.update(arrays=["variance_"]), "'shift.variance_' is missing"),
        (
            lambda step: step["params"].update(amount={"$pickle": "x"}),
            "'steps.0.params.amount' should have one of the keys",
        ),
        (lambda step: step.clear(), "'steps.0.name' is missing"),
    ],
)
def test_models_of_another_version_are_refused(tmp_path, change, message):
    save_model(fitted(), tmp_path / "model.st")
    tensors, data = read(tmp_path / "model.st", "model")
    change(data["steps"][0])
    write(tmp_path / "model.st", "model", tensors, data)
    assert_refused(tmp_path / "model.st", message, load_model)


def test_every_bit_of_a_model_is_checked(tmp_path):
    save_model(fitted(), tmp_path / "model.st")
    content = (tmp_path / "model.st").read_bytes()
    for position in range(8, len(content), 97):
        flipped = bytearray(content)
        flipped[position] ^= 4
        (tmp_path / "model.st").write_bytes(flipped)
        with pytest.raises(InvalidInputError), warnings.catch_warnings():
            load_model(tmp_path / "model.st")
    assert KEY in json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]


def pipeline_for(population: Population, **settings: object):
    flow = WeightFlow(
        max_iter=3,
        random_state=0,
        velocity=NeuronTransformer(width=16, depth=1),
        solver=RungeKutta(n_steps=2),
        **settings,
    )
    return make_pipeline(PermutationAligner(), ScaleCanonicalizer(), flow).fit(population.weights)


@pytest.mark.parametrize(
    "settings",
    [{}, {"geometry": "euclidean", "source": "isotropic"}, {"geometry": NetworkGeometry(last_layer="polar")}],
)
def test_a_loaded_pipeline_samples_and_scores_the_same(tmp_path, settings):
    population = make_population(20)
    model = pipeline_for(population, progress=lambda done, total: None, **settings)
    save_model(model, tmp_path / "model.st")
    loaded = load_model(tmp_path / "model.st")
    expected, new = (sample(m, 3, random_state=1) for m in (model, loaded))
    assert new.architecture == ARCHITECTURE and np.asarray(new).tobytes() == np.asarray(expected).tobytes()
    rows = population.weights[:2]
    np.testing.assert_array_equal(loaded.score_samples(rows), model.score_samples(rows))
    assert describe(tmp_path / "model.st")["architecture"] == str(ARCHITECTURE)


def test_a_pipeline_samples_the_same_when_its_tasks_data_are_gone(tmp_path):
    data = tmp_path / "data.csv"
    data.write_text("\n".join(f"{i},{i % 5},{i % 2},{i % 7},{i % 3}" for i in range(30)))
    model = pipeline_for(make_population(20), task=load_task(data))
    save_model(model, tmp_path / "model.st")
    data.unlink()
    with pytest.warns(UserWarning, match="its task was not loaded"):
        loaded = load_model(tmp_path / "model.st")
    np.testing.assert_array_equal(sample(loaded, 3, random_state=1), sample(model, 3, random_state=1))
