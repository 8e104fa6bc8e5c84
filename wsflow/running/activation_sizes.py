"""How many numbers networks compute on the way, and so how many networks and examples run at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wsflow.architecture import Architecture
from wsflow.running.execution import forward

# of networks that run in one product, the examples at a time whose activations are kept
EXAMPLES = 1024
# and of others the least number of examples and of networks that are worth a pass
LEAST = 16


class _Largest(TorchDispatchMode):
    """Measures the largest tensor, of inputs and what is computed from them: weights with constants do not count."""

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        self.numbers = inputs.numel()
        # by their memory, which is kept so that no other tensor takes its address
        self.of_inputs = {inputs.untyped_storage().data_ptr(): inputs}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(x.untyped_storage().data_ptr() in self.of_inputs for x in _tensors((args, kwargs))):
            for x in _tensors(result):
                self.of_inputs[x.untyped_storage().data_ptr()] = x
                self.numbers = max(self.numbers, x.numel())
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def runs_in_one_product(architecture: Architecture) -> bool:
    """Return whether each layer of many networks is one product of tensors, whatever the number of networks."""
    return bool(architecture.layers)


def bytes_of_a_step(architecture: Architecture, examples: int) -> int:
    """Return the bytes of activations and gradients in a step of one network in a product of many; 0 for others."""
    widths = sum(layer.inputs + layer.outputs for layer in architecture.layers)
    # the activations of the forward pass, their gradients, and the indices of the batch
    return examples * (4 * 4 * widths + 8) if widths else 0


def largest_activation(architecture: Architecture, inputs: Tensor) -> int:
    """Return how many numbers the largest tensor has that one network computes for one example of inputs (b, ...)."""
    if architecture.layers:
        return max([inputs.shape[1], *(layer.outputs for layer in architecture.layers)])
    example = inputs[:2]
    zeros = torch.zeros(1, architecture.n_weights, dtype=torch.float32)
    example = example.to(zeros) if example.is_floating_point() else example
    with torch.no_grad(), _Largest(example) as seen:
        forward(zeros, architecture, example)
    return max(1, -(-seen.numbers // max(len(example), 1)))


def networks_and_examples(architecture: Architecture, inputs: Tensor, numbers: int) -> tuple[int, int]:
    """Return how many networks and examples have a largest tensor of about so many numbers.

    Networks that run in one product take all examples at once.
    """
    largest = largest_activation(architecture, inputs)
    networks = max(1, numbers // (largest * max(len(inputs), 1)))
    return networks, len(inputs) if runs_in_one_product(architecture) else max(LEAST, numbers // largest)


def examples_for(architecture: Architecture, inputs: Tensor, networks: int, numbers: int) -> int:
    """Return how many examples so many networks run at once, where their activations are kept."""
    if runs_in_one_product(architecture):
        return EXAMPLES
    return min(EXAMPLES, max(LEAST, numbers // (networks * largest_activation(architecture, inputs))))
