"""Layers that are alike: found where their weights can be exchanged, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import zoo
from click.testing import CliRunner
from test_tracing import IMAGES
from torch import Tensor, nn

from wsflow import Architecture
from wsflow.cli import main
from wsflow.tracing import exchangeable_layers

FEATURES = torch.zeros(5, 4)


class Branches(nn.Module):
    """Perceptrons with parameters of their own, and a function of their outputs."""

    def __init__(self, run: Callable[[list[Tensor]], Tensor], n: int = 3) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)) for _ in range(n)])
        self.other, self.run = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), run

    def forward(self, x: Tensor) -> Tensor:
        return self.run([branch(x) for branch in self.branches]) - 2 * self.other(x)


MEANS: dict[str, tuple[Callable[[list[Tensor]], Tensor], tuple[tuple[str, ...], ...]]] = {
    "mean": (lambda y: torch.stack(y).mean(0), (("branches.0", "branches.1", "branches.2"),)),
    "sum of probabilities": (
        lambda y: sum((z.softmax(-1) for z in y), torch.zeros(())),
        (("branches.0", "branches.1", "branches.2"),),
    ),
    "weights for each": (lambda y: y[0] + 2 * y[1] + 3 * y[2], ()),
    "two of three": (lambda y: 3 * y[0] + torch.maximum(y[1], y[2]), (("branches.1", "branches.2"),)),
    "gated": (lambda y: y[0] + y[1] * y[2].relu(), ()),
}


@pytest.mark.parametrize("name", MEANS)
def test_members_are_named_where_they_can_be_exchanged(name: str) -> None:
    run, expected = MEANS[name]
    network = Branches(run)
    architecture = Architecture.from_module(network, FEATURES)
    assert exchangeable_layers(architecture, network, torch.randn(5, 4)) == expected


def test_layers_in_a_row_are_not_alike() -> None:
    for network, inputs in ((zoo.ResNet20(2, 4), IMAGES), (zoo.TorchTransformer(), torch.zeros(2, 4, 5))):
        architecture = Architecture.from_module(network, inputs)
        assert exchangeable_layers(architecture, network, torch.randn_like(inputs)) == ()


def test_members_of_members_are_named_as_well() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = (nn.ModuleList([nn.Linear(4, 2) for _ in range(2)]) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return sum(F.relu(torch.maximum(*(piece(x) for piece in unit))) for unit in (self.left, self.right))

    network = Nested()
    architecture = Architecture.from_module(network, FEATURES)
    assert exchangeable_layers(architecture, network, torch.randn(5, 4)) == (
        ("left", "right"), ("left.0", "left.1"), ("right.0", "right.1")
    )  # fmt: skip


def test_check_names_them(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "import torch\n"
        "from torch import nn\n\n\n"
        "class Ensemble(nn.ModuleList):\n"
        "    def forward(self, x):\n"
        "        return torch.stack([member(x) for member in self]).mean(0)\n\n\n"
        "def build():\n"
        "    return Ensemble(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)) for _ in range(5))\n"
    )
    arguments = ["check", f"{tmp_path}/model.py:build", "--input", "5,4"]
    text = CliRunner().invoke(main, arguments)
    assert text.exit_code == 0
    assert "Not aligned: 0, ..., 4 could exchange their weights" in " ".join(text.stdout.split())
    result = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert result["exchangeable"] == [["0", "1", "2", "3", "4"]]
    assert result["approximations"] == []
