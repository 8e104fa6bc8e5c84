"""Devices: what is trained, sampled and scored on another one has the numbers of the CPU; nothing is left behind."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from second_device import NAME, SecondDevice, crossed
from torch import nn

import wsflow
from wsflow import (
    Architecture,
    MetaAutoencoder,
    MetaClassifier,
    MetaRegressor,
    ScaleCanonicalizer,
    VariationalNetwork,
    WeightFlow,
)
from wsflow.devices import placed, resolved_device
from wsflow.models.metanetworks import METANETWORKS
from wsflow.models.options import MLP, AdamW, ConsensusHints, EnergyMatching, NeuronTransformer

SMALL: dict[str, Any] = {"velocity": NeuronTransformer(8, 1, 2), "training": AdamW(batch_size=8, patience=None)}
SMALL |= {"max_iter": 8, "random_state": 0}


@pytest.fixture(scope="module")
def iris():
    return wsflow.load_task("iris")


@pytest.fixture(scope="module")
def weights(iris):
    trained = wsflow.train_population(iris, (3,), 16, epochs=1).weights
    return ScaleCanonicalizer().fit_transform(trained)


def test_the_second_device_refuses_what_a_gpu_refuses():
    with SecondDevice():
        x = torch.ones(2, 3, device=NAME)
        assert x.device.type == NAME
        for wrong in (lambda: x + torch.ones(2, 3), lambda: x[torch.tensor([0])], lambda: x.numpy()):
            with pytest.raises(RuntimeError):
                wrong()
        layer = nn.Linear(3, 1).to(NAME)
        layer(x).sum().backward()
        assert layer.weight.grad.device.type == NAME
        assert dict(crossed) == {"there": 2}
        assert float(x.sum()) == 6 and crossed["back"] == 1


FLOWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "isotropic": {"source": "isotropic", "coupling": "ot", "geometry": "euclidean"},
    "exchangeable": {"source": "exchangeable", "velocity": NeuronTransformer(8, 1, 2, identity=None)},
    "orbit": {"coupling": "orbit"},
    "drawn": {"source": "initialisation"},
    "normalized": {"geometry": "normalized"},
    "relational": {"velocity": "relational", "max_iter": 2},
    "mlp": {"velocity": "mlp", "max_iter": 2},
    "dopri5": {"solver": "dopri5"},
    "task": {"hints": ConsensusHints(16), "energy": EnergyMatching(n_steps=2), "metric": "euclidean"},
    "conditional": {"condition": "scalar"},
    "label": {"condition": "label"},
}


def results(name: str, weights: Any, iris: Any, device: str) -> dict[str, Any]:
    changes = {**SMALL, **FLOWS[name], **({"task": iris} if name == "task" else {})}
    y = np.arange(len(weights)) % 3
    flow = WeightFlow(**{**changes, "device": device}).fit(weights, y)
    options = {} if "condition" not in changes else {"condition": 1}
    found = {
        "loss": flow.history_.train + flow.history_.validation + flow.history_.energy,
        "samples": np.asarray(flow.sample(3, random_state=0, **options)),
    }
    if name in ("plain", "isotropic", "exchangeable", "dopri5"):
        found["scores"] = flow.score_samples(weights[:3])
        found["log-densities"] = flow.sample(3, random_state=0, return_log_prob=True)[1]
    if name == "plain":
        found["guided"] = np.asarray(flow.sample(3, random_state=0, guidance=iris))
        found["trajectories"] = flow.trajectories(2, random_state=0)[1]
        found["noisy"] = np.asarray(flow.sample(3, random_state=0, noise=0.5, temperature=0.5))
    if name in ("plain", "exchangeable"):
        found["wide"] = np.asarray(flow.sample(2, random_state=0, architecture=Architecture.mlp([4, 6, 3])))
    assert flow.velocity_.device.type == ("cpu" if device == "cpu" else NAME)
    return found


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_on_another_device_has_the_same_numbers(name, weights, iris):
    alone = results(name, weights, iris, "cpu")
    with SecondDevice():
        there = results(name, weights, iris, NAME)
    assert alone.keys() == there.keys()
    for key, values in alone.items():
        np.testing.assert_allclose(there[key], values, rtol=1e-4, atol=1e-4, err_msg=key)


@pytest.mark.parametrize(("name", "there"), [("plain", 5), ("task", 5)])
def test_a_training_step_waits_for_the_device_once(name, there, weights, iris):
    changes = {**SMALL, **FLOWS[name], **({"task": iris, "energy": None} if name == "task" else {})}
    steps: list[dict[str, int]] = []
    with SecondDevice():
        WeightFlow(**changes, device=NAME, progress=lambda done, total: steps.append(dict(crossed))).fit(weights)
    pairs = list(pairwise(steps))[2:-1]
    each = [{key: after[key] - before[key] for key in after} for before, after in pairs]
    # points, two kinds of random numbers and times go there, and the number of steps, which the average counts
    assert each == 4 * [{"there": there, "back": 1}]


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "sgld"])
def test_a_population_is_trained_on_another_device(iris, optimizer):
    settings: dict[str, Any] = {"n_runs": 3, "epochs": 2, "optimizer": optimizer, "learning_rate": (1e-3, 1e-2)}
    alone = wsflow.train_population(iris, (4,), **settings)
    with SecondDevice():
        there = wsflow.train_population(iris, (4,), device=NAME, **settings)
    np.testing.assert_allclose(there.weights, alone.weights, atol=1e-6)


def test_a_model_opens_on_another_device(weights, tmp_path):
    with SecondDevice():
        flow = WeightFlow(**SMALL, device=NAME).fit(weights)
        wsflow.save_model(flow, tmp_path / "flow.st")
        there = np.asarray(flow.sample(3, random_state=0))
    here = wsflow.load_model(tmp_path / "flow.st")
    assert here.device == "auto"
    np.testing.assert_allclose(here.sample(3, random_state=0), there, atol=1e-5)
    with SecondDevice():
        back = here.set_params(device=NAME).sample(3, random_state=0)
        assert here.velocity_.device.type == NAME
    np.testing.assert_allclose(back, there, atol=1e-5)
    here.set_params(device="cpu")
    with SecondDevice():
        here.sample(1)
    assert here.velocity_.device.type == "cpu"


def test_a_checkpoint_is_taken_up_on_another_device(weights, tmp_path):
    alone = WeightFlow(**SMALL).fit(weights)
    with SecondDevice():
        with pytest.raises(KeyboardInterrupt):
            WeightFlow(**SMALL, device=NAME, checkpoint=tmp_path, checkpoint_every=4, progress=_stopping).fit(weights)
        there = WeightFlow(**SMALL, device=NAME, checkpoint=tmp_path).fit(weights)
    np.testing.assert_allclose(there.history_.train, alone.history_.train, rtol=1e-5)


def _stopping(done: int, total: int) -> None:
    if done == 6:
        raise KeyboardInterrupt


def test_a_table_is_moved_once():
    index = torch.arange(3)
    with SecondDevice():
        device = torch.device(NAME)
        assert placed(index, device) is placed(index, device)
        assert crossed["there"] == 1
    assert placed(index, torch.device("cpu")) is index


@pytest.mark.parametrize("device", ["nowhere", "cuda:99", 3.5, None])
def test_devices_that_are_not_there_are_refused(device, weights, iris):
    with pytest.raises(ValueError, match=r"The 'device' of WeightFlow is .*, where nothing can be computed"):
        WeightFlow(device=device).fit(weights)
    with pytest.raises(ValueError, match="The 'device' of train_population is"):
        wsflow.train_population(iris, (4,), 2, device=device)


def test_automatic_is_the_cpu():
    assert resolved_device("auto", "WeightFlow") == torch.device("cpu")


def without_dropout(name: str) -> Any:
    """A small metanetwork: dropout draws other numbers on other devices."""
    sizes = {"width": 8, "depth": 1, "dropout": 0.0}
    sizes |= {"identity": None, "heads": 2} if name in ("neuron", "relational") else {}
    return getattr(METANETWORKS[name], "func", METANETWORKS[name])(**sizes)


@pytest.mark.parametrize("name", METANETWORKS)
def test_a_predictor_on_another_device_has_the_same_numbers(name, weights):
    y = np.asarray(weights).std(1)
    settings: dict[str, Any] = {"metanetwork": without_dropout(name), "max_iter": 4, "random_state": 0}
    alone = MetaRegressor(**settings).fit(weights, y)
    with SecondDevice():
        there = MetaRegressor(**settings, device=NAME).fit(weights, y)
        predicted, intervals = there.predict(weights), there.predict_interval(weights, 0.5)
        assert next(there.model_.parameters()).device.type == NAME
    np.testing.assert_allclose(there.history_[0].validation, alone.history_[0].validation, rtol=1e-4)
    np.testing.assert_allclose(predicted, alone.predict(weights), rtol=1e-4)
    np.testing.assert_allclose(intervals, alone.predict_interval(weights, 0.5), rtol=1e-3, atol=1e-5)


def test_a_classifier_on_another_device_is_saved_and_opens_here(weights, tmp_path):
    y = np.arange(len(weights)) % 2
    settings: dict[str, Any] = {"metanetwork": without_dropout("deep_sets"), "max_iter": 4, "random_state": 0}
    with SecondDevice():
        there = MetaClassifier(**settings, device=NAME).fit(weights, y)
        wsflow.save_model(there, tmp_path / "classifier.st")
        predicted = there.predict_proba(weights)
    np.testing.assert_allclose(predicted, MetaClassifier(**settings).fit(weights, y).predict_proba(weights), rtol=1e-4)
    here = wsflow.load_model(tmp_path / "classifier.st")
    assert here.device == "auto"
    np.testing.assert_allclose(here.predict_proba(weights), predicted, rtol=1e-6)


@pytest.mark.parametrize("name", ["probe", "neuron"])
def test_an_autoencoder_on_another_device_has_the_same_numbers(name, weights, iris):
    settings: dict[str, Any] = {"metanetwork": without_dropout(name), "decoder": MLP(8, 1), "max_iter": 4}
    settings |= {"task": iris, "noise": 0.1, "random_state": 0}

    def numbers(device: str) -> dict[str, Any]:
        model = MetaAutoencoder(3, **settings, device=device).fit(weights)
        latents = model.transform(weights)
        found = {"latents": latents, "networks": np.asarray(model.inverse_transform(latents))}
        return {**found, "loss": model.history_.train, "divergence": model.reconstruction_loss(weights)}

    alone = numbers("cpu")
    with SecondDevice():
        there = numbers(NAME)
    for key, values in alone.items():
        np.testing.assert_allclose(there[key], values, rtol=1e-3, atol=1e-4, err_msg=key)


@pytest.mark.parametrize("architecture", [None, "normed"])
def test_a_variational_network_on_another_device_has_the_same_numbers(architecture, iris):
    if architecture is not None:
        module = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
        architecture = Architecture.from_module(module, torch.randn(8, 4))
    settings: dict[str, Any] = {"architecture": architecture, "rank": 2, "max_iter": 6, "random_state": 0}
    alone = VariationalNetwork(**settings).fit(iris.X, iris.y)
    with SecondDevice():
        there = VariationalNetwork(**settings, device=NAME).fit(iris.X, iris.y)
    np.testing.assert_allclose(there.history_.train, alone.history_.train, rtol=1e-4)
    np.testing.assert_allclose(there.predict_proba(iris.X), alone.predict_proba(iris.X), atol=1e-4)


@pytest.mark.parametrize("estimator", [MetaRegressor, MetaAutoencoder, VariationalNetwork])
def test_other_estimators_refuse_devices_that_are_not_there(estimator, weights):
    with pytest.raises(ValueError, match=f"The 'device' of {estimator.__name__} is .*, where nothing can be computed"):
        estimator(device="cuda:99").fit(weights, np.arange(len(weights)))
