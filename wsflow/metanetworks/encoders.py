"""The table of velocity networks: name -> how to build it. It loads no torch until one is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from wsflow.architecture import Architecture


def neuron(architecture: Architecture, n_extra: int, **options: Any) -> nn.Module:
    """A `NeuronTransformer`.

    Parameters
    ----------
    architecture : Architecture
    n_extra : int
    **options
        `dim`, `depth`, `heads`, `identity`, `condition`, `n_hints`, `dropout`.

    Returns
    -------
    nn.Module
    """
    from wsflow.metanetworks.neuron import NeuronTransformer

    return NeuronTransformer(architecture, n_extra, **options)


def relational(architecture: Architecture, n_extra: int, **options: Any) -> nn.Module:
    """A `RelationalTransformer`.

    Parameters
    ----------
    architecture : Architecture
    n_extra : int
    **options
        `dim`, `depth`, `heads`, `identity`, `condition`, `dropout`.

    Returns
    -------
    nn.Module
    """
    from wsflow.metanetworks.relational import RelationalTransformer

    return RelationalTransformer(architecture, n_extra, **options)


def mlp(architecture: Architecture | int, n_extra: int, **options: Any) -> nn.Module:
    """A `FlatMLP`, four times as wide as the tokens of the others; it also takes plain vectors.

    Parameters
    ----------
    architecture : Architecture or int
        Or the number of columns.
    n_extra : int
    **options
        `dim`, `depth`, `condition`, `n_hints` and `dropout`; the others do not apply.

    Returns
    -------
    nn.Module
    """
    from wsflow.metanetworks.mlp import FlatMLP

    size = architecture if isinstance(architecture, int) else architecture.n_weights
    same = {name: options[name] for name in ("depth", "condition", "n_hints", "dropout") if name in options}
    return FlatMLP(size + n_extra, dim=4 * options["dim"], **same)


VELOCITIES: dict[str, Callable[..., nn.Module]] = {"neuron": neuron, "relational": relational, "mlp": mlp}

# which of them read hints, gradients that come with each point
READ_HINTS = ("neuron", "mlp")
# which of them are equivariant to permutations of neurons, unless they give them names
EQUIVARIANT = ("neuron", "relational")


def velocity_name(choice: str, layout: Architecture | None) -> str:
    """The key of the network that a choice stands for: "auto" is "neuron", or "mlp" without an architecture.

    Parameters
    ----------
    choice : str
    layout : Architecture or None

    Returns
    -------
    str
    """
    if choice != "auto":
        return choice
    return "mlp" if layout is None else "neuron"


def knows_names(choice: str, layout: Architecture | None, identity: str | None) -> bool:
    """Whether a network tells neurons apart: those without symmetry know every column by its place.

    Parameters
    ----------
    choice : str
    layout : Architecture or None
        As in `velocity_name`.
    identity : {"learned", None}

    Returns
    -------
    bool
    """
    return identity == "learned" or velocity_name(choice, layout) not in EQUIVARIANT
