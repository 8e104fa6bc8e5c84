"""Errors and warnings of the library in the words of a command: its options stand for parameters of Python."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches

import click

from wsflow.cli.advice import ADVICE

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
    "depth": "velocity.depth",
    "heads": "velocity.heads",
    "identity": "velocity.identity",
    "shrinkage": "source.shrinkage",
    "width": "velocity.width",
    "last_layer": "geometry.last_layer",
    "n_steps": "solver.n_steps",
    "rtol": "solver.rtol",
    "atol": "solver.atol",
}
# parameters of the flow that only -p sets
OF_FLOW = ("source", "coupling", "velocity", "solver", "metric", "hints", "energy", "condition", "density", "training")
# parameters that only some commands have
FURTHER = (
    "activation", "fold", "form", "geometry", "key", "loss", "method", "n_points", "noise", "on_invalid", "optimizer",
    "output", "reference", "repair", "runs", "schedule", "statistics", "task", "temperature",
)  # fmt: skip
NAMED = "cycles|activation_argument|checkpoint|target|loss|class_weight|sample_weight|classes"
# what the library says of its parameters: The 'x' parameter of Y, the 'x' 'value' of a Y
OWNED = (
    r"The '(\w+)' (?:parameter )?(?:('[^']*') )?of "
    r"(?:[A-Z]\w+(?:\.\w+)?|an? [A-Z]\w+|a task|[a-z]+_[a-z_]+|merge|statistics)\b"
)
VALUE = r"'[^']*'|-?\d[\d.e+-]*\d|\d|None|True|False"


def in_own_words(message: str, command: click.Command | None) -> str:
    """Say a message of the library as a command says it, and what was probably meant by a wrong value."""
    options = _options(command)
    known = "|".join({*options, *OF_FLOW, *NESTED, *FURTHER})
    rules: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
        (OWNED, lambda found: _parameter(found[1], options) + (f" {found[2]}" if found[2] else "")),
        (rf"(?<![\w./'-])({known})=({VALUE})", lambda found: _setting(found[1], found[2], options)),
        (rf"(?<![\w./'-])({known})=(?=[\s.,;:)]|$)", lambda found: _parameter(found[1], options)),
        (rf"'({NAMED})'", lambda found: options.get(found[1], found[0])),
    )
    message = _advised(message, command)
    for pattern, words in rules:
        message = re.sub(pattern, words, message)
    return message + suggestion(message)


def _advised(message: str, command: click.Command | None) -> str:
    names = {param.name for param in (command.params if command else [])}
    for pattern, option, words in ADVICE:
        if not option or option in names:
            message = re.sub(pattern, words, message)
    return message


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
    if name in ("form", "geometry"):
        return f"wsflow fit --{name} {plain}"
    return f"{name.replace('_', ' ')} {plain}"
