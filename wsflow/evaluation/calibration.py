"""Scoring rules and calibration of a forecast: of probabilities (b, k) beside targets (b,)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# scikit-learn's log_loss is not used because it clips probabilities at 2e-16, which a single network that is sure and
# wrong undercuts, and warns where those of float32 do not sum to 1; its brier_score_loss has several classes only from
# version 1.7 on


def accuracy(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the share of targets that have the largest probability."""
    return float((probabilities.argmax(1) == targets).mean())


def negative_log_likelihood(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean of -log p(target), in nats."""
    chosen = probabilities[np.arange(len(targets)), targets]
    # a probability that rounded to zero would make the mean infinite
    return float(-np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean())


def brier_score(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean squared distance to the one-hot target, sum_k (p_k - y_k)^2, between 0 and 2."""
    hot = np.eye(probabilities.shape[1])[targets]
    return float(np.square(probabilities - hot).sum(1).mean())


def expected_calibration_error(probabilities: np.ndarray, targets: np.ndarray, n_bins: int = 15) -> float:
    """Return sum_m |B_m|/b |accuracy(B_m) - confidence(B_m)| over bins of equal width (Guo et al. 2017)."""
    found = reliability(probabilities, targets, n_bins)
    known = found.share > 0
    return float((found.share * np.abs(found.accuracy - found.confidence))[known].sum())


def r2(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return R^2 of a regression over all outputs together, NaN where the targets are equal."""
    spread = np.square(targets - targets.mean(0)).sum()
    return float(1 - np.square(outputs - targets).sum() / spread) if spread else float("nan")


def mean_squared_error(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean squared error over all outputs together."""
    return float(np.square(outputs - targets).mean())


@dataclass(frozen=True)
class Reliability:
    """How often a forecast is right: means over each bin (bins,) of confidence, NaN where its share is 0."""

    confidence: np.ndarray
    accuracy: np.ndarray
    share: np.ndarray


def reliability(probabilities: np.ndarray, targets: np.ndarray, n_bins: int = 15) -> Reliability:
    """Compute the reliability diagram: accuracy against confidence max_k p_k, in bins of equal width.

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
    count = np.bincount(bins, minlength=n_bins)
    sure, correct = (
        np.divide(np.bincount(bins, values, n_bins), count, out=np.full(n_bins, np.nan), where=count > 0)
        for values in (confidence, right)
    )
    return Reliability(sure, correct, count / len(targets))
