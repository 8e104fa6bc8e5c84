"""Scoring rules and calibration of a forecast: of probabilities (b, k) beside targets (b,), with weights (b,) or none.

Several labels of each example are as many forecasts of two classes: see `class_forecasts`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsflow.representation import in_a_line
from wsflow.task import Task

# scikit-learn's log_loss is not used because it clips probabilities at 2e-16, which a single network that is sure and
# wrong undercuts, and warns where those of float32 do not sum to 1; its brier_score_loss has several classes only from
# version 1.7 on


def class_forecasts(average: np.ndarray, task: Task) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return probabilities (b, k), targets (b,) and weights of a classification's average; (b * m, 2) for m labels.

    Examples without weight are left out.
    """
    targets, weights = task.targets.astype(np.int64).reshape(len(task.X), -1), task.weights
    if weights is not None:
        kept = weights > 0
        average, targets, weights = average[kept], targets[kept], weights[kept].repeat(task.n_labels)
    if task.n_labels == 1:
        return average, targets.ravel(), weights
    present = average.ravel()
    return np.stack([1 - present, present], 1), targets.ravel(), weights


def weighted_mean(values: np.ndarray, weights: np.ndarray | None) -> float:
    """Return the mean of values (b, ...), without those whose weight (b,) is zero, even if they are not finite."""
    if weights is None:
        return float(values.mean())
    kept = weights > 0
    return float(np.average(values[kept].reshape(kept.sum(), -1).mean(1), weights=weights[kept]))


def accuracy(probabilities: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the share of targets that have the largest probability."""
    return weighted_mean(probabilities.argmax(1) == targets, weights)


def negative_log_likelihood(probabilities: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the mean of -log p(target), in nats."""
    chosen = probabilities[np.arange(len(targets)), targets]
    # a probability that rounded to zero would make the mean infinite
    return weighted_mean(-np.log(np.maximum(chosen, np.finfo(np.float64).tiny)), weights)


def brier_score(probabilities: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the mean squared distance to the one-hot target, sum_k (p_k - y_k)^2, between 0 and 2."""
    hot = np.eye(probabilities.shape[1])[targets]
    return weighted_mean(np.square(probabilities - hot).sum(1), weights)


def expected_calibration_error(
    probabilities: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None, n_bins: int = 15
) -> float:
    """Return sum_m |B_m|/b |accuracy(B_m) - confidence(B_m)| over bins of equal width (Guo et al. 2017)."""
    return reliability(probabilities, targets, n_bins, weights).error


def r2(outputs: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return R^2 of a regression over all outputs together, NaN where the targets are equal."""
    if weights is not None:
        kept = weights > 0
        outputs, targets, weights = outputs[kept], targets[kept], weights[kept]
    centre = np.average(targets, 0, weights) if weights is not None else targets.mean(0)
    share = 1.0 if weights is None else weights[:, None]
    spread = (share * np.square(targets - centre)).sum()
    return float(1 - (share * np.square(outputs - targets)).sum() / spread) if spread else float("nan")


def mean_squared_error(outputs: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the mean squared error over all outputs together."""
    return weighted_mean(np.square(outputs - targets), weights)


@in_a_line
@dataclass(frozen=True)
class Reliability:
    """How often a forecast is right: means over each bin (bins,) of confidence, NaN where its share is 0."""

    confidence: np.ndarray
    accuracy: np.ndarray
    share: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error: the mean over forecasts of how far accuracy and confidence are apart."""
        known = self.share > 0
        return float((self.share * np.abs(self.accuracy - self.confidence))[known].sum())


def reliability(
    probabilities: np.ndarray, targets: np.ndarray, n_bins: int = 15, weights: np.ndarray | None = None
) -> Reliability:
    """Compute the reliability diagram: accuracy against confidence max_k p_k, in bins of equal width.

    Forecasts (b,) may have weights.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger 2017, arXiv:1706.04599, section 2.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.evaluation import reliability
    >>> reliability(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1]), n_bins=2).accuracy
    array([nan, 0.5])
    """
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == targets
    # bins are open on the left and closed on the right, as in Guo et al.
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    share = np.ones(len(targets)) if weights is None else weights
    count = np.bincount(bins, share, n_bins)
    sure, correct = (
        np.divide(np.bincount(bins, share * values, n_bins), count, out=np.full(n_bins, np.nan), where=count > 0)
        for values in (confidence, right)
    )
    return Reliability(sure, correct, count / share.sum())
