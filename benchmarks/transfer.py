"""From MNIST to Fashion-MNIST: guided samples of a flow, and its samples as initialisation.

Guidance spends a number of gradients of the training loss on minibatches. It stands beside the same descent without a
velocity, from the same source (guidance alone) and from random networks, and beside SGD and Adam from random networks
with the same number of gradients of the same batch size, each with the best of some constant rates on the validation
data, for a few networks. The
learning curves start from random networks, from trained networks of MNIST and from samples of the flow, as they are
and brought to the scale of the new inputs, with the rate that is best for random networks. Accuracy is that on the
test part. Population and flow are those of ``quality.py --job mnist``. Writes a row for each seed. The data are where
``WSFLOW_DATA`` says, or are downloaded.
"""

from __future__ import annotations

import argparse
import copy
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demo_seeds import RESULTS
from quality import SHORT_MNIST, fitted, population, quick
from results_file import Clock, ResultsFile
from torch import Tensor, nn

import wsflow
from wsflow import Guidance, WeightArray, WeightFlow
from wsflow.evaluation.predictive import predict
from wsflow.evaluation.transfer import learning_curves
from wsflow.flow.continuous import ContinuousFlow
from wsflow.flow.guidance import Descent
from wsflow.models.options import InitialSource
from wsflow.models.sources import fit_source
from wsflow.objectives.lsuv import standardized
from wsflow.running.initialisation import INITIALISATIONS

RATES = {"sgd": (0.01, 0.03, 0.1, 0.3), "adam": (0.001, 0.003, 0.01, 0.03)}
# rates and damping were chosen on validation data, for guidance alone as for the flow
DESCENTS: dict[str, dict[str, Any]] = {
    "natural": {"optimizer": "gradient", "natural": True, "rate": 0.5, "damping": 0.01, "cooling": "cosine"},
    "adam": {"optimizer": "adam", "rate": 0.01},
}
# networks by which a rate is chosen
TUNED = 5


class Still(nn.Module):
    """No velocity at all: guidance alone."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(x)


def without_velocity(flow: WeightFlow, scheme: str | None = None) -> WeightFlow:
    """A flow that stays where it starts: at its source, or at random networks."""
    still, model, source = copy.copy(flow), flow.model_, flow.source_
    if scheme is not None:
        source = fit_source(InitialSource(scheme), model.geometry, model.settings.space, torch.empty(0))
    still.model_ = replace(model, flow=ContinuousFlow(model.geometry.manifold, source, Still()))
    return still


def guided(
    flow: WeightFlow, fashion: wsflow.Task, descent: Descent, seed: int, options: argparse.Namespace
) -> dict[str, float]:
    """Test accuracy and its standard error, of single networks and of their average."""
    guidance = Guidance(fashion, batch_size=options.batch_size, descent=descent)
    start = time.perf_counter()
    new = flow.sample(options.networks, seed, temperature=options.temperature, guidance=guidance)
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
        rate: learning_curves(start[:TUNED], fashion, learning_rate=rate, evaluate_on=fashion.validation, **options)
        for rate in RATES[optimizer]
    }
    rate = max(valid, key=lambda r: valid[r].scores[-1].mean())
    test = learning_curves(start, fashion, learning_rate=rate, evaluate_on=fashion.test, **options)
    return {"accuracy": float(test.scores[-1].mean()), "rate": rate}


def standard(rows: WeightArray, fashion: wsflow.Task) -> WeightArray:
    """Networks at the scale of the inputs of Fashion-MNIST."""
    weights = torch.from_numpy(np.array(rows, dtype=np.float32))
    return rows.like(standardized(weights, rows.architecture, torch.from_numpy(fashion.X[::55])).numpy())


def curves(starts: dict[str, WeightArray], fashion: wsflow.Task, seed: int) -> dict[str, Any]:
    """Steps to the accuracy that random networks have after one epoch."""
    epoch = len(fashion.X) // 64
    rates = {r: tuned_rate(starts["random"][:TUNED], fashion, r, epoch, seed) for r in RATES["sgd"]}
    rate = max(rates, key=lambda r: rates[r])
    found = {
        name: learning_curves(rows, fashion, n_steps=epoch, every=10, learning_rate=rate, random_state=seed)
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


def measured(recipe: dict[str, Any], fashion: wsflow.Task, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The row of one seed: guidance with every number of gradients, and learning curves."""
    clock, mnist = Clock(), wsflow.load_task(recipe["task"])
    known, _ = population({**recipe, "held_out": 1}, mnist, seed, clock)
    model = fitted(known, mnist, seed, recipe["flow"], clock)
    flow: WeightFlow = model[-1]
    fields = {"flow": flow, "v = 0": without_velocity(flow), "random": without_velocity(flow, "normal")}
    generator = torch.Generator().manual_seed(seed)
    n, architecture = options.networks, known.architecture
    random = {
        name: WeightArray(INITIALISATIONS[name](architecture, n, generator).numpy(), architecture)
        for name in ("normal", "uniform")
    }
    rows: dict[str, Any] = {}

    def note(name: str, row: dict[str, Any]) -> None:
        rows[name] = row
        print(f"seed {seed}, {name}", {key: round(value, 4) for key, value in row.items()}, flush=True)

    for count in options.gradients:
        for kind, settings in DESCENTS.items():
            descent = Descent(count, flow_steps=0, clip=10.0, standardize=True, **settings)
            for name, field in fields.items():
                note(f"{name}, {kind}, {count}", guided(field, fashion, descent, seed, options))
        for name, start in random.items():
            for optimizer in RATES:
                found = tuned(start, fashion, optimizer, count, options.batch_size, seed)
                note(f"{optimizer} from random ({name}), {count}", found)
    starts = {
        "random": random["normal"],
        "random, torch's": random["uniform"],
        "trained": known[:n],
        "flow": flow.sample(n, seed, temperature=options.temperature),
    }
    starts |= {f"{name}, standardized": standard(start, fashion) for name, start in starts.items()}
    learning = curves(starts, fashion, seed)
    for name, row in learning["rows"].items():
        print(f"seed {seed}, {name}", {key: round(value, 4) for key, value in row.items()}, flush=True)
    return {"guidance": rows, "learning": learning, "seconds": clock.seconds}


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--temperature", type=float, default=0.5)
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--gradients", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="measure seeds that the file has, too")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, on the small digits")
    parser.add_argument("--out", type=Path, help="default: docs/results/transfer.json; none with --quick")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.quick and options.out is None:
        parser.error("--quick needs --out: what it measures says nothing")
    names = ("temperature", "networks", "gradients", "batch_size")
    recipe, other = SHORT_MNIST, "fashion_mnist"
    if options.quick:
        recipe, other, options.networks, options.gradients = quick(recipe), "digits", 4, [4]
    fashion = wsflow.load_task(other)
    settings = {
        **recipe,
        **{name: getattr(options, name) for name in names},
        "descents": DESCENTS,
        "rates": RATES,
        "tuned": TUNED,
    }
    file = ResultsFile(options.out or RESULTS / "transfer.json", settings, options.again)
    for seed in options.seeds:
        file.measure(str(seed), lambda s=seed: measured(recipe, fashion, s, options))


if __name__ == "__main__":
    main()
