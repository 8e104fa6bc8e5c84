"""Networks without the running statistics of their norms, which then normalise with the statistics of the batch.

Running statistics are computed and not learned. What has weights alone, such as a point on the path of a flow, runs by
the statistics of its inputs, as in training mode; gradients go through them.

References
----------
Ioffe and Szegedy 2015, "Batch normalization", arXiv:1502.03167.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from wsflow.architecture import Architecture
from wsflow.architecture.program import Operation
from wsflow.exceptions import InvalidInputError

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def without_statistics(architecture: Architecture) -> Architecture:
    """Return the architecture of the weights alone; itself where there are no statistics.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from wsflow import Architecture
    >>> from wsflow.running import forward
    >>> from wsflow.running.without_statistics import without_statistics
    >>> x = torch.randn(50, 3)
    >>> architecture = Architecture.from_module(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1, bias=False)), x)
    >>> weights = without_statistics(architecture)
    >>> architecture.n_weights, weights.n_weights
    (16, 9)
    >>> rows = torch.tensor([[1.0, 1, 1, 0, 0, 0, 1, 0, 0]])
    >>> torch.allclose(forward(rows, weights, x)[0, :, 0], (x - x.mean(0))[:, 0] / x[:, 0].std(correction=0), atol=1e-4)
    True
    """
    if not len(architecture.statistic_columns):
        return architecture
    check_recomputable(architecture)
    weights = tuple(p for p in architecture.parameters if p.role == "weight")
    return replace(normalised_by_batch(architecture), parameters=weights)


def normalised_by_batch(architecture: Architecture) -> Architecture:
    """Return the architecture with batch norms that take the statistics of the batch, and leave their own unused."""
    if not (architecture.is_runnable and len(architecture.statistic_columns)):
        return architecture
    if (program := architecture.program) is not None:
        program = replace(program, operations=tuple(map(_operation, program.operations)))
        return replace(architecture, program=program, module=None)
    module = torch.func.replace_all_batch_norm_modules_(copy.deepcopy(architecture.module))
    return replace(architecture, module=module)


def check_recomputable(architecture: Architecture) -> None:
    """Refuse statistics that a pass in training mode would not compute, naming the first."""
    if not architecture.is_runnable:
        raise InvalidInputError(
            "These networks hold running statistics, which are computed by running them, and their architecture does "
            "not say how they run. Read them from a module: Architecture.from_module(module, example_input)."
        )
    for name in [parameter.name for parameter in architecture.parameters if parameter.role == "statistic"]:
        path, _, key = name.rpartition(".")
        if key not in STATISTICS or not isinstance(architecture.executable.get_submodule(path), _BatchNorm):
            raise InvalidInputError(
                f"The statistic {name!r} is none of a batch norm of torch, so no pass over data computes it for new "
                "networks. Leave it out of the networks, such as by folding it into weights."
            )


def _operation(operation: Operation) -> Operation:
    if operation.base != "batch_norm":
        return operation
    # behind the gain and the bias: running mean and variance, whether those of the batch are used, and a momentum
    before, after = operation.arguments[:3], operation.arguments[7:]
    return replace(operation, arguments=(*before, None, None, True, 0.0, *after))
