"""Training of chunks one after the other or in joblib's processes, but for those that a checkpoint has."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

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
    from joblib import effective_n_jobs

    # no more processes than chunks: those that have nothing to do would not know when to end
    n_jobs = min(effective_n_jobs(n_jobs), len(chunks))
    reports = stages(progress, *(len(runs) * problem.epochs for runs in chunks))
    if n_jobs <= 1:
        calls = enumerate(zip(chunks, reports, strict=True))
        return [_one(problem, index, runs, checkpoint, report) for index, (runs, report) in calls]
    results: list[np.ndarray] = []
    for weights, report in zip(_side_by_side(problem, chunks, checkpoint, n_jobs), reports, strict=True):
        results.append(weights)
        if report is not None:
            report(1, 1)
    return results


def _side_by_side(
    problem: Problem, chunks: Sequence[np.ndarray], checkpoint: Checkpoint | None, n_jobs: int
) -> Iterator[np.ndarray]:
    from joblib import Parallel, delayed

    # an initializer rather than a task: what is killed before it sends one leaves processes that wait for one
    common: dict[str, Any] = {"n_jobs": n_jobs, "initializer": _end_with_parent}
    try:
        parallel = Parallel(return_as="generator", **common)
    except ValueError:
        # a backend that hands over results when all are there
        parallel = Parallel(**common)
    yield from parallel(delayed(_one)(problem, index, runs, checkpoint) for index, runs in enumerate(chunks))


def _end_with_parent() -> None:
    """Let this process end when the one that started it does, which cannot say so when it is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_and_exit, args=(parent,), daemon=True).start()


def _wait_and_exit(parent: Any) -> None:
    try:
        parent.join()
    except (TypeError, ValueError):
        # loky gives its processes nothing to wait for
        while os.getppid() == parent.pid:
            time.sleep(1)
    os._exit(1)


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
