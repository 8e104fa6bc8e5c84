"""WeightArray: a population as an array of shape (n, d) with its architecture, runs and steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from wsflow.architecture import Architecture
from wsflow.architecture.fixed_entries import difference
from wsflow.architecture.modules import check_alike
from wsflow.architecture.readable import unwrapped
from wsflow.architecture.state_rows import infer_architecture, rows_of_states
from wsflow.array_functions import PLAIN, at_numbers, moved_rows, replaced
from wsflow.arrays import dense
from wsflow.exceptions import InvalidInputError
from wsflow.mapped import is_mapped, taken
from wsflow.representation import html_table, rows_about

FLOATS = (np.float64, np.float32, np.float16)


class WeightArray(np.ndarray):
    """The weights of n networks of one architecture, one network a row.

    What moves whole rows gives a WeightArray, and carries the runs and steps of the rows along: indexing, ``copy``,
    ``astype``, and functions of NumPy such as ``np.concatenate``, ``vstack``, ``append``, ``insert``, ``take``,
    ``repeat``, ``delete``, ``split`` and ``unique`` along axis 0, where all arrays are of one architecture. Everything
    else (a column, a mean, ``hstack``, ``stack``) is a plain array. Runs keep their numbers; `wsflow.concatenate` joins
    populations, whose run 0 is not the same run.

    Parameters
    ----------
    array : array-like of shape (n, d)
        Rows of flattened weights, in the order of the architecture's parameters.
    architecture : Architecture
    runs : array-like of int, shape (n,), optional
        The training run of each row (default: those of a WeightArray, and else a run for each row). Snapshots of a run
        are correlated.
    steps : array-like of int, shape (n,), optional
        The optimisation step at which each row was taken (default: those of a WeightArray, and else 0).
    aligned : bool
        Whether permutations and signs were chosen relative to a reference.

    Raises
    ------
    InvalidInputError
        If the columns are not the architecture's weights, or runs or steps are not one for each row.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, WeightArray
    >>> weights = WeightArray(np.zeros((5, 23)), Architecture.mlp([4, 3, 2]), runs=[0, 0, 1, 1, 2])
    >>> weights[1:3].runs
    array([0, 1])
    >>> type(weights.mean(axis=0)).__name__
    'ndarray'
    """

    architecture: Architecture
    runs: np.ndarray
    steps: np.ndarray
    aligned: bool

    def __new__(
        cls,
        array: Any,
        architecture: Architecture,
        *,
        runs: Any = None,
        steps: Any = None,
        aligned: bool = False,
    ) -> WeightArray:
        values = _floats(array)
        if values.ndim != 2 or values.shape[1] != architecture.n_weights:
            raise InvalidInputError(
                f"A WeightArray of this architecture has shape (n, {architecture.n_weights}), one network a row, "
                f"but the array has shape {values.shape}. The architecture is {architecture}."
            )
        self = values.view(cls)
        self.architecture = architecture
        known = isinstance(array, WeightArray)
        self.runs = _column("runs", runs, len(values), array.runs if known else np.arange(len(values)))
        self.steps = _column(
            "steps", steps, len(values), array.steps if known else np.zeros(len(values), dtype=np.int64)
        )
        self.aligned = bool(aligned)
        return self

    def __array_finalize__(self, obj: Any) -> None:
        for name in ("architecture", "runs", "steps", "aligned"):
            setattr(self, name, getattr(obj, name, None))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        if out is not None:
            kwargs["out"] = _plain(out)
        result = getattr(ufunc, method)(*_plain(inputs), **kwargs)
        return out[0] if out is not None and len(out) == 1 else result

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        result = func(*_plain(args), **_plain(kwargs))
        arrays, numbers = moved_rows(func, args, kwargs, WeightArray)
        if not arrays or any(a.architecture != arrays[0].architecture for a in arrays):
            return result
        return at_numbers(partial(_networks_at, arrays), result, numbers)

    def __getitem__(self, key: Any) -> Any:
        rows = key[0] if isinstance(key, tuple) and key and all(_is_everything(k) for k in key[1:]) else key
        values = taken(np.asarray(self), rows) if self._is_copied_by(rows) else np.asarray(self)[key]
        if isinstance(rows, tuple) or values.ndim != 2 or values.shape[1:] != self.shape[1:] or rows is None:
            return values
        return self._rows(values, rows)

    def _is_copied_by(self, rows: Any) -> bool:
        """Whether memory may not hold the rows of a mapped array that these numbers, or this mask, choose."""
        is_chosen = isinstance(rows, np.ndarray) and rows.ndim == 1 and rows.dtype.kind in "iub"
        return is_chosen and (rows.dtype.kind != "b" or len(rows) == len(self)) and is_mapped(self)

    def _rows(self, values: np.ndarray, rows: Any) -> WeightArray:
        return type(self)(values, self.architecture, runs=self.runs[rows], steps=self.steps[rows], aligned=self.aligned)

    def take(  # type: ignore[override]
        self, indices: Any, axis: int | None = None, out: Any = None, mode: Any = "raise"
    ) -> Any:
        """Return rows by index as a WeightArray, and for other axes what ``numpy.take`` returns."""
        return np.take(self, indices, axis=axis, out=out, mode=mode)

    def compress(self, condition: Any, axis: Any = None, out: Any = None) -> Any:
        """Return chosen rows as a WeightArray, and for other axes what ``numpy.compress`` returns."""
        return np.compress(condition, self, axis=axis, out=out)

    def repeat(self, repeats: Any, axis: Any = None) -> Any:
        """Return rows repeated as a WeightArray, and for other axes what ``numpy.repeat`` returns."""
        return np.repeat(self, repeats, axis=axis)

    def view(self, *args: Any, **kwargs: Any) -> Any:
        """Return a WeightArray of the same memory, or a plain array where another type is asked for."""
        values = np.asarray(self).view(*args, **kwargs)
        return values if args or kwargs else self.like(values)

    def copy(self, order: Any = "C") -> WeightArray:
        """Return a copy that is a WeightArray too."""
        return self.like(np.asarray(self).copy(order))

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the same networks in another precision, or a plain array if the dtype is not a float."""
        values = np.asarray(self).astype(dtype, *args, **kwargs)
        return self.like(values) if values.dtype.kind == "f" else values

    def like(self, array: Any, *, aligned: bool | None = None) -> WeightArray:
        """Return other weights (n, d) with this array's architecture, runs, steps and, by default, alignment."""
        aligned = self.aligned if aligned is None else aligned
        return type(self)(array, self.architecture, runs=self.runs, steps=self.steps, aligned=aligned)

    def __reduce__(self) -> tuple[Any, ...]:
        keywords = {"runs": self.runs, "steps": self.steps, "aligned": self.aligned}
        return _rebuild, (np.asarray(self), self.architecture, keywords)

    @classmethod
    def concatenate(cls, arrays: Sequence[WeightArray]) -> WeightArray:
        """Return the rows of several arrays of one architecture, one after the other; aligned if all of them are.

        Raises
        ------
        InvalidInputError
            If there is no array, or their architectures differ.
        """
        if not arrays:
            raise InvalidInputError("There is nothing to concatenate: at least one array is needed.")
        other = next((a for a in arrays if a.architecture != arrays[0].architecture), None)
        if other is not None:
            raise InvalidInputError(
                "Only arrays of one architecture can be concatenated."
                f"{difference(arrays[0].architecture, other.architecture)}"
            )
        joined: Any = np.concatenate(arrays)
        return joined

    @classmethod
    def from_modules(
        cls,
        modules: Iterable[Any],
        architecture: Architecture | None = None,
        example_input: Any = None,
        **keywords: Any,
    ) -> WeightArray:
        """Collect the weights of torch modules of one architecture.

        Parameters
        ----------
        architecture : Architecture, optional
            Default: read from the first module.
        example_input : Tensor, or tuple of arguments of the forward pass, optional
            Needed to read a module that is no ``nn.Sequential`` of Linear and activation layers.
        **keywords
            `runs`, `steps` and `aligned`.

        Raises
        ------
        InvalidInputError
            If there is no module, not all of them have the architecture's parameters, or they differ in their layers.
        ValueError
            If the first module is not one that `Architecture.from_module` reads.

        Examples
        --------
        >>> from torch import nn
        >>> from wsflow import WeightArray
        >>> networks = [nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)) for _ in range(5)]
        >>> WeightArray.from_modules(networks).shape
        (5, 23)

        Any other module, by an input of it:

        >>> import torch
        >>> networks = [nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 2)) for _ in range(5)]
        >>> WeightArray.from_modules(networks, example_input=torch.zeros(2, 1, 4, 4)).architecture.groups
        (NeuronGroup(name='0', size=4, parent=None),)
        """
        if hasattr(modules, "state_dict"):
            raise InvalidInputError("This is one module, and its layers are no networks: pass a list, [module].")
        modules = [unwrapped(module) for module in modules]
        if not modules:
            raise InvalidInputError("The list of modules is empty: at least one network is needed.")
        if architecture is None:
            check_alike(modules)
            architecture = Architecture.from_module(modules[0], example_input)
        return cls.from_state_dicts([m.state_dict() for m in modules], architecture=architecture, **keywords)

    @classmethod
    def from_state_dicts(
        cls,
        states: Iterable[Mapping[str, Any]],
        activation: str | None = None,
        architecture: Architecture | None = None,
        **keywords: Any,
    ) -> WeightArray:
        """Collect the weights in state dicts of one architecture.

        Half precision becomes single, prefixes and what wrappers add to names (``module.``, ``_orig_mod.``) are
        removed, and tied tensors are read once. Names may be others than the architecture's where shapes fit in order.

        Parameters
        ----------
        activation : str, optional
            The activation between the layers of a plain MLP or CNN, whose widths are then inferred.
        architecture : Architecture, optional
            Needed for all other networks.
        **keywords
            `runs`, `steps` and `aligned`.

        Raises
        ------
        InvalidInputError
            If there is no state dict, neither activation nor architecture is given, or a state dict lacks a parameter
            or has one of another shape; the first mismatches are named.

        Examples
        --------
        >>> import torch
        >>> from wsflow import WeightArray
        >>> states = [{"fc1.weight": torch.ones(3, 4), "fc2.weight": torch.ones(2, 3)} for _ in range(5)]
        >>> str(WeightArray.from_state_dicts(states, activation="tanh").architecture)
        '4-3-2 tanh (18 weights)'
        """
        if isinstance(states, Mapping):
            raise InvalidInputError("This is one state dict: pass a list, [state].")
        states = list(states)
        if not states:
            raise InvalidInputError("The list of state dicts is empty: at least one network is needed.")
        if architecture is None:
            if activation is None:
                raise InvalidInputError(
                    "A state dict does not say which activation lies between its layers. "
                    "Pass activation='relu' (or another), or architecture=."
                )
            architecture = infer_architecture(states[0], activation)
        return cls(rows_of_states(states, architecture), architecture, **keywords)

    def state_dicts(self) -> list[dict[str, Any]]:
        """Return the networks as torch state dicts."""
        import torch

        rows = torch.from_numpy(np.array(self))
        parameters, slices = self.architecture.parameters, self.architecture.slices
        return [
            {name: row[slices[p.name]].reshape(p.shape).clone() for p in parameters for name in (p.name, *p.aliases)}
            for row in rows
        ]

    def to_modules(self, template: Any = None) -> list[Any]:
        """Return the networks as torch modules: copies of the template, of the module that was read, or of its program.

        Raises
        ------
        ValueError
            If the architecture does not run itself and there is no template.

        Examples
        --------
        >>> import numpy as np
        >>> from wsflow import Architecture, WeightArray
        >>> WeightArray(np.zeros((1, 23)), Architecture.mlp([4, 3, 2])).to_modules()[0]
        Sequential(
          (0): Linear(in_features=4, out_features=3, bias=True)
          (1): ReLU()
          (2): Linear(in_features=3, out_features=2, bias=True)
        )
        """
        from wsflow.running.modules import to_module

        return [to_module(self.architecture, state, template) for state in self.state_dicts()]

    def __str__(self) -> str:
        return f"WeightArray of {len(self)} networks {self.architecture}, {len(np.unique(self.runs))} runs"

    def __repr__(self) -> str:
        return f"<{self}>"

    def _repr_html_(self) -> str:
        return html_table("WeightArray", rows_about(self))


for _name, _plain_one in PLAIN.items():
    setattr(WeightArray, _name, _plain_one)


def _networks_at(arrays: Sequence[WeightArray], values: np.ndarray, numbers: Any) -> Any:
    """Return values (m, d) as the networks that have these numbers among the rows of some arrays."""
    if values.dtype.kind != "f":
        return values
    runs, steps = (np.concatenate([getattr(a, name) for a in arrays])[numbers] for name in ("runs", "steps"))
    aligned = all(a.aligned for a in arrays)
    return WeightArray(values, arrays[0].architecture, runs=runs, steps=steps, aligned=aligned)


def _rebuild(array: np.ndarray, architecture: Architecture, keywords: dict[str, Any]) -> WeightArray:
    return WeightArray(array, architecture, **keywords)


def _floats(array: Any) -> np.ndarray:
    """Return numbers as an array of floats that torch reads too, of the same memory where it is one."""
    values = np.asarray(dense(array, "The array"))
    if values.dtype in FLOATS:
        return values
    try:
        if values.dtype.kind not in "fiubO":
            raise TypeError(f"got {values.dtype}")
        return values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"The weights of a WeightArray are real numbers: {error}. Pass an array of floats."
        ) from error


def _column(name: str, values: Any, n: int, default: np.ndarray) -> np.ndarray:
    if values is None:
        return default
    column = np.asarray(dense(values, f"The {name}"))
    if column.shape != (n,):
        raise InvalidInputError(f"The {name} of a WeightArray of {n} rows are {n} numbers, got shape {column.shape}.")
    if column.dtype.kind in "bi":
        return column.astype(np.int64)
    try:
        numbers = [int(value) for value in column.tolist()]
    except (TypeError, ValueError, OverflowError):
        numbers = []
    if numbers != column.tolist() or not all(-(2**63) <= number < 2**63 for number in numbers):
        raise InvalidInputError(f"The {name} of a WeightArray are whole numbers below 2^63, got {column.dtype} values.")
    return np.array(numbers, dtype=np.int64)


def _is_everything(key: Any) -> bool:
    return key is Ellipsis or (isinstance(key, slice) and key == slice(None))


def _plain(value: Any) -> Any:
    return replaced(value, WeightArray, np.asarray)
