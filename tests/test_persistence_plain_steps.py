"""Pipelines with scikit-learn's plain steps are saved, load to the same numbers, and name what they do not know."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

import wsflow
from wsflow import Architecture, WeightArray, WeightFlow
from wsflow.exceptions import InvalidInputError
from wsflow.flow.solvers import RungeKutta
from wsflow.models.options import MLP
from wsflow.persistence.plain_steps import PLAIN_STEPS, PlainStep

X = np.random.default_rng(0).normal(loc=2, scale=[0.01, 1, 50, 3, 1], size=(40, 5))
STEPS = {
    "standard": lambda: StandardScaler(),
    "standard, no mean": lambda: StandardScaler(with_mean=False),
    "standard, no scale": lambda: StandardScaler(with_std=False),
    "min-max": lambda: MinMaxScaler((-1, 2), clip=True),
    "max-abs": lambda: MaxAbsScaler(),
    "robust": lambda: RobustScaler(quantile_range=(10.0, 90.0)),
    "robust, no centre": lambda: RobustScaler(with_centering=False),
    "pca": lambda: PCA(3),
    "pca, whitened": lambda: PCA(0.99, whiten=True),
    "pca, randomized": lambda: PCA(2, svd_solver="randomized", random_state=0),
    "svd": lambda: TruncatedSVD(2, random_state=0),
}
FLOW = {"velocity": MLP(8, 1), "max_iter": 2, "solver": RungeKutta(n_steps=2), "random_state": 0}


def again(model, folder):
    wsflow.save_model(model, folder / "model.st")
    return wsflow.load_model(folder / "model.st")


@pytest.mark.parametrize("make", STEPS.values(), ids=STEPS)
class TestEveryStep:
    def test_it_transforms_and_goes_back_to_the_same_bits(self, make, tmp_path):
        step = make().fit(X)
        loaded = again(step, tmp_path)
        assert type(loaded) is type(step) and loaded.get_params() == step.get_params()
        np.testing.assert_array_equal(loaded.transform(X), step.transform(X))
        np.testing.assert_array_equal(
            loaded.inverse_transform(step.transform(X)), step.inverse_transform(step.transform(X))
        )

    def test_all_that_fit_made_for_users_is_there(self, make, tmp_path):
        step = make().fit(X)
        loaded = again(step, tmp_path)
        for name in (name for name in vars(step) if name.endswith("_") and not name.startswith("_")):
            np.testing.assert_array_equal(getattr(loaded, name), getattr(step, name))

    def test_a_pipeline_samples_the_same(self, make, tmp_path):
        model = make_pipeline(make(), WeightFlow("euclidean", **FLOW)).fit(X)
        loaded = again(model, tmp_path)
        expected = wsflow.sample(model, 4, random_state=0)
        assert expected.shape == (4, 5)
        np.testing.assert_array_equal(wsflow.sample(loaded, 4, random_state=0), expected)
        np.testing.assert_array_equal(loaded.score_samples(X), model.score_samples(X))


def test_every_row_of_the_table_is_tested():
    assert {type(make()).__name__ for make in STEPS.values()} == set(PLAIN_STEPS)


def test_networks_go_through_a_scaler(tmp_path):
    architecture = Architecture.mlp([2, 3, 1])
    weights = WeightArray(np.random.default_rng(0).normal(size=(30, 13)), architecture)
    model = make_pipeline(
        wsflow.PermutationAligner(), StandardScaler(), WeightFlow("euclidean", architecture=architecture, **FLOW)
    ).fit(weights)
    new = wsflow.sample(again(model, tmp_path), 3, random_state=0)
    assert type(new) is WeightArray and new.architecture == architecture
    np.testing.assert_array_equal(new, wsflow.sample(model, 3, random_state=0))


def test_names_of_columns_are_kept(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=list("abcde"))
    loaded = again(StandardScaler().fit(frame), tmp_path)
    assert loaded.get_feature_names_out().tolist() == list("abcde")
    with pytest.raises(ValueError, match="feature names"):
        loaded.transform(frame[list("edcba")])


class Subclass(StandardScaler):
    """What may do anything in its transform."""


class PCAlike:
    """A namesake."""


PCAlike.__name__ = "PCA"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda: Subclass().fit(X), "is Subclass, which wsflow does not save"),
        (lambda: PCAlike(), "is PCA, which wsflow does not save"),
        (lambda: StandardScaler(), "is not fitted"),
        (lambda: PCA(2, random_state=np.random.RandomState(0)).fit(X), "'random_state' of PCA is a RandomState"),
    ],
)
def test_what_is_not_plain_is_refused(step, message, tmp_path):
    with pytest.raises(InvalidInputError, match=message):
        wsflow.save_model(step(), tmp_path / "model.st")
    assert not list(tmp_path.iterdir())


def test_another_version_of_a_row_is_told(tmp_path, monkeypatch):
    wsflow.save_model(StandardScaler().fit(X), tmp_path / "model.st")
    row = PLAIN_STEPS["StandardScaler"]
    monkeypatch.setitem(PLAIN_STEPS, "StandardScaler", PlainStep(row.home, row.fitted, 2))
    with pytest.raises(InvalidInputError, match=r"model\.st: a StandardScaler of version 1, .* reads version 2"):
        wsflow.load_model(tmp_path / "model.st")
    monkeypatch.setitem(PLAIN_STEPS, "StandardScaler", PlainStep(row.home, (*row.fitted, "other_")))
    with pytest.raises(InvalidInputError, match="a StandardScaler of version 1"):
        wsflow.load_model(tmp_path / "model.st")
