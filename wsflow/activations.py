"""The activation table: which scalings of a neuron commute with its activation.

A scaling by s commutes with an activation a when a(s z) = s a(z) for every z: every positive s for ReLU and
LeakyReLU, s = -1 for odd functions, nothing for GELU. One row says everything that wsflow knows
about an activation; this file imports nothing heavy, because it also feeds the CLI's choices.

References
----------
Godfrey, Brown, Emerson and Kvinge 2022, "On the symmetries of deep learning models and their
internal representations", arXiv:2205.14258.
"""

from __future__ import annotations

from dataclasses import dataclass

POSITIVE = "positive"
SIGN = "sign"
FLIP = "flip"
PHASE = "phase"


@dataclass(frozen=True)
class Activation:
    """One row of the table.

    Parameters
    ----------
    module : str
        Name of the class in ``torch.nn``.
    function : str
        Name of the function in ``torch.nn.functional``; empty for the identity.
    scalings : frozenset of {"positive", "sign"}
        Which scalings of the neuron commute with the activation, whatever its argument.
    argument : str
        Name of the parameter that a layer may set; empty where there is none.
    default : float
        Torch's value of the argument.

    Examples
    --------
    >>> from wsflow.activations import ACTIVATIONS
    >>> ACTIVATIONS["tanh"].module, sorted(ACTIVATIONS["tanh"].scalings)
    ('Tanh', ['sign'])
    """

    module: str
    function: str
    scalings: frozenset[str] = frozenset()
    argument: str = ""
    default: float = 0.0


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation("ReLU", "relu", frozenset({POSITIVE})),
    "leaky_relu": Activation("LeakyReLU", "leaky_relu", frozenset({POSITIVE}), "negative_slope", 0.01),
    "tanh": Activation("Tanh", "tanh", frozenset({SIGN})),
    "softsign": Activation("Softsign", "softsign", frozenset({SIGN})),
    "identity": Activation("Identity", "", frozenset({POSITIVE, SIGN})),
    "sigmoid": Activation("Sigmoid", "sigmoid"),
    "gelu": Activation("GELU", "gelu"),
    "silu": Activation("SiLU", "silu"),
    "elu": Activation("ELU", "elu", argument="alpha", default=1.0),
    "softplus": Activation("Softplus", "softplus"),
}


def activation(name: str) -> Activation:
    """The table's row for `name`.

    Parameters
    ----------
    name : str
        A key of `ACTIVATIONS`.

    Returns
    -------
    Activation

    Raises
    ------
    ValueError
        If the table has no such row.

    Examples
    --------
    >>> from wsflow.activations import activation
    >>> sorted(activation("relu").scalings)
    ['positive']
    """
    if name not in ACTIVATIONS:
        raise ValueError(
            f"The activation {name!r} is not in wsflow's table. "
            f"Choose one of {', '.join(sorted(ACTIVATIONS))}, or add a row to wsflow/activations.py."
        )
    return ACTIVATIONS[name]
