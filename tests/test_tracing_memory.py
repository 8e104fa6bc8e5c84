"""What reading a module takes: bytes of tensors that are alive at once, and steps that are reported."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
import zoo
from test_tracing import THEORY
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wsflow import Architecture
from wsflow.symmetry.actions import Action
from wsflow.symmetry.in_place import apply_in_place
from wsflow.tracing.certificate import random_weights


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that operations made and that are still there."""

    def __init__(self) -> None:
        super().__init__()
        self.owners: dict[int, int] = {}
        self.bytes = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if type(tensor) is Tensor and tensor.device.type == "cpu":
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if key not in self.owners:
            self.owners[key] = 0
            self.bytes += size
        self.owners[key] += 1
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(tensor, self._released, key, size)

    def _released(self, key: int, size: int) -> None:
        self.owners[key] -= 1
        if not self.owners[key]:
            del self.owners[key]
            self.bytes -= size


BIG = {
    "a wide layer": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(64, 1500), nn.ReLU(), nn.Linear(1500, 700), nn.Tanh(), nn.Linear(700, 2)
    ),
    "two of them, of one size": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(64, 900), nn.ReLU(), nn.Linear(900, 900), nn.GELU(), nn.Linear(900, 900)
    ),
    "channels of pixels": lambda: nn.Sequential(
        nn.Conv2d(1, 32, 1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 64, 600), nn.ReLU(), nn.Linear(600, 2)
    ),
}


@pytest.mark.parametrize("name", BIG)
def test_reading_takes_at_most_four_times_the_weights(name: str) -> None:
    """In single precision: one copy in double precision (2), the module's own copy (1), and slabs that are moved."""
    network = BIG[name]()
    weights = sum(4 * p.numel() for p in network.parameters())
    assert weights > 4e6
    with LiveBytes() as memory:
        architecture = Architecture.from_module(network, torch.zeros(2, 1, 8, 8))
    assert 2 <= memory.peak / weights <= 4
    assert architecture.groups
    # columns of all blocks would take twice the weights
    assert "blocks" not in vars(architecture)


# nested groups, index blocks, phases and flips among them
FAMILIES = ("ResNet-20", "ViT", "SIREN", "sigmoid", "grouped", "concatenation")


@pytest.mark.parametrize("name", FAMILIES)
def test_in_place_a_group_element_acts_as_on_a_copy(name: str) -> None:
    theory = THEORY[name]
    architecture = Architecture.from_module(theory.module(), theory.inputs)
    generator = torch.Generator().manual_seed(3)
    weights = random_weights(architecture, 2, generator)
    action = Action.random(architecture, 2, generator)
    expected = action(weights)
    apply_in_place(action, weights)
    torch.testing.assert_close(weights, expected, rtol=1e-14, atol=1e-14)


def test_steps_are_reported() -> None:
    steps: list[tuple[int, int]] = []
    Architecture.from_module(zoo.vgg(), torch.zeros(2, 3, 8, 8), progress=lambda *step: steps.append(step))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
