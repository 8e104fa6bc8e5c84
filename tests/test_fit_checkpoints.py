"""Checkpoints of a fit: whatever interrupts it, it ends with the same numbers, and nothing else is taken up.

WSFLOW_KILLS=30 kills the process of a fit at so many random moments.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.base import clone
from sklearn.datasets import make_classification

from wsflow import Architecture, Population, Task, WeightArray, WeightFlow, load_model, save_model, save_population
from wsflow.cli import main
from wsflow.exceptions import InvalidInputError
from wsflow.models.options import AdamW, ConsensusHints, EnergyMatching, NeuronTransformer

KILLS = int(os.environ.get("WSFLOW_KILLS", "3"))
MLP = Architecture.mlp([4, 3, 2])
ROWS = np.random.default_rng(0).normal(size=(40, MLP.n_weights))
X, Y = make_classification(60, 4, n_redundant=0, random_state=0)
SMALL = {
    "geometry": "euclidean",
    "velocity": NeuronTransformer(8, 1, 2, dropout=0.1),
    "hints": ConsensusHints(16),
    "energy": EnergyMatching(n_steps=8),
    "task": Task(X.astype(np.float32), Y),
    "training": AdamW(batch_size=8),
    "max_iter": 12,
    "random_state": 0,
}


def flow(folder: Path | None = None, **changes: Any) -> WeightFlow:
    return WeightFlow(**{**SMALL, "checkpoint": folder, "checkpoint_every": 5, **changes})


def networks(rows: np.ndarray = ROWS) -> WeightArray:
    return WeightArray(rows, MLP, runs=np.arange(len(rows)) // 2)


def stopped_after(step: int) -> Any:
    calls = []

    def progress(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == step:
            raise KeyboardInterrupt

    return progress


def learned(fitted: WeightFlow) -> dict[str, torch.Tensor]:
    return fitted.model_.state_dict()


def same(one: WeightFlow, other: WeightFlow) -> None:
    assert one.history_ == other.history_
    first, second = learned(one), learned(other)
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    assert np.array_equal(one.sample(3, random_state=1), other.sample(3, random_state=1))


@pytest.fixture(scope="module")
def whole() -> WeightFlow:
    return flow().fit(networks())


# steps 1 to 12 match the flow, 13 to 20 predictions
@pytest.mark.parametrize("step", [1, 6, 12, 13, 18, 20])
def test_the_end_is_the_same_wherever_it_was_interrupted(whole: WeightFlow, tmp_path: Path, step: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        flow(tmp_path, progress=stopped_after(step)).fit(networks())
    seen: list[int] = []
    resumed = flow(tmp_path, progress=lambda done, total: seen.append(done)).fit(networks())
    same(resumed, whole)
    # no more than the interval is lost
    assert len(seen) <= 20 - step + 5


def test_a_checkpoint_changes_nothing_and_what_is_done_is_not_done_again(whole: WeightFlow, tmp_path: Path) -> None:
    same(flow(tmp_path / "new" / "folder").fit(networks()), whole)
    seen: list[int] = []
    again = flow(tmp_path / "new" / "folder", progress=lambda done, total: seen.append(done)).fit(networks())
    same(again, whole)
    assert not seen


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(3)])
def test_the_seed_is_remembered_where_nothing_says_it(tmp_path: Path, random_state: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        flow(tmp_path, random_state=random_state, progress=stopped_after(14)).fit(networks())
    resumed = flow(tmp_path, random_state=random_state).fit(networks())
    # the one that is done is taken up by any other, too
    same(flow(tmp_path, random_state=None).fit(networks()), resumed)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"max_iter": 13}, "'max_iter' was '12' and is '13'"),
        ({"random_state": 1}, "'seed' was"),
        ({"velocity": NeuronTransformer(16, 1, 2)}, "'velocity' was .*width=8.* and is .*width=16"),
        ({"task": Task(X.astype(np.float32) + 1, Y)}, "'task' was"),
        ({"energy": None}, "'energy' was"),
    ],
)
def test_other_settings_are_refused_and_the_difference_is_shown(tmp_path: Path, changes: Any, named: str) -> None:
    flow(tmp_path).fit(networks())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InvalidInputError, match=named):
        flow(tmp_path, **changes).fit(networks())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_other_data_are_refused(tmp_path: Path) -> None:
    flow(tmp_path).fit(networks())
    with pytest.raises(InvalidInputError, match="'networks' was"):
        flow(tmp_path).fit(networks(ROWS + 1e-9))
    with pytest.raises(InvalidInputError, match="'runs' was"):
        flow(tmp_path).fit(WeightArray(ROWS, MLP))


def test_conditions_are_part_of_it(tmp_path: Path) -> None:
    y = np.linspace(0, 1, len(ROWS))
    given = {"energy": None, "condition": "scalar", "checkpoint": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        flow(**given, progress=stopped_after(7)).fit(networks(), y)
    same(flow(**given).fit(networks(), y), flow(energy=None, condition="scalar").fit(networks(), y))
    with pytest.raises(InvalidInputError, match="'conditions' was"):
        flow(**given).fit(networks(), y + 1)


@pytest.mark.parametrize("damage", [lambda content: content[:-3], lambda content: content[:-1] + b"?", lambda _: b""])
def test_a_damaged_state_is_not_taken_up(whole: WeightFlow, tmp_path: Path, damage: Any) -> None:
    flow(tmp_path).fit(networks())
    path = tmp_path / "stage-matching.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    # the second stage is complete: what it ends with is what counts
    same(flow(tmp_path).fit(networks()), whole)


def test_a_state_of_another_training_is_not_taken_up(whole: WeightFlow, tmp_path: Path) -> None:
    for folder, seed in ((tmp_path / "one", 0), (tmp_path / "two", 1)):
        flow(folder, random_state=seed).fit(networks())
    for name in ("stage-matching.safetensors", "stage-energy.safetensors"):
        (tmp_path / "two" / name).replace(tmp_path / "one" / name)
    same(flow(tmp_path / "one").fit(networks()), whole)


def test_early_stopping_is_remembered(tmp_path: Path) -> None:
    """The waiting, the lowest loss and the best weights are part of the state."""
    changes = {"energy": None, "training": AdamW(8, learning_rate=0.3, patience=1), "max_iter": 400}
    alone = flow(**changes).fit(networks())
    assert alone.n_iter_ < 400
    with pytest.raises(KeyboardInterrupt):
        flow(tmp_path, **changes, progress=stopped_after(alone.n_iter_ - 2)).fit(networks())
    same(flow(tmp_path, **changes).fit(networks()), alone)


def test_the_folder_is_no_part_of_a_saved_model(tmp_path: Path, whole: WeightFlow) -> None:
    fitted = flow(tmp_path / "state").fit(networks())
    assert clone(fitted).checkpoint == tmp_path / "state"
    save_model(fitted, tmp_path / "model.st")
    assert load_model(tmp_path / "model.st").checkpoint is None


def test_a_wrong_interval_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="checkpoint_every"):
        flow(tmp_path, checkpoint_every=0).fit(networks())


def test_a_warm_start_begins_where_the_last_fit_ended() -> None:
    fitted = flow(energy=None, warm_start=True, max_iter=60).fit(networks())
    before = {key: value.clone() for key, value in fitted.velocity_.network.state_dict().items()}
    # one step of a tiny rate moves next to nothing, and only where it began is to be seen
    fitted.set_params(max_iter=1, training=AdamW(8, learning_rate=1e-12)).fit(networks())
    after = fitted.velocity_.network.state_dict()
    assert all(torch.allclose(after[key], before[key], atol=1e-9) for key in before)
    cold = flow(energy=None, max_iter=1, training=AdamW(8, learning_rate=1e-12)).fit(networks())
    assert not all(torch.allclose(cold.velocity_.network.state_dict()[key], before[key], atol=1e-3) for key in before)
    with pytest.raises(ValueError, match="other sizes"):
        fitted.set_params(velocity=NeuronTransformer(16, 1, 2)).fit(networks())


FIT = """
import sys
sys.path.insert(0, sys.argv[2])
import test_fit_checkpoints as here
here.save_model(here.flow(sys.argv[1], max_iter=60, checkpoint_every=3).fit(here.networks()), sys.argv[3])
"""


@pytest.mark.slow
def test_a_process_that_is_killed_again_and_again_ends_with_the_same_bits(tmp_path: Path) -> None:
    """At random moments, whatever is going on: reading, training, writing."""
    command = [
        sys.executable,
        "-c",
        FIT,
        str(tmp_path / "state"),
        str(Path(__file__).parent),
        str(tmp_path / "model.st"),
    ]
    moments, kills = random.Random(0), 0
    start = time.monotonic()
    subprocess.run([*command[:3], str(tmp_path / "alone"), *command[4:]], check=True)
    taken = time.monotonic() - start
    alone = (tmp_path / "model.st").read_bytes()
    (tmp_path / "model.st").unlink()
    while kills < KILLS:
        process = subprocess.Popen(command)
        try:
            process.wait(moments.uniform(0.3, 1) * taken)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        if process.returncode == 0:
            assert (tmp_path / "model.st").read_bytes() == alone
            for path in (tmp_path / "state").iterdir():
                path.unlink()
    subprocess.run(command, check=True)
    assert (tmp_path / "model.st").read_bytes() == alone


def test_the_command_goes_on_where_it_was_told_to(tmp_path: Path) -> None:
    """A checkpoint that is there is taken up with --resume alone."""
    save_population(Population(networks(), SMALL["task"]), tmp_path / "zoo.st")
    words = ["fit", str(tmp_path / "zoo.st"), "--geometry", "euclidean", "-p", "velocity.width=8", "--iterations", "4"]
    words += ["--checkpoint", str(tmp_path / "state")]

    def run(out: str, *more: str) -> Any:
        return CliRunner().invoke(main, [*words, "-o", str(tmp_path / out), *more])

    assert run("one.st").exit_code == 0
    refused = run("two.st")
    assert refused.exit_code == InvalidInputError.exit_code and "Give --resume, or another folder." in refused.output
    assert run("two.st", "--resume").exit_code == 0
    assert (tmp_path / "one.st").read_bytes() == (tmp_path / "two.st").read_bytes()
    other = run("three.st", "--resume", "--seed", "5")
    assert other.exit_code == InvalidInputError.exit_code and "'seed' was" in other.output


def test_targets_that_are_ignored_are_no_part_of_it(whole: WeightFlow, tmp_path: Path) -> None:
    flow(tmp_path).fit(networks(), np.arange(len(ROWS)))
    same(flow(tmp_path).fit(networks(), np.zeros(len(ROWS))), whole)
