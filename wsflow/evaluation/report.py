"""The report: how good samples are, how new and how different, beside training networks and nulls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow import hooks
from wsflow.evaluation.barrier import fixed_pairs, midpoint_barrier
from wsflow.evaluation.calibration import Reliability, class_forecasts, reliability
from wsflow.evaluation.distribution import one_per_run, two_samples
from wsflow.evaluation.embedding import aligned, canonical, evenly_spaced
from wsflow.evaluation.evaluator import MEASURED, NULL_PAIRS, Evaluator, Measured, as_own_runs, frontier
from wsflow.evaluation.inputs import check_networks, check_nulls, finite_samples, split_held_out
from wsflow.evaluation.measures import DISTRIBUTION, measure
from wsflow.evaluation.nearest_neighbours import NearestDistances
from wsflow.evaluation.nulls import draw_null, null_curves, null_names
from wsflow.evaluation.pareto import DIVERSITY, Frontier
from wsflow.evaluation.predictive import Predictive
from wsflow.evaluation.repair import STATISTICS_INPUTS, recompute_batch_norm
from wsflow.evaluation.verdict import verdict_on_frontier, verdict_on_mistakes, verdict_on_samples
from wsflow.parallel import side_by_side
from wsflow.populations.arguments import takes_networks
from wsflow.populations.population import described, versions
from wsflow.progress import Progress, counter
from wsflow.representation import html_table, text_table
from wsflow.symmetry.matching import orbit_matching
from wsflow.task import Task
from wsflow.weights import WeightArray

Row = dict[str, float]

# training examples on which barriers are measured, evenly spaced: 200 pairs on 55,000 images take two minutes
BARRIER_EXAMPLES = 4096


@dataclass(frozen=True, repr=False)
class Report:
    """What `evaluate` found; ``print(report)`` shows a table and the verdict.

    Each row has the measures of `wsflow.evaluation.MEASURES` that the task has: the score (``"accuracy"``, ``"r2"`` for
    a regression, or ``"minus_loss"`` for a loss of one's own), ``"loss"``, ``"novelty"`` and ``"dispersion"``, and what
    they are made of.

    Parameters
    ----------
    training, held_out, samples : dict from str to float
        A row each; `nulls` has one by name.
    barrier : dict from str to float
        Mean midpoint loss barrier on training data ``"before"`` and ``"after"`` alignment, and their ``"ratio"``.
    verdict : list of str
        Sentences.
    counts : dict from str to int
        Networks and runs; ``"not_finite"`` counts samples that were left out.
    score : str
        The key of the score.
    distribution : dict
        Of ``"samples"``, and of as many ``"training"`` networks to compare with: precision, recall, density, coverage
        and the two-sample test against held-out runs, in ``"weights"`` and in ``"function"``.
    frontiers : dict from str to Frontier
        The curves of the nulls, and the samples' own, ``"samples"``, where networks at other levels were given.
    predictive : dict from str to Predictive
        Scores and losses of each network, by row.
    nearest : dict from str to NearestDistances
        Distances to the nearest training network, of ``"samples"`` and ``"held_out"``.
    barriers : dict from str to ndarray
        The barriers of each pair, ``"before"`` and ``"after"``.
    reliability : dict from str to Reliability
        Of the model average of ``"samples"`` and of ``"training"`` networks; empty for a regression.
    provenance : dict
        What was evaluated, and how: architecture, task, seed and versions.

    Examples
    --------
    >>> import wsflow
    >>> task = wsflow.load_task("iris")
    >>> weights = wsflow.train_population(task, hidden=(4,), n_runs=12, epochs=2).weights
    >>> report = wsflow.evaluate(weights[:4], weights[:8], weights[8:], task, nulls=False)
    >>> page = report.to_html({"made by": "me"})  # pathlib.Path("report.html").write_text(page) writes it
    >>> page[:15]
    '<!DOCTYPE html>'
    """

    training: Row
    held_out: Row
    samples: Row
    nulls: dict[str, Row]
    barrier: Row
    verdict: list[str]
    counts: dict[str, int]
    score: str = "accuracy"
    distribution: dict[str, dict[str, Row]] = field(default_factory=dict)
    frontiers: dict[str, Frontier] = field(default_factory=dict, repr=False)
    predictive: dict[str, Predictive] = field(default_factory=dict, repr=False)
    nearest: dict[str, NearestDistances] = field(default_factory=dict, repr=False)
    barriers: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    reliability: dict[str, Reliability] = field(default_factory=dict, repr=False)
    provenance: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def headline(self) -> tuple[str, ...]:
        """The keys that matter first: score, loss, novelty and dispersion."""
        return self.score, "loss", *DIVERSITY

    def table(self) -> list[list[str]]:
        """Return the rows of a table of the keys that matter first, with its header."""
        rows = {"training": self.training, "held-out runs": self.held_out, "samples": self.samples, **self.nulls}
        cells = [[name, *(f"{row.get(key, np.nan):.3f}" for key in self.headline)] for name, row in rows.items()]
        return [["", *self.headline], *cells]

    def __repr__(self) -> str:
        numbers = (f"{key} {self.samples.get(key, np.nan):.3f}" for key in self.headline)
        return f"<Report: {', '.join(numbers)} of {self.counts.get('samples', 0)} samples, {len(self.nulls)} nulls>"

    def __str__(self) -> str:
        return "\n".join([text_table(self.table()), "", *self.verdict])

    def _repr_html_(self) -> str:
        header, *rows = self.table()
        sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in self.verdict)
        return html_table("Report", rows, header) + sentences

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON data; numbers that do not exist are None."""
        names = ["training", "held_out", "samples", "nulls", "barrier", "verdict", "counts", "score", "distribution"]
        names.append("provenance")
        curves = {name: self._curve(curve) for name, curve in self.frontiers.items()}
        result: dict[str, Any] = _jsonable({name: getattr(self, name) for name in names} | {"frontiers": curves})
        return result

    def plot(self) -> Any:
        """Draw the report in one figure, as a `wsflow.plotting.ReportDisplay`."""
        return hooks.display_of_report(self)

    def to_html(self, about: Mapping[str, Any] | None = None, curve: Mapping[str, Any] | None = None) -> str:
        """Return the report as one page of HTML, with tables and figures, that needs no other file and no network.

        Parameters
        ----------
        about : mapping from str, optional
            Further facts for its last table, such as ``{"model": "model.st"}``.
        curve : mapping from str to array-like, optional
            The training of the flow, as `wsflow.plotting.EvaluationDisplay` takes it.
        """
        return hooks.page_of_report(self, about, curve)

    def _curve(self, curve: Frontier) -> dict[str, Any]:
        """Return the levels of a curve, where it is as good as the samples, and the rows that stand nowhere else."""
        found = None if curve.name == "samples" else curve.reaches(self.samples)
        rows = {} if set(curve.names) <= set(self.nulls) else {"rows": dict(zip(curve.names, curve.rows, strict=True))}
        as_good = {} if curve.name == "samples" else {"as_good_at": None if found is None else found[0]}
        return {"levels": list(curve.names), **as_good, **rows}


@takes_networks("samples", "train", "held_out")
def evaluate(
    samples: WeightArray,
    train: WeightArray,
    held_out: WeightArray | None,
    task: Task,
    *,
    nulls: bool | WeightArray = True,
    curve: Mapping[float, WeightArray] | None = None,
    reference: Any = None,
    random_state: int = 0,
    progress: Progress | None = None,
    n_jobs: int | None = None,
) -> Report:
    """Judge samples by held-out data and networks of held-out runs, beside training networks and nulls.

    All networks may be any representatives: they are canonicalized and aligned to one reference here. What would take
    long is measured on fewer: dispersion on 2,000 pairs, nulls on 200 networks, barriers on 200 pairs and 4,096
    training examples, precision, recall and the two-sample test on 500 networks, functions are compared on 512 inputs.
    Running statistics of nulls are computed anew, as those of samples are, on 2,048 inputs of the task; training and
    held-out networks keep their own. Distances in weights leave them out.

    Parameters
    ----------
    held_out : WeightArray of shape (n, d), or None
        Networks of runs that are not in training; without them a fifth of the training runs is held out,
        which is honest only where the flow has not seen them.
    task : Task
        Barriers are measured on its own data, everything else on its test (or validation) part.
    nulls : bool or WeightArray of shape (n, d)
        Whether to measure the nulls too. They are made of aligned, canonical training networks, or of these: with
        ``model[:-1].transform(train)`` nulls have the coordinates that the flow of a pipeline was fitted in.
    curve : mapping from float to WeightArray, optional
        Samples of the same generator at other levels of its knob, such as temperature: its frontier.
    reference : array-like of shape (d,), optional
        A canonical network to align to (default: the mean of the aligned training networks).
    random_state : int
        Seed of the nulls, and of the permutations of the two-sample test.
    progress : callable, optional
        Called with the steps done and the steps in all.
    n_jobs : int, optional
        Processes that measure nulls, and the levels of a curve: joblib's (default: those of
        ``joblib.parallel_config``, if any). Numbers do not depend on them.

    Raises
    ------
    InvalidInputError
        If the networks do not fit each other or the task, or a held-out run is in training.
    NumericalError
        If no sample is finite.

    Examples
    --------
    Training networks that pass for samples have a perfect score, and are found out:

    >>> import wsflow
    >>> task = wsflow.load_task("iris")
    >>> weights = wsflow.train_population(task, hidden=(4,), n_runs=12, epochs=2).weights
    >>> report = wsflow.evaluate(weights[:4], weights[:8], weights[8:], task, nulls=False)
    >>> report.verdict[1]
    'Samples are copies of training networks: their novelty is 0.00 and ...'
    """
    advance = counter(progress, 5 + bool(curve) + (0 if nulls is False else len(null_names())))
    notes: list[str] = []
    samples, dropped = finite_samples(as_own_runs(samples), notes)
    train, held_out = split_held_out(train, held_out, random_state, notes)
    check_networks(samples, train, held_out, task, notes)
    if not isinstance(nulls, bool):
        check_nulls(nulls, train)
    centre = None if reference is None else torch.as_tensor(np.asarray(reference, dtype=np.float64))
    evaluator = Evaluator.of(train, held_out, task, centre)
    advance()
    measured = {"samples": evaluator.measure(samples), "held_out": evaluator.measure_held_out(held_out)}
    distribution = _distribution(evaluator, measured["samples"], train.runs, held_out.runs, random_state)
    advance()
    measured["training"] = evaluator.measure_training(train)
    advance()
    barriers = _barriers(train, task, evaluator.reference, notes)
    advance()
    if nulls is not False:
        made_of = aligned(train, evaluator.reference) if nulls is True else nulls
        known = evaluator, np.asarray(made_of, dtype=np.float64), min(len(samples), MEASURED), random_state
        calls = [(name, *known) for name in null_names()]
        for (name, *_), found in zip(calls, side_by_side(_measure_null, calls, len(calls), n_jobs), strict=True):
            measured[name] = found
            advance()
    own = {}
    if curve:
        own = {"samples": frontier({k: finite_samples(w, [])[0] for k, w in curve.items()}, evaluator, n_jobs=n_jobs)}
        advance()
    counts = {"training": len(train), "training_runs": len(np.unique(train.runs)), "held_out": len(held_out)}
    counts |= {"held_out_runs": len(np.unique(held_out.runs)), "samples": len(samples), "not_finite": dropped}
    provenance = {
        "architecture": str(train.architecture),
        "task": described(task),
        "judged on": f"{len(task.held_out.X)} held-out examples",
        "seed": random_state,
        "versions": versions("torch", "numpy", "scikit-learn"),
    }
    report = _report(measured, own, distribution, barriers, counts, evaluator, notes, provenance)
    advance()
    return report


def _report(
    measured: dict[str, Measured],
    own: dict[str, Frontier],
    distribution: dict[str, dict[str, Row]],
    barriers: dict[str, np.ndarray],
    counts: dict[str, int],
    evaluator: Evaluator,
    notes: list[str],
    provenance: dict[str, Any],
) -> Report:
    rows, score = {name: found.row for name, found in measured.items()}, evaluator.score
    nulls = {name: row for name, row in rows.items() if name not in ("samples", "held_out", "training")}
    curves = _curves(nulls, score) if nulls else {}
    before, after = (float(barriers[name].mean()) for name in ("before", "after"))
    n_weights = evaluator.reference.numel()
    verdict = verdict_on_samples(rows["samples"], curves, counts, score, n_weights, distribution["samples"])
    if nulls and score == "accuracy":
        verdict.append(verdict_on_mistakes(rows["samples"], rows["held_out"], curves["noise"]))
    if own and nulls:
        verdict.append(verdict_on_frontier(own["samples"], curves))
    return Report(
        training=rows["training"],
        held_out=rows["held_out"],
        samples=rows["samples"],
        nulls=nulls,
        barrier={"before": before, "after": after, "ratio": after / before if before > 0 else float("nan")},
        verdict=[sentence for sentence in (*verdict, *notes) if sentence],
        counts=counts,
        score=score,
        distribution=distribution,
        frontiers=curves | own,
        predictive={name: found.predictive for name, found in measured.items()},
        nearest={name: measured[name].nearest for name in ("samples", "held_out")},
        barriers=barriers,
        reliability=_reliability(measured, evaluator.task.held_out),
        provenance=provenance,
    )


def _measure_null(name: str, evaluator: Evaluator, made_of: np.ndarray, n_samples: int, random_state: int) -> Measured:
    """Measure a null at a level, made of aligned networks (n, d)."""
    networks = WeightArray(draw_null(name, made_of, n_samples, random_state), evaluator.train.architecture)
    if len(networks.architecture.statistic_columns):
        # in the precision in which networks are judged
        networks = networks.astype(np.float32)
        networks = recompute_batch_norm(networks, evaluator.task, max_inputs=STATISTICS_INPUTS)
    return evaluator.measure(networks, pairs=NULL_PAIRS)


def _curves(nulls: dict[str, Row], score: str) -> dict[str, Frontier]:
    """Return every null with a knob as a curve, and those without one that no curve ends in as points."""
    names = null_curves()
    on_curves = {name for curve in names.values() for name in curve}
    names |= {name: [name] for name in nulls if name not in on_curves}
    return {key: Frontier(key, tuple(on), tuple(nulls[name] for name in on), score) for key, on in names.items()}


def _distribution(
    evaluator: Evaluator, samples: Measured, train_runs: np.ndarray, held_out_runs: np.ndarray, random_state: int
) -> dict[str, dict[str, Row]]:
    """Compare samples, and as many training networks, with networks of held-out runs, in each space."""
    real = one_per_run(evaluator.held_out, held_out_runs)
    known = one_per_run(evaluator.train, train_runs, len(samples.embedding))
    return {
        name: {
            space: measure(DISTRIBUTION, evaluator.task, sets)
            for space, sets in two_samples(networks, real, random_state)
        }
        for name, networks in (("samples", samples.embedding), ("training", known))
    }


def _reliability(measured: dict[str, Measured], task: Task) -> dict[str, Reliability]:
    if not task.is_classification:
        return {}
    found = {}
    for name in ("samples", "training"):
        probabilities, targets, weights = class_forecasts(measured[name].predictive.average, task)
        found[name] = reliability(probabilities, targets, weights=weights)
    return found


def _barriers(train: WeightArray, task: Task, reference: Tensor, notes: list[str]) -> dict[str, np.ndarray]:
    """Measure midpoint barriers of fixed pairs of training runs, as they are and with neurons permuted and flipped."""
    left, right = fixed_pairs(train.runs).T
    counted = np.arange(len(task.X)) if task.weights is None else np.flatnonzero(task.weights)
    if len(counted) > BARRIER_EXAMPLES:
        task = task.subset(counted[evenly_spaced(len(counted), BARRIER_EXAMPLES)])
    before = midpoint_barrier(train[left], train[right], task)
    if train.aligned:
        notes.append("The training networks came aligned: the barrier 'before' is not that of networks as trained.")
    ends = (train[left], train[right])
    if train.architecture.groups:
        # only the permutations and signs: scaling to unit norms would change the midpoint as well
        ends = tuple(orbit_matching(canonical(w), reference, w.architecture)(w) for w in ends)
    return {"before": before, "after": midpoint_barrier(*ends, task)}


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_jsonable(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
