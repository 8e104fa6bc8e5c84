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

from wsflow.architecture import Architecture
from wsflow.geometry import Geometry
from wsflow.running import flatten, matched, unflatten
from wsflow.running.affine import Affine
from wsflow.running.affine_layers import AffineLayers, Compute
from wsflow.task import Task

INPUTS = 1000  # so many inputs at most are looked at
OUTPUT_DEVIATION = 0.3  # of logits: small, so that no class is given up before training


def standardized(
    weights: Tensor, architecture: Architecture, inputs: Tensor, output_deviation: float = OUTPUT_DEVIATION
) -> Tensor:
    """Each neuron's pre-activation gets mean 0 and deviation 1 on some inputs, and outputs mean 0 and a small one.

    Linear layers and convolutions are rescaled in the order in which they run; the neurons of convolutions are their
    channels, over all pixels. All outputs share one factor, so that what they say is scaled and shifted, and nothing
    else. A layer that is used twice is rescaled by its first use. Weights that other operations use too, such as
    embeddings, stay as they are, and so do the statistics of batch norms.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    architecture : Architecture
        One with layers or a program.
    inputs : Tensor of shape (b, ...)
    output_deviation : float

    Returns
    -------
    Tensor of shape (n, d)

    Raises
    ------
    ValueError
        If the networks have neither layers nor a program.

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
    layers = AffineLayers(architecture, inputs[:2])
    last = architecture.outputs or (layers.uses[-1].affine.weight,)
    new: dict[str, Tensor] = {}

    def standardize(
        i: int, affine: Affine, inputs: Tensor, weight: Tensor, bias: Tensor | None, compute: Compute
    ) -> Tensor:
        if affine.weight not in new and affine.weight not in layers.elsewhere:
            deviation = output_deviation if affine.weight in last else None
            new.update(_rescaled(affine, compute(weight, bias), weight, bias, deviation))
        # a layer that is used again has the weights that its first use gave it
        return compute(new.get(affine.weight, weight), new.get(affine.bias, bias) if affine.bias else None)

    with torch.no_grad():
        layers.run(weights, inputs, standardize)
    return flatten({**unflatten(weights, architecture), **new}, architecture)


def _rescaled(
    affine: Affine, outputs: Tensor, weight: Tensor, bias: Tensor | None, deviation: float | None
) -> dict[str, Tensor]:
    """z becomes factor (z - mean), as far as a layer without biases can do that; one factor for a given deviation."""
    variance, mean = torch.var_mean(outputs, affine.sample_axes(outputs), correction=0)
    if deviation is None:
        factor = 1 / variance.clamp_min(1e-12).sqrt()
    else:
        factor = (deviation / variance.mean(-1, keepdim=True).clamp_min(1e-12).sqrt()).expand_as(mean)
    new = {affine.weight: affine.scaled(weight, factor)}
    return new if bias is None or affine.bias is None else {**new, affine.bias: factor * (bias - mean)}


def standardizer(task: Task | None, architecture: Architecture, geometry: Geometry) -> Callable[[Tensor], Tensor]:
    """`standardized` as a map of points (n, size), on inputs of a task.

    A ValueError says that there is no task, or that the geometry is curved: its neurons have a norm that they keep.
    """
    if task is None or not (geometry.base or geometry).target.is_flat:
        raise ValueError(
            "Networks are standardized on a task's inputs, in a flat geometry. Guide by a Task and fit with "
            "geometry='euclidean', or say standardize=False in the Descent."
        )
    inputs = torch.from_numpy(task.X[:: -(-len(task.X) // INPUTS)])

    def standardize(points: Tensor) -> Tensor:
        return geometry.to_points(standardized(geometry.to_weights(points), architecture, matched(inputs, points)))

    return standardize
