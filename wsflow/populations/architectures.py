"""What train_population trains: perceptrons by their widths, a named architecture, an architecture, or a module."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from wsflow.architecture import Architecture
from wsflow.architecture.state_rows import rows_of_states
from wsflow.exceptions import InvalidInputError
from wsflow.populations.named_architectures import NAMED_ARCHITECTURES, build_architecture, parse_architecture
from wsflow.populations.settings import DEFAULT_HIDDEN, OF_MODULE, architecture_of
from wsflow.running import train_forward
from wsflow.running.compatibility import check_task
from wsflow.running.example_inputs import declared_input
from wsflow.task import Task

EXAMPLES = 3


@dataclass(frozen=True)
class Networks:
    """An architecture, how its networks begin by default, and what builds modules of it; and how it was given.

    `module` is the one that was read, if any.
    """

    architecture: Architecture
    initialisation: str
    build: Callable[[], nn.Module] | None = None
    hidden: tuple[int, ...] | None = None
    name: str | None = None
    activation: str | None = None
    module: nn.Module | None = None

    def initial(self, seeds: Sequence[int]) -> np.ndarray:
        """Return the weights (n, d) of modules that are built with the seeds."""
        if self.build is None:
            raise ValueError(
                f"The initialisation {OF_MODULE!r} takes first weights of a module: pass module=, "
                "or choose another one."
            )
        return rows_of_states([seeded_module(self.build, seed).state_dict() for seed in seeds], self.architecture)


def networks_of(
    task: Task,
    hidden: Sequence[int] | None,
    architecture: Architecture | str | None,
    module: Any,
    activation: str | None,
    argument: float | None,
    image: Sequence[int] | None,
) -> Networks:
    """Return the networks that are to be trained for a task, which takes their outputs."""
    given = {"hidden": hidden, "architecture": architecture, "module": module}
    if len(several := [name for name, value in given.items() if value is not None]) > 1:
        raise ValueError(
            "Networks to train are given by one of 'hidden', 'architecture' and 'module', got "
            f"{' and '.join(map(repr, several))}. Leave out all but one."
        )
    if activation is not None and not isinstance(activation, str):
        raise ValueError(
            f"Networks of a population have one 'activation', got {activation!r}. Train one population for each."
        )
    named = isinstance(architecture, str)
    _check_details({"activation": activation, "activation_argument": argument, "image": image}, given, named)
    if module is not None:
        networks = _of_module(task, module)
    elif isinstance(architecture, str):
        networks = _of_name(task, architecture, activation, image)
    elif architecture is not None:
        networks = Networks(_checked(architecture), "torch")
    else:
        widths, activation = DEFAULT_HIDDEN if hidden is None else tuple(hidden), activation or "relu"
        perceptron = architecture_of(task, widths, activation, argument)
        return Networks(perceptron, "normal", hidden=widths, activation=activation)
    _check_outputs(networks.architecture, task)
    return networks


def _check_details(details: dict[str, Any], given: dict[str, Any], named: bool) -> None:
    """Refuse what belongs to another way of saying what is trained."""
    own = {"activation"} | ({"image"} if named else {"activation_argument"})
    takes = own if named or (given["architecture"] is None and given["module"] is None) else set()
    if wrong := [name for name, value in details.items() if value is not None and name not in takes]:
        what = "module" if given["module"] is not None else "architecture" if given["architecture"] else "hidden"
        raise ValueError(
            f"The {wrong[0]!r} of train_population does not go with {what!r}, which says all: leave it out."
        )


def _of_name(task: Task, name: str, activation: str | None, image: Sequence[int] | None) -> Networks:
    row = NAMED_ARCHITECTURES[parse_architecture(name)[0]]
    with _seeded(0):
        built = build_architecture(name, task, activation, image)
    module = built if isinstance(built, nn.Module) else None
    if module is not None:
        # its program runs it
        built = replace(_read(module, task), module=None)
    return Networks(built, row.initialisation, name=name, activation=activation or row.activation, module=module)


def _of_module(task: Task, module: Any) -> Networks:
    """Return the networks of a module, or of a function that builds one, which is called twice."""
    if isinstance(module, nn.Module):
        return Networks(_read(module, task), "torch", lambda: module, module=module)
    if not callable(module):
        raise ValueError(
            f"The 'module' of train_population is a torch module, or a function without arguments that builds one, got "
            f"{type(module).__name__}."
        )
    first, second = seeded_module(module, 0), seeded_module(module, 1)
    shapes = [{name: tuple(x.shape) for name, x in m.state_dict().items()} for m in (first, second)]
    if shapes[0] != shapes[1]:
        names = [name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name)]
        found = " and ".join(str(shape.get(names[0], "none")) for shape in shapes)
        raise InvalidInputError(
            f"The networks of a population have one architecture, but two calls of 'module' build {names[0]!r} of "
            f"shapes {found}. Let it build the same layers every time."
        )
    return Networks(_read(first, task), OF_MODULE, module, module=first)


def _read(module: nn.Module, task: Task) -> Architecture:
    """Read a module on the first inputs of a task."""
    return Architecture.from_module(module, first_inputs(task))


def seeded_module(build: Callable[[], Any], seed: int) -> nn.Module:
    """Return the module that a function builds when all global generators have a seed; they are put back."""
    try:
        with _seeded(seed):
            module = build()
    except Exception as error:
        raise ValueError(
            f"The 'module' of train_population cannot be called without arguments: {type(error).__name__}: {error}."
        ) from error
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"The 'module' of train_population builds a {type(module).__name__}, expected a torch.nn.Module."
        )
    return module


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    known, own = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        try:
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
        finally:
            np.random.set_state(known)
            random.setstate(own)


def _checked(architecture: Any) -> Architecture:
    if not isinstance(architecture, Architecture):
        raise InvalidInputError(
            f"The 'architecture' of train_population is an Architecture, or a name such as 'cnn:16,16,16', got "
            f"{type(architecture).__name__}. A module is passed as module=."
        )
    if not architecture.is_runnable:
        raise InvalidInputError(
            f"The architecture {architecture} does not say how to run its networks. Read it from a module with "
            "an example input, or pass module=."
        )
    return architecture


def _check_outputs(architecture: Architecture, task: Task) -> None:
    """Refuse networks whose outputs are not a row of numbers for each example, as many as the loss takes."""
    task = as_read(task, architecture)
    check_task(architecture, task)
    zeros = torch.zeros(1, architecture.n_weights, dtype=torch.float32)
    with torch.no_grad():
        outputs, _ = train_forward(zeros, architecture, first_inputs(task), torch.Generator())
    shape = tuple(outputs.shape[1:]) if isinstance(outputs, torch.Tensor) else ()
    n = min(len(task.X), EXAMPLES)
    if len(shape) != 2 or shape[0] != n:
        raise InvalidInputError(
            f"The networks put out {shape or type(outputs).__name__} for {n} examples, and a loss takes ({n}, outputs)."
            " Let the module return one row of outputs for each example."
        )


def first_inputs(task: Task) -> torch.Tensor:
    """Return a few inputs of a task."""
    X = np.array(task.X[:EXAMPLES])
    return torch.from_numpy(X.astype(np.float32) if X.dtype.kind == "f" else X)


def as_read(task: Task, architecture: Architecture) -> Task:
    """Return the task as networks read it: with images as rows of pixels where they read rows."""
    known = declared_input(architecture)
    return task if known is None or len(known.shape) != 2 else flat(task)


def flat(task: Task) -> Task:
    """Return the same task with images as rows of pixels, which is what perceptrons read."""
    if task.X.ndim == 2:
        return task
    parts = (("validation", task.validation), ("test", task.test))
    held_out: dict[str, Any] = {name: part and flat(part) for name, part in parts}
    return replace(task, X=task.X.reshape(len(task.X), -1), **held_out)
