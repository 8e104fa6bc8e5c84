"""A loss that is not finite late in training: the last good weights are kept, and the step is said."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import wsflow
from wsflow import WeightFlow
from wsflow.cli import main
from wsflow.exceptions import NumericalError
from wsflow.flow.loss import FlowMatchingLoss
from wsflow.models import flow_training
from wsflow.models.options import MLP, AdamW, EnergyMatching
from wsflow.training.loop import train
from wsflow.training.state import Schedule

X = np.random.default_rng(0).normal(size=(60, 2))
CALL = FlowMatchingLoss.__call__


def failing(after: int, with_gradient: bool):
    """The loss of flow matching, which turns NaN after so many training steps, or so many validations."""
    calls = iter(range(10**6))

    def loss(self, *arguments):
        value = CALL(self, *arguments)
        counted = torch.is_grad_enabled() == with_gradient
        return value * math.nan if counted and next(calls) >= after else value

    return loss


def fitted(max_iter: int = 200, **parameters) -> WeightFlow:
    return WeightFlow("euclidean", velocity=MLP(16, 1), max_iter=max_iter, random_state=0, **parameters).fit(X)


@pytest.mark.parametrize(
    ("after", "with_gradient", "stopped", "kept"),
    [(60, True, 61, 50), (150, True, 151, 150), (1, False, 100, 50), (3, False, 200, 150)],
    ids=["training", "just after an evaluation", "second validation", "last validation"],
)
def test_the_last_good_weights_are_kept_and_the_step_is_said(monkeypatch, after, with_gradient, stopped, kept):
    monkeypatch.setattr(FlowMatchingLoss, "__call__", failing(after, with_gradient))
    sentence = rf"The loss of the flow was not finite at step {stopped}: .* the weights of step {kept} are kept"
    with pytest.warns(RuntimeWarning, match=sentence):
        flow = fitted(training=AdamW(validation_fraction=0.2))
    assert flow.history_.stopped_at == stopped and flow.history_.step[-1] == kept
    assert len(flow.history_.train) == len(flow.history_.validation) == len(flow.history_.step)
    assert np.isfinite(flow.sample(20, random_state=0)).all() and np.isfinite(flow.score_samples(X)).all()


@pytest.mark.parametrize(("after", "with_gradient"), [(3, True), (0, False)], ids=["training", "validation"])
def test_before_anything_is_kept_it_is_an_error(monkeypatch, after, with_gradient):
    monkeypatch.setattr(FlowMatchingLoss, "__call__", failing(after, with_gradient))
    with pytest.raises(NumericalError, match="not finite at step"):
        fitted(max_iter=50, training=AdamW(validation_fraction=0.2))


def test_a_loss_that_raises_keeps_the_last_good_weights_too():
    point = torch.nn.Linear(1, 1)
    calls = iter(range(10**6))

    def loss(module, generator):
        if next(calls) == 70:
            raise NumericalError("A path left the finite numbers.")
        value = module.weight.square().sum()
        return value, value.detach()

    with pytest.warns(RuntimeWarning, match="not finite at step 71: .* of step 50"):
        history = train(point, loss, Schedule(n_steps=100), torch.Generator())
    assert history.stopped_at == 71 and history.best_step == 50


def test_the_steps_of_energy_matching_are_counted_on(monkeypatch):
    task = wsflow.load_task("iris")
    weights = wsflow.train_population(task, [3], n_runs=10, epochs=1).weights
    monkeypatch.setattr(
        flow_training,
        "energy_matching_loss",
        lambda *arguments, **keywords: (
            lambda module, generator: (torch.full((), math.nan, requires_grad=True), torch.ones(()))
        ),
    )
    flow = WeightFlow("euclidean", velocity=MLP(8, 1), task=task, energy=EnergyMatching(5), max_iter=50, random_state=0)
    with pytest.warns(RuntimeWarning, match="The energy distance of predictions was not finite at step 1"):
        flow.fit(weights)
    assert flow.history_.stopped_at == 51 and flow.history_.step == [50]


def test_a_history_without_a_failure_says_so():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fitted(max_iter=50).history_.stopped_at is None


def test_the_command_saves_the_last_good_model_and_ends_with_4(monkeypatch, tmp_path):
    population = wsflow.train_population(wsflow.load_task("iris"), [3], n_runs=10, epochs=1)
    wsflow.save_population(population, tmp_path / "zoo.safetensors")
    monkeypatch.setattr(FlowMatchingLoss, "__call__", failing(70, True))
    arguments = ["fit", str(tmp_path / "zoo.safetensors"), "-o", str(tmp_path / "model.st"), "--iterations", "100"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = CliRunner().invoke(main, [*arguments, "-p", "velocity.width=8", "-p", "velocity.heads=2"])
    assert result.exit_code == 4
    assert "Warning: The loss of the flow was not finite at step 71" in result.stderr
    assert "model.st has the model of step 50, the last good one." in result.stderr
    assert np.isfinite(wsflow.sample(wsflow.load_model(tmp_path / "model.st"), 3, random_state=0)).all()
