"""Representatives: of the networks that signs, flips and phases make of one, the one nearest to another network.

In a geometry's coordinates each of these changes only changes signs: a sign those of a neuron's incoming and outgoing
weights *together*, a phase those of its bias's point on the circle and of its outgoing weights, a flip those of the
incoming and outgoing weights once activations are counted from the flip's centre. So the paths of a flow may run
between points up to sign, as on a projective space, but jointly over all the columns of a neuron.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from wsflow.activations import FLIP, PHASE, SIGN
from wsflow.architecture import Architecture, Wire
from wsflow.devices import placed
from wsflow.geometry.charts import Chart, Phases
from wsflow.manifolds import Euclidean, Product
from wsflow.running import take
from wsflow.symmetry.actions import add_to_biases, flip_shears
from wsflow.symmetry.canonical.incoming import neurons_first


class Representatives:
    """The signs, flips and phases of an architecture, as changes of sign of the coordinates of points.

    Phases act where they have a chart. Each tensor (neurons, k) of `sign_changes` lists the columns that change sign
    with each neuron; within a tensor they are disjoint.
    """

    def __init__(self, architecture: Architecture, manifold: Product, charts: Sequence[Chart] = ()) -> None:
        self._architecture = architecture
        self._sines = _sines(charts, architecture.n_weights)
        # whether each column lies in a vector space
        flat = manifold.join([torch.full(columns.shape, isinstance(m, Euclidean)) for m, columns in manifold.factors])
        # wire, amount, columns and biases of the shear of each flip whose consumers lie in a vector space
        shears = [(s.wire, s.amount, columns, biases) for s, _, columns, biases in flip_shears(architecture)]
        curved = {name for name, _, *both in shears if not all(flat[columns].all() for columns in both)}
        self._shears = [shear for shear in shears if shear[0] not in curved]
        self.sign_changes = [t for wire in architecture.wires for rows in self._rows(wire) for t in _disjoint(rows)]

    def nearest(self, x: Tensor, y: Tensor, sweeps: int = 20) -> Tensor:
        """Return the representatives of y (n, size) with the smallest ambient distance from x (n, size).

        One layer's neurons are decided at once, and the layers in turn until nothing changes: exact for one hidden
        layer, a local minimum for more.
        """
        if not self.sign_changes:
            return y
        x, y = self._centred(x, 0.5), self._centred(y, 0.5)
        for _ in range(sweeps):
            changed = [self._change(x, y, placed(columns, y.device)) for columns in self.sign_changes]
            if not any(changed):
                break
        return self._centred(y, -0.5)

    @staticmethod
    def _change(x: Tensor, y: Tensor, columns: Tensor) -> bool:
        """Change in place the signs of y's neurons that come nearer to x by it; return whether there was one."""
        values = y[:, columns]
        # |x - y|^2 is smaller for -y where the scalar product is negative
        far = (x[:, columns] * values).sum(-1) < 0
        y[:, columns] = torch.where(far.unsqueeze(-1), -values, values)
        return bool(far.any())

    def _rows(self, wire: Wire) -> Iterator[list[Tensor]]:
        """Yield the columns (neurons, k) of each kind of sign change; a column that is named twice stays."""
        sign = list(self._signed(wire, self._sines)) if wire.scalings & {SIGN, FLIP} else []
        if FLIP in wire.scalings and wire.name not in {name for name, *_ in self._shears}:
            sign = []
        phase = list(self._phased(wire)) if PHASE in wire.scalings else []
        yield from (rows for rows in (sign, phase, [*sign, *phase] if sign and phase else []) if rows)

    def _signed(self, wire: Wire, changing: Tensor, exponents: tuple[int, ...] = (1, -1)) -> Iterator[Tensor]:
        """Yield the columns (neurons, k) that a sign of the wire changes, by block; `changing` is that of `_sines`."""
        for _, block, columns in self._architecture.blocks:
            for name, axis, exponent in block.wires:
                if name == wire.name and exponent % 2 and (1 if exponent > 0 else -1) in exponents:
                    yield changing[neurons_first(torch.from_numpy(columns), block, axis)]

    def _phased(self, wire: Wire) -> Iterator[Tensor]:
        """Yield the columns that half a period changes: the bias's point, and the neuron's outgoing weights."""
        for _, block, columns in self._architecture.blocks:
            for name, axis, _ in block.shifts:
                if name == wire.name:
                    cosines = neurons_first(torch.from_numpy(columns), block, axis)
                    if (self._sines[cosines] == cosines).any():
                        return
                    yield torch.cat([cosines, self._sines[cosines]], 1)
        yield from self._signed(wire, torch.arange(len(self._sines)), (-1,))

    def _centred(self, x: Tensor, share: float) -> Tensor:
        """Return a copy whose biases count the activations that flip from the centre of their flip."""
        x = x.clone()
        for _, amount, columns, biases in self._shears:
            x = add_to_biases(x, take(x, columns), biases, share * amount)
        return x


def _sines(charts: Sequence[Chart], n_weights: int) -> Tensor:
    """Return the column that a sign changes, for each of the weights: of a point on a circle only the sine."""
    changing, first = torch.arange(n_weights), n_weights
    for chart in charts:
        if isinstance(chart, Phases):
            changing[chart.columns] = first + torch.arange(chart.n_extra)
        first += chart.n_extra
    return changing


def _disjoint(rows: list[Tensor]) -> list[Tensor]:
    """Return the columns of all neurons as one tensor, or neuron by neuron where two neurons change the same column."""
    odd = [_odd(row) for row in torch.cat(rows, 1)]
    joined = torch.cat(odd)
    if len({len(columns) for columns in odd}) == 1 and len(joined.unique()) == len(joined):
        return [torch.stack(odd)]
    return [columns.unsqueeze(0) for columns in odd]


def _odd(columns: Tensor) -> Tensor:
    """Return the columns that are named an odd number of times: what changes sign twice stays."""
    values, counts = columns.unique(return_counts=True)
    return values[counts % 2 == 1]
