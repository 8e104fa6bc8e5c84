"""Detection of out-of-distribution inputs by predicted probabilities (Hendrycks and Gimpel 2017, arXiv:1610.02136)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    values = torch.from_numpy(np.asarray(probabilities, dtype=np.float64))
    return torch.special.entr(values).flatten(1).sum(1).numpy()


def _max_probability(probabilities: np.ndarray) -> np.ndarray:
    best = np.asarray(probabilities).max(-1)
    return 1 - best.reshape(len(best), -1).prod(1)


# name -> how foreign an input looks: probabilities (b, k), or (b, m, 2) of m independent labels -> (b,)
OOD_SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"entropy": _entropy, "max_probability": _max_probability}


def ood_auroc(
    inside: np.ndarray, outside: np.ndarray, score: str = "entropy", weights: np.ndarray | None = None
) -> float:
    """Compute the area under the ROC curve with which a forecast tells foreign inputs from those of the task.

    Parameters
    ----------
    inside, outside : ndarray of shape (b, k) or (b, m, 2)
        Probabilities on inputs of the task, and on others, of k classes or of m labels; such as averages over networks.
    score : {"entropy", "max_probability"}
        What is larger on foreign inputs: the entropy of the probabilities, or one minus the largest of them (of
        labels, the probability of the likeliest set).
    weights : ndarray of shape (b,), optional
        Of the inputs of the task.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.evaluation import ood_auroc
    >>> ood_auroc(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.5, 0.5], [0.85, 0.15]]))
    0.75
    """
    from sklearn.metrics import roc_auc_score

    if score not in OOD_SCORES:
        raise ValueError(f"The 'score' of ood_auroc is one of {', '.join(OOD_SCORES)}; got {score!r}.")
    values = np.concatenate([OOD_SCORES[score](inside), OOD_SCORES[score](outside)])
    share = None if weights is None else np.concatenate([weights / weights.mean(), np.ones(len(outside))])
    return float(roc_auc_score(np.repeat([0, 1], [len(inside), len(outside)]), values, sample_weight=share))
