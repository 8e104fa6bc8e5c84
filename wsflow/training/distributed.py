"""Data parallel training: every process takes a part of the same minibatch, and all take the mean of their gradients.

All processes have the same data, draw the same random numbers and begin with the same weights, so that their weights
stay the same, and are those of one process at the same batch size, up to rounding.

References
----------
Li et al. 2020, "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", arXiv:2006.15704.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """Processes that train together, or one alone; this one has the number `rank` of `size`, in a `group` of torch."""

    rank: int = 0
    size: int = 1
    group: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def part(self, rows: Tensor) -> Tensor:
        """Every `size`-th row, from the `rank`-th on: the part of a batch that is this process's."""
        return rows if self.size == 1 else rows[self.rank :: self.size]

    def weight(self, n: int) -> float:
        """The factor of the mean over this process's part of n rows with which `mean` is that over all rows."""
        return self.size * len(range(self.rank, n, self.size)) / n

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a value over the processes, which has no gradient where they are several."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        distributed.all_reduce(total, group=self.group)
        return total / self.size

    def average_gradients(self, module: nn.Module) -> None:
        """Put the means over the processes in the place of the gradients of a module."""
        if self.size == 1:
            return
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        flat = self.mean(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def on_first(self, function: Callable[[], T]) -> T:
        """Return in all processes what a function returns in the first, which alone calls it; or raise what it does."""
        if self.size == 1:
            return function()
        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome[0] = function()
            except Exception as error:
                outcome[1] = error
        distributed.broadcast_object_list(outcome, group=self.group, group_src=0)
        if outcome[1] is not None:
            raise outcome[1]
        result: T = outcome[0]
        return result

    def synchronize(self, generator: torch.Generator) -> None:
        """Let a generator go on in all processes as it does in the first."""
        if self.size > 1:
            generator.set_state(self.on_first(generator.get_state))

    def copy_first(self, module: nn.Module) -> None:
        """Give a module the weights that it has in the first process."""
        if self.size > 1:
            module.load_state_dict(self.on_first(module.state_dict))

    def check_same(self, find: Callable[[], Tensor], what: str) -> None:
        """Refuse, in all processes, a value that is not the same in all of them; `what` begins a sentence about it."""
        if self.size == 1:
            return
        value = find()
        first = self.on_first(lambda: value)
        # up to rounding, which differs from machine to machine
        is_same = first.shape == value.shape and (value - first).abs().max() <= 1e-5 * first.abs().max()
        if self.mean(torch.tensor(float(is_same))) < 1:
            raise ValueError(
                f"{what} are not the same in the {self.size} processes that train together. Give all of them the same "
                "data, parameters and seeds, also of what comes before the flow."
            )


ALONE = Processes()
_current: ContextVar[Processes] = ContextVar("processes", default=ALONE)


def current_processes() -> Processes:
    """The processes of `data_parallel`, or this one alone."""
    return _current.get()


@contextmanager
def data_parallel(group: Any = None) -> Iterator[Processes]:
    """Let `wsflow.WeightFlow` be fitted by several processes together, each of which runs the same lines.

    Minibatches are divided among them, so that `batch_size` is that of all together, and the weights that they come to
    are those of one process up to rounding; dropout alone draws other numbers. The first process writes checkpoints and
    calls `progress`. Everything else, such as alignment, each of them does by itself.

    Parameters
    ----------
    group : torch.distributed.ProcessGroup, optional
        Default: that of all processes, which begins and ends here where ``torchrun`` has started this one and it has
        not begun yet. Without ``torchrun`` this process trains alone.

    Yields
    ------
    Processes
        ``is_first`` says whether this process is the one that shall write files.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import WeightFlow
    >>> from wsflow.training.distributed import data_parallel
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> with data_parallel() as processes:
    ...     flow = WeightFlow("euclidean", max_iter=5, random_state=0).fit(X)
    >>> processes.is_first
    True
    """
    begins = distributed.is_available() and not distributed.is_initialized() and "TORCHELASTIC_RUN_ID" in os.environ
    if begins:
        if (local := int(os.environ["LOCAL_RANK"])) < torch.cuda.device_count():
            torch.cuda.set_device(local)
        # gloo for tensors on the CPU, and nccl for those on a GPU
        distributed.init_process_group()
    try:
        is_one = not (distributed.is_available() and distributed.is_initialized())
        found = ALONE if is_one else Processes(distributed.get_rank(group), distributed.get_world_size(group), group)
        before = _current.set(found)
        try:
            yield found
        finally:
            _current.reset(before)
    finally:
        if begins:
            distributed.destroy_process_group()
