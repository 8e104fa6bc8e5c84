"""Files that wsflow 0.1 wrote are opened, and mean what they meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import wsflow
from wsflow.models.options import EnergyMatching, ExchangeableSource, LabelCondition, NetworkGeometry

DATA = Path(__file__).parent / "data"
# a sample of float32 networks, on another machine's kernels
TOLERANCE = {"rtol": 1e-3, "atol": 1e-4}


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    return load_file(DATA / "expected-0.1.safetensors")


def test_a_population_is_the_same(expected):
    population = wsflow.load_population(DATA / "population-0.1.safetensors")
    assert np.array_equal(np.asarray(population.weights), expected["population"])
    assert population.task is not None and population.task.source["name"] == "iris"


@pytest.mark.parametrize("name", ["named", "unnamed"])
def test_a_model_samples_and_scores_the_same(name, expected):
    model = wsflow.load_model(DATA / f"{name}-0.1.st")
    samples = wsflow.sample(model, 4, random_state=1)
    assert np.allclose(samples, expected[f"{name}.samples"], **TOLERANCE)
    assert np.allclose(model.score_samples(expected[f"{name}.samples"]), expected[f"{name}.scores"], **TOLERANCE)


def test_a_condition_is_kept(expected):
    model = wsflow.load_model(DATA / "named-0.1.st")
    assert model[-1].condition == LabelCondition(dropout=0.2) and model[-1].labels_.tolist() == [0, 1, 2]
    samples = wsflow.sample(model, 4, random_state=1, condition=2)
    assert np.allclose(samples, expected["named.label"], **TOLERANCE)
    assert not np.allclose(samples, expected["named.samples"], **TOLERANCE)


def test_parameters_become_objects():
    flow = wsflow.load_model(DATA / "unnamed-0.1.st")[-1]
    assert flow.geometry == NetworkGeometry("geometric", last_layer="polar")
    assert flow.source == ExchangeableSource(shrinkage=0.2) and flow.velocity.identity is None
    assert flow.metric == "function" and flow.energy == EnergyMatching(n_steps=2)
    # 0.1 had a parameter for it, which decides how its velocity is made
    assert flow.model_.settings.prediction == "preconditioned" and flow.model_.consensus is not None


def test_a_model_of_0_1_is_saved_in_terms_of_today(tmp_path, expected):
    wsflow.save_model(wsflow.load_model(DATA / "unnamed-0.1.st"), tmp_path / "model.st")
    again = wsflow.load_model(tmp_path / "model.st")
    assert np.allclose(wsflow.sample(again, 4, random_state=1), expected["unnamed.samples"], **TOLERANCE)
