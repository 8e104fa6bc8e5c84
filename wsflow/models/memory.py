"""What a flow takes of memory, estimated from its parameters before anything is built."""

from __future__ import annotations

from wsflow.memory import check_memory
from wsflow.models.options import MLP, NeuronTransformer
from wsflow.models.settings import FlowSettings

COPIES = 5  # of the weights in training: themselves, gradients, two moments of Adam, and the moving average
SINGLE, DOUBLE = 4, 8
LAYER = 20_000  # bytes of a layer's Python objects
EVALUATION = 50  # steps for each of which the history has four numbers
NUMBER = 32  # bytes of a number in a list


def check_flow(settings: FlowSettings, n_weights: int, n_neurons: int) -> None:
    """Refuse a flow over networks of `n_weights` weights and `n_neurons` neurons that does not fit into memory."""
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


def n_parameters(velocity: NeuronTransformer | MLP) -> int:
    """Return the number of weights between the layers of a velocity network, without its first and last layers."""
    return velocity.weights_per_square * velocity.depth * velocity.width**2


def check_samples(n_samples: int, n_weights: int) -> None:
    """Refuse a number of networks that does not fit into memory beside the points of which they are made."""
    check_memory(f"{n_samples} networks of {n_weights} weights", 2 * DOUBLE * n_samples * n_weights, "Sample fewer.")
