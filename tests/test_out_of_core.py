"""Populations that do not fit into memory: what is allowed, and the numbers, which are those in memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import wsflow
from wsflow import (
    Architecture,
    PermutationAligner,
    Population,
    ScaleCanonicalizer,
    Task,
    WeightArray,
    WeightFlow,
    save_population,
)
from wsflow.mapped import is_mapped, mapped
from wsflow.models.options import NetworkGeometry
from wsflow.symmetry.matching.methods import StraightThroughMatching

ARCHITECTURE = Architecture.mlp([4, 6, 5, 3])
TASK = Task(np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32), np.arange(30) % 3)
FEW = 800  # numbers of a chunk: some nine networks


def networks(n: int = 24, architecture: Architecture = ARCHITECTURE) -> WeightArray:
    rows = np.random.default_rng(0).normal(size=(n, architecture.n_weights))
    return WeightArray(rows, architecture, runs=np.arange(n) // 2, steps=np.arange(n) % 2)


def on_disk(weights: WeightArray) -> WeightArray:
    rows = mapped(weights.shape, weights.dtype)
    rows[:] = weights
    return weights.like(rows)


def at_once(monkeypatch) -> None:
    monkeypatch.setattr("wsflow.mapped.CHUNK_NUMBERS", FEW)
    for module in ("snapshots", "alignment"):
        monkeypatch.setattr(f"wsflow.symmetry.matching.{module}.MATCHED_NUMBERS", FEW)


@pytest.fixture
def few_at_once(monkeypatch):
    """Chunks of five networks, as if these were large."""
    at_once(monkeypatch)


TRANSFORMERS = {
    "by weights": lambda: PermutationAligner(),
    "each network": lambda: PermutationAligner(by="network", reference="medoid"),
    "by activations": lambda: PermutationAligner("activation", task=TASK, form="balanced"),
    "from data": lambda: PermutationAligner(StraightThroughMatching(steps=2), task=TASK, random_state=0),
    "unit": lambda: ScaleCanonicalizer(),
    "balanced, unit outputs": lambda: ScaleCanonicalizer("balanced", last_layer="unit"),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_do_not_depend_on_chunks(name, monkeypatch):
    weights = networks()
    whole = TRANSFORMERS[name]()
    expected, later = whole.fit_transform(weights), whole.transform(weights[::-1])
    at_once(monkeypatch)
    parts = TRANSFORMERS[name]()
    found = parts.fit_transform(on_disk(weights))
    assert is_mapped(found) and not is_mapped(parts.fit_transform(weights))
    # products of matrices are rounded by the number of their rows
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(found.runs, expected.runs)
    assert found.aligned == expected.aligned
    moved, action = parts.transform(on_disk(weights[::-1]), return_action=True)
    np.testing.assert_allclose(np.asarray(moved), np.asarray(later), rtol=1e-9, atol=1e-12)
    if name != "balanced, unit outputs":
        np.testing.assert_allclose(action(np.asarray(weights[::-1])), np.asarray(moved), rtol=1e-9, atol=1e-12)
    back = parts.inverse_transform(found)
    np.testing.assert_allclose(np.asarray(back), np.asarray(whole.inverse_transform(expected)), rtol=1e-9, atol=1e-12)
    for attribute in ("objective_", "barrier_before_", "barrier_after_", "n_passes_", "reference_", "output_norm_"):
        if hasattr(whole, attribute):
            np.testing.assert_allclose(getattr(parts, attribute), getattr(whole, attribute), rtol=1e-6, atol=1e-9)


def test_progress_of_alignment_rises_to_its_end(few_at_once):
    seen: list[tuple[int, int]] = []
    aligner = PermutationAligner(task=TASK, method="weight", progress=lambda done, total: seen.append((done, total)))
    aligner.fit(networks())
    done = [step for step, _ in seen]
    assert done == sorted(done) and done[-1] == seen[-1][1] and len({total for _, total in seen}) == 1


FLOWS = {
    "gaussian": lambda: WeightFlow(max_iter=2, random_state=0),
    "few networks": lambda: WeightFlow(max_iter=2, random_state=0, geometry="euclidean"),
    "exchangeable": lambda: WeightFlow(max_iter=2, random_state=0, source="exchangeable"),
    "isotropic": lambda: WeightFlow(max_iter=2, random_state=0, source="isotropic", coupling="ot"),
    "latent": lambda: WeightFlow(NetworkGeometry("euclidean", latent=5), max_iter=2, random_state=0),
    "task": lambda: WeightFlow(max_iter=2, random_state=0, task=TASK, energy="predictions"),
}


@pytest.mark.parametrize(
    "name", [name if name == "exchangeable" else pytest.param(name, marks=pytest.mark.slow) for name in FLOWS]
)
def test_flows_do_not_depend_on_chunks(name, monkeypatch):
    # fewer than a chunk, so that chunks do not decide on how many the loss is evaluated
    monkeypatch.setattr("wsflow.estimators.flow.VALIDATED", 4)
    raw = networks(20 if name == "few networks" else 120)
    weights = ScaleCanonicalizer().fit_transform(raw)
    whole = FLOWS[name]().fit(weights)
    at_once(monkeypatch)
    parts = FLOWS[name]().fit(on_disk(weights))
    for a, b in zip(parts.history_.train, whole.history_.train, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    expected = np.asarray(whole.sample(5, random_state=1))
    np.testing.assert_allclose(np.asarray(parts.sample(5, random_state=1)), expected, rtol=1e-3, atol=1e-4)
    if name not in ("latent", "task"):  # one has no density, and that of the other takes long
        scores = parts.score_samples(on_disk(weights[:40]))
        np.testing.assert_allclose(scores, parts.score_samples(weights[:40]), rtol=1e-12)
        np.testing.assert_allclose(scores, whole.score_samples(weights[:40]), rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(parts.to_manifold(on_disk(weights)), whole.to_manifold(weights), rtol=1e-4, atol=1e-6)


def test_evaluations_do_not_depend_on_chunks(monkeypatch):
    weights, held_out, samples = networks(24), networks(8), networks(6) + 0.1
    held_out = WeightArray(np.asarray(held_out)[::-1] * 1.1, ARCHITECTURE, runs=100 + np.arange(8))
    samples = WeightArray(samples, ARCHITECTURE)
    whole = wsflow.evaluate(samples, weights, held_out, TASK).to_dict()
    at_once(monkeypatch)
    monkeypatch.setattr("wsflow.evaluation.embedding.CHUNK_NUMBERS", FEW)
    monkeypatch.setattr("wsflow.evaluation.nulls.DRAWN_NUMBERS", 50)
    parts = wsflow.evaluate(samples, on_disk(weights), held_out, TASK).to_dict()
    for rows in ("samples", "held_out", "training"):
        for key, value in whole[rows].items():
            assert parts[rows][key] == pytest.approx(value, rel=1e-6, abs=1e-9), (rows, key)
    for name in ("gaussian_full", "dirichlet 0.01", "noise 0.1", "mean"):
        assert parts["nulls"][name]["loss"] == pytest.approx(whole["nulls"][name]["loss"], rel=1e-6), name


def test_errors_name_rows_of_the_whole(few_at_once):
    weights = ScaleCanonicalizer().fit_transform(networks())
    weights[19, :5] *= 2
    weights[22, :5] *= 2
    with pytest.raises(wsflow.exceptions.InvalidInputError, match="2 of 24 rows, the first of them row 19"):
        WeightFlow(max_iter=1).fit(weights)
    raw = networks().astype(np.float32)
    raw[21] *= 1e30
    with pytest.raises(wsflow.exceptions.NumericalError, match="network 21"):
        ScaleCanonicalizer().fit(raw)
    weights[20, 3] = np.nan
    with pytest.raises(wsflow.exceptions.InvalidInputError, match="network 20"):
        WeightFlow(max_iter=1).fit(weights)


def test_a_covariance_of_many_networks_in_more_dimensions_is_refused_with_its_size(monkeypatch):
    monkeypatch.setattr("wsflow.memory.physical_memory", lambda: 1e4)
    with pytest.raises(wsflow.exceptions.MemoryLimitError, match="covariance of 50 networks in 60 dimensions take"):
        wsflow.flow.covariance.CovarianceSums(50, 60, 0.1)


STAGES = """
import sys, threading, warnings
from pathlib import Path
import numpy as np
import torch
from sklearn.pipeline import make_pipeline
import wsflow
from wsflow import mapped
from wsflow.flow.divergence import TraceEstimator
from wsflow.models.options import NeuronTransformer

torch.set_num_threads(1)
warnings.simplefilter("ignore")
mapped.CHUNK_NUMBERS = mapped.THINNED_NUMBERS = 2**18
velocity, density = NeuronTransformer(width=8, depth=1), TraceEstimator("hutchinson", 1)
flow = wsflow.WeightFlow(velocity=velocity, source="exchangeable", density=density, max_iter=2, random_state=0)
model = make_pipeline(wsflow.PermutationAligner(method="weight", reference="first"), wsflow.ScaleCanonicalizer(), flow)
folder = Path(sys.argv[1])
# everything that is loaded when it is first used
few = wsflow.load_population(folder / "small.st").weights
model.fit(few)[:-1].transform(few)
model[-1].score_samples(model[:-1].transform(few[:2]))

def anonymous():
    return next(int(row.split()[1]) for row in open("/proc/self/status") if row.startswith("RssAnon:")) * 1024

def watch():
    while not done.wait(0.005):
        peaks.append(anonymous())

before, peaks, done = anonymous(), [], threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
weights = wsflow.load_population(folder / "zoo.index.json", mmap=sys.argv[2] == "mapped").weights
canonical = model.fit(weights)[:-1].transform(weights)
print(float(model[0].objective_.mean()), model[1].output_norm_, model[2].history_.train[-1])
print(float(model[-1].score_samples(canonical[::200]).mean()))
done.set()
watcher.join()
print(max(peaks) - before)
"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A population of 64 MiB in shards, and a few networks of other runs."""
    folder, architecture = tmp_path_factory.mktemp("zoo"), Architecture.mlp([784, 8, 10])
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2**24 // architecture.n_weights, architecture.n_weights), dtype=np.float32)
    inputs = rng.standard_normal((20, 784), dtype=np.float32)
    task = Task(inputs, np.arange(20) % 10)
    save_population(Population(WeightArray(rows, architecture), task), folder / "zoo.index.json", 2**22)
    few = WeightArray(rows[:16] + 1, architecture, runs=10**6 + np.arange(16))
    save_population(Population(few, task), folder / "small.st")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much memory is anonymous")
def test_a_population_is_aligned_fitted_and_scored_in_a_fraction_of_the_memory(zoo):
    found = {}
    for how in ("mapped", "in memory"):
        command = [sys.executable, "-c", STAGES, str(zoo), how]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        *found[how], peak = map(float, run.stdout.split())
        found[how, "peak"] = peak
    assert len(found["mapped"]) == 4 and found["mapped"] == found["in memory"]
    # the population has 2^26 bytes, and what is made of it several times as many
    assert found["in memory", "peak"] > 3 * 2**26
    assert found["mapped", "peak"] < 2**26
