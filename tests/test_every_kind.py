"""What knows the function does so for networks of every kind: from a file, in a process that has no class of theirs."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kinds import KINDS, outputs_of, read, rows, task_of, trained
from torch.nn import functional as F

import wsflow
from wsflow import PermutationAligner, WeightArray, save_population
from wsflow.evaluation.connectivity import interpolate
from wsflow.objectives.functionals import Robustness
from wsflow.populations.population import Population
from wsflow.running.activation_sizes import largest_activation
from wsflow.symmetry.actions import Action
from wsflow.testing import assert_function_preserved

LIKE_FLOAT32 = {"rel": 1e-4, "abs": 1e-5}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a fresh process finds on the saved populations."""
    folder = tmp_path_factory.mktemp("kinds")
    for name in KINDS:
        weights, task = trained(name)
        save_population(Population(weights, task), folder / f"{name}.safetensors")
    script = Path(__file__).with_name("use_every_kind.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if Path(p) != script.parent)}
    done = subprocess.run(
        [sys.executable, script, folder], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())


def losses_of(name: str, weights: Any) -> np.ndarray:
    """The mean losses (n,) of networks, by torch alone."""
    targets = torch.from_numpy(trained(name)[1].targets)
    loss = (
        (lambda z: F.mse_loss(z, targets.double())) if KINDS[name].regression else lambda z: F.cross_entropy(z, targets)
    )
    return np.array([float(loss(z)) for z in outputs_of(name, weights)])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.slow
class TestEveryKind:
    def test_losses_and_predictions_are_those_of_the_modules(self, name: str, found: dict[str, Any]) -> None:
        (weights, task), values = trained(name), found[name]
        expected = losses_of(name, weights)
        assert values["losses"] == pytest.approx(expected, **LIKE_FLOAT32)
        assert values["bound"] == pytest.approx(expected[:4], **LIKE_FLOAT32)
        outputs = outputs_of(name, weights)
        each = outputs if KINDS[name].regression else outputs.softmax(-1)
        np.testing.assert_allclose(values["average"], each.mean(0), rtol=1e-4, atol=1e-5)
        if not KINDS[name].regression:
            right = (outputs.argmax(-1) == torch.from_numpy(task.targets)).double().mean(1)
            assert values["scores"] == pytest.approx(right.numpy())
            # inputs on which all is equally likely are told from those of the task
            assert values["ood"] == 1.0

    def test_averages_and_their_weights(self, name: str, found: dict[str, Any]) -> None:
        (weights, task), values = trained(name), found[name]
        losses, outputs = losses_of(name, weights), outputs_of(name, weights)
        likelihood = -40 * (losses / 2 + 0.5 * np.log(2 * np.pi)) if KINDS[name].regression else -40 * losses
        assert values["likelihood"] == pytest.approx(likelihood, rel=1e-4, abs=1e-3)
        share = torch.softmax(torch.from_numpy(np.array(values["likelihood"])), 0)
        each = outputs if KINDS[name].regression else outputs.softmax(-1)
        np.testing.assert_allclose(values["posterior"], torch.einsum("i,ibk->bk", share, each), rtol=1e-4, atol=1e-4)
        average = each.mean(0)
        if KINDS[name].regression:
            expected = float((average - torch.from_numpy(task.targets)).square().mean())
            assert values["curve"]["mse"][1] == pytest.approx(expected, rel=1e-3)
        else:
            targets = torch.from_numpy(task.targets)
            expected = float((average.argmax(-1) == targets).double().mean())
            assert values["curve"]["accuracy"][1] == pytest.approx(expected)

    def test_lines_between_networks(self, name: str, found: dict[str, Any]) -> None:
        weights, values = trained(name)[0], found[name]
        t = np.linspace(0, 1, 5)
        line = interpolate(weights[:2], weights[2:4], t)
        expected = losses_of(name, line).reshape(2, 5)
        np.testing.assert_allclose(values["path"], expected, rtol=1e-4, atol=1e-6)
        above = expected - ((1 - t) * expected[:, :1] + t * expected[:, -1:])
        np.testing.assert_allclose(values["barrier"], above[:, 1:-1].max(1), rtol=1e-2, atol=1e-5)

    def test_a_flow_with_hints_samples_networks_like_its_own(self, name: str, found: dict[str, Any]) -> None:
        values = found[name]
        assert values["hints"] and values["loaded"]
        # the population's noise hardly changes the function
        assert values["samples"] < 3 * np.mean(values["losses"]) + 0.3
        assert values["report"]["loss"] == pytest.approx(values["samples"], rel=1e-4)

    def test_guidance_and_training_lower_the_loss(self, name: str, found: dict[str, Any]) -> None:
        values = found[name]
        # by a task whose classes are others than those that the networks know
        assert values["gradient"] < 0.95 * values["unguided"]
        # few natural gradients reach more, and where they begin as good as guessing most
        assert values["standardized"] < values["natural"] < 0.8 * values["gradient"]
        assert values["learning"][1] < values["learning"][0]

    def test_copies_are_found_and_networks_are_aligned(self, name: str, found: dict[str, Any]) -> None:
        values = found[name]
        assert values["duplicates"] == [True, True]
        assert values["aligned"] == pytest.approx(losses_of(name, trained(name)[0]), rel=1e-3, abs=1e-5)
        assert values["repaired"] < np.mean(values["losses"]) + 0.1


@pytest.mark.parametrize("name", KINDS)
class TestInputsThatAreNotGiven:
    """Networks with a program say themselves what they take."""

    def test_symmetries_are_certified_and_other_functions_found(self, name: str) -> None:
        architecture = read(name)
        assert architecture.certify(n_trials=2) < 1e-10
        weights = WeightArray(rows(name).numpy(), architecture)
        moved = Action.random(architecture, len(weights), torch.Generator().manual_seed(0))(rows(name))
        assert_function_preserved(weights, weights.like(moved.numpy()))
        with pytest.raises(AssertionError, match="is another function"):
            assert_function_preserved(weights, weights.like(1.1 * np.asarray(weights)))

    def test_alignment_says_how_little_it_changes_outputs(self, name: str) -> None:
        weights = WeightArray(rows(name, 4).numpy(), read(name))
        aligner = PermutationAligner(reference="first", random_state=0).fit(weights)
        assert 0 <= aligner.output_change_ < 1e-10

    def test_parts_hold_the_numbers_that_one_network_computes(self, name: str) -> None:
        """The largest tensor of a run of one module on one example, counted by hooks on all of its layers."""
        sizes, module = [KINDS[name].inputs(1).numel()], KINDS[name].build()
        for layer in module.modules():
            layer.register_forward_hook(lambda _, __, output: sizes.append(output.numel()))
        module(KINDS[name].inputs(1))
        found = largest_activation(read(name), KINDS[name].inputs(2))
        assert max(sizes) <= found <= 4 * max(sizes)


def test_tokens_are_not_disturbed() -> None:
    with pytest.raises(ValueError, match=r"inputs of real numbers.*int64"):
        Robustness(task_of("transformer")).bind(read("transformer"), torch.Generator())


def test_no_room_but_running_asks_how_networks_run() -> None:
    """A list of layers and a program are one to all others: functions of `wsflow.running` answer for both."""
    package = Path(wsflow.__file__).parent
    found = [
        f"{path.relative_to(package)}:{node.lineno}"
        for path in sorted(package.rglob("*.py"))
        if path.parent.name not in ("running", "architecture")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "layers" and "architecture" in ast.unparse(node.value)
    ]
    assert not found
