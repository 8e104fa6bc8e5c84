"""Whether a task is one of the networks of an architecture: their inputs and outputs are compared where they meet."""

from __future__ import annotations

import warnings

import numpy as np

from wsflow.architecture import Architecture
from wsflow.architecture.sequential import LINEAR
from wsflow.exceptions import InvalidInputError
from wsflow.task import Task

SHOWN = 5  # labels of a task
REMEDY = "Pass the task that they were trained for."


def check_task(architecture: Architecture, task: Task) -> int | None:
    """Refuse a task whose inputs or outputs are not those of the networks; return the number of their outputs.

    A class without an example is no error, since the data may be a part of all there are: see `warn_of_classes`; labels
    that are not 0, 1, ... have to be all of them, or nobody knows which output is whose. An
    architecture that does not say how to run its networks passes, with None: nothing is known of its inputs.
    """
    check_is_task(task)
    linear = [layer for layer in architecture.layers if layer.kind == LINEAR]
    if linear:
        own, outputs = f"{linear[0].inputs} inputs and {linear[-1].outputs} outputs", linear[-1].outputs
        fits, remedy = task.X.shape[1:] == (linear[0].inputs,), REMEDY
        if not fits and task.n_inputs == linear[0].inputs:
            remedy = "Flatten its inputs: Task(X.reshape(len(X), -1), y)."
    elif architecture.is_runnable:
        outputs = _outputs_of_module(architecture, task)
        own, fits, remedy = f"{outputs} outputs", True, REMEDY
    else:
        return None
    if fits and task.criterion.targets == "classes" and outputs > task.n_outputs:
        remedy = "Name all classes of the networks, in the order of their outputs, by Task(classes=...)."
    if not task.takes(outputs) or not fits:
        inputs = f"{task.n_inputs} inputs" if task.X.ndim == 2 else f"inputs of shape {task.X.shape[1:]}"
        raise InvalidInputError(
            f"The networks are {architecture}, with {own}, but the task has {inputs} and {_targets(task)}. {remedy}"
        )
    return outputs


def check_is_task(task: object) -> None:
    """Refuse what is no Task, and say how to make one."""
    if not isinstance(task, Task):
        raise InvalidInputError(
            f"A task is a wsflow.Task, got {type(task).__name__}. Pass Task(X, y), or wsflow.load_task(name)."
        )


def warn_of_classes(architecture: Architecture, task: Task) -> None:
    """Check a task, and warn of outputs without an example of their class, by which it may be another task.

    It is for the functions that users call; those that they call only check.
    """
    outputs = check_task(architecture, task)
    if outputs is not None and task.criterion.targets == "classes" and outputs > task.n_outputs:
        warnings.warn(
            f"The networks are {architecture}, with {outputs} outputs, but the task has examples of "
            f"{_targets(task)} only. If it is another task, pass the one that they were trained for.",
            UserWarning,
            stacklevel=3,
        )


def _outputs_of_module(architecture: Architecture, task: Task) -> int:
    """The number of outputs of a module, which is run on one example of the task."""
    import torch

    from wsflow.running.execution import forward

    example = task.X[:1]
    inputs = torch.from_numpy(np.asarray(example, dtype=np.float32 if example.dtype.kind == "f" else np.int64))
    zeros = torch.zeros(1, architecture.n_weights, dtype=torch.float32)
    try:
        with torch.no_grad():
            outputs = forward(zeros, architecture, inputs)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        first = architecture.parameters[0]
        raise InvalidInputError(
            f"The networks, whose first parameter is {first.name!r} of shape {first.shape}, do not take the inputs of "
            f"the task, which have the shape {example.shape[1:]} and the type {example.dtype}: "
            f"{str(error).splitlines()[0]} {REMEDY}"
        ) from error
    return int(outputs.shape[-1])


def _targets(task: Task) -> str:
    if task.criterion.targets != "classes":
        return f"{task.n_outputs} outputs"
    named = np.array_equal(task.classes_, np.arange(task.n_outputs))
    known = "" if named else f" ({', '.join(map(repr, task.classes_[:SHOWN].tolist()))})"
    return f"{task.n_outputs} classes{known}"
