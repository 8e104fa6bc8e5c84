"""Networks in files of other tools, or of scikit-learn, as a population."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsflow.activations import activation as activation_row
from wsflow.architecture import Architecture
from wsflow.architecture.state_rows import common_prefix, rows_of_states, state_arrays
from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.formats import FORMATS, read_file
from wsflow.populations.importers.imported import ImportedNetworks
from wsflow.populations.importers.nnet import fold_normalization
from wsflow.populations.importers.paths import network_files
from wsflow.populations.importers.perceptrons import is_perceptron, read_perceptron
from wsflow.populations.invalid import check_finite, check_on_invalid
from wsflow.populations.population import Population, versions
from wsflow.task import Task
from wsflow.weights import WeightArray

TOLERANCE = 1e-8  # of a change of outputs in double precision


def load_networks(
    source: Any,
    architecture: Architecture | None = None,
    *,
    activation: str | None = None,
    module: Any = None,
    example_input: Any = None,
    runs: Any = None,
    steps: Any = None,
    task: Task | None = None,
    fold: bool = False,
    on_invalid: Literal["error", "drop"] = "error",
) -> Population:
    """Load networks from files of other tools, or from fitted estimators of scikit-learn, as a population.

    Read are state dicts of torch (``.pt``, ``.pth``, ``.th``, ``.ckpt``, ``.bin``; tensors only, never other Python
    objects) and of safetensors, ``.npz``, ``.nnet`` and ``.onnx`` files. Each file is a run of its own. Half
    precision becomes single, and the prefixes of wrappers (``module.``, ``_orig_mod.``, ``model.``) are taken off.

    Parameters
    ----------
    source : path, folder, pattern, estimator, or list of these
        Files of a folder or a pattern are sorted naturally: ``net_2`` before ``net_10``. An estimator is a fitted
        ``MLPClassifier`` or ``MLPRegressor``.
    architecture : Architecture, optional
        Default: that of `module`, or what the format says, or that of a plain MLP or CNN with `activation`.
    activation : str, optional
        What lies between the layers of a state dict: a key of `wsflow.activations.ACTIVATIONS`. Saying it says that
        the layers follow one another, without anything around them.
    module : torch.nn.Module, optional
        What the state dicts belong to; its own weights do not matter. With `activation` as well it is not read: it
        runs the networks of the plain MLP or CNN, whose symmetries are put to the test where there is an
        `example_input`.
    example_input : Tensor, optional
        What `module` takes, of more than one example; not needed for an ``nn.Sequential`` of linear layers.
    runs, steps : array-like of int, shape (n,), optional
        The training run and the step of each network.
    task : Task, optional
        What the networks are for.
    fold : bool
        Whether the constants that scale the data of ``.nnet`` files become part of the first and the last layer;
        otherwise they are kept in the provenance.
    on_invalid : {"error", "drop"}
        What to do with networks that have weights which are not finite.

    Returns
    -------
    Population
        Its provenance has the names of the files, and what was done to what was in them.

    Raises
    ------
    InvalidInputError
        If a file is damaged or is something else, the networks do not have one architecture, or it is not clear;
        the file is named.
    ValueError
        If a parameter has a wrong value, or the module cannot be read.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import torch
    >>> from wsflow.populations.importers import load_networks
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for i in range(3):
    ...         state = {"module.fc1.weight": torch.ones(5, 4), "module.fc2.weight": torch.ones(2, 5)}
    ...         torch.save(state, pathlib.Path(folder, f"net_{i}.pt"))
    ...     print(load_networks(folder, activation="relu"))
    3 networks 4-5-2 relu (30 weights) of 3 runs
    """
    check_on_invalid(on_invalid, "load_networks")
    if activation is not None:
        activation_row(activation)
    files = _read(source)
    if fold:
        files = [(name, _named(name, fold_normalization, networks)) for name, networks in files]
    architecture = _architecture(files, architecture, activation, module, example_input)
    names = [
        name if len(networks.states) == 1 else f"{name}[{i}]"
        for name, networks in files
        for i in range(len(networks.states))
    ]
    raw = [state for _, networks in files for state in networks.states]
    states = [_named(n, state_arrays, state, architecture.names) for n, state in zip(names, raw, strict=True)]
    if runs is None:
        runs = np.repeat(np.arange(len(files)), [len(networks.states) for _, networks in files])
    weights = WeightArray(rows_of_states(states, architecture, names), architecture, runs=runs, steps=steps)
    provenance = _provenance(files, names, raw, architecture, fold)
    return Population(check_finite(weights, on_invalid, names=names), task, provenance)


def _named(name: str, function: Any, *arguments: Any) -> Any:
    """Call a function, and name the file in its error."""
    try:
        return function(*arguments)
    except InvalidInputError as error:
        raise InvalidInputError(f"{name}: {error}") from error


def _read(source: Any) -> list[tuple[str, ImportedNetworks]]:
    sources = [source] if isinstance(source, (str, Path)) or is_perceptron(source) else source
    if not isinstance(sources, Iterable) or isinstance(sources, Mapping):
        raise InvalidInputError(
            f"Networks are loaded from paths or fitted perceptrons of scikit-learn, got a {type(source).__name__}. "
            "Modules and state dicts go to WeightArray.from_modules and from_state_dicts."
        )
    sources = list(sources)
    if sources and all(is_perceptron(value) for value in sources):
        names = [f"estimator {i}" for i in range(len(sources))]
        return [(name, _named(name, read_perceptron, value)) for name, value in zip(names, sources, strict=True)]
    other = next((value for value in sources if not isinstance(value, (str, Path))), None)
    if other is not None:
        raise InvalidInputError(
            f"A list of networks is of paths, or of fitted perceptrons, got a {type(other).__name__}."
        )
    return [(str(path), read_file(path)) for path in network_files(sources, FORMATS)]


def _architecture(
    files: list[tuple[str, ImportedNetworks]],
    architecture: Architecture | None,
    activation: str | None,
    module: Any,
    example_input: Any,
) -> Architecture:
    if architecture is not None:
        return architecture if module is None else replace(architecture, module=module)
    if module is not None and activation is None:
        examples = () if example_input is None else (example_input,)
        return Architecture.from_module(module, *examples)
    name, first = files[0]
    if first.architecture is not None:
        _check_architectures(files, first.architecture)
        return first.architecture if module is None else replace(first.architecture, module=module)
    if activation is None:
        raise InvalidInputError(
            f"{name}: a state dict does not say what lies between its layers. For a plain MLP or CNN pass "
            "activation='relu' (or another), for anything else module= (what it belongs to) or architecture=."
        )
    inferred = replace(_inferred(name, first, activation), module=module)
    if module is not None and example_input is not None:
        _check_symmetries(name, inferred, example_input)
    return inferred


def _check_symmetries(name: str, architecture: Architecture, example_input: Any) -> None:
    deviation = architecture.certify(architecture.module, example_input)
    if not deviation < TOLERANCE:
        raise InvalidInputError(
            f"{name}: the module is no plain MLP or CNN with this activation: what would be its symmetries change its "
            f"outputs by {deviation:.1e} of the largest. Pass module= and example_input= without activation=."
        )


def _inferred(name: str, networks: ImportedNetworks, activation: str) -> Architecture:
    state = _named(name, state_arrays, networks.states[0])
    try:
        return Architecture.from_state_dict(state, activation, ordered=networks.ordered)
    except ValueError as error:
        raise InvalidInputError(f"{name}: {error}") from error


def _check_architectures(files: list[tuple[str, ImportedNetworks]], expected: Architecture) -> None:
    """Refuse files with another architecture than the first, even if the tensors fit."""
    for name, networks in files:
        if networks.architecture is not None and networks.architecture != expected:
            raise InvalidInputError(
                f"These networks do not have one architecture: {files[0][0]} is {expected}, but {name} is "
                f"{networks.architecture}. Pass networks of one architecture, or say it with architecture=."
            )


def _provenance(
    files: list[tuple[str, ImportedNetworks]],
    names: list[str],
    states: list[Any],
    architecture: Architecture,
    fold: bool,
) -> dict[str, Any]:
    """Return what was read and what was done to it, as JSON data."""
    names = _short(names)
    files = list(zip(_short([name for name, _ in files]), (networks for _, networks in files), strict=True))
    notes = {name: networks.notes for name, networks in files if networks.notes}
    normalization = {name: networks.normalization for name, networks in files if networks.normalization is not None}
    prefixes = {name: common_prefix(state, architecture.names) for name, state in zip(names, states, strict=True)}
    cast = {name: kinds for name, state in zip(names, states, strict=True) if (kinds := _halves(state))}
    done = {
        "notes": notes,
        "normalization": normalization,
        "prefixes": {name: prefix for name, prefix in prefixes.items() if prefix},
        "cast_to_float32": cast,
    }
    return {
        "made_by": "load_networks",
        "networks": names,
        **{key: value for key, value in done.items() if value},
        **({"normalization_is": "folded, without clipping" if fold else "kept apart"} if normalization else {}),
        "versions": versions("torch"),
    }


def _halves(state: Mapping[str, Any]) -> list[str]:
    """Return the precisions below single in a state dict."""
    kinds = {str(value.dtype).removeprefix("torch.") for value in state.values() if value.dtype.itemsize < 4}
    return sorted(kind for kind in kinds if "float" in kind)


def _short(names: list[str]) -> list[str]:
    """Return paths relative to the folder that all of them have in common, which others need not know."""
    folders = {str(Path(name).parent) for name in names}
    common = os.path.commonpath([os.path.abspath(folder) for folder in folders])
    return [Path(os.path.relpath(os.path.abspath(name), common)).as_posix() for name in names]
