"""Natural gradients of a task's loss: steps measured by what they change in the networks' outputs.

The Gauss-Newton matrix of each linear layer is taken as a Kronecker product of the second moments of what comes
in and of what is propagated back (K-FAC). All networks share the inputs' second moment, which comes from all inputs
of the task at once; the others are averages over the minibatches so far, with closed-form curvature of the loss: no
label and no further gradient of the loss is used for them.

References
----------
Martens and Grosse 2015, arXiv:1503.05671 (the factors, and how damping is split between them); Martens 2020,
arXiv:1412.1193 (natural gradients).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wsflow.architecture import Architecture, Layer
from wsflow.architecture.sequential import LINEAR
from wsflow.geometry import Geometry
from wsflow.objectives.functionals import TaskLoss, minibatches
from wsflow.running import flatten, losses, tensors_of, unflatten
from wsflow.running.execution import run_layers

MEMORY = 0.95  # of the running averages of the factors
INPUTS = 20_000  # from so many inputs at most their second moment is taken


class NaturalGradient:
    """From points to natural gradients of a loss, with the curvature of the minibatches so far.

    Parameters
    ----------
    objective : TaskLoss
    architecture : Architecture
        Sequential.
    geometry : Geometry
    damping : float
        Relative to the mean curvature.
    generator : torch.Generator
        Of the minibatches.

    Raises
    ------
    ValueError
        If the objective is not a task's loss, or the networks are not sequential.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from wsflow import Architecture, Task
    >>> from wsflow.objectives.functionals import TaskLoss
    >>> from wsflow.objectives.kfac import NaturalGradient
    >>> from wsflow.geometry import GEOMETRIES
    >>> architecture, loss = Architecture.mlp([4, 3, 2]), TaskLoss(Task(np.eye(4), [0, 1, 0, 1]))
    >>> slope = NaturalGradient(loss, architecture, GEOMETRIES["euclidean"](architecture), 0.1, torch.Generator())
    >>> slope(torch.ones(5, 23)).shape
    torch.Size([5, 23])
    """

    def __init__(
        self,
        objective: Any,
        architecture: Architecture,
        geometry: Geometry,
        damping: float,
        generator: torch.Generator,
    ) -> None:
        if not isinstance(objective, TaskLoss) or not architecture.layers:
            raise ValueError(
                "Natural gradients are for the loss of sequential networks on a task. Pass a Task as the objective, or "
                "say natural=False in the Descent."
            )
        self.objective = objective
        self.architecture = architecture
        self.geometry = geometry
        self.damping = damping
        self._draw = minibatches(objective.task, objective.batch_size, architecture, generator)
        self._linear = [layer for layer in architecture.layers if layer.kind == LINEAR]
        self._into: list[Tensor | None] = [None] * len(self._linear)
        self._back: list[Any] = [None] * len(self._linear)
        self._criterion = objective.task.criterion
        inputs, _, share = tensors_of(objective.task)
        rows = slice(None, None, -(-len(inputs) // INPUTS))
        seen, share = inputs[rows].flatten(1).double().unsqueeze(0), None if share is None else share[rows]
        # the inputs' second moment has another damping for each network: its eigenvectors serve all of them
        self._inputs = torch.linalg.eigh(_moment(seen, self._linear[0].bias, share))

    def __call__(self, points: Tensor) -> Tensor:
        """From points (n, size) to directions of ascent (n, size)."""
        weights = self.geometry.to_weights(self.geometry.target.projection(points)).detach()
        direction = self._direction(weights)
        change: Tensor = torch.func.jvp(self.geometry.to_points, (weights,), (direction,))[1]
        return change

    def _direction(self, weights: Tensor) -> Tensor:
        inputs, targets, share = self._draw(weights)
        with torch.enable_grad():
            leaf = weights.requires_grad_()
            into, out = self._run(leaf, inputs)
            loss = losses(out[-1], targets, self.objective.task.loss, share).sum()
            (gradient,) = torch.autograd.grad(loss, leaf, retain_graph=True)
            self._observe(into, out, share)
        tensors = unflatten(gradient, self.architecture)
        for i, layer in enumerate(self._linear):
            self._precondition(tensors, layer, i)
        weights.requires_grad_(False)
        return flatten(tensors, self.architecture)

    def _run(self, weights: Tensor, inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What goes into each linear layer, and what comes out."""
        into, out, hidden = [], [], inputs.flatten(1).unsqueeze(0)
        for layer, result in run_layers(unflatten(weights, self.architecture), self.architecture, inputs.flatten(1)):
            if layer.kind == LINEAR:
                into.append(hidden.detach())
                out.append(result)
            hidden = result
        return into, out

    def _observe(self, into: list[Tensor], out: list[Tensor], share: Tensor | None) -> None:
        """Add a minibatch to the averages of the factors."""
        backs = [torch.zeros((), dtype=o.dtype) for o in out]
        for column in self._criterion.curvature_root(out[-1].detach()):
            parts = torch.autograd.grad(out[-1], out, column, retain_graph=True)
            backs = [b + _second_moment(e, share) for b, e in zip(backs, parts, strict=True)]
        for i, (layer, back) in enumerate(zip(self._linear, backs, strict=True)):
            self._back[i] = _averaged(self._back[i], back)
            if i > 0:
                self._into[i] = _averaged(self._into[i], _moment(into[i], layer.bias, share))

    def _precondition(self, tensors: dict[str, Tensor], layer: Layer, i: int) -> None:
        """G^-1 D A^-1 for the gradient D of a layer, its bias as a last column; in place of the gradient."""
        back, into = self._back[i], self._into[i]
        values, vectors = (m.to(back) for m in (self._inputs if into is None else torch.linalg.eigh(into)))
        gradient = tensors[f"{layer.name}.weight"]
        if layer.bias:
            gradient = torch.cat([gradient, tensors[f"{layer.name}.bias"].unsqueeze(-1)], -1)
        share = (values.mean(-1) / back.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-8)).sqrt()
        root = self.damping**0.5
        left = back + torch.diag_embed((root / share).unsqueeze(-1).expand(-1, back.shape[-1]))
        half = torch.linalg.solve(left, gradient)
        spectrum = values.clamp_min(0) + (root * share).unsqueeze(-1)
        natural = (half @ vectors / spectrum.unsqueeze(1)) @ vectors.transpose(1, 2)
        tensors[f"{layer.name}.weight"] = natural[..., : layer.inputs]
        if layer.bias:
            tensors[f"{layer.name}.bias"] = natural[..., -1]


def _moment(inputs: Tensor, bias: bool, share: Tensor | None) -> Tensor:
    """E[a a^T] (n, p, p) of what goes into a layer (n, b, p), with a constant 1 for the bias."""
    if bias:
        inputs = torch.cat([inputs, inputs.new_ones(*inputs.shape[:2], 1)], -1)
    return _second_moment(inputs, share)


def _second_moment(values: Tensor, share: Tensor | None) -> Tensor:
    """E[a a^T] (n, p, p) of values (n, b, p), with weights (b,) of examples whose mean is 1."""
    weighted = values if share is None else values * share.to(values).unsqueeze(-1)
    return values.transpose(1, 2) @ weighted / values.shape[1]


def _averaged(before: Tensor | None, now: Tensor) -> Tensor:
    return now if before is None else MEMORY * before + (1 - MEMORY) * now
