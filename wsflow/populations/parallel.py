"""Training of chunks one after the other or in joblib's processes, but for those that a checkpoint has."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from wsflow.populations.checkpoints import Checkpoint
from wsflow.populations.chunks import train_chunk
from wsflow.populations.problem import Problem
from wsflow.progress import Progress


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
    several = n_jobs > 1
    work = (
        _side_by_side(problem, chunks, checkpoint, n_jobs)
        if several
        else _in_turn(problem, chunks, checkpoint, progress)
    )
    results: list[np.ndarray] = []
    for weights in work:
        results.append(weights)
        if several and progress is not None:
            _report(progress, problem, chunks, len(results) - 1, problem.epochs)
    return results


def _in_turn(
    problem: Problem, chunks: Sequence[np.ndarray], checkpoint: Checkpoint | None, progress: Progress | None
) -> Iterator[np.ndarray]:
    for index, runs in enumerate(chunks):

        def report(epoch: int, index: int = index) -> None:
            if progress is not None:
                _report(progress, problem, chunks, index, epoch)

        yield _one(problem, index, runs, checkpoint, report)


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
    report: Callable[[int], None] | None = None,
) -> np.ndarray:
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


def _report(progress: Progress, problem: Problem, chunks: Sequence[np.ndarray], index: int, epoch: int) -> None:
    epochs = problem.epochs
    before = sum(map(len, chunks[:index]))
    progress(before * epochs + len(chunks[index]) * epoch, sum(map(len, chunks)) * epochs)
