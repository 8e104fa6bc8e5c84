"""Data parallel training: several processes come to the weights of one, and one of them writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from torch import nn

from wsflow import Architecture, Task, WeightArray, WeightFlow
from wsflow.models.options import AdamW, ConsensusHints, EnergyMatching, NeuronTransformer
from wsflow.training.distributed import ALONE, Processes, current_processes, data_parallel

MLP = Architecture.mlp([4, 3, 2])
X, Y = make_classification(60, 4, n_redundant=0, random_state=0)
TASK = Task(X.astype(np.float32), Y)
SMALL: dict[str, Any] = {"geometry": "euclidean", "velocity": NeuronTransformer(8, 1, 2), "max_iter": 60}
SMALL |= {"random_state": 0, "training": AdamW(batch_size=16, patience=None)}
# of which each has something that is not a mean over a batch
FLOWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "uneven": {"training": AdamW(batch_size=13, patience=None), "coupling": "ot"},
    "task": {"task": TASK, "hints": ConsensusHints(16), "energy": EnergyMatching(n_steps=10), "max_iter": 30},
    "conditional": {"condition": "scalar", "velocity": NeuronTransformer(8, 1, 2)},
}


def networks() -> WeightArray:
    rows = np.random.default_rng(0).normal(size=(43, MLP.n_weights))
    return WeightArray(rows, MLP, runs=np.arange(len(rows)))


def fitted(name: str, **changes: Any) -> WeightFlow:
    weights = networks()
    return WeightFlow(**{**SMALL, **FLOWS[name], **changes}).fit(weights, weights.sum(axis=1))


def found(flow: WeightFlow) -> dict[str, Any]:
    state = {key: value.tolist() for key, value in flow.velocity_.state_dict().items()}
    return {"history": vars(flow.history_), "state": state}


class Stopped(RuntimeError):
    pass


def stopping(done: int, total: int) -> None:
    if done == 33:
        raise Stopped


def work(rank: int, folder: Path) -> None:
    """What each of two processes does."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    shown: list[int] = []
    results: dict[str, Any] = {}
    outside = current_processes()
    with data_parallel() as processes:
        assert processes == current_processes() == Processes(rank, 2)
        for name in FLOWS:
            results[name] = found(fitted(name, progress=lambda done, total: shown.append(done)))
        # without a seed that all of them know, the first draws it
        results["unseeded"] = found(fitted("plain", random_state=None, max_iter=5))
        results["checkpoint"] = found(fitted("plain", checkpoint=folder / "checkpoint", checkpoint_every=20))
        with pytest.raises(ValueError, match="are not the same in the 2 processes"):
            WeightFlow(**SMALL).fit(WeightArray(np.asarray(networks()) + rank, MLP))
        with pytest.raises(ValueError, match="A batch of 1 cannot be divided among 2 processes"):
            fitted("plain", training=AdamW(batch_size=1))
        with pytest.raises(ZeroDivisionError):
            processes.on_first(lambda: 1 // 0)
        results["diverged"] = diverged(processes)
    assert current_processes() is outside is ALONE
    results["alone"] = found(fitted("plain", max_iter=5))
    results["shown"] = len(shown)
    (folder / f"{rank}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


def diverged(processes: Processes) -> str:
    """What is said where the loss of one process alone is not finite."""
    from wsflow.exceptions import NumericalError
    from wsflow.training.loop import train
    from wsflow.training.state import Schedule

    line = nn.Linear(1, 1)

    def loss(module: nn.Module, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        value = module(torch.ones(1, 1)).sum() * (float("inf") if processes.rank else 1.0)
        return value, value

    with pytest.raises(NumericalError) as error:
        train(line, loss, Schedule(n_steps=2), torch.Generator(), processes=processes)
    return str(error.value)


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(work, (folder,), nprocs=2)
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def assert_close(several: dict[str, Any], alone: dict[str, Any]) -> None:
    """Curves are the same to rounding; weights move by the learning rate where a gradient is as small as rounding."""
    assert several["history"].keys() == alone["history"].keys()
    for name, values in alone["history"].items():
        np.testing.assert_allclose(np.array(several["history"][name], float), np.array(values, float), rtol=1e-6)
    for name, values in alone["state"].items():
        np.testing.assert_allclose(several["state"][name], values, atol=2e-4)


@pytest.mark.parametrize("name", FLOWS)
def test_two_processes_come_to_the_weights_of_one(two, name):
    _, results = two
    assert_close(results[0][name], found(fitted(name)))


def test_one_process_with_half_the_batch_comes_to_others(two):
    """What two processes would come to that do not take the mean of their gradients."""
    half = found(fitted("plain", training=AdamW(batch_size=8, patience=None)))
    with pytest.raises(AssertionError):
        assert_close(two[1][0]["plain"], half)


def test_all_processes_have_the_same_bits(two):
    _, (first, second) = two
    assert {**first, "shown": 0} == {**second, "shown": 0}


def test_the_first_process_shows_progress(two):
    _, (first, second) = two
    assert first["shown"] == 60 + 60 + 40 + 60
    assert second["shown"] == 0


def test_flows_outside_of_the_context_are_fitted_alone(two):
    _, results = two
    assert results[0]["alone"] == found(fitted("plain", max_iter=5))


def test_a_checkpoint_changes_nothing_and_is_taken_up_by_any_number_of_processes(two, tmp_path):
    folder, results = two
    assert results[0]["checkpoint"] == results[0]["plain"]
    assert sorted(path.name for path in (folder / "checkpoint").iterdir()) == [
        "stage-matching.safetensors",
        "training.json",
    ]
    assert found(fitted("plain", checkpoint=folder / "checkpoint")) == results[0]["plain"]


def test_a_loss_that_is_not_finite_in_one_process_ends_all(two):
    _, results = two
    assert all(result["diverged"].startswith("The loss was not finite at step 1") for result in results)


@pytest.mark.parametrize(("n", "size"), [(16, 2), (13, 3), (4, 4), (3, 1)])
def test_weighted_means_over_parts_are_the_mean(n, size):
    rows = torch.randn(n, dtype=torch.float64)
    processes = [Processes(rank, size) for rank in range(size)]
    means = [each.part(rows).mean() * each.weight(n) for each in processes]
    torch.testing.assert_close(torch.stack(means).mean(), rows.mean())
    assert sorted(torch.cat([each.part(rows) for each in processes]).tolist()) == sorted(rows.tolist())


def interrupted(rank: int, folder: Path) -> None:
    """Two processes of which the first is interrupted, and then two that go on."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    settings = {"checkpoint": folder / "checkpoint", "checkpoint_every": 10}
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    with data_parallel(), pytest.raises(Exception):  # noqa: B017
        fitted("plain", progress=stopping, **settings)
    torch.distributed.destroy_process_group()


def resumed(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    shown: list[int] = []
    torch.distributed.init_process_group("gloo", f"file://{folder}/again", rank=rank, world_size=2)
    with data_parallel():
        settings = {"checkpoint": folder / "checkpoint", "checkpoint_every": 10}
        result = found(fitted("plain", progress=lambda done, total: shown.append(done), **settings))
    (folder / f"{rank}.json").write_text(json.dumps([result, shown]))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_go_on_where_they_were_interrupted(two, tmp_path):
    _, results = two
    torch.multiprocessing.spawn(interrupted, (tmp_path,), nprocs=2)
    torch.multiprocessing.spawn(resumed, (tmp_path,), nprocs=2)
    result, shown = json.loads((tmp_path / "0.json").read_text())
    assert result == results[0]["plain"]
    assert shown == list(range(31, 61))


@pytest.mark.slow
def test_torchrun_fits_a_flow(tmp_path):
    import wsflow

    zoo, model = tmp_path / "zoo.st", tmp_path / "model.st"
    wsflow.save_population(wsflow.Population(networks(), TASK), zoo)
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "wsflow", "fit"]
    options = ["--geometry", "euclidean", "--iterations", "20", "--json"]
    options += ["-p", "velocity=neuron", "-p", "velocity.width=8", "--checkpoint", str(tmp_path / "half_done")]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*run, str(zoo), "-o", str(model), *options], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["iterations"] == 20
    assert done.stderr.count("Fitting the flow") <= 1
    subprocess.run(
        [sys.executable, "-m", "wsflow", "fit", str(zoo), "-o", str(tmp_path / "alone.st"), *options[:-2]], check=True
    )
    several, alone = (wsflow.load_model(path)[-1] for path in (model, tmp_path / "alone.st"))
    assert_close(found(several), found(alone))
