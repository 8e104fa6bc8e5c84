"""Run n networks and see, or change, what their linear layers and convolutions do, in the order of execution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.architecture.program import Operation, ParameterValue, operands
from wsflow.running.affine import Affine, affine_of
from wsflow.running.outputs import output_of
from wsflow.running.rows import unflatten
from wsflow.running.runner import Run
from wsflow.running.sequential import program_of
from wsflow.running.steps import Own, is_own, value

# from weights (n, ...) and biases to the outputs (n, b, ...) of a use
Compute = Callable[[Tensor, Tensor | None], Tensor]
# from the number of a use, the use, its inputs (n, b, ...) or (1, b, ...), its weights (n, ...) and biases and what
# computes it, to its outputs
Visit = Callable[[int, Affine, Tensor, Tensor, Tensor | None, Compute], Tensor]


@dataclass(frozen=True)
class Use:
    """A use of a layer, the numbers that it puts out for an example, and whether all networks have the same inputs."""

    affine: Affine
    numbers: int
    given: bool


class AffineLayers:
    """The linear layers and convolutions of the networks of an architecture, found in its program.

    `uses` has them in the order of execution on an example of inputs (b, ...), and `elsewhere` the parameters that
    other operations use.
    """

    def __init__(self, architecture: Architecture, example: Tensor) -> None:
        program = program_of(architecture)
        if program is None:
            raise ValueError(
                "What these networks compute could not be kept as a program, so their layers are not known. Read them "
                "from a module whose operations wsflow knows."
            )
        self.architecture, self.program = architecture, program
        found = {operation.name: affine_of(operation) for operation in program.operations}
        self._affine = {name: affine for name, affine in found.items() if affine is not None}
        own = {(name, affine.weight) for name, affine in self._affine.items()}
        own |= {(name, affine.bias) for name, affine in self._affine.items() if affine.bias}
        used = [(o.name, x) for o in program.operations for x in operands(o.operands) if isinstance(x, ParameterValue)]
        self.elsewhere = frozenset(x.name for operation, x in used if (operation, x.name) not in own)
        uses: list[Use] = []

        def see(i: int, affine: Affine, x: Tensor, weight: Tensor, bias: Tensor | None, compute: Compute) -> Tensor:
            outputs = compute(weight, bias)
            # two networks tell what is one's own from what is given
            uses.append(Use(affine, outputs[0].numel() // len(example), len(x) == 1))
            return outputs

        with torch.no_grad():
            self.run(torch.zeros(2, architecture.n_weights, dtype=torch.float32), example, see)
        self.uses = tuple(uses)

    def run(self, weights: Tensor, inputs: Tensor, visit: Visit) -> Tensor:
        """Return the outputs (n, b, k) of networks (n, d), with `visit` in the place of each use."""
        run = _VisitedRun(self.program, unflatten(weights, self.architecture), affine=self._affine, visit=visit)
        outputs: Tensor = output_of(run.together(inputs))
        return outputs


@dataclass
class _VisitedRun(Run):
    """A run in which linear layers and convolutions are visited."""

    affine: dict[str, Affine] = field(default_factory=dict)
    visit: Visit | None = None
    count: int = 0

    def _computed(self, operation: Operation, arguments: list[Any]) -> Any:
        affine = self.affine.get(operation.name)
        if affine is None or self.visit is None:
            return super()._computed(operation, arguments)
        x, weight, *rest = arguments
        bias = rest[0] if affine.bias else None

        def compute(weight: Tensor, bias: Tensor | None) -> Tensor:
            given = [Own(weight), None if bias is None else Own(bias), *rest[1:]] if rest else [Own(weight)]
            result: Tensor = super(_VisitedRun, self)._computed(operation, [x, *given]).value
            return result

        inputs = x.value if is_own(x) else value(x).unsqueeze(0)
        self.count += 1
        return Own(self.visit(self.count - 1, affine, inputs, weight.value, bias and bias.value, compute))
