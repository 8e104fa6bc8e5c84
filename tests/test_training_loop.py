"""The training loop, on a module that has nothing to do with flows: a point that descends a bowl."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from wsflow.exceptions import NumericalError
from wsflow.training.loop import TrainingInterrupted, seeded, train
from wsflow.training.state import Schedule


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))


def bowl(point: Point, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    loss = (point.x + 0.1 * torch.randn(2, generator=generator, dtype=torch.float64)).square().sum()
    return loss, loss


def run(point: Point, loss=bowl, seed: int = 0, **options):
    schedule = Schedule(**{"n_steps": 120, "learning_rate": 0.2, **options.pop("schedule", {})})
    return train(point, loss, schedule, torch.Generator().manual_seed(seed), **options)


def test_it_descends_and_records_every_fifty_steps():
    point, calls = Point(), []
    history = run(point, progress=lambda done, total: calls.append((done, total)))
    assert point.x.detach().norm() < 0.5
    assert history.step == [50, 100, 120] and history.best_step == 120 and not history.validation
    assert history.train[-1] < history.train[0] and calls == [(k, 120) for k in range(1, 121)]


def test_what_is_recorded_need_not_be_what_is_minimised():
    history = run(Point(), lambda point, g: (point.x.square().sum(), torch.tensor(7.0)))
    assert history.train == [7.0, 7.0, 7.0]


def test_steps_are_those_of_torchs_adamw_and_the_average_is_exponential():
    schedule = {"n_steps": 30, "weight_decay": 0.3, "ema_decay": 0.8, "clip": 0.5, "evaluate_every": 100}
    point, twin = Point(), Point()
    run(point, schedule=schedule)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(twin.parameters(), 0.2, betas=(0.9, 0.99), weight_decay=0.3)
    average = twin.x.detach().clone()
    for step in range(30):
        optimizer.param_groups[0]["lr"] = 0.2 * Schedule(30).rate(step)
        optimizer.zero_grad()
        bowl(twin, generator)[0].backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        optimizer.step()
        decay = min(0.8, (step + 1) / (step + 10))
        average = decay * average + (1 - decay) * twin.x.detach()
    torch.testing.assert_close(point.x.detach(), average, rtol=1e-12, atol=1e-12)


def test_the_rate_warms_up_and_falls_by_a_cosine():
    rates = [Schedule(200).rate(step) for step in range(200)]
    assert rates[0] == pytest.approx(1.005 / 20) and max(rates) < 1.005
    assert rates[100] == pytest.approx(0.505) and rates[-1] < 0.006
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_the_best_weights_on_validation_are_kept():
    point, seen = Point(), []

    def validate(average: Point) -> float:
        seen.append(average.x.detach().clone())
        # the second of the evaluations is the best
        return [3.0, 1.0, 2.0][len(seen) - 1]

    history = run(point, validate=validate)
    assert history.validation == [3.0, 1.0, 2.0] and history.best_step == 100
    assert torch.equal(point.x.detach(), seen[1])


def test_patience_counts_evaluations_without_a_better_one():
    losses = iter([1.0, 0.5, 0.6, 0.7, 0.1])
    history = run(Point(), validate=lambda _: next(losses), schedule={"n_steps": 500, "patience": 2})
    assert history.step == [50, 100, 150, 200] and history.best_step == 100


def test_ctrl_c_leaves_the_best_weights():
    point, seen = Point(), []

    def progress(done: int, total: int) -> None:
        if done == 70:
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted) as caught:
        run(point, validate=lambda average: seen.append(average.x.detach().clone()) or 1.0, progress=progress)
    assert caught.value.history.step == [50] and torch.equal(point.x.detach(), seen[0])


def failing(after: int):
    steps = iter(range(10**6))
    return lambda point, g: (point.x.square().sum() * (float("nan") if next(steps) >= after else 1.0), torch.ones(()))


def test_a_loss_that_is_not_finite_at_once_is_an_error_and_moves_nothing():
    point = Point()
    with pytest.raises(NumericalError, match=r"^The loss was not finite at step 1: use a smaller learning_rate"):
        run(point, failing(0))
    assert torch.equal(point.x.detach(), Point().x.detach())


def test_a_loss_that_fails_later_leaves_what_was_kept():
    point = Point()
    with pytest.warns(RuntimeWarning, match="not finite at step 61: training stopped, and the weights of step 50"):
        history = run(point, failing(60))
    assert history.step == [50] and point.x.isfinite().all()


def test_further_training_that_fails_at_once_is_a_warning():
    point = Point()
    with pytest.warns(RuntimeWarning, match="^The distance was not finite at step 1: .* the weights from before"):
        run(point, failing(0), is_trained=True, what="The distance")
    assert torch.equal(point.x.detach(), Point().x.detach())


def test_a_gradient_that_is_not_finite_moves_nothing():
    # the root has an infinite slope at zero, and a finite value
    point = Point()
    with torch.no_grad():
        point.x.zero_()
    with pytest.raises(NumericalError):
        run(point, lambda p, g: (p.x.square().sum().sqrt() ** 0.5, torch.ones(())))
    assert torch.equal(point.x.detach(), torch.zeros(2, dtype=torch.float64))


def test_nothing_is_left_in_the_global_generator():
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(Point())
        with seeded(torch.Generator().manual_seed(3)):
            first = torch.rand(2)
        with seeded(torch.Generator().manual_seed(3)):
            assert torch.equal(torch.rand(2), first)
    assert torch.equal(torch.get_rng_state(), before)
