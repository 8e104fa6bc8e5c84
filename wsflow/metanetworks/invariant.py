"""Networks that give numbers for networks: an encoder and an invariant readout.

References
----------
Zaheer et al. 2017, arXiv:1703.06114 (pooling over sets); Kofinas et al. 2024, arXiv:2403.12143.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError
from wsflow.metanetworks.encoders import ENCODERS
from wsflow.metanetworks.layers import ColumnScale
from wsflow.metanetworks.readouts import InvariantReadout, pooled


class AtTimeZero(nn.Module):
    """An encoder of velocity networks as one of networks alone: at time 0, with no condition and no hints."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder: Any = encoder

    def fit_scale(self, x: Tensor) -> None:
        """Take the scale of networks (n, d)."""
        self.encoder.scale.fit(x)
        if isinstance(self.encoder.scale, ColumnScale):
            self.encoder.scale.ignore_constants()

    def forward(self, x: Tensor) -> Any:
        """Return the states of networks (n, d)."""
        return self.encoder(x, x.new_zeros(len(x)))


class InvariantNetwork(nn.Module):
    """From networks (n, d) to numbers (n, outputs) that the group of an encoder does not change.

    Parameters
    ----------
    encoder : nn.Module
        From prepared networks to states, with `fit_scale` and perhaps `prepare`, which undoes symmetries first.
    readout : nn.Module
        From states to numbers.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.metanetworks.invariant import invariant_network
    >>> network = invariant_network("deep_sets", Architecture.mlp([4, 3, 2]), 1, dim=8)
    >>> network(torch.zeros(5, 23)).shape
    torch.Size([5, 1])
    """

    def __init__(self, encoder: nn.Module, readout: nn.Module) -> None:
        super().__init__()
        self.encoder: Any = encoder
        self.readout = readout

    def prepare(self, x: Tensor) -> Tensor:
        """Return networks (n, d) as `of_prepared` takes them: the same functions, and once is enough."""
        return self.encoder.prepare(x) if hasattr(self.encoder, "prepare") else x

    def fit_scale(self, x: Tensor) -> None:
        """Take scales from prepared networks (n, d) of the population."""
        self.encoder.fit_scale(x)

    def of_prepared(self, x: Tensor) -> Tensor:
        """Return numbers (n, outputs) for prepared networks (n, d)."""
        return self.readout(self.encoder(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return numbers (n, outputs) for networks (n, d)."""
        return self.of_prepared(self.prepare(x))


def invariant_network(
    name: str, architecture: Architecture | int, n_outputs: int, *, dropout: float = 0.0, **options: Any
) -> InvariantNetwork:
    """Build an invariant network of an encoder.

    Parameters
    ----------
    name : str
        A key of `wsflow.metanetworks.encoders.ENCODERS`.
    architecture : Architecture or int
        Of the networks; "mlp" also takes the size of plain vectors.
    n_outputs : int
    dropout : float
        Of the encoder and of the readout, in training.
    **options
        Parameters of the encoder.

    Raises
    ------
    InvalidInputError
        If there is no such encoder, or it does not read such networks.

    Examples
    --------
    >>> import torch
    >>> from wsflow.metanetworks.invariant import invariant_network
    >>> invariant_network("mlp", 6, 3, dim=8, depth=1)(torch.zeros(2, 6)).shape
    torch.Size([2, 3])
    """
    if name not in ENCODERS:
        raise InvalidInputError(f"There is no encoder {name!r}. Choose one of {', '.join(ENCODERS)}.")
    if isinstance(architecture, int) and name != "mlp":
        raise InvalidInputError(
            f"The encoder {name!r} needs to know what the columns are. Pass networks with their architecture, such as "
            "WeightArray(X, architecture), or use the encoder 'mlp'."
        )
    entry = ENCODERS[name]
    encoder = entry.encoder(architecture, dropout=dropout, **options)
    encoder = encoder if entry.readout is None else AtTimeZero(encoder)
    size = architecture if isinstance(architecture, int) else architecture.n_weights
    with torch.no_grad():
        states = encoder.eval()(torch.zeros(1, size))
        width = pooled(tree_leaves(states)).shape[1]
    return InvariantNetwork(encoder.train(), InvariantReadout(width, n_outputs, dropout))
