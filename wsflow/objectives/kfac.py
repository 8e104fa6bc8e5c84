"""Natural gradients of a task's loss: steps measured by what they change in the networks' outputs.

The Gauss-Newton matrix of each linear layer or convolution is taken as a Kronecker product of the second moments of
what comes in and of what is propagated back (K-FAC), that of all other parameters (gains and biases of norms,
embeddings, slopes, transposed convolutions) as a diagonal. They are averages over the minibatches so far, with
closed-form curvature of the loss: no label and no further gradient of the loss is used for them. Where what comes into
a layer depends on the inputs alone, all networks share its second moment, which comes from all inputs of the task.

References
----------
Martens and Grosse 2015, arXiv:1503.05671; Martens 2020, arXiv:1412.1193 (natural gradients); Bekas, Kokiopoulou and
Saad 2007 (diagonals from random signs). Those of `wsflow.objectives.kronecker`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.geometry import Geometry
from wsflow.objectives.functionals import TaskLoss, minibatches
from wsflow.objectives.kronecker import MEMORY, KroneckerFactors, input_moment, output_moment
from wsflow.running import flatten, losses, matched, tensors_of, unflatten
from wsflow.running.affine import Affine
from wsflow.running.affine_layers import AffineLayers, Compute, Use
from wsflow.running.sequential import program_of

INPUTS = 20_000  # from so many inputs at most their second moment is taken
CHUNK_NUMBERS = 2**24  # of patches, or of outputs of layers, that are written at once
WIDEST = 4096  # larger factors are not inverted: such layers are preconditioned as other parameters


class NaturalGradient:
    """From points to natural gradients of a loss, with the curvature of the minibatches so far.

    Parameters
    ----------
    objective : TaskLoss
    architecture : Architecture
        One with layers or a program.
    geometry : Geometry
    damping : float
        Added to the curvature.
    generator : torch.Generator
        Of the minibatches, and of the signs from which diagonals are estimated.

    Raises
    ------
    ValueError
        If the objective is not a task's loss, or the networks have neither layers nor a program.

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
        if not isinstance(objective, TaskLoss) or program_of(architecture) is None:
            raise ValueError(
                "Natural gradients are for the loss on a task, of networks that have layers or a program. Pass a Task "
                "as the objective, or say natural=False in the Descent."
            )
        self.objective = objective
        self.architecture = architecture
        self.geometry = geometry
        self.damping = damping
        self._draw = minibatches(objective.task, objective.batch_size, architecture, generator)
        self._generator = generator
        self._criterion = objective.task.criterion
        inputs, _, share = tensors_of(objective.task)
        rows = slice(None, None, -(-len(inputs) // INPUTS))
        self._layers = AffineLayers(architecture, inputs[:2])
        self._shapes = {p.name: p.shape for p in architecture.parameters}
        self._uses = _by_layer(self._layers.uses, self._shapes)
        self.factors = {name: KroneckerFactors(self._affine(name)) for name in self._uses}
        self._share_given(inputs[rows], None if share is None else share[rows])
        inside = {name for factors in self.factors.values() for name in (factors.layer.weight, factors.layer.bias)}
        self._others = [p.name for p in architecture.parameters if p.name not in inside and p.role == "weight"]
        self.diagonal: Tensor | None = None

    def __call__(self, points: Tensor) -> Tensor:
        """From points (n, size) to directions of ascent (n, size)."""
        weights = self.geometry.to_weights(self.geometry.target.projection(points)).detach()
        direction = self._direction(weights)
        return torch.func.jvp(self.geometry.to_points, (weights,), (direction,))[1]

    def _affine(self, name: str) -> Affine:
        return self._layers.uses[self._uses[name][0]].affine

    def _share_given(self, inputs: Tensor, share: Tensor | None) -> None:
        """Take the second moments of what depends on the inputs alone.

        Their damping differs between networks, and their eigenvectors serve all of them.
        """
        given = [name for name, uses in self._uses.items() if all(self._layers.uses[i].given for i in uses)]
        if not given:
            return
        zeros = torch.zeros(1, self.architecture.n_weights, dtype=torch.float64)
        totals: dict[str, Any] = dict.fromkeys(given, 0.0)
        size = self._chunk(given, len(inputs))
        parts = [None] * len(inputs) if share is None else share.split(size)
        for batch, part in zip(inputs.split(size), parts, strict=False):
            with torch.no_grad():
                _, into, _ = self._run(zeros, matched(batch, zeros))
            for name in given:
                seen = [into[i] for i in self._uses[name]]
                moment = input_moment(self._affine(name), seen, self._shapes[name], part)
                totals[name] = totals[name] + moment * (len(batch) / len(inputs))
        for name, total in totals.items():
            self.factors[name].spectrum = torch.linalg.eigh(total)

    def _chunk(self, names: Sequence[str], most: int) -> int:
        """Return how many examples run at once."""
        each = [sum(use.numbers for use in self._layers.uses)]
        for name in names:
            for use in (self._layers.uses[i] for i in self._uses[name]):
                shape = self._shapes[name]
                # the outputs' positions, times the size of a patch
                each.append(use.numbers // shape[0] * use.affine.groups * prod(shape[1:]))
        return min(most, max(1, CHUNK_NUMBERS // max(each)))

    def _direction(self, weights: Tensor) -> Tensor:
        inputs, targets, share = self._draw(weights)
        with torch.enable_grad():
            leaf = weights.requires_grad_()
            outputs, into, out = self._run(leaf, inputs)
            loss = losses(outputs, targets, self.objective.task.loss, share).sum()
            (gradient,) = torch.autograd.grad(loss, leaf, retain_graph=True)
            self._observe(into, out, outputs, leaf, share)
        # nothing descends by statistics
        gradient[:, self.architecture.statistic_columns] = 0
        tensors = unflatten(gradient, self.architecture)
        self._precondition(tensors)
        weights.requires_grad_(False)
        return flatten(tensors, self.architecture)

    def _run(self, weights: Tensor, inputs: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The outputs of the networks, and what comes into and out of each use of their layers."""
        into: list[Tensor] = []
        out: list[Tensor] = []

        def keep(i: int, affine: Affine, x: Tensor, weight: Tensor, bias: Tensor | None, compute: Compute) -> Tensor:
            into.append(x.detach())
            out.append(compute(weight, bias))
            return out[-1]

        return self._layers.run(weights, inputs, keep), into, out

    def _observe(
        self, into: Sequence[Tensor], out: Sequence[Tensor], outputs: Tensor, leaf: Tensor, share: Tensor | None
    ) -> None:
        """Add a minibatch to the averages of the factors and of the diagonal."""
        signs = self._signs(outputs, share)
        diagonal = torch.zeros_like(leaf, requires_grad=False)
        # signs have the weights of the examples in them
        share_back = share if signs is None else None
        backs: dict[str, Any] = dict.fromkeys(self._uses, 0.0)
        wanted = [*out, *([leaf] if self._others else [])]
        for column in self._criterion.curvature_root(outputs.detach()):
            column = column if signs is None else column * signs
            parts = torch.autograd.grad(
                outputs, wanted, column, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            for name, uses in self._uses.items():
                backs[name] = backs[name] + output_moment(self._affine(name), [parts[i] for i in uses], share_back)
            if self._others:
                diagonal += parts[-1].square() / outputs.shape[1]
        for name, uses in self._uses.items():
            self.factors[name].observe_back(backs[name])
            self.factors[name].observe_into([into[i] for i in uses], self._shapes[name], share)
        before = self.diagonal
        self.diagonal = diagonal if before is None else MEMORY * before + (1 - MEMORY) * diagonal

    def _signs(self, outputs: Tensor, share: Tensor | None) -> Tensor | None:
        """Random signs (b, 1) of the examples: the square of a sum with them has the sum of squares as its mean."""
        if not self._others:
            return None
        signs = 2 * torch.randint(2, (outputs.shape[1], 1), generator=self._generator).to(outputs) - 1
        return signs if share is None else signs * share.to(signs).sqrt().unsqueeze(-1)

    def _precondition(self, tensors: dict[str, Tensor]) -> None:
        """Divide gradients by the damped curvature, in their place."""
        for name, factors in self.factors.items():
            bias = factors.layer.bias
            new = factors.precondition(tensors[name], tensors[bias] if bias else None, self.damping)
            tensors[name] = new[0]
            if bias and new[1] is not None:
                tensors[bias] = new[1]
        curvature = unflatten(self.diagonal, self.architecture) if self.diagonal is not None else {}
        for name in self._others:
            tensors[name] = tensors[name] / (curvature[name] + self.damping)


def _by_layer(uses: Sequence[Use], shapes: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Return the numbers of the uses of each weight whose factors are small enough, in the order of execution."""
    found: dict[str, list[int]] = {}
    for i, use in enumerate(uses):
        shape = shapes[use.affine.weight]
        if max(shape[0], prod(shape[1:])) < WIDEST and not use.affine.transposed:
            found.setdefault(use.affine.weight, []).append(i)
    return found
