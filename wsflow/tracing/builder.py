"""From the solution of a trace to an architecture: blocks, groups and wires with names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wsflow.activations import FLIP, PHASE, SIGN
from wsflow.architecture import ActivationSite, Architecture, Block, Fixed, Parameter, Shear, Wire
from wsflow.architecture.parameters import fixed_parameter
from wsflow.tracing.abstract_tensor import ABSENT, AbstractTensor, NeuronAxis
from wsflow.tracing.neuron_groups import DraftGroup
from wsflow.tracing.segments import Segments, divided, segments_of
from wsflow.tracing.solution import Solution
from wsflow.tracing.trace import Trace


@dataclass
class Builder:
    """Builds an architecture from a trace and its solution.

    `order` has the names of all parameters in the order of the state dict, `layer_outputs` the outputs of submodules.
    """

    trace: Trace
    order: Sequence[str]
    layer_outputs: Mapping[str, AbstractTensor]
    solution: Solution
    # of each free scaling; None where it acts on no parameter
    wires: list[Wire | None] = field(init=False)

    def architecture(self, aliases: Mapping[str, tuple[str, ...]], **fields: Any) -> Architecture:
        """Return the architecture with further fields; `aliases` are other names of parameters."""
        segments = {
            name: [own for part in slices for own in segments_of(self.solution, part, self.trace.parameters[name])]
            for name in self.order
            if (slices := self.trace.slices.get(name)) is not None
        }
        self._name_groups(segments)
        self.wires = self._named_wires()
        parameters = []
        for name in self.order:
            shape = self.trace.parameters[name]
            role = "statistic" if name in self.trace.statistics or name.endswith("num_batches_tracked") else "weight"
            blocks = tuple(self._block(name, own) for own in segments.get(name, ()))
            blocks = blocks or fixed_parameter(name, shape).blocks
            parameters.append(Parameter(name, shape, blocks, role, aliases.get(name, ())))  # type: ignore[arg-type]
        used = {wire for parameter in parameters for block in parameter.blocks for wire, _, _ in block.wires}
        wires = tuple(wire for wire in self.wires if wire is not None and wire.name in used)
        return Architecture(tuple(parameters), wires, activation_sites=self._activation_sites(), **fields)

    def _name_groups(self, segments: Mapping[str, Sequence[Segments]]) -> None:
        """Name groups after the first layer whose parameters they act on."""
        taken: set[str] = set()
        groups = {name: [g for own in blocks for s in own for g in s.groups] for name, blocks in segments.items()}
        parents = {group.parent for own in groups.values() for group in own}
        for name, own in groups.items():
            new = [group for group in own if not group.name]
            new += [group.parent for group in new if group.parent is not None and not group.parent.name]
            new = list(dict.fromkeys(new))
            leaves = [group for group in new if group not in parents]
            base = name.rpartition(".")[0] or name
            kind = "groups" if len(self.trace.parameters[name]) > 2 else "heads"
            for group in new:
                suffix = kind if group in parents else str(leaves.index(group)) if len(leaves) > 1 else ""
                group.name = _unique(f"{base}.{suffix}" if suffix else base, taken)

    def _named_wires(self) -> list[Wire | None]:
        taken: set[str] = set()
        wires: list[Wire | None] = []
        for scaling in self.solution.scalings:
            group = self.solution.unknowns.groups[scaling.unknown]
            kinds = scaling.kinds
            if scaling.unknown in self.solution.phases:
                kinds = frozenset({PHASE})
            elif SIGN in kinds and any(scaling.exponents.get(unknown, 0) % 2 for unknown in self.solution.flipped):
                kinds = kinds - {SIGN} | {FLIP}
            wires.append(Wire(_unique(group.name, taken), group.named, kinds) if group.name else None)
        return wires

    def _block(self, name: str, segments: Segments) -> Block:
        shape = self.trace.parameters[name]
        axes = [axis for segment in segments for axis in segment.axes]
        bounds = tuple(
            (int(s.positions[0]), int(s.positions[0]) + len(s.positions)) if s.contiguous else (0, size)
            for s, size in zip(segments, shape, strict=True)
        )
        whole = bounds == tuple((0, size) for size in shape) and all(segment.contiguous for segment in segments)
        index = tuple(None if s.contiguous else tuple(int(p) for p in s.positions) for s in segments)
        wires = self._exponents(segments, axes)
        return Block(
            tuple(Fixed(axis) if isinstance(axis, int) else axis.named for axis in axes),
            slices=None if whole else bounds,
            wires=wires,
            index=index if any(i is not None for i in index) else None,
            shifts=self._shifts(name, axes),
            shears=self._shears(name, wires),
        )

    def _exponents(self, segments: Segments, axes: Sequence[DraftGroup | int]) -> tuple[tuple[str, int, int], ...]:
        exponents: dict[tuple[str, int], int] = defaultdict(int)
        first = 0
        for segment in segments:
            own = range(first, first + len(segment.axes))
            for scaling, exponent in (entry for scale in segment.scales for entry in scale):
                wire, group = self.wires[scaling], self._group(scaling)
                # in a grouped kernel, inputs that are alone in their group scale with its outputs' axis
                axis = next((i for i in (*own, *range(len(axes))) if axes[i] is group), None)
                if axis is not None and wire is not None:
                    exponents[wire.name, axis] += exponent
            first += len(segment.axes)
        return tuple((wire, axis, exponent) for (wire, axis), exponent in exponents.items() if exponent)

    def _group(self, scaling: int) -> DraftGroup:
        return self.solution.unknowns.groups[self.solution.scalings[scaling].unknown]

    def _shifts(self, name: str, axes: Sequence[DraftGroup | int]) -> tuple[tuple[str, int, float], ...]:
        found = []
        for shift in self.trace.shifts if self.trace.uses.get(name) == 1 else ():
            own = set(self.solution.unknowns.of_variable[shift.variables.reshape(-1)].tolist())
            for i, (scaling, wire) in enumerate(zip(self.solution.scalings, self.wires, strict=True)):
                if shift.parameter != name or wire is None or scaling.unknown not in own or PHASE not in wire.scalings:
                    continue
                found += [(wire.name, k, shift.unit) for k, axis in enumerate(axes) if axis is self._group(i)][:1]
        return tuple(found)

    def _shears(self, name: str, wires: Sequence[tuple[str, int, int]]) -> tuple[Shear, ...]:
        flips = {wire.name for wire in self.wires if wire is not None and FLIP in wire.scalings}
        found = []
        for shear in self.trace.shears:
            if shear.weight != name:
                continue
            scales = {entry for v in shear.variables.reshape(-1) for entry in self.solution.scale(int(v))}
            consumed = {wire.name for scaling, _ in scales if (wire := self.wires[scaling]) is not None}
            found += [
                Shear(wire, axis, shear.bias, 0, shear.amount)
                for wire, axis, exponent in wires
                if wire in flips and wire in consumed and exponent < 0
            ]
        return tuple(dict.fromkeys(found))

    def _activation_sites(self) -> tuple[ActivationSite, ...]:
        found = []
        for layer, tensor in self.layer_outputs.items():
            for axis in tensor.axes:
                if len(axis.dims) != 1 or (axis.atoms == ABSENT).any():
                    continue
                segment, *others = divided(self.solution, len(axis.atoms), [NeuronAxis((0,), axis.atoms)], 0)
                group = segment.axes[-1]
                if others or not isinstance(group, DraftGroup) or not segment.contiguous:
                    continue
                if group.name and group.named.total == len(axis.atoms):
                    found.append(ActivationSite(group.name, layer, axis.dims[0]))
        return tuple(dict.fromkeys(found))


def _unique(name: str, taken: set[str]) -> str:
    candidate, k = name, 2
    while candidate in taken:
        candidate, k = f"{name}.{k}", k + 1
    taken.add(candidate)
    return candidate
