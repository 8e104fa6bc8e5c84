"""Options that several commands share."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

MEMORY_SHARE = 0.5  # of the machine's memory that a result may take


def seed(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--seed``."""
    return click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of all randomness.")(
        command
    )


def as_json(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)


def quiet(command: Callable[..., Any]) -> Callable[..., Any]:
    """``-q``."""
    return click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")(command)


def out(required: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``-o FILE``."""
    return click.option("-o", "--out", type=click.Path(path_type=Path), required=required, help="File to write.")


def count(default: int, help_text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``-n COUNT``."""
    return click.option("-n", "--number", default=default, show_default=True, type=click.IntRange(1), help=help_text)


def integers(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """Comma-separated positive integers."""
    try:
        numbers = tuple(int(part) for part in value.split(",") if part.strip())
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of numbers such as 16,16.") from error
    if any(number < 1 for number in numbers):
        raise click.BadParameter("widths are at least 1.")
    return numbers


def optional_integers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Comma-separated positive integers, at least one of them, or nothing."""
    numbers = None if value is None else integers(ctx, param, value)
    if numbers == ():
        raise click.BadParameter("name at least one width, such as 32.")
    return numbers


def parameters(command: Callable[..., Any]) -> Callable[..., Any]:
    """-p, for what has no option of its own."""
    return click.option(
        "-p",
        "--parameter",
        "parameters",
        multiple=True,
        callback=settings,
        metavar="NAME=VALUE",
        help="Any further parameter of WeightFlow, such as -p prior=isotropic.",
    )(command)


def flow_of(geometry: str, iterations: int, task: Any, seed: int, parameters: dict[str, Any]) -> Any:
    """A flow by the options of a command; what is wrong with them is said now, not after minutes of other work.

    Parameters
    ----------
    geometry : str
    iterations : int
    task : Task or None
    seed : int
    parameters : dict
        Of ``-p``; they count where they say the same as another option.

    Returns
    -------
    WeightFlow

    Raises
    ------
    click.UsageError
        If WeightFlow does not have a parameter: with those that it has.
    ValueError
        If one has a wrong value.
    """
    import wsflow
    from wsflow.estimators.assembly import check_parameters

    # these are objects, which no text stands for: the population knows its architecture and its task
    known = set(wsflow.WeightFlow().get_params()) - {"architecture", "progress", "task"}
    unknown = sorted(set(parameters) - known)
    if unknown:
        raise click.UsageError(f"There is no parameter {unknown[0]!r} to set. Choose from {', '.join(sorted(known))}.")
    values = {"geometry": geometry, "max_iter": iterations, "task": task, "random_state": seed, **parameters}
    flow = wsflow.WeightFlow(**values)
    check_parameters(flow)
    return flow


def settings(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE pairs; values are numbers, true, false, none or text."""
    result: dict[str, Any] = {}
    for pair in values:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{pair!r} is not of the form NAME=VALUE, such as max_iter=2000.")
        result[name] = _value(text)
    return result


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def check_apart(out: Path, *inputs: Path | None) -> None:
    """Refuse to write over a file that is read.

    Parameters
    ----------
    out : Path
    *inputs : Path or None

    Raises
    ------
    OutputError
    """
    from wsflow.exceptions import OutputError

    if out.exists() and any(path is not None and path.exists() and out.samefile(path) for path in inputs):
        raise OutputError(f"{out}: this file is read, and would be lost. Give another path to write to.")


def check_size(n: int, n_weights: int) -> None:
    """Refuse a number of networks that does not fit into memory, before anything is allocated.

    Parameters
    ----------
    n, n_weights : int

    Raises
    ------
    ValueError
        Naming the size.
    """
    import os

    needed = 8 * n * n_weights
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > MEMORY_SHARE * memory:
        raise ValueError(
            f"{n} networks of {n_weights} weights take {needed / 2**30:,.1f} GiB, and this machine has "
            f"{memory / 2**30:,.1f} GiB. "
            "Ask for fewer with -n, several times with different --seed."
        )


def load_callable(spec: str) -> Any:
    """What a file of the user's own code, or an installed module, calls by a name; the code is run.

    Parameters
    ----------
    spec : str
        ``"file.py:name"`` or ``"package.module:name"``.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        If there is no such file, module or name, or the code cannot be imported.

    Examples
    --------
    >>> from wsflow.cli.options import load_callable
    >>> load_callable("math:sqrt")(4.0)
    2.0
    """
    home, colon, name = spec.rpartition(":")
    if not colon or not home or not name:
        raise ValueError(f"{spec!r} is not of the form FILE.py:NAME, such as networks.py:make_network.")
    module = _imported(home)
    if not hasattr(module, name):
        known = ", ".join(n for n in vars(module) if not n.startswith("_")) or "none"
        raise ValueError(f"{home} has no {name!r}. Its names are {known}.")
    return getattr(module, name)


def load_module(spec: str) -> Any:
    """The torch module that a spec of `load_callable` names, or that what it names returns.

    Parameters
    ----------
    spec : str
        ``"file.py:name"``: a module, or a class or function without arguments that makes one.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ValueError
        If it makes no module.
    """
    from torch import nn

    value = load_callable(spec)
    if not isinstance(value, nn.Module) and callable(value):
        try:
            value = value()
        except Exception as error:
            raise ValueError(f"{spec} cannot be called without arguments: {type(error).__name__}: {error}.") from error
    if not isinstance(value, nn.Module):
        raise ValueError(f"{spec} makes a {type(value).__name__}, expected a torch.nn.Module.")
    return value


def _imported(home: str) -> Any:
    try:
        return _of_file(Path(home)) if home.endswith(".py") else importlib.import_module(home)
    except Exception as error:
        raise ValueError(f"{home} cannot be imported: {type(error).__name__}: {error}.") from error


def _of_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError("there is no such file")
    spec = importlib.util.spec_from_file_location(f"own_code_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError("it is no Python file")
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up there
    sys.modules[module.__name__] = module
    # the file may import its neighbours, as it could when run with python
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module
