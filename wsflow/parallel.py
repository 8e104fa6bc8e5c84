"""Calls side by side: in joblib's processes, or in those of dask and ray where joblib is told to use them."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from wsflow.progress import Progress


def side_by_side(
    function: Callable[..., Any],
    calls: Iterable[tuple[Any, ...]],
    n: int,
    n_jobs: int | None = None,
    reports: Sequence[Progress | None] | None = None,
    in_batches: bool = True,
) -> Iterator[Any]:
    """Yield what a function returns for each of several arguments, in their order.

    The calls are the same however many processes there are.

    Parameters
    ----------
    function : callable
    calls : iterable of tuples
        The arguments of each of `n` calls, taken when they are needed.
    n : int
    n_jobs : int, optional
        Processes: as of `joblib.Parallel`, with its backend too (default: those of ``joblib.parallel_config``, if any).
    reports : sequence of callables, optional
        Of the progress of each call: the last argument of the function in this process; called with (1, 1) for each
        call that another one has done.
    in_batches : bool
        Whether a process is sent all of its calls at once, so that a large function is sent once to each.
    """
    from joblib import Parallel, delayed, effective_n_jobs, wrap_non_picklable_objects

    # no more processes than calls: those that have nothing to do would not know when to end
    n_jobs = min(effective_n_jobs(n_jobs), n)
    if n_jobs <= 1:
        for index, arguments in enumerate(calls):
            yield function(*arguments) if reports is None else function(*arguments, reports[index])
        return
    # an initializer rather than a call: what is killed before it sends one leaves processes that wait for one
    common: dict[str, Any] = {"n_jobs": n_jobs, "initializer": _end_with_parent}
    if in_batches:
        common["batch_size"] = -(-n // n_jobs)
    try:
        parallel = Parallel(return_as="generator", **common)
    except ValueError:
        # a backend that hands over results when all are there
        parallel = Parallel(**common)
    sent = delayed(wrap_non_picklable_objects(function))
    for index, result in enumerate(parallel(sent(*arguments) for arguments in calls)):
        report = None if reports is None else reports[index]
        yield result
        if report is not None:
            report(1, 1)


def jobs(n_jobs: int | None) -> AbstractContextManager[Any]:
    """Return a context in which `side_by_side` has so many processes; of None, as many as outside of it."""
    from joblib import parallel_config

    return nullcontext() if n_jobs is None else parallel_config(n_jobs=n_jobs)


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
