"""Training that is interrupted: what is done is kept, the end is the same to the bit, and nothing else is resumed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from wsflow.cli import main
from wsflow.exceptions import InvalidInputError, OutputError
from wsflow.persistence import load_population
from wsflow.populations import Population, load_task
from wsflow.populations.training import train_population
from wsflow.task import Task

SETTINGS = {"hidden": [4], "n_runs": 7, "epochs": 3, "chunk_size": 2, "optimizer": "sghmc", "random_state": 2}


@pytest.fixture(scope="module")
def iris() -> Task:
    return load_task("iris")


@pytest.fixture(scope="module")
def whole(iris) -> np.ndarray:
    return np.asarray(train_population(iris, **SETTINGS).weights)


def trained(task: Task, folder: Path, **changes) -> Population:
    return train_population(task, checkpoint=folder, **{**SETTINGS, **changes})


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Killed(Exception):
    """What a test interrupts a training with."""


def interrupted(task: Task, folder: Path, done: int, **changes) -> None:
    """Train until so many network epochs are done."""

    def progress(now: int, total: int) -> None:
        if now >= done:
            raise Killed

    with pytest.raises(Killed):
        trained(task, folder, progress=progress, **changes)


def test_a_checkpoint_changes_nothing_and_is_read_again(iris, whole, tmp_path):
    folder = tmp_path / "a" / "b"
    np.testing.assert_array_equal(trained(iris, folder).weights, whole)
    names = [*(f"chunk-00000{i}.safetensors" for i in range(4)), "training.json"]
    assert files(folder) == names
    before = {name: (folder / name).stat().st_mtime_ns for name in names}
    seen: list[int] = []
    again = trained(iris, folder, resume=True, progress=lambda done, total: seen.append(done))
    np.testing.assert_array_equal(again.weights, whole)
    # all at once: nothing is trained
    assert seen == [6, 12, 18, 21] and {name: (folder / name).stat().st_mtime_ns for name in names} == before
    assert again.provenance == train_population(iris, **SETTINGS).provenance


@pytest.mark.parametrize("done", [1, 6, 7, 20])
def test_the_end_is_the_same_wherever_it_was_interrupted(iris, whole, tmp_path, done):
    interrupted(iris, tmp_path, done)
    assert sum(name.startswith("chunk") for name in files(tmp_path)) == max(0, (done - 1) // 6)
    np.testing.assert_array_equal(trained(iris, tmp_path, resume=True).weights, whole)
    assert len(files(tmp_path)) == 5


KILLED = """
import os, signal, sys
import wsflow
def progress(done, total):
    if done >= 13:
        os.kill(os.getpid(), signal.SIGKILL)
task = wsflow.load_task("iris")
wsflow.train_population(task, checkpoint=sys.argv[1], progress=progress, **eval(sys.argv[2]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_process_loses_a_chunk_at_most(iris, whole, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path, repr(SETTINGS)], check=False)
    assert done.returncode == -9
    assert files(tmp_path) == ["chunk-000000.safetensors", "chunk-000001.safetensors", "training.json"]
    # and in the midst of writing one
    (tmp_path / ".chunk-000002.safetensors.tmp").write_bytes(b"half")
    np.testing.assert_array_equal(trained(iris, tmp_path, resume=True).weights, whole)
    assert not (tmp_path / ".chunk-000002.safetensors.tmp").exists()


def test_resuming_in_several_jobs_is_the_same(iris, whole, tmp_path):
    import joblib

    interrupted(iris, tmp_path, 7)
    with joblib.parallel_config("threading"):
        several = trained(iris, tmp_path, resume=True, n_jobs=2)
    np.testing.assert_array_equal(several.weights, whole)


@pytest.mark.parametrize(
    "damage",
    [lambda b: b"", lambda b: b[:-1], lambda b: b[:-3] + bytes([b[-3] ^ 1]) + b[-2:], lambda b: b + b"\0"],
    ids=["empty", "truncated", "flipped", "longer"],
)
def test_a_damaged_chunk_is_trained_again(iris, whole, tmp_path, damage):
    trained(iris, tmp_path)
    path = tmp_path / "chunk-000001.safetensors"
    good = path.read_bytes()
    path.write_bytes(damage(good))
    np.testing.assert_array_equal(trained(iris, tmp_path, resume=True).weights, whole)
    assert path.read_bytes() == good


def test_a_chunk_of_another_training_is_not_taken(iris, whole, tmp_path):
    trained(iris, tmp_path / "other", random_state=3)
    trained(iris, tmp_path / "this")
    name = "chunk-000001.safetensors"
    (tmp_path / "this" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    np.testing.assert_array_equal(trained(iris, tmp_path / "this", resume=True).weights, whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.01}, "'learning_rate' was 0.001 and is 0.01"),
        ({"learning_rate": (0.001, 0.01)}, r"'learning_rate' was 0.001 and is \[0.001, 0.01\]"),
        ({"n_runs": 8}, "'n_runs' was 7 and is 8"),
        ({"random_state": 3, "epochs": 4}, "'epochs' was 3 and is 4; 'random_state' was 2 and is 3"),
        ({"chunk_size": 3}, "'chunk_size'"),
        ({"targets": np.zeros((7, 120))}, "'targets' was None"),
    ],
)
def test_another_setting_is_refused_with_the_difference(iris, tmp_path, changes, message):
    interrupted(iris, tmp_path, 7)
    before = files(tmp_path)
    with pytest.raises(InvalidInputError, match=message):
        trained(iris, tmp_path, resume=True, **changes)
    assert files(tmp_path) == before


def test_other_data_and_other_versions_are_refused(iris, tmp_path):
    interrupted(iris, tmp_path, 7)
    with pytest.raises(InvalidInputError, match="'data' was"):
        trained(load_task("iris", seed=1), tmp_path, resume=True)
    path = tmp_path / "training.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps({**described, "versions": {**described["versions"], "torch": "1.0"}}))
    with pytest.raises(InvalidInputError, match=r"'versions' was .*'torch': '1.0'"):
        trained(iris, tmp_path, resume=True)
    path.write_text("{")
    with pytest.raises(InvalidInputError, match=r"training\.json: it is damaged"):
        trained(iris, tmp_path, resume=True)


def test_a_checkpoint_is_not_written_over(iris, tmp_path):
    interrupted(iris, tmp_path, 7)
    with pytest.raises(InvalidInputError, match=r"there is a checkpoint already\. Resume it"):
        trained(iris, tmp_path)


def test_a_folder_that_is_none_is_refused_before_training(iris, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file: .* Give another folder"):
        trained(iris, tmp_path / "file", progress=lambda *done: pytest.fail("it trained"))


def test_the_command_resumes(tmp_path):
    arguments = ["populate", "iris", "-n", "3", "--hidden", "4", "--epochs", "2", "--learning-rate", "0.001:0.1", "-q"]
    arguments += ["--optimizer", "sgd", "--schedule", "cyclical", "--cycles", "2"]
    folder = str(tmp_path / "half")
    for name, more in (("a", []), ("b", ["--checkpoint", folder]), ("c", ["--checkpoint", folder, "--resume"])):
        result = CliRunner().invoke(main, [*arguments, *more, "-o", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    population = load_population(tmp_path / "a")
    assert population.weights.steps.tolist() == [2, 4] * 3
    assert len(set(population.hyperparameters["learning_rate"])) == 3
    for more, code, message in (
        (["--checkpoint", folder], 3, "there is a checkpoint already"),
        (["--checkpoint", folder, "--resume", "--seed", "1"], 3, "'random_state' was 0 and is 1"),
        (["--resume"], 2, "'checkpoint'"),
        (["--momentum", "0.5:2"], 2, "'0.5:2' is neither"),
        (["--weight-decay", "a"], 2, "'a' is neither"),
    ):
        result = CliRunner().invoke(main, [*arguments, *more, "-o", str(tmp_path / "d")])
        assert result.exit_code == code and message in result.output, result.output
    assert not (tmp_path / "d").exists()
