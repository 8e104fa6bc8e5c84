"""Running n networks at once: rows of weights to named tensors, outputs, losses and predictions."""

from __future__ import annotations

import copy
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_map

from wsflow.activations import activation
from wsflow.architecture import Architecture, Layer
from wsflow.architecture.layers import LINEAR


def unflatten(weights: Tensor, architecture: Architecture) -> dict[str, Tensor]:
    """Rows of weights as named tensors, stacked over networks.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    architecture : Architecture

    Returns
    -------
    dict from str to Tensor of shape (n, *shape)

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.networks import unflatten
    >>> unflatten(torch.zeros(5, 23), Architecture.mlp([4, 3, 2]))["0.weight"].shape
    torch.Size([5, 3, 4])
    """
    # one split has one concatenation as its backward pass, where slices would have a tensor of zeros each
    parts = torch.split(weights, [p.size for p in architecture.parameters], dim=1)
    return {p.name: x.reshape(len(weights), *p.shape) for p, x in zip(architecture.parameters, parts, strict=True)}


def flatten(tensors: Mapping[str, Tensor], architecture: Architecture) -> Tensor:
    """The inverse of `unflatten`.

    Parameters
    ----------
    tensors : mapping from str to Tensor of shape (n, *shape)
    architecture : Architecture

    Returns
    -------
    Tensor of shape (n, d)

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.networks import flatten, unflatten
    >>> architecture, weights = Architecture.mlp([4, 3, 2]), torch.arange(46.0).reshape(2, 23)
    >>> torch.equal(flatten(unflatten(weights, architecture), architecture), weights)
    True
    """
    return torch.cat([tensors[name].reshape(len(tensors[name]), -1) for name in architecture.names], dim=1)


def take(rows: Tensor, columns: Tensor) -> Tensor:
    """Columns of rows, in the shape of the index.

    ``index_select`` has a much faster backward pass than advanced indexing.

    Parameters
    ----------
    rows : Tensor of shape (n, d)
    columns : LongTensor of any shape

    Returns
    -------
    Tensor of shape (n, *columns.shape)

    Examples
    --------
    >>> import torch
    >>> from wsflow.networks import take
    >>> take(torch.arange(6.0).reshape(2, 3), torch.tensor([[2], [0]])).tolist()
    [[[2.0], [0.0]], [[5.0], [3.0]]]
    """
    return rows.index_select(1, columns.reshape(-1).to(rows.device)).reshape(len(rows), *columns.shape)


def forward(weights: Tensor, architecture: Architecture, inputs: Tensor, module: nn.Module | None = None) -> Tensor:
    """Outputs of every network on a batch of inputs.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    architecture : Architecture
    inputs : Tensor of shape (b, p), or (n, b, p) for a batch of its own for each network
        For networks that a module runs: what it takes, one batch for all.
    module : nn.Module, optional
        What runs networks that are not sequential (default: the architecture's module); in evaluation mode.

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
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.networks import forward
    >>> forward(torch.zeros(5, 23), Architecture.mlp([4, 3, 2]), torch.zeros(7, 4)).shape
    torch.Size([5, 7, 2])
    """
    tensors = unflatten(weights, architecture)
    if module is None and architecture.layers:
        return deque(run_layers(tensors, architecture, inputs), maxlen=1)[0][1]
    module = architecture.module if module is None else module
    if module is None:
        raise ValueError("This architecture does not say how to run its networks. Pass module=.")
    return run_module(tensors, module, inputs)


def run_layers(
    tensors: Mapping[str, Tensor], architecture: Architecture, inputs: Tensor
) -> Iterator[tuple[Layer, Tensor]]:
    """What comes out of each layer of sequential networks.

    Parameters
    ----------
    tensors : mapping from str to Tensor of shape (n, *shape)
    architecture : Architecture
    inputs : Tensor of shape (b, p), or (n, b, p) for a batch of its own for each network

    Yields
    ------
    layer : Layer
    hidden : Tensor of shape (n, b, outputs)

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.networks import run_layers, unflatten
    >>> architecture = Architecture.mlp([4, 3, 2])
    >>> run = run_layers(unflatten(torch.zeros(5, 23), architecture), architecture, torch.zeros(7, 4))
    >>> [(layer.kind, tuple(hidden.shape)) for layer, hidden in run]
    [('linear', (5, 7, 3)), ('relu', (5, 7, 3)), ('linear', (5, 7, 2))]
    """
    first = next(iter(tensors.values()))
    inputs = inputs if inputs.is_floating_point() else inputs.to(first)
    hidden = inputs if inputs.dim() == 3 else inputs.expand(len(first), *inputs.shape)
    for layer in architecture.layers:
        hidden = _apply(layer, tensors, hidden)
        yield layer, hidden


def _apply(layer: Layer, tensors: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
    if layer.kind != LINEAR:
        row = activation(layer.kind)
        # slopes (n, 1, neurons), or (n, 1, 1) where all share one
        return row(hidden, tensors[f"{layer.name}.weight"].unsqueeze(1) if row.learned else layer.argument)
    weight = tensors[f"{layer.name}.weight"].transpose(1, 2)
    if not layer.bias:
        return torch.bmm(hidden, weight)
    return torch.baddbmm(tensors[f"{layer.name}.bias"].unsqueeze(1), hidden, weight)


def _keywords(layer: Layer) -> dict[str, float]:
    return {} if layer.argument is None else {activation(layer.kind).argument: layer.argument}


def run_module(tensors: Mapping[str, Tensor], module: nn.Module, *inputs: Any) -> Any:
    """What a module returns for every network, on the same inputs.

    Parameters
    ----------
    tensors : mapping from str to Tensor of shape (n, *shape)
        Parameters and buffers; what is missing, such as buffers of integers, is the module's own.
    module : nn.Module
        In evaluation mode.
    *inputs
        What its forward pass takes.

    Returns
    -------
    What the module returns, with an axis of networks in front of each tensor

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from wsflow.networks import run_module
    >>> run_module({"weight": torch.ones(5, 2, 4), "bias": torch.zeros(5, 2)}, nn.Linear(4, 2), torch.ones(7, 4)).shape
    torch.Size([5, 7, 2])
    """

    def one(state: dict[str, Tensor]) -> Any:
        return torch.func.functional_call(module, state, inputs)

    tensors = {**_constants(module, tensors), **tensors}
    with _batchable():
        # a convolution batched over networks is a grouped one, which takes twice the time of one after the other
        if not any(isinstance(layer, _ConvNd) for layer in module.modules()):
            with suppress(RuntimeError):
                # some operations cannot be batched over networks
                return torch.func.vmap(one)(tensors)
        n = len(next(iter(tensors.values())))
        results = [one({name: tensor[i] for name, tensor in tensors.items()}) for i in range(n)]
        return tree_map(lambda *parts: torch.stack(parts), *results)


def _constants(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The module's own buffers of reals, in the type of the weights."""
    some = next(iter(tensors.values()))
    return {
        name: buffer.to(some).expand(len(some), *buffer.shape)
        for name, buffer in module.named_buffers()
        if name not in tensors and buffer.is_floating_point()
    }


@contextmanager
def _batchable() -> Iterator[None]:
    """Attention by plain operations: the fused ones cannot be batched over networks."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
            # how torch batches some operations, such as a PReLU with one slope, is its own affair
            warnings.filterwarnings("ignore", "There is a performance drop|An output with one or more", UserWarning)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def losses(outputs: Tensor, targets: Tensor, loss: str) -> Tensor:
    """Mean loss of every network.

    Parameters
    ----------
    outputs : Tensor of shape (n, b, k)
        Logits, or predictions of a regression.
    targets : Tensor of shape (b,) or (n, b) of classes; (b, k) or (n, b, k) of reals
    loss : {"cross_entropy", "mse"}

    Returns
    -------
    Tensor of shape (n,)

    Examples
    --------
    >>> import torch
    >>> from wsflow.networks import losses
    >>> losses(torch.zeros(2, 4, 2), torch.tensor([0, 1, 0, 1]), "cross_entropy")
    tensor([0.6931, 0.6931])
    """
    if loss == "mse":
        return (outputs - targets).square().mean((1, 2))
    targets = targets.expand(outputs.shape[:2])
    return -outputs.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1).mean(1)


def scores(outputs: Tensor, targets: Tensor, loss: str) -> Tensor:
    """Accuracy of every network, or its coefficient of determination R^2 for a regression.

    Parameters
    ----------
    outputs, targets, loss
        As in `losses`.

    Returns
    -------
    Tensor of shape (n,)

    Examples
    --------
    >>> import torch
    >>> from wsflow.networks import scores
    >>> scores(torch.tensor([[[2.0, 1.0], [2.0, 1.0]]]), torch.tensor([0, 1]), "cross_entropy")
    tensor([0.5000])
    """
    if loss == "mse":
        residual = (outputs - targets).square().sum((1, 2))
        total = (targets - targets.mean(-2, keepdim=True)).square().sum((-2, -1))
        return 1 - residual / total
    return (outputs.argmax(-1) == targets).to(outputs.dtype).mean(1)


def predictions(outputs: Tensor, loss: str) -> Tensor:
    """What a network says: class probabilities, or the outputs of a regression.

    Parameters
    ----------
    outputs : Tensor of shape (n, b, k)
    loss : {"cross_entropy", "mse"}

    Returns
    -------
    Tensor of shape (n, b, k)

    Examples
    --------
    >>> import torch
    >>> from wsflow.networks import predictions
    >>> predictions(torch.zeros(1, 1, 2), "cross_entropy")
    tensor([[[0.5000, 0.5000]]])
    """
    return outputs.softmax(-1) if loss == "cross_entropy" else outputs


def deviation(before: Tensor, after: Tensor) -> Tensor:
    """The largest change of an output of each network, over its largest output.

    Parameters
    ----------
    before, after : Tensor of shape (n, ...)

    Returns
    -------
    Tensor of shape (n,)
        Zero without a change, and infinite where outputs that were all zero have changed.

    Examples
    --------
    >>> import torch
    >>> from wsflow.networks import deviation
    >>> deviation(torch.tensor([[1.0, -4.0], [0.0, 0.0]]), torch.tensor([[1.5, -5.0], [0.0, 0.0]]))
    tensor([0.2500, 0.0000])
    """
    before, after = before.flatten(1), after.flatten(1)
    change, largest = (after - before).abs().amax(1), before.abs().amax(1)
    return torch.where(change == 0, change, change / largest)


def to_module(architecture: Architecture, state: Mapping[str, Tensor], template: Any = None) -> nn.Module:
    """One network as a torch module.

    Parameters
    ----------
    architecture : Architecture
    state : mapping from str to Tensor
    template : nn.Module, optional
        Copied, where the architecture is not sequential.

    Returns
    -------
    nn.Module

    Raises
    ------
    ValueError
        If the architecture is not sequential and there is no template.
    """
    if template is not None:
        module = copy.deepcopy(template)
        missing, unexpected = module.load_state_dict(dict(state), strict=False)
        if wrong := [name for name in (*missing, *unexpected) if name not in architecture.constants]:
            raise ValueError(
                f"The template is not one of this architecture: only one of them has {wrong[0]!r}. Pass a module of "
                "the class whose networks these are."
            )
        return module
    if not architecture.layers:
        raise ValueError("This architecture does not say how to build its modules. Pass template=.")
    module = nn.Sequential(*(_module(layer, state) for layer in architecture.layers))
    for layer, child in zip(architecture.layers, module, strict=True):
        if isinstance(child, nn.Linear):
            child.weight.data.copy_(state[f"{layer.name}.weight"])
            if layer.bias:
                child.bias.data.copy_(state[f"{layer.name}.bias"])
        elif isinstance(child, nn.PReLU):
            child.weight.data.copy_(state[f"{layer.name}.weight"])
    return module


def _module(layer: Layer, state: Mapping[str, Tensor]) -> nn.Module:
    if layer.kind != LINEAR:
        return _activation_module(layer, state)
    dtype = state[f"{layer.name}.weight"].dtype
    # skip_init: nn.Linear's own initialisation would draw from the global generator
    linear: nn.Module = nn.utils.skip_init(nn.Linear, layer.inputs, layer.outputs, bias=layer.bias, dtype=dtype)
    return linear


def _activation_module(layer: Layer, state: Mapping[str, Tensor]) -> nn.Module:
    row = activation(layer.kind)
    if not row.module:
        return Elementwise(layer.kind, layer.argument)
    if row.learned:
        slopes = state[f"{layer.name}.weight"]
        return nn.PReLU(len(slopes), dtype=slopes.dtype)
    return getattr(nn, row.module)(**_keywords(layer))


class Elementwise(nn.Module):
    """An activation of the table for which torch has no module of its own.

    Parameters
    ----------
    kind : str
        A key of the activation table.
    argument : float, optional
        Default: the table's.

    Examples
    --------
    >>> import torch
    >>> from wsflow.networks import Elementwise
    >>> Elementwise("relu_power", 3)(torch.tensor([-1.0, 2.0]))
    tensor([0., 8.])
    """

    def __init__(self, kind: str, argument: float | None = None) -> None:
        super().__init__()
        self.kind, self.argument = kind, argument

    def forward(self, z: Tensor) -> Tensor:
        """What the activation makes of a tensor.

        Parameters
        ----------
        z : Tensor

        Returns
        -------
        Tensor
        """
        return activation(self.kind)(z, self.argument)

    def extra_repr(self) -> str:
        """Its kind, for the module's description."""
        return self.kind if self.argument is None else f"{self.kind}, {self.argument:g}"
