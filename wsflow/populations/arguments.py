"""Arguments that are networks: a Population stands for its weights, and all else is refused with what to pass."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from wsflow.exceptions import InvalidInputError
from wsflow.populations.population import Population
from wsflow.weights import WeightArray

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def takes_networks(
    *names: str, named: bool = False
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Let a function take a Population where it has a parameter of that name that is a WeightArray.

    With `named` it takes a mapping from names to networks as well.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, Population, WeightArray
    >>> from wsflow.populations.arguments import takes_networks
    >>> @takes_networks("weights")
    ... def count(weights):
    ...     return weights.shape
    >>> count(Population(WeightArray(np.zeros((5, 23)), Architecture.mlp([4, 3, 2]))))
    (5, 23)
    """

    def decorated(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def called(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                # said by the function itself, with its name
                return function(*args, **kwargs)
            for name in names:
                given = bound.arguments.get(name)
                if named and isinstance(given, Mapping):
                    bound.arguments[name] = {k: _weights(each, name, function.__name__) for k, each in given.items()}
                elif given is not None:
                    bound.arguments[name] = _weights(given, name, function.__name__)
            return function(*bound.args, **bound.kwargs)

        return called

    return decorated


def _weights(networks: Any, name: str, function: str) -> WeightArray:
    weights = networks.weights if isinstance(networks, Population) else networks
    if not isinstance(weights, WeightArray):
        raise InvalidInputError(
            f"The {name!r} of {function} are networks, a WeightArray or a Population, got {type(networks).__name__}. "
            "Make one with WeightArray(array, architecture), or with WeightArray.from_modules(modules)."
        )
    return weights
