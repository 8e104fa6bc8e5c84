"""The training of a flow over networks: flow matching, and energy matching where its settings say so."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from wsflow.flow.energy import energy_matching_loss
from wsflow.flow.loss import FlowMatchingLoss
from wsflow.flow.velocity import VelocityField
from wsflow.models.options import EnergyMatching
from wsflow.models.orbits import nearest_in_orbit
from wsflow.models.settings import FlowSettings
from wsflow.models.weight_flow import WeightFlowModel
from wsflow.objectives.function_metric import function_metric, predictions_of
from wsflow.progress import Progress, stages
from wsflow.representation import in_a_line
from wsflow.training.checkpoints import CheckpointFolder, Stage
from wsflow.training.distributed import Processes, current_processes
from wsflow.training.loop import Loss, TrainingInterrupted, train
from wsflow.training.state import History, Schedule

# These are no parameters of WeightFlow: over three seeds on breast cancer and on MNIST no other value that was tried
# makes samples better by more than another random state does (docs/results/ablation_*-short.json). Nor does another
# weight decay, norm at which gradients are clipped, or decay of the moving average: see the defaults of `Schedule`.
# Training times: in the middle, where the end is neither unknown nor plain, a velocity has most to learn.
TIME = "logit_normal"
# share of the function metric in the loss; the rest is Euclidean, so that what no output shows is learned too
METRIC_WEIGHT = 0.9
# inputs of the task on which the function metric is measured in each step
METRIC_INPUTS = 32
# of the learning rate, for energy matching: the velocity is trained already
ENERGY_RATE = 0.25
STAGES = ("matching", "energy")
Checkpointing = tuple[CheckpointFolder, int]


@in_a_line
@dataclass
class FlowHistory(History):
    """Losses by training step; `energy` is the energy distance of predictions, the mean of each 50 steps."""

    energy: list[float] = field(default_factory=list)


def train_weight_flow(
    model: WeightFlowModel,
    points: Tensor,
    validation: Tensor,
    generator: torch.Generator,
    conditions: tuple[Tensor, Tensor] | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpointing | None = None,
) -> FlowHistory:
    """Train a model in place: by flow matching, and then by energy matching where its settings say so.

    Parameters
    ----------
    model : WeightFlowModel
    points : Tensor of shape (n, size)
    validation : Tensor of shape (m, size)
        Points of held-out runs; there may be none.
    generator : torch.Generator
    conditions : pair of Tensor of shapes (n,) and (m,), optional
        Of the points and of the validation points.
    progress : callable, optional
        Called with the steps done and their number.
    checkpoint : pair of CheckpointFolder and int, optional
        Where training is put away, after so many steps each, and taken up again: the rest must be as it was.

    Raises
    ------
    NumericalError
        If the loss is not finite before anything was learned.
    TrainingInterrupted
        At Ctrl-C, with the best weights so far in place.
    """
    settings, velocity, processes = model.settings, model.velocity, current_processes()
    processes.check_same(lambda: points.sum(0), "The networks to which the flow is fitted")
    processes.copy_first(velocity)
    progress = progress if processes.is_first else None
    validation = validation.float()
    learned, held_out = conditions or (None, None)
    if learned is not None:
        velocity.network.fit_condition(learned)
    loss = _flow_matching_loss(model, processes)
    dropout = 0.0 if settings.condition is None else settings.condition.dropout
    batches = loss.on_batches(points, settings.training.batch_size, learned, dropout, torch.float32)
    first, second = stages(progress, settings.max_iter, 0 if settings.energy is None else settings.energy.n_steps)
    history = FlowHistory()
    matched, fitted = (None if checkpoint is None else Stage(*checkpoint, name, loss, processes) for name in STAGES)
    try:
        validate = loss.on_validation(validation, generator, held_out)
        schedule = _schedule(settings)
        what = "The loss of the flow"
        watched: dict[str, Any] = {"progress": first, "what": what, "stage": matched, "processes": processes}
        found = train(velocity, batches, schedule, generator, validate=validate, **watched)
        history = FlowHistory(**vars(found))
        if settings.energy is not None:
            matching = _energy_matching_loss(model, settings.energy, batches, points, learned)
            schedule = replace(
                schedule,
                n_steps=settings.energy.n_steps,
                learning_rate=ENERGY_RATE * schedule.learning_rate,
                patience=None,
            )
            what = "The energy distance of predictions"
            watched = {"progress": second, "what": what, "stage": fitted, "processes": processes}
            found = train(velocity, matching, schedule, generator, is_trained=True, **watched)
            history.energy = found.train
            if found.stopped_at is not None:
                history.stopped_at = settings.max_iter + found.stopped_at
    except TrainingInterrupted as stop:
        history = history if history.step else FlowHistory(**vars(stop.history))
        raise TrainingInterrupted(history) from None
    finally:
        velocity.eval().requires_grad_(False)
    return history


def take_over(velocity: VelocityField, before: VelocityField) -> None:
    """Begin with the weights of another velocity network of the same sizes; scales and hints stay as they are."""
    try:
        velocity.network.load_state_dict(before.network.state_dict())
    except RuntimeError as error:
        raise ValueError(
            "A warm start begins with the velocity network of the last fit, and this one has other sizes. Fit without "
            "one, or with the same architecture, velocity, hints and condition."
        ) from error


def _schedule(settings: FlowSettings) -> Schedule:
    options = settings.training
    return Schedule(settings.max_iter, options.learning_rate, patience=options.patience)


def _energy_matching_loss(
    model: WeightFlowModel, energy: EnergyMatching, batches: Loss, points: Tensor, conditions: Tensor | None
) -> Loss:
    settings, geometry = model.settings, model.geometry
    if settings.task is None or geometry.architecture is None:
        raise ValueError("Energy matching runs the networks: it needs a task and an architecture.")
    return energy_matching_loss(
        batches,
        predictions_of(settings.task, geometry.architecture, geometry),
        points,
        batch_size=max(2, settings.training.batch_size // 2),
        weight=energy.weight,
        n_steps=getattr(settings.solver, "n_steps", 8),
        conditions=conditions,
        dtype=torch.float32,
    )


def _flow_matching_loss(model: WeightFlowModel, processes: Processes) -> FlowMatchingLoss:
    settings, geometry = model.settings, model.geometry
    metric = None
    if settings.metric == "function" and settings.task is not None and geometry.architecture is not None:
        metric = function_metric(settings.task, geometry.architecture, geometry, METRIC_INPUTS)
    nearest = nearest_in_orbit(geometry, settings.is_named) if settings.coupling == "orbit" else None
    return FlowMatchingLoss(model.velocity, settings.coupling, TIME, metric, METRIC_WEIGHT, nearest, processes)
