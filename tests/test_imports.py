"""Importing wsflow, and asking it for help, load nothing heavy."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HEAVY = ("torch", "sklearn", "scipy", "geomstats", "matplotlib", "ot", "pandas", "torch_geometric", "safetensors")
HELP = """
import click.testing
from wsflow.cli import main
result = click.testing.CliRunner().invoke(main, {arguments})
assert result.exit_code == 0, result.output
"""


def loaded(code: str) -> set[str]:
    """The heavy libraries that a fresh interpreter has loaded after some code."""
    code += "\nimport json, sys\nprint(json.dumps([m for m in sys.modules if '.' not in m]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1])) & set(HEAVY)


def test_importing_wsflow_is_light():
    assert not loaded("import wsflow; dir(wsflow); wsflow.__version__")


@pytest.mark.parametrize("command", [[], ["demo"], ["populate"], ["fit"], ["plot"]])
def test_help_is_light(command):
    assert not loaded(HELP.format(arguments=[*command, "--help"]))


def test_an_architecture_loads_the_tracer_only_to_read_or_certify():
    code = "from wsflow.architecture import Architecture\narchitecture = Architecture.mlp([2, 3, 1])"
    assert "torch" not in loaded(code)
    assert "torch" in loaded(f"{code}\nassert architecture.certify() < 1e-12")


def test_the_probe_sees_what_is_loaded():
    assert "torch" in loaded("import wsflow; wsflow.WeightArray; import torch")


def test_public_names_are_there():
    code = "import wsflow\nmissing = [n for n in wsflow.__all__ if not hasattr(wsflow, n)]\nassert not missing, missing"
    loaded(code)


def test_an_unknown_name_is_an_attribute_error():
    loaded("import wsflow\ntry:\n    wsflow.nonsense\nexcept AttributeError:\n    pass\nelse:\n    raise SystemExit(1)")


def test_the_version_stands_in_one_place():
    """What is installed in a way that follows the source may have the number of an earlier day."""
    import wsflow

    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    settings = tomllib.loads(text)
    assert settings["project"]["dynamic"] == ["version"] and "version" not in settings["project"]
    assert settings["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "wsflow.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", wsflow.__version__)
