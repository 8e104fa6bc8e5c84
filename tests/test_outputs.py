"""What commands write: no input is lost, nothing is replaced unasked, and what cannot be written is said before work.

Commands, and which of their parameters are read or written, are those of the command tree: a new one is covered here.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import click
import matplotlib.figure
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from test_documentation import COMMAND, PAGES, code_of

import wsflow
from wsflow.cli import files as outputs
from wsflow.cli import main
from wsflow.cli.align import Reference
from wsflow.cli.files import Output, OutputFile, OutputFolder
from wsflow.cli.inputs import Input, InputFile, Networks, OwnCode, TaskName
from wsflow.cli.main import COMMANDS

GIB = 2**30
COMMAND_OF = {name: main.get_command(click.Context(main), name) for name in COMMANDS}
# type of what is read -> the file, and the text that names it
READ = {
    InputFile: ("in.safetensors", "in.safetensors"),
    Reference: ("reference.safetensors", "reference.safetensors"),
    TaskName: ("own.csv", "own.csv"),
    OwnCode: ("model.py", "model.py:build"),
    Networks: ("nets/g2.safetensors", "nets/g*.safetensors"),
}


def written(command):
    return [param for param in COMMAND_OF[command].params if isinstance(param.type, Output)]


def read(command):
    return [param for param in COMMAND_OF[command].params if isinstance(param.type, Input)]


def option(param):
    return max(param.opts, key=len)


def name_of(param):
    """A good name for an output."""
    return "new" + (param.type.suffixes[0] if isinstance(param.type, OutputFile) else "")


WRITERS = [command for command in COMMANDS if written(command)]
OUTPUTS = [(command, param) for command in WRITERS for param in written(command)]
FILES = [(command, param) for command, param in OUTPUTS if isinstance(param.type, OutputFile)]
PAIRS = [(command, param, other) for command, param in OUTPUTS for other in read(command)]
TWO = [(c, a, b) for c in WRITERS for i, a in enumerate(written(c)) for b in written(c)[:i]]


def label(value):
    return option(value) if isinstance(value, click.Parameter) else value


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with one file of each kind that commands read; what runs in it shall not get to work."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "model.safetensors.index.json").write_text("{}")
    for file, _ in READ.values():
        (tmp_path / file).write_text(file)
    return tmp_path


def good_value(param):
    """What a parameter takes."""
    if isinstance(param.type, click.Choice):
        return param.type.choices[0]
    return READ[type(param.type)][1] if isinstance(param.type, Input) else name_of(param)


class Reached(Exception):
    """Raised where the work of a command would begin."""


@pytest.fixture
def no_work(monkeypatch):
    def callback(**values):
        raise Reached

    for command in COMMAND_OF.values():
        monkeypatch.setattr(command, "callback", callback)


def arguments(command, param, value, *more):
    """The shortest call that gives a parameter this value."""
    given = {param.name: (param, value)} | {other.name: (other, text) for other, text in more}
    params = COMMAND_OF[command].params
    for other in params:
        if other.required and other.name not in given:
            given[other.name] = (other, good_value(other))
    words = [command]
    for other, text in sorted(given.values(), key=lambda pair: params.index(pair[0])):
        words += [str(text)] if isinstance(other, click.Argument) else [option(other), str(text)]
    return words


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(folder, words, message, code=5):
    before = contents(folder)
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, (result.output, result.exception)
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1 and not result.stdout
    assert message in result.stderr, result.stderr
    assert contents(folder) == before


def works(words):
    result = CliRunner().invoke(main, ["--debug", *(str(word) for word in words)])
    assert isinstance(result.exception, Reached), (result.output, result.exception)


class TestTheTree:
    def test_some_commands_write(self):
        assert {"demo", "populate", "import", "fit", "sample", "evaluate", "align", "merge"} <= set(WRITERS)
        assert {option(param) for _, param in OUTPUTS} >= {"--out", "--plot", "--checkpoint"}

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_path_is_read_or_written(self, command):
        paths = click.Path | click.File
        assert not [p.name for p in COMMAND_OF[command].params if isinstance(p.type, paths)]
        # a card is made of a report that is read
        kept = [p for p in COMMAND_OF[command].params if not isinstance(p.type, InputFile)]
        named = {"out", "plot", "report", "checkpoint"} & {p.name for p in kept}
        assert named == {p.name for p in written(command)}

    @pytest.mark.parametrize("command", COMMANDS)
    def test_force_is_an_option_of_those_that_write(self, command):
        forced = any("--force" in param.opts for param in COMMAND_OF[command].params)
        assert forced == (command in WRITERS)
        assert ("--force" in CliRunner().invoke(main, [command, "--help"]).output) == forced


@pytest.mark.usefixtures("no_work")
class TestInputs:
    """No output is an input."""

    def links(self, folder, file):
        """Names of a file: its own, others, and links of both kinds."""
        os.symlink(folder / file, folder / "symbolic.png")
        os.link(folder / file, folder / "hard.st")
        return [file, f"./nets/../{file}", str(folder / file), "symbolic.png", "hard.st"]

    @pytest.mark.parametrize(("command", "param", "other"), PAIRS, ids=label)
    def test_it_would_be_lost(self, folder, command, param, other):
        file, text = READ[type(other.type)]
        for path in self.links(folder, file):
            words = arguments(command, param, path, (other, text))
            message = "would be lost" if isinstance(param.type, OutputFile) else "not a folder"
            refused(folder, words, message)
            refused(folder, [*words, "--force"], message)

    @pytest.mark.parametrize(
        ("source", "out"),
        [
            ("nets", "nets/g2.safetensors"),
            ("nets/", "nets/g2.safetensors"),
            (".", "in.safetensors"),
            ("nets/g*", "nets/g2.safetensors"),
            ("**/g*.safetensors", "nets/g2.safetensors"),
            ("./nets/../nets/g[0-9].*", "nets/g2.safetensors"),
            ("nets/model.safetensors.index.json", "nets/g2.safetensors"),
            ("nets/*.json", "nets/g2.safetensors"),
        ],
    )
    def test_files_of_folders_and_patterns_would_be_lost(self, folder, source, out):
        refused(folder, ["import", source, "-o", out, "--force"], "would be lost")
        refused(folder, ["import", "in.safetensors", source, "-o", out], "would be lost")

    @pytest.mark.parametrize(
        ("source", "out"),
        [
            ("nets", "nets/new.safetensors"),
            (".", "new.safetensors"),
            ("nets/g*", "nets/g3.safetensors"),
            ("nets/*", "nets/new.st"),
            ("**/*.safetensors", "nets/new.safetensors"),
            ("*s/g?.st", "nets/g4.st"),
        ],
    )
    def test_files_that_the_next_import_would_read(self, folder, source, out):
        refused(folder, ["import", source, "-o", out], f"reads {source} would read this file too")

    @pytest.mark.parametrize(
        ("source", "out"),
        [
            ("nets", "new.safetensors"),
            ("nets", "nets/new.st"),
            ("nets/g*", "nets/new.safetensors"),
            ("nets/*.safetensors", "nets/new.st"),
            ("*.safetensors", "nets/new.safetensors"),
            ("**/g*.safetensors", "new.safetensors"),
        ],
    )
    def test_files_beside_them_are_no_input(self, folder, source, out):
        works(["import", source, "-o", out])

    def test_rules_and_names_are_no_files(self, folder):
        works(["populate", "iris", "-o", "iris"])
        works(["align", "in.safetensors", "-o", "mean", "--reference", "mean"])
        works(["align", "in.safetensors", "-o", "2", "--reference", "2"])


@pytest.mark.usefixtures("no_work")
class TestTargets:
    @pytest.mark.parametrize(("command", "param"), OUTPUTS, ids=label)
    def test_a_good_path_is_taken(self, folder, command, param):
        works(arguments(command, param, name_of(param)))

    @pytest.mark.parametrize(("command", "param"), FILES, ids=label)
    def test_what_is_there_is_replaced_by_force_only(self, folder, command, param):
        words = arguments(command, param, f"old{name_of(param)}")
        (folder / f"old{name_of(param)}").write_text("precious")
        refused(folder, words, "--force")
        works([*words, "--force"])

    def test_a_folder_of_results_is_replaced_by_force_only(self, folder):
        (folder / "demo").mkdir()
        works(["demo", "--out", "demo"])
        (folder / "demo" / "model.st").write_text("precious")
        refused(folder, ["demo", "--out", "demo"], "demo/model.st: this file is there already. Replace it with --force")
        works(["demo", "--out", "demo", "--force"])

    def test_a_checkpoint_is_resumed_without_force(self, folder):
        (folder / "half").mkdir()
        (folder / "half" / "training.json").write_text("{}")
        works(["populate", "iris", "-o", "new", "--checkpoint", "half", "--resume"])

    @pytest.mark.parametrize(("command", "param"), FILES, ids=label)
    def test_what_is_no_file(self, folder, command, param):
        os.mkfifo(folder / f"pipe{name_of(param)}")
        os.symlink(folder / "nowhere", folder / f"link{name_of(param)}")
        for path, message in {
            "-": "the standard output",
            "new/": "this is the path of a directory",
            "nets": "this is a directory",
            "": "this is a directory",
            f"no/{name_of(param)}": "there is no folder no",
            f"own.csv/{name_of(param)}": "Not a directory",
            f"pipe{name_of(param)}": "device or a pipe",
            f"link{name_of(param)}": "symbolic link",
            "new.txt": f"ends in {' or '.join(s for s in param.type.suffixes if s)}",
            "new.gz": "ends in",
        }.items():
            refused(folder, [*arguments(command, param, path), "--force"], message)

    @pytest.mark.parametrize(("command", "param"), [o for o in OUTPUTS if o not in FILES], ids=label)
    def test_what_is_no_folder(self, folder, command, param):
        for path, message in {
            "-": "the standard output",
            "own.csv": "own.csv is not a folder",
            "own.csv/new": "own.csv is not a folder",
        }.items():
            refused(folder, [*arguments(command, param, path), "--force"], message)
        works(arguments(command, param, "new/er/"))

    @pytest.mark.parametrize(("command", "param"), OUTPUTS, ids=label)
    def test_a_read_only_folder(self, folder, command, param, monkeypatch):
        # the rights of root are not those of others
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "nets")
        refused(folder, arguments(command, param, f"nets/{name_of(param)}"), "read-only")

    @pytest.mark.parametrize(("command", "one", "other"), TWO, ids=label)
    def test_two_outputs_are_not_the_same(self, folder, command, one, other):
        refused(folder, [*arguments(command, one, "same.st", (other, "./same.st")), "--force"], "are the same")

    def test_no_output_is_in_the_folder_of_a_checkpoint(self, folder):
        (folder / "half").mkdir()
        for out in ("half/chunk-000000.safetensors", "half/new.st", "./half/../half/new.st"):
            refused(folder, ["populate", "iris", "-o", out, "--checkpoint", "half", "--resume"], "files of its own")

    @pytest.mark.parametrize(("command", "param"), FILES, ids=label)
    def test_a_full_disk(self, folder, command, param, monkeypatch):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(GIB, GIB - 1000, 1000))
        refused(folder, arguments(command, param, name_of(param)), "the disk has 0 MiB left. Free some space")


@pytest.fixture
def no_room(monkeypatch):
    """A disk with 20 MiB left."""
    usage = shutil._ntuple_diskusage(GIB, GIB - 20 * 2**20, 20 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


class Began(Exception):
    """Raised where training or sampling would begin."""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Networks on iris, and a flow."""
    folder = tmp_path_factory.mktemp("outputs")
    population = wsflow.train_population(wsflow.load_task("iris"), (4,), 12, epochs=2)
    wsflow.save_population(population, folder / "zoo.safetensors")
    flow = wsflow.WeightFlow(max_iter=2, random_state=0, velocity="mlp", geometry="euclidean")
    wsflow.save_model(flow.fit(population.weights), folder / "model.st")
    return folder


class TestRoom:
    """What is larger than the disk is refused before it is made."""

    def began(self, *arguments, **keywords):
        raise Began

    @pytest.mark.parametrize("option", [[], ["--checkpoint", "half"]])
    def test_populate(self, folder, no_room, monkeypatch, option):
        monkeypatch.setattr(wsflow, "train_population", self.began, raising=False)
        words = ["populate", "iris", "--hidden", "100,100", "-o", "new", *option, "-n"]
        # 4 bytes for each of 10,903 weights
        refused(folder, [*words, 500], "it takes about 21 MiB, and the disk has 20 MiB left")
        assert isinstance(CliRunner().invoke(main, ["--debug", *words, "400"]).exception, Began)

    def test_sample(self, folder, zoo, no_room, monkeypatch):
        monkeypatch.setattr(wsflow, "sample", self.began, raising=False)
        words = ["sample", zoo / "model.st", "-o", "new", "-q", "-n"]
        refused(folder, [*words, 200_000], "it takes about 27 MiB")

    def test_demo(self, folder, no_room):
        refused(folder, ["demo", "--runs", 10_000, "-q"], "wsflow-demo: it takes about 32 MiB")

    def test_fit(self, folder, zoo, no_room, monkeypatch):
        monkeypatch.setattr(wsflow.WeightFlow, "fit", self.began)
        words = [
            "fit",
            zoo / "zoo.safetensors",
            "-o",
            "new",
            "-q",
            "-p",
            "velocity=mlp",
            "-p",
            "velocity.depth=4",
            "-p",
        ]
        refused(folder, [*words, "velocity.width=2048"], "new: it takes about 128 MiB, and the disk has 20 MiB left")
        assert isinstance(
            CliRunner().invoke(main, ["--debug", *map(str, words), "velocity.width=512"]).exception, Began
        )

    def test_import(self, folder, no_room):
        torch.save({"0.weight": torch.zeros(1000, 6000)}, folder / "nets" / "large.pt")
        refused(folder, ["import", "nets/*.pt", "-o", "new", "--activation", "relu"], "it takes about 23 MiB")

    @pytest.mark.parametrize("command", ["align", "canonicalize"])
    def test_as_large_as_what_is_read(self, folder, zoo, monkeypatch, command):
        rows = np.tile(np.asarray(wsflow.load_population(zoo / "zoo.safetensors").weights), (2000, 1))
        architecture = wsflow.load_population(zoo / "zoo.safetensors").architecture
        wsflow.save_population(wsflow.Population(wsflow.WeightArray(rows, architecture)), folder / "many.st")
        usage = shutil._ntuple_diskusage(GIB, GIB - 2**21, 2**21)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        refused(folder, [command, "many.st", "-o", "new", "-q"], "it takes about 3 MiB, and the disk has 2 MiB left")


class TestAsTheyAreCalled:
    """The calls of users who lost something."""

    def run(self, *words, code=0):
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == code, (result.output, result.exception)
        return result

    def test_import_of_a_pattern_or_a_folder(self, folder):
        for i in range(3):
            state = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(3), "2.weight": torch.ones(1, 3)}
            torch.save({**state, "2.bias": torch.full((1,), float(i))}, folder / f"g{i}.pt")
        refused(folder, ["import", "g*.pt", "--activation", "relu", "-o", "g2.pt"], "would be lost")
        refused(folder, ["import", ".", "--activation", "relu", "-o", "./g1.pt", "--force"], "would be lost")
        self.run("import", "g*.pt", "--activation", "relu", "-o", "zoo.safetensors")
        assert len(wsflow.load_population("zoo.safetensors")) == 3
        refused(folder, ["import", "g*.pt", "--activation", "relu", "-o", "zoo.safetensors"], "--force")
        self.run("import", "g[01].pt", "--activation", "relu", "-o", "zoo.safetensors", "--force")
        assert len(wsflow.load_population("zoo.safetensors")) == 2

    def test_populate_with_data_of_ones_own(self, folder):
        (folder / "own.csv").write_text("\n".join(f"{i},{i % 5},{i % 2}" for i in range(40)))
        words = ["populate", "own.csv", "-n", "2", "--hidden", "2", "--epochs", "1", "-q", "-o"]
        refused(folder, [*words, "own.csv"], "would be lost")
        refused(folder, [*words, "new/"], "directory")
        refused(folder, [*words, "-"], "standard output")
        self.run(*words, "zoo.safetensors")
        refused(folder, [*words, "zoo.safetensors"], "zoo.safetensors: this file is there already")
        refused(folder, [*words, "zoo.safetensors", "--seed", "1"], "--force")
        before = (folder / "zoo.safetensors").read_bytes()
        self.run(*words, "zoo.safetensors", "--seed", "1", "--force")
        assert (folder / "zoo.safetensors").read_bytes() != before

    def test_a_figure_that_cannot_be_written_costs_no_report(self, folder, zoo, monkeypatch):
        words = ["barrier", zoo / "zoo.safetensors", "--n-points", "1", "-k", "2", "--json", "-q", "--plot"]
        refused(folder, [*words, "x.txt"], "a figure ends in .png or .pdf or .svg")

        def full(*arguments, **keywords):
            raise OSError(28, "No space left on device")

        (folder / "x.png").write_text("precious")
        monkeypatch.setattr(os, "fsync", full)
        result = self.run(*words, "x.png", "--force", code=5)
        assert '"pairs": 1' in result.stdout
        assert "x.png: it could not be written (No space left on device). Nothing was changed" in result.stderr
        assert (folder / "x.png").read_text() == "precious"

    @pytest.mark.parametrize("suffix", ["png", "PDF", "svg"])
    def test_figures_are_replaced_whole(self, folder, zoo, suffix, monkeypatch):
        plot = folder / f"x.{suffix}"
        words = ["barrier", zoo / "zoo.safetensors", "--n-points", "1", "-k", "2", "-q", "--plot", plot]
        self.run(*words)
        before = plot.read_bytes()
        assert before.startswith({"png": b"\x89PNG", "PDF": b"%PDF", "svg": b"<?xml"}[suffix])

        def half(self, file, **keywords):
            file.write(before[:100])
            raise KeyboardInterrupt

        monkeypatch.setattr(matplotlib.figure.Figure, "savefig", half)
        self.run(*words, "--force", code=130)
        assert plot.read_bytes() == before and not list(folder.glob(".wsflow*"))

    def test_the_demo_runs_twice(self, folder):
        words = ["demo", "--runs", 12, "--held-out", 3, "--samples", 2, "--iterations", 1, "-q"]
        words += ["-p", "velocity=mlp", "-p", "solver.n_steps=1", "-p", "hints=none"]
        self.run(*words)
        before = contents(folder)
        refused(folder, words, "--force")
        self.run(*words, "--seed", 1, "--force")
        assert contents(folder).keys() == before.keys()
        assert contents(folder)[folder / "wsflow-demo" / "model.st"] != before[folder / "wsflow-demo" / "model.st"]

    @pytest.mark.filterwarnings("default::RuntimeWarning")
    @pytest.mark.parametrize("command", ["canonicalize", "align", "merge"])
    @pytest.mark.parametrize("scale", [1e30, 3e38])
    def test_what_is_written_can_be_read_whatever_overflows(self, folder, command, scale):
        architecture = wsflow.Architecture.mlp([2, 3, 3, 1])
        rows = np.random.default_rng(0).normal(size=(3, architecture.n_weights)).astype(np.float32)
        rows[1:] = np.sign(rows[1:]) * np.float32(scale)
        wsflow.save_population(wsflow.Population(wsflow.WeightArray(rows, architecture)), folder / "huge.st")
        result = CliRunner().invoke(main, [command, "huge.st", "-o", "new.st", "-q"])
        assert (folder / "new.st").exists() == (result.exit_code == 0), result.output
        if result.exit_code == 0:
            assert np.isfinite(wsflow.load_population("new.st").weights).all()

    @pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
    @pytest.mark.parametrize(
        ("command", "makes"),
        [
            (["canonicalize", "zoo.safetensors"], "ScaleCanonicalizer.fit_transform"),
            (["merge", "zoo.safetensors"], "merge"),
            (["sample", "model.st"], "sample"),
            (["populate", "iris"], "train_population"),
        ],
    )
    def test_networks_that_are_not_finite_end_with_4(self, folder, zoo, monkeypatch, value, command, makes):
        weights = wsflow.load_population(zoo / "zoo.safetensors").weights[:4]
        rows = np.array(weights)
        # of 4-4-3 networks: the weights have 16 numbers, and then come the biases
        rows[2:, 17] = value
        made = wsflow.Population(weights.like(rows)) if command[0] == "populate" else weights.like(rows)
        monkeypatch.setattr(f"wsflow.{makes}", lambda *arguments, **keywords: made, raising=False)
        for file in ("zoo.safetensors", "model.st"):
            shutil.copy(zoo / file, file)
        (folder / "new.st").write_text("precious")
        words = [*command, "-o", "new.st", "--force", "-q"]
        message = "new.st: nothing was written: network 2 has a weight in '0.bias' that is not finite (2 of 4 networks"
        refused(folder, words, message, code=4)


def _outputs(line):
    command, *words = shlex.split(line)
    context = COMMAND_OF[command].make_context(command, words, parent=click.Context(main))
    return [] if context.params["force"] else [context.params[param.name] for param in written(command)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_writes_a_file_twice(page):
    lines = [line for line in COMMAND.findall(code_of(page, "", "text")) if line.split()[0] in WRITERS]
    paths = [str(path) for line in lines for path in _outputs(line) if path is not None]
    saved = re.findall(r"""save_(?:population|model)\(.*?["']([\w.]+)["']\)""", code_of(page, "python"))
    assert len(paths) == len(set(paths)) and not set(paths) & set(saved)


@pytest.mark.parametrize("command", WRITERS)
def test_no_help_writes_a_file_twice(command):
    text = COMMAND_OF[command].help or ""
    lines = re.findall(rf"^ *wsflow ({command} .*)$", text, re.MULTILINE)
    if command != "demo":  # which has a folder of its own where none is named
        paths = [str(path) for line in lines for path in _outputs(line) if path is not None]
        assert lines and len(paths) == len(set(paths))


def test_the_demo_of_the_readme_runs_twice():
    """As nox and the measurements of its seeds call it."""
    for path in ("noxfile.py", "benchmarks/demo_seeds.py"):
        assert '"--force"' in (PAGES[0].parent / path).read_text(encoding="utf-8")


def test_every_kind_of_output_is_checked():
    """An output that is neither a file nor a folder would need its own tests here."""
    assert {type(param.type) for _, param in OUTPUTS} == {OutputFile, OutputFolder}
    assert outputs.LEAST > 0
