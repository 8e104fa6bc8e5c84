"""Elementwise functions as the tracer meets them: what scalings pass; the activation table, and plain mathematics."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from wsflow.activations import ACTIVATIONS, FLIP, PHASE, POSITIVE, SIGN, Activation


@dataclass(frozen=True)
class Elementwise:
    """What a function of one number commutes with.

    Parameters
    ----------
    degree : int
        f(s z) = s^degree f(z) for positive s; 0 if for none.
    odd, even : bool
    flip : float, optional
        f(-z) = flip - f(z).
    phase : float, optional
        f(z + phase) = -f(z).
    zero : bool
        f(0) = 0.
    """

    degree: int = 0
    odd: bool = False
    even: bool = False
    flip: float | None = None
    phase: float | None = None
    zero: bool = False

    @classmethod
    def of(cls, row: Activation) -> Elementwise:
        """A row of the activation table."""
        degree = row.degree if POSITIVE in row.scalings else 0
        return cls(
            degree=degree or 0,
            odd=SIGN in row.scalings and (degree or 1) % 2 == 1,
            even=SIGN in row.scalings and (degree or 1) % 2 == 0,
            flip=row.flip if FLIP in row.scalings else None,
            phase=row.phase if PHASE in row.scalings else None,
            zero=float(row(torch.zeros(()))) == 0,
        )


KEEPS_NOTHING = Elementwise()

ELEMENTWISE: dict[str, Elementwise] = {
    **{
        name: Elementwise.of(row)
        for row in ACTIVATIONS.values()
        if not row.learned
        for name in (row.function, *row.aliases)
        if name
    },
    **{name: Elementwise(degree=1, zero=True) for name in ("relu", "rrelu_with_noise")},
    **{name: Elementwise(odd=True, zero=True) for name in ("sinh", "tan", "sign", "asin", "atanh")},
    **{name: Elementwise(zero=True) for name in ("expm1", "log1p", "sqrt", "log_sigmoid_forward", "threshold")},
    **{
        name: Elementwise()
        for name in (
            "exp",
            "log",
            "rsqrt",
            "reciprocal",
            "isnan",
            "isinf",
            "exp2",
            "log2",
            "log10",
            "logical_not",
            "ceil",
        )
    },
    "cos": Elementwise(even=True),
    "abs": Elementwise(degree=1, even=True, zero=True),
    "square": Elementwise(degree=2, even=True, zero=True),
    "neg": Elementwise(degree=1, odd=True, zero=True),
}


def elementwise(name: str) -> Elementwise:
    """The row of an operation.

    Parameters
    ----------
    name : str
        In torch's graphs.

    Returns
    -------
    Elementwise
    """
    return ELEMENTWISE[name]
