"""The table of encoders: name -> its classes, the group that it respects, and what it reads.

To add an encoder, write its class in a file of its own and a row here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from wsflow.metanetworks.convolutional import ConvolutionalEncoder
from wsflow.metanetworks.deep_sets import DeepSetsEncoder
from wsflow.metanetworks.flat import FlatEncoder
from wsflow.metanetworks.graph import NeuralGraphEncoder
from wsflow.metanetworks.neuron import NeuronEncoder
from wsflow.metanetworks.parity import ScaleEquivariantEncoder
from wsflow.metanetworks.probe import ProbeEncoder
from wsflow.metanetworks.readouts import EdgeReadout, FlatReadout, NeuronReadout
from wsflow.metanetworks.relational import RelationalEncoder
from wsflow.metanetworks.statistics import StatisticsEncoder

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
    encoder, readout : class
        Velocity networks are built of encoders that have a readout.
    group : tuple of str
        Which changes of the weights change what an invariant readout gives by rounding only; none for ().
    reads : tuple of str
        "weights", "hints", or "outputs" on probe inputs.
    formula, reference, cost : str
        What it computes, where it is from, and what a pass takes, for the documentation.
    """

    encoder: Any
    readout: Any = None
    group: tuple[Symmetry, ...] = ("permutations",)
    reads: tuple[str, ...] = ("weights",)
    formula: str = ""
    reference: str = ""
    cost: str = ""


ENCODERS: dict[str, EncoderEntry] = {
    "neuron": EncoderEntry(
        NeuronEncoder,
        NeuronReadout,
        reads=("weights", "hints"),
        formula="attention among neurons, and messages sum_j W_ij V h_j both ways along their weights",
        reference="Zhou et al. 2023, arXiv:2302.14040; Vaswani et al. 2017, arXiv:1706.03762",
        cost="weights x width, and neurons squared x width",
    ),
    "relational": EncoderEntry(
        RelationalEncoder,
        EdgeReadout,
        formula="attention of neurons over the states of the weights between them",
        reference="Diao and Loynd 2023, arXiv:2210.05062",
        cost="weights x width squared; matrices and vectors only",
    ),
    "neural_graph": EncoderEntry(
        NeuralGraphEncoder,
        formula="principal neighbourhood aggregation on the graph of neurons, with edge updates",
        reference="Kofinas et al. 2024, arXiv:2403.12143; Corso et al. 2020, arXiv:2004.05718",
        cost="weights x width squared; needs torch-geometric; architectures may be mixed",
    ),
    "scale_equivariant": EncoderEntry(
        ScaleEquivariantEncoder,
        group=("permutations", "positive", "sign"),
        formula="odd and even states of neurons on networks whose neurons have unit norm",
        reference="Kalogeropoulos et al. 2024, arXiv:2406.10685",
        cost="weights x width, three times those of the neuron transformer; one canonical form for each network",
    ),
    "deep_sets": EncoderEntry(
        DeepSetsEncoder,
        formula="rho (mean_i phi (h_i)), where h_i has the weights of neuron i, those of its edges as a mean",
        reference="Zaheer et al. 2017, arXiv:1703.06114",
        cost="weights x width",
    ),
    "statistics": EncoderEntry(
        StatisticsEncoder,
        formula="mean, variance and five quantiles of each parameter",
        reference="Unterthiner et al. 2020, arXiv:2002.11448",
        cost="weights x log (weights)",
    ),
    "convolutional": EncoderEntry(
        ConvolutionalEncoder,
        group=(),
        formula="convolutions along the row of weights, with means and maxima behind them",
        reference="Eilertsen et al. 2020, arXiv:2002.05688",
        cost="weights x width",
    ),
    "mlp": EncoderEntry(
        FlatEncoder,
        FlatReadout,
        group=(),
        reads=("weights", "hints"),
        formula="a residual network on the row of standardized weights",
        reference="He et al. 2016, arXiv:1512.03385",
        cost="weights x width",
    ),
    "probe": EncoderEntry(
        ProbeEncoder,
        group=("function",),
        reads=("outputs",),
        formula="a residual network on f_w (z_1), ..., f_w (z_m), for learned or given inputs z",
        reference="Herrmann, Faccio and Schmidhuber 2024, arXiv:2403.11998",
        cost="one run of each network on m inputs",
    ),
}
VELOCITY_ENCODERS = tuple(name for name, entry in ENCODERS.items() if entry.readout is not None)
READ_HINTS = tuple(name for name, entry in ENCODERS.items() if "hints" in entry.reads)
