"""Where commands say what they did: nowhere with -q if it is in a file, and not at all where nobody can hear it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import wsflow
from wsflow.cli import main

TINY = ["-p", "velocity.width=8", "-p", "velocity.depth=1", "-p", "velocity.heads=2", "-p", "solver.n_steps=2"]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small population."""
    path = tmp_path_factory.mktemp("output") / "zoo.st"
    wsflow.save_population(wsflow.train_population(wsflow.load_task("iris"), (4,), 6, epochs=2), path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_quiet_commands_say_nothing_of_what_they_wrote(zoo, tmp_path):
    out = tmp_path / "aligned.st"
    found = run("align", zoo, "-o", out, "--method", "weight", "-q")
    assert found.exit_code == 0 and found.stdout == found.stderr == "" and len(wsflow.load_population(out)) == 6


def test_quiet_commands_print_what_is_in_no_file(zoo):
    assert "Nothing was written." in run("fit", zoo, "-o", "m.st", *TINY, "--dry-run", "-q").stdout
    assert "zoo.st" in run("info", zoo, "-q").stdout


def test_a_result_that_would_be_lost_ends_the_command_with_5(zoo, tmp_path):
    """The standard output is closed, as by ``>&-``: a result that is in a file needs none."""

    def closed(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "wsflow", *map(str, words)]
        return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, preexec_fn=lambda: os.close(1))

    out = tmp_path / "canonical.st"
    for words in (["info", zoo], ["info", zoo, "--json"], ["canonicalize", zoo, "-o", out, "--json"]):
        done = closed(*words)
        assert done.returncode == 5 and "The standard output is closed" in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1 and not out.exists()
    assert closed("canonicalize", zoo, "-o", out).returncode == 0 and len(wsflow.load_population(out)) == 6
