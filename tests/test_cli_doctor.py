"""wsflow doctor, and completion in shells through the installed entry point."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from wsflow.cli import main
from wsflow.exceptions import InvalidInputError
from wsflow.populations.datasets import DATASETS, ImageDataset

doctor = importlib.import_module("wsflow.cli.doctor")
ENTRY = Path(sys.executable).with_name("wsflow")


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *words])


def test_a_good_machine_is_said_to_be_one() -> None:
    data = json.loads(run("--json").output)
    names = {row["name"] for row in data["libraries"] if row["extra"] is None}
    assert {"torch", "scikit-learn", "geomstats", "POT", "click", "rich", "safetensors", "matplotlib"} <= names
    assert not [row for row in data["libraries"] if row["extra"] is None and row["problem"]]
    assert data["devices"][0] == "cpu" and data["cores"] >= 1 and data["memory_gib"] > 0
    assert set(data["data"]) == {name for name, row in DATASETS.items() if isinstance(row, ImageDataset)}
    assert run().exit_code == 0 and "ok  torch" in run().output


def without(monkeypatch: pytest.MonkeyPatch, name: str, found: Any) -> None:
    """Let a library have another version, or none."""

    def version(library: str) -> str:
        if library != name:
            return importlib.metadata.version(library)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return str(found)

    monkeypatch.setattr(doctor, "version", version)


@pytest.mark.parametrize(("found", "said"), [(None, "torch: is not installed"), ("1.0", "torch: is 1.0")])
def test_what_is_missing_or_does_not_fit_is_named_with_the_remedy(monkeypatch, found: Any, said: str) -> None:
    without(monkeypatch, "torch", found)
    result = run()
    assert result.exit_code == InvalidInputError.exit_code
    assert said in result.output and "pip install 'torch<2.14,>=2.10'" in result.output
    assert "NO  torch" in result.output


def test_two_that_do_not_go_together_are_found_by_importing(monkeypatch) -> None:
    real = importlib.import_module

    def broken(name: str, *rest: Any) -> Any:
        if name == "geomstats":
            raise AttributeError("module 'numpy' has no attribute 'trapz'")
        return real(name, *rest)

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    result = run()
    assert "geomstats: cannot be imported (AttributeError: module 'numpy' has no attribute 'trapz')" in result.output
    assert result.exit_code == InvalidInputError.exit_code


def test_what_an_extra_needs_is_no_error(monkeypatch) -> None:
    without(monkeypatch, "onnx", None)
    result = run()
    assert result.exit_code == 0 and "--  onnx>=1.16: is not installed, for wsflow[onnx]" in result.output


def test_folders_of_data_are_found(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WSFLOW_DATA", str(tmp_path))
    assert not any(json.loads(run("--json").output)["data"].values())
    (tmp_path / "mnist").mkdir()
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / "mnist" / f"{name}-ubyte.gz").write_bytes(b"")
    assert json.loads(run("--json").output)["data"]["mnist"] == str(tmp_path / "mnist")


def completed(shell: str, line: str) -> str:
    """What the entry point says to a shell that asks."""
    words = line.split(" ")
    asked = {"_WSFLOW_COMPLETE": f"{shell}_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    # fish says the word alone
    asked |= {"COMP_CWORD": words[-1]} if shell == "fish" else {}
    found = subprocess.run([ENTRY], env={**os.environ, **asked}, capture_output=True, text=True, check=True)
    return found.stdout


@pytest.mark.skipif(not ENTRY.exists(), reason="wsflow is not installed beside this Python")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("wsflow ca", "canonicalize"),
        ("wsflow fit --geo", "--geometry"),
        ("wsflow fit zoo.st --geometry geo", "geometric"),
        ("wsflow populate breast", "breast_cancer"),
        ("wsflow evaluate a.st b.st --task ir", "iris"),
    ],
)
def test_shells_complete(shell: str, line: str, word: str) -> None:
    assert word in completed(shell, line)


@pytest.mark.skipif(not ENTRY.exists(), reason="wsflow is not installed beside this Python")
def test_paths_are_left_to_the_shell() -> None:
    assert "file,zo" in completed("bash", "wsflow fit zo")
    assert "dir,ha" in completed("bash", "wsflow fit zoo.st --checkpoint ha")


@pytest.mark.skipif(not ENTRY.exists(), reason="wsflow is not installed beside this Python")
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_documented_line_gives_a_script(shell: str) -> None:
    asked = {**os.environ, "_WSFLOW_COMPLETE": f"{shell}_source"}
    script = subprocess.run([ENTRY], env=asked, capture_output=True, text=True, check=True).stdout
    assert "_WSFLOW_COMPLETE" in script and "wsflow" in script
