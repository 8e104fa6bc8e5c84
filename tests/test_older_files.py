"""Files that wsflow 0.1 wrote are opened, and mean what they meant.

Those whose names end in ``-0.1`` are of its first days; the folder ``0.1`` is of its last, written by ``write.py``.
"""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import wsflow
from wsflow.exceptions import InvalidInputError
from wsflow.models.options import (
    MLP,
    EnergyMatching,
    ExchangeableSource,
    GaussianSource,
    LabelCondition,
    NetworkGeometry,
)

DATA = Path(__file__).parent / "data"
LAST = DATA / "0.1"
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


@pytest.fixture(scope="module")
def last() -> dict[str, np.ndarray]:
    return load_file(LAST / "expected.safetensors")


@pytest.mark.parametrize("name", ["population.safetensors", "shards.safetensors.index.json"])
def test_a_population_is_the_same_in_one_file_and_in_shards(name, last):
    population = wsflow.load_population(LAST / name)
    assert np.array_equal(np.asarray(population.weights), last["population"])
    assert population.weights.runs.tolist() == list(range(6)) and population.task.source["name"] == "iris"
    assert population.provenance["versions"]["wsflow"].startswith("0.1")


def test_a_pipeline_samples_and_scores_the_same(last):
    model = wsflow.load_model(LAST / "pipeline.st")
    assert np.allclose(wsflow.sample(model, 4, random_state=1), last["samples"], **TOLERANCE)
    assert np.allclose(model.score_samples(last["samples"]), last["scores"], **TOLERANCE)
    assert model[-1].source == GaussianSource(shrinkage=0.2) and model[-1].n_runs_ == 12


def test_a_predictor_predicts_the_same(last):
    predictor = wsflow.load_model(LAST / "predictor.st")
    assert np.allclose(predictor.predict(last["population"]), last["predictions"], **TOLERANCE)


@pytest.mark.parametrize(
    "resume",
    [
        lambda folder: wsflow.train_population(
            wsflow.load_task("iris"), hidden=(4,), n_runs=2, epochs=3, random_state=0, checkpoint=folder, resume=True
        ),
        lambda folder: wsflow.WeightFlow(
            "euclidean", max_iter=2, random_state=0, velocity=MLP(8, 1), checkpoint=folder
        ).fit(wsflow.load_population(LAST / "population.safetensors").weights[:4]),
    ],
    ids=["training", "fit"],
)
def test_a_checkpoint_is_refused_by_its_versions(resume, request, tmp_path):
    """The bits of a training depend on the versions, so that it is resumed with those of its beginning alone."""
    folder = Path(shutil.copytree(LAST / request.node.callspec.id, tmp_path / "checkpoint"))
    with pytest.raises(InvalidInputError, match=r"'versions\.wsflow' was '0\.1\.0' and is .* Resume it with"):
        resume(folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::wsflow.exceptions.FewRunsWarning")
def test_the_files_of_a_release_are_written_as_those_before(tmp_path):
    runpy.run_path(str(DATA / "write.py"))["write"](tmp_path)
    names = {path.relative_to(LAST).as_posix() for path in LAST.rglob("*") if "shards-" not in path.name}
    assert names <= {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    samples = wsflow.sample(wsflow.load_model(tmp_path / "pipeline.st"), 4, random_state=1)
    assert np.array_equal(samples, load_file(tmp_path / "expected.safetensors")["samples"])
