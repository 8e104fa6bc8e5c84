"""The parameter objects of metanetworks that predict, and the strings that stand for them with their defaults."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from wsflow.models.options import MLP, Layered, NeuronTransformer, RelationalTransformer
from wsflow.options import whole


@dataclass
class Statistics(Layered):
    """A residual network on mean, variance and quantiles of each parameter.

    Parameters
    ----------
    width, depth : int
        Width of the layers, number of residual blocks.
    dropout : float
        Probability for what each block adds, in training.
    """

    width: int = 128
    depth: int = 2

    encoder = "statistics"


@dataclass
class DeepSets(Statistics):
    """A network that reads each neuron by itself, with parameters as those of `Statistics`."""

    width: int = 64

    encoder = "deep_sets"


@dataclass
class Convolutional(Statistics):
    """Convolutions along the row of weights, which know no symmetry; `depth` of them with `width` channels."""

    width: int = 64
    depth: int = 4

    encoder = "convolutional"


@dataclass
class NeuralGraph(Statistics):
    """A graph network on neurons and weights, with parameters as those of `Statistics`; it needs torch-geometric."""

    width: int = 32
    depth: int = 3

    encoder = "neural_graph"


@dataclass
class ScaleEquivariant(Statistics):
    """A network with odd and even states of neurons, for signs and positive scales; parameters as in `Statistics`."""

    width: int = 32
    depth: int = 3

    encoder = "scale_equivariant"


@dataclass
class Probe(Statistics):
    """A residual network on what networks give for probe inputs.

    Parameters
    ----------
    width, depth : int
        Width of the layers, number of residual blocks.
    dropout : float
        Probability for what each block adds, in training.
    n_probes : int
        Inputs that are drawn, where none are given.
    learned : bool
        Whether inputs of real numbers are trained.
    inputs : array-like of shape (b, ...), optional
        Where probes begin, or, with ``learned=False``, what they are.
    """

    n_probes: int = 64
    learned: bool = True
    inputs: Any = None

    CONSTRAINTS = {**Layered.CONSTRAINTS, "n_probes": whole(1)}
    encoder = "probe"

    def sizes(self) -> dict[str, Any]:
        """What its builder takes."""
        inputs = None if self.inputs is None else torch.as_tensor(self.inputs)
        return super().sizes() | {"n_probes": self.n_probes, "learned": self.learned, "inputs": inputs}


METANETWORKS: dict[str, Callable[[], Any]] = {
    "neuron": functools.partial(NeuronTransformer, identity=None, dropout=0.1),
    "relational": functools.partial(RelationalTransformer, identity=None),
    "neural_graph": NeuralGraph,
    "scale_equivariant": ScaleEquivariant,
    "deep_sets": DeepSets,
    "statistics": Statistics,
    "convolutional": Convolutional,
    "mlp": MLP,
    "probe": Probe,
}


def metanetwork_of(value: Any, owner: str, is_known: bool) -> Any:
    """Return the checked object that a parameter's value stands for.

    Parameters
    ----------
    value : str or Options
        "auto" is "neuron" for networks of a known architecture, else "mlp".
    owner : str
        Whose parameter it is, for the message.
    is_known : bool
        Whether the architecture is known.

    Raises
    ------
    ValueError
        Naming the parameter, what is expected, and the value.
    """
    value = ("neuron" if is_known else "mlp") if isinstance(value, str) and value == "auto" else value
    if isinstance(value, str) and value in METANETWORKS:
        value = METANETWORKS[value]()
    kinds: Any = tuple({getattr(make, "func", make): None for make in METANETWORKS.values()})
    if not isinstance(value, kinds):
        objects = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(
            f"The 'metanetwork' parameter of {owner} is one of {('auto', *METANETWORKS)}, or a {objects}, "
            f"got {value!r}."
        )
    value.check()
    if not is_known and value.encoder != "mlp":
        raise ValueError(
            f"{owner}(metanetwork={value!r}) needs to know what the columns are. Pass a WeightArray, or "
            "architecture=Architecture.mlp([...])."
        )
    return value
