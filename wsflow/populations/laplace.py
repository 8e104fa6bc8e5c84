"""Networks around a trained one: a Laplace approximation of the posterior of its last layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError
from wsflow.memory import check_memory
from wsflow.populations.arguments import takes_networks
from wsflow.running import matched, tensors_of
from wsflow.running.affine import Affine
from wsflow.running.affine_layers import AffineLayers, Compute
from wsflow.running.compatibility import check_task
from wsflow.task import Task
from wsflow.weights import WeightArray

EXAMPLES = 4096  # whose features are kept at a time
ITERATIONS = 200  # of the fixed point, which settles in about ten
SMALLER = "Take networks with fewer features in front of the last layer."
NOT_LINEAR = (
    "The outputs of these networks are not those of a linear layer of their own, so that no Laplace approximation is "
    "known. Draw networks by variational inference, or by SGHMC."
)


@takes_networks("network")
def last_layer_laplace(
    network: WeightArray,
    task: Task,
    n_samples: int = 100,
    *,
    prior_precision: float | None = None,
    random_state: int = 0,
) -> WeightArray:
    """Draw networks whose last layer has the Laplace approximation of its posterior around a trained network.

    The weights and biases of the last layer are normal around the trained ones, with the precision H + delta: the
    Gauss-Newton matrix H = sum_n (R_n R_n^T) (x) (f_n f_n^T) of the loss over all examples of the task, by the features
    f that come in, and the precision delta of the prior. The other layers are the network's own.

    Parameters
    ----------
    network : WeightArray of shape (1, d)
        Trained on the task.
    task : Task
        Its loss is read as a negative log-likelihood in nats.
    n_samples : int
    prior_precision : float, optional
        By default the one with the largest evidence, by the fixed point delta = sum_i (h_i / (h_i + delta)) / |w|^2.
    random_state : int

    Returns
    -------
    WeightArray of shape (n_samples, d)

    Raises
    ------
    InvalidInputError
        If there is not one network, or its outputs are not those of a linear layer.
    MemoryLimitError
        If the precision matrix does not fit into memory.

    References
    ----------
    MacKay 1992, "A practical Bayesian framework for backpropagation networks"; Daxberger et al. 2021,
    arXiv:2106.14806.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, Task, WeightArray, predictive_curve
    >>> from wsflow.populations.laplace import last_layer_laplace
    >>> network = WeightArray(np.random.default_rng(0).normal(size=(1, 23)), Architecture.mlp([4, 3, 2]))
    >>> samples = last_layer_laplace(network, Task(np.eye(4), [0, 1, 0, 1]), 50)
    >>> samples.shape, bool((samples[:, :15] == network[:, :15]).all())
    ((50, 23), True)
    """
    if len(network) != 1:
        raise InvalidInputError(f"A Laplace approximation is one around one network, got {len(network)}: pass one row.")
    check_task(network.architecture, task)
    row = torch.from_numpy(np.array(network, dtype=np.float64))
    places, curvature = _last_layer(row, network.architecture, task)
    curved, axes = torch.linalg.eigh(curvature)
    curved = curved.clamp_min(0)
    precision = _evidence(curved, row[0, places]) if prior_precision is None else prior_precision
    noise = torch.randn(n_samples, len(curved), generator=torch.Generator().manual_seed(random_state)).double()
    rows = row.repeat(n_samples, 1)
    rows[:, places] += noise * (curved + precision).rsqrt() @ axes.T
    return WeightArray(rows.numpy().astype(network.dtype), network.architecture)


def _last_layer(row: Tensor, architecture: Architecture, task: Task) -> tuple[Tensor, Tensor]:
    """Return the columns (q,) of the last layer's entries, by its outputs, and the curvature (q, q) of the loss."""
    inputs, _, share = tensors_of(task)
    layers = AffineLayers(architecture, matched(inputs[:2], torch.empty(0, dtype=torch.float32)))
    if not layers.uses or layers.elsewhere & {layers.uses[-1].affine.weight, layers.uses[-1].affine.bias}:
        raise InvalidInputError(NOT_LINEAR)
    affine, columns = layers.uses[-1].affine, torch.arange(row.shape[1])
    shape = next(parameter.shape for parameter in architecture.parameters if parameter.name == affine.weight)
    places = columns[architecture.slices[affine.weight]].reshape(shape[0], -1)
    if affine.bias:
        places = torch.cat([places, columns[architecture.slices[affine.bias]].unsqueeze(1)], 1)
    check_memory(f"{places.numel():,} weights of a last layer with their precision", 32 * places.numel() ** 2, SMALLER)
    total: Any = 0.0
    for examples in torch.arange(len(inputs)).split(EXAMPLES):
        features, outputs = _run(layers, row, matched(inputs[examples], row))
        if affine.bias:
            features = torch.cat([features, torch.ones_like(features[:, :1])], 1)
        total = total + _curvature(features, outputs, task, None if share is None else share[examples])
    return places.ravel(), total * (task.size / len(inputs))


@torch.no_grad()
def _run(layers: AffineLayers, row: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return what comes into the last layer (b, p), and the outputs (b, k)."""
    seen: list[Tensor] = []

    def see(i: int, affine: Affine, x: Tensor, weight: Tensor, bias: Tensor | None, compute: Compute) -> Tensor:
        seen[:] = [x[0], compute(weight, bias)]
        return seen[1]

    outputs = layers.run(row, inputs, see)
    features, last = seen
    if features.dim() != 2 or not torch.equal(last, outputs):
        raise InvalidInputError(NOT_LINEAR)
    return features, outputs[0]


def _curvature(features: Tensor, outputs: Tensor, task: Task, share: Tensor | None) -> Tensor:
    """Return sum_n (R_n R_n^T) (x) (f_n f_n^T), of the Hessians R R^T by the outputs."""
    root = torch.stack(task.criterion.curvature_root(outputs), 2)
    hessian = root @ root.mT
    if share is not None:
        hessian = hessian * share[:, None, None]
    k, p = outputs.shape[1], features.shape[1]
    # of one output after the other: all at once are (b, k, k, p)
    parts = [(row.unsqueeze(2) * features.unsqueeze(1)).flatten(1).T @ features for row in hessian.unbind(1)]
    return torch.stack([part.view(k, p, p) for part in parts]).transpose(1, 2).reshape(k * p, k * p)


def _evidence(curved: Tensor, weights: Tensor) -> float:
    """Return the prior's precision with the largest evidence, by the eigenvalues of the curvature (MacKay 1992)."""
    norm, precision = float(weights.square().sum()), 1.0
    for _ in range(ITERATIONS):
        precision = float((curved / (curved + precision)).sum()) / norm
    return precision
