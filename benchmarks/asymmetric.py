"""What makes networks interpolate: constants that tell neurons apart, beside their controls.

The recipe: perceptrons with layer norms and GELU (Lim et al. 2024, arXiv:2405.20231), Adam 1e-3 without decay, batches
of 64, the first weights of torch's layers; all pairs of networks of a seed. The columns: networks as they are, aligned
by weight matching and by the default of `PermutationAligner` (each pair directly), with gated activations (sigma), with
constants in the weights (W), and the controls: the mask of W alone, the constants of W as mere first values (anchor),
and one shared ordinary initialisation. The seed of the constants is that of the training. Barriers are those of the
test loss over the midpoint and over 25 points of the line; neurons are identifiable where the neuron of the other
network whose activations correlate most is the one of the same place. Arms that are measured later are added to the
file of ``--out``. ``--quick`` takes scikit-learn's digits and seconds. MNIST is read from the folder in WSFLOW_DATA, or
from OpenML.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from barriers import METHODS
from measure import hardware
from torch import nn

from wsflow.architecture import Architecture
from wsflow.evaluation.barrier import loss_barrier, midpoint_barrier
from wsflow.evaluation.identifiability import neuron_identifiability
from wsflow.populations import load_task
from wsflow.populations.asymmetry import Asymmetry
from wsflow.populations.population import Population
from wsflow.populations.training import train_population
from wsflow.running import forward, scores, tensors_of
from wsflow.task import Task
from wsflow.tracing import remaining_of_module
from wsflow.weights import WeightArray

QUICK = {"task": "digits", "width": 12, "images": 300, "epochs": 3, "networks": 3}
# each arm: what is trained, by settings of train_population
ARMS: dict[str, dict[str, Any]] = {
    "standard": {},
    "sigma": {"asymmetry": Asymmetry("activations")},
    "W": {"asymmetry": Asymmetry()},
    "mask alone": {"asymmetry": Asymmetry(kappa=0.0)},
    "anchor": {"asymmetry": Asymmetry(), "anchor": True},
    "shared initialisation": {"shared_initialisation": True},
}
ALIGNED = {"weight matching": "weight", "default chain": "PermutationAligner"}


def network(inputs: int, width: int, depth: int, outputs: int) -> nn.Module:
    """A perceptron with layer norms and GELU."""
    layers: list[nn.Module] = []
    for before in (inputs, *[width] * (depth - 1)):
        layers += [nn.Linear(before, width), nn.LayerNorm(width), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def some(task: Task, images: int | None, examples: int | None) -> Task:
    """The task with the first of its training and of its test examples."""
    held_out = task.held_out
    test = replace(held_out, X=held_out.X[:examples], y=held_out.y[:examples], validation=None, test=None)
    return replace(task, X=task.X[:images], y=task.y[:images], validation=None, test=test)


@torch.no_grad()
def accuracies(networks: WeightArray, task: Task) -> np.ndarray:
    """The accuracy of each network."""
    X, y, _ = tensors_of(task)
    rows = torch.from_numpy(np.array(networks))
    return scores(forward(rows, networks.architecture, X.to(rows)), y, task.loss).numpy()


def row(name: str, networks: WeightArray, pairs: np.ndarray, task: Task, second: WeightArray | None = None) -> Any:
    """The measures of one column; `second` are the second networks of pairs, where they were moved."""
    held_out, first = task.held_out, networks[pairs[:, 0]]
    second = networks[pairs[:, 1]] if second is None else second
    midpoint, identified = midpoint_barrier(first, second, held_out), neuron_identifiability(first, second, held_out)
    found = {
        "midpoint": midpoint.mean(),
        "midpoint_largest": midpoint.max(),
        "largest": loss_barrier(first, second, held_out).mean(),
        "accuracy": accuracies(networks, held_out).mean(),
        "identified": identified.mean(),
    }
    numbers = {key: float(value) for key, value in found.items()}
    print(
        f"  {name:24} {numbers['midpoint']:9.4f} {numbers['midpoint_largest']:9.4f} {numbers['largest']:9.4f} "
        f"{numbers['accuracy']:9.4f} {numbers['identified']:9.3f}",
        flush=True,
    )
    return numbers


def trained(arm: str, seed: int, arguments: argparse.Namespace, task: Task) -> Population:
    """The networks of one arm and seed."""
    settings = dict(ARMS[arm])
    if "asymmetry" in settings:
        settings["asymmetry"] = replace(settings["asymmetry"], seed=seed)
    build = partial(network, task.n_inputs, arguments.width, arguments.depth, task.n_outputs)
    recipe = {"optimizer": "adam", "learning_rate": 1e-3, "batch_size": 64, "random_state": seed}
    return train_population(
        task, module=build, n_runs=arguments.networks, epochs=arguments.epochs, **recipe, **settings
    )


def measured(seed: int, arguments: argparse.Namespace, task: Task) -> dict[str, Any]:
    """All columns of one seed."""
    pairs = np.array(list(combinations(range(arguments.networks), 2)))
    data = torch.from_numpy(task.X), torch.from_numpy(task.y), task.loss
    table: dict[str, Any] = {}
    for arm in arguments.arms:
        start = time.perf_counter()
        networks = trained(arm, seed, arguments, task).weights
        spent = time.perf_counter() - start
        table[arm] = {**row(arm, networks, pairs, task), "seconds": spent, "left": left(networks.architecture)}
        for name, method in ALIGNED.items() if arm == "standard" else ():
            goal, moving = (torch.from_numpy(np.array(networks[pairs[:, i]])) for i in (0, 1))
            action = METHODS[method](moving, goal, networks.architecture, data)
            table[name] = row(name, networks, pairs, task, action(networks[pairs[:, 1]]))
    return table


def left(architecture: Architecture) -> str:
    """Which symmetries the constants leave."""
    assert architecture.program is not None
    example = tuple(torch.zeros(known.shape) for known in architecture.program.inputs)
    found = remaining_of_module(architecture.executable, example)
    return "no constants" if found is None else str(found[0])


def main() -> None:
    """Train, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="mnist")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--images", type=int, help="training examples (default: all)")
    parser.add_argument("--examples", type=int, help="test examples on which networks are measured (default: all)")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--networks", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="digits, width 12, 3 networks, 3 epochs, seed 0")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        vars(arguments).update(QUICK, seeds=[0])
    torch.set_num_threads(arguments.threads)
    task = some(load_task(arguments.task), arguments.images, arguments.examples)
    rows = {}
    for seed in arguments.seeds:
        print(f"seed {seed}: {arguments.networks} networks of width {arguments.width} on {len(task.X)} examples")
        titles = ("midpoint", "its max", "line", "accuracy", "identif.")
        print(f"  {'column':24} {' '.join(f'{title:>9}' for title in titles)}", flush=True)
        rows[str(seed)] = measured(seed, arguments, task)
    if arguments.out is not None:
        settings = {key: value for key, value in vars(arguments).items() if key not in ("out", "arms", "quick")}
        write(arguments.out, {"settings": settings, "rows": rows, "hardware": hardware()})


def write(path: Path, data: dict[str, Any]) -> None:
    """Write what was measured, beside the other arms that a file of the same settings has."""
    known = json.loads(path.read_text()) if path.exists() else data
    if known["settings"] != data["settings"]:
        raise SystemExit(f"{path} has networks of other settings: choose another file.")
    for seed, columns in data["rows"].items():
        known["rows"].setdefault(seed, {}).update(columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
