"""The training loop: AdamW with a warm-up and a cosine, until the end, an early stop, or a loss that is not finite.

A loss is a callable, so that the loop knows nothing of what learns. All randomness comes from one generator.

References
----------
Loshchilov and Hutter 2019, arXiv:1711.05101 (AdamW); Loshchilov and Hutter 2017, arXiv:1608.03983 (the cosine);
Polyak and Juditsky 1992 (averaged weights).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from wsflow.exceptions import NumericalError
from wsflow.progress import Progress
from wsflow.training.checkpoints import Stage
from wsflow.training.distributed import ALONE, Processes
from wsflow.training.state import History, Schedule, TrainingState

# from a module in training and a generator to what is minimised and what is recorded of it
Loss = Callable[[Any, torch.Generator], tuple[Tensor, Tensor]]


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
    stage: Stage | None = None,
    processes: Processes = ALONE,
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
    stage : Stage, optional
        Where the training is put away now and then, and from where it is taken up again.
    processes : Processes
        Those that train together: the mean of their losses is minimised.

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
    >>> from wsflow.training.loop import train
    >>> from wsflow.training.state import Schedule
    >>> line, x = torch.nn.Linear(1, 1), torch.linspace(-1, 1, 20).unsqueeze(1)
    >>> def loss(module, generator):
    ...     value = (module(x) - 2 * x).square().mean()
    ...     return value, value
    >>> history = train(line, loss, Schedule(n_steps=200, learning_rate=0.05), torch.Generator())
    >>> history.step, bool((line.weight - 2).abs() < 0.1)
    ([50, 100, 150, 200], True)
    """
    state = TrainingState(module, schedule, generator, validate, processes)
    try:
        if stage is not None:
            stage.restore(state)
        while not state.is_done:
            _step(state, loss, progress, is_trained, what)
            if stage is not None:
                stage.save(state)
    except KeyboardInterrupt:
        raise TrainingInterrupted(state.best.history) from None
    finally:
        module.load_state_dict(state.best.checkpoint)
    return state.best.history


def _step(state: TrainingState, loss: Loss, progress: Progress | None, is_trained: bool, what: str) -> None:
    step, waited, schedule = state.step, 0, state.schedule
    try:
        value, recorded = loss(state.module.train(), state.generator)
        state.descend(value, recorded)
        if progress is not None:
            progress(state.step, schedule.n_steps)
        if state.is_at_an_evaluation:
            waited = state.best.evaluate(state.step, state.recent)
            state.recent = []
    except NumericalError:
        _stop(step, state.best.history, is_trained, what)
        state.is_done = True
    else:
        is_patient = schedule.patience is None or waited < schedule.patience
        state.is_done = state.step >= schedule.n_steps or not is_patient


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
        stacklevel=5,
    )


@contextmanager
def seeded(generator: torch.Generator, enabled: bool = True, stream: int = 0) -> Iterator[None]:
    """Let torch's global generator be seeded from another one, with numbers in float32, and put all back.

    Streams of other numbers are other ones.

    Layers draw from the global generator, in the default dtype, when they are built, and dropout does when it runs.
    """
    dtype = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[], enabled=enabled):
        try:
            if enabled:
                torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)) + stream)
                torch.set_default_dtype(torch.float32)
            yield
        finally:
            torch.set_default_dtype(dtype)
