"""Training that is interrupted: what is done is kept, the end is the same to the bit, and nothing else is resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
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
# when the description and two chunks are complete, and the third is not
KILLED_WHILE_WRITING = """
import os, signal, sys
import wsflow
replace, calls = os.replace, []
def killed(*paths):
    calls.append(paths)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*paths)
os.replace = killed
wsflow.train_population(wsflow.load_task("iris"), checkpoint=sys.argv[1], **eval(sys.argv[2]))
"""
RESUMED = """
import sys, numpy
import wsflow
task = wsflow.load_task("iris")
population = wsflow.train_population(task, checkpoint=sys.argv[1], resume=True, **eval(sys.argv[2]))
numpy.save(sys.argv[3], numpy.asarray(population.weights))
"""
DONE = ["chunk-000000.safetensors", "chunk-000001.safetensors", "training.json"]


def test_a_killed_process_loses_a_chunk_at_most(iris, whole, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path, repr(SETTINGS)], check=False)
    assert done.returncode == -9 and files(tmp_path) == DONE
    np.testing.assert_array_equal(trained(iris, tmp_path, resume=True).weights, whole)


@pytest.mark.parametrize("finished", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_a_killed_process_was_writing_is_removed(iris, whole, tmp_path, finished):
    command = [sys.executable, "-c", KILLED_WHILE_WRITING, tmp_path, repr(SETTINGS)]
    assert subprocess.run(command, check=False).returncode == -9
    left, *others = files(tmp_path)
    assert left.startswith(".wsflow-") and others == DONE
    if finished:
        # nothing is written when the next one finds all chunks
        trained(iris, tmp_path / "other")
        for path in (tmp_path / "other").iterdir():
            path.rename(tmp_path / path.name)
        (tmp_path / "other").rmdir()
    np.testing.assert_array_equal(trained(iris, tmp_path, resume=True).weights, whole)
    assert len(files(tmp_path)) == 5 and left not in files(tmp_path)


@pytest.mark.slow
def test_three_resumers_end_with_the_same_weights(iris, whole, tmp_path):
    folder = tmp_path / "checkpoint"
    interrupted(iris, folder, 7)
    arguments = [sys.executable, "-c", RESUMED, str(folder), repr(SETTINGS)]
    resumers = [subprocess.Popen([*arguments, str(tmp_path / f"{i}.npy")]) for i in range(3)]
    assert [resumer.wait() for resumer in resumers] == [0, 0, 0]
    for i in range(3):
        np.testing.assert_array_equal(np.load(tmp_path / f"{i}.npy"), whole)
    assert len(files(folder)) == 5


def test_resumers_that_write_at_the_same_moment_do_not_fail_each_other(iris, tmp_path):
    from wsflow.populations.checkpoints import Checkpoint

    interrupted(iris, tmp_path, 7)
    weights, description = np.ones((200, 500), np.float32), json.loads((tmp_path / "training.json").read_text())
    start = threading.Barrier(3)
    failed: list[Exception] = []

    def resume() -> None:
        try:
            for _ in range(30):
                start.wait()
                Checkpoint.begin(tmp_path, description, resume=True).save(0, weights)
        except Exception as error:
            failed.append(error)
            start.abort()

    threads = [threading.Thread(target=resume) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and files(tmp_path) == DONE[::2]
    saved = Checkpoint.begin(tmp_path, description, resume=True).load(0, weights.shape)
    np.testing.assert_array_equal(saved, weights)


# training that does not end by itself, in two chunks
ENDLESS = ["digits", "-n", "400", "--hidden", "400", "--epochs", str(10**7), "--jobs", "2", "-q"]


def workers_of(process: subprocess.Popen[bytes]) -> list[Path]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    folders = [Path("/proc", child) for child in children]
    return [folder for folder in folders if b"popen_loky" in (folder / "cmdline").read_bytes()]


def has_its_chunk(worker: Path) -> bool:
    """Whether the process imports what its chunk needs."""
    return "libtorch" in (worker / "maps").read_text()


def trains(worker: Path) -> bool:
    """Whether the process waits for its parent's end beside its training."""
    return has_its_chunk(worker) and len(list((worker / "task").iterdir())) > 1


@pytest.mark.usefixtures("hangups")
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="it reads Linux's lists of processes")
@pytest.mark.parametrize(
    ("number", "begun"),
    [
        (signal.SIGKILL, has_its_chunk),
        pytest.param(signal.SIGKILL, trains, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, trains, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, trains, marks=pytest.mark.slow),
    ],
)
def test_the_processes_of_a_command_end_with_it(tmp_path, number, begun):
    command = [sys.executable, "-m", "wsflow", "populate", *ENDLESS, "-o", str(tmp_path / "zoo.st")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while len(workers := workers_of(process)) < 2 or not all(map(begun, workers)):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait() == (-9 if number == signal.SIGKILL else 130)
    # if they did not end, this would not
    while any(worker.exists() for worker in workers):
        time.sleep(0.05)
    assert not list(tmp_path.iterdir())


KILLED_BEFORE_A_TASK = """
import os, sys, time
from pathlib import Path
import joblib
from wsflow.cli import main
from wsflow.populations.chunks import Problem
number, wait, arguments = eval(sys.argv[1])
def killed(problem):
    time.sleep(wait)
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    print(*(child for child in children if b"popen_loky" in Path("/proc", child, "cmdline").read_bytes()), flush=True)
    os.kill(os.getpid(), number)
    time.sleep(2)
    return Problem, ()
Problem.__reduce__ = killed
with joblib.parallel_config("loky", idle_worker_timeout=10**6):
    main(arguments)
"""


@pytest.mark.usefixtures("hangups")
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="it reads Linux's lists of processes")
@pytest.mark.parametrize(
    ("number", "wait"),
    [
        (signal.SIGKILL, 0),
        pytest.param(signal.SIGKILL, 5, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 0, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 5, marks=pytest.mark.slow),
    ],
)
def test_processes_that_had_nothing_to_do_end_with_the_command(tmp_path, number, wait):
    """Killed while it packs the first task, when they start or already wait for it."""
    arguments = (int(number), wait, ["populate", *ENDLESS, "-o", str(tmp_path / "zoo.st")])
    done = subprocess.run([sys.executable, "-c", KILLED_BEFORE_A_TASK, repr(arguments)], stdout=subprocess.PIPE)
    assert done.returncode == (-9 if number == signal.SIGKILL else 130)
    workers = done.stdout.split()
    assert len(workers) == 2
    # if they did not end, this would not
    while any(Path("/proc", worker.decode()).exists() for worker in workers):
        time.sleep(0.05)


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
    with pytest.raises(InvalidInputError, match=r"'versions.torch' was '1.0' and is '2"):
        trained(iris, tmp_path, resume=True)


DAMAGE = [
    ("n_runs", 0, "'n_runs' should be a whole number of at least 1, and is 0"),
    ("chunk_size", None, "'chunk_size' should be a whole number of at least 1, and is None"),
    ("random_state", True, "'random_state' should be a whole number of at least 0, and is True"),
    ("first_run", -1, "'first_run' should be a whole number of at least 0"),
    ("hidden", [4, "x"], r"'hidden\.1' should be a whole number"),
    ("learning_rate", [1e-3], "'learning_rate' should be a number"),
    ("momentum", [0.1, float("nan")], "'momentum' should be a number"),
    ("optimizer", "lion", "'optimizer' should be one of .*sghmc.*, and is 'lion'"),
    ("schedule", ["constant"], "'schedule' should be one of"),
    ("activation", 3, "'activation' should be a string"),
    ("activation_argument", "x", "'activation_argument' should be a number"),
    ("data", None, "'data' should be a string"),
    ("targets", 1, "'targets' should be a string"),
    ("versions", {"torch": 2}, r"'versions\.torch' should be a string"),
]


@pytest.fixture(scope="module")
def begun(iris, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("begun")
    interrupted(iris, folder, 7)
    return folder / "training.json"


@pytest.mark.parametrize(("field", "value", "message"), DAMAGE)
def test_what_no_training_writes_is_damaged(iris, begun, field, value, message):
    content = begun.read_text()
    described = json.loads(content)
    try:
        for other, said in ((value, message), (..., f"'{field}' is missing")):
            changed = {name: v for name, v in {**described, field: other}.items() if v is not ...}
            begun.write_text(json.dumps(changed))
            with pytest.raises(
                InvalidInputError, match=rf"training\.json: it is damaged \(.*{said}.*\)\. Give another"
            ):
                trained(iris, begun.parent, resume=True)
    finally:
        begun.write_text(content)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "null", "[" * 10**5, "\x00", '{"n_runs": ' + "9" * 5000 + "}"])
def test_what_describes_no_training_is_damaged(iris, tmp_path, content):
    (tmp_path / "training.json").write_text(content)
    with pytest.raises(InvalidInputError, match=r"training\.json: it is damaged"):
        trained(iris, tmp_path, resume=True)


def test_what_a_training_writes_is_read_again(iris, tmp_path):
    """Seeds of any size, and ranges."""
    changes = {"random_state": 2**70, "learning_rate": (1e-4, 1e-2), "targets": np.zeros((7, 120), int)}
    interrupted(iris, tmp_path, 7, **changes)
    assert len(trained(iris, tmp_path, resume=True, **changes).weights) == 7


def test_a_checkpoint_is_not_written_over(iris, tmp_path):
    interrupted(iris, tmp_path, 7)
    with pytest.raises(InvalidInputError, match=r"there is a checkpoint already\. Resume it"):
        trained(iris, tmp_path)


def test_chunks_of_nobody_knows_what_are_not_written_over(iris, tmp_path):
    (tmp_path / "chunk-000000.safetensors").write_bytes(b"precious")
    for resume in (False, True):
        with pytest.raises(InvalidInputError, match=r"no training\.json beside it says .* Give another folder"):
            trained(iris, tmp_path, resume=resume)
    assert files(tmp_path) == ["chunk-000000.safetensors"]
    assert (tmp_path / "chunk-000000.safetensors").read_bytes() == b"precious"


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
        (["--resume"], 2, "without a --checkpoint"),
        (["--momentum", "0.5:2"], 2, "'0.5:2' is neither"),
        (["--weight-decay", "a"], 2, "'a' is neither"),
    ):
        result = CliRunner().invoke(main, [*arguments, *more, "-o", str(tmp_path / "d")])
        assert result.exit_code == code and message in result.output, result.output
    assert not (tmp_path / "d").exists()
