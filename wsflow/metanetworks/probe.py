"""What networks do on probe inputs: whatever keeps their functions changes nothing.

References
----------
Herrmann, Faccio and Schmidhuber 2024, "Learning useful representations of recurrent neural network weight matrices",
arXiv:2403.11998; Kofinas et al. 2024, arXiv:2403.12143 (probe features).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError
from wsflow.metanetworks.layers import ColumnScale, residual_block
from wsflow.running import forward
from wsflow.running.example_inputs import example_inputs


class ProbeEncoder(nn.Module):
    """Encode networks by a residual network on their outputs for probe inputs.

    Parameters
    ----------
    n_probes : int
        Inputs, drawn from a normal distribution where none are given; networks with a fixed batch get whole batches.
    inputs : Tensor of shape (b, ...), or a tuple of them, optional
        The probes; by default they are drawn.
    learned : bool
        Whether probes of real numbers are trained; integers are not.
    dim, depth : int
        Width and number of residual blocks.
    dropout : float
        Probability for what each block adds, in training.

    Raises
    ------
    InvalidInputError
        If the architecture does not say how its networks run.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.metanetworks.probe import ProbeEncoder
    >>> ProbeEncoder(Architecture.mlp([4, 3, 2]), n_probes=6, dim=8)(torch.zeros(5, 23)).shape
    torch.Size([5, 8])
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        n_probes: int = 64,
        inputs: Tensor | tuple[Tensor, ...] | None = None,
        learned: bool = True,
        dim: int = 128,
        depth: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        batches: list[Any] = _drawn(architecture, n_probes) if inputs is None else [inputs]
        self.n_inputs = len(batches[0]) if isinstance(batches[0], tuple) else 1
        flat = [x for batch in batches for x in (batch if isinstance(batch, tuple) else (batch,))]
        for i, x in enumerate(flat):
            if learned and x.is_floating_point():
                self.register_parameter(f"probe{i}", nn.Parameter(x.float().clone()))
            else:
                self.register_buffer(f"probe{i}", x.clone())
        self.n_tensors = len(flat)
        with torch.no_grad():
            size = self.outputs(torch.zeros(1, architecture.n_weights)).shape[1]
        self.scale = ColumnScale(size)
        self.read = nn.Linear(size, dim)
        self.blocks = nn.ModuleList(residual_block(dim, dropout) for _ in range(depth))

    @torch.no_grad()
    def begin_at(self, inputs: Tensor, generator: torch.Generator) -> None:
        """Let learned probes begin at some of these inputs (b, ...), where they are of that shape."""
        order = torch.randperm(len(inputs), generator=generator)
        for probe in self.parameters(recurse=False):
            if probe.shape[1:] == inputs.shape[1:]:
                probe.copy_(inputs[order[torch.arange(len(probe)) % len(order)]])

    def fit_scale(self, x: Tensor) -> None:
        """Take means and standard deviations of the outputs from networks (n, d)."""
        with torch.no_grad():
            outputs = self.outputs(x)
        if not outputs.isfinite().all():
            raise InvalidInputError(
                "Outputs on the probe inputs are not finite: what was drawn for them is nothing that these networks "
                "take. Give the probe inputs of theirs."
            )
        self.scale.fit(outputs)
        self.scale.ignore_constants()

    def outputs(self, x: Tensor) -> Tensor:
        """Return all outputs (n, numbers) of networks (n, d) on the probes."""
        probes = [getattr(self, f"probe{i}") for i in range(self.n_tensors)]
        found: list[Tensor] = []
        for start in range(0, self.n_tensors, self.n_inputs):
            result: Any = forward(x, self.architecture, tuple(probes[start : start + self.n_inputs]))
            found += [y.flatten(1) for y in tree_leaves(result) if isinstance(y, Tensor) and y.is_floating_point()]
        return torch.cat(found, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return states (n, dim) of networks (n, d)."""
        h = self.read(self.scale(self.outputs(x)))
        for block in self.blocks:
            h = h + block(h)
        return h


def _drawn(architecture: Architecture, n: int) -> list[tuple[Tensor, ...]]:
    """Draw batches of inputs from torch's global generator, which a fit has seeded: n of them, or some more."""
    generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
    first = example_inputs(architecture, n, generator, torch.float32)
    if first is None:
        raise InvalidInputError(
            "The encoder 'probe' runs networks, and this architecture does not say how. Read it from a module, "
            "or use an encoder that reads weights, such as 'neuron'."
        )
    rest = max(0, math.ceil(n / max(1, len(first[0]))) - 1)
    more = [example_inputs(architecture, n, generator, torch.float32) for _ in range(rest)]
    return [first, *(batch for batch in more if batch is not None)]
