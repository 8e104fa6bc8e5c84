"""State dicts to rows of weights: prefixes, precisions, tied tensors, and mismatches by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError

PREFIXES = ("module.", "_orig_mod.", "model.")
COUNTER = "num_batches_tracked"  # of batch norms: outputs do not depend on it
MENTIONED = 3

State = dict[str, np.ndarray]


def state_arrays(state: Mapping[str, Any], names: Iterable[str] = ()) -> State:
    """Return a state dict as arrays without the prefixes of wrappers, but for prefixes that the expected names have.

    Half precisions become single precision.

    Raises
    ------
    InvalidInputError
        If something is no tensor of real numbers; it is named.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture.state_rows import state_arrays
    >>> state_arrays({"module.0.weight": torch.ones(1, 2, dtype=torch.bfloat16)})
    {'0.weight': array([[1., 1.]], dtype=float32)}
    """
    prefix = common_prefix(state, names)
    return {key.removeprefix(prefix): _array(key, value) for key, value in state.items()}


def common_prefix(keys: Iterable[str], names: Iterable[str] = ()) -> str:
    """Return the prefix that wrappers (DataParallel, torch.compile) give to every key, unless the names have it too.

    Examples
    --------
    >>> from wsflow.architecture.state_rows import common_prefix
    >>> common_prefix(["module._orig_mod.0.weight", "module._orig_mod.0.bias"])
    'module._orig_mod.'
    """
    rest, prefix = list(keys), ""
    expected = set(names)
    while rest and not expected & set(rest):
        found = next((p for p in PREFIXES if all(key.startswith(p) and "." in key[len(p) :] for key in rest)), "")
        if not found:
            break
        prefix, rest = prefix + found, [key.removeprefix(found) for key in rest]
    return prefix


def _array(key: str, value: Any) -> np.ndarray:
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
    states: Sequence[State], architecture: Architecture, names: Sequence[str] | None = None
) -> np.ndarray:
    """Return the weights (n, d) in state dicts that `state_arrays` made; errors call the networks by the names.

    Raises
    ------
    InvalidInputError
        If a state dict lacks a parameter, has another shape or something else, or tied tensors differ; the first
        mismatches are named.
    """
    names = [f"network {i}" for i in range(len(states))] if names is None else names
    resolved = [_untied(state, architecture) for state in states]
    problems = [
        f"{name} {problem}"
        for name, state, original in zip(names, resolved, states, strict=True)
        for problem in (*_mismatches(state, architecture), *_conflicts(original, states[0], architecture))
    ]
    if problems:
        more = f" (and {len(problems) - MENTIONED} more)" if len(problems) > MENTIONED else ""
        raise InvalidInputError(
            f"These networks do not have one architecture: {'; '.join(problems[:MENTIONED])}{more}. "
            "Pass networks of one architecture, or say it with architecture=."
        )
    arrays = [state[name] for state in resolved for name in architecture.names]
    floats = {array.dtype.newbyteorder("=") for array in arrays if array.dtype.kind == "f"}
    dtype = np.result_type(*floats) if floats else np.dtype(np.float64)
    rows = np.empty((len(states), architecture.n_weights), dtype)
    for row, state in zip(rows, resolved, strict=True):
        np.concatenate([state[name].reshape(-1) for name in architecture.names], out=row, casting="same_kind")
    return rows


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


def _mismatches(state: State, architecture: Architecture) -> list[str]:
    expected = {p.name: p.shape for p in architecture.parameters}
    known = {*expected, *architecture.constants, *(a for p in architecture.parameters for a in p.aliases)}
    return [
        *(f"has no {name!r}" for name in expected if name not in state),
        *(
            f"has {name!r} of shape {state[name].shape}, expected {shape}"
            for name, shape in expected.items()
            if name in state and state[name].shape != shape
        ),
        *(f"has a further {name!r}" for name in state if name not in known and not name.endswith(COUNTER)),
    ]


def _conflicts(state: State, first: State, architecture: Architecture) -> list[str]:
    """Describe tied tensors that are not equal, and constants that are not those of the first network."""
    tied = [(p.name, alias) for p in architecture.parameters for alias in p.aliases if {p.name, alias} <= set(state)]
    fixed = [k for k in architecture.constants if k in state and k in first and not k.endswith(COUNTER)]
    return [
        *(f"has {b!r} that differs from {a!r}, to which it is tied" for a, b in tied if not _equal(state[a], state[b])),
        *(f"has another {key!r} than the first" for key in fixed if not _equal(state[key], first[key])),
    ]


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=True)
