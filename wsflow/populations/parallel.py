"""Training of chunks one after the other or side by side, but for those that a checkpoint has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wsflow.parallel import side_by_side
from wsflow.populations.checkpoints import Checkpoint
from wsflow.populations.chunks import train_chunk
from wsflow.populations.problem import Problem
from wsflow.progress import Progress, stages


def run_chunks(
    problem: Problem,
    chunks: Sequence[np.ndarray],
    checkpoint: Checkpoint | None = None,
    n_jobs: int | None = None,
    progress: Progress | None = None,
) -> list[np.ndarray]:
    """Train chunks, given by the numbers of their runs, and return their weights, which do not depend on `n_jobs`."""
    calls = [(problem, index, runs, checkpoint) for index, runs in enumerate(chunks)]
    reports = stages(progress, *(len(runs) * problem.epochs for runs in chunks))
    return list(side_by_side(_one, calls, len(calls), n_jobs, reports, in_batches=False))


def _one(
    problem: Problem,
    index: int,
    runs: np.ndarray,
    checkpoint: Checkpoint | None,
    progress: Progress | None = None,
) -> np.ndarray:
    report = None if progress is None else lambda epoch: progress(epoch, problem.epochs)
    settings = problem.settings
    if checkpoint is None:
        return train_chunk(problem, runs, report)
    shape = (len(runs) * settings.cycles * settings.snapshots, problem.architecture.n_weights)
    weights = checkpoint.load(index, shape)
    if weights is None:
        # saved by the process that trained it, so that it is kept even if another process fails
        weights = train_chunk(problem, runs, report)
        checkpoint.save(index, weights)
    elif report is not None:
        report(problem.epochs)
    return weights
