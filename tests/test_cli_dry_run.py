"""A dry run: what a fit or a population would take, of its first steps, and nothing written."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from saved import make_population
from sklearn.pipeline import make_pipeline

import wsflow
from wsflow import PermutationAligner, ScaleCanonicalizer, WeightFlow
from wsflow.cli import main
from wsflow.cli.dry_run import STEPS, measure_fit, measure_training
from wsflow.models.options import NeuronTransformer

TINY = ["-p", "velocity.width=8", "-p", "velocity.depth=1", "-p", "velocity.heads=2"]


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    wsflow.save_population(make_population(24), tmp_path / "zoo.st")
    return tmp_path / "zoo.st"


def run(zoo: Path, *words: object):
    arguments = ["fit", zoo, "-o", zoo.parent / "model.st", "--checkpoint", zoo.parent / "state", *TINY, *words]
    return CliRunner().invoke(main, [str(word) for word in arguments])


def test_it_writes_nothing_and_ends_long_before_the_fit_would(zoo: Path) -> None:
    start = time.monotonic()
    result = run(zoo, "--iterations", 10**6, "--dry-run", "--json", "-q")
    taken = time.monotonic() - start
    assert result.exit_code == 0, result.output
    assert [path.name for path in zoo.parent.iterdir()] == ["zoo.st"]
    found = json.loads(result.stdout)
    assert found["steps"] == 10**6 and found["networks"] == 24 and found["weights"] == 27
    seconds = found["seconds"]
    assert seconds["total"] == pytest.approx(seconds["before"] + (10**6 - 1) * seconds["step"])
    # the steps that were made took no longer than the command, and all of them take far longer
    assert 0 < seconds["step"] * STEPS / 2 < taken < seconds["total"] and 0 < seconds["before"] < taken
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert 2**20 < found["peak_memory"] <= peak and found["file"] > 0


def test_it_says_so_in_words(zoo: Path) -> None:
    result = run(zoo, "--iterations", 600, "--dry-run", "-q")
    assert result.exit_code == 0 and result.stdout.startswith("Nothing was written. A fit to 24 networks")
    assert "of 600 steps" in result.stdout and result.stdout.count("\n") == 1


def test_what_would_be_refused_is_refused(zoo: Path) -> None:
    assert run(zoo, "--dry-run", "-p", "training.batch_size=1000000000000").exit_code == 2
    (zoo.parent / "model.st").write_bytes(b"precious")
    assert run(zoo, "--dry-run").exit_code == 5


@pytest.mark.parametrize("iterations", [1, 5])
def test_a_fit_that_is_shorter_than_the_measurement_is_done(iterations: int) -> None:
    """It is the fit itself, and its time is the estimate."""
    flow = WeightFlow(max_iter=iterations, velocity=NeuronTransformer(width=8, depth=1, heads=2), random_state=0)
    model = make_pipeline(PermutationAligner(), ScaleCanonicalizer(), flow)
    start = time.perf_counter()
    found = measure_fit(model, make_population(24).weights, 100)
    taken = time.perf_counter() - start
    assert found["steps"] == iterations and 0 < found["seconds"]["before"] <= taken
    assert found["seconds"]["total"] == pytest.approx(
        found["seconds"]["before"] + (iterations - 1) * found["seconds"]["step"]
    )
    assert model[-1].n_iter_ == iterations and model[-1].progress is None


class TestPopulate:
    FEW = ("iris", "-n", 40, "--hidden", 4, "-q")

    def run(self, folder: Path, *words: object):
        arguments = ["populate", *self.FEW, "-o", folder / "zoo.st", "--dry-run", *words]
        return CliRunner().invoke(main, [str(word) for word in arguments])

    def test_it_writes_nothing_and_ends_long_before_the_training_would(self, tmp_path: Path) -> None:
        start = time.monotonic()
        result = self.run(tmp_path, "--epochs", 10**6, "--checkpoint", tmp_path / "state", "--json", "--snapshots", 2)
        taken = time.monotonic() - start
        assert result.exit_code == 0, result.output
        assert not list(tmp_path.iterdir())
        found = json.loads(result.stdout)
        task = wsflow.load_task("iris")
        assert found["steps"] == 10**6 * -(-len(task.X) // 64) and found["runs"] == 40 and found["networks"] == 80
        assert found["weights"] == 4 * 4 + 4 + 4 * 3 + 3 and found["file"] == 4 * 80 * 35 and found["chunks"] == 1
        seconds = found["seconds"]
        assert seconds["total"] == pytest.approx(seconds["before"] + found["steps"] * seconds["step"])
        assert 0 < seconds["step"] < taken < seconds["total"] and 0 <= seconds["before"] < taken

    def test_it_says_so_in_words(self, tmp_path: Path) -> None:
        result = self.run(tmp_path, "--steps", 6)
        assert result.stdout.startswith("Nothing was written. Training 40 runs of networks of 35 weights takes about ")
        assert "each of 6 steps of all runs together" in result.stdout and result.stdout.count("\n") == 1
        assert "takes at most" in self.run(tmp_path, "--steps", "3:6").stdout

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            (["--snapshots", 3, "--steps", 5], 2, "3 snapshots 4 iterations apart do not fit"),
            (["--resume"], 2, "without a --checkpoint"),
            (["--architecture", "cnn:4"], 2, "got 'hidden' and 'architecture'"),
            (["--learning-rate", 1e30, "--optimizer", "sgd"], 4, "diverged"),
        ],
    )
    def test_what_would_be_refused_is_refused(self, tmp_path: Path, words: list, code: int, message: str) -> None:
        result = self.run(tmp_path, *words)
        assert result.exit_code == code and message in result.stderr, result.output
        assert not list(tmp_path.iterdir())

    def test_files_and_checkpoints_that_are_there_are_refused(self, tmp_path: Path) -> None:
        state = tmp_path / "state"
        state.mkdir()
        (state / "training.json").write_text("{}")
        assert "there is a checkpoint already" in self.run(tmp_path, "--checkpoint", state).stderr
        assert self.run(tmp_path, "--checkpoint", state, "--resume", "--steps", 4).exit_code == 0
        (tmp_path / "zoo.st").write_bytes(b"precious")
        assert self.run(tmp_path).exit_code == 5

    def test_the_estimate_is_that_of_the_steps(self) -> None:
        """Of a training that sleeps in each step, in chunks of 10 of 25 runs, with epochs of 8 steps."""
        trained = []

        def train(steps: int, n_jobs: int, progress) -> None:
            trained.append(steps)
            epochs = -(-steps // 8)
            time.sleep(0.1)
            for chunk in range(3):
                size = (10, 10, 5)[chunk]
                for epoch in range(epochs):
                    time.sleep(0.02 * min(8, steps - 8 * epoch))
                    progress(10 * chunk * epochs + size * (epoch + 1), 25 * epochs)

        found = measure_training(train, 25, 1000, 1, n_jobs=2)
        # a sleep that takes longer ends it sooner
        assert trained[:3] == [4, 4, 16] and (found["chunks"], found["processes"]) == (3, 2)
        seconds = found["seconds"]
        # sleeping takes no less than it should
        assert 0.02 * 0.9 < seconds["step"] < 0.1 and seconds["before"] < 2
        assert seconds["total"] == pytest.approx(seconds["before"] + 2 * 1000 * seconds["step"])
