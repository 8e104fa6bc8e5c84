"""Outputs of n networks: by their program, or by their module where it could not be kept as one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_map

from wsflow.architecture import Architecture
from wsflow.architecture.readable import unwrapped
from wsflow.exceptions import InvalidInputError
from wsflow.running.kernels import is_drawing
from wsflow.running.outputs import output_of
from wsflow.running.rows import unflatten
from wsflow.running.runner import Run
from wsflow.running.sequential import program_of
from wsflow.running.steps import Draws, Generators


def forward(
    weights: Tensor,
    architecture: Architecture,
    inputs: Tensor | tuple[Tensor, ...],
    module: nn.Module | None = None,
    *,
    training: bool = False,
    generator: Generators | None = None,
) -> Tensor:
    """Compute the outputs of every network on a batch of inputs.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    inputs : Tensor of shape (b, ...), or (n, b, ...) for a batch of its own for each network, or a tuple of them
        Which of both it is follows from the input that the architecture was read with. Networks that only a module
        runs share their input.
    module : nn.Module, optional
        Runs networks that do not run by themselves, in evaluation mode.
    training : bool
        Whether batch norms take the statistics of the batch, and dropout acts. `train_forward` returns the updated
        statistics as well.
    generator : torch.Generator, or a sequence of n of them, optional
        For what is drawn at random in training mode: one for all networks, or one for each.

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
    if training:
        return train_forward(weights, architecture, inputs, generator)[0]
    tensors = unflatten(weights, architecture)
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    if module is None and (run := evaluation_run(tensors, architecture)):
        return output_of(run.output(*given))
    module = architecture.module if module is None else module
    if module is None:
        raise ValueError("This architecture does not say how to run its networks. Pass module=.")
    return run_module(tensors, unwrapped(module), *given, chosen=output_of)


def train_forward(
    weights: Tensor,
    architecture: Architecture,
    inputs: Tensor | tuple[Tensor, ...],
    generator: Generators | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the outputs of every network in training mode, and the statistics that a training step leaves.

    Batch norms take the statistics of the batch, and dropout acts, with masks of its own for each network.

    Returns
    -------
    Tensor of shape (n, b, outputs), Tensor of shape (n, s)
        The outputs, and the values for ``weights[:, architecture.statistic_columns]``.

    Raises
    ------
    InvalidInputError
        If the networks have no training mode, or something is drawn without a generator.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from wsflow import Architecture, WeightArray
    >>> from wsflow.running import train_forward
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(4 * 36, 2))
    >>> architecture = Architecture.from_module(net, torch.zeros(2, 1, 8, 8))
    >>> weights = torch.from_numpy(WeightArray.from_modules([net, net], architecture))
    >>> generator = torch.Generator().manual_seed(0)
    >>> outputs, statistics = train_forward(weights, architecture, torch.randn(5, 1, 8, 8), generator)
    >>> weights[:, architecture.statistic_columns] = statistics
    >>> outputs.shape, statistics.shape
    (torch.Size([2, 5, 2]), torch.Size([2, 9]))
    """
    run = training_run(unflatten(weights, architecture), architecture, generator)
    outputs = output_of(run.output(*(inputs if isinstance(inputs, tuple) else (inputs,))))
    known = {**run.tensors, **(run.updated or {})}
    statistics = [known[p.name].reshape(run.n, -1) for p in architecture.parameters if p.role == "statistic"]
    return outputs, torch.cat(statistics, dim=1).detach() if statistics else weights.detach()[:, :0]


def evaluation_run(tensors: Mapping[str, Tensor], architecture: Architecture) -> Run | None:
    """Return a run of networks (n, *shape) in evaluation mode; None if only a module runs them."""
    program = program_of(architecture)
    if program is not None and program is architecture.program and architecture.module is None:
        # a program from a file is tried once
        _ = architecture.is_tried
    return None if program is None else Run(program, tensors)


def training_run(tensors: Mapping[str, Tensor], architecture: Architecture, generator: Generators | None = None) -> Run:
    """Return a run of networks with these parameters (n, *shape) in training mode."""
    run = evaluation_run(tensors, architecture)
    if run is None:
        raise InvalidInputError(
            "These networks have no training mode, because what they compute could not be kept as a program."
        )
    if why := run.program.evaluation_only:
        raise InvalidInputError(f"These networks run in evaluation mode only: {why}.")
    drawing = next((operation for operation in run.program.operations if is_drawing(operation)), None)
    if drawing is not None and generator is None:
        where = f"the layer {drawing.layer!r}" if drawing.layer else "the networks"
        raise InvalidInputError(
            f"In training mode {where} draws random numbers ({drawing.base}). Pass generator=torch.Generator()."
        )
    return replace(run, draws=None if generator is None else Draws(run.n, generator), updated={})


def run_module(
    tensors: Mapping[str, Tensor], module: nn.Module, *inputs: Any, chosen: Callable[[Any], Any] | None = None
) -> Any:
    """Return the outputs (n, ...) of a module in evaluation mode for every network, on the same inputs.

    `tensors` (n, *shape) replace parameters and buffers; those that are missing remain the module's own, and those of
    buffers that it has no more are left out. `chosen` returns what counts of a result (default: all of it).
    """

    def one(state: dict[str, Tensor]) -> Any:
        result = torch.func.functional_call(module, state, inputs)
        return result if chosen is None else chosen(result)

    # buffers that are None, such as statistics of norms that use those of the batch
    buffers = ((path, name, x) for path, layer in module.named_modules() for name, x in layer._buffers.items())
    gone = {f"{path}.{name}" if path else name for path, name, buffer in buffers if buffer is None}
    tensors = {**_constants(module, tensors), **{name: x for name, x in tensors.items() if name not in gone}}
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
