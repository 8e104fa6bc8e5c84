"""Intersection over union of the sets of examples that networks predict wrongly.

Networks of different runs err on different examples, a copy errs where its original does. The IoU of a sample is the
largest over all training networks. It falls with noise on the weights, and so does accuracy: samples should be more
accurate than noisy training networks that are as dissimilar, which is the noise frontier of Zeng, Yin, Xu and Liu 2025,
"Generative Modeling of Weights: Generalization or Memorization?", arXiv:2506.07998.
"""

from __future__ import annotations

import numpy as np
import torch

# numbers of one block of training networks: 64 MiB in float32
BLOCK_NUMBERS = 2**24


def intersection_over_union(wrong: np.ndarray, others: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Compute |A n B| / |A u B| (n, m) of the mistakes (n, b) and (m, b) of networks, 1 for two without a mistake.

    Examples may have weights (b,), which are then summed instead of counted.

    >>> intersection_over_union(np.array([[True, True, False]]), np.array([[True, False, False], [True, True, False]]))
    array([[0.5, 1. ]])
    """
    # counts below 2^24 are exact in float32
    left, right = (torch.from_numpy(np.asarray(rows, dtype=np.float32)) for rows in (wrong, others))
    share = left.new_ones(left.shape[1]) if weights is None else torch.from_numpy(weights).float()
    both = left * share @ right.T
    either = (left @ share).unsqueeze(1) + right @ share - both
    some = either > 0 if weights is None else (left * (share > 0)).any(1)[:, None] | (right * (share > 0)).any(1)
    return torch.where(some, both / torch.where(some, either, 1.0), 1.0).double().numpy()


def max_iou(wrong: np.ndarray, train: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Compute the IoU (n,) of each network's mistakes (n, b) with those of the most similar training network (m, b)."""
    rows = max(1, BLOCK_NUMBERS // train.shape[1])
    blocks = [train[start : start + rows] for start in range(0, len(train), rows)]
    return np.max([intersection_over_union(wrong, block, weights).max(1) for block in blocks], axis=0)
