"""The training loop: AdamW, a warm-up and a cosine, the moving average of the weights, and its best checkpoint.

A loss is a callable, so that the loop knows nothing of what learns. All randomness comes from one generator.

References
----------
Loshchilov and Hutter 2019, arXiv:1711.05101 (AdamW); Loshchilov and Hutter 2017, arXiv:1608.03983 (the cosine);
Polyak and Juditsky 1992 (averaged weights).
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from wsflow.exceptions import NumericalError
from wsflow.progress import Progress
from wsflow.representation import in_a_line

# from a module in training and a generator to what is minimised and what is recorded of it
Loss = Callable[[Any, torch.Generator], tuple[Tensor, Tensor]]


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


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C in training: the module has its best weights so far, and `history` is that so far."""

    def __init__(self, history: History) -> None:
        super().__init__()
        self.history = history


def train(
    module: nn.Module,
    loss: Loss,
    schedule: Schedule,
    generator: torch.Generator,
    *,
    validate: Callable[[Any], float] | None = None,
    progress: Progress | None = None,
    is_trained: bool = False,
    what: str = "The loss",
) -> History:
    """Train a module in place; it ends with the best averaged weights.

    Parameters
    ----------
    module : nn.Module
    loss : callable
        From the module, in training mode, and a generator to the loss of a batch and the number to record.
    schedule : Schedule
    generator : torch.Generator
    validate : callable, optional
        From the module with its averaged weights to a loss: the weights with the lowest one are kept, by default the
        last ones.
    progress : callable, optional
        Called with the steps done and their number.
    is_trained : bool
        Whether the module is of use as it comes, so that training that fails at once leaves it so, with a warning.
    what : str
        What is not finite in messages, as the beginning of a sentence.

    Returns
    -------
    History

    Raises
    ------
    NumericalError
        If the loss is not finite before anything was learned.
    TrainingInterrupted
        At Ctrl-C, with the best weights so far in place.

    Examples
    --------
    >>> import torch
    >>> from wsflow.training.loop import Schedule, train
    >>> line, x = torch.nn.Linear(1, 1), torch.linspace(-1, 1, 20).unsqueeze(1)
    >>> def loss(module, generator):
    ...     value = (module(x) - 2 * x).square().mean()
    ...     return value, value
    >>> history = train(line, loss, Schedule(n_steps=200, learning_rate=0.05), torch.Generator())
    >>> history.step, bool((line.weight - 2).abs() < 0.1)
    ([50, 100, 150, 200], True)
    """
    optimizer = torch.optim.AdamW(
        module.parameters(), schedule.learning_rate, betas=(0.9, 0.99), weight_decay=schedule.weight_decay
    )
    rates = LambdaLR(optimizer, schedule.rate)
    average = _moving_average(module, schedule.ema_decay)
    best = _Best(average.module, validate)
    recent: list[float] = []
    try:
        for step in range(schedule.n_steps):
            waited = 0
            try:
                value, recorded = loss(module.train(), generator)
                _descend(module, value, optimizer, schedule.clip)
                rates.step()
                average.update_parameters(module)
                recent.append(recorded.item())
                if progress is not None:
                    progress(step + 1, schedule.n_steps)
                if step + 1 == schedule.n_steps or (step + 1) % schedule.evaluate_every == 0:
                    waited = best.evaluate(step + 1, recent)
                    recent = []
            except NumericalError:
                _stop(step, best.history, is_trained, what)
                break
            if schedule.patience is not None and waited >= schedule.patience:
                break
    except KeyboardInterrupt:
        raise TrainingInterrupted(best.history) from None
    finally:
        module.load_state_dict(best.checkpoint)
    return best.history


def _descend(module: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer, clip: float) -> None:
    """Take one step; raise a NumericalError, and move nothing, where the loss or its gradient is not finite."""
    if not math.isfinite(loss.item()):
        raise NumericalError("The loss is not finite.")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(module.parameters(), clip)
    if not math.isfinite(norm.item()):
        raise NumericalError("The gradient of the loss is not finite.")
    optimizer.step()


def _moving_average(module: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of a module's weights; a young one forgets its start faster."""

    def update(averages: Sequence[Tensor], weights: Sequence[Tensor], count: Tensor) -> None:
        n = int(count)
        torch._foreach_lerp_(list(averages), list(weights), 1 - min(decay, n / (n + 9)))

    average = AveragedModel(module, multi_avg_fn=update)  # type: ignore[arg-type]
    average.module.eval()
    # the start counts as a first member: AveragedModel would overwrite it
    average.n_averaged.fill_(1)
    return average


class _Best:
    """The history, and the checkpoint with the lowest validation loss, or the last one without validation."""

    def __init__(self, average: nn.Module, validate: Callable[[Any], float] | None) -> None:
        self.history = History()
        self.checkpoint = copy.deepcopy(average.state_dict())
        self._average, self._validate = average, validate
        self._lowest, self._waited = math.inf, 0

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
        self._waited += 1
        if loss < self._lowest:
            self._lowest, self._waited = loss, 0
            self.history.best_step = step
            self.checkpoint = copy.deepcopy(self._average.state_dict())
        return self._waited


def _stop(step: int, history: History, is_trained: bool, what: str) -> None:
    if not history.step and not is_trained:
        raise NumericalError(
            f"{what} was not finite at step {step + 1}: use a smaller learning_rate or check the weights."
        ) from None
    history.stopped_at = step + 1
    kept = f"the weights of step {history.best_step}" if history.step else "the weights from before"
    warnings.warn(
        f"{what} was not finite at step {step + 1}: training stopped, and {kept} are kept. Use a smaller "
        "learning_rate.",
        RuntimeWarning,
        stacklevel=4,
    )


@contextmanager
def seeded(generator: torch.Generator, enabled: bool = True) -> Iterator[None]:
    """Let torch's global generator be seeded from another one, with numbers in float32, and put all back.

    Layers draw from the global generator, in the default dtype, when they are built, and dropout does when it runs.
    """
    dtype = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[], enabled=enabled):
        try:
            if enabled:
                torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
                torch.set_default_dtype(torch.float32)
            yield
        finally:
            torch.set_default_dtype(dtype)
