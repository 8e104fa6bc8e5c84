"""Whatever is done to a file, its reader says so with an error of wsflow, or what it loads can be used.

WSFLOW_MUTATIONS=100000 makes this many mutations of the files of each reader; benchmarks/mutations.py does so reader by
reader and goes on where it was interrupted.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from readers import READERS, attempt, attempts, prepared
from structures import STRUCTURES

MUTATIONS = int(os.environ.get("WSFLOW_MUTATIONS", "300"))
pytestmark = [pytest.mark.slow] if MUTATIONS > 300 else []


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("mutations")


@pytest.mark.parametrize("name", READERS)
def test_mutated_files_are_refused_or_used(folder, name, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WSFLOW_DATA", str(folder))
    tried = list(attempts(READERS[name], folder, range(MUTATIONS)))
    if not tried:
        pytest.skip("what writes these files is not installed")
    found = [f"{number}: {problem}" for number, _, problem in tried if problem]
    assert not found, "\n".join(found[:20])
    assert not (folder / "canary").exists()


@pytest.mark.parametrize("name", STRUCTURES)
def test_files_of_any_structure_are_refused_or_used(folder, name, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WSFLOW_DATA", str(folder))
    path, _ = prepared(READERS[name], folder)

    @settings(max_examples=MUTATIONS)
    @given(STRUCTURES[name])
    def check(content):
        path.write_bytes(content)
        _, problem = attempt(READERS[name], path)
        assert not problem

    check()
