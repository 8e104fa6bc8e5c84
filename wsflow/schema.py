"""What JSON data of a file must look like: tables of fields, checked at once before anything is built of them.

A check takes a value and the path of its field, in dots, and raises a ValueError that names the field and what was
expected. Checks are made of checks: a `record` of a table from fields to checks, a `list_of` one check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Check = Callable[[Any, str], None]
Table = Mapping[str, Check]
SHOWN = 60  # characters of a value
LARGEST = 2**63 - 1


def expect(what: str, test: Callable[[Any], bool]) -> Check:
    """Return a check of one value, by what is expected."""

    def check(value: Any, field: str) -> None:
        if not test(value):
            name = f"The field {field!r}" if field else "What is described"
            raise ValueError(f"{name} should be {what}, and is {shortened(value)}.")

    return check


def shortened(value: Any) -> str:
    """Return the beginning of a value's text."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        # an integer of too many digits, or lists in lists without end
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


text = expect("a string", lambda value: isinstance(value, str))
flag = expect("true or false", lambda value: isinstance(value, bool))
number = expect("a number", lambda value: type(value) in (int, float) and abs(value) < 1e308)
real = expect("a number, NaN or infinity", lambda value: type(value) is float or type(value) is int)
label = expect(
    "a string or a number", lambda v: isinstance(v, str | bool | float) or (type(v) is int and abs(v) <= LARGEST)
)


def anything(value: Any, field: str) -> None:
    """Take any value."""


def whole(low: int = 0, high: int = LARGEST) -> Check:
    """Return a check of a whole number from `low` to `high`, both included."""
    bounds = f"from {low} to {high}" if high != LARGEST else f"of at least {low}"
    return expect(f"a whole number {bounds}", lambda value: type(value) is int and low <= value <= high)


def one_of(*choices: str) -> Check:
    """Return a check of one of these strings."""
    return expect(f"one of {', '.join(choices)}", lambda value: isinstance(value, str) and value in choices)


def array(kinds: str, *ndims: int) -> Check:
    """Return a check of an array, by the kinds of its numbers and its number of axes."""
    return expect(
        f"an array of the kind {kinds} with {' or '.join(map(str, ndims))} axes",
        lambda value: isinstance(value, np.ndarray) and value.dtype.kind in kinds and value.ndim in ndims,
    )


def nullable(check: Check) -> Check:
    """Return a check of a value that may be null."""
    return lambda value, field: None if value is None else check(value, field)


def either(*checks: Check) -> Check:
    """Return a check that takes what one of the checks takes; the last one says what is wrong."""

    def check(value: Any, field: str) -> None:
        for one in checks[:-1]:
            try:
                return one(value, field)
            except ValueError:
                continue
        return checks[-1](value, field)

    return check


def list_of(item: Check, least: int = 0) -> Check:
    """Return a check of a list with at least so many items."""
    is_list = expect(
        f"a list of at least {least}" if least else "a list",
        lambda value: isinstance(value, list | tuple) and len(value) >= least,
    )

    def check(value: Any, field: str) -> None:
        is_list(value, field)
        for i, one in enumerate(value):
            item(one, f"{field}.{i}")

    return check


def row(*items: Check) -> Check:
    """Return a check of a list with one item for each check."""
    is_row = expect(
        f"a list of {len(items)}", lambda value: isinstance(value, list | tuple) and len(value) == len(items)
    )

    def check(value: Any, field: str) -> None:
        is_row(value, field)
        for i, (one, item) in enumerate(zip(value, items, strict=True)):
            item(one, f"{field}.{i}")

    return check


def mapping(item: Check) -> Check:
    """Return a check of an object with any keys."""

    def check(value: Any, field: str) -> None:
        _is_object(value, field)
        for key, one in value.items():
            item(one, _inside(field, key))

    return check


def record(required: Table, optional: Table | None = None, further: bool = False) -> Check:
    """Return a check of an object with these fields, and no others unless there may be further ones."""
    optional = optional or {}
    known = {**required, **optional}

    def check(value: Any, field: str) -> None:
        _is_object(value, field)
        for key in required:
            if key not in value:
                raise ValueError(f"The field {_inside(field, key)!r} is missing.")
        for key, one in value.items():
            if key in known:
                known[key](one, _inside(field, key))
            elif not further:
                raise ValueError(f"The field {shortened(_inside(field, key))} is unknown to this wsflow.")

    return check


def tagged(cases: Table) -> Check:
    """Return a check of an object that one of its keys tells apart."""

    def check(value: Any, field: str) -> None:
        _is_object(value, field)
        key = next((key for key in cases if key in value), None)
        if key is None:
            raise ValueError(f"The field {field!r} should have one of the keys {', '.join(cases)}.")
        cases[key](value, field)

    return check


_is_object: Check = expect("an object", lambda value: isinstance(value, dict))


def _inside(field: str, key: str) -> str:
    return f"{field}.{key}" if field else key
