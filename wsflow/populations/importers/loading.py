"""Networks in files of other tools, or of scikit-learn, as a population."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsflow.activations import activation as activation_row
from wsflow.architecture import Architecture
from wsflow.architecture.fixed_entries import difference
from wsflow.architecture.state_rows import misfit_error, rows_of_states
from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.choice import Choice, choose, infer
from wsflow.populations.importers.damaged import intact
from wsflow.populations.importers.files import File, file_of, foreign_weights, misfits_of, provenance_of
from wsflow.populations.importers.formats import FORMATS, read_file
from wsflow.populations.importers.leaves import Checkpoint
from wsflow.populations.importers.paths import network_files
from wsflow.populations.importers.perceptrons import is_perceptron, read_perceptron
from wsflow.populations.importers.runs import leaks
from wsflow.populations.importers.zoos.archives import unpacked
from wsflow.populations.importers.zoos.layouts import read_zoo
from wsflow.populations.importers.zoos.zoo import Matrix, Zoo
from wsflow.populations.population import Population, check_finite, check_on_invalid
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
    key: str | None = None,
    on_invalid: Literal["error", "drop"] = "error",
) -> Population:
    """Load networks from files of other tools, or from fitted estimators of scikit-learn, as a population.

    Read are checkpoints of torch (``.pt``, ``.pth``, ``.th``, ``.ckpt``, ``.bin``), pickles, safetensors (also in
    shards), ``.npz``, Keras (``.keras``, ``.h5``), flax (``.msgpack``), ``.nnet`` and ``.onnx`` files. Other Python
    objects in them are skipped: nothing that a file names is called. The networks are found in nested dictionaries,
    under any prefix, beside metrics, optimizers and averaged weights. Each file is a run of its own, unless it holds
    several networks. Half precision becomes single. Of a folder or an archive (``.zip``, ``.tar``, ``.tar.gz``,
    ``.tar.xz``, ``.tar.bz2``) in one of the layouts of
    `wsflow.populations.importers.zoos.layouts.ZOO_LAYOUTS`, runs, steps, hyperparameters, labels and properties of the
    networks are read as well.

    Parameters
    ----------
    source : path, folder, archive, pattern, estimator, or list of these
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
    key : str, optional
        Where the networks are in the files, such as ``"ema_model"``: a key of a dictionary, or a prefix of names.
        Default: what fits the architecture, and a warning where that is not the only choice.
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
    ...         state = {"module.fc1.weight": torch.full((5, 4), i), "module.fc2.weight": torch.ones(2, 5)}
    ...         torch.save(state, pathlib.Path(folder, f"net_{i}.pt"))
    ...     print(load_networks(folder, activation="relu"))
    3 networks 4-5-2 relu (30 weights) of 3 runs
    """
    check_on_invalid(on_invalid, "load_networks")
    if activation is not None:
        activation_row(activation)
    if isinstance(source, (list, tuple)) and len(source) == 1:
        source = source[0]
    with unpacked(source) as opened:
        zoo = read_zoo(opened)
        if zoo is not None:
            zoo = zoo.of_activation(activation).placed(runs, steps)
        files = _read(opened, fold, key) if zoo is None else _of_zoo(zoo, fold, key)
        architecture = _architecture(files, architecture, activation, module, example_input)
        choices = _chosen(files, architecture)
        names = [
            f"{file.name}[{label}]" if len(choice.networks) > 1 else file.name
            for file, choice in zip(files, choices, strict=True)
            for label in choice.labels
        ]
        rows = rows_of_states([state for choice in choices for state in choice.networks], architecture, names)
    provenance = provenance_of(files, choices, names, fold)
    if zoo is not None:
        if several := next((pair for pair in zip(files, choices, strict=True) if len(pair[1].networks) > 1), None):
            raise InvalidInputError(
                f"{several[0].name}: there are {len(several[1].networks)} networks in this file, and the tables of "
                "the zoo know one of each file. Choose one with key= (--key)."
            )
        runs, steps = zoo.runs, zoo.steps
        if isinstance(zoo.networks, Matrix):
            rows = zoo.networks.rows(rows[0])
            names = [f"{names[0]}[{i}]" for i in range(len(rows))]
        provenance |= zoo.provenance()
    ours = _runs(choices)
    if runs is None:
        for warning in leaks(names, rows, ours):
            warnings.warn(warning, stacklevel=2)
    weights = WeightArray(
        rows, architecture, runs=ours if runs is None else runs, steps=_steps(choices) if steps is None else steps
    )
    return Population(check_finite(weights, on_invalid, names=names), task, provenance)


def _of_zoo(zoo: Zoo, fold: bool, key: str | None) -> list[File]:
    """Return the files of a zoo; of one in a matrix, a network whose weights are the numbers of its columns."""
    if isinstance(zoo.networks, Matrix):
        checkpoint = Checkpoint(dict(zoo.networks.columns), what="matrix of weights")
        return [file_of(str(zoo.networks.path), checkpoint, fold, key)]
    return [file_of(str(path), read_file(path), fold, key) for path in zoo.networks]


def _named(name: str, function: Any, *arguments: Any) -> Any:
    """Call a function, and name the file in its error."""
    try:
        return function(*arguments)
    except InvalidInputError as error:
        raise InvalidInputError(f"{name}: {error}") from error


def _read(source: Any, fold: bool, key: str | None) -> list[File]:
    sources = [source] if isinstance(source, (str, Path)) or is_perceptron(source) else source
    if not isinstance(sources, Iterable) or isinstance(sources, Mapping):
        raise InvalidInputError(
            f"Networks are loaded from paths or fitted perceptrons of scikit-learn, got a {type(source).__name__}. "
            "Modules and state dicts go to WeightArray.from_modules and from_state_dicts."
        )
    sources = list(sources)
    if sources and all(is_perceptron(value) for value in sources):
        contents = [(f"estimator {i}", value) for i, value in enumerate(sources)]
        return [file_of(name, _named(name, read_perceptron, value), fold, key) for name, value in contents]
    other = next((value for value in sources if not isinstance(value, (str, Path))), None)
    if other is not None:
        raise InvalidInputError(
            f"A list of networks is of paths, or of fitted perceptrons, got a {type(other).__name__}."
        )
    return [file_of(str(path), read_file(path), fold, key) for path in network_files(sources, FORMATS)]


def _chosen(files: list[File], architecture: Architecture) -> list[Choice]:
    """Return the networks in each file that are of the architecture, or refuse files without one."""
    choices: list[Choice] = []
    problems: list[str] = []
    for file in files:
        content = file.content
        with intact(Path(file.name), content.what, "Restore it from a copy."):
            choice = _named(file.name, choose, file.leaves, architecture, content.ordered, content.channels_last)
        if choice is None and (foreign := foreign_weights(file.leaves)):
            raise InvalidInputError(f"{file.name}: {foreign}")
        if choice is None:
            problems += misfits_of(file, architecture)
        else:
            choices.append(choice)
            if choice.warning():
                warnings.warn(f"{file.name}: {choice.warning()}.", stacklevel=3)
    if problems:
        raise misfit_error(problems)
    return choices


def _runs(choices: list[Choice]) -> np.ndarray:
    """Return the run of each network: each file has its own, or its networks do."""
    runs: list[int] = []
    for choice in choices:
        start, n = (runs[-1] + 1 if runs else 0), len(choice.networks)
        runs += [start] * n if choice.one_run else range(start, start + n)
    return np.array(runs)


def _steps(choices: list[Choice]) -> list[int] | None:
    """Return the step of each network, if a file says some."""
    if all(choice.steps is None for choice in choices):
        return None
    return [step for choice in choices for step in choice.steps or [0] * len(choice.networks)]


def _architecture(
    files: list[File],
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
    first = files[0]
    if first.content.architecture is not None:
        _check_architectures(files, first.content.architecture)
        return first.content.architecture if module is None else replace(first.content.architecture, module=module)
    if activation is None:
        raise InvalidInputError(
            f"{first.name}: a state dict does not say what lies between its layers. For a plain MLP or CNN pass "
            "activation='relu' (or another), for anything else module= (what it belongs to) or architecture=."
        )
    if foreign := foreign_weights(first.leaves):
        raise InvalidInputError(f"{first.name}: {foreign}")
    if module is None:
        return _named(first.name, infer, first.leaves, activation, first.content.ordered)
    inferred = replace(_of_module(first.name, module, activation), module=module)
    if example_input is not None:
        _check_symmetries(first.name, inferred, example_input)
    return inferred


def _of_module(name: str, module: Any, activation: str) -> Architecture:
    try:
        return Architecture.from_state_dict(module.state_dict(), activation)
    except ValueError as error:
        raise InvalidInputError(f"{name}: {error}") from error


def _check_symmetries(name: str, architecture: Architecture, example_input: Any) -> None:
    deviation = architecture.certify(architecture.module, example_input)
    if not deviation < TOLERANCE:
        raise InvalidInputError(
            f"{name}: the module is no plain MLP or CNN with this activation: what would be its symmetries change its "
            f"outputs by {deviation:.1e} of the largest. Pass module= and example_input= without activation=."
        )


def _check_architectures(files: list[File], expected: Architecture) -> None:
    """Refuse files with another architecture than the first, even if the tensors fit."""
    for file in files:
        if file.content.architecture is not None and file.content.architecture != expected:
            raise InvalidInputError(
                f"These networks do not have one architecture: {files[0].name} is {expected}, but {file.name} is "
                f"{file.content.architecture}. Pass networks of one architecture, or say it with architecture=."
                f"{difference(expected, file.content.architecture)}"
            )
