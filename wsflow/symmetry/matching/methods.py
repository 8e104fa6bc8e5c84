"""The methods of alignment, in one table: what each of them is, and what it needs.

Every method takes scale-free networks and a reference, and returns one group element for each network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from wsflow.architecture import Architecture
from wsflow.task import Task

if TYPE_CHECKING:
    from torch import Tensor

    from wsflow.symmetry.actions import Action
    from wsflow.symmetry.canonical.unit import Form


@dataclass(frozen=True)
class Setting:
    """What methods may want to know besides the networks.

    Parameters
    ----------
    task : Task or None
    max_sweeps : int
        Of weight matching.
    seed : int
        Of the generator that a method gets, the same one at every call.
    options : mapping
        Further keywords of the method's function.
    scaling : Action, optional
        What makes the networks scale-free, for a method that does so itself.
    """

    task: Task | None = None
    max_sweeps: int = 50
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    scaling: Action | None = None

    def generator(self) -> Any:
        """A new generator with the seed.

        Returns
        -------
        torch.Generator
        """
        import torch

        return torch.Generator().manual_seed(self.seed)

    def tensors(self) -> tuple[Tensor, Tensor, str]:
        """Inputs, targets and the loss of the task.

        Returns
        -------
        inputs, targets : Tensor
        loss : str
        """
        import torch

        if self.task is None:
            raise ValueError("This way to align compares networks on data. Pass task=Task(X, y).")
        inputs, targets = (torch.from_numpy(np.array(values)) for values in (self.task.X, self.task.y))
        return inputs, targets, self.task.loss


Match = Callable[["Tensor", "Tensor", Architecture, Setting], "tuple[Action, Tensor | None]"]


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Parameters
    ----------
    match : callable
        From networks (n, d), a reference (d,), the architecture and the setting to the action, and the passes that
        each network took where the method counts them.
    form : {"unit", "balanced"}
        In which scale-free representatives it compares networks, if no other is wanted. Balanced ones have the smallest
        sum of squares, as trained networks nearly have: half-way between two of them, losses mean most.
    needs_task : bool
    draws : bool
        Whether it may draw random numbers.
    scales : bool
        Whether it takes networks as they are, with the setting's scaling, and compares them after it.
    """

    match: Match
    form: Form
    needs_task: bool
    draws: bool = True
    scales: bool = False


def _weight(rows: Tensor, reference: Tensor, architecture: Architecture, setting: Setting) -> Any:
    from wsflow.symmetry.matching.weight import ascend

    ascent = ascend(rows, reference, architecture, setting.max_sweeps, setting.scaling, **setting.options)
    return ascent.action(), ascent.passes


def _activation(rows: Tensor, reference: Tensor, architecture: Architecture, setting: Setting) -> Any:
    from wsflow.symmetry.matching.activation import activation_matching

    # dead neurons, whose activations do not tell them apart, stay where their weights say
    start, rows = _ordered(rows, reference, architecture, setting)
    return activation_matching(rows, reference, architecture, setting.tensors()[0], **setting.options) @ start, None


def _sinkhorn(rows: Tensor, reference: Tensor, architecture: Architecture, setting: Setting) -> Any:
    from wsflow.symmetry.matching.sinkhorn import sinkhorn_matching

    task = setting.tensors() if setting.task is not None else None
    loss = {"loss": "midpoint" if task else "l2"}
    keywords = {"generator": setting.generator(), **loss, **setting.options}
    start, rows = _ordered(rows, reference, architecture, setting)
    return sinkhorn_matching(rows, reference, architecture, task, **keywords) @ start, None


def _straight_through(rows: Tensor, reference: Tensor, architecture: Architecture, setting: Setting) -> Any:
    from wsflow.symmetry.matching.straight_through import straight_through_matching

    keywords = {"generator": setting.generator(), **setting.options}
    start, rows = _ordered(rows, reference, architecture, setting)
    return straight_through_matching(rows, reference, architecture, *setting.tensors(), **keywords) @ start, None


def _chain(rows: Tensor, reference: Tensor, architecture: Architecture, setting: Setting) -> Any:
    from wsflow.symmetry.matching.chain import best_chain

    keywords = {"generator": setting.generator(), **setting.options}
    start, rows = _ordered(rows, reference, architecture, setting)
    return best_chain(rows, reference, architecture, *setting.tensors(), **keywords) @ start, None


def _ordered(rows: Tensor, reference: Tensor, architecture: Architecture, setting: Setting) -> tuple[Action, Tensor]:
    """Rows after weight matching, from where a descent does not depend on the order in which their neurons came."""
    from wsflow.symmetry.matching.weight import orbit_matching

    start = orbit_matching(rows, reference, architecture, setting.max_sweeps)
    return start, start(rows)


METHODS: dict[str, Method] = {
    "weight": Method(_weight, "unit", False, draws=False, scales=True),
    "activation": Method(_activation, "balanced", True),
    "sinkhorn": Method(_sinkhorn, "balanced", False),
    "straight-through": Method(_straight_through, "balanced", True),
    "chain": Method(_chain, "balanced", True),
}
AUTO = "auto"
CHOICES = (AUTO, *METHODS)


def method_of(name: str, task: Task | None) -> Method:
    """The method of a name; ``"auto"`` is the best one that the data allow.

    Parameters
    ----------
    name : str
        A key of `METHODS`, or ``"auto"``.
    task : Task or None

    Returns
    -------
    Method

    Raises
    ------
    ValueError
        If the method needs a task and there is none.

    Examples
    --------
    >>> from wsflow.symmetry.matching.methods import METHODS, method_of
    >>> method_of("auto", None) is METHODS["weight"]
    True
    """
    if name == AUTO:
        name = "weight" if task is None else "chain"
    if METHODS[name].needs_task and task is None:
        raise ValueError(
            f"The 'method' {name!r} of PermutationAligner compares networks on data: it needs task=Task(X, y). "
            "Without data, choose method='weight'."
        )
    return METHODS[name]
