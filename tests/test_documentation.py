"""What the README and the documentation show is run: Python as it stands, with short training, and commands parsed."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import json
import re
import runpy
import shlex
import subprocess
import textwrap
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner
from test_tracing import THEORY

import wsflow
from wsflow.cli import main
from wsflow.cli.main import COMMANDS as COMMANDS_OF_MAIN
from wsflow.cli.rendering import echo_report
from wsflow.evaluation.nulls import null_names
from wsflow.evaluation.report import Report
from wsflow.models.options import MLP, NeuronTransformer
from wsflow.persistence.classes import HOLDERS
from wsflow.symmetry.matching.methods import METHODS

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


README = ROOT / "README.md"
# what `wsflow demo` measured, on which machine and in which time
DEMO = json.loads((ROOT / "docs" / "results" / "demo.json").read_text(encoding="utf-8"))

PROGRAMS = {page.name: code for page in PAGES if (code := code_of(page, "python"))}
COMMANDS = [line for page in PAGES for line in COMMAND.findall(code_of(page, "", "text"))]


@pytest.fixture
def small(monkeypatch, tmp_path):
    """An empty folder, and training that is short unless the page says how long it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(wsflow.WeightFlow.__init__.__kwdefaults__, "max_iter", 3)
    monkeypatch.setattr(NeuronTransformer.__init__, "__defaults__", (8, *NeuronTransformer.__init__.__defaults__[1:]))
    monkeypatch.setattr(MLP.__init__, "__defaults__", (32, *MLP.__init__.__defaults__[1:]))
    return tmp_path


def test_pages_have_programs_and_commands():
    pages = {"README.md", "index.rst", "extending.rst", "own_networks.rst", "reading_a_report.rst"}
    assert pages | {"tutorial.rst", "your_modules.rst", "symmetries.rst"} <= set(PROGRAMS)
    assert {line.split()[0] for line in COMMANDS} == set(COMMANDS_OF_MAIN) - {"demo"}


# the tutorial has a test of its own
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "tutorial.rst"])
def test_python_runs(name, small):
    if "population.safetensors" in PROGRAMS[name]:
        population = wsflow.train_population(wsflow.load_task("iris"), hidden=(3,), n_runs=12, epochs=2)
        wsflow.save_population(population, small / "population.safetensors")
    exec(compile(PROGRAMS[name], name, "exec"), {"__name__": name})


def test_the_tutorial_draws_its_pictures_and_merges_as_it_says(small):
    names = {"__name__": "tutorial"}
    exec(compile(PROGRAMS["tutorial.rst"], "tutorial.rst", "exec"), names)
    text = (ROOT / "docs" / "tutorial.rst").read_text(encoding="utf-8")
    pictures = re.findall(r"^\.\. figure:: generated/tutorial/(\S+)$", text, re.MULTILINE)
    assert sorted(pictures) == sorted(path.name for path in small.glob("*.png")) and len(pictures) == 3
    assert (small / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    two, task = names["weights"][:2], names["task"]
    apart, merged, unaligned = (
        names["predict"](networks, task).losses.max() for networks in (two, names["merged"], wsflow.merge(two, task))
    )
    assert merged < 1.5 * apart < 2 * apart < unaligned
    assert names["predict"](names["merged"], task.held_out).scores[0] > 0.9


def test_pictures_of_pages_are_drawn_again_when_their_code_has_changed(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_extensions"))
    extension = importlib.import_module("made_from_pages")
    app, page, folder = SimpleNamespace(srcdir=tmp_path), tmp_path / "tutorial.rst", tmp_path / "generated" / "tutorial"
    text = "A page\n======\n\n.. code-block:: python\n\n   x = {}\n\nWords.\n\n.. code-block:: text\n\n   no code\n\n"
    text += ".. code-block:: python\n\n   with open('picture.png', 'a') as file:\n       file.write(str(x))\n"
    for value in (1, 1, 2):
        page.write_text(text.format(value))
        extension.draw(app)
    assert (folder / "picture.png").read_text() == "12"
    page.write_text(text.format("1 / 0"))
    with pytest.raises(subprocess.CalledProcessError):
        extension.draw(app)
    # what failed is run again
    assert not (folder / extension.PROGRAM).exists()


@pytest.mark.parametrize("name", [page.name for page in PAGES if ">>>" in page.read_text(encoding="utf-8")])
def test_transcripts_are_true(name):
    failed, attempted = doctest.testfile(str(ROOT / "docs" / name), module_relative=False)
    assert attempted and not failed


def test_networks_merge_as_well_as_the_readme_says(small):
    program = BLOCKS[".md"].findall(README.read_text(encoding="utf-8"))
    code = next(block for _, block in program if "wsflow.loss_barrier" in block)
    names = {"wsflow": wsflow, "PermutationAligner": wsflow.PermutationAligner}
    exec(compile(code, "README.md", "exec"), names)
    barriers = re.findall(r"^(wsflow\.loss_barrier.*?\)) +# (below )?([\d.]+)", code, re.MULTILINE)
    found = {limit: (float(eval(call, names)[0]), float(number)) for call, limit, number in barriers}
    between, stated = found[""]
    assert between == pytest.approx(stated, rel=0.01)
    # other matrix kernels lead to other choices of the aligner, and barriers from 0.048 to 0.11
    aligned, limit = found["below "]
    assert aligned < limit < between / 10


def test_the_readme_shows_what_the_demo_printed(capsys):
    run, hardware = DEMO["runs"][0], DEMO["hardware"]
    known = {field.name for field in dataclasses.fields(Report)} - {"frontiers"}
    fields = {name: value for name, value in run.items() if name in known}
    # the keys of the file are sorted
    fields["nulls"] = {name: run["nulls"][name] for name in null_names()}
    fields["distribution"] = {"samples": dict(sorted(run["distribution"]["samples"].items(), reverse=True))}
    echo_report(Report(**fields), "")
    printed = capsys.readouterr().out
    text = README.read_text(encoding="utf-8").partition("## What the demo prints")[2]
    shown = BLOCKS[".md"].findall(text)[0][1]
    # what the columns mean is said below the block
    printed = re.sub(r"^novelty: .*?(?=^Mean midpoint)", "", printed, flags=re.MULTILINE | re.DOTALL)
    assert _words(shown) == _words(printed)
    seed, seconds, threads, cpu = re.search(
        r"Seed (\d), in (\d+) seconds with (\d) thread of an (.*?) \(`", text
    ).groups()
    assert (int(seed), int(seconds)) == (run["seed"], round(run["wall_seconds"]))
    assert (int(threads), cpu) == (hardware["threads"], hardware["cpu"])


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "install.rst"], ids=lambda page: page.name)
def test_the_demo_takes_as_long_as_it_is_said_to(page):
    line = next(line for line in page.read_text(encoding="utf-8").splitlines() if "nox -s demo" in line)
    least, most = ({"two": 2, "five": 5}[word] for word in re.search(r"in (\w+) to (\w+) minutes", line).groups())
    assert all(60 * least <= run["wall_seconds"] <= 60 * most for run in DEMO["runs"])


def _words(text):
    return [word for word in text.split() if set(word) != {"─"}]


@pytest.mark.parametrize("line", sorted(set(COMMANDS)))
def test_commands_parse(line):
    name, *arguments = shlex.split(line)
    context = click.Context(main)
    command = main.get_command(context, name)
    assert command is not None
    command.make_context(name, arguments, parent=context)


def test_the_module_of_the_page_is_checked_as_it_says(small):
    page = ROOT / "docs" / "your_modules.rst"
    program, *_ = BLOCKS[".rst"].findall(page.read_text(encoding="utf-8"))
    (small / "model.py").write_text(textwrap.dedent(program[1]), encoding="utf-8")
    line = COMMAND.findall(code_of(page, "text"))[0]
    result = CliRunner().invoke(main, shlex.split(line))
    assert result.exit_code == 0, result.output
    said, shown = (
        [row.split() for row in text.splitlines() if row.strip() and not re.search(r"─|\de-\d\d", row)]
        for text in (code_of(page, "none").partition("\nThe layer")[0], result.stdout)
    )
    assert said == shown


def test_the_reference_lists_public_names():
    listed = set(re.findall(r"^   ([\w.]+)$", (ROOT / "docs" / "api.rst").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(wsflow.__all__) - {"__version__"} <= listed
    assert set(HOLDERS) <= {name.rpartition(".")[2] for name in listed}


def test_files_that_pages_name_are_there():
    text = (ROOT / "docs" / "extending.rst").read_text(encoding="utf-8")
    named = set(re.findall(r"``([\w/]+/[\w.]*)``", text))
    assert len(named) > 30
    assert not [path for path in named if not any((base / path).exists() for base in (ROOT, ROOT / "wsflow"))]


ROW = re.compile(r"^   \* - (.*)\n((?:     .*\n)+)", re.MULTILINE)


def test_the_table_of_theory_is_that_of_the_tests():
    """A group of 4 within each of 3 is "4 in 3", two of them are "2 x (4 in 3)"."""
    text = (ROOT / "docs" / "symmetries.rst").read_text(encoding="utf-8")
    table = text.partition("What theory says\n")[2].partition("\nWhat is left alone")[0]
    shown = {name: re.findall(r"^     - (.*)$", cells, re.MULTILINE)[:3] for name, cells in ROW.findall(table)}
    shown.pop("network")
    assert shown == {name: [_groups(row.groups), str(row.positive), str(row.signs)] for name, row in THEORY.items()}


def test_the_table_of_methods_is_that_of_the_aligner():
    table = (ROOT / "docs" / "symmetries.rst").read_text(encoding="utf-8").partition("\nAlignment\n")[2]
    assert re.findall(r'^   \* - ``"(.*)"``$', table, re.MULTILINE) == list(METHODS)


def _groups(groups):
    said = []
    for (size, parent), count in groups.items():
        group = f"{size} in {parent}" if parent else str(size)
        said.append(group if count == 1 else f"{count} x ({group})" if parent else f"{count} x {group}")
    return ", ".join(said)


def test_the_package_runs_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["wsflow", "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("wsflow", run_name="__main__")
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("Usage: wsflow ")


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE).group(1) == wsflow.__version__


@pytest.mark.parametrize("name", ["orbits", "geometries", "novelty"])
def test_pictures_of_concepts_are_drawn(monkeypatch, name):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "pictures"))
    figure = importlib.import_module("draw_concepts").PICTURES[name]()
    assert all(ax.has_data() for ax in figure.axes)
