"""How far a computation is: stages make one count from the first step to the last, and never go back."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import wsflow
from wsflow import Architecture, PermutationAligner, Task, WeightArray
from wsflow.cli import main
from wsflow.evaluation import loss_path
from wsflow.evaluation.barrier import barrier_matrix
from wsflow.progress import counter, stages
from wsflow.symmetry.matching import selection
from wsflow.symmetry.matching.examples import Examples
from wsflow.symmetry.matching.methods import METHODS
from wsflow.symmetry.matching.references import REFERENCES, STEPS

Calls = list[tuple[int, int]]


def check_count(calls: Calls, total: int) -> None:
    """Whether steps only go forward, to the end of one total."""
    done = [step for step, _ in calls]
    assert done == sorted(done) and {whole for _, whole in calls} == {total} and done[-1] == total


def noted() -> tuple[Calls, wsflow.progress.Progress]:
    calls: Calls = []
    return calls, lambda *call: calls.append(call)


@pytest.mark.parametrize("lengths", [(1,), (3, 0, 5), (7, 2), (0, 4)])
@pytest.mark.parametrize("own", [1, 2, 150])
def test_stages_make_one_count(lengths, own):
    calls, note = noted()
    for stage in stages(note, *lengths):
        for step in range(own):
            stage(step + 1, own)
    check_count(calls, sum(lengths))
    ends = [done for done, _ in calls][own - 1 :: own]
    assert ends == np.cumsum(lengths).tolist()


def test_stages_of_stages():
    calls, note = noted()
    for outer in stages(note, 10, 30):
        for inner in stages(outer, 2, 3):
            inner(1, 1)
    assert calls == [(4, 40), (10, 40), (22, 40), (40, 40)]


def test_nobody_listens():
    assert stages(None, 2, 3) == [None, None]
    counter(None, 3)()


def test_a_counter_ends_at_its_total():
    calls, note = noted()
    count = counter(note, 5)
    for steps in (1, 2, 4):
        count(steps)
    assert calls == [(1, 5), (3, 5), (5, 5)]


@cache
def networks(kind: str, n: int = 40) -> tuple[WeightArray, Task]:
    rng = np.random.default_rng(0)
    if kind == "cnn":
        module = nn.Sequential(nn.Conv2d(1, 3, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))
        architecture = Architecture.from_module(module, torch.zeros(2, 1, 5, 5))
        X = rng.normal(size=(30, 1, 5, 5))
    else:
        architecture, X = Architecture.mlp([4, 5, 3]), rng.normal(size=(30, 4))
    weights = WeightArray(rng.normal(size=(n, architecture.n_weights)), architecture)
    return weights, Task(X.astype(np.float32), np.arange(30) % 3)


@pytest.mark.parametrize(
    ("kind", "method"), [*(("mlp", name) for name in METHODS), ("cnn", "activation"), ("cnn", "chain")]
)
def test_an_alignment_counts_its_reference_its_networks_and_their_barriers(kind, method):
    (weights, task), (calls, note) = networks(kind), noted()
    if method in ("chain", "sinkhorn", "straight-through"):
        method = METHODS[method](steps=4)
    PermutationAligner(method, task, random_state=0, progress=note).fit(weights)
    check_count(calls, STEPS + 40 + 40)
    done = {step for step, _ in calls}
    assert done >= {*range(1, STEPS + 1), STEPS + 40, STEPS + 60}
    # between the first network and the last
    assert method in ("weight", "activation") or done & {*range(STEPS + 1, STEPS + 40)}


@pytest.mark.parametrize("reference", [*REFERENCES, "first", 3])
def test_every_reference_is_counted(reference):
    (weights, _), (calls, note) = networks("mlp"), noted()
    PermutationAligner("weight", reference=reference, progress=note).fit(weights)
    check_count(calls, STEPS + 40)
    assert (len(calls) > 1) == (reference in REFERENCES)


def test_networks_that_are_fixed_otherwise_are_counted_together():
    """Rows that agree in a group are matched apart from the others."""
    (weights, task), (calls, note) = networks("mlp"), noted()
    aligner = PermutationAligner("sinkhorn", task, reference="first", random_state=0)
    same = weights.like(np.concatenate([np.repeat(weights[:1, :25], 40, 0), weights[:, 25:]], axis=1))
    aligner.fit(same)
    assert aligner.fixed_groups_ == ("hidden1",)
    aligner.set_params(progress=note).transform(weights.like(np.concatenate([same[:20], weights[20:]])))
    check_count(calls, 40)
    assert 20 in {step for step, _ in calls}


def test_later_networks_are_counted():
    (weights, task), (calls, note) = networks("cnn"), noted()
    PermutationAligner("activation", task, progress=note).fit(weights).transform(weights[:33])
    assert calls[-2:] == [(32, 33), (33, 33)]


class TestBarriers:
    def test_each_end_is_run_once(self, monkeypatch):
        weights, task = networks("cnn", 4)
        ran = []
        original = wsflow.evaluation.connectivity.chunked_outputs

        def watched(rows, *arguments):
            ran.extend(row.tobytes() for row in np.asarray(rows))
            return original(rows, *arguments)

        monkeypatch.setattr("wsflow.evaluation.connectivity.chunked_outputs", watched)
        path = loss_path(weights, weights[3:], task, 1)
        assert len(ran) == 4 + 1 + 4
        matrix = barrier_matrix(weights, task, 1)
        assert len(ran) == 9 + 3 + 3 + 6
        np.testing.assert_allclose(matrix.losses[:3, 3], path.barrier[:3], rtol=1e-12)

    def test_networks_are_counted_as_they_are_run(self, monkeypatch):
        (weights, task), (calls, note) = networks("cnn", 12), noted()
        monkeypatch.setattr("wsflow.evaluation.connectivity.CHUNK_NUMBERS", 20 * weights.shape[1])
        barrier_matrix(weights, task, 2, progress=note)
        # 66 pairs of 2 points, and the 11 networks at either end
        check_count(calls, 66 * 2 + 11 + 11)
        assert len(calls) >= 9


def test_networks_that_come_again_are_not_run_again(monkeypatch):
    weights, task = networks("cnn", 10)
    ran = []
    original = Examples.evaluate
    monkeypatch.setattr(Examples, "evaluate", lambda self, rows: ran.append(len(rows)) or original(self, rows))
    rows = torch.from_numpy(np.array(weights))
    inputs, targets = torch.from_numpy(task.X).double(), torch.from_numpy(task.y)
    examples = Examples.of(weights.architecture, inputs, targets, task.loss)
    best = selection.BestAction(rows, rows[0], weights.architecture, examples)
    assert ran == [1, 10]
    stay = best.action
    best.update(stay)
    cost = best.cost
    best.update(stay)
    assert ran == [1, 10, 10] and torch.equal(cost, best.cost)
    one = stay.rows(torch.arange(10))
    one.permutations["0"] = torch.arange(3).repeat(10, 1)
    one.permutations["0"][4] = torch.tensor([1, 0, 2])
    best.update(one)
    assert ran == [1, 10, 10, 1]


def test_the_command_shows_one_bar_of_all_stages(tmp_path):
    wsflow.save_population(wsflow.Population(networks("mlp")[0]), tmp_path / "zoo.st")
    arguments = ["align", str(tmp_path / "zoo.st"), "-o", str(tmp_path / "out.st"), "--task", "iris"]
    result = CliRunner().invoke(main, [*arguments, "--method", "activation"])
    assert result.exit_code == 0, result.output
    assert f"{STEPS + 40 + 40}/{STEPS + 40 + 40}" in result.stderr
