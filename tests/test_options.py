"""The parameter objects of WeightFlow: as scikit-learn's parameters are, and the strings that stand for them."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from wsflow import Architecture, Task, WeightArray, WeightFlow
from wsflow.models.options import (
    AUTOMATIC,
    CHOICES,
    DEFAULTS,
    MLP,
    OTHERS,
    STRINGS,
    GaussianSource,
    NeuronTransformer,
    classes_of,
    resolved,
)
from wsflow.models.settings import settings_of
from wsflow.options import Options
from wsflow.persistence.classes import HOLDERS

# each object once, with the parameter that it is
OBJECTS = {f"{name}-{kind.__name__}": (name, kind) for name in CHOICES for kind in classes_of(name)}
NAMED = [(name, text) for name, row in CHOICES.items() for text in row]
# what no parameter takes
WRONG = -3.5
NETWORK = Architecture.mlp([3, 4, 2])


def networks(n: int = 24) -> WeightArray:
    return WeightArray(np.random.default_rng(0).normal(size=(n, NETWORK.n_weights)), NETWORK)


def parameters() -> list[str]:
    return [name for name in inspect.signature(WeightFlow).parameters]


@pytest.mark.parametrize(("name", "kind"), OBJECTS.values(), ids=OBJECTS)
class TestEveryObject:
    """What all of them do."""

    def test_it_is_cloned(self, name, kind):
        value = kind()
        flow = WeightFlow(**{name: value})
        for copied in (clone(value), getattr(clone(flow), name)):
            assert type(copied) is kind and copied == value and copied is not value

    def test_parameters_are_got_and_set(self, name, kind):
        value = kind()
        value.check()
        params = value.get_params()
        assert list(params) == list(inspect.signature(kind).parameters)
        assert kind(**params) == value
        for key in params:
            assert value.set_params(**{key: WRONG}) is value and getattr(value, key) == WRONG
        flow = WeightFlow(**{name: kind()})
        for key in params:
            assert flow.get_params()[f"{name}__{key}"] == params[key]
            flow.set_params(**{f"{name}__{key}": WRONG})
            assert getattr(getattr(flow, name), key) == WRONG

    def test_it_shows_its_parameters(self, name, kind):
        value = kind()
        shown = ", ".join(f"{key}={default!r}" for key, default in value.get_params().items())
        assert repr(value) == f"{kind.__name__}({shown})"
        assert eval(repr(value), {kind.__name__: kind}) == value
        assert f"{name}={kind.__name__}(" in "".join(repr(WeightFlow(**{name: value})).split())

    def test_an_unknown_parameter_is_named_with_those_it_has(self, name, kind):
        with pytest.raises(ValueError, match=f"{kind.__name__} has no parameter 'colour'; its parameters are"):
            kind().set_params(colour=3)
        with pytest.raises(TypeError, match="colour"):
            kind(colour=3)
        with pytest.raises(ValueError, match=f"{kind.__name__} has no parameter 'colour'"):
            WeightFlow(**{name: kind()}).set_params(**{f"{name}__colour": 3})

    def test_a_wrong_value_is_named_when_the_flow_is_fitted(self, name, kind):
        """Not when it is set, so that parameters may be set in any order."""
        for key in kind().get_params():
            flow = WeightFlow(**{name: kind(**{key: WRONG})})
            with pytest.raises(ValueError, match=rf"'{key}'.* of (a )?{kind.__name__} .*(got|Got) -3\.5"):
                flow.fit(networks())

    def test_it_is_saved(self, name, kind):
        assert kind.__name__ in HOLDERS

    def test_it_says_what_it_is(self, name, kind):
        documented = " ".join(parent.__doc__ or "" for parent in kind.__mro__)
        for key in kind().get_params():
            assert key in documented


@pytest.mark.parametrize(("name", "text"), NAMED, ids=["-".join(row) for row in NAMED])
def test_a_string_stands_for_an_object_with_its_defaults(name, text):
    value = resolved(name, text)
    assert isinstance(value, Options) and value == CHOICES[name][text]() and value == resolved(name, value)
    # all but the parameter that the string names
    different = [key for key, default in value.get_params().items() if default != type(value)().get_params()[key]]
    assert all(value.get_params()[key] == text for key in different)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"velocity": "auto"}, {"velocity": NeuronTransformer()}),
        ({"source": "gaussian"}, {"source": GaussianSource()}),
        ({"geometry": "euclidean"}, {"geometry": resolved("geometry", "euclidean")}),
    ],
)
def test_a_flow_does_not_tell_them_apart(one, other):
    settings = {"geometry": "euclidean", "max_iter": 2, "random_state": 0}
    first, second = (WeightFlow(**settings | changes).fit(networks()).sample(3, 0) for changes in (one, other))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("name", CHOICES)
def test_what_is_neither_is_refused_with_what_there_is(name):
    for value in ("colour", 3, object(), Options):
        flow = WeightFlow(**{name: value})
        with pytest.raises(ValueError, match=f"The '{name}' parameter of WeightFlow is one of") as caught:
            flow.fit(networks())
        said = str(caught.value)
        assert all(repr(text) in said for text in (*OTHERS.get(name, ()), *CHOICES[name]))
        assert all(kind.__name__ in said for kind in classes_of(name))


def test_objects_of_another_parameter_are_refused():
    for name in CHOICES:
        others = [kind for key in CHOICES if key != name for kind in classes_of(key)]
        for kind in set(others) - set(classes_of(name)):
            with pytest.raises(ValueError, match=f"The '{name}' parameter of WeightFlow"):
                resolved(name, kind())


def test_heads_share_the_width():
    with pytest.raises(ValueError, match="The 'width' of NeuronTransformer is a multiple of its 'heads', got 10 and 4"):
        WeightFlow(velocity=NeuronTransformer(width=10)).fit(networks())


def test_parameters_of_an_object_are_set_through_the_flow():
    flow = WeightFlow(velocity=NeuronTransformer()).set_params(velocity__width=32, velocity__identity=None)
    assert flow.velocity == NeuronTransformer(width=32, identity=None)
    assert flow.set_params(velocity=MLP(), velocity__depth=1).velocity == MLP(depth=1)


def test_what_auto_stands_for_is_in_the_tables():
    for name, make in AUTOMATIC.items():
        assert "auto" in OTHERS[name] and isinstance(make(), classes_of(name))
    assert set(OTHERS) <= set(CHOICES) <= set(parameters())


def test_settings_have_the_defaults_of_the_flow():
    assert {name: WeightFlow().get_params()[name] for name in DEFAULTS} == DEFAULTS
    rest = {"architecture", "device", "n_jobs", "random_state", "progress"}
    rest |= {"checkpoint", "checkpoint_every", "warm_start"}
    assert set(parameters()) == set(DEFAULTS) | rest and set(DEFAULTS) == {*CHOICES, *STRINGS, "task", "max_iter"}
    with pytest.raises(ValueError, match="has no parameter 'width'; it has geometry, velocity,"):
        settings_of(width=8)


def test_a_flow_has_few_parameters():
    assert len(parameters()) <= 21
    assert all(isinstance(value, (str, int, type(None))) for value in WeightFlow().get_params().values())


def test_a_grid_search_reaches_into_objects():
    flow = WeightFlow(velocity=NeuronTransformer(8, 1, 2), max_iter=3, random_state=0, geometry="euclidean")
    grid = {"velocity__width": [4, 8], "source": ["isotropic", GaussianSource(0.5)]}
    search = GridSearchCV(flow, grid, cv=2, error_score="raise").fit(networks())
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all() and len(set(scores)) == 4
    assert search.best_estimator_.velocity.width == search.best_params_["velocity__width"]
    assert flow.velocity == NeuronTransformer(8, 1, 2)


def test_fitting_leaves_the_parameters_as_they_are():
    rng = np.random.default_rng(1)
    task = Task(rng.normal(size=(20, 3)), rng.integers(2, size=20))
    flow = WeightFlow(task=task, geometry="euclidean", max_iter=1, random_state=0)
    before = flow.get_params()
    flow.fit(networks())
    assert all(flow.get_params()[name] is value for name, value in before.items())
