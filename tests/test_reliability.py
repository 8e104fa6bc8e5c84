"""Faults provoked for real: processes that are killed, full disks, closed pipes, and files of other machines.

The page docs/reliability.rst says what is promised at each fault and names the test that shows it.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.pipeline import make_pipeline
from torch import nn

import wsflow
from wsflow import Architecture, PermutationAligner, Population, ScaleCanonicalizer, WeightArray, WeightFlow
from wsflow.architecture.parameters import fixed_parameter
from wsflow.cli import main
from wsflow.flow.solvers import RungeKutta
from wsflow.models.options import NeuronTransformer
from wsflow.persistence.format import read, write

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reliability.rst"
NAMED = re.compile(r"``(test_\w+\.py)::([\w:]+)``")
TINY = ["-p", "velocity.width=8", "-p", "velocity.depth=1", "-p", "velocity.heads=2", "-p", "solver.n_steps=2"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small population, and a model of it."""
    folder = tmp_path_factory.mktemp("reliability")
    task = wsflow.load_task("iris")
    population = wsflow.train_population(task, (4,), 30, epochs=2)
    wsflow.save_population(population, folder / "zoo.safetensors")
    flow = WeightFlow(
        task=task,
        max_iter=3,
        random_state=0,
        velocity=NeuronTransformer(width=8, depth=1, heads=2),
        solver=RungeKutta(n_steps=2),
    )
    model = make_pipeline(PermutationAligner(), ScaleCanonicalizer(), flow).fit(population.weights)
    wsflow.save_model(model, folder / "model.st")
    return folder


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "wsflow", *map(str, words)]


def process(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run wsflow in a process of its own."""
    return subprocess.run(command(*words), capture_output=True, text=True, check=False, timeout=300, **options)


def one_line(done: subprocess.CompletedProcess[str], code: int, *says: str) -> None:
    """The process ended with this code, nothing on stdout, and one line that says what happened."""
    assert done.returncode == code, done.stderr
    assert done.stdout == "" and done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1, done.stderr
    assert all(text in done.stderr for text in says), done.stderr


GROWTH = """
import resource, sys
from wsflow.exceptions import InvalidInputError
from wsflow.persistence import load_population
try:
    load_population(sys.argv[1])
except InvalidInputError:
    pass
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[2:]:
    try:
        load_population(path)
    except InvalidInputError as error:
        assert error.exit_code == 3 and path in str(error)
    else:
        raise SystemExit(f"{path} was read")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_headers_that_lie_take_no_memory(tmp_path: Path) -> None:
    """The peak of the process, in KiB: a header of 2^60 bytes, and a tensor of 2^50."""
    tensor = {"a": {"dtype": "F32", "shape": [2**48], "data_offsets": [0, 2**50]}}
    text = json.dumps(tensor).encode()
    contents = {
        "empty.st": b"",
        "header.st": (2**60).to_bytes(8, "little") + b"{}",
        "tensor.st": len(text).to_bytes(8, "little") + text,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in contents]
    done = subprocess.run([sys.executable, "-c", GROWTH, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 16 * 1024


def test_a_damaged_file_ends_the_command_with_3(files: Path, tmp_path: Path) -> None:
    content = (files / "zoo.safetensors").read_bytes()
    (tmp_path / "flipped.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = process("fit", "flipped.safetensors", "-o", "model.st", cwd=tmp_path)
    one_line(done, 3, "flipped.safetensors: ", "checksum")
    assert os.listdir(tmp_path) == ["flipped.safetensors"]


def test_a_name_that_is_a_path_is_only_a_name(tmp_path: Path) -> None:
    """Of a tensor in a state dict, in a population, and as it is written again."""
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    for number in range(2):
        module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
        state = {f"../../escape/{name}": value for name, value in module.state_dict().items()}
        torch.save(state, inside / f"{number}.pt")
    out = CliRunner().invoke(
        main, ["import", str(inside / "*.pt"), "--activation", "relu", "-o", str(inside / "zoo.st")]
    )
    assert out.exit_code == 0, out.output
    named = WeightArray(np.ones((2, 3)), Architecture((fixed_parameter("../../escape", (3,)),)))
    wsflow.save_population(Population(named), inside / "named.st")
    again = wsflow.load_population(inside / "named.st").weights
    assert again.architecture.names == ("../../escape",)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"0.pt", "1.pt", "zoo.st", "named.st"}


@pytest.mark.parametrize(("n", "says"), [(1, "At least 2 networks are needed, and here is 1")])
def test_the_smallest_population_is_named(n: int, says: str, files: Path, tmp_path: Path) -> None:
    few = wsflow.load_population(files / "zoo.safetensors").weights[:n]
    wsflow.save_population(Population(few), tmp_path / "few.st")
    result = CliRunner().invoke(main, ["fit", str(tmp_path / "few.st"), "-o", str(tmp_path / "model.st"), "-q"])
    assert result.exit_code == 3 and says in result.stderr and not (tmp_path / "model.st").exists()


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".safetensors"])
def test_tensors_without_elements_are_no_network(suffix: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = {"0.weight": torch.zeros(0, 3), "0.bias": torch.zeros(0), "2.weight": torch.zeros(2, 0)}
    path = tmp_path / f"empty{suffix}"
    if suffix == ".npz":
        np.savez(path, **{name: value.numpy() for name, value in state.items()})
    elif suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    result = CliRunner().invoke(main, ["import", str(path), "--activation", "relu", "-o", str(tmp_path / "zoo.st")])
    assert result.exit_code == 3 and path.name in result.stderr and result.stderr.count("\n") == 1, result.stderr
    assert not (tmp_path / "zoo.st").exists()


def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_a_full_disk_ends_the_command_with_5(files: Path, tmp_path: Path) -> None:
    """A limit of 20 kB for files stands for it: the write fails halfway."""
    (tmp_path / "new.st").write_bytes(b"precious")
    words = ["sample", files / "model.st", "-n", 300, "-o", "new.st", "--force", "-q"]
    one_line(process(*words, cwd=tmp_path, preexec_fn=small_files), 5, "new.st: it could not be written")
    assert (tmp_path / "new.st").read_bytes() == b"precious" and os.listdir(tmp_path) == ["new.st"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_behind_stdout_ends_the_command_with_5(files: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command("info", files / "model.st"), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 5 and done.stderr.startswith("Error: ") and "No space left" in done.stderr


def wait_for(happened: Callable[[], bool], running: subprocess.Popen[Any]) -> None:
    """Wait until something has happened, while a process runs."""
    deadline = time.monotonic() + 300
    while not happened():
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def test_a_fit_that_is_killed_ends_with_the_bytes_of_one_that_is_not(files: Path, tmp_path: Path) -> None:
    """By kill -9, when its first state is written: the others are done by --resume."""
    words = ["fit", str(files / "zoo.safetensors"), *TINY, "--iterations", "110", "-q"]
    checkpoint = ["--checkpoint", str(tmp_path / "state"), "-o", str(tmp_path / "resumed.st")]
    with subprocess.Popen(command(*words, *checkpoint)) as killed:
        wait_for(lambda: any((tmp_path / "state").glob("stage-*")), killed)
        killed.send_signal(signal.SIGKILL)
    assert killed.returncode == -9 and not (tmp_path / "resumed.st").exists()
    other = CliRunner().invoke(main, [*words, *checkpoint, "--resume", "--seed", "7"])
    assert other.exit_code == 3 and "'seed' was" in other.stderr
    for more in ([*checkpoint, "--resume"], ["-o", str(tmp_path / "whole.st")]):
        result = CliRunner().invoke(main, [*words, *more])
        assert result.exit_code == 0, result.output
    assert (tmp_path / "resumed.st").read_bytes() == (tmp_path / "whole.st").read_bytes()


WRITER = """
import sys
from wsflow.writing import write_bytes
print("ready", flush=True)
sys.stdin.readline()
for _ in range(30):
    write_bytes(sys.argv[1], sys.argv[2].encode() * 200_000)
"""


def test_processes_that_write_one_file_leave_one_complete_winner(tmp_path: Path) -> None:
    path = tmp_path / "file"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), letter], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for letter in "abc"
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    assert path.read_bytes() in {letter * 200_000 for letter in (b"a", b"b", b"c")}
    assert os.listdir(tmp_path) == ["file"]


def test_a_loss_that_leaves_the_numbers_ends_the_fit_with_4(files: Path, tmp_path: Path) -> None:
    """By a learning rate that is far too large."""
    words = ["fit", str(files / "zoo.safetensors"), *TINY, "-p", "training.learning_rate=1e30", "-q"]
    result = CliRunner().invoke(main, [*words, "-o", str(tmp_path / "model.st")])
    assert result.exit_code == 4 and re.search(r"not finite at step \d+.*smaller learning_rate", result.stderr)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--temperature", "--noise"])
def test_an_ode_that_blows_up_is_named_and_nothing_is_written(option: str, files: Path, tmp_path: Path) -> None:
    words = ["sample", str(files / "model.st"), "-n", "8", option, "1e38", "-o", str(tmp_path / "new.st"), "-q"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 4, (result.output, result.exception)
    assert re.search(r"at t = [\d.]+ \(step \d+\) for 100.0% of the points", result.stderr), result.stderr
    assert not list(tmp_path.iterdir())


def test_a_model_whose_velocity_is_not_finite_is_refused(files: Path, tmp_path: Path) -> None:
    """Its numbers are finite and its checksum is right; what it computes is not."""
    tensors, data = read(files / "model.st", "model")
    for name in tensors:
        if name.startswith("weightflow.network.readout.write."):
            tensors[name] = tensors[name] + np.float32(1e38)
    write(tmp_path / "blown.st", "model", tensors, data)
    result = CliRunner().invoke(main, ["sample", str(tmp_path / "blown.st"), "-o", str(tmp_path / "new.st"), "-q"])
    assert result.exit_code == 3 and "velocity of this flow is not finite" in result.stderr, result.output
    assert os.listdir(tmp_path) == ["blown.st"]


def test_a_guidance_that_is_too_strong_is_named(files: Path, tmp_path: Path) -> None:
    words = ["sample", str(files / "model.st"), "-n", "4", "--guide", "iris", "--strength", "1e300", "-q"]
    result = CliRunner().invoke(main, [*words, "-o", str(tmp_path / "new.st")])
    assert result.exit_code == 4 and "gradient is not finite at t = " in result.stderr, result.output
    assert "use a smaller strength" in result.stderr and not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_ctrl_c_in_a_fit_leaves_the_best_model_and_its_checkpoint(number: int, files: Path, tmp_path: Path) -> None:
    """To an ordinary process, from outside, when it has written its first state."""
    model, state = tmp_path / "model.st", tmp_path / "state"
    words = ["fit", files / "zoo.safetensors", *TINY, "--iterations", 10**6, "-q", "--checkpoint", state, "-o", model]
    with subprocess.Popen(command(*words), stderr=subprocess.PIPE, text=True, preexec_fn=hears_ctrl_c) as fit:
        wait_for(lambda: any(state.glob("stage-*")), fit)
        fit.send_signal(number)
        said = fit.stderr.read()
    assert fit.returncode == 130, said
    assert said.count("\n") == 1 and "best model so far" in said
    assert any(state.glob("stage-*")) and np.isfinite(wsflow.sample(wsflow.load_model(model), 3, 0)).all()


def hears_ctrl_c() -> None:
    """Background shells have SIGINT ignored, and their children with them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    "words",
    [
        ["info", "model.st", "--json"],
        pytest.param(["--help"], marks=pytest.mark.slow),
        pytest.param(["score", "model.st", "zoo.safetensors", "-q"], marks=pytest.mark.slow),
    ],
)
def test_a_pipe_that_nobody_reads_leaves_no_traceback(words: list[str], files: Path) -> None:
    """Its reader has gone before anything is written, as with ``| true``."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(command(*words), stdout=writer, stderr=subprocess.PIPE, text=True, check=False, cwd=files)
    finally:
        os.close(writer)
    assert done.stderr == "" and done.returncode in (0, 1)


CUDA = b"X\x06\x00\x00\x00cuda:0"


def test_a_checkpoint_of_a_gpu_is_read_where_there_is_none(tmp_path: Path) -> None:
    """Its storages say that they belong to a GPU, as those that torch saves there do."""
    module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    torch.save(module.state_dict(), tmp_path / "cpu.pt")
    stream = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "cpu.pt") as archive, zipfile.ZipFile(stream, "w") as other:
        for info in archive.infolist():
            content = archive.read(info)
            if info.filename.endswith("data.pkl"):
                content = content.replace(b"X\x03\x00\x00\x00cpu", CUDA)
                assert CUDA in content
            other.writestr(info.filename, content)
    (tmp_path / "gpu.pt").write_bytes(stream.getvalue())
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(tmp_path / "gpu.pt", weights_only=True)
    found = wsflow.load_networks(tmp_path / "gpu.pt", activation="relu")
    there = wsflow.load_networks(tmp_path / "cpu.pt", activation="relu")
    np.testing.assert_array_equal(found.weights, there.weights)


def test_what_does_not_fit_into_memory_is_refused_at_once(files: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    words = ["sample", str(files / "model.st"), "-n", str(10**12), "-o", str(tmp_path / "new.st")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2 and "GiB" in result.stderr and time.monotonic() - start < 2
    assert not list(tmp_path.iterdir())


def test_samples_are_the_same_in_another_process_and_with_more_threads(files: Path, tmp_path: Path) -> None:
    words = ["sample", files / "model.st", "-n", 5, "--seed", 3, "-o", tmp_path / "there.st", "-q"]
    assert process("--threads", 2, *words).returncode == 0
    there = wsflow.load_population(tmp_path / "there.st").weights
    here = wsflow.sample(wsflow.load_model(files / "model.st"), 5, random_state=3)
    np.testing.assert_allclose(there, here, rtol=1e-6, atol=1e-7)


# one text for each row of the page's tables
ROWS = [row for row in re.split(r"^   \* - ", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:] if row[:5] != "fault"]


class TestThePage:
    """What the page promises is shown by tests that exist."""

    def test_every_row_names_a_test_that_exists(self) -> None:
        for row in ROWS:
            named = NAMED.findall(row)
            assert named, f"this row names no test: {row}"
            for file, name in named:
                assert name in names_in(ROOT / "tests" / file), f"there is no {name} in {file}: {row}"

    def test_every_row_says_what_it_is_what_is_promised_and_what_shows_it(self) -> None:
        assert len(ROWS) >= 20
        assert all(len(re.findall(r"^     - \S", row, flags=re.MULTILINE)) == 2 for row in ROWS)

    def test_every_exit_code_is_one_that_commands_have(self) -> None:
        codes = {int(code) for row in ROWS for code in re.findall(r"exit code (\d+)", row)}
        known = {error.exit_code for error in vars(wsflow.exceptions).values() if hasattr(error, "exit_code")}
        assert codes == known | {130}

    def test_a_name_that_is_gone_would_be_seen(self) -> None:
        assert NAMED.findall("``test_reliability.py::test_gone``") == [("test_reliability.py", "test_gone")]
        here = names_in(Path(__file__))
        assert "TestThePage::test_a_name_that_is_gone_would_be_seen" in here and "test_gone" not in here


def names_in(path: Path) -> set[str]:
    """The names of a file's tests, those of a class after its name."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return {name for name in found if name.rpartition("::")[2].startswith("test_")}
