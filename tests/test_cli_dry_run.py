"""A dry run: what a fit would take, of its first steps, and nothing written."""

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
from wsflow.cli.dry_run import STEPS, measure_fit
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
