"""Estimators that are fitted to a DataFrame check the names of its columns, as those of scikit-learn do."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

import wsflow
from wsflow import Architecture, PermutationAligner, ScaleCanonicalizer, WeightArray, WeightFlow
from wsflow.models.options import MLP, NeuronTransformer

pd = pytest.importorskip("pandas")
ARCHITECTURE = Architecture.mlp([2, 3, 1])
FRAME = pd.DataFrame(
    np.random.default_rng(0).normal(size=(12, ARCHITECTURE.n_weights)),
    columns=[f"w{i}" for i in range(ARCHITECTURE.n_weights)],
)
SMALL = {"max_iter": 2, "random_state": 0}
ESTIMATORS = {
    "aligner": lambda: PermutationAligner(architecture=ARCHITECTURE),
    "canonicalizer": lambda: ScaleCanonicalizer(architecture=ARCHITECTURE),
    "flow over networks": lambda: WeightFlow(
        "euclidean", architecture=ARCHITECTURE, velocity=NeuronTransformer(8, 1, 2), **SMALL
    ),
    "flow over vectors": lambda: WeightFlow("euclidean", velocity=MLP(8, 1), **SMALL),
    "pipeline": lambda: make_pipeline(
        PermutationAligner(architecture=ARCHITECTURE),
        ScaleCanonicalizer(architecture=ARCHITECTURE),
        WeightFlow(architecture=ARCHITECTURE, velocity=NeuronTransformer(8, 1, 2), **SMALL),
    ),
}
WRONG = {
    "reversed": FRAME[FRAME.columns[::-1]],
    "two exchanged": FRAME[[*FRAME.columns[1::-1], *FRAME.columns[2:]]],
    "renamed": FRAME.rename(columns={"w0": "bias"}),
}


def uses(estimator):
    return [getattr(estimator, name) for name in ("transform", "score_samples") if hasattr(estimator, name)]


def loaded(estimator, folder):
    wsflow.save_model(estimator, folder / "model.st")
    return wsflow.load_model(folder / "model.st")


@pytest.fixture(scope="module", params=ESTIMATORS)
def fitted(request):
    return ESTIMATORS[request.param]().fit(FRAME)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("again", [lambda model, _: model, loaded], ids=["as fitted", "loaded"])
def test_columns_of_other_names_or_in_another_order_are_refused(fitted, wrong, again, tmp_path):
    model = again(fitted, tmp_path)
    assert list(model.feature_names_in_) == list(FRAME.columns)
    for use in uses(model):
        with pytest.raises(ValueError, match=r"feature names should match"):
            use(WRONG[wrong])


@pytest.mark.parametrize("again", [lambda model, _: model, loaded], ids=["as fitted", "loaded"])
def test_the_same_columns_pass_and_an_array_without_names_is_warned_of(fitted, again, tmp_path):
    model = again(fitted, tmp_path)
    for use in uses(model):
        with pytest.warns(UserWarning, match="X does not have valid feature names"):
            from_array = use(FRAME.to_numpy())
        np.testing.assert_array_equal(np.asarray(use(FRAME)), np.asarray(from_array))


def test_networks_need_no_names_and_samples_have_none(fitted, recwarn):
    networks = WeightArray(FRAME.to_numpy(), ARCHITECTURE)
    for use in uses(fitted):
        use(networks)
    if hasattr(fitted, "inverse_transform"):
        fitted.inverse_transform(FRAME.to_numpy())
        with pytest.raises(ValueError, match="feature names should match"):
            fitted.inverse_transform(WRONG["reversed"])
    else:
        wsflow.sample(fitted, 2, random_state=0)
    assert not [warning for warning in recwarn if re.search("feature names", str(warning.message))]


def test_without_names_nothing_is_checked():
    model = ESTIMATORS["flow over vectors"]().fit(FRAME.to_numpy())
    assert not hasattr(model, "feature_names_in_")
