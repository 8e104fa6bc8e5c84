"""Elementwise functions as the tracer meets them: the activation table, and plain mathematics."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from wsflow.activations import ACTIVATIONS, FLIP, PHASE, POSITIVE, SIGN, Activation


@dataclass(frozen=True)
class Elementwise:
    """What a function of one number commutes with.

    f(s z) = s^degree f(z) for positive s (0 if for none); f(-z) = -f(z) if odd, f(z) if even, flip - f(z) where there
    is a flip; f(z + phase) = -f(z) where there is a phase; f(0) = 0 if zero.
    """

    degree: int = 0
    odd: bool = False
    even: bool = False
    flip: float | None = None
    phase: float | None = None
    zero: bool = False

    @classmethod
    def of(cls, row: Activation) -> Elementwise:
        """Return that of a row of the activation table."""
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
    **dict.fromkeys(("relu", "rrelu_with_noise"), Elementwise(degree=1, zero=True)),
    **dict.fromkeys(("sinh", "tan", "sign", "asin", "atanh"), Elementwise(odd=True, zero=True)),
    **dict.fromkeys(("expm1", "log1p", "sqrt", "log_sigmoid_forward", "threshold"), Elementwise(zero=True)),
    **dict.fromkeys(("exp", "exp2", "log", "log2", "log10", "rsqrt", "reciprocal"), KEEPS_NOTHING),
    **dict.fromkeys(("isnan", "isinf", "logical_not", "ceil"), KEEPS_NOTHING),
    "cos": Elementwise(even=True),
    "abs": Elementwise(degree=1, even=True, zero=True),
    "square": Elementwise(degree=2, even=True, zero=True),
    "neg": Elementwise(degree=1, odd=True, zero=True),
}
