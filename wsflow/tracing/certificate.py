"""The certificate: random weights, random group elements, and the largest change of an output.

Parameters and statistics are drawn at random, because a network at its initialisation hides mistakes: a fresh batch
norm does not notice a forgotten permutation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from wsflow.architecture import Architecture
from wsflow.architecture.readable import unwrapped
from wsflow.architecture.restriction import restricted
from wsflow.architecture.spaces import groups_of
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.representation import in_a_line
from wsflow.running import forward, unflatten
from wsflow.running.example_inputs import example_inputs
from wsflow.running.execution import restored
from wsflow.running.metrics import deviation
from wsflow.running.outputs import ChosenOutput
from wsflow.symmetry.actions import Action
from wsflow.symmetry.in_place import apply_in_place
from wsflow.tracing.deterministic import deterministic
from wsflow.tracing.own_buffers import is_positive
from wsflow.tracing.working_copy import check_example, working_copy

TOLERANCE = 1e-10
# of each generator, where some element is wrong: of two neurons, every second permutation is none
TRIALS = 8
# a narrow network may be dead with the weights that are drawn first
ATTEMPTS = 20


@in_a_line
@dataclass(frozen=True)
class Certificate:
    """Hold what a test of symmetries found.

    Parameters
    ----------
    deviation : float
        Largest change of an output, over the largest output, under random elements of the whole group.
    wrong : dict from str to float
        Generators (groups and wires) that change the function by more than the tolerance, with their deviations.
    idle : tuple of str
        Generators that change no weight.
    """

    deviation: float
    wrong: dict[str, float]
    idle: tuple[str, ...] = ()


def certify(
    architecture: Architecture,
    module: nn.Module | None,
    inputs: Any,
    n_trials: int = 3,
    seed: int = 0,
    report: Callable[[], None] = lambda: None,
) -> Certificate:
    """Put the symmetries of an architecture to the test in float64, as `Architecture.certify` does.

    Where the test fails, each group and each wire is tested by itself. `report` is called behind each pass. No more
    than one copy of the networks is in memory, in float64.

    Raises
    ------
    NumericalError
        If random weights give outputs that are not finite, or all zero.
    ValueError
        If there are no inputs for a network that a module runs.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.tracing import certify
    >>> certify(Architecture.mlp([4, 3, 2]), None, torch.randn(5, 4)).deviation < 1e-12
    True
    """
    generator = torch.Generator().manual_seed(seed)
    check = Check(architecture, module, inputs, generator)
    rows, before = check.with_live_outputs(n_trials, generator)
    report()
    action = Action.random(architecture, n_trials, generator)
    apply_in_place(action, rows)
    deviation = check.deviation(before, rows)
    report()
    del rows
    wrong = {}
    for name in _generators(architecture) if not deviation <= TOLERANCE else ():
        changes = []
        for trial in range(TRIALS):
            rows, before = check.with_live_outputs(1, torch.Generator().manual_seed(seed + trial))
            apply_in_place(_single(Action.random(architecture, 1, generator), name), rows)
            changes.append(check.deviation(before, rows))
        if not all(change <= TOLERANCE for change in changes):
            wrong[name] = max(changes)
    return Certificate(deviation, wrong, _idle(architecture))


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def random_weights(architecture: Architecture, n: int, generator: torch.Generator) -> Tensor:
    """Return weights (n, d), in float64, of order one over the root of their number, with positive variances."""
    rows = torch.empty(n, architecture.n_weights, dtype=torch.float64)
    for parameter in architecture.parameters:
        values = rows[:, architecture.slices[parameter.name]]
        for row in values:
            row.normal_(generator=generator)
        if parameter.name.endswith("num_batches_tracked"):
            values.zero_()
        elif parameter.role == "statistic" and is_positive(parameter.name):
            values.exp_()
        elif len(parameter.shape) > 1 and parameter.role == "weight":
            values.div_(max(1, parameter.size // parameter.shape[0]) ** 0.5)
    return rows


class Check:
    """Runs networks of an architecture in float64, before and after a change of their weights.

    They run by a module, or by what else runs them, on inputs of any precision, or random ones.
    """

    def __init__(
        self, architecture: Architecture, module: nn.Module | None, inputs: Any, generator: torch.Generator
    ) -> None:
        inputs = example_inputs(architecture, 16, generator) if inputs is None else inputs
        if inputs is None:
            raise ValueError("A certificate of a network that a module runs needs inputs: pass inputs=.")
        self.architecture = architecture
        self.inputs: tuple[Any, ...] = tree_map(
            lambda x: x.double() if _is_real(x) else x, inputs if type(inputs) is tuple else (inputs,)
        )
        module = module if module is not None else architecture.executable
        self.module = None if module is None else working_copy(unwrapped(module), ChosenOutput())

    def outputs(self, rows: Tensor) -> Tensor:
        """Return all outputs of each network as one row (n, numbers)."""
        with torch.no_grad():
            if self.module is None:
                result: Any = forward(rows, self.architecture, self.inputs[0])
            else:
                result = self._run(self.module, rows)
        leaves = [leaf for leaf in tree_leaves(result) if _is_real(leaf)]
        if not leaves:
            raise InvalidInputError(
                "The module returns no tensor of real numbers: there is no function to compare. Return what it "
                "computes before it counts or compares, such as logits instead of classes."
            )
        return torch.cat([leaf.reshape(len(leaf), -1) for leaf in leaves], 1)

    def _run(self, module: nn.Module, rows: Tensor) -> Any:
        """Run one network after the other, in float64 throughout, with the same draws of random numbers."""
        tensors = unflatten(rows, self.architecture)
        states = [{name: tensor[i] for name, tensor in tensors.items()} for i in range(len(rows))]
        try:
            with restored(module), deterministic():
                results = [torch.func.functional_call(module, state, self.inputs) for state in states]
                return tree_map(lambda *parts: torch.stack(parts) if isinstance(parts[0], Tensor) else None, *results)
        except InvalidInputError:
            raise
        except Exception as error:
            check_example(module, self.inputs, error)
            raise InvalidInputError(
                f"This {type(module).__name__} could not be run with random weights in double precision: "
                f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}. Its forward pass has to "
                "run with any weights, and its outputs to have one shape."
            ) from error

    def with_live_outputs(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return random networks whose outputs are finite and not all zero, and these outputs."""
        found: list[tuple[Tensor, Tensor]] = []
        for _ in range(ATTEMPTS):
            rows = random_weights(self.architecture, n, generator)
            outputs = self.outputs(rows)
            fine = outputs.isfinite().all(1) & (outputs.abs().amax(1) > 0)
            if not found and fine.all():
                return rows, outputs
            found.append((rows[fine], outputs[fine]))
            if sum(len(part) for part, _ in found) >= n:
                return torch.cat([part for part, _ in found])[:n], torch.cat([part for _, part in found])[:n]
        raise NumericalError(
            "With random weights this network's outputs are not finite, or all zero, so nothing can be certified. Try "
            "inputs for which they are not, or freeze the layer that makes them so."
        )

    def deviation(self, before: Tensor, rows: Tensor) -> float:
        """Return the largest change of an output, over the largest output of the network."""
        return float(deviation(before, self.outputs(rows)).max())


def _generators(architecture: Architecture) -> list[str]:
    return [f"group {g.name}" for g in architecture.groups] + [f"wire {w.name}" for w in architecture.wires]


def _single(action: Action, generator: str) -> Action:
    """Return the part of a group element that moves one group, or scales one wire."""
    kind, _, name = generator.partition(" ")
    n = len(action)
    still = Action.identity(action.architecture, n)
    if kind == "wire":
        phases = {name: action.phases[name]} if name in action.phases else {}
        scales = {name: action.scales[name]} if name in action.scales else {}
        return replace(still, scales=scales, phases=phases)
    group = next(g for g in action.architecture.groups if g.name == name)
    chosen = action.permutations[name]
    if group.parent is not None:
        # within the parents, which stay
        chosen = chosen.reshape(n, -1, group.size) % group.size
        chosen = (chosen + group.size * torch.arange(chosen.shape[1]).reshape(1, -1, 1)).flatten(1)
    permutations = {**still.permutations, name: chosen}
    for child in action.architecture.groups:
        if group in groups_of(child)[:-1]:
            permutations.pop(child.name)
    return replace(still, permutations=permutations)


def _idle(architecture: Architecture) -> tuple[str, ...]:
    """Return the generators that occur in no block."""
    blocks = [block for parameter in architecture.parameters for block in parameter.blocks]
    groups = {group.name for block in blocks for space in block.axes for group in groups_of(space) if group.size > 1}
    wires = {wire for block in blocks for wire, _, _ in (*block.wires, *block.shifts)}
    return tuple(
        name
        for name in _generators(architecture)
        if name.partition(" ")[2] not in (groups if name[0] == "g" else wires)
    )


def without(architecture: Architecture, generators: Collection[str]) -> Architecture:
    """Return the architecture without the symmetries of ``"group NAME"`` and ``"wire NAME"`` generators.

    What is nested in a group is left out with it.
    """
    groups, wires = (
        [name for kind, _, name in (generator.partition(" ") for generator in generators) if kind == wanted]
        for wanted in ("group", "wire")
    )
    nested = [g.name for g in architecture.groups if {member.name for member in groups_of(g)} & set(groups)]
    return restricted(architecture, nested, wires)
