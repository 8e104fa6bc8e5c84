"""How good, how new and how different a flow's samples are, as a curve over temperature, beside every null.

A job is a population of fresh runs, runs that are held out, and a flow. Samples are neither guided nor selected, and
made without labels; they are judged on the test part of the data and by the runs that were held out. Writes a row for
each seed, as soon as it is measured, and skips the seeds that the file has. MNIST is where ``WSFLOW_DATA`` says, or
is downloaded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from demo_seeds import RESULTS
from modules import MODULES, image_task, photograph
from results_file import Clock, ResultsFile, rival
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline

import wsflow
from wsflow import Task, WeightArray
from wsflow.cli.parameters import set_flow_parameters
from wsflow.evaluation import Report, predictive_curve

# two epochs for each network: for benchmarks that look at something else than their quality
SHORT_MNIST: dict[str, Any] = {
    "task": "mnist",
    "hidden": (10,),
    "runs": 1500,
    "held_out": 100,
    "training": {
        "optimizer": "sgd",
        "learning_rate": 0.2,
        "momentum": 0.9,
        "weight_decay": 1e-5,
        "epochs": 2,
        "batch_size": 128,
        "initialisation": "uniform",
        "n_jobs": 2,
    },
    "snapshots": {},
    "flow": {"geometry": "euclidean", "training.learning_rate": 0.004, "energy": "predictions"},
    "minutes": 20,
}
# one epoch of images with 14 by 14 pixels, and flows whose networks' scales are left as they are
IMAGES: dict[str, Any] = {
    "held_out": 100,
    "training": {"learning_rate": 3e-3, "schedule": "cosine", "epochs": 1, "batch_size": 64, "n_jobs": 2},
    "snapshots": {},
    "flow": SHORT_MNIST["flow"],
    "form": "raw",
    "minutes": 30,
}
SHORT_IMAGES = {"learning_rate": 1e-2, "schedule": "cosine", "steps": 300, "batch_size": 64, "n_jobs": 2}
RECIPES: dict[str, dict[str, Any]] = {
    "wdbc": {
        "task": "breast_cancer",
        "hidden": (16, 16),
        "runs": 2500,
        "held_out": 300,
        "training": {},
        "snapshots": {},
        "flow": {"geometry": "geometric"},
        "minutes": 10,
    },
    "wdbc-thesis": {
        "task": "breast_cancer",
        "hidden": (16, 16),
        "runs": 100,
        "held_out": 300,
        "training": {},
        # steps 96 to 400 of 400, where the protocol has every fourth after 80, a quarter as many networks
        "snapshots": {"snapshots": 20, "snapshot_every": 16},
        # with few runs names of neurons are learned by heart
        "flow": {"geometry": "geometric", "velocity.identity": None},
        "minutes": 3,
    },
    "mnist": {
        **SHORT_MNIST,
        "runs": 1000,
        "training": {**SHORT_MNIST["training"], "weight_decay": 3e-4, "epochs": 8, "schedule": "cosine"},
        # fewer inputs for hints, which take the time, and more steps: averages of samples gain most by it
        "flow": {
            **SHORT_MNIST["flow"],
            "source.shrinkage": 0.02,
            "hints": "gradient",
            "hints.n_inputs": 192,
            "max_iter": 3500,
            "energy.n_steps": 100,
        },
        # scales are part of what these networks have learned, and flows without them are worse
        "form": "raw",
    },
    "cnn": {
        **IMAGES,
        "task": "mnist",
        "module": "cnn",
        "runs": 1000,
        "training": {**IMAGES["training"], "learning_rate": 2e-2, "batch_size": 128},
        # fewer inputs for hints, which is where the time goes, and more steps
        "flow": {
            **IMAGES["flow"],
            "source.shrinkage": 0.02,
            "hints": "gradient",
            "hints.n_inputs": 256,
            "max_iter": 1300,
            "energy.n_steps": 250,
        },
    },
    "resnet": {
        **IMAGES,
        "task": "fashion_mnist",
        "module": "resnet",
        "runs": 400,
        "training": SHORT_IMAGES,
        "flow": {**IMAGES["flow"], "hints": "gradient", "hints.n_inputs": 64, "max_iter": 1000, "energy.n_steps": 80},
    },
    "resnet20": {
        **IMAGES,
        "task": "fashion_mnist",
        "module": "resnet20",
        "tested": 1000,
        "runs": 3,
        "held_out": 3,
        "training": {"learning_rate": 3e-3, "schedule": "cosine", "steps": 500, "batch_size": 64},
        "snapshots": {"snapshots": 20, "snapshot_every": 5},
        # hints and the function metric run each network of a batch at each step
        "flow": {"geometry": "euclidean", "geometry.latent": 30, "hints": None, "metric": "euclidean"},
    },
    "vit": {
        **IMAGES,
        "task": "mnist",
        "module": "vit",
        "runs": 600,
        "training": {**SHORT_IMAGES, "steps": 600},
        "invertible": True,
        "flow": {**IMAGES["flow"], "hints": "gradient", "hints.n_inputs": 64, "max_iter": 1500, "energy.n_steps": 120},
    },
    "siren": {
        **IMAGES,
        "task": "photograph",
        "architecture": "siren:32,32",
        "runs": 1000,
        # networks that begin nearly flat are nearer to each other once they are aligned
        "training": {
            **IMAGES["training"],
            "initialisation": "siren_small",
            "initialisation_scale": 0.3,
            "learning_rate": 3e-3,
            "epochs": 200,
            "batch_size": 256,
        },
        "flow": {"geometry": "euclidean", "training.learning_rate": 0.004},
    },
}
"""The jobs. Geometry, canonical form, shrinkage, names of neurons and energy matching were
chosen by the accuracy of samples for seed 0, as in the ablation, and MNIST's training for averages of networks that
are good in little time; nothing is chosen by the other seeds, and nothing differs between seeds. What is not named is
a default of ``train_population`` or ``WeightFlow``, whose parameters have the names that ``wsflow fit -p`` gives them.
``minutes`` is what the job may take, from the first training run to the last null; ``tested`` are test images, the
first ones, where all 10,000 of hundreds of nulls would take longer than the flow does."""

TEMPERATURES = (1.0, 0.9, 0.8, 0.7, 0.5)
AVERAGED = 50
QUICK: dict[str, Any] = {"runs": 16, "held_out": 8}
QUICK_TRAINING = {"epochs": 4, "n_jobs": 1}
QUICK_FLOW = {"max_iter": 3, "velocity.width": 8, "velocity.depth": 1, "solver.n_steps": 4}


@dataclass(frozen=True)
class Condition:
    """What samples have to be.

    Parameters
    ----------
    accuracy, novelty, dispersion, averaged : float
        At least; `averaged` is the accuracy of model averages of 50.
    loss : float
        At most.
    relative : bool
        Whether accuracy and loss are to be added to those of the training networks.
    margin : float, optional
        Model averages of 50 are at least by this better than training networks are in the mean.
    decibels : float, optional
        The signal-to-noise ratio is at least that of the training networks and this; instead of accuracy and loss.
    """

    accuracy: float = 0.0
    loss: float = 0.0
    novelty: float = 0.0
    dispersion: float = 0.0
    averaged: float = 0.0
    relative: bool = False
    margin: float | None = None
    decibels: float | None = None

    def holds(self, row: dict[str, float], training: dict[str, float]) -> bool:
        """Whether a row keeps to all bounds."""
        room = [row[key] - getattr(self, key) for key in ("novelty", "dispersion")]
        if self.decibels is not None:
            return min(*room, 10 * math.log10(training["loss"] / row["loss"]) - self.decibels) >= 0
        base = training if self.relative else {"accuracy": 0.0, "loss": 0.0}
        room += [row["accuracy"] - base["accuracy"] - self.accuracy, self.loss + base["loss"] - row["loss"]]
        if self.margin is not None:
            room.append(row[f"averaged_{AVERAGED}"] - training["accuracy"] - self.margin)
        return min(*room, row[f"averaged_{AVERAGED}"] - self.averaged) >= 0


def stated(condition: Condition) -> dict[str, Any]:
    """What a condition asks for."""
    return {key: bound for key, bound in asdict(condition).items() if bound is not None}


CONDITIONS: dict[str, dict[str, Condition]] = {
    "wdbc": {
        "must": Condition(0.95, 0.15, novelty=0.95, dispersion=0.9),
        "aim": Condition(0.98, 0.06, novelty=0.95, dispersion=0.9),
    },
    "wdbc-thesis": {
        "must": Condition(-0.005, 0.01, relative=True),
        "aim": Condition(0.993, 0.018, novelty=0.8),
    },
    "mnist": {
        "must": Condition(0.80, 0.65, novelty=0.7, dispersion=0.9, averaged=0.94),
        "aim": Condition(0.90, 0.35, novelty=0.7, dispersion=0.9, averaged=0.95),
    },
    "cnn": {
        "must": Condition(-0.03, 0.10, novelty=0.9, dispersion=0.9, relative=True, margin=0.0),
        "aim": Condition(-0.01, 0.03, novelty=0.9, dispersion=0.9, relative=True, margin=0.0),
    },
    "resnet": {
        "must": Condition(-0.06, math.inf, relative=True),
        "aim": Condition(-0.02, math.inf, relative=True),
    },
    "resnet20": {"aim": Condition(-0.02, math.inf, novelty=0.5, relative=True)},
    "siren": {
        "must": Condition(novelty=0.9, dispersion=0.9, decibels=-6.0),
        "aim": Condition(novelty=0.9, dispersion=0.9, decibels=-2.0),
    },
    "vit": {"aim": Condition(-0.05, math.inf, relative=True)},
}


def population(
    recipe: dict[str, Any], task: Task, seed: int, clock: Clock, folder: Path | None = None
) -> tuple[WeightArray, WeightArray]:
    """Networks to learn from, and one of each held-out run, which training continues to count.

    Where a folder has them, they are read, and the clock has the seconds that their training took.
    """
    settings = {"random_state": seed, **networks_of(recipe), **recipe["training"]}
    stages = {
        "training runs": {"n_runs": recipe["runs"], **recipe["snapshots"]},
        "held-out runs": {"n_runs": recipe["held_out"], "first_run": recipe["runs"]},
    }
    known, unseen = (trained(task, clock, stage, {**settings, **runs}, folder) for stage, runs in stages.items())
    return known, unseen


def trained(task: Task, clock: Clock, stage: str, settings: dict[str, Any], folder: Path | None) -> WeightArray:
    """Networks of these settings, from a folder where it has them."""
    if folder is None:
        with clock(stage):
            return wsflow.train_population(task, **settings).weights
    known = {key: getattr(value, "__name__", value) for key, value in settings.items()}
    name = hashlib.sha256(f"{task.checksum} {known}".encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    took, path = folder / f"{name}.json", folder / f"{name}.safetensors"
    if took.exists():
        clock.add(stage, json.loads(took.read_text(encoding="utf-8")))
        return wsflow.load_population(path).weights
    with clock(stage):
        population = wsflow.train_population(task, **settings)
    wsflow.save_population(population, path)
    took.write_text(json.dumps(clock.seconds[stage]), encoding="utf-8")
    return population.weights


def networks_of(recipe: dict[str, Any]) -> dict[str, Any]:
    """The networks of a recipe, as parameters of ``train_population``."""
    if "module" in recipe:
        return {"module": MODULES[recipe["module"]]}
    return {key: recipe[key] for key in ("hidden", "architecture") if key in recipe}


def task_of(recipe: dict[str, Any]) -> Task:
    """The task of a recipe, with images where a module reads them."""
    if recipe["task"] == "photograph":
        return photograph()
    return image_task(recipe["task"], recipe.get("tested")) if "module" in recipe else wsflow.load_task(recipe["task"])


def fitted(
    known: WeightArray,
    task: Task,
    seed: int,
    flow: dict[str, Any],
    clock: Clock,
    *,
    form: str = "unit",
    aligned: bool = True,
    invertible: bool = False,
    components: int | None = None,
) -> Pipeline:
    """Alignment, of invertible matrices too; canonical form (none for "raw"); principal components; and flow."""
    last = wsflow.WeightFlow(task=task, random_state=seed)
    # an object before its parameters
    set_flow_parameters(last, {tuple(name.split(".")): flow[name] for name in sorted(flow, key=lambda n: n.count("."))})
    steps: list[Any] = [wsflow.PermutationAligner(form=form)] if aligned else []
    steps += [wsflow.ProcrustesAligner()] if invertible else []
    steps += [wsflow.ScaleCanonicalizer(form)] if form != "raw" else []
    if components is not None:
        steps.append(PCA(min(components, len(known)), random_state=seed))
    model = make_pipeline(*steps, last)
    with clock("alignment"):
        canonical = model[:-1].fit_transform(known)
    with clock("flow"):
        last.fit(canonical)
    return model


def averaged(networks: WeightArray, task: Task, seed: int) -> float:
    """The mean accuracy, or R^2, of averages of 50 networks (of all, where there are fewer)."""
    size = min(AVERAGED, len(networks))
    score = "accuracy" if task.is_classification else "r2"
    return float(predictive_curve(networks, task, (size,), random_state=seed).mean[score][0])


def judged(job: str, report: Report, averages: dict[str, float]) -> dict[str, dict[str, Any]]:
    """The row of each temperature: its numbers, the conditions that hold, and the best null beside it."""
    rows: dict[str, dict[str, Any]] = {}
    curve = report.frontiers["samples"]
    for name, found in zip(curve.names, curve.rows, strict=True):
        row = {**found, f"averaged_{AVERAGED}": averages[name]}
        holds = {which: bound.holds(row, report.training) for which, bound in CONDITIONS[job].items()}
        rows[name] = {**row, **holds, **rival(report, row)}
    return rows


def measured(
    job: str, recipe: dict[str, Any], seed: int, temperatures: list[float], n: int, folder: Path | None = None
) -> dict[str, Any]:
    """The row of one seed; its networks are read from a folder, or left there."""
    clock, task = Clock(), task_of(recipe)
    known, unseen = population(recipe, task, seed, clock, folder)
    steps = {"form": recipe.get("form", "unit"), "invertible": recipe.get("invertible", False)}
    model = fitted(known, task, seed, recipe["flow"], clock, **steps)
    with clock("samples"):
        samples = {t: wsflow.sample(model, n, random_state=seed, temperature=t) for t in temperatures}
    with clock("evaluation"):
        first = samples[max(temperatures)]
        seen = model[:-1].transform(known)  # nulls have the flow's coordinates
        report = wsflow.evaluate(first, known, unseen, task, nulls=seen, curve=samples, random_state=seed)
        averages = {f"temperature {t:g}": averaged(rows, task, seed) for t, rows in samples.items()}
        ensemble = averaged(unseen, task, seed)
    curves = {name: curve.names for name, curve in report.frontiers.items() if name != "samples"}
    return {
        "seconds": clock.seconds,
        "in_time": clock.seconds["all"] <= 60 * recipe["minutes"],
        "training": report.training,
        "held_out": {**report.held_out, f"averaged_{AVERAGED}": ensemble},
        "samples": judged(job, report, averages),
        "nulls": report.nulls,
        "curves": curves,
        "verdict": report.verdict,
    }


def show(job: str, seed: int, row: dict[str, Any], minutes: float) -> None:
    """What was measured, on the screen."""
    spent = ", ".join(f"{stage} {value:.0f} s" for stage, value in row["seconds"].items())
    print(f"{job}, seed {seed}: {spent}; {minutes:g} minutes {'kept' if row['in_time'] else 'MISSED'}")
    named = {"training": row["training"], "held out": row["held_out"], **row["samples"]}
    score = "accuracy" if "accuracy" in row["training"] else "r2"
    for name, found in named.items():
        numbers = ", ".join(f"{key} {found[key]:.4g}" for key in (score, "loss", "novelty", "dispersion"))
        held = ", ".join(f"{which} {'yes' if found[which] else 'no'}" for which in CONDITIONS[job] if which in found)
        extra = (
            f", average of {AVERAGED} {found[f'averaged_{AVERAGED}']:.3f}" if f"averaged_{AVERAGED}" in found else ""
        )
        print(f"  {name:16} {numbers}, copies {found['copies']:.2f}{extra}{'; ' if held else ''}{held}")
        if "null" in found:
            null = found["null"]
            said = "none" if null is None else f"{null} {found[f'null_{score}']:.3f} / {found['null_loss']:.3g}"
            print(f"  {'':16} best null there: {said}; flow {'ahead' if found['ahead'] else 'BEHIND'}")
    print("\n".join(f"  - {sentence}" for sentence in row["verdict"]), flush=True)


def quick(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe that takes seconds, and says nothing; images are the small digits."""
    task = "digits" if "mnist" in recipe["task"] else recipe["task"]
    training, flow = {**recipe["training"], **QUICK_TRAINING}, {**recipe["flow"], **QUICK_FLOW}
    snapshots = {"snapshots": 2, "snapshot_every": 4} if recipe["snapshots"] else {}
    return {**recipe, **QUICK, "task": task, "training": training, "flow": flow, "snapshots": snapshots}


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", choices=list(RECIPES), required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--temperatures", type=float, nargs="+", default=list(TEMPERATURES))
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="a folder for trained networks, which later runs read")
    parser.add_argument("--again", action="store_true", help="measure seeds that the file has, too")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes: to see that it runs")
    parser.add_argument("--out", type=Path, help="default: docs/results/quality_JOB.json; none with --quick")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = quick(RECIPES[options.job]) if options.quick else RECIPES[options.job]
    n = 8 if options.quick else options.samples
    if options.quick and options.out is None:
        parser.error("--quick needs --out: what it measures says nothing")
    settings = {"job": options.job, **recipe, "temperatures": options.temperatures, "samples": n}
    settings["conditions"] = {which: stated(bound) for which, bound in CONDITIONS[options.job].items()}
    file = ResultsFile(options.out or RESULTS / f"quality_{options.job}.json", settings, options.again)
    for seed in options.seeds:
        measure = partial(measured, options.job, recipe, seed, options.temperatures, n, options.cache)
        row = file.measure(str(seed), measure)
        show(options.job, seed, row, recipe["minutes"])


if __name__ == "__main__":
    main()
