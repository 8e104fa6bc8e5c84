"""The tables of measures: what is measured of networks, of forecasts and of distributions, and how it is shown.

Reports, the command line, figures and the documentation read these tables. A new measure is a function and a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wsflow.evaluation import calibration
from wsflow.evaluation.iou import max_iou
from wsflow.evaluation.novelty import Dispersion, Novelty
from wsflow.evaluation.ood_detection import ood_auroc
from wsflow.evaluation.predictive import Predictive
from wsflow.representation import in_a_line
from wsflow.task import Task


@dataclass(frozen=True)
class Measure:
    """A row of a table of measures.

    Parameters
    ----------
    function : callable
        From what is measured to a number, NaN where there is none.
    label : str
        Its name on the axes of figures and in sentences.
    description : str
        What it is, for the documentation.
    better : {"", "higher", "lower"}
        Which values are better, where that does not depend on the networks of held-out runs.
    reading : str
        How to read its values, such as ``"0 is a copy"``.
    column : str
        Its heading in the tables of the command line; "" leaves it out.
    only : {"", "classification", "regression", "likelihood", "custom"}
        The kind of loss that has it, see `wsflow.losses.Loss`.
    """

    function: Callable[..., float]
    label: str
    description: str
    better: str = ""
    reading: str = ""
    column: str = ""
    only: str = ""


@in_a_line
@dataclass(frozen=True)
class Evidence:
    """What the measures of networks are computed from: their predictions and distances, and the training networks'."""

    predictive: Predictive
    novelty: Novelty
    dispersion: Dispersion
    training: Predictive
    task: Task


def measure(table: Mapping[str, Measure], task: Task, *evidence: Any) -> dict[str, float]:
    """Return the measures of a table that a task has, by key."""
    kinds = ("", *task.criterion.kinds)
    return {key: row.function(*evidence) for key, row in table.items() if row.only in kinds}


def measure_average(average: np.ndarray, task: Task, log_likelihood: np.ndarray | None = None) -> dict[str, float]:
    """Return the measures of a model average (b, k): of probabilities, or of the predicted means of a regression.

    `log_likelihood` (b, m) is that of the targets under the average, where densities or counts are predicted.
    """
    return measure(FORECASTS, task, Forecast(average, task, log_likelihood))


@dataclass(frozen=True)
class Forecast:
    """A model average on a task."""

    average: np.ndarray
    task: Task
    log_likelihood: np.ndarray | None = None

    def by_class(self, function: Callable[..., float]) -> float:
        """Apply a measure to probabilities, targets and weights."""
        return function(*calibration.class_forecasts(self.average, self.task))

    def by_mean(self, function: Callable[..., float]) -> float:
        """Apply a measure to predicted means, targets and weights."""
        return function(self.average, self.task.targets, self.task.weights)

    @property
    def nll(self) -> float:
        """The mean of -log p of the targets, NaN where it was not computed."""
        if self.task.is_classification:
            return self.by_class(calibration.negative_log_likelihood)
        if self.log_likelihood is None:
            return float("nan")
        return -calibration.weighted_mean(self.log_likelihood, self.task.weights)


def _iou(found: Evidence) -> float:
    if found.predictive.wrong is None or found.training.wrong is None:
        return float("nan")
    # training networks have themselves among them
    if found.predictive is found.training:
        return 1.0
    weights = found.task.weights
    weights = None if weights is None else weights.repeat(found.task.n_labels)
    return float(max_iou(found.predictive.wrong, found.training.wrong, weights).mean())


def _of_average(row: Measure) -> Measure:
    """Return the measure of forecasts as one of networks, whose model average is the forecast."""
    return replace(
        row,
        function=lambda found: row.function(
            Forecast(found.predictive.average, found.task, found.predictive.log_likelihood)
        ),
        label=f"{row.label} of the model average",
        description=f"{row.description}, of the mean of all networks' predictions",
        column="averaged" if row.column else "",
        reading=f"{row.label} of the model average" if row.column else row.reading,
    )


def _deviation(label: str, values: Callable[[Evidence], np.ndarray], only: str = "") -> Measure:
    """Return the measure of how much a number differs between networks."""
    name = f"standard deviation of the {label} between networks"
    return Measure(lambda found: float(values(found).std()), name, name, only=only)


def _in_each_space(key: str, function: Callable[[Evidence, str], float]) -> dict[str, Measure]:
    """Return the rows of a measure in weights and in function, of which the row `key` has the one that looks worse."""
    return {
        f"{key}_{space}": Measure(
            lambda found, space=space: function(found, space), f"{key} in {space}", f"``{key}`` in {space} alone"
        )
        for space in ("weights", "function")
    }


# of a forecast; of several labels each is a forecast of two classes
FORECASTS: dict[str, Measure] = {
    "accuracy": Measure(
        lambda forecast: forecast.by_class(calibration.accuracy),
        "accuracy",
        "share of inputs whose class is right, of several labels the share of right ones",
        better="higher",
        column="accuracy",
        only="classification",
    ),
    "nll": Measure(
        lambda forecast: forecast.nll,
        "negative log-likelihood",
        "mean of -log p of the targets, in nats; of a regression with predicted distributions, of their mixture",
        better="lower",
        only="likelihood",
    ),
    "brier": Measure(
        lambda forecast: forecast.by_class(calibration.brier_score),
        "Brier score",
        "mean squared distance of the probabilities to the one-hot target",
        better="lower",
        only="classification",
    ),
    "ece": Measure(
        lambda forecast: forecast.by_class(calibration.expected_calibration_error),
        "expected calibration error",
        "mean distance between confidence and accuracy over 15 bins of confidence",
        better="lower",
        only="classification",
    ),
    "r2": Measure(
        lambda forecast: forecast.by_mean(calibration.r2),
        "R^2",
        "share of the variance explained by the predicted means",
        better="higher",
        column="r2",
        only="regression",
    ),
    "mse": Measure(
        lambda forecast: forecast.by_mean(calibration.mean_squared_error),
        "mean squared error",
        "mean squared error of the predicted means",
        better="lower",
        only="regression",
    ),
}

# of two forecasts and the name of a score: (inside, outside, score)
OOD: dict[str, Measure] = {
    "ood_auroc": Measure(
        ood_auroc,
        "AUROC of foreign inputs",
        "area under the ROC curve with which the doubt of the forecast tells foreign inputs from the task's",
        reading="1/2 is guessing, 1 is perfect",
        only="classification",
    ),
}

# of a set of networks: the rows of a report
MEASURES: dict[str, Measure] = {
    "accuracy": Measure(
        lambda found: float(found.predictive.scores.mean()),
        "accuracy",
        "mean accuracy of the networks on the task's test data, over all labels where there are several",
        better="higher",
        column="accuracy",
        only="classification",
    ),
    "r2": Measure(
        lambda found: float(found.predictive.scores.mean()),
        "R^2",
        "mean R^2 of the networks on the task's test data",
        better="higher",
        column="r2",
        only="regression",
    ),
    "minus_loss": Measure(
        lambda found: float(found.predictive.scores.mean()),
        "minus the loss",
        "the score where the loss is a function of one's own, of which no other measure is known",
        better="higher",
        only="custom",
    ),
    "loss": Measure(
        lambda found: float(found.predictive.losses.mean()),
        "loss",
        "mean loss of the networks on the task's test data",
        better="lower",
        column="loss",
    ),
    "novelty": Measure(
        lambda found: found.novelty.value,
        "novelty",
        "mean distance to the nearest training network, over that of held-out networks; the smaller of the ratios in "
        "weights and in function",
        reading="0 is a copy, 1 as new as a training run",
        column="novelty",
    ),
    "novelty_q05": Measure(
        lambda found: found.novelty.q05,
        "5% quantile of novelty",
        "the ratio of 5% quantiles instead of means",
        reading="quantile of novelty",
        column="5%",
    ),
    "copies": Measure(
        lambda found: found.novelty.copies,
        "share of likely copies",
        "share nearer to a training network than 99% of the held-out networks, in weights or in function",
        reading="share of likely copies, expect 0.01",
        column="copies",
    ),
    "dispersion": Measure(
        lambda found: found.dispersion.value,
        "dispersion",
        "rms distance between the networks, over that between held-out networks; the smaller of the ratios in weights "
        "and in function",
        reading="0 is collapse, 1 as different as training runs",
        column="dispersion",
    ),
    **{f"averaged_{key}": _of_average(row) for key, row in FORECASTS.items()},
    "jsd": Measure(
        lambda found: found.predictive.jsd,
        "Jensen-Shannon divergence",
        "how much the networks' predictions differ, as a Jensen-Shannon divergence in nats; NaN for a regression",
    ),
    "iou": Measure(
        _iou,
        "largest overlap of mistakes",
        "the wrongly predicted examples that a network shares with the training network that errs most like it, as "
        "intersection over union, mean over networks; NaN for a regression. Compare with ``held_out`` and with the "
        "noise nulls, and only where networks make many different mistakes",
        reading="1 is a copy",
    ),
    "accuracy_sd": _deviation("accuracy", lambda found: found.predictive.scores, only="classification"),
    "r2_sd": _deviation("R^2", lambda found: found.predictive.scores, only="regression"),
    "loss_sd": _deviation("loss", lambda found: found.predictive.losses),
    **_in_each_space("novelty", lambda found, space: getattr(found.novelty, space)),
    **_in_each_space("novelty_q05", lambda found, space: getattr(found.novelty, f"q05_{space}")),
    **_in_each_space("copies", lambda found, space: getattr(found.novelty, f"copies_{space}")),
    **_in_each_space("dispersion", lambda found, space: getattr(found.dispersion, space)),
}

# of samples and networks of held-out runs, in one space: the section "distribution" of a report
DISTRIBUTION: dict[str, Measure] = {
    "precision": Measure(
        lambda sets: sets.prdc.precision,
        "precision",
        "share of samples that lie where held-out networks are (in a ball that reaches to the fifth neighbour)",
        better="higher",
        column="precision",
    ),
    "recall": Measure(
        lambda sets: sets.prdc.recall,
        "recall",
        "share of held-out networks that lie where samples are",
        better="higher",
        column="recall",
    ),
    "density": Measure(
        lambda sets: sets.prdc.density,
        "density",
        "in how many such balls a sample lies",
        reading="expect 1",
        column="density",
    ),
    "coverage": Measure(
        lambda sets: sets.prdc.coverage,
        "coverage",
        "share of the balls of held-out networks with a sample in them",
        reading="expect ``expected_coverage``",
        column="coverage",
    ),
    "expected_coverage": Measure(
        lambda sets: sets.expected_coverage, "expected coverage", "the coverage where both sets have one law"
    ),
    "mmd2": Measure(
        lambda sets: sets.mmd.mmd2, "MMD^2", "unbiased estimate of the squared maximum mean discrepancy", better="lower"
    ),
    "p_value": Measure(
        lambda sets: sets.mmd.p_value,
        "p-value",
        "p-value of a permutation test with ``mmd2``, whether the two sets have one law. In weights even training "
        "networks may fail it: the reference that all are aligned to was made of them",
        reading="small where they have not",
        column="p",
    ),
    "bandwidth": Measure(
        lambda sets: sets.mmd.bandwidth, "bandwidth", "bandwidth of the Gaussian kernel: the median distance"
    ),
}
