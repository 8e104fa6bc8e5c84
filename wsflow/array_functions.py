"""Functions and methods of NumPy on populations: which of them move whole rows, and which rows they put where.

The result of a function that moves rows (`ROW_FUNCTIONS`) is networks again, with the runs and steps of these rows;
the result of any other function is a plain array. Where rows go is found by calling the same function on the numbers of
the rows instead of the rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

# function -> its parameters that are rows of weights
ROW_FUNCTIONS: dict[Callable[..., Any], tuple[str, ...]] = {
    np.append: ("arr", "values"),
    np.array_split: ("ary",),
    np.block: ("arrays",),
    np.compress: ("a",),
    np.concatenate: ("arrays",),
    np.copy: ("a",),
    np.delete: ("arr",),
    np.flip: ("m",),
    np.flipud: ("m",),
    np.insert: ("arr", "values"),
    np.repeat: ("a",),
    np.roll: ("a",),
    np.split: ("ary",),
    np.take: ("a",),
    np.tile: ("A",),
    np.unique: ("ar",),
    np.vsplit: ("ary",),
    np.vstack: ("tup",),
}
REDUCTIONS = ("all", "any", "argmax", "argmin", "max", "mean", "min", "prod", "std", "sum", "trace", "var")
RESHAPINGS = ("diagonal", "flatten", "ravel", "reshape", "squeeze", "swapaxes", "transpose")
OTHERS = ("argsort", "byteswap", "clip", "cumprod", "cumsum", "dot", "getfield", "nonzero", "round")
METHODS = (*REDUCTIONS, *RESHAPINGS, *OTHERS)
ATTRIBUTES = ("T", "imag", "mT")


def _method(name: str) -> Any:
    """Return a method that does what that of a plain array does, with a plain result."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(np.asarray(self), name)(*args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"As ``numpy.ndarray.{name}``, of the plain array."
    return method


def _attribute(name: str) -> Any:
    """Return a property that is that of the plain array."""
    return property(lambda self: getattr(np.asarray(self), name), doc=f"As ``numpy.ndarray.{name}``.")


# name -> what gives a population the method or attribute of a plain array
PLAIN: dict[str, Any] = {name: _method(name) for name in METHODS} | {name: _attribute(name) for name in ATTRIBUTES}


def replaced(value: Any, kind: type, function: Callable[[Any], Any]) -> Any:
    """Return arguments of a call with a function applied to what is of a kind, in lists, tuples and dicts too."""
    if isinstance(value, kind):
        return function(value)
    if type(value) in (list, tuple):
        return type(value)(replaced(v, kind, function) for v in value)
    return {k: replaced(v, kind, function) for k, v in value.items()} if isinstance(value, dict) else value


def moved_rows(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], kind: type) -> Any:
    """Find where a call of a function of NumPy moves rows.

    Returns
    -------
    arrays : list of arrays of that kind
        Those whose rows are moved; empty if the call moves no whole rows, or moves others too.
    numbers : array of shape (m, 1), or list of them
        For each row of a result, its number among the rows of the arrays, one after the other.
    """
    if func not in ROW_FUNCTIONS:
        return [], None
    bound = _signature(func).bind(*args, **kwargs)
    data = [bound.arguments[name] for name in ROW_FUNCTIONS[func]]
    arrays = list(_leaves(data))
    if not _along_rows(func, bound.arguments) or not all(isinstance(a, kind) for a in arrays):
        return [], None
    stops = iter(np.cumsum([len(a) for a in arrays]))
    for name, value in zip(ROW_FUNCTIONS[func], data, strict=True):
        bound.arguments[name] = replaced(value, kind, lambda a: _numbers(len(a), next(stops)))
    if func is np.unique:
        rows = np.concatenate([np.asarray(a) for a in arrays])
        return arrays, np.unique(rows, axis=0, return_index=True)[1][:, None]
    for name in ("dtype", "casting"):
        bound.arguments.pop(name, None)
    return arrays, func(*bound.args, **bound.kwargs)


def at_numbers(networks: Callable[[np.ndarray, np.ndarray], Any], result: Any, numbers: Any) -> Any:
    """Return the result of a call with ``networks(values, numbers)`` in the place of each array of whole rows."""
    if isinstance(result, list):
        return [at_numbers(networks, *pair) for pair in zip(result, numbers, strict=True)]
    if isinstance(result, tuple):
        return (at_numbers(networks, result[0], numbers), *result[1:])
    return networks(result, numbers[:, 0]) if numbers.ndim == 2 and numbers.shape[1] == 1 else result


@cache
def _signature(func: Callable[..., Any]) -> inspect.Signature:
    # it is written in C, and tells its parameters in its documentation only
    return inspect.signature(_concatenate if func is np.concatenate else func)


def _concatenate(arrays: Any, /, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: str = "") -> None: ...


def _along_rows(func: Callable[..., Any], arguments: dict[str, Any]) -> bool:
    parameters = _signature(func).parameters
    axis = arguments.get("axis", parameters["axis"].default) if "axis" in parameters else 0
    # a copy keeps what it copies, unless a plain one is asked for
    return axis in (0, -2) and arguments.get("out") is None and arguments.get("subok", True)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _numbers(n: int, stop: int) -> np.ndarray:
    return np.arange(stop - n, stop)[:, None]
