"""The figures of wsflow plot: what is read, what is drawn, and its numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import wsflow
from wsflow import plotting
from wsflow.cli.networks import check_runnable, check_task_known, load_flow, load_runnable, load_with_task
from wsflow.cli.rendering import Reporter
from wsflow.exceptions import InvalidInputError
from wsflow.populations.population import Population
from wsflow.task import Task
from wsflow.weights import WeightArray


@dataclass(frozen=True)
class Request:
    """What is to be drawn."""

    files: Sequence[Path]
    reporter: Reporter
    space: str
    pair: tuple[int, int] | None
    n_points: int
    networks: int
    number: int
    task_name: str | None
    module: str | None
    seed: int

    def loaded(self) -> tuple[list[Population], Task | None]:
        """Load the networks of all files, and the task, which is that of the first file unless another is named."""
        first, task = load_with_task(self.files[0], self.module, self.task_name)
        return [first, *(load_runnable(path, self.module) for path in self.files[1:])], task

    def runnable(self) -> tuple[list[WeightArray], Task]:
        """Load the networks of all files, which must run, and their task, which must be known."""
        populations, known = self.loaded()
        task = check_task_known(known, self.files[0])
        for population, path in zip(populations, self.files, strict=True):
            check_runnable(population, path)
        return [population.weights for population in populations], task

    def names(self, files: Sequence[Path]) -> list[str]:
        """Return names of files: without folder and suffix, where that tells them apart."""
        stems = [path.name.partition(".")[0] for path in files]
        return stems if len(set(stems)) == len(stems) else list(map(str, files))


@dataclass(frozen=True)
class Drawn:
    """A figure, the numbers in it, and a sentence about them."""

    figure: Any
    numbers: dict[str, Any]
    sentence: str


def _map(request: Request) -> Drawn:
    from wsflow.evaluation import network_map

    task: Task | None = None
    if request.space == "function":
        (train, *others), task = request.runnable()
    else:
        train, *others = (population.weights for population in request.loaded()[0])
    named = dict(zip(request.names(request.files[1:]), others, strict=True))
    with request.reporter.stage("Projecting networks"):
        found = network_map(train, named, task, space=request.space)
    points = {name: values.tolist() for name, values in found.points.items()}
    explained = found.explained.tolist()
    counts = [f"{len(values)} of {found.counts[name]} {name}" for name, values in points.items()]
    return Drawn(
        plotting.MapDisplay.from_map(found).figure_,
        {"space": found.space, "networks": found.counts, "explained": explained, "points": points},
        f"{'; '.join(counts)}; {sum(explained):.0%} of the variance of the training networks is in the plane.",
    )


def _path(request: Request) -> Drawn:
    weights, task = request.runnable()
    i, j = request.pair or ((0, 1) if len(weights) == 1 else (0, 0))
    a = _network(request.files[0], weights[0], i)
    b = _network(request.files[-1], weights[-1], j)
    names = [str(i), str(j)]
    if len(weights) == 2:
        names = [f"{number} of {name}" for number, name in zip(names, request.names(request.files), strict=True)]
    with request.reporter.stage("Aligning and measuring"):
        display = plotting.ConnectivityDisplay.from_networks(
            a, b, task, request.n_points, names=(names[0], names[1]), random_state=request.seed
        )
    paths = {
        name: {"loss": path.losses[0].tolist(), path.score: path.scores[0].tolist(), "barrier": float(path.barrier[0])}
        for name, path in display.paths.items()
    }
    t = next(iter(display.paths.values())).t.tolist()
    barriers = ", ".join(f"{path['barrier']:.4f} {name}" for name, path in paths.items())
    sentence = f"network {names[0]} to network {names[1]}: loss barrier {barriers}."
    return Drawn(display.figure_, {"ends": names, "t": t, "paths": paths}, sentence)


def _network(path: Path, weights: WeightArray, number: int) -> WeightArray:
    if number >= len(weights):
        raise InvalidInputError(f"{path}: there is no network {number}: it has {len(weights)}, numbered from 0 on.")
    return weights[number : number + 1]


def _barriers(request: Request) -> Drawn:
    from wsflow.cli.barrier import numbers_of
    from wsflow.evaluation import barrier_matrix

    weights, task = request.runnable()
    rows, *columns = (networks[: request.networks] for networks in weights)
    others = columns[0] if columns else None
    with request.reporter.stage("Measuring barriers", "networks") as progress:
        matrix = barrier_matrix(rows, task, request.n_points, others=others, progress=progress)
    numbers = numbers_of(matrix, request.n_points)
    sentence = f"mean loss barrier of {numbers['pairs']} pairs {numbers['mean']:.4f}, largest {numbers['largest']:.4f}."
    return Drawn(plotting.BarrierMatrixDisplay.from_matrix(matrix).figure_, numbers, sentence)


def _training(request: Request) -> Drawn:
    model, flow = load_flow(request.files[0])
    history = flow.history_
    numbers = {name: getattr(history, name) for name in ("step", "train", "validation", "best_step", "energy")}
    sentence = f"{flow.n_iter_} steps; the weights of step {history.best_step} were kept."
    return Drawn(plotting.TrainingCurveDisplay.from_estimator(model).figure_, numbers, sentence)


def _trajectories(request: Request) -> Drawn:
    model, _ = load_flow(request.files[0])
    training = wsflow.load_population(request.files[1]).weights if len(request.files) > 1 else None
    with request.reporter.stage("Following samples"):
        display = plotting.TrajectoryDisplay.from_estimator(model, training, request.number, request.seed)
    numbers = {"t": display.times.tolist(), "paths": display.paths.swapaxes(0, 1).tolist()}
    numbers["explained"] = display.explained.tolist()
    numbers["training"] = None if display.training is None else display.training.tolist()
    moved = np.linalg.norm(display.paths[-1] - display.paths[0], axis=1).mean()
    sentence = f"{request.number} samples, {moved:.3g} from their sources in the plane on average."
    return Drawn(display.figure_, numbers, sentence)


def _quality(request: Request) -> Drawn:
    train, samples, *held_out = map(wsflow.load_population, request.files)
    task = wsflow.load_task(request.task_name) if request.task_name else train.task
    others = held_out[0].weights if held_out else None
    with request.reporter.stage("Evaluating networks", "steps") as progress:
        report = wsflow.evaluate(
            samples.weights,
            train.weights,
            others,
            check_task_known(task, request.files[0]),
            random_state=request.seed,
            progress=progress,
        )
    display = plotting.FrontierDisplay.from_report(report)
    known = lambda row: {key: row[key] for key in (display.x, display.y)}  # noqa: E731
    nulls = {name: [known(row) for row in curve.rows] for name, curve in report.frontiers.items()}
    numbers = {"samples": known(report.samples), "held_out": known(report.held_out), "nulls": nulls}
    sentence = f"{' '.join(f'{key} {value:.3f}' for key, value in known(report.samples).items())} of samples. "
    return Drawn(display.figure_, {**numbers, "verdict": report.verdict}, sentence + " ".join(report.verdict))


def _calibration(request: Request) -> Drawn:
    weights, task = request.runnable()
    named = dict(zip(request.names(request.files), weights, strict=True))
    with request.reporter.stage("Running networks"):
        display = plotting.ReliabilityDisplay.from_networks(named, task)
    curves = {}
    for name, found in display.curves.items():
        rows = {key: getattr(found, key).tolist() for key in ("confidence", "accuracy", "share")}
        curves[name] = {**rows, "error": found.error}
    errors = ", ".join(f"{curve['error']:.4f} of {name}" for name, curve in curves.items())
    return Drawn(display.figure_, {"curves": curves}, f"expected calibration error {errors}.")


DRAW: dict[str, Callable[[Request], Drawn]] = {
    "map": _map,
    "path": _path,
    "barriers": _barriers,
    "training": _training,
    "trajectories": _trajectories,
    "quality": _quality,
    "calibration": _calibration,
}
