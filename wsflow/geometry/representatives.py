"""Representatives: of the networks that signs, flips and phases make of one, the one nearest to another network.

In a geometry's coordinates each of these changes only turns signs: a sign those of a neuron's incoming and outgoing
weights *together*, a phase those of its bias's point on the circle and of its outgoing weights, a flip those of the
incoming and outgoing weights once activations are counted from the flip's centre. So the paths of a flow may run
between points up to sign, as on a projective space, but jointly over all the columns that a sign moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from wsflow.activations import FLIP, PHASE, SIGN
from wsflow.architecture import Architecture, Wire
from wsflow.geometry.charts import Chart, Phases
from wsflow.manifolds import Euclidean, Product
from wsflow.running import take
from wsflow.symmetry.actions import sheared
from wsflow.symmetry.decisions import neurons_first


class Representatives:
    """The signs, flips and phases of an architecture, as changes of sign of a geometry's coordinates.

    Parameters
    ----------
    architecture : Architecture
    manifold : Product
        On whose factors the points lie.
    charts : sequence of Chart
        Phases act where they have a chart.

    Examples
    --------
    A tanh network and its negative are one function:

    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.geometry import GEOMETRIES
    >>> geometry = GEOMETRIES["geometric"](Architecture.mlp([1, 1, 1], "tanh", bias=False))
    >>> geometry.nearest(torch.tensor([[1.0, 2.0]]), torch.tensor([[-3.0, -1.0]]))
    tensor([[3., 1.]])
    """

    def __init__(self, architecture: Architecture, manifold: Product, charts: Sequence[Chart] = ()) -> None:
        self._architecture = architecture
        self._sines = _sines(charts, architecture.n_weights)
        self._flat = _flat_columns(manifold)
        self._shears = list(self._flat_shears())
        self.turns = [table for wire in architecture.wires for rows in self._rows(wire) for table in _tables(rows)]

    def nearest(self, x: Tensor, y: Tensor, sweeps: int = 20) -> Tensor:
        """The representative of y with the smallest ambient distance from x.

        One layer's neurons are decided at once, and the layers in turn until nothing changes: exact for one hidden
        layer, a local minimum for more.

        Parameters
        ----------
        x, y : Tensor of shape (n, size)
        sweeps : int
            At most so many passes over the layers.

        Returns
        -------
        Tensor of shape (n, size)
        """
        if not self.turns:
            return y
        x, y = self._centred(x, 0.5), self._centred(y, 0.5)
        for _ in range(sweeps):
            turned = [self._turned(x, y, table.to(y.device)) for table in self.turns]
            if not any(turned):
                break
        return self._centred(y, -0.5)

    @staticmethod
    def _turned(x: Tensor, y: Tensor, columns: Tensor) -> bool:
        """Turn what lies on the far side, in place; returns whether there was something."""
        part = y[:, columns]
        # |x - y|^2 is smaller for -y where the scalar product is negative
        far = (x[:, columns] * part).sum(-1) < 0
        y[:, columns] = torch.where(far.unsqueeze(-1), -part, part)
        return bool(far.any())

    def _rows(self, wire: Wire) -> Iterator[list[Tensor]]:
        """For each change of a neuron's sign the columns (neurons, k) that it turns; those named twice stay."""
        sign = list(self._moved(wire, turned=self._sines)) if wire.scalings & {SIGN, FLIP} else []
        if FLIP in wire.scalings and wire.name not in {name for name, *_ in self._shears}:
            sign = []
        phase = list(self._phased(wire)) if PHASE in wire.scalings else []
        yield from (rows for rows in (sign, phase, [*sign, *phase] if sign and phase else []) if rows)

    def _moved(self, wire: Wire, turned: Tensor, exponents: tuple[int, ...] = (1, -1)) -> Iterator[Tensor]:
        """The columns of each neuron that a sign of the wire turns, by block."""
        for _, block, columns in self._architecture.blocks:
            for name, axis, exponent in block.wires:
                if name == wire.name and exponent % 2 and (1 if exponent > 0 else -1) in exponents:
                    yield turned[neurons_first(torch.from_numpy(columns), block, axis)]

    def _phased(self, wire: Wire) -> Iterator[Tensor]:
        """Half a period turns a bias's point to the opposite one, and the weights that the neuron goes into."""
        for _, block, columns in self._architecture.blocks:
            for name, axis, _ in block.shifts:
                if name == wire.name:
                    cosines = neurons_first(torch.from_numpy(columns), block, axis)
                    if (self._sines[cosines] == cosines).any():
                        return
                    yield torch.cat([cosines, self._sines[cosines]], 1)
        yield from self._moved(wire, torch.arange(len(self._sines)), (-1,))

    def _flat_shears(self) -> Iterator[tuple[str, float, Tensor, Tensor]]:
        """What flips move into biases, for wires all of whose consumers lie in a vector space."""
        shears = [(s.wire, s.amount, columns, biases) for s, _, columns, biases in sheared(self._architecture)]
        bent = {name for name, _, *places in shears if not all(self._flat[place].all() for place in places)}
        yield from (shear for shear in shears if shear[0] not in bent)

    def _centred(self, x: Tensor, share: float) -> Tensor:
        """A copy whose biases count the activations that flip from the centre of their flip."""
        x = x.clone()
        for _, amount, columns, biases in self._shears:
            taken = take(x, columns.to(x.device)).flatten(1)
            x = x.index_add(1, biases.reshape(-1).to(x.device), taken, alpha=share * amount)
        return x


def _sines(charts: Sequence[Chart], n_weights: int) -> Tensor:
    """The column that a sign turns, for each column of the weights: of a point on a circle only the sine."""
    turned, first = torch.arange(n_weights), n_weights
    for chart in charts:
        if isinstance(chart, Phases):
            turned[chart.columns] = first + torch.arange(chart.n_extra)
        first += chart.n_extra
    return turned


def _flat_columns(manifold: Product) -> Tensor:
    """Whether each column lies in a vector space."""
    parts = [torch.full(columns.shape, isinstance(factor, Euclidean)) for factor, columns in manifold.factors]
    return manifold.join(parts)


def _tables(rows: list[Tensor]) -> list[Tensor]:
    """The columns of each neuron in one table, or neuron by neuron where two neurons turn the same column."""
    odd = [_odd(row) for row in torch.cat(rows, 1)]
    apart = torch.cat(odd)
    if len({len(columns) for columns in odd}) == 1 and len(apart.unique()) == len(apart):
        return [torch.stack(odd)]
    return [columns.unsqueeze(0) for columns in odd]


def _odd(columns: Tensor) -> Tensor:
    """The columns that are named an odd number of times: what is turned twice stays."""
    values, counts = columns.unique(return_counts=True)
    return values[counts % 2 == 1]
