"""The methods of alignment, in one table: parameter objects that match networks to a reference."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.options import Options, between, one_of, whole
from wsflow.progress import Progress
from wsflow.running import tensors_of
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical import Form
from wsflow.symmetry.canonical.phases import with_whole_periods
from wsflow.symmetry.matching.activation import STATISTICS, activation_matching
from wsflow.symmetry.matching.chain import best_chain
from wsflow.symmetry.matching.sinkhorn import LOSSES, sinkhorn_matching
from wsflow.symmetry.matching.sinkhorn_operator import DIFFERENTIATIONS
from wsflow.symmetry.matching.straight_through import straight_through_matching
from wsflow.symmetry.matching.weight import ascend, orbit_matching
from wsflow.task import Task

AUTO = "auto"


@dataclass(frozen=True, eq=False)
class Context:
    """A task, the seed of the generator that a method gets, the same one at every call, and what to call on the way."""

    task: Task | None = None
    seed: int = 0
    progress: Progress | None = None

    def generator(self) -> torch.Generator:
        """Return a new generator."""
        return torch.Generator().manual_seed(self.seed)

    def data(self) -> tuple[Tensor, Tensor, Any, Tensor | None]:
        """Return the inputs, targets and loss of the task, and the weights of its examples."""
        if self.task is None:
            raise ValueError("This method compares networks on data. Pass task=Task(X, y).")
        inputs, targets, weights = tensors_of(self.task)
        return inputs, targets, self.task.loss, weights


class Method(Options):
    """A way to match networks to a reference.

    `form` is that of the scale-free representatives which it compares, if no other is wanted. Balanced ones have the
    smallest sum of squares, as trained networks nearly have: half-way between two of them, losses mean most.
    """

    form: ClassVar[Form] = "balanced"
    needs_task: ClassVar[bool] = True
    draws: ClassVar[bool] = True

    @abstractmethod
    def match(
        self, rows: Tensor, reference: Tensor, architecture: Architecture, context: Context
    ) -> tuple[Action, Tensor | None]:
        """Return the action for representatives (n, d), and the passes (n,) of weight matching, if it counts them."""


class MethodOnData(Method):
    """A method that starts from weight matching.

    What it finds then does not depend on the order in which neurons came, and dead neurons, whose activations do not
    tell them apart, stay where their weights put them.
    """

    def match(
        self, rows: Tensor, reference: Tensor, architecture: Architecture, context: Context
    ) -> tuple[Action, None]:
        """Return the action for representatives (n, d)."""
        start = orbit_matching(rows, reference, architecture)
        return self._refine(start(rows), reference, architecture, context) @ start, None

    @abstractmethod
    def _refine(self, rows: Tensor, reference: Tensor, architecture: Architecture, context: Context) -> Action:
        """Return the action for rows (n, d) after weight matching."""


@dataclass
class WeightMatching(Method):
    """Match weights, one neuron group after the other, until nothing changes (Ainsworth et al. 2023).

    Parameters
    ----------
    max_sweeps : int
        Passes over all groups, at most.
    """

    max_sweeps: int = 50

    form: ClassVar[Form] = "unit"
    needs_task: ClassVar[bool] = False
    draws: ClassVar[bool] = False
    CONSTRAINTS: ClassVar[Mapping[str, Any]] = {"max_sweeps": whole(0)}

    def match(
        self,
        rows: Tensor,
        reference: Tensor,
        architecture: Architecture,
        context: Context,
        scaling: Action | None = None,
    ) -> tuple[Action, Tensor]:
        """Return the action for networks (n, d), which are compared after a scaling, and the passes (n,)."""
        ascent = ascend(rows, reference, architecture, self.max_sweeps, scaling)
        moved = rows if scaling is None else scaling(rows)
        return with_whole_periods(ascent.action(), moved, reference), ascent.passes


@dataclass
class ActivationMatching(MethodOnData):
    """Match activations on the task's inputs (Li et al. 2016).

    Parameters
    ----------
    statistic : {"correlation", "covariance"}
        The similarity of two neurons.
    """

    statistic: str = "correlation"

    CONSTRAINTS: ClassVar[Mapping[str, Any]] = {"statistic": one_of(*STATISTICS)}

    def _refine(self, rows: Tensor, reference: Tensor, architecture: Architecture, context: Context) -> Action:
        return activation_matching(rows, reference, architecture, context.data()[0], **self.get_params())


@dataclass
class SinkhornMatching(MethodOnData):
    """Descend on relaxed permutations (Pena et al. 2023).

    Parameters
    ----------
    loss : {"auto", "midpoint", "random", "l2"}
        The task's loss half-way to the reference or at a random point between, or the squared distance to it. "auto" is
        "midpoint" where there is a task, and else "l2".
    differentiation : {"implicit", "unrolled"}
        How gradients pass the Sinkhorn operator.
    steps, learning_rate, batch_size : int, float, int
        Of the descent, each step on one batch of examples.
    temperatures : tuple of two float
        Of the Sinkhorn operator, at the first and at the last step.
    iterations : int
        Of the Sinkhorn operator in each step.
    tolerance : float
        The descent ends early where no loss half-way exceeds the mean loss of both ends by more than this share of the
        loss of a constant prediction.
    """

    loss: str = "auto"
    differentiation: str = "implicit"
    steps: int = 150
    learning_rate: float = 0.02
    temperatures: tuple[float, float] = (0.2, 0.02)
    iterations: int = 5
    batch_size: int = 256
    tolerance: float = 0.0

    needs_task: ClassVar[bool] = False
    CONSTRAINTS: ClassVar[Mapping[str, Any]] = {
        "loss": one_of(AUTO, *LOSSES),
        "differentiation": one_of(*DIFFERENTIATIONS),
        "steps": whole(0),
        "learning_rate": between(0, None),
        "iterations": whole(1),
        "batch_size": whole(1),
        "tolerance": between(0, None),
    }

    def check(self) -> None:
        """As `Options.check`; the temperatures are two positive numbers."""
        super().check()
        values: Any = self.temperatures
        if (
            not isinstance(values, Sequence)
            or len(values) != 2
            or not all(isinstance(t, int | float) and t > 0 for t in values)
        ):
            raise ValueError(f"The 'temperatures' of SinkhornMatching are two positive numbers, got {values!r:.60}.")

    def _refine(self, rows: Tensor, reference: Tensor, architecture: Architecture, context: Context) -> Action:
        params, data = self.get_params(), None if context.task is None else context.data()
        if self.loss == AUTO:
            params["loss"] = "l2" if data is None else "midpoint"
        return sinkhorn_matching(
            rows, reference, architecture, data, generator=context.generator(), progress=context.progress, **params
        )


@dataclass
class StraightThroughMatching(MethodOnData):
    """Descend on the loss half-way with gradients that pass the rounding to permutations (Ainsworth et al. 2023).

    Parameters
    ----------
    steps, learning_rate, batch_size : int, float, int
        Of the descent, each step on one batch of examples.
    max_sweeps : int
        Passes of weight matching in each step, at most.
    """

    steps: int = 100
    learning_rate: float = 0.05
    batch_size: int = 256
    max_sweeps: int = 5

    CONSTRAINTS: ClassVar[Mapping[str, Any]] = {
        "steps": whole(0),
        "learning_rate": between(0, None),
        "batch_size": whole(1),
        "max_sweeps": whole(0),
    }

    def _refine(self, rows: Tensor, reference: Tensor, architecture: Architecture, context: Context) -> Action:
        inputs, targets, loss, weights = context.data()
        return straight_through_matching(
            rows, reference, architecture, inputs, targets, loss,
            sample_weight=weights, generator=context.generator(), progress=context.progress, **self.get_params(),
        )  # fmt: skip


@dataclass
class ChainMatching(MethodOnData):
    """Try one method after the other, and keep the permutations with the smallest loss half-way.

    Parameters
    ----------
    steps : int
        Of `SinkhornMatching`, the last method.
    tolerance : float
        The last method is tried for networks whose loss half-way exceeds the mean loss of both ends by more than this
        share of the loss of a constant prediction.
    """

    steps: int = 150
    tolerance: float = 1e-3

    CONSTRAINTS: ClassVar[Mapping[str, Any]] = {"steps": whole(0), "tolerance": between(0, None)}

    def _refine(self, rows: Tensor, reference: Tensor, architecture: Architecture, context: Context) -> Action:
        inputs, targets, loss, weights = context.data()
        return best_chain(
            rows, reference, architecture, inputs, targets, loss,
            sample_weight=weights, generator=context.generator(), progress=context.progress, **self.get_params(),
        )  # fmt: skip


METHODS: dict[str, type[Method]] = {
    "weight": WeightMatching,
    "activation": ActivationMatching,
    "sinkhorn": SinkhornMatching,
    "straight-through": StraightThroughMatching,
    "chain": ChainMatching,
}


def method_of(method: str | Method, task: Task | None) -> Method:
    """Return the method of a name, with its parameters checked; "auto" is the best one that the data allow.

    Raises
    ------
    ValueError
        If the method needs a task and there is none.
    """
    if isinstance(method, str):
        method = METHODS[("weight" if task is None else "chain") if method == AUTO else method]()
    method.check()
    if method.needs_task and task is None:
        name = next(name for name, kind in METHODS.items() if isinstance(method, kind))
        raise ValueError(
            f"The 'method' {name!r} of PermutationAligner compares networks on data: it needs task=Task(X, y). "
            "Without data, choose method='weight'."
        )
    return method
