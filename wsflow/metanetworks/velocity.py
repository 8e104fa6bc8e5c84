"""Velocity networks: an encoder that is conditioned on time, and an equivariant readout."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from wsflow.architecture import Architecture
from wsflow.metanetworks.encoders import ENCODERS, VELOCITY_ENCODERS


class VelocityNetwork(nn.Module):
    """v(x, t | c): vectors at points x of shape (n, size), for times t and conditions c of shape (n,).

    Parameters
    ----------
    encoder : nn.Module
        With attributes `scale` (of points, and of vectors in its `inverse`), `time` (the embedding of time and
        condition), `tokens` (the columns that it reads) and `has_one_width`. It gives states, from points, times,
        conditions and hints.
    readout : nn.Module
        From states, the scale and hints to vectors; it has the encoder's `tokens`.

    References
    ----------
    Lipman et al. 2023, "Flow matching for generative modeling", arXiv:2210.02747.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.metanetworks.velocity import velocity_network
    >>> network = velocity_network("neuron", Architecture.mlp([4, 3, 3, 2]), dim=8, depth=1, heads=2)
    >>> network(torch.zeros(5, 35), torch.zeros(5)).shape
    torch.Size([5, 35])
    """

    def __init__(self, encoder: nn.Module, readout: nn.Module) -> None:
        super().__init__()
        self.encoder: Any = encoder
        self.readout: Any = readout
        self.register_load_state_dict_pre_hook(_rename_keys)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, hints: Tensor | None = None) -> Tensor:
        """Return vectors (n, size), after reading hints (n, n_hints, size) if there are some."""
        states = self.encoder(x, t, condition, hints)
        return self.readout(states, self.encoder.scale, hints)

    def fit_scale(self, x: Tensor) -> None:
        """Take the scale of points, and of vectors at them, from points (n, size) of the population."""
        self.encoder.scale.fit(x)

    def fit_condition(self, condition: Tensor) -> None:
        """Take the standardization of conditions from those of the population, (n,)."""
        self.encoder.time.condition.fit(condition)

    def at_width(self, architecture: Architecture, n_extra: int = 0) -> VelocityNetwork:
        """Return a copy, with the same parameters, for another hidden width of the same architecture.

        Parameters
        ----------
        n_extra : int
            Coordinates behind the weights.

        Raises
        ------
        ValueError
            If the network tells neurons apart, by name or by place.
        """
        if self.encoder.has_one_width:
            raise ValueError(
                "This network tells neurons apart, so it has one width. Fit with "
                "velocity=NeuronTransformer(identity=None) to use others."
            )
        other = copy.deepcopy(self)
        other.encoder.tokens = other.readout.tokens = type(self.encoder.tokens)(architecture, n_extra)
        other.encoder.scale.set_architecture(architecture, n_extra)
        return other


def velocity_network(name: str, architecture: Architecture | int, n_extra: int = 0, **options: Any) -> VelocityNetwork:
    """Build the velocity network of an encoder.

    Parameters
    ----------
    name : str
        One of `wsflow.metanetworks.encoders.VELOCITY_ENCODERS`.
    architecture : Architecture or int
        Of the networks; "mlp" also takes the size of plain vectors.
    n_extra : int
        Coordinates behind the weights, such as the log-norm of a polar output layer.
    **options
        Parameters of the encoder.

    Raises
    ------
    ValueError
        If the encoder has no equivariant readout.

    Examples
    --------
    >>> import torch
    >>> from wsflow.metanetworks.velocity import velocity_network
    >>> velocity_network("mlp", 6, dim=8, depth=1)(torch.zeros(2, 6), torch.zeros(2)).shape
    torch.Size([2, 6])
    """
    entry = ENCODERS[name]
    if entry.readout is None:
        raise ValueError(
            f"The encoder {name!r} has no equivariant readout: it serves predictors. Velocity networks are built of "
            f"{', '.join(VELOCITY_ENCODERS)}."
        )
    encoder = entry.encoder(architecture, n_extra, **options)
    return VelocityNetwork(encoder, entry.readout(encoder.tokens, encoder.dim, encoder.n_hints))


# parameters that had another place or name in files of version 0.1; the last rule is for the neuron transformer alone
RENAMED = (
    (r"^(scale|time|names|read\w*|layers|blocks|norm)\.", r"encoder.\1."),
    (r"^(mean|deviation)$", r"encoder.scale.\1"),
    (r"^follow\.", "readout.hint_factors."),
    (r"^write", "readout.write"),
    (r"^kinds$", "encoder.group_vectors"),
    (r"(layers\.\d+)\.(modulation|norm)\.", r"\1.norm.\2."),
    (r"(layers\.\d+)\.ahead\.", r"\1.forwards."),
    (r"(layers\.\d+)\.behind\.", r"\1.backwards."),
)
NEURON_FEED = {"norm_feed": "feed.0", "feed.0": "feed.1", "feed.2": "feed.3"}


def current_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of version 0.1 with today's keys; one of today as it is."""
    if any(key.startswith("encoder.") for key in state):
        return dict(state)
    is_neuron = any(".norm_feed." in key for key in state)
    renamed = {}
    for old, value in state.items():
        key = old
        for pattern, replacement in RENAMED:
            key = re.sub(pattern, replacement, key)
        if is_neuron:
            key = re.sub(r"(?<=\.)(norm_feed|feed\.[02])(?=\.)", lambda match: NEURON_FEED[match[0]], key)
        renamed[key] = value
    return renamed


def _rename_keys(network: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    own = {key.removeprefix(prefix): state.pop(key) for key in list(state) if key.startswith(prefix)}
    state |= {prefix + key: value for key, value in current_keys(own).items()}
