"""Objects that the user's own code defines, by ``FILE.py:NAME``; the code is run."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from wsflow.cli.wording import did_you_mean
from wsflow.exceptions import InvalidInputError

MENTIONED = 3


def load_callable(spec: str) -> Any:
    """Return what a spec such as ``"file.py:name"`` or ``"package.module:name"`` names."""
    from wsflow.populations.file_kinds import check_path

    home, colon, name = spec.rpartition(":")
    if not colon or not home or not name:
        if Path(spec).exists():
            check_path(Path(spec))
        _check_code(Path(spec), spec)
        what = "is Python source code, and" if Path(spec).is_file() else "is"
        raise ValueError(
            f"{spec!r} {what} not of the form FILE.py:NAME, such as networks.py:make_network.{_example(spec)}"
        )
    _check_code(Path(home), home)
    module = _imported(home, name)
    if not hasattr(module, name):
        known = [n for n in vars(module) if not n.startswith("_")]
        meant = did_you_mean(name, known)
        raise ValueError(f"{home} has no {name!r}. Its names are {', '.join(known) or 'none'}.{meant}")
    return getattr(module, name)


def _check_code(path: Path, text: str) -> None:
    """Refuse a file that is not Python source code."""
    from wsflow.populations.file_kinds import other_than

    if path.is_file() and path.suffix != ".py":
        what = other_than(path, "Python source code")
        raise InvalidInputError(
            f"{text}: {what}. Name a file of Python, and what is in it, as networks.py:make_network."
        )


def _example(text: str) -> str:
    """Return a question that names what a file of Python defines, whether or not its suffix is there."""
    path = next((path for path in (Path(text), Path(f"{text}.py")) if path.suffix == ".py" and path.is_file()), None)
    if path is None:
        return ""
    with suppress(SyntaxError, ValueError, OSError):
        body = ast.parse(path.read_bytes()).body
        names = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        return f" Did you mean {' or '.join(f'{path}:{name}' for name in names[:MENTIONED])}?" if names else ""
    return ""


def load_module(spec: str) -> Any:
    """Return the torch module that a spec names, or that the class or function without arguments makes."""
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


def _imported(home: str, name: str) -> Any:
    try:
        return _of_file(Path(home)) if home.endswith(".py") else importlib.import_module(home)
    except Exception as error:
        file = f"{home}.py:{name}"
        meant = f" Did you mean {file}?" if Path(f"{home}.py").is_file() else ""
        if isinstance(error, ModuleNotFoundError) and not home.endswith(".py"):
            meant = meant or f" A file is named with its suffix, such as {file}."
        raise ValueError(f"{home} cannot be imported: {type(error).__name__}: {error}.{meant}") from error


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
