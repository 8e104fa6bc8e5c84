"""From MNIST to Fashion-MNIST: guided samples of a flow, and its samples as initialisation.

Guidance spends a number of gradients of the training loss on minibatches. It stands beside the same integration
without a velocity from the same source (guidance alone), and beside SGD and Adam from random networks with the same
number of gradients of the same batch size, each with the best of some constant rates on the validation data. The
learning curves start from random networks, from trained networks of MNIST and from samples of the flow, as they are
and brought to the scale of the new inputs, with the rate that is best for random networks. Accuracy is that on the
test part. The data are where ``WSFLOW_DATA`` says, or are downloaded.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import hardware
from torch import Tensor, nn

import wsflow
from wsflow import Guidance, WeightArray, WeightFlow
from wsflow.estimators.standardizing import standardized
from wsflow.evaluation.predictive import predict
from wsflow.evaluation.transfer import learning_curves
from wsflow.flow.guidance import Descent
from wsflow.initialisation import INITIALISATIONS

HIDDEN = (10,)
RATES = {"sgd": (0.01, 0.03, 0.1, 0.3), "adam": (0.001, 0.003, 0.01, 0.03)}
# rates and damping were chosen on validation data, for guidance alone as for the flow
DESCENTS: dict[str, dict[str, Any]] = {
    "natural": {"optimizer": "gradient", "natural": True, "rate": 0.5, "damping": 0.01, "cooling": "cosine"},
    "adam": {"optimizer": "adam", "rate": 0.01},
}


class Still(nn.Module):
    """No velocity at all: guidance alone."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(x)


def population(options: argparse.Namespace, mnist: wsflow.Task) -> WeightArray:
    """Aligned MNIST networks, from a file or trained now."""
    if options.population is not None and options.population.exists():
        loaded = wsflow.load_population(options.population)
    else:
        recipe = {"optimizer": "sgd", "learning_rate": 0.05, "epochs": options.epochs, "random_state": options.seed}
        loaded = wsflow.train_population(mnist, HIDDEN, options.runs, **recipe)
        if options.population is not None:
            wsflow.save_population(loaded, options.population)
    return wsflow.PermutationAligner(method="weight").fit_transform(loaded.weights)


def guided(flow: WeightFlow, fashion: wsflow.Task, descent: Descent, options: argparse.Namespace) -> dict[str, float]:
    """Test accuracy and its standard error, of single networks and of their average."""
    guidance = Guidance(fashion, batch_size=options.batch_size, descent=descent)
    start = time.perf_counter()
    new = flow.sample(options.networks, options.seed, temperature=options.temperature, guidance=guidance)
    seconds = time.perf_counter() - start
    found = predict(new, fashion.test)
    spread = found.scores.std(ddof=1) / len(found.scores) ** 0.5
    averaged = float((found.average.argmax(1) == fashion.test.y).mean())
    row = {"accuracy": float(found.scores.mean()), "error": float(spread), "loss": float(found.losses.mean())}
    return {**row, "average": averaged, "seconds": seconds}


def tuned(
    start: WeightArray, fashion: wsflow.Task, optimizer: str, steps: int, batch: int, seed: int
) -> dict[str, Any]:
    """Training from a start with the rate that is best on the validation data."""
    options = {"n_steps": steps, "every": steps, "optimizer": optimizer, "batch_size": batch, "random_state": seed}
    valid = {
        rate: learning_curves(start, fashion, learning_rate=rate, evaluate_on=fashion.validation, **options)
        for rate in RATES[optimizer]
    }
    rate = max(valid, key=lambda r: valid[r].scores[-1].mean())
    test = learning_curves(start, fashion, learning_rate=rate, evaluate_on=fashion.test, **options)
    return {"accuracy": float(test.scores[-1].mean()), "rate": rate}


def standard(rows: WeightArray, fashion: wsflow.Task) -> WeightArray:
    """Networks at the scale of the inputs of Fashion-MNIST."""
    weights = torch.from_numpy(np.array(rows, dtype=np.float32))
    return rows.like(standardized(weights, rows.architecture, torch.from_numpy(fashion.X[::55])).numpy())


def curves(starts: dict[str, WeightArray], fashion: wsflow.Task, options: argparse.Namespace) -> dict[str, Any]:
    """Steps to the accuracy that random networks have after one epoch."""
    epoch = len(fashion.X) // 64
    rates = {r: tuned_rate(starts["random"], fashion, r, epoch, options.seed) for r in RATES["sgd"]}
    rate = max(rates, key=lambda r: rates[r])
    found = {
        name: learning_curves(rows, fashion, n_steps=epoch, every=10, learning_rate=rate, random_state=options.seed)
        for name, rows in starts.items()
    }
    target = float(found["random"].scores[-1].mean())
    rows = {
        name: {"steps": curve.steps_to(target), "after one epoch": float(curve.scores[-1].mean())}
        for name, curve in found.items()
    }
    return {"rate": rate, "target": target, "epoch": epoch, "rows": rows}


def tuned_rate(start: WeightArray, fashion: wsflow.Task, rate: float, steps: int, seed: int) -> float:
    """Validation accuracy after some steps of SGD."""
    keywords = {"n_steps": steps, "every": steps, "learning_rate": rate, "evaluate_on": fashion.validation}
    return float(learning_curves(start, fashion, random_state=seed, **keywords).scores[-1].mean())


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--population", type=Path, help="trained and written there if it does not exist")
    parser.add_argument("--model", type=Path, help="a fitted flow; fitted and written there if it does not exist")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=1500)
    parser.add_argument("--prior", default="isotropic")
    parser.add_argument("--temperature", type=float, default=0.5)
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--gradients", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def fitted(networks: WeightArray, mnist: wsflow.Task, options: argparse.Namespace) -> WeightFlow:
    """The flow of the MNIST networks."""
    if options.model is not None and options.model.exists():
        return wsflow.load_model(options.model)
    settings = {"prior": options.prior, "max_iter": options.iterations, "batch_size": 32, "random_state": options.seed}
    flow = WeightFlow("euclidean", task=mnist, **settings).fit(networks)
    if options.model is not None:
        wsflow.save_model(flow, options.model)
    return flow


def main() -> None:
    """Run, print and write."""
    options = parsed()
    torch.set_num_threads(options.threads)
    mnist, fashion = wsflow.load_task("mnist"), wsflow.load_task("fashion_mnist")
    networks = population(options, mnist)
    flow = fitted(networks, mnist, options)
    still = copy.copy(flow)
    still.velocity_ = Still()
    generator = torch.Generator().manual_seed(options.seed)
    n, architecture = options.networks, networks.architecture
    random = {
        name: WeightArray(INITIALISATIONS[name](architecture, n, generator).numpy(), architecture)
        for name in ("normal", "uniform")
    }
    rows: dict[str, Any] = {}

    def note(name: str, row: dict[str, Any]) -> None:
        rows[name] = row
        print(name, {key: round(value, 4) for key, value in row.items()}, flush=True)

    for count in options.gradients:
        for kind, settings in DESCENTS.items():
            descent = Descent(count, flow_steps=0, clip=10.0, standardize=True, **settings)
            for name, field in (("flow", flow), ("v = 0", still)):
                note(f"{name}, {kind}, {count}", guided(field, fashion, descent, options))
        for name, start in random.items():
            for optimizer in RATES:
                found = tuned(start, fashion, optimizer, count, options.batch_size, options.seed)
                note(f"{optimizer} from random ({name}), {count}", found)
    samples = flow.sample(n, options.seed, temperature=options.temperature)
    starts = {
        "random": random["normal"],
        "random, torch's": random["uniform"],
        "trained": networks[:n],
        "flow": samples,
    }
    starts |= {f"{name}, standardized": standard(start, fashion) for name, start in starts.items()}
    learning = curves(starts, fashion, options)
    for name, row in learning["rows"].items():
        print(name, {key: round(value, 4) for key, value in row.items()}, flush=True)
    if options.out is not None:
        given = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
        data = {"settings": given, "guidance": rows, "learning": learning, "hardware": hardware()}
        options.out.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
