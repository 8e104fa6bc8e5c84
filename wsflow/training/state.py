"""What a training is between two steps: the module, AdamW, the moving average, the best checkpoint and the history."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from wsflow.exceptions import NumericalError
from wsflow.representation import in_a_line
from wsflow.training.distributed import ALONE, Processes

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW


@dataclass(frozen=True)
class Schedule:
    """The number of training steps, their rates, and when to stop.

    Parameters
    ----------
    n_steps : int
    learning_rate : float
        The highest one of AdamW, after a warm-up; it falls by a cosine.
    weight_decay : float
        Of AdamW.
    ema_decay : float
        Of the exponential moving average of the weights, which is what is kept.
    clip : float
        Largest norm of the gradient.
    patience : int or None
        Stop when so many evaluations in a row were no better.
    evaluate_every : int
        Steps between evaluations.
    """

    n_steps: int
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    ema_decay: float = 0.998
    clip: float = 1.0
    patience: int | None = None
    evaluate_every: int = 50

    def rate(self, step: int) -> float:
        """The share of the learning rate at a step, counted from 0."""
        warm = min(1.0, (step + 1) / min(50, max(1, self.n_steps // 10)))
        return warm * (0.005 + 0.5 * (1 + math.cos(math.pi * step / self.n_steps)))


@in_a_line
@dataclass
class History:
    """What was recorded at each evaluation.

    Parameters
    ----------
    step : list of int
    train : list of float
        The mean since the evaluation before.
    validation : list of float
        Empty without validation.
    best_step : int
        Where the kept weights were taken.
    stopped_at : int or None
        The step at which the loss was not finite, so that training stopped.
    """

    step: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_step: int = 0
    stopped_at: int | None = None


class TrainingState:
    """A training of a module by a schedule, which can be put away after any step, and taken up again to the bit.

    Parameters
    ----------
    module : nn.Module
    schedule : Schedule
    generator : torch.Generator
        Of all random numbers.
    validate : callable, optional
        See `wsflow.training.loop.train`.
    processes : Processes
        Those that train together.

    Attributes
    ----------
    step : int
        Steps done.
    recent : list of float
        What was recorded since the last evaluation.
    is_done : bool
    """

    def __init__(
        self,
        module: nn.Module,
        schedule: Schedule,
        generator: torch.Generator,
        validate: Callable[[Any], float] | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.module, self.schedule, self.generator, self.processes = module, schedule, generator, processes
        rate, decay = schedule.learning_rate, schedule.weight_decay
        self.optimizer = torch.optim.AdamW(module.parameters(), rate, betas=(0.9, 0.99), weight_decay=decay)
        self.average = _moving_average(module, schedule.ema_decay)
        self.best = Best(self.average.module, validate)
        self.recent: list[float] = []
        self.step, self.is_done = 0, False

    @property
    def is_at_an_evaluation(self) -> bool:
        """Whether the schedule has an evaluation after the steps that are done."""
        return self.step == self.schedule.n_steps or self.step % self.schedule.evaluate_every == 0

    def descend(self, loss: Tensor, recorded: Tensor) -> None:
        """Take one step, and record a number.

        A NumericalError says that the loss or its gradient is not finite; then nothing moves.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.processes.average_gradients(self.module)
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.schedule.clip)
        # of all processes, so that none goes on without the others; the only numbers of a step that leave the device
        means = self.processes.mean(torch.stack([loss.detach(), recorded.detach()]))
        found = torch.cat([means, norm.to(means).unsqueeze(0)]).tolist()
        if not math.isfinite(found[0]):
            raise NumericalError("The loss is not finite.")
        if not math.isfinite(found[2]):
            raise NumericalError("The gradient of the loss is not finite.")
        self.recent.append(found[1])
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate * self.schedule.rate(self.step)
        self.optimizer.step()
        self.average.update_parameters(self.module)
        self.step += 1

    def tensors(self) -> dict[str, Tensor]:
        """Everything with a shape, by name."""
        parts = {"module": self.module.state_dict(), "average": self.average.module.state_dict()}
        found = {f"{part}.{key}": value for part, state in parts.items() for key, value in state.items()}
        found |= {f"best.{key}": value for key, value in self.best.checkpoint.items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{number}.{key}": moments[key] for key in MOMENTS}
        return found | {"generator": self.generator.get_state()}

    def values(self) -> dict[str, Any]:
        """Everything else, as JSON data."""
        return {
            "step": self.step,
            "is_done": self.is_done,
            "averaged": int(self.average.n_averaged),
            "recent": self.recent,
            "history": vars(self.best.history),
            "lowest": self.best.lowest if math.isfinite(self.best.lowest) else None,
            "waited": self.best.waited,
        }

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take up what `tensors` and `values` returned."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.module.load_state_dict(part("module."))
        self.average.module.load_state_dict(part("average."))
        self.average.n_averaged.fill_(values["averaged"])
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in part("optimizer.").items():
            number, _, moment = key.partition(".")
            state.setdefault(int(number), {})[moment] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.generator.set_state(tensors["generator"])
        self.best.restore(part("best."), values)
        self.recent = list(values["recent"])
        self.step, self.is_done = values["step"], values["is_done"]


def _moving_average(module: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of a module's weights; a young one forgets its start faster."""

    def update(averages: Sequence[Tensor], weights: Sequence[Tensor], _: Tensor) -> None:
        # the count itself, which stays on the CPU
        n = int(average.n_averaged)
        torch._foreach_lerp_(list(averages), list(weights), 1 - min(decay, n / (n + 9)))

    average = AveragedModel(module, multi_avg_fn=update)  # type: ignore[arg-type]
    average.module.eval()
    # the start counts as a first member: AveragedModel would overwrite it
    average.n_averaged.fill_(1)
    return average


class Best:
    """The history, and the checkpoint with the lowest validation loss, or the last one without validation."""

    def __init__(self, average: nn.Module, validate: Callable[[Any], float] | None) -> None:
        self.history = History()
        self.checkpoint = copy.deepcopy(average.state_dict())
        self._average, self._validate = average, validate
        self.lowest, self.waited = math.inf, 0

    def evaluate(self, step: int, recent: list[float]) -> int:
        """Record a step; return the number of evaluations since the best one.

        A NumericalError says that the validation loss is not finite: nothing is recorded then.
        """
        loss = -float(step)
        if self._validate is not None:
            with torch.no_grad():
                loss = self._validate(self._average)
            if not math.isfinite(loss):
                raise NumericalError("The validation loss is not finite.")
            self.history.validation.append(loss)
        self.history.step.append(step)
        self.history.train.append(sum(recent) / len(recent))
        self.waited += 1
        if loss < self.lowest:
            self.lowest, self.waited = loss, 0
            self.history.best_step = step
            self.checkpoint = copy.deepcopy(self._average.state_dict())
        return self.waited

    def restore(self, checkpoint: dict[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take up a checkpoint and the values of `TrainingState.values`."""
        self.checkpoint, self.history = checkpoint, History(**values["history"])
        self.lowest = math.inf if values["lowest"] is None else values["lowest"]
        self.waited = values["waited"]
