"""``-p NAME=VALUE``: parameters of an estimator, and of the objects among them, such as ``-p velocity.width=128``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches
from typing import Any

import click

# the names from an estimator down to a parameter, such as ("velocity", "width")
Path = tuple[str, ...]
Parameters = dict[Path, Any]
# from the path of a parameter and the string that it is, the object that the string stands for (or the string)
Resolve = Callable[[Path, str], Any]

WORDS = {"true": True, "false": False, "none": None}
# these are objects, which no text stands for: the population knows its architecture and its task
WITHOUT_TEXT = ("architecture", "progress", "task")


def parameter_option(help_text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option ``-p``, which gives a command the values of parameters by their paths."""
    return click.option(
        "-p", "--parameter", "parameters", multiple=True, callback=_parsed, metavar="NAME=VALUE", help=help_text
    )


def parse(text: str) -> tuple[Path, Any]:
    """Parse ``name=value`` or ``name.name=value``; a value is a number, true, false, none or text."""
    name, equals, value = text.partition("=")
    path = tuple(name.split("."))
    if not equals or not all(part.isidentifier() for part in path):
        raise click.BadParameter(
            f"{text!r} is not of the form NAME=VALUE or NAME.NAME=VALUE, such as max_iter=2000 or velocity.width=128."
        )
    return path, _value(value)


def _parsed(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Parameters:
    # an object before its parameters, in whichever order they are given
    return dict(sorted(map(parse, values), key=lambda item: len(item[0])))


def _value(text: str) -> Any:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def set_parameter(owner: Any, path: Sequence[str], value: Any, resolve: Resolve | None = None) -> None:
    """Set a parameter, or one of an object that is a parameter; a string becomes the object that it stands for."""
    _set(owner, (), tuple(path), value, resolve or (lambda _, text: text))


def _set(owner: Any, above: Path, path: Path, value: Any, resolve: Resolve) -> None:
    name, *rest = path
    known = owner.get_params(deep=False)
    check_known(name, [key for key in known if above or key not in WITHOUT_TEXT], type(owner).__name__)
    if rest:
        inner = known[name]
        inner = resolve((*above, name), inner) if isinstance(inner, str) else inner
        if not hasattr(inner, "get_params"):
            dotted = ".".join((*above, name))
            raise click.UsageError(
                f"The parameter {dotted!r} is {inner!r}, which has no parameters of its own, such as {rest[0]!r}. "
                f"Set it as a whole: -p {dotted}=VALUE."
            )
        _set(inner, (*above, name), tuple(rest), value, resolve)
        value = inner
    owner.set_params(**{name: value})


def check_known(name: str, known: Collection[str], owner: str) -> None:
    """Refuse an unknown name, and list the nearest known ones, or else all."""
    if name in known:
        return
    near = get_close_matches(name, known)
    remedy = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Choose from {', '.join(known)}."
    raise click.UsageError(f"{owner} has no parameter {name!r} to set. {remedy}")


def flow_of(geometry: str, iterations: int, task: Any, seed: int, parameters: Parameters) -> Any:
    """Make a WeightFlow; what is wrong with its parameters is an error now, not after minutes of other work."""
    import wsflow

    flow = wsflow.WeightFlow(geometry=geometry, max_iter=iterations, task=task, random_state=seed)
    set_flow_parameters(flow, parameters)
    return flow


def set_flow_parameters(flow: Any, parameters: Parameters) -> None:
    """Set parameters of a WeightFlow and of the objects that its strings stand for, and check all of them."""
    from wsflow.models.options import AUTOMATIC, resolved
    from wsflow.models.settings import check_parameters

    def resolve(path: Path, text: str) -> Any:
        # commands are about networks, whose architecture is known
        return AUTOMATIC[path[0]]() if text == "auto" and path[0] in AUTOMATIC else resolved(path[0], text)

    for path, value in parameters.items():
        set_parameter(flow, path, value, resolve)
    check_parameters(flow.get_params(deep=False))
