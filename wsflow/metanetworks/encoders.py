"""The table of encoders: name -> its classes, the group that it respects, and what it reads.

It loads torch only when one is built. To add an encoder, write its class in a file of its own and a row here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

Classes = tuple[type["nn.Module"], type["nn.Module"]]


@dataclass(frozen=True)
class EncoderEntry:
    """The encoder and its readout, the group to which both are equivariant unless neurons have names, and its inputs.

    They are built as ``encoder(architecture, n_extra, **options)`` and ``readout(encoder.tokens, encoder.dim,
    encoder.n_hints)``; hints are gradients that come with each point.
    """

    classes: Callable[[], Classes]
    group: Literal["permutations", "trivial"] = "permutations"
    reads: tuple[str, ...] = ("weights",)


def neuron() -> Classes:
    """Return the neuron transformer."""
    from wsflow.metanetworks.neuron import NeuronEncoder
    from wsflow.metanetworks.readouts import NeuronReadout

    return NeuronEncoder, NeuronReadout


def relational() -> Classes:
    """Return the relational transformer."""
    from wsflow.metanetworks.readouts import EdgeReadout
    from wsflow.metanetworks.relational import RelationalEncoder

    return RelationalEncoder, EdgeReadout


def mlp() -> Classes:
    """Return the flat network, which also takes the size of plain vectors for an architecture."""
    from wsflow.metanetworks.flat import FlatEncoder
    from wsflow.metanetworks.readouts import FlatReadout

    return FlatEncoder, FlatReadout


ENCODERS: dict[str, EncoderEntry] = {
    "neuron": EncoderEntry(neuron, reads=("weights", "hints")),
    "relational": EncoderEntry(relational),
    "mlp": EncoderEntry(mlp, group="trivial", reads=("weights", "hints")),
}
READ_HINTS = tuple(name for name, entry in ENCODERS.items() if "hints" in entry.reads)
