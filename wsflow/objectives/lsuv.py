"""Layer-sequential unit variance (LSUV): networks brought to the scale of new inputs, before they learn from them.

What a network learned on one task is often out of range on another: neurons are dead or never off, and its outputs are
sure of the wrong thing. An affine change of each neuron puts that right and keeps its direction. It looks at inputs
only: at no target, and at no gradient.

References
----------
Mishkin and Matas 2016, arXiv:1511.06422; Kraehenbuehl et al. 2016, arXiv:1511.06856; Salimans and Kingma 2016,
arXiv:1602.07868 (the same for initialisation).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wsflow.architecture import Architecture, Layer
from wsflow.architecture.sequential import LINEAR
from wsflow.geometry import Geometry
from wsflow.running import flatten, unflatten
from wsflow.running.execution import run_layers
from wsflow.task import Task

INPUTS = 1000  # so many inputs at most are looked at
OUTPUT_DEVIATION = 0.3  # of logits: small, so that no class is given up before training


def standardized(
    weights: Tensor, architecture: Architecture, inputs: Tensor, output_deviation: float = OUTPUT_DEVIATION
) -> Tensor:
    """Each neuron's pre-activation gets mean 0 and deviation 1 on some inputs, and outputs mean 0 and a small one.

    All outputs share one factor, so that what they say is scaled and shifted, and nothing else.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    architecture : Architecture
        Sequential.
    inputs : Tensor of shape (b, p)
    output_deviation : float

    Returns
    -------
    Tensor of shape (n, d)

    Raises
    ------
    ValueError
        If the networks are not sequential.

    Examples
    --------
    >>> import torch
    >>> from wsflow import Architecture
    >>> from wsflow.objectives.lsuv import standardized
    >>> from wsflow.running import forward
    >>> generator = torch.Generator().manual_seed(0)
    >>> rows, inputs = torch.randn(2, 23, generator=generator), torch.randn(50, 4, generator=generator)
    >>> architecture = Architecture.mlp([4, 3, 2])
    >>> outputs = forward(standardized(5 * rows, architecture, inputs, 1.0), architecture, inputs)
    >>> bool(outputs.mean(1).abs().max() < 1e-5), bool((outputs.var(1, correction=0).mean(1) - 1).abs().max() < 1e-5)
    (True, True)
    """
    linear = [layer for layer in architecture.layers if layer.kind == LINEAR]
    if not linear:
        raise ValueError("Only sequential networks are standardized: this architecture does not say how to run itself.")
    tensors = {name: tensor.clone() for name, tensor in unflatten(weights, architecture).items()}
    for layer in linear:
        outputs = next(out for step, out in run_layers(tensors, architecture, inputs) if step is layer)
        variance, mean = torch.var_mean(outputs, 1, correction=0)
        if layer is linear[-1]:
            factor = output_deviation / variance.mean(1, keepdim=True).clamp_min(1e-12).sqrt()
        else:
            factor = 1 / variance.clamp_min(1e-12).sqrt()
        _rescale(tensors, layer, mean, factor)
    return flatten(tensors, architecture)


def _rescale(tensors: dict[str, Tensor], layer: Layer, mean: Tensor, factor: Tensor) -> None:
    """z becomes factor (z - mean), as far as a layer without biases can do that."""
    tensors[f"{layer.name}.weight"] = tensors[f"{layer.name}.weight"] * factor.unsqueeze(-1)
    if layer.bias:
        tensors[f"{layer.name}.bias"] = factor * (tensors[f"{layer.name}.bias"] - mean)


def standardizer(task: Task | None, architecture: Architecture, geometry: Geometry) -> Callable[[Tensor], Tensor]:
    """`standardized` as a map of points (n, size), on inputs of a task.

    A ValueError says that there is no task, or that the geometry is curved: its neurons have a norm that they keep.
    """
    if task is None or not (geometry.base or geometry).target.is_flat:
        raise ValueError(
            "Networks are standardized on a task's inputs, in a flat geometry. Guide by a Task and fit with "
            "geometry='euclidean', or say standardize=False in the Descent."
        )
    inputs = torch.from_numpy(task.X[:: -(-len(task.X) // INPUTS)]).flatten(1)

    def standardize(points: Tensor) -> Tensor:
        return geometry.to_points(standardized(geometry.to_weights(points), architecture, inputs.to(points)))

    return standardize
