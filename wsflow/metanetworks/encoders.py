"""The table of encoders: name -> its classes, the group that it respects, and what it reads.

It loads torch only when one is built. To add an encoder, write its class in a file of its own and a row here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

Classes = tuple[type["nn.Module"], type["nn.Module"] | None]
# permutations of neurons; positive scales and signs of wires; or whatever keeps the function of a network
Symmetry = Literal["permutations", "positive", "sign", "function"]


@dataclass(frozen=True)
class EncoderEntry:
    """The encoder and its equivariant readout, the group that both respect unless neurons have names, and its inputs.

    They are built as ``encoder(architecture, n_extra, **options)`` and ``readout(encoder.tokens, encoder.dim,
    encoder.n_hints)``; hints are gradients that come with each point. An encoder without a readout serves predictors
    alone: it is built as ``encoder(architecture, **options)`` and called with rows alone.

    Parameters
    ----------
    classes : callable
        Returns both classes; the second one may be None.
    group : tuple of str
        Which changes of the weights change what an invariant readout gives by rounding only; none for ().
    reads : tuple of str
        "weights", "hints", or "outputs" on probe inputs.
    formula, reference, cost : str
        What it computes, where it is from, and what a pass takes, for the documentation.
    has_velocity : bool
        Whether there is an equivariant readout, so that velocity networks are built of it.
    """

    classes: Callable[[], Classes]
    group: tuple[Symmetry, ...] = ("permutations",)
    reads: tuple[str, ...] = ("weights",)
    formula: str = ""
    reference: str = ""
    cost: str = ""
    has_velocity: bool = False


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


def neural_graph() -> Classes:
    """Return the graph network."""
    from wsflow.metanetworks.graph import NeuralGraphEncoder

    return NeuralGraphEncoder, None


def scale_equivariant() -> Classes:
    """Return the network that respects signs and positive scales."""
    from wsflow.metanetworks.parity import ScaleEquivariantEncoder

    return ScaleEquivariantEncoder, None


def deep_sets() -> Classes:
    """Return the set network on neurons."""
    from wsflow.metanetworks.deep_sets import DeepSetsEncoder

    return DeepSetsEncoder, None


def statistics() -> Classes:
    """Return the network on statistics of each parameter."""
    from wsflow.metanetworks.statistics import StatisticsEncoder

    return StatisticsEncoder, None


def convolutional() -> Classes:
    """Return the convolutional network on the row of weights."""
    from wsflow.metanetworks.convolutional import ConvolutionalEncoder

    return ConvolutionalEncoder, None


def probe() -> Classes:
    """Return the network on outputs for probe inputs."""
    from wsflow.metanetworks.probe import ProbeEncoder

    return ProbeEncoder, None


ENCODERS: dict[str, EncoderEntry] = {
    "neuron": EncoderEntry(
        neuron,
        reads=("weights", "hints"),
        formula="attention among neurons, and messages sum_j W_ij V h_j both ways along their weights",
        reference="Zhou et al. 2023, arXiv:2302.14040; Vaswani et al. 2017, arXiv:1706.03762",
        cost="weights x width, and neurons squared x width",
        has_velocity=True,
    ),
    "relational": EncoderEntry(
        relational,
        formula="attention of neurons over the states of the weights between them",
        reference="Diao and Loynd 2023, arXiv:2210.05062",
        cost="weights x width squared; matrices and vectors only",
        has_velocity=True,
    ),
    "neural_graph": EncoderEntry(
        neural_graph,
        formula="principal neighbourhood aggregation on the graph of neurons, with edge updates",
        reference="Kofinas et al. 2024, arXiv:2403.12143; Corso et al. 2020, arXiv:2004.05718",
        cost="weights x width squared; needs torch-geometric; architectures may be mixed",
    ),
    "scale_equivariant": EncoderEntry(
        scale_equivariant,
        group=("permutations", "positive", "sign"),
        formula="odd and even states of neurons on networks whose neurons have unit norm",
        reference="Kalogeropoulos et al. 2024, arXiv:2406.10685",
        cost="weights x width, three times those of the neuron transformer; one canonical form for each network",
    ),
    "deep_sets": EncoderEntry(
        deep_sets,
        formula="rho (mean_i phi (h_i)), where h_i has the weights of neuron i, those of its edges as a mean",
        reference="Zaheer et al. 2017, arXiv:1703.06114",
        cost="weights x width",
    ),
    "statistics": EncoderEntry(
        statistics,
        formula="mean, variance and five quantiles of each parameter",
        reference="Unterthiner et al. 2020, arXiv:2002.11448",
        cost="weights x log (weights)",
    ),
    "convolutional": EncoderEntry(
        convolutional,
        group=(),
        formula="convolutions along the row of weights, with means and maxima behind them",
        reference="Eilertsen et al. 2020, arXiv:2002.05688",
        cost="weights x width",
    ),
    "mlp": EncoderEntry(
        mlp,
        group=(),
        reads=("weights", "hints"),
        formula="a residual network on the row of standardized weights",
        reference="He et al. 2016, arXiv:1512.03385",
        cost="weights x width",
        has_velocity=True,
    ),
    "probe": EncoderEntry(
        probe,
        group=("function",),
        reads=("outputs",),
        formula="a residual network on f_w (z_1), ..., f_w (z_m), for learned or given inputs z",
        reference="Herrmann, Faccio and Schmidhuber 2024, arXiv:2403.11998",
        cost="one run of each network on m inputs",
    ),
}
VELOCITY_ENCODERS = tuple(name for name, entry in ENCODERS.items() if entry.has_velocity)
READ_HINTS = tuple(name for name, entry in ENCODERS.items() if "hints" in entry.reads)
