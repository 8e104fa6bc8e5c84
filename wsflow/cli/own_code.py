"""Objects that the user's own code defines, by ``FILE.py:NAME``; the code is run."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any


def load_callable(spec: str) -> Any:
    """Return what a spec such as ``"file.py:name"`` or ``"package.module:name"`` names."""
    home, colon, name = spec.rpartition(":")
    if not colon or not home or not name:
        raise ValueError(f"{spec!r} is not of the form FILE.py:NAME, such as networks.py:make_network.")
    module = _imported(home)
    if not hasattr(module, name):
        known = ", ".join(n for n in vars(module) if not n.startswith("_")) or "none"
        raise ValueError(f"{home} has no {name!r}. Its names are {known}.")
    return getattr(module, name)


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
