"""What a flow or a metanetwork takes of memory and of the disk, estimated from its parameters before it is built."""

from __future__ import annotations

from typing import Any

import torch

from wsflow.architecture import Architecture
from wsflow.memory import check_memory
from wsflow.models.flow_training import METRIC_INPUTS
from wsflow.models.options import MLP, ExchangeableSource, GaussianSource
from wsflow.models.settings import FlowSettings
from wsflow.running.gradient_memory import kept_for_gradients

COPIES = 5  # of the weights in training: themselves, gradients, two moments of Adam, and the moving average
SINGLE, DOUBLE = 4, 8
LAYER = 20_000  # bytes of a layer's Python objects
EVALUATION = 50  # steps for each of which the history has four numbers
NUMBER = 32  # bytes of a number in a list
BOTH = 2  # values and their change


def check_flow(settings: FlowSettings, architecture: Architecture | None, n_weights: int) -> None:
    """Refuse a flow over networks of `n_weights` weights, or vectors, that does not fit into memory."""
    n_neurons = 0 if architecture is None else sum(group.total for group in architecture.groups)
    velocity, batch = settings.velocity, settings.training.batch_size
    owner = type(velocity).__name__
    check_memory(
        f"The weights of {owner}(width={velocity.width}, depth={velocity.depth}) and what trains them",
        COPIES * SINGLE * n_parameters(velocity) + LAYER * velocity.depth,
        "Lower the width or the depth.",
    )
    tokens = 1 if isinstance(velocity, MLP) else n_neurons
    activations = velocity.depth * velocity.width * tokens
    check_memory(
        f"Batches of {batch} networks (the 'batch_size')",
        batch * (DOUBLE * n_weights + SINGLE * activations),
        "Lower the 'batch_size'.",
    )
    check_memory(
        f"The losses of {settings.max_iter} steps (the 'max_iter')",
        4 * NUMBER * settings.max_iter / EVALUATION,
        "Lower 'max_iter'.",
    )
    probes = settings.density.n_probes
    check_memory(f"{probes} probes of {n_weights} numbers", DOUBLE * probes * n_weights, "Lower 'n_probes'.")
    steps = getattr(settings.solver, "n_steps", 1)
    check_memory(f"The times of {steps} steps of the solver", DOUBLE * steps, "Lower 'n_steps'.")


def n_parameters(velocity: Any) -> int:
    """Return the number of weights between the layers of a network, without its first and last layers."""
    per_square: int = getattr(velocity, "weights_per_square", BOTH)
    return per_square * velocity.depth * velocity.width**2


def check_metanetwork(metanetwork: Any, n_columns: int, n_members: int = 1) -> None:
    """Refuse metanetworks, or decoders, of so many inputs and outputs in all that do not fit into memory."""
    owner, width, depth = type(metanetwork).__name__, metanetwork.width, metanetwork.depth
    plain = isinstance(metanetwork, MLP)
    weights = n_parameters(metanetwork) + width * (n_columns if plain else 1)
    check_memory(
        f"The weights of {n_members} {owner}(width={width}, depth={depth}) and what trains them",
        n_members * (COPIES * SINGLE * weights + LAYER * depth),
        "Lower the width, the depth or the number of them.",
    )
    probes = getattr(metanetwork, "n_probes", 0)
    check_memory(f"{probes} probes (the 'n_probes')", COPIES * DOUBLE * n_members * probes * width, "Lower 'n_probes'.")


def check_gradients(settings: FlowSettings, architecture: Architecture | None, n_networks: int) -> None:
    """Refuse hints, of a few networks at once, and a metric, of a whole batch, that do not fit into memory."""
    if settings.task is None or architecture is None or (settings.hints is None and settings.metric == "euclidean"):
        return
    kept = kept_for_gradients(architecture, torch.from_numpy(settings.task.X[:1]))
    if settings.hints is not None:
        inputs = min(len(settings.task.X), settings.hints.n_inputs)
        check_memory(
            f"Hints of a network on {inputs} inputs of the task",
            inputs * kept,
            "Lower the 'n_inputs' of the hints, or choose hints=None.",
        )
    if settings.metric == "function":
        batch = min(settings.training.batch_size, n_networks)
        check_memory(
            f"The change of the outputs of {batch} networks on {METRIC_INPUTS} inputs of the task",
            BOTH * batch * METRIC_INPUTS * kept,
            "Lower the 'batch_size', or choose metric='euclidean'.",
        )


def bytes_in_file(settings: FlowSettings, n_networks: int, n_weights: int) -> int:
    """Return about how many bytes the file of a flow takes: those of its velocity, its source and its hints."""
    source, task = settings.source, settings.task
    is_factored = isinstance(source, GaussianSource) and not isinstance(source, ExchangeableSource)
    columns = min(n_networks, n_weights) if is_factored else 1
    inputs = 0 if task is None or settings.hints is None else min(len(task.X), settings.hints.n_inputs) * task.X[0].size
    return SINGLE * (n_parameters(settings.velocity) + inputs) + DOUBLE * n_weights * columns


def check_samples(n_samples: int, n_weights: int) -> None:
    """Refuse a number of networks that does not fit into memory beside the points of which they are made."""
    check_memory(f"{n_samples} networks of {n_weights} weights", 2 * DOUBLE * n_samples * n_weights, "Sample fewer.")
