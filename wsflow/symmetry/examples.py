"""Examples on which networks are compared: batches of a task, and losses of many networks on them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from wsflow.architecture import Architecture
from wsflow.running import forward, losses, unflatten
from wsflow.running.execution import run_module

# rows of weights that are run or optimised at once hold at most so many numbers
CHUNK_NUMBERS = 2**23
BLOCK = 2048


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs and targets with the loss of networks on them.

    Batch norms use the statistics of the batch: those of an average of two networks belong to neither, and are
    recomputed after merging anyway.

    Parameters
    ----------
    architecture : Architecture
        One that has layers, or a module.
    inputs : Tensor of shape (b, ...)
    targets : Tensor of shape (b,) or (b, k)
    loss : {"cross_entropy", "mse"}
    module : torch.nn.Module, optional
        What runs the networks, where they are not sequential.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.examples import Examples
    >>> examples = Examples.of(Architecture.mlp([4, 3, 2]), torch.eye(4), torch.tensor([0, 1, 0, 1]), "cross_entropy")
    >>> examples.losses(torch.zeros(2, 23))
    tensor([0.6931, 0.6931])
    """

    architecture: Architecture
    inputs: Tensor
    targets: Tensor
    loss: str
    module: Any = None

    @classmethod
    def of(cls, architecture: Architecture, inputs: Tensor, targets: Tensor, loss: str) -> Examples:
        """Examples of a task for the networks of an architecture.

        Parameters
        ----------
        architecture : Architecture
        inputs : Tensor of shape (b, ...)
        targets : Tensor of shape (b,) or (b, k)
        loss : {"cross_entropy", "mse"}

        Returns
        -------
        Examples
        """
        return cls(architecture, inputs, targets, loss, _with_batch_statistics(architecture))

    def __len__(self) -> int:
        return len(self.inputs)

    def draw(self, size: int, generator: torch.Generator) -> Examples:
        """Some of the examples, without repetition; all of them, where there are no more.

        Parameters
        ----------
        size : int
        generator : torch.Generator

        Returns
        -------
        Examples
        """
        if size >= len(self):
            return self
        index = torch.randperm(len(self), generator=generator)[:size].to(self.inputs.device)
        return replace(self, inputs=self.inputs[index], targets=self.targets[index])

    @property
    def trivial(self) -> float:
        """The loss of the best constant prediction: the entropy of the classes, or the variance of the targets."""
        if self.loss == "mse":
            return float(self.targets.double().var(0, unbiased=False).mean())
        shares = self.targets.flatten().bincount().double() / self.targets.numel()
        return float(torch.special.entr(shares).sum())

    def losses(self, weights: Tensor) -> Tensor:
        """The mean loss of each network, to be differentiated.

        Parameters
        ----------
        weights : Tensor of shape (n, d)

        Returns
        -------
        Tensor of shape (n,)
        """
        inputs, targets = (
            values.to(weights) if values.is_floating_point() else values.to(weights.device)
            for values in (self.inputs, self.targets)
        )
        return losses(self._outputs(weights, inputs), targets, self.loss)

    def _outputs(self, weights: Tensor, inputs: Tensor) -> Tensor:
        if self.architecture.layers or self.module is None:
            return forward(weights, self.architecture, inputs)
        # buffers that the module has no more would come back with their values
        gone = {name for name, buffer in _buffers(self.module) if buffer is None}
        tensors = unflatten(weights, self.architecture)
        outputs: Tensor = run_module({k: v for k, v in tensors.items() if k not in gone}, self.module, inputs)
        return outputs

    @torch.no_grad()
    def evaluate(self, weights: Tensor) -> Tensor:
        """The mean loss of each network, a few networks and examples at a time.

        Parameters
        ----------
        weights : Tensor of shape (n, d)

        Returns
        -------
        Tensor of shape (n,)
        """
        totals = []
        # batch statistics need batches that are not small: parts of equal size
        parts = torch.arange(len(self)).chunk(-(-len(self) // BLOCK))
        for rows in weights.split(rows_at_once(weights)):
            total = rows.new_zeros(len(rows))
            for part in parts:
                some = replace(self, inputs=self.inputs[part], targets=self.targets[part])
                total += some.losses(rows) * (len(part) / len(self))
            totals.append(total)
        return torch.cat(totals) if totals else weights.new_zeros(0)


def rows_at_once(weights: Tensor) -> int:
    """How many networks are run or optimised at once.

    Parameters
    ----------
    weights : Tensor of shape (n, d)

    Returns
    -------
    int
    """
    return max(1, CHUNK_NUMBERS // max(weights.shape[1], 1))


def _buffers(module: nn.Module) -> Iterator[tuple[str, Tensor | None]]:
    """All buffers, also those that are None."""
    for path, layer in module.named_modules():
        for name, buffer in layer._buffers.items():
            yield (f"{path}.{name}" if path else name), buffer


def _with_batch_statistics(architecture: Architecture) -> Any:
    """The architecture's module, its norms without running statistics; None where layers run the networks."""
    if architecture.module is None or architecture.layers or not len(architecture.statistic_columns):
        return architecture.module if not architecture.layers else None
    module = copy.deepcopy(architecture.module)
    return torch.func.replace_all_batch_norm_modules_(module)
