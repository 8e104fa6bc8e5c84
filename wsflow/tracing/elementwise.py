"""Elementwise functions as the tracer meets them: the activation table, and plain mathematics."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch

from wsflow.activations import ACTIVATIONS, FLIP, PHASE, POSITIVE, SIGN, Activation


@dataclass(frozen=True)
class Elementwise:
    """What a function of one number commutes with.

    f(s z) = s^degree f(z) for positive s (None if for none); f(-z) = -f(z) if odd, f(z) if even, flip - f(z) where
    there is a flip; f(z + phase) = -f(z) where there is a phase; f(0) = 0 if zero.
    """

    degree: int | Fraction | None = None
    odd: bool = False
    even: bool = False
    flip: float | None = None
    phase: float | None = None
    zero: bool = False

    @classmethod
    def of(cls, row: Activation) -> Elementwise:
        """Return that of a row of the activation table."""
        degree = row.degree if POSITIVE in row.scalings else None
        return cls(
            degree=degree,
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
    "relu": Elementwise(degree=1, zero=True),
    **dict.fromkeys(("sinh", "tan", "asin", "atanh"), Elementwise(odd=True, zero=True)),
    **dict.fromkeys(("expm1", "log1p", "log_sigmoid_forward"), Elementwise(zero=True)),
    **dict.fromkeys(("exp", "exp2", "log", "log2", "log10"), KEEPS_NOTHING),
    **dict.fromkeys(("isnan", "isinf", "logical_not"), Elementwise(degree=0, even=True)),
    **dict.fromkeys(("sign", "sgn"), Elementwise(degree=0, odd=True, zero=True)),
    **dict.fromkeys(("signbit", "isposinf", "isneginf"), Elementwise(degree=0, zero=True)),
    "ceil": Elementwise(zero=True),
    "cos": Elementwise(even=True),
    "abs": Elementwise(degree=1, even=True, zero=True),
    "square": Elementwise(degree=2, even=True, zero=True),
    "neg": Elementwise(degree=1, odd=True, zero=True),
    "sqrt": Elementwise(degree=Fraction(1, 2), zero=True),
    "rsqrt": Elementwise(degree=Fraction(-1, 2)),
    "reciprocal": Elementwise(degree=-1, odd=True),
}

# a > b, a != b and so on, of numbers that scale alike
COMPARISONS: dict[str, Elementwise] = {
    **dict.fromkeys(("gt", "lt"), Elementwise(degree=0, zero=True)),
    **dict.fromkeys(("ge", "le"), Elementwise(degree=0)),
    "ne": Elementwise(degree=0, even=True, zero=True),
    "eq": Elementwise(degree=0, even=True),
}
