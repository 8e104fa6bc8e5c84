"""Outputs of n networks: layer by layer where they are sequential, by their module elsewhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_map

from wsflow.activations import activation
from wsflow.architecture import Architecture, Layer
from wsflow.architecture.readable import unwrapped
from wsflow.architecture.sequential import LINEAR
from wsflow.running.outputs import output_of
from wsflow.running.rows import unflatten


def forward(weights: Tensor, architecture: Architecture, inputs: Tensor, module: nn.Module | None = None) -> Tensor:
    """Compute the outputs of every network on a batch of inputs.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    inputs : Tensor of shape (b, p), or (n, b, p) for a batch of its own for each network
        For networks that a module runs: one input of the module, for all networks.
    module : nn.Module, optional
        Runs networks that are not sequential, in evaluation mode (default: the architecture's module).

    Returns
    -------
    Tensor of shape (n, b, outputs)

    Raises
    ------
    ValueError
        If the architecture does not say how to run itself and no module does.

    Examples
    --------
    >>> import torch
    >>> from wsflow import Architecture
    >>> from wsflow.running import forward
    >>> forward(torch.zeros(5, 23), Architecture.mlp([4, 3, 2]), torch.zeros(7, 4)).shape
    torch.Size([5, 7, 2])
    """
    tensors = unflatten(weights, architecture)
    if module is None and architecture.layers:
        for _, hidden in run_layers(tensors, architecture, inputs):
            outputs = hidden
        return outputs
    module = architecture.executable if module is None else module
    if module is None:
        raise ValueError("This architecture does not say how to run its networks. Pass module=.")
    return run_module(tensors, unwrapped(module), inputs, chosen=output_of)


def run_layers(
    tensors: Mapping[str, Tensor], architecture: Architecture, inputs: Tensor
) -> Iterator[tuple[Layer, Tensor]]:
    """Yield each layer of sequential networks with its outputs (n, b, neurons), on inputs (b, p) or (n, b, p)."""
    first = next(iter(tensors.values()))
    inputs = inputs if inputs.is_floating_point() else inputs.to(first)
    hidden = inputs if inputs.dim() == 3 else inputs.expand(len(first), *inputs.shape)
    for layer in architecture.layers:
        hidden = apply_layer(layer, tensors, hidden)
        yield layer, hidden


def apply_layer(layer: Layer, tensors: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
    """Return the outputs (n, b, neurons) of one layer of sequential networks."""
    if layer.kind != LINEAR:
        row = activation(layer.kind)
        # slopes (n, 1, neurons), or (n, 1, 1) where all share one
        return row(hidden, tensors[f"{layer.name}.weight"].unsqueeze(1) if row.learned else layer.argument)
    bias = tensors[f"{layer.name}.bias"] if layer.bias else None
    return batched_linear(hidden, tensors[f"{layer.name}.weight"], bias)


def batched_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the outputs (n, b, q) of linear layers with weights (n, q, p) and biases (n, q), on inputs (n, b, p)."""
    if bias is None:
        return torch.bmm(inputs, weight.transpose(1, 2))
    return torch.baddbmm(bias.unsqueeze(1), inputs, weight.transpose(1, 2))


def run_module(
    tensors: Mapping[str, Tensor], module: nn.Module, *inputs: Any, chosen: Callable[[Any], Any] | None = None
) -> Any:
    """Return the outputs (n, ...) of a module in evaluation mode for every network, on the same inputs.

    `tensors` (n, *shape) replace parameters and buffers; those that are missing remain the module's own. `chosen`
    returns what counts of a result (default: all of it).
    """

    def one(state: dict[str, Tensor]) -> Any:
        result = torch.func.functional_call(module, state, inputs)
        return result if chosen is None else chosen(result)

    tensors = {**_constants(module, tensors), **tensors}
    with _batchable(), restored(module):
        # a convolution batched over networks is a grouped one, which takes twice the time of one after the other
        if not any(isinstance(layer, _ConvNd) for layer in module.modules()):
            with suppress(RuntimeError):
                # some operations cannot be batched over networks
                return torch.func.vmap(one)(tensors)
        n = len(next(iter(tensors.values())))
        results = [one({name: tensor[i] for name, tensor in tensors.items()}) for i in range(n)]
        return tree_map(lambda *each: torch.stack(each), *results)


def _constants(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the module's own buffers of reals (n, *shape), in the type of the weights."""
    first = next(iter(tensors.values()))
    return {
        name: buffer.to(first).expand(len(first), *buffer.shape)
        for name, buffer in module.named_buffers()
        if name not in tensors and buffer.is_floating_point()
    }


@contextmanager
def restored(module: nn.Module) -> Iterator[None]:
    """Put back, behind a pass, the attributes of all layers in which they keep what they computed."""
    before = [(vars(layer), dict(vars(layer))) for layer in module.modules()]
    try:
        yield
    finally:
        for attributes, own in before:
            for name in attributes.keys() - own.keys():
                del attributes[name]
            attributes.update(own)


@contextmanager
def _batchable() -> Iterator[None]:
    """Let torch run attention by plain operations, because the fused ones cannot be batched over networks."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
            # torch warns where it batches an operation slowly, such as a PReLU with one slope
            warnings.filterwarnings("ignore", "There is a performance drop|An output with one or more", UserWarning)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
