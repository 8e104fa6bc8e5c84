"""Training, alignment, sampling, scoring and nulls in several processes: the same numbers, bit for bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import joblib
import numpy as np
import pytest

import wsflow
from wsflow import Architecture, PermutationAligner, ScaleCanonicalizer, WeightArray, WeightFlow
from wsflow.parallel import jobs, side_by_side
from wsflow.symmetry.matching import snapshots

ARCHITECTURE = Architecture.mlp([4, 3, 3])


@contextmanager
def loky() -> Iterator[None]:
    with joblib.parallel_config("loky", n_jobs=2):
        yield


@contextmanager
def threads() -> Iterator[None]:
    with joblib.parallel_config("threading", n_jobs=2):
        yield


@contextmanager
def dask() -> Iterator[None]:
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster), joblib.parallel_config("dask", n_jobs=2):
        yield


@contextmanager
def ray() -> Iterator[None]:
    found = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    register_ray()
    found.init(num_cpus=2, include_dashboard=False)
    try:
        with joblib.parallel_config("ray", n_jobs=2):
            yield
    finally:
        found.shutdown()


FOREIGN = pytest.mark.filterwarnings("default")
BACKENDS = [
    threads,
    pytest.param(loky, marks=pytest.mark.slow),
    pytest.param(dask, marks=[pytest.mark.slow, FOREIGN]),
    pytest.param(ray, marks=[pytest.mark.slow, FOREIGN]),
]


@pytest.fixture(scope="module")
def iris():
    return wsflow.load_task("iris")


@pytest.fixture(scope="module")
def population(iris):
    return wsflow.train_population(iris, (3,), 12, epochs=1, snapshots=2, snapshot_every=1, chunk_size=5)


@pytest.fixture(scope="module")
def flow(population):
    canonical = ScaleCanonicalizer().fit_transform(population.weights)
    return WeightFlow(max_iter=3, random_state=0).fit(canonical)


def everything(iris, population, flow) -> dict[str, np.ndarray]:
    """What each of the computations that several processes share comes to."""
    aligner = PermutationAligner(task=iris, reference="first").fit(population.weights)
    drawn, log_prob = flow.sample(140, random_state=1, return_log_prob=True)
    report = wsflow.evaluate(
        population.weights[:4], population.weights[:16], population.weights[16:], iris, curve={0.5: drawn[:6]}
    )
    measured = {**report.nulls, "curve": report.frontiers["samples"].rows[0]}
    return {
        "training": np.asarray(wsflow.train_population(iris, (3,), 12, epochs=1, chunk_size=5).weights),
        "alignment": np.asarray(aligner.transform(population.weights)),
        "reports": np.stack(list(aligner.report_.values())),
        "samples": np.asarray(drawn),
        "log-densities of samples": log_prob,
        "guided samples": np.asarray(flow.sample(140, random_state=1, guidance=lambda w: w.square().sum(-1))),
        "scores": np.stack(flow.score_samples(drawn[:40], return_std=True)),
        "nulls": np.array([list(row.values()) for row in measured.values()]),
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_processes_change_nothing(iris, population, flow, backend, monkeypatch):
    monkeypatch.setattr(snapshots, "MATCHED_NUMBERS", 5 * ARCHITECTURE.n_weights)
    alone = everything(iris, population, flow)
    with backend():
        several = everything(iris, population, flow)
    for name, values in alone.items():
        np.testing.assert_array_equal(several[name], values, err_msg=name)


def test_a_population_is_aligned_in_several_processes(population, monkeypatch):
    monkeypatch.setattr(snapshots, "MATCHED_NUMBERS", 5 * ARCHITECTURE.n_weights)
    seen: list[tuple[int, int]] = []
    alone = PermutationAligner().fit_transform(population.weights)
    several = PermutationAligner(n_jobs=2, progress=lambda *done: seen.append(done)).fit_transform(population.weights)
    np.testing.assert_array_equal(several, alone)
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1]


def test_an_estimator_has_jobs_of_its_own(flow, monkeypatch):
    used = []
    original = joblib.Parallel.__init__
    monkeypatch.setattr(joblib.Parallel, "__init__", lambda self, **how: used.append(how) or original(self, **how))
    alone = flow.sample(300, random_state=0), flow.score_samples(flow.sample(70, random_state=0))
    assert not used
    with joblib.parallel_config("threading"):
        flow.set_params(n_jobs=2)
        try:
            several = flow.sample(300, random_state=0), flow.score_samples(flow.sample(70, random_state=0))
        finally:
            flow.set_params(n_jobs=None)
    for mine, own in zip(several, alone, strict=True):
        np.testing.assert_array_equal(mine, own)
    assert [(how["n_jobs"], how["batch_size"]) for how in used] == [(2, 2), (2, 2)]


def test_jobs_are_no_part_of_a_model(flow, tmp_path):
    wsflow.save_model(flow.set_params(n_jobs=2), tmp_path / "flow.st")
    flow.set_params(n_jobs=None)
    assert wsflow.load_model(tmp_path / "flow.st").n_jobs is None


def test_other_processes_do_the_work():
    found = set(side_by_side(lambda number: (number, os.getpid()), [(1,), (2,)], 2, n_jobs=2))
    assert {number for number, _ in found} == {1, 2}
    assert os.getpid() not in {process for _, process in found}


def test_calls_are_taken_when_they_are_needed():
    taken = []
    calls = (taken.append(number) or (number,) for number in range(3))
    results = side_by_side(abs, calls, 3)
    assert next(results) == 0 and taken == [0]


def test_an_error_ends_all_calls():
    with jobs(2), pytest.raises(ZeroDivisionError):
        list(side_by_side(lambda x: 1 // x, [(1,), (0,), (2,)], 3))


def test_a_command_works_in_several_processes(population, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from wsflow.cli.align import align

    monkeypatch.setattr(snapshots, "MATCHED_NUMBERS", 5 * ARCHITECTURE.n_weights)
    wsflow.save_population(population, tmp_path / "zoo.st")
    used = []
    original = joblib.Parallel.__init__
    monkeypatch.setattr(joblib.Parallel, "__init__", lambda self, **how: used.append(how) or original(self, **how))
    with joblib.parallel_config("threading"):
        arguments = [str(tmp_path / "zoo.st"), "-o", str(tmp_path / "aligned.st"), "--jobs", "2", "-q"]
        assert CliRunner().invoke(align, arguments).exit_code == 0
    assert used and all(how["n_jobs"] == 2 for how in used)


def test_weights_keep_their_architecture_on_the_way():
    weights = WeightArray(np.zeros((4, ARCHITECTURE.n_weights)), ARCHITECTURE)
    (arrived, _) = side_by_side(lambda few: few.architecture, [(weights[:2],), (weights[2:],)], 2, n_jobs=2)
    assert arrived == ARCHITECTURE
