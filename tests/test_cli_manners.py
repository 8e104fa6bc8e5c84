"""What the command line says of wrong files, values and words: what it is, what was meant, and what to do, by options.

Commands and their parameters are those of the command tree, and texts those of the package: new ones are covered here.
"""

from __future__ import annotations

import ast
import json
import pickle
import re
import zipfile
from itertools import product
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import save_file
from sklearn.pipeline import make_pipeline

import wsflow
from wsflow import PermutationAligner, Population, ScaleCanonicalizer, WeightArray, WeightFlow
from wsflow.cli import main, options
from wsflow.cli.align import Reference
from wsflow.cli.inputs import Input, InputFile, Networks, OwnCode, TaskName
from wsflow.cli.main import COMMANDS
from wsflow.cli.wording import in_own_words
from wsflow.estimators.aligner import REFERENCES
from wsflow.evaluation.merging import STATISTICS
from wsflow.flow.solvers import RungeKutta
from wsflow.geometry.geometries import GEOMETRIES
from wsflow.models.options import NeuronTransformer
from wsflow.running.initialisation import INITIALISATIONS

ROOT = Path(wsflow.__file__).parent
COMMAND_OF = {name: main.get_command(click.Context(main), name) for name in COMMANDS}
CODE = "from torch import nn\n\n\ndef build():\n    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A population, one without its task, a model, and files of other kinds."""
    folder = tmp_path_factory.mktemp("manners")
    task = wsflow.load_task("iris")
    weights = wsflow.train_population(task, (4,), 12, epochs=2).weights
    wsflow.save_population(Population(weights, task), folder / "zoo.safetensors")
    wsflow.save_population(Population(weights), folder / "untold.safetensors")
    wsflow.save_population(Population(weights[:1], task), folder / "one.safetensors")
    wsflow.save_population(Population(weights[[0] * 12], task), folder / "equal.safetensors")
    huge = WeightArray(np.asarray(weights) * np.float32(1e30), weights.architecture)
    wsflow.save_population(Population(huge, task), folder / "huge.safetensors")
    wsflow.save_population(Population(weights.astype(np.float16), task), folder / "half.safetensors")
    flow = WeightFlow(
        task=task, max_iter=3, random_state=0, velocity=NeuronTransformer(8, 1, 2), solver=RungeKutta(n_steps=2)
    )
    wsflow.save_model(make_pipeline(PermutationAligner(), ScaleCanonicalizer(), flow).fit(weights), folder / "model.st")
    (folder / "networks.py").write_text(CODE)
    (folder / "traced.py").write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Sequential(nn.Conv2d(3, 2, 3))\n"
    )
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3)).state_dict(), folder / "net.pt")
    for name, (write, _) in KINDS.items():
        write(folder / name)
    return folder


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes", "text")


def content(data):
    return lambda path: path.write_bytes(data)


# a file of a wrong kind -> how it is written, and what it is called
KINDS = {
    "image.png": (content(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(90)), "a PNG image"),
    "photo.jpg": (content(b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(90)), "a JPEG image"),
    "paper.pdf": (content(b"%PDF-1.7\n" + bytes(90)), "a PDF document"),
    "page.safetensors": (content(b"<!DOCTYPE html><html></html>"), "an HTML page"),
    "code.py": (content(CODE.encode()), "Python source code"),
    "script": (content(b"#!/usr/bin/env python\nprint(1)\n"), "Python source code"),
    "notes.txt": (content(b"some words\n"), "a text file"),
    "settings.json": (content(b'{"learning_rate": 0.1}\n'), "a JSON document"),
    "data.csv": (content(b"a,b\n" + b"1,2\n" * 20), "a csv file"),
    "data.tsv": (content(b"a\tb\n" + b"1\t2\n" * 20), "a csv file"),
    "notes.zip": (zipped, "archive"),
    "packed.gz": (content(b"\x1f\x8b\x08\0" + bytes(90)), "packed by gzip"),
    "list.pkl": (lambda path: path.write_bytes(pickle.dumps([1, 2])), "a pickle"),
    "state.pt": (lambda path: torch.save({"weight": torch.ones(2, 3)}, path), "a file of torch"),
    "arrays.npz": (lambda path: np.savez(path, a=np.ones(3)), "an npz file"),
    "array.npy": (lambda path: np.save(path, np.ones(3)), "an array"),
    "foreign.safetensors": (lambda path: save_file({"w": np.ones(3)}, path), "safetensors file"),
    "empty": (content(b""), "an empty file"),
    "directory": (Path.mkdir, "a folder"),
}
# what is read where another kind is meant
READ = {
    TaskName: {"data.csv", "arrays.npz"},
    Networks: {"list.pkl", "state.pt", "arrays.npz", "foreign.safetensors", "directory"},
    OwnCode: {"code.py"},
}
GOOD = {
    "model": "model.st",
    "population": "zoo.safetensors",
    "file": "zoo.safetensors",
    "train": "zoo.safetensors",
    "source": "zoo.safetensors",
    "task": "iris",
    "paths": "state.pt",
    "kind": "map",
    "files": "zoo.safetensors",
}


def option(param):
    return max(param.opts, key=len)


def arguments(command, wrong, text):
    """A command line that is right but for one parameter."""
    line = [command]
    for param in COMMAND_OF[command].params:
        value = text if param is wrong else GOOD.get(param.name)
        if param.name == "out" and param.required:
            # of encode, other suffixes go with other options
            value = f"out{'.safetensors' if '.safetensors' in param.type.suffixes else param.type.suffixes[0]}"
        if param is wrong or param.required or isinstance(param, click.Argument):
            if param is not wrong and isinstance(param, click.Argument) and not param.required:
                continue
            line += [value] if isinstance(param, click.Argument) else [option(param), value]
    return line


INPUTS = [(c, p) for c, command in COMMAND_OF.items() for p in command.params if isinstance(p.type, Input)]
# of check, the source is text: a file, or FILE.py:NAME
INPUTS += [("check", next(p for p in COMMAND_OF["check"].params if p.name == "source"))]
CASES = [
    (command, param, kind)
    for (command, param), kind in product(INPUTS, KINDS)
    if kind not in READ.get(type(param.type), ()) and (param.name, kind) != ("architecture", "settings.json")
]


@pytest.mark.parametrize(
    ("command", "param", "kind"), CASES, ids=lambda value: value.name if isinstance(value, click.Parameter) else value
)
def test_a_file_of_another_kind_is_named(folder, monkeypatch, command, param, kind):
    monkeypatch.chdir(folder)
    line = arguments(command, param, kind)
    if param.name == "architecture":
        line[1] = "networks.py:build"
    result = CliRunner().invoke(main, line)
    # a file of Python lacks the name in it, which is a wrong use
    code = 2 if param.name == "source" and kind == "code.py" else 3
    assert result.exit_code == code, result.output
    last = result.stderr.splitlines()[-1]
    assert KINDS[kind][1] in last and kind in last
    assert not re.search(r"said to have|bytes|Traceback|header|codec", result.stderr)
    assert not (folder / "out.safetensors").exists()


def run(*line, code=0):
    result = CliRunner().invoke(main, [str(word) for word in line])
    assert result.exit_code == code, result.output
    return result


OF_MODELS = ("model", "autoencoder")
SWAPPED = [
    (command, param, "zoo.safetensors" if param.name in OF_MODELS else "model.st")
    for command, param in INPUTS
    if isinstance(param.type, InputFile | Reference)
    and command not in ("info", "card")
    and param.name != "architecture"
]


@pytest.mark.parametrize(
    ("command", "param", "other"),
    SWAPPED,
    ids=lambda value: value.name if isinstance(value, click.Parameter) else value,
)
def test_a_model_is_no_population_and_a_population_no_model(folder, monkeypatch, command, param, other):
    monkeypatch.chdir(folder)
    error = run(*arguments(command, param, other), code=3).stderr
    meant, given = ("model", "population") if param.name in OF_MODELS else ("population", "model")
    assert f"{other}: this is a {given}, not a {meant}" in error and "load_" not in error


@pytest.mark.parametrize("kind", ["a device", "a URL", "nothing"])
@pytest.mark.parametrize("command", ["info", "align"])
def test_what_is_no_file_is_named(folder, monkeypatch, command, kind):
    monkeypatch.chdir(folder)
    path = {"a device": "/dev/null", "a URL": "https://example.org/zoo.safetensors", "nothing": "gone.st"}[kind]
    words = {"a device": "a device or a pipe", "a URL": "this is a URL", "nothing": "no such file"}[kind]
    assert words in run(command, path, *(["-o", "out.st"] if command == "align" else []), code=3).stderr


# what is done, and the code and the words of the refusal; words after a ~ must not be there
TINY = "-q --iterations 3 -p velocity.width=8 -p velocity.heads=2 -p velocity.depth=1"
REFUSALS = {
    # suggestions
    "evalute zoo.safetensors": (2, "There is no command 'evalute'. Did you mean 'evaluate'?"),
    "popluate iris": (2, "Did you mean 'populate'"),
    "canonicalise zoo.safetensors": (2, "Did you mean 'canonicalize'?"),
    "xyzzy": (2, "There is no command 'xyzzy'. See wsflow --help."),
    "fit zoo.safetensors -o o.st --geometry geomtric": (2, "--geometry.*Did you mean 'geometric'?"),
    "fit zoo.safetensors -o o.st -p velocity.widht=3": (2, "no parameter 'widht'.*Did you mean 'width'?"),
    "fit zoo.safetensors -o o.st -p velocity=neurn": (2, "-p velocity is one of .*Did you mean 'neuron'?"),
    "fit zoo.safetensors -o o.st -p source=exchangable": (2, "-p source is one of .*Did you mean 'exchangeable'?"),
    "fit zoo.safetensors -o o.st --reference medoit": (2, "Did you mean 'medoid'?"),
    "align zoo.safetensors -o o.st --reference medoit": (2, "Did you mean 'medoid'?"),
    "align zoo.safetensors -o o.st --method wieght": (2, "--method.*Did you mean 'weight'?"),
    "merge zoo.safetensors -o o.st --statistics recompue": (2, "--statistics.*Did you mean 'recompute'?"),
    "populate iris -o o.st --initialisation nomral": (2, "Did you mean 'normal'?"),
    "populate iris -o o.st --optimizer adm": (2, "Did you mean 'adam'?"),
    "populate iris -o o.st --loss mse_": (2, "Did you mean 'mse'?"),
    "populate wdbc -o o.st": (3, "There is no task 'wdbc'"),
    "barrier zoo.safetensors --task irsi": (3, "Did you mean 'iris'?"),
    "barrier zoo.safetensors --tsk iris": (2, "Did you mean"),
    # one's own code
    "check networks.py": (2, "is Python source code.*Did you mean networks.py:build?"),
    "check networks:build": (2, "Did you mean networks.py:build?"),
    "check gone:build": (2, "A file is named with its suffix, such as gone.py:build."),
    "check networks.py:biuld": (2, "Did you mean 'build'?"),
    "barrier zoo.safetensors --module networks.py": (2, "Did you mean networks.py:build?"),
    "barrier zoo.safetensors --module image.png:build": (3, "this is a PNG image, and no Python source code"),
    "check zoo.safetensors --module code.py:nn": (2, "expected a torch.nn.Module"),
    "check zoo.safetensors --architecture image.png": (2, "go with FILE.py:NAME"),
    # inputs that do not fit the first layer
    "check networks.py:build --input 2,7": (2, r"--input of shape \(2, 7\) does not fit the layer '0', Linear"),
    "check networks.py:build --input 2,3,5": (2, r"\(2, 3, 5\) does not fit the layer '0', Linear"),
    "import net.pt --module traced.py:build --input-shape 1,9,9 -o o.st": (
        2, r"--input-shape of \(2, 1, 9, 9\) does not fit the layer '0', Conv2d"
    ),
    "check zoo.safetensors --module other.py:build": (3, "'0.weight' of shape .*other.py:build makes a module with"),
    # devices
    "populate iris -o o.st --device gpu": (2, "--device is 'gpu', where nothing can be computed"),
    "populate iris -o o.st --device meta": (2, "--device is 'meta'"),
    "populate iris -o o.st --device cuda:99": (2, "--device is 'cuda:99'"),
    # advice in the words of the command
    "plot map untold.safetensors -o o.png --space function": (3, "Say it with --task"),
    "plot barriers zoo.safetensors -o o.png --task wine": (3, "the task has 13 inputs"),
    "plot quality zoo.safetensors untold.safetensors one.safetensors -o o.png": (3, "training"),
    "plot training zoo.safetensors -o o.png": (3, "this is a population, not a model"),
    "plot mpa zoo.safetensors -o o.png": (2, "KIND.*Did you mean 'map'?"),
    "align untold.safetensors -o o.st --method activation": (2, "--task TASK.*--method weight"),
    "merge untold.safetensors -o o.st --repair": (3, "--task TASK.*--statistics average, without --repair"),
    "evaluate untold.safetensors --train untold.safetensors": (3, "Say it with --task"),
    "barrier untold.safetensors": (3, "Say it with --task"),
    "fit untold.safetensors -o o.st -p metric=function": (2, "networks with their task .*wsflow import --task"),
    "fit zoo.safetensors -o o.st -p max_iter=-1": (2, "--iterations is a whole number of at least 1, got -1"),
    "fit zoo.safetensors -o o.st -p velocity.width=7": (2, "-p velocity.width is a multiple of"),
    "fit zoo.safetensors -o o.st --form raw": (3, "Use wsflow fit --form unit, or use --geometry euclidean"),
    "align zoo.safetensors -o o.st --reference 77": (2, "--reference is network 77, but there are 12 networks"),
    "import foreign.safetensors -o o.st": (3, "--activation relu .*--module FILE.py:NAME or --widths"),
    "import zoo.safetensors -o o.st": (3, "this is a file of wsflow. Other commands read it as it is"),
    "populate iris -o o.st --cycles 3": (2, "--cycles is 3. Choose --schedule cyclical"),
    "populate iris -o o.st --initialisation siren": (2, "Choose --activation sine"),
    "populate iris -o o.st --resume": (2, "without a --checkpoint"),
    "populate iris -o o.st --target 3": (2, "--target is for files"),
    "populate iris -o o.st --loss binary_cross_entropy": (3, "Pass --loss cross_entropy"),
    "sample model.st -o o.st --temperature 0 --log-prob": (2, "At --temperature 0 "),
    "sample model.st -o o.st --noise 1 --log-prob": (2, "Use --noise 0, or wsflow score instead of --log-prob"),
    "sample model.st -o o.st --guide iris --log-prob": (2, "Leave out --log-prob, or --guide"),
    "sample model.st -o o.st --guide wine": (3, "the task has 13 inputs"),
    # remedies and codes fit the cause
    f"fit equal.safetensors -o o.st {TINY}": (3, "All 12 networks are equal.*~learning"),
    f"fit equal.safetensors -o o.st --form raw --geometry euclidean {TINY}": (3, "networks are equal.*~learning"),
    f"fit one.safetensors -o o.st {TINY}": (3, "At least 2 networks are needed, and here is 1"),
    f"fit huge.safetensors -o o.st {TINY}": (4, "beyond the range of float32.*--form balanced"),
    "canonicalize huge.safetensors -o o.st": (4, "beyond the range of float32.*--form balanced"),
    "score model.st huge.safetensors": (4, "beyond the range of float32"),
}  # fmt: skip


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("line", REFUSALS)
def test_refusals_say_what_to_do_in_the_words_of_the_command(folder, monkeypatch, line):
    monkeypatch.chdir(folder)
    Path("other.py").write_text(CODE.replace("4, 3", "4, 2").replace("4, 4", "5, 4"))
    code, words = REFUSALS[line]
    error = run(*line.split(), code=code).stderr
    found, _, absent = words.partition(".*~")
    last = error.splitlines()[-1]
    assert last.startswith("Error: ") and re.search(found.replace("?", r"\?"), last)
    assert not absent or absent not in error
    assert not PYTHON.search(ALLOWED.sub("", error))


def test_a_device_is_named_with_those_that_are_there(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match=r"this build of torch\. What is here: cpu\.$"):
        wsflow.train_population(wsflow.load_task("iris"), (4,), 1, device="meta")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("method", ["auto", "weight"])
@pytest.mark.parametrize("form", ["auto", "balanced", "raw"])
def test_large_weights_are_aligned(folder, tmp_path, method, form):
    out = tmp_path / "out.st"
    run("align", folder / "huge.safetensors", "-o", out, "--method", method, "--form", form, "-q")
    before, after = (wsflow.load_population(path).weights for path in (folder / "huge.safetensors", out))
    # neurons were moved, and nothing else
    assert np.array_equal(np.sort(np.asarray(before)), np.sort(np.asarray(after)))


def test_single_halves_are_fitted(folder, tmp_path):
    out = tmp_path / "out.st"
    run("fit", folder / "half.safetensors", "-o", out, *TINY.split())
    samples = wsflow.load_model(out)[-1].sample(3, random_state=0)
    assert np.isfinite(samples).all()


def test_numbers_that_are_not_finite_are_null(folder, tmp_path):
    merged = run("merge", folder / "huge.safetensors", "-o", tmp_path / "out.st", "--json", "-q").stdout
    assert json.loads(merged)["loss"] is None


def test_no_bar_is_left_of_what_failed_at_once(tmp_path):
    result = CliRunner().invoke(main, ["populate", "iris", "--architecture", "cnn:4", "-o", str(tmp_path / "zoo.st")])
    assert result.exit_code == 3 and "is for images" in result.stderr and "Training" not in result.stderr


def test_choices_are_those_of_the_tables():
    assert set(options.GEOMETRIES) == {"auto", *GEOMETRIES}
    assert set(options.INITIALISATIONS) == set(INITIALISATIONS)
    assert set(options.REFERENCES) == set(REFERENCES)
    assert options.STATISTICS == STATISTICS


# what is Python, and what the user's own Python may be advised to do
PYTHON = re.compile(
    r"(?<!-p )(?<![\w./-])[a-z_]+=(?!=)|\b(?!s\b)\w+\((?!s\)|[a-z]+\)s)\w*[,)=.\]]|parameter of [A-Z]"
    r"|\b(Task|Architecture|WeightArray|Population|WeightFlow|PermutationAligner|ScaleCanonicalizer|Guidance|Descent"
    r"|train_population|(load|save)_(?!state)\w+|from_\w+|random_state|template|X)\b|The '\w+' of|Got .* instead"
)
ALLOWED = re.compile(
    r"torch\.save\(.*?path\)|numpy\.savez\(.*\)|model\.save\w*(\(.*?\))?|\.(item|contiguous|numpy|state_dict)\(\)"
    r"|(in_features|out_features|bias)=\w+|(Linear|Conv2d)\(.*\)(?=:)|Given groups=1"
    r"|approximate='none'|module\(example_input\)"
    r"|requires_grad_\(False\)|module\.to_empty\(device='cpu'\)|full_state_dict=True|get_model_state_dict|load_state_dict"
    r"|'X' is an array|flax\.serialization\.to_bytes\(params\)"
)
# files whose errors no command meets: their parameters have no options, or are checked before; and cards, which speak
# to those who use Python
OUT_OF_REACH = re.compile(
    r"^(activations|testing|weights|layers/(asymmetric|figlu)|plotting/|losses/losses|objectives/functionals|estimators/(inputs|conditions)"
    r"|evaluation/(importance|transfer|ood|model_averaging|prdc|connectivity)|flow/guidance|populations/(arguments|joining|representations|population\b)"
    r"|symmetry/matching/(activation|sinkhorn)|running/modules|persistence/card)"
)
# commands have populations, whose architecture and random_state are given; parameters are checked by options
UNMET = (
    "Leave them out with wsflow.running",
    "draws random numbers",
    "Networks without an architecture",
    "fit a WeightArray",
    "of a WeightArray",
    "a Population, got",
    "whose state is not",
    "needs to know what the columns",
    "<Architecture",
    "A task is a wsflow.Task",
    "Fit again.",
    "The 'width' of 3",
    # the name of what has the device is put in where it is said
    "The 'device' of 3",
    "Freeze it with",
    "describes 3 weights",
    "The 'architecture' of",
    "on_invalid' of",
    "set_params",
    "Declare it in wires=",
    "a certificate of",
    "A certificate of",
    "is a tuple of names",
    "nulls=True",
    "The 'targets' of",
    "'classes' of a Task",
    "sample_weight",
    "'class_weight' of a Task",
    "The 'w' of a Task",
    "is one of the labels",
)


def texts():
    """The texts of the package that are sentences with Python in them, by the file in which they are."""
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("cli/") or OUT_OF_REACH.match(name):
            continue
        tree = ast.parse(path.read_text())
        own = {id(value) for node in ast.walk(tree) for value in _parts(node)}
        for node in ast.walk(tree):
            text = _text(node)
            if len(text) > 20 and id(node) not in own and " " in text and PYTHON.search(ALLOWED.sub("", text)):
                yield name, text


def _parts(node):
    """Documentation, and the constants of formatted texts."""
    if isinstance(node, ast.JoinedStr):
        return [child for child in ast.walk(node) if child is not node]
    documented = isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
    return [n.value for n in node.body if isinstance(n, ast.Expr)] if documented else []


def _text(node):
    if isinstance(node, ast.JoinedStr):
        # a value in quotes is a name, any other a number
        return "".join(
            v.value if isinstance(v, ast.Constant) else "'w'" if v.conversion == 114 else "3" for v in node.values
        )
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


TEXTS = sorted({(name, text) for name, text in texts() if not any(part in text for part in UNMET)})


def test_texts_with_python_are_found():
    assert len(TEXTS) > 40 and any("task=Task(X, y)" in text for _, text in TEXTS)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_advice_of_python_is_left(command):
    said = {(name, in_own_words(text, COMMAND_OF[command])) for name, text in TEXTS}
    assert {(name, text) for name, text in said if PYTHON.search(ALLOWED.sub("", text))} == set()


def test_layers_are_frozen_by_the_option():
    text = "Freeze it with frozen=('a.b',), so that no symmetry acts there; or describe the network by hand with "
    text += "Architecture(parameters=..., wires=...)."
    assert in_own_words(text, COMMAND_OF["check"]) == (
        "Freeze it with --frozen 'a.b', so that no symmetry acts there; or describe the network by hand with "
        "--architecture FILE.json."
    )
    assert not PYTHON.search(in_own_words(text, COMMAND_OF["import"]))


@pytest.mark.parametrize(
    "text",
    [
        "runs/lr=0.1/task=3.st: there is no such file. Check the path.",
        "/tmp/X/a(1).st: the file is read-only.",
        "The layer 'key=3' is not known.",
    ],
)
def test_what_the_user_wrote_is_left_alone(text):
    assert in_own_words(text, COMMAND_OF["import"]) == text


def test_a_model_has_a_card(folder):
    lines = run("info", folder / "model.st").stdout.splitlines()
    card = {line[2:14].strip(): line[14:].strip() for line in lines[1:] if line[2] != " "}
    history = wsflow.load_model(folder / "model.st")[-1].history_
    assert lines[0].endswith("model.st: a model of 4-4-3 relu (35 weights)")
    assert card["task"] == "iris, loss cross_entropy"
    assert card["fitted to"] == "12 networks of 12 runs"
    assert card["geometry"] == "geometric"
    losses = f"training loss {history.train[-1]:.4f}, validation loss {history.validation[-1]:.4f}"
    assert card["trained"].startswith("3 steps") and card["trained"].endswith(losses)
    assert card["steps"] == "PermutationAligner, then ScaleCanonicalizer, then WeightFlow"
    assert {"max_iter=3", "velocity.width=8", "solver.n_steps=2"} <= set(re.findall(r"[\w.]+=\w+", " ".join(lines)))
    assert re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d \(by the file system\)", card["written"])
    assert not any("weightflow." in line for line in lines) and max(map(len, lines[1:])) <= 100


def test_a_population_has_a_card(folder):
    text = run("info", folder / "zoo.safetensors").stdout
    assert text.startswith(f"{folder / 'zoo.safetensors'}: 12 networks 4-4-3 relu (35 weights) of 12 runs\n")
    for words in ("iris, loss cross_entropy", "12, 1 network of each", "by themselves", "6 tensors"):
        assert words in text
    assert "task        not known" in run("info", folder / "untold.safetensors").stdout.replace(
        "task     ", "task        "
    )
    assert (
        "0.weight" not in text and "0.weight: [12, 4, 4]" in run("info", folder / "zoo.safetensors", "--tensors").stdout
    )


@pytest.mark.parametrize(("task", "score"), [("iris", "accuracy"), ("diabetes", "r2"), ("own.csv", "r2")])
def test_what_networks_reach_is_on_their_card(tmp_path, monkeypatch, task, score):
    monkeypatch.chdir(tmp_path)
    Path("own.csv").write_text("a,b\n" + "".join(f"{i},{i / 7}\n" for i in range(40)))
    train = ("populate", task, "-n", "3", "--hidden", "2", "--epochs", "1", "-o", "zoo.st", "--json", "-q")
    said = json.loads(run(*train).stdout)
    merged = json.loads(run("merge", "zoo.st", "-o", "one.st", "--json", "-q").stdout)
    for name, known, of in (("zoo.st", said, "means of 3 networks"), ("one.st", merged, "measured")):
        card = " ".join(run("info", name).stdout.split())
        loaded = wsflow.load_task(task)
        data = "its own" if loaded.held_out is loaded else "held-out"
        expected = f"{score} {round(known[score], 4)}, loss {round(known['loss'], 4)} ({of} on {data} data)"
        assert f"quality {expected}" in card and "provenance quality" not in card
    # aligned networks are the same functions, and samples were not measured
    run("align", "zoo.st", "-o", "aligned.st", "-q")
    assert " quality " in " ".join(run("info", "aligned.st").stdout.split())


@pytest.mark.parametrize("own", ["good", {"accuracy": 0.9}, [1, 2], {"networks": "x"}])
def test_a_quality_of_ones_own_is_shown_as_it_is(tmp_path, own):
    weights = WeightArray(np.zeros((2, 6)), wsflow.Architecture.mlp([2, 2]))
    wsflow.save_population(Population(weights, provenance={"quality": own}), tmp_path / "zoo.st")
    assert "provenance  quality" in run("info", tmp_path / "zoo.st").stdout


@pytest.mark.parametrize("name", ["zoo.safetensors", "model.st"])
def test_json_keeps_its_keys(folder, name):
    known = {"path", "kind", "format", "bytes", "tensors", "versions", "architecture"}
    own = {"steps"} if name == "model.st" else {"networks", "runs", "aligned", "task", "provenance"}
    assert known | own <= set(json.loads(run("info", folder / name, "--json").stdout))
