"""The command line: results, and refusals in one line with an exit code."""

import json
import os
import pty
import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.pipeline import make_pipeline

import wsflow
from wsflow import Architecture, PermutationAligner, Population, ScaleCanonicalizer, WeightArray, WeightFlow
from wsflow.cli import main
from wsflow.cli.main import COMMANDS
from wsflow.flow.solvers import RungeKutta
from wsflow.models.options import NeuronTransformer
from wsflow.persistence.format import read, write

TINY = ["-p", "velocity.width=8", "-p", "velocity.depth=1", "-p", "velocity.heads=2", "-p", "solver.n_steps=2"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small population, held-out runs of it, and a model."""
    folder = tmp_path_factory.mktemp("cli")
    task = wsflow.load_task("iris")
    for name, n, first in (("zoo", 30, 0), ("held_out", 8, 30)):
        population = wsflow.train_population(task, (4,), n, epochs=5, first_run=first)
        wsflow.save_population(population, folder / f"{name}.safetensors")
    weights = wsflow.load_population(folder / "zoo.safetensors").weights
    flow = WeightFlow(
        task=task,
        max_iter=3,
        random_state=0,
        velocity=NeuronTransformer(width=8, depth=1, heads=2),
        solver=RungeKutta(n_steps=2),
    )
    model = make_pipeline(PermutationAligner(), ScaleCanonicalizer(), flow).fit(weights)
    wsflow.save_model(model, folder / "model.st")
    return folder


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    output = run(command, "--help").stdout
    assert "Example:" in output and f"wsflow {command}" in output
    assert all(option in output for option in ("--seed", "--json", "--quiet"))


def test_the_list_of_commands_says_what_they_do():
    output = run("--help").stdout
    assert all(name in output and text in output for name, (_, text) in COMMANDS.items())


def test_populate_fit_sample_score_evaluate_info(tmp_path):
    zoo, model, new = tmp_path / "zoo.safetensors", tmp_path / "model.st", tmp_path / "new.safetensors"
    trained = json.loads(
        run("populate", "iris", "-n", 24, "--hidden", "4", "--epochs", 3, "-o", zoo, "--json", "-q").stdout
    )
    assert trained["runs"] == 24 and 0 <= trained["accuracy"] <= 1
    fitted = json.loads(run("fit", zoo, "-o", model, "--iterations", 3, *TINY, "--json", "-q").stdout)
    assert fitted["iterations"] == 3 and np.isfinite(fitted["loss"])
    run("sample", model, "-n", 6, "-o", new, "--json", "-q")
    samples = wsflow.load_population(new)
    assert len(samples) == 6 and samples.task.checksum == wsflow.load_task("iris").checksum
    scores = json.loads(run("score", model, new, "--json", "-q").stdout)
    assert len(scores["log_density"]) == 6 and scores["mean"] == pytest.approx(np.mean(scores["log_density"]))
    assert "nats" in run("score", model, new, "-q").stdout
    plot = tmp_path / "report.png"
    report = json.loads(run("evaluate", new, "--train", zoo, "--plot", plot, "--json", "-q").stdout)
    assert {"accuracy", "loss", "novelty", "dispersion"} <= set(report["samples"]) & set(report["training"])
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert json.loads(run("info", new, "--json").stdout)["networks"] == 6
    assert "WeightFlow" in run("info", model).stdout


@pytest.mark.parametrize("form", ["balanced", "raw"])
def test_fit_takes_scales_in_another_form(form, files, tmp_path):
    arguments = [
        "fit",
        files / "zoo.safetensors",
        "-o",
        tmp_path / "model.st",
        "--iterations",
        3,
        *TINY,
        "--form",
        form,
    ]
    run(*arguments, "--geometry", "euclidean", "-q")
    model, zoo = wsflow.load_model(tmp_path / "model.st"), wsflow.load_population(files / "zoo.safetensors").weights
    assert model[0].form == form and len(model) == (2 if form == "raw" else 3)
    squares = [np.square(rows).sum() for rows in (model[:-1].transform(zoo), zoo)]
    assert np.isclose(*squares, rtol=1e-4) == (form == "raw")
    assert "--form unit" in run(*arguments, "--geometry", "geometric", "-q", "--force", code=3).stderr


def test_the_same_seed_gives_the_same_file(files, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("sample", files / "model.st", "-n", 3, "--seed", seed, "-o", tmp_path / name, "-q")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()


def test_results_go_to_stdout_and_progress_to_stderr(files, tmp_path):
    loud = run("sample", files / "model.st", "-n", 3, "-o", tmp_path / "new")
    assert "3 new networks" in loud.stdout and "Sampling" in loud.stderr
    assert run("sample", files / "model.st", "-n", 3, "-o", tmp_path / "new", "-q", "--force").stderr == ""


def test_demo_writes_its_files_and_its_report(tmp_path):
    arguments = ["--runs", 40, "--held-out", 12, "--samples", 10, "--iterations", 3, "--out", tmp_path / "demo"]
    arguments += ["-p", "velocity.identity=none"]
    result = json.loads(run("demo", *arguments, "--json", "-q").stdout)
    names = {
        "population.safetensors",
        "held_out.safetensors",
        "model.st",
        "samples.safetensors",
        "report.png",
        "report.html",
        "report.json",
    }
    assert {path.name for path in (tmp_path / "demo").iterdir()} == names
    assert {"total", "populate", "align", "fit", "sample", "evaluate"} <= set(result["seconds"])
    assert {"before", "after"} <= set(result["barrier"]) and result["nulls"]
    for row in (result["training"], result["samples"], *result["nulls"].values()):
        assert {"accuracy", "loss", "novelty", "dispersion"} <= set(row)
    assert result["training"]["novelty"] == pytest.approx(0, abs=1e-6)
    assert any("Train more runs" in sentence for sentence in result["verdict"])
    assert json.loads((tmp_path / "demo" / "report.json").read_text()) == result
    model = wsflow.load_model(tmp_path / "demo" / "model.st")
    samples = wsflow.load_population(tmp_path / "demo" / "samples.safetensors").weights
    assert np.array_equal(wsflow.sample(model, 10, random_state=0), samples)


class TestRefusals:
    """One line with the remedy, an exit code, and nothing overwritten."""

    @pytest.fixture
    def out(self, tmp_path):
        path = tmp_path / "out.safetensors"
        path.write_bytes(b"precious")
        yield path
        assert path.read_bytes() == b"precious"
        assert [p.name for p in path.parent.iterdir() if p.name.startswith((".", "out"))] == ["out.safetensors"]

    def refused(self, code, message, *arguments):
        # nothing but the refusal keeps the file
        force = ["--force"] if "-o" in arguments else []
        result = run(*arguments, *force, code=code)
        line = result.stderr.strip().splitlines()[-1]
        assert line.startswith("Error: ") and message in line and result.stdout == ""

    def test_truncated(self, files, out, tmp_path):
        path = tmp_path / "cut.safetensors"
        path.write_bytes((files / "zoo.safetensors").read_bytes()[:-7])
        self.refused(3, "cut.safetensors", "fit", path, "-o", out, "-q")

    def test_missing(self, out, tmp_path):
        self.refused(3, "nowhere.st", "sample", tmp_path / "nowhere.st", "-o", out, "-q")

    def test_another_architecture(self, files, tmp_path):
        other = Architecture.mlp([4, 5, 3])
        weights = WeightArray(np.random.default_rng(0).normal(size=(5, other.n_weights)), other)
        wsflow.save_population(Population(weights), tmp_path / "other.safetensors")
        self.refused(3, "4-4-3", "score", files / "model.st", tmp_path / "other.safetensors", "-q")
        held_out = files / "zoo.safetensors"
        self.refused(3, "4-5-3", "evaluate", tmp_path / "other.safetensors", "--train", held_out, "-q")

    def test_a_nan_weight(self, files, out, tmp_path):
        tensors, data = read(files / "zoo.safetensors", "population")
        tensors["0.weight"][2, 0] = np.nan
        path = tmp_path / "nan.safetensors"
        write(path, "population", tensors, data)
        self.refused(3, "'0.weight'", "fit", path, "-o", out, "-q")

    def test_an_unknown_task(self, out):
        self.refused(3, "breast_cancer", "populate", "moons", "-o", out, "-q")

    @pytest.mark.parametrize("command", [["populate", "iris"], ["sample", "model.st"]])
    def test_no_networks(self, command, out):
        self.refused(2, "'-n'", *command, "-n", 0, "-o", out)

    def test_more_networks_than_memory(self, files, out):
        self.refused(2, "GiB", "sample", files / "model.st", "-n", 10**12, "-o", out)
        self.refused(2, "GiB", "populate", "iris", "-n", 10**12, "-o", out)

    def test_a_model_where_a_population_is_needed(self, files, out):
        self.refused(3, "population", "fit", files / "model.st", "-o", out, "-q")

    @pytest.mark.parametrize(
        ("parameter", "message"),
        [
            ("velocty=mlp", "no parameter 'velocty' to set. Did you mean 'velocity'?"),
            ("velocity.depht=3", "no parameter 'depht' to set. Did you mean 'depth'?"),
            ("depth=3", "no parameter 'depth'"),
            ("velocity.depth", "NAME=VALUE"),
            ("max_iter.depth=3", "no parameters of its own"),
            ("source=flat", "-p source is one of"),
            ("velocity.depth=0", "-p velocity.depth must be an int in the range [1, inf)"),
            ("source.shrinkage=5", "-p source.shrinkage must be a float in the range [0.0, 1.0]"),
            ("max_iter=1.5", "whole number"),
            ("task=iris", "no parameter 'task'"),
        ],
    )
    def test_a_wrong_parameter(self, parameter, message, files, out):
        self.refused(2, message, "fit", files / "zoo.safetensors", "-o", out, "-p", parameter, "-q")
        self.refused(2, message, "demo", "--out", files / "demo", "-p", parameter, "-q")

    def test_a_file_that_is_read_is_not_written_over(self, files):
        zoo, model = files / "zoo.safetensors", files / "model.st"
        before = zoo.read_bytes(), model.read_bytes()
        self.refused(5, "would be lost", "sample", model, "-o", model, "-q")
        self.refused(5, "would be lost", "fit", zoo, "-o", files / "." / "zoo.safetensors", "-q")
        self.refused(5, "would be lost", "evaluate", model, "--train", zoo, "--plot", zoo, "-q")
        assert before == (zoo.read_bytes(), model.read_bytes())

    def test_guidance_by_a_task_of_other_networks(self, files, out):
        self.refused(3, "task", "sample", files / "model.st", "-n", 2, "--guide", "wine", "-o", out, "-q")

    def test_networks_that_do_not_fit_into_memory(self, out):
        self.refused(2, "GiB", "populate", "iris", "-n", 1, "--hidden", "100000,100000", "-o", out)

    def test_run_numbers_stay_below_those_of_a_file(self, out):
        self.refused(2, "--first-run", "populate", "iris", "-n", 1, "--first-run", 2**63, "-o", out)

    def test_wrong_usage_is_one_line_too(self, out):
        for arguments in (["populate", "iris", "-n", 0, "-o", out], ["fit", "--nonsense"], ["nonsense"]):
            assert len(run(*arguments, code=2).stderr.splitlines()) == 1

    def test_an_unwritable_output(self, files, tmp_path):
        self.refused(5, "directory", "fit", files / "zoo.safetensors", "-o", tmp_path, "-q")
        self.refused(5, "no folder", "populate", "iris", "-o", tmp_path / "no" / "zoo.safetensors", "-q")


def test_debug_shows_the_traceback(tmp_path):
    result = CliRunner().invoke(main, ["--debug", "info", str(tmp_path / "nothing")])
    assert isinstance(result.exception, wsflow.exceptions.InvalidInputError)


ENDLESS = """
import signal, sys, time, wsflow
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
def train_population(*args, **kwargs):
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)
wsflow.train_population = train_population
from wsflow.cli import main
main()
"""


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_with_130_and_one_line(number, tmp_path):
    arguments = ["populate", "iris", "-o", str(tmp_path / "zoo"), "-q"]
    command = [sys.executable, "-c", ENDLESS, *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "ready\n"
        os.kill(process.pid, number)
        rest = process.stderr.read()
    assert process.returncode == 130 and rest == "Error: interrupted.\n"
    assert not (tmp_path / "zoo").exists()


INTERRUPTED_FIT = """
import os, signal, sys, wsflow
number = int(sys.argv.pop())
original = wsflow.WeightFlow.set_params
def set_params(self, **params):
    def progress(done, total):
        if done == 60:
            os.kill(os.getpid(), number)
    return original(self, **{k: progress if k == "progress" and v else v for k, v in params.items()})
wsflow.WeightFlow.set_params = set_params
from wsflow.cli import main
main()
"""


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_an_interrupted_fit_keeps_the_best_so_far(files, tmp_path, number):
    arguments = ["fit", files / "zoo.safetensors", "-o", tmp_path / "model.st", "--iterations", 10**6, *TINY, "-q"]
    command = [sys.executable, "-c", INTERRUPTED_FIT, *map(str, arguments), str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 130 and "best model so far, of step 50" in done.stderr
    model = wsflow.load_model(tmp_path / "model.st")
    assert model[-1].n_iter_ == 50 and np.isfinite(wsflow.sample(model, 3, 0)).all()


IN_A_TERMINAL = """
import fcntl, sys, termios, time, wsflow
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
original = wsflow.WeightFlow.set_params
def set_params(self, **params):
    bar = params.get("progress")
    def progress(done, total):
        bar(done, total)
        if done == 60:
            print("ready", file=sys.__stderr__, flush=True)
            time.sleep(60)
    return original(self, **{k: progress if k == "progress" and v else v for k, v in params.items()})
wsflow.WeightFlow.set_params = set_params
from wsflow.cli import main
main()
"""


@pytest.mark.usefixtures("hangups")
def test_a_fit_whose_terminal_is_closed_keeps_the_best_so_far(files, tmp_path):
    """Its bars cannot be drawn any more, and the signal may come twice: of the terminal, and of its shell."""
    arguments = ["fit", files / "zoo.safetensors", "-o", tmp_path / "model.st", "--iterations", 10**6, *TINY]
    command = [sys.executable, "-c", IN_A_TERMINAL, *map(str, arguments)]
    terminal, own = pty.openpty()
    process = subprocess.Popen(command, stdin=own, stdout=own, stderr=own, start_new_session=True)
    os.close(own)
    shown = b""
    while b"ready" not in shown:
        shown = shown[-10:] + os.read(terminal, 1000)
    os.close(terminal)
    assert process.wait() == 130
    assert wsflow.load_model(tmp_path / "model.st")[-1].n_iter_ == 50


@pytest.mark.slow
def test_what_ignores_hangups_goes_on(tmp_path):
    arguments = ["populate", "iris", "-n", "2", "--epochs", "1", "-o", str(tmp_path / "zoo.st"), "-q"]
    code = "import os, signal, wsflow.cli; signal.signal(signal.SIGHUP, signal.SIG_IGN); import wsflow\n"
    code += "original = wsflow.train_population\n"
    code += "def train(*a, **k): os.kill(os.getpid(), signal.SIGHUP); return original(*a, **k)\n"
    code += "wsflow.train_population = train; wsflow.cli.main()"
    assert subprocess.run([sys.executable, "-c", code, *arguments], check=False, stdout=subprocess.PIPE).returncode == 0
    assert len(wsflow.load_population(tmp_path / "zoo.st")) == 2


def test_a_closed_pipe_leaves_no_traceback(files):
    code = "from wsflow.cli import main; main()"
    command = f"{sys.executable} -c '{code}' info {files / 'model.st'} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert ": a model of" in done.stdout and "Traceback" not in done.stderr
