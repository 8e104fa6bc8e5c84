"""The recorder: the labels of a network's parameters, and what rules may demand of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from wsflow.tracing import shapes
from wsflow.tracing.labels import Array, Bias, Label, Ledger, Leg, unsheared


class Refused(ValueError):
    """An operation that the tracer does not understand."""


@dataclass
class Piece:
    """A part of a parameter with labels of its own: some rows, or a reshaped view of the whole."""

    start: int
    stop: int
    label: Label


@dataclass(frozen=True)
class Shift:
    """A phase that is added to a bias."""

    parameter: str
    variables: Array
    unit: float


@dataclass(frozen=True)
class Move:
    """What flips of these variables move from a weight into a bias."""

    weight: str
    bias: str
    variables: Array
    amount: float


@dataclass
class Recorder:
    """What is known while a network is traced.

    Parameters
    ----------
    parameters : dict from str to tuple of int
        Shapes of the parameters and buffers that are traced, by name.
    """

    parameters: dict[str, tuple[int, ...]]
    ledger: Ledger = field(default_factory=Ledger)
    pieces: dict[str, list[Piece]] = field(default_factory=dict)
    statistics: set[str] = field(default_factory=set)
    shifts: list[Shift] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    uses: dict[str, int] = field(default_factory=dict)
    # the operation at hand: the shape of its result, the number of its results, and the layer that it belongs to
    shape: tuple[int, ...] = ()
    n_results: int = 1
    layer: str = ""

    def label(self, shape: tuple[int, ...], name: str = "") -> Label:
        """A label with a leg for each axis, as a parameter has it."""
        legs = []
        for dim, size in enumerate(shape):
            if size > 1:
                legs.append(self._free((dim,), [size]))
        constant = frozenset(dim for dim, size in enumerate(shape) if size == 1)
        return Label(shape, tuple(legs), constant, parameter=name)

    def _free(self, dims: tuple[int, ...], sizes: Sequence[int]) -> Leg:
        atoms = self.ledger.fresh(sizes)
        return Leg(dims, atoms, ((1, 1, self.ledger.variables(atoms)),))

    def parameter(self, name: str) -> Label:
        """The label of a whole parameter."""
        self.uses[name] = self.uses.get(name, 0) + 1
        shape = self.parameters[name]
        return self._piece(name, 0, shape[0] if shape else 1, shape)

    def rows(self, name: str, start: int, stop: int) -> Label:
        """The label of some rows of a parameter, as if they were a parameter of their own."""
        return replace(self._piece(name, start, stop, (stop - start, *self.parameters[name][1:])), parameter="")

    def _piece(self, name: str, start: int, stop: int, shape: tuple[int, ...]) -> Label:
        for piece in self.pieces.setdefault(name, []):
            if (piece.start, piece.stop) == (start, stop):
                return piece.label
        label = self.label(shape, name)
        self.pieces[name].append(Piece(start, stop, label))
        return label

    def grouped(self, weight: Label, groups: int) -> Label:
        """A kernel as (groups, outputs of a group, inputs of a group, taps): each group has inputs of its own."""
        name = weight.parameter
        if name and len(weight.shape) > len(self.parameters[name]):
            return weight  # used before, by these groups
        shape = (groups, weight.shape[0] // groups, *weight.shape[1:])
        whole = next((piece for piece in self.pieces.get(name, []) if piece.label is weight), None)
        if whole is None:
            # no parameter itself: what all groups share has its place
            return shapes.reshape(self.ledger, weight, shape)
        legs = [self._free((0, 2), (groups, shape[2]))]
        for leg in weight.legs:
            if leg.dims == (0,):
                legs.insert(0, leg.map((0, 1), lambda values: values.reshape(shape[:2])))
            elif leg.dims != (1,):
                legs.append(replace(leg, dims=(leg.dims[0] + 1,)))
        label = Label(shape, tuple(legs), frozenset(d for d, n in enumerate(shape) if n == 1), parameter=name)
        whole.label = self.ledger.tidy(label)
        return whole.label

    def still(self, label: Label) -> None:
        """No scaling passes here."""
        for leg in label.legs:
            self.ledger.still(leg)

    def tie(self, label: Label, dims: Sequence[int]) -> None:
        """Neurons along these axes stay together, within what the other axes range over."""
        rank = len(label.shape)
        gone = {dim % rank for dim in dims}
        for leg in label.touching(gone):
            rest = tuple(dim for dim in leg.dims if dim not in gone)
            if rest:
                sizes = [label.shape[dim] for dim in rest]
                parent = Leg(rest, self.ledger.fresh(sizes))
                self.ledger.nest(leg, parent, [label.shape[d] for d in leg.dims])

    def consume(
        self, input: Label, weight: Label, bias: Label | None, dims: Sequence[int], axes: Sequence[int]
    ) -> Label:
        """A linear map takes what flips leave behind into its bias, if it has one."""
        known = weight.parameter and weight.shape == self.parameters.get(weight.parameter)
        for leg in input.legs:
            if leg.shear is None:
                continue
            own = next((other for other in weight.legs if other.dims == tuple(axes)), None)
            if leg.dims == tuple(dims) and own is not None and known and bias is not None and bias.parameter:
                self.moves.append(Move(weight.parameter, bias.parameter, own.terms[0][2], leg.shear))
            else:
                self.ledger.still(leg, positive=False)
        return unsheared(input)

    def shift(self, label: Label, bias: Bias, phase: float) -> Label:
        """Behind a sine: a phase of the bias turns signs."""
        if len(label.legs) != 1:
            return label
        leg = label.legs[0]
        own = self.parameters.get(bias.parameter, ())
        piece = self.pieces.get(bias.parameter, [None])[0]
        if piece is None or len(own) != 1 or len(piece.label.legs) != 1:
            return label
        if leg.atoms.shape != own:
            return label
        variables = self.ledger.variables(leg.atoms)
        self.shifts.append(Shift(bias.parameter, variables, phase / abs(bias.factor)))
        return replace(label, legs=(replace(leg, terms=(*leg.terms, (0, 1, variables))),))

    def statistic(self, *labels: Label | None) -> None:
        """These buffers are statistics."""
        self.statistics |= {label.parameter for label in labels if label is not None and label.parameter}

    def scaleless(self, label: Label) -> Label:
        """The same neurons, with numbers that do not scale: places of maxima."""
        return replace(label.plain(), legs=tuple(replace(leg, terms=(), shear=None) for leg in label.legs))

    def opaque(self, labels: Sequence[Label]) -> Label:
        """An operation that is not understood, in a frozen layer: no symmetry acts on what it takes."""
        for label in labels:
            self.ledger.freeze(label)
        return Label(self.shape)

    def refuse(self, what: str) -> None:
        """Stop tracing."""
        raise Refused(what)


def frozen(label: Label, ledger: Ledger) -> Label:
    """A parameter that no symmetry moves."""
    ledger.freeze(label)
    return Label(label.shape, constant=label.constant)
