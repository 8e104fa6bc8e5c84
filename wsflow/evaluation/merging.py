"""Merging: one network from several aligned ones, by the mean of their weights.

The mean of weights loses the variance of activations layer by layer. Two remedies, both by a pass over data: the
statistics of batch norms are recomputed, and REPAIR makes the mean and the standard deviation of each channel what
they are in the networks that were merged.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wsflow.evaluation.repair import BATCH_SIZE, recompute_batch_norm, repair_channels
from wsflow.exceptions import InvalidInputError
from wsflow.populations.arguments import takes_networks
from wsflow.task import Task
from wsflow.weights import WeightArray

METHODS = ("mean", "latent")
STATISTICS = ("recompute", "average", "keep")


@takes_networks("weights")
def merge(
    weights: WeightArray,
    task: Task | None = None,
    *,
    method: str = "mean",
    autoencoder: Any = None,
    groups: Any = None,
    statistics: str = "recompute",
    repair: bool = False,
    module: Any = None,
    batch_size: int = BATCH_SIZE,
) -> WeightArray:
    """Merge two or many networks into one: the mean of their weights, with its activations put right, or of latents.

    Align the networks first for the mean of their weights: that of networks whose neurons do not correspond is no good
    network. Latents of an autoencoder are those of functions, and need no alignment.

    Parameters
    ----------
    task : Task, optional
        Statistics are computed over its inputs: needed for ``repair=True``, and for ``statistics="recompute"``
        where the networks have batch norms.
    method : {"mean", "latent"}
        "latent" decodes the mean of the networks' latents.
    autoencoder : MetaAutoencoder, optional
        A fitted one, for ``method="latent"``.
    groups : array-like of shape (n,), optional
        Labels: the networks of each label are merged into one (default: all networks are one group), in the order of
        the labels' first rows, whose runs and steps it has.
    statistics : {"recompute", "average", "keep"}
        Of batch norms: recomputed over the task's inputs, averaged, or those of each group's first network.
    repair : bool
        Whether the mean and standard deviation of each channel are made the average of those in the merged networks
        (Jordan et al. 2023): of what each linear, convolutional and batch-norm layer but the output layer puts out.
    module : torch.nn.Module, optional
        What runs networks that do not run by themselves (default: the architecture's module).
    batch_size : int
        Statistics are averages over batches of about this size; with one batch, REPAIR is exact.

    Raises
    ------
    InvalidInputError
        If there is no network, not one label for each, or what runs the networks or their task is needed and missing.
    ValueError
        If a parameter has a wrong value, or goes with another method.

    References
    ----------
    Ainsworth, Hayase and Srinivasa 2023, "Git Re-Basin", arXiv:2209.04836; Jordan, Sedghi, Saukh, Entezari and
    Neyshabur 2023, "REPAIR: REnormalizing Permuted Activations for Interpolation Repair", arXiv:2211.08403; Boufalis et
    al. 2025, arXiv:2511.12601 (merging by an autoencoder).

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, Task, WeightArray, merge
    >>> rng = np.random.default_rng(0)
    >>> weights = WeightArray(rng.normal(size=(4, 23)), Architecture.mlp([4, 3, 2]))
    >>> merge(weights, groups=["a", "b", "a", "b"]).runs
    array([0, 1])
    >>> merge(weights, Task(rng.normal(size=(50, 4)), rng.integers(2, size=50)), repair=True).shape
    (1, 23)
    """
    _check_method(method, autoencoder, repair)
    if statistics not in STATISTICS:
        raise ValueError(f"The 'statistics' of merge are one of {', '.join(STATISTICS)}, got {statistics!r}.")
    if not isinstance(weights, WeightArray) or not len(weights):
        raise InvalidInputError("There is nothing to merge: pass a WeightArray of at least one network.")
    first, label = _labels(groups, len(weights))
    columns = weights.architecture.statistic_columns
    recompute = statistics == "recompute" and len(columns) > 0
    share = np.eye(len(first))[:, label]
    share = share / share.sum(1, keepdims=True)
    if method == "latent":
        decoded = autoencoder.inverse_transform(share @ autoencoder.transform(weights))
        return weights[first].like(decoded, aligned=True)
    mean = share @ np.asarray(weights, dtype=np.float64)
    if statistics == "keep":
        mean[:, columns] = np.asarray(weights)[first][:, columns]
    merged = weights[first].like(mean.astype(weights.dtype))
    if not (repair or recompute):
        return merged
    if task is None:
        raise InvalidInputError(
            "Computing statistics takes data: pass task=Task(X, y), or merge with statistics='average', repair=False."
        )
    if repair:
        merged = repair_channels(merged, weights, share, task, module=module, batch_size=batch_size)
    return recompute_batch_norm(merged, task, module=module, batch_size=batch_size) if recompute else merged


def _check_method(method: str, autoencoder: Any, repair: bool) -> None:
    if method not in METHODS:
        raise ValueError(f"The 'method' of merge is one of {', '.join(METHODS)}, got {method!r}.")
    if method == "mean" and autoencoder is not None:
        raise ValueError("The 'autoencoder' of merge goes with method='latent'.")
    if method == "latent" and not (hasattr(autoencoder, "transform") and hasattr(autoencoder, "inverse_transform")):
        raise ValueError("Merging with method='latent' needs an autoencoder: pass a fitted MetaAutoencoder.")
    if method == "latent" and repair:
        raise ValueError("REPAIR takes neurons of the networks for those of the merged one: use method='mean' with it.")


def _labels(groups: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first row of each label, in order, and the index of each row's label among them."""
    labels = np.zeros(n, dtype=int) if groups is None else np.asarray(groups)
    if labels.shape != (n,):
        raise InvalidInputError(f"The 'groups' of merge are {n} labels, one a network, got shape {labels.shape}.")
    _, first, label = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[label]
