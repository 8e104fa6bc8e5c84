"""State dicts to rows of weights: which tensors are the weights, precisions, tied tensors, and mismatches by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wsflow.architecture import Architecture
from wsflow.architecture.fixed_entries import other_constants
from wsflow.architecture.state_names import (
    COUNTER,
    Match,
    matches_by_name,
    matches_by_order,
    misfits,
    shared_prefix,
    unwrapped,
)
from wsflow.exceptions import InvalidInputError

WRAPPERS = ("module.", "model.")  # prefixes that are no part of the names of an architecture that is inferred
MENTIONED = 3

State = dict[str, np.ndarray]


def state_arrays(state: Mapping[str, Any]) -> State:
    """Return a state dict as arrays without what wrappers add to names; half precisions become single precision.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture.state_rows import state_arrays
    >>> state_arrays({"module.0.weight": torch.ones(1, 2, dtype=torch.bfloat16)})
    {'0.weight': array([[1., 1.]], dtype=float32)}
    """
    prefix = wrapper_prefix(unwrapped(state))
    return {name.removeprefix(prefix): as_array(key, state[key]) for name, key in unwrapped(state).items()}


def wrapper_prefix(names: Mapping[str, Any]) -> str:
    """Return the prefixes of wrappers (DataParallel) that all names have."""
    prefix, shared = "", shared_prefix(names)
    while found := next((p for p in WRAPPERS if shared.startswith(prefix + p)), ""):
        prefix += found
    return prefix


def infer_architecture(state: Mapping[str, Any], activation: str) -> Architecture:
    """Return the architecture of a plain MLP or CNN, with the names of the state dict where these can stay."""
    arrays = state_arrays(state)
    try:
        return Architecture.from_state_dict(arrays, activation)
    except ValueError:
        prefix = shared_prefix(arrays)
        if not prefix:
            raise
        stripped = {name.removeprefix(prefix): array for name, array in arrays.items()}
        return Architecture.from_state_dict(stripped, activation)


def find_networks(state: Mapping[str, Any], architecture: Architecture, ordered: bool = True) -> list[Match]:
    """Return where networks of an architecture are in a state dict, by their names or else in order; the best first."""
    shapes = _shapes(state)
    return matches_by_name(shapes, architecture) or matches_by_order(shapes, architecture, ordered)


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) if hasattr(value, "shape") else np.shape(value) for key, value in state.items()}


def as_array(key: str, value: Any) -> np.ndarray:
    """Return a tensor as an array, in single precision at least."""
    array = _of_tensor(key, value) if hasattr(value, "detach") else np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise InvalidInputError(f"{key!r} has the dtype {array.dtype}, expected real numbers. Leave it out.")
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _of_tensor(key: str, tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.is_quantized or str(tensor.layout) != "torch.strided" or tensor.is_meta:
        raise InvalidInputError(f"{key!r} is a quantized, sparse or empty tensor: save dense tensors of numbers.")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InvalidInputError(
            f"{key!r} of shape {tuple(tensor.shape)} repeats a tensor of {tensor.untyped_storage().nbytes()} bytes: "
            "save what it is, with .contiguous()."
        )
    tensor = tensor.cpu()
    narrow = tensor.is_floating_point() and tensor.element_size() < 4
    return np.asarray((tensor.float() if narrow else tensor).resolve_neg().resolve_conj().numpy())


def rows_of_states(
    states: Sequence[Mapping[str, Any]], architecture: Architecture, names: Sequence[str] | None = None
) -> np.ndarray:
    """Return the weights (n, d) in state dicts of tensors or arrays; errors call the networks by the names."""
    names = [f"network {i}" for i in range(len(states))] if names is None else names
    problems: list[str] = []
    found = [_found(name, state, architecture, problems) for name, state in zip(names, states, strict=True)]
    for name, state in zip(names, found, strict=True):
        problems += [f"{name} {problem}" for problem in _conflicts(state, found[0], architecture)]
        problems += [
            f"{name} has other constants in {key!r} than the architecture, so that it is not comparable"
            for key in other_constants(architecture, state)
        ]
    if problems:
        raise misfit_error(problems)
    for name, state in zip(names, found, strict=True):
        narrow = next((n for n in architecture.names if n in state and state[n].dtype.itemsize == 1), None)
        if narrow is not None:
            raise InvalidInputError(
                f"{name} has {state[narrow].dtype} numbers in {narrow!r}: quantized weights are not read, for their "
                "scale is not among them. Save the weights as floating-point numbers."
            )
    resolved = [_untied(state, architecture) for state in found]
    arrays = [state[name] for state in resolved for name in architecture.names]
    floats = {array.dtype.newbyteorder("=") for array in arrays if array.dtype.kind == "f"}
    dtype = np.result_type(*floats) if floats else np.dtype(np.float64)
    rows = np.empty((len(states), architecture.n_weights), dtype)
    for row, state in zip(rows, resolved, strict=True):
        np.concatenate([state[name].reshape(-1) for name in architecture.names], out=row, casting="same_kind")
    rows[:, architecture.fixed_columns] = architecture.fixed_values
    return rows


def misfit_error(problems: Sequence[str]) -> InvalidInputError:
    """Return the error for networks of other architectures, with the first problems."""
    more = f" (and {len(problems) - MENTIONED} more)" if len(problems) > MENTIONED else ""
    return InvalidInputError(
        f"These networks do not have one architecture: {'; '.join(problems[:MENTIONED])}{more}. "
        "Pass networks of one architecture, or say it with architecture=."
    )


def _found(name: str, state: Mapping[str, Any], architecture: Architecture, problems: list[str]) -> State:
    """Return the tensors of a network under the names of the architecture, or add to the problems."""
    matches = find_networks(state, architecture)
    if not matches:
        shapes = _shapes(state)
        problems += [f"{name} {problem}" for problem in misfits(shapes, architecture)]
        return {}
    if len(matches) > 1:
        others = ", ".join(repr(match.prefix) for match in matches[1:])
        warnings.warn(
            f"{name}: several networks fit. {matches[0].prefix!r} was taken, and not {others}.",
            stacklevel=4,
        )
    return {name: as_array(key, state[key]) for name, key in matches[0].keys.items()}


def _untied(state: State, architecture: Architecture) -> State:
    """Return the state under the parameters' own names where only an alias is present; missing counters are zero."""
    found = dict(state)
    for parameter in architecture.parameters:
        # as in torch, whose batch norms had no such counter before 0.4.1
        if parameter.name.endswith(COUNTER) and parameter.shape == ():
            found.setdefault(parameter.name, np.zeros((), dtype=np.int64))
        present = [alias for alias in parameter.aliases if alias in state]
        if parameter.name not in state and present:
            found[parameter.name] = state[present[0]]
    return found


def _conflicts(state: State, first: State, architecture: Architecture) -> list[str]:
    """Describe tied tensors that differ, constants that are not those of the first network."""
    tied = [(p.name, alias) for p in architecture.parameters for alias in p.aliases if {p.name, alias} <= set(state)]
    fixed = [k for k in architecture.constants if k in state and k in first and not k.endswith(COUNTER)]
    differ = [(a, b) for a, b in tied if not np.array_equal(state[a], state[b], equal_nan=True)]
    others = [key for key in fixed if not np.array_equal(state[key], first[key], equal_nan=True)]
    return [
        *(f"has {b!r} that differs from {a!r}, to which it is tied" for a, b in differ),
        *(f"has another {key!r} than the first" for key in others),
    ]
