"""Parameter objects: named values that say more than a string, with scikit-learn's get_params and set_params.

A string stands for an object with its defaults: ``WeightFlow(velocity="neuron")`` is
``WeightFlow(velocity=NeuronTransformer())``. As in scikit-learn, values are checked when they are used, not when they
are set, so that `clone` and grid searches over ``velocity__width`` work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, ClassVar


class Options:
    """A dataclass of parameters.

    `CONSTRAINTS` maps the name of a parameter to its constraint, made by `one_of`, `whole` or `between`.
    """

    CONSTRAINTS: ClassVar[Mapping[str, Callable[[], list[Any]]]] = {}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name; ``deep`` is scikit-learn's, and changes nothing."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def set_params(self, **params: Any) -> Options:
        """Set some parameters, and return self."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(
                    f"{type(self).__name__} has no parameter {name!r}; its parameters are {', '.join(known)}."
                )
            setattr(self, name, value)
        return self

    def check(self) -> None:
        """Raise a ValueError that names the first parameter with a wrong value, what is expected, and the value."""
        from sklearn.utils._param_validation import validate_parameter_constraints

        constraints = {name: constraint() for name, constraint in self.CONSTRAINTS.items()}
        values = {name: value for name, value in self.get_params().items() if name in constraints}
        validate_parameter_constraints(constraints, values, caller_name=type(self).__name__)


def one_of(*choices: Any) -> Callable[[], list[Any]]:
    """A constraint: one of these strings, or None where it is among them."""

    def constraint() -> list[Any]:
        from sklearn.utils._param_validation import StrOptions

        strings = {choice for choice in choices if isinstance(choice, str)}
        return [StrOptions(strings), *(choice for choice in choices if choice is None)]

    return constraint


def whole(low: int, optional: bool = False) -> Callable[[], list[Any]]:
    """A constraint: a whole number of at least `low`, or None where it is optional."""

    def constraint() -> list[Any]:
        from numbers import Integral

        from sklearn.utils._param_validation import Interval

        return [Interval(Integral, low, None, closed="left"), *([None] if optional else [])]

    return constraint


def between(low: float, high: float | None) -> Callable[[], list[Any]]:
    """A constraint: a real number from `low` to `high`, both included; None is no bound."""

    def constraint() -> list[Any]:
        from numbers import Real

        from sklearn.utils._param_validation import Interval

        return [Interval(Real, low, high, closed="left" if high is None else "both")]

    return constraint
