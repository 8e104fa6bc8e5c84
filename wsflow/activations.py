"""The activation table: which changes of a neuron commute with its activation.

A scaling by s commutes with an activation a of degree k when a(s z) = s^k a(z) for every z: every positive s for
ReLU and LeakyReLU (k = 1), s = -1 for odd functions, nothing for GELU. A flip is a sign that leaves a constant,
a(-z) = c - a(z); a phase moves z by a half period, a(z + pi) = -a(z). One row has everything that wsflow knows
about an activation; this file imports nothing heavy at import time, because it also feeds the CLI's choices.

References
----------
Godfrey, Brown, Emerson and Kvinge 2022, "On the symmetries of deep learning models and their
internal representations", arXiv:2205.14258 (intertwiner groups); Wiese, Wimmer, Papamarkou, Bischl, Guennemann and
Ruegamer 2023, "Towards efficient MCMC sampling in Bayesian neural networks by exploiting symmetry", arXiv:2304.02902;
Kurkova and Kainen 1994, "Functionally equivalent feedforward neural networks", Neural Computation 6(3) (flips).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

POSITIVE = "positive"
SIGN = "sign"
FLIP = "flip"
PHASE = "phase"

Exactness = Literal["exact", "eps", "loss"]


@dataclass(frozen=True)
class Symmetry:
    """Describe one kind of change that keeps what a network computes.

    Parameters
    ----------
    formula : str
        The identity that holds.
    exactness : {"exact", "eps", "loss"}
        Exact; up to the constant that a norm adds to its variance; or for the loss alone, not for the outputs.
        Only exact ones are used by default.
    breaks_with : tuple of str
        What may follow the activation and does not commute with the change.
    source : str
        The reference.

    Examples
    --------
    >>> from wsflow.activations import SYMMETRIES
    >>> SYMMETRIES["sign"].formula, SYMMETRIES["sign"].breaks_with
    ('a(-z) = -a(z)', ('max pooling',))
    """

    formula: str
    exactness: Exactness
    breaks_with: tuple[str, ...]
    source: str


_GODFREY = "Godfrey et al. 2022, arXiv:2205.14258"
_KURKOVA = "Kurkova and Kainen 1994, Neural Computation 6(3)"
_WIESE = "Wiese et al. 2023, arXiv:2304.02902"

SYMMETRIES: dict[str, Symmetry] = {
    POSITIVE: Symmetry("a(s z) = s^k a(z) for s > 0", "exact", (), _GODFREY),
    SIGN: Symmetry("a(-z) = -a(z)", "exact", ("max pooling",), f"{_GODFREY}; {_WIESE}"),
    FLIP: Symmetry("a(-z) = c - a(z), the c into the next bias", "exact", ("max pooling", "zero padding"), _KURKOVA),
    PHASE: Symmetry("a(z + pi) = -a(z), the pi into the bias", "exact", ("max pooling",), "the function's period"),
    "norm": Symmetry("norm(s z) = norm(z) for weights that feed a norm", "eps", (), _GODFREY),
    "softmax": Symmetry("softmax(z + c) = softmax(z) for an output bias", "loss", (), "the definition of softmax"),
}


@dataclass(frozen=True)
class Activation:
    """Describe an activation: one row of the table.

    Parameters
    ----------
    module : str
        Name of the class in ``torch.nn``; empty where there is none.
    function : str
        Name of the function in ``torch.nn.functional`` or ``torch``; empty for the identity.
    scalings : frozenset of {"positive", "sign", "flip", "phase"}
        Which changes of the neuron commute with the activation, whatever its argument: keys of `SYMMETRIES`.
    argument, default : str, float
        Name of the parameter that a layer may set (empty where there is none), and its usual value.
    formula : str
        What it computes.
    degree : int or None
        The k in a(s z) = s^k a(z); None where it is the argument.
    flip, phase : float
        The c in a(-z) = c - a(z); half a period, in units of 1 / argument where there is one.
    evaluate : callable, optional
        Of a tensor and the argument, where torch has no such function.
    aliases : tuple of str
        Further names of the same function in torch's operator set.
    learned : bool
        Whether the argument is a parameter of the network.
    remark : str
        Further symmetries, which are not handled.

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
    formula: str = ""
    degree: int | None = 1
    flip: float = 0.0
    phase: float = 0.0
    evaluate: Callable[[Any, Any], Any] | None = None
    aliases: tuple[str, ...] = ()
    learned: bool = False
    remark: str = ""

    def __call__(self, z: Any, argument: Any = None) -> Any:
        """Return the activation of a tensor, with the row's own argument by default."""
        if self.evaluate is not None:
            return self.evaluate(z, self.default if argument is None else argument)
        if not self.function:
            return z
        import torch

        function = getattr(torch.nn.functional, self.function, None) or getattr(torch, self.function)
        return function(z) if argument is None else function(z, **{self.argument: argument})

    def exponent(self, argument: float | None = None) -> int:
        """Return the degree k: behind the activation a scale s is s^k.

        Raises
        ------
        ValueError
            If the degree is the argument, and that is no positive whole number.
        """
        if self.degree is not None:
            return self.degree
        degree = self.default if argument is None else argument
        if degree != int(degree) or degree < 1:
            raise ValueError(f"The {self.argument!r} of {self.formula} is a whole number from 1 on, got {degree:g}.")
        return int(degree)

    def half_period(self, argument: float | None = None) -> float:
        """Return what a phase of one adds to the bias: pi / omega for sin(omega z)."""
        return self.phase / ((self.default if argument is None else argument) if self.argument else 1.0)


def _relu_power(z: Any, power: float) -> Any:
    return z.relu() ** power


def _sine(z: Any, omega: float) -> Any:
    return (omega * z).sin()


def _prelu(z: Any, slope: Any) -> Any:
    return z.clamp(min=0) + slope * z.clamp(max=0)


def _square(z: Any, _: float) -> Any:
    return z * z


def _normal_cdf(z: Any, _: float) -> Any:
    # erfc keeps the digits of the lower tail
    return 0.5 * (-z * math.sqrt(0.5)).erfc()


_POSITIVE, _SIGN, _BOTH, _FLIP = (frozenset(s) for s in ({POSITIVE}, {SIGN}, {POSITIVE, SIGN}, {FLIP}))
_EVEN = "an even function: a sign of the incoming weights alone keeps it, too"
_LINEAR = "all of GL(n) commutes: only its permutations and diagonal matrices are handled"

ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation("ReLU", "relu", _POSITIVE, formula="max(z, 0)"),
    "leaky_relu": Activation(
        "LeakyReLU", "leaky_relu", _POSITIVE, "negative_slope", 0.01, "max(z, 0) + slope min(z, 0)"
    ),
    "prelu": Activation(
        "PReLU", "prelu", _POSITIVE, "", 0.25, "max(z, 0) + slope min(z, 0), the slope learned",
        evaluate=_prelu, aliases=("_prelu_kernel",), learned=True,
    ),
    "relu_power": Activation(
        "", "", _POSITIVE, "power", 2.0, "max(z, 0)^k", degree=None, evaluate=_relu_power
    ),
    "abs": Activation("", "abs", _POSITIVE, formula="|z|", remark=_EVEN),
    "square": Activation("", "square", _BOTH, formula="z^2", degree=2, evaluate=_square),
    "identity": Activation("Identity", "", _BOTH, formula="z", remark=_LINEAR),
    "tanh": Activation("Tanh", "tanh", _SIGN, formula="tanh(z)"),
    "erf": Activation("", "erf", _SIGN, formula="erf(z)", aliases=("special_erf",)),
    "softsign": Activation("Softsign", "softsign", _SIGN, formula="z / (1 + |z|)"),
    "sine": Activation(
        "", "", frozenset({SIGN, PHASE}), "omega", 1.0, "sin(omega z)",
        phase=math.pi, evaluate=_sine, aliases=("sin",),
    ),
    "cosine": Activation("", "cos", frozenset({PHASE}), formula="cos(z)", phase=math.pi, remark=_EVEN),
    "hardtanh": Activation(
        "Hardtanh", "hardtanh", _SIGN, formula="min(max(z, -1), 1)", remark="odd with bounds -c and c alone"
    ),
    "tanhshrink": Activation("Tanhshrink", "tanhshrink", _SIGN, formula="z - tanh(z)"),
    "softshrink": Activation(
        "Softshrink", "softshrink", _SIGN, "lambd", 0.5, "sign(z) max(|z| - lambd, 0)"
    ),
    "hardshrink": Activation("Hardshrink", "hardshrink", _SIGN, "lambd", 0.5, "z where |z| > lambd, else 0"),
    "arctan": Activation("", "arctan", _SIGN, formula="arctan(z)", aliases=("atan",)),
    "arcsinh": Activation("", "arcsinh", _SIGN, formula="arsinh(z)", aliases=("asinh",)),
    "sigmoid": Activation(
        "Sigmoid", "sigmoid", _FLIP, formula="1 / (1 + exp(-z))", flip=1.0, aliases=("special_expit",)
    ),
    "hardsigmoid": Activation(
        "Hardsigmoid", "hardsigmoid", _FLIP, formula="min(max(z / 6 + 1/2, 0), 1)", flip=1.0
    ),
    "normal_cdf": Activation(
        "", "", _FLIP, formula="P(N(0, 1) < z)", flip=1.0, evaluate=_normal_cdf, aliases=("special_ndtr", "ndtr")
    ),
    "gelu": Activation("GELU", "gelu", formula="z P(N(0, 1) < z)"),
    "silu": Activation("SiLU", "silu", formula="z / (1 + exp(-z))"),
    "elu": Activation("ELU", "elu", frozenset(), "alpha", 1.0, "z where z > 0, else alpha (exp(z) - 1)"),
    "celu": Activation("CELU", "celu", frozenset(), "alpha", 1.0, "z where z > 0, else alpha (exp(z / alpha) - 1)"),
    "selu": Activation("SELU", "selu", formula="1.0507 elu(z), alpha = 1.6733"),
    "mish": Activation("Mish", "mish", formula="z tanh(log(1 + exp(z)))"),
    "softplus": Activation("Softplus", "softplus", formula="log(1 + exp(z))"),
    "logsigmoid": Activation(
        "LogSigmoid", "logsigmoid", formula="-log(1 + exp(-z))", aliases=("log_sigmoid", "log_sigmoid_forward")
    ),
    "hardswish": Activation("Hardswish", "hardswish", formula="z min(max(z / 6 + 1/2, 0), 1)"),
    "relu6": Activation(
        "ReLU6", "relu6", formula="min(max(z, 0), 6)", remark="a(6 - z) = 6 - a(z), which is not handled"
    ),
}  # fmt: skip


def activation(name: str) -> Activation:
    """Return the table's row for `name`, a key of `ACTIVATIONS`.

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
