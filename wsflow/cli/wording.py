"""Errors and warnings of the library in the words of a command: its options stand for parameters of Python."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import NamedTuple

import click

# what a parameter is called on the command line, where it is called otherwise than in Python
ALIASES = {
    "shapes": "example_input",
    "input_shape": "example_input",
    "iterations": "max_iter",
    "guide": "guidance",
    "log_prob": "return_log_prob",
    "seed": "random_state",
    "jobs": "n_jobs",
    "number": "n_runs",
    "task_name": "task",
    "widths": "architecture",
}
# where a parameter of an object is below those of the flow
NESTED = {
    "identity": "velocity.identity",
    "last_layer": "geometry.last_layer",
    "n_steps": "solver.n_steps",
    "rtol": "solver.rtol",
    "atol": "solver.atol",
}
# parameters of the flow that only -p sets
OF_FLOW = ("source", "coupling", "velocity", "solver", "metric", "hints", "energy", "condition", "density", "training")
# parameters that only some commands have
FURTHER = (
    "activation", "fold", "geometry", "key", "loss", "method", "n_points", "noise", "on_invalid", "optimizer",
    "reference", "repair", "runs", "schedule", "statistics", "task", "temperature",
)  # fmt: skip
NAMED = "cycles|activation_argument|checkpoint|target|loss|class_weight|sample_weight|classes"
VALUE = r"'[^']*'|-?\d[\d.e+-]*\d|\d|None|True|False"


class Advice(NamedTuple):
    """A text of the library, and what a command says that has an option, or every command ("")."""

    pattern: str
    option: str
    words: str


ADVICE = (
    Advice(r"(\w+)= \(--[\w-]+\)", "", r"\1="),
    # files
    Advice(r", or load it with load_\w+", "", ""),
    Advice(r"Load it with wsflow\.load_population\(path\)", "", "Other commands read it as it is"),
    Advice(r"Load it with load_population or load_model", "", "wsflow info says what it holds"),
    Advice(r"Make a population of it with load_networks", "widths", "Convert it"),
    Advice(r"(of it )?with load_networks", "", r"\1with wsflow import"),
    Advice(r"Load the data with load_task, and train networks on them", "", "Train networks on it with wsflow populate"),
    Advice(r"and pass the fitted \w+ or \w+, or save state dicts", "", "and save state dicts"),
    Advice(r"Networks are loaded from paths.*", "", "Networks are read from files."),
    Advice(r"(Drop|drop) such networks with on_invalid='drop'", "drop_invalid", r"\1 such networks with --drop-invalid"),
    Advice(r"(Drop|drop) such networks with on_invalid='drop'", "", r"\1 such networks, or train them again"),
    # what runs networks
    Advice(r"[Pp]ass (module|template)=( \([^)]*\))?,? and example_input=", "module", "Pass --module FILE.py:NAME and example_input="),
    Advice(r"(?<![.\w])(module|template|inputs= and module)=( \([^)]*\))?", "module", "--module FILE.py:NAME"),
    Advice(
        r"(?<![.\w])(module|template|inputs= and module)=( \([^)]*\))?(, which runs its networks)?",
        "",
        "networks that wsflow import read with --module FILE.py:NAME: they run by what is in their file",
    ),
    Advice(r"or architecture=", "widths", "or --widths"),
    Advice(r",? or (say it with )?architecture=(Architecture\.mlp\(\[\.\.\.\]\))?", "", ""),
    Advice(r"example_input=", "input_shape", "--input-shape"),
    Advice(r"example_input=( to read any module)?", "shapes", r"--input\1"),
    Advice(r"example_input=", "", "--input-shape of wsflow import"),
    Advice(r"([Aa])n example input of shape", "shapes", r"\1n --input of shape"),
    Advice(r"([Aa])n example input of shape", "input_shape", r"\1n --input-shape of"),
    Advice(r"an example[_ ]input\b", "shapes", "--input"),
    Advice(r"an example[_ ]input\b", "input_shape", "--input-shape"),
    Advice(r"Architecture\.from_module reads", "", "this command reads"),
    Advice(r"Architecture\.from_module needs", "", "this command needs"),
    Advice(r"frozen=\(('[^']*'),\)", "frozen", r"--frozen \1"),
    Advice(r"frozen=\(\.\.\.,\)", "frozen", "--frozen LAYER"),
    Advice(r" with frozen=\([^)]*\)", "", " in Python, and save the population there"),
    Advice(r" by hand with Architecture\(parameters=\.\.\., wires=\.\.\.\)", "architecture", " by hand with --architecture FILE.json"),
    Advice(r" by hand with Architecture\(parameters=\.\.\., wires=\.\.\.\)", "", " by hand, in Python"),
    # tasks
    Advice(r"task=Task\(X, y\)", "task_name", "a task, by --task TASK"),
    Advice(r"task=Task\(X, y\)", "", "networks with their task (from wsflow populate, or wsflow import --task TASK)"),
    Advice(r"(Pass|pass) the (task|one) that they were trained for", "task_name", r"\1 the \2 that they were trained for with --task"),
    Advice(r"Name all classes of the networks, .*?Task\(classes=\.\.\.\)", "", "Take data with examples of all classes"),
    Advice(r"Flatten its inputs: Task\(.*?, y\)", "", "Take data with one row for each example"),
    Advice(r"[Pp]ass all of them as 'classes'", "", "Take data with examples of all classes"),
    Advice(r", or name the 'classes'", "", ""),
    Advice(r", and pass 'sample_weight' to weight examples", "", ""),
    Advice(r" Pass 'sample_weight' for several labels\.", "", ""),
    Advice(r"[Tt]he labels 'y' of a Task", "", "The labels"),
    Advice(r"The 'y' of a (regression )?Task", "", "The targets"),
    Advice(r"the 'y' of", "", "the targets of"),
    Advice(r"The '?X'? of a Task", "", "The inputs"),
    Advice(r"The 'loss' of a [Tt]ask is one of (.*?), or a function", "", r"A loss is one of \1"),
    Advice(r"\b([Aa]|this) Task\b", "", r"\1 task"),
    # weights
    Advice(r"Input X contains", "", "The weights contain"),
    Advice(r"\w+ was fitted to networks (.*?), but X holds networks", "", r"The model was fitted to networks \1, but these are"),
    Advice(r"is row (\d+) of X, but X has (\d+) rows", "", r"is network \1, but there are \2 networks"),
    Advice(r"[Pp]ass (a WeightArray of at least one network|at least one row of weights)", "", "pass networks"),
    Advice(r"number the runs of (.*?) apart with runs=", "", r"number the runs of \1 apart with wsflow populate --first-run"),
    Advice(r"pass networks of held-out runs", "held_out", "pass networks of other runs with --held-out"),
    # flows
    Advice(r"Put ScaleCanonicalizer\(.*?\) before WeightFlow \(.*? in both\)", "", "Use wsflow fit --form unit"),
    Advice(r"(velocity=)?NeuronTransformer\(identity=(?:'learned'|(None))\)", "", r"identity=<\2>"),
    Advice(r"identity=<None>", "", "identity=None"),
    Advice(r"identity=<>", "", "identity='learned'"),
    Advice(r" and the architecture of a sequential network", "", " and sequential networks"),
    Advice(r", the architecture of a sequential network,", "", ", sequential networks,"),
    Advice(r"call fit\(X, y\) with .*?, or leave condition=None", "", "on the command line there is none: leave it out"),
    Advice(r"Use return_log_prob=False, or guidance=None", "", "Leave out --log-prob, or --guide"),
    Advice(r"or return_log_prob=False and score_samples", "", "or wsflow score instead of --log-prob"),
    Advice(r"Use natural=False, or a loss that has a name", "", "Leave out --gradients"),
    Advice(r"Pass a Task as the objective, or say natural=False in the Descent", "", "Leave out --gradients"),
    Advice(r"Guide by a Task and (.*?), or say standardize=False in the Descent", "", r"Leave out --gradients, or \1"),
    Advice(r" \(rtol=, atol=\)| \(n_steps=\)", "", ""),
    Advice(r"out of geometry=", "", "out of the geometry"),
    # how scikit-learn and this library say what a value may be
    Advice(r"must be a str among \{(.*?)\}.*?\. Got (.*?) instead\.", "", r"is one of \1, got \2."),
    Advice(r"one of \(([^)]*?),?\)(, or an? [A-Z]\w+( or [A-Z]\w+)*)?, got", "", r"one of \1, got"),
    Advice(r"is required by \w+\.", "", "is required."),
    Advice(r"Found array with (\d+) sample\(s\) \(shape=.*?\) while", "", r"There are \1 networks, while"),
)  # fmt: skip


def in_own_words(message: str, command: click.Command | None) -> str:
    """Say a message of the library as a command says it, and what was probably meant by a wrong value."""
    options = _options(command)
    for pattern, option, words in ADVICE:
        if not option or option in {param.name for param in (command.params if command else [])}:
            message = re.sub(pattern, words, message)
    message = re.sub(
        r"The '(\w+)' (?:parameter )?(?:('[^']*') )?of (?:[A-Z]\w+|an? [A-Z]\w+|[a-z]+_[a-z_]+|merge|statistics)\b",
        lambda found: _parameter(found[1], options) + (f" {found[2]}" if found[2] else ""),
        message,
    )
    known = "|".join({*options, *OF_FLOW, *NESTED, *FURTHER})
    message = re.sub(rf"(?<![\w./-])({known})=({VALUE})", lambda found: _setting(found[1], found[2], options), message)
    message = re.sub(rf"(?<![\w./-])({known})=(?=[\s.,;:)]|$)", lambda found: _parameter(found[1], options), message)
    message = re.sub(rf"'({NAMED})'", lambda found: options.get(found[1], found[0]), message)
    return message + suggestion(message)


def suggestion(message: str) -> str:
    """Return a sentence that names the choices that are near a wrong value, or nothing."""
    found = re.search(r"one of (?P<choices>.*?)[,;] got '(?P<value>[^']*)'", message)
    if found is None or "Did you mean" in message:
        return ""
    return did_you_mean(found["value"], re.findall(r"[\w-]+", found["choices"]))


def did_you_mean(value: str, choices: list[str]) -> str:
    """Return a sentence that names the choices that are near a value, or nothing."""
    near = get_close_matches(value.lower(), choices)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def _options(command: click.Command | None) -> Mapping[str, str]:
    """Return the options of a command by the names of parameters; -p stands for those of the flow."""
    params = [] if command is None else [p for p in command.params if isinstance(p, click.Option) and p.name]
    return dict(_named(params))


def _named(params: list[click.Option]) -> Iterator[tuple[str, str]]:
    for param in params:
        name = param.name or ""
        if name == "parameters":
            yield from ((key, f"-p {key}") for key in OF_FLOW)
            yield from ((key, f"-p {path}") for key, path in NESTED.items())
        yield ALIASES.get(name, name), max(param.opts, key=len)


def _parameter(name: str, options: Mapping[str, str]) -> str:
    return options.get(name) or f"The {name.replace('_', ' ')}"


def _setting(name: str, value: str, options: Mapping[str, str]) -> str:
    plain = value.strip("'")
    option = options.get(name, "")
    if option.startswith("--"):
        return {"False": f"without {option}", "None": f"without {option}", "True": option}.get(
            plain, f"{option} {plain}"
        )
    if option or name in (*OF_FLOW, *NESTED):
        path = option or f"wsflow fit -p {NESTED.get(name, name)}"
        return f"{path}={plain.lower() if plain in ('None', 'True', 'False') else plain}"
    if name == "geometry":
        return f"wsflow fit --geometry {plain}"
    return f"{name.replace('_', ' ')} {plain}"
