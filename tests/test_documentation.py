"""What the README and the documentation show is run: Python as it stands, with short training, and commands parsed."""

from __future__ import annotations

import re
import runpy
import textwrap
from pathlib import Path

import click
import pytest

import wsflow
from wsflow.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.rst"))]
# the language of a block, and what is in it
BLOCKS = {
    ".md": re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL),
    ".rst": re.compile(r"^\.\. code-block:: (\w+)\n\n((?:(?: {3}.*)?\n)+)", re.MULTILINE),
}
COMMAND = re.compile(r"^wsflow (\w+ .*?)(?: +#.*)?$", re.MULTILINE)


def code_of(page: Path, *languages: str) -> str:
    """The page's code in some languages, one block after the other."""
    blocks = BLOCKS[page.suffix].findall(page.read_text(encoding="utf-8"))
    return "\n".join(textwrap.dedent(block) for language, block in blocks if language in languages)


PROGRAMS = {page.name: code for page in PAGES if (code := code_of(page, "python"))}
COMMANDS = [line for page in PAGES for line in COMMAND.findall(code_of(page, "", "text"))]


@pytest.fixture
def small(monkeypatch, tmp_path):
    """An empty folder, and training that is short unless the page says how long it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(wsflow.WeightFlow.__init__.__kwdefaults__, "max_iter", 3)
    monkeypatch.setitem(wsflow.WeightFlow.__init__.__kwdefaults__, "width", 8)
    return tmp_path


def test_pages_have_programs_and_commands():
    assert {"README.md", "index.rst", "extending.rst", "own_networks.rst", "reading_a_report.rst"} <= set(PROGRAMS)
    assert {line.split()[0] for line in COMMANDS} >= {"populate", "fit", "sample", "score", "evaluate", "info"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_python_runs(name, small):
    if "population.safetensors" in PROGRAMS[name]:
        population = wsflow.train_population(wsflow.load_task("iris"), hidden=(3,), n_runs=12, epochs=2)
        wsflow.save_population(population, small / "population.safetensors")
    exec(compile(PROGRAMS[name], name, "exec"), {"__name__": name})


@pytest.mark.parametrize("line", sorted(set(COMMANDS)))
def test_commands_parse(line):
    name, *arguments = line.split()
    context = click.Context(main)
    command = main.get_command(context, name)
    assert command is not None
    command.make_context(name, arguments, parent=context)


def test_the_package_runs_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["wsflow", "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("wsflow", run_name="__main__")
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("Usage: wsflow ")
