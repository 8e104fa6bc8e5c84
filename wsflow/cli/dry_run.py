"""What a fit, or the training of a population, would take, measured on its first steps."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

# of the training, of which the first one is longer
STEPS = 20
# of a chunk of a population, in the first of several trainings, and by how many seconds the last one is longer
LEAST, LONGER = 4, 1.0
KIB = 1 if sys.platform == "darwin" else 2**10  # bytes in which the system counts


class _Enough(Exception):
    """Ends a fit whose steps have been timed, or a population with its first chunk."""


def measure_fit(model: Any, weights: Any, bytes_in_file: int) -> dict[str, Any]:
    """Begin to fit a pipeline that ends in a flow, stop after some steps, and say what the whole of it would take.

    Seconds are those before the first step, and for all others the median of the steps that were made; of a flow with
    energy matching, whose steps take longer, they are too few. Memory is the most that this process has had so far.
    """
    times: list[float] = []
    steps = 0

    def progress(done: int, total: int) -> None:
        nonlocal steps
        steps = total
        times.append(time.perf_counter())
        if done >= STEPS:
            raise _Enough

    model[-1].set_params(progress=progress, checkpoint=None)
    start = time.perf_counter()
    try:
        model.fit(weights)
    except _Enough:
        pass
    finally:
        model[-1].set_params(progress=None)
    between = sorted(after - before for before, after in zip(times, times[1:], strict=False)) or [0.0]
    first, step = times[0] - start, between[len(between) // 2]
    return {
        "networks": len(weights),
        "weights": weights.architecture.n_weights,
        "steps": steps,
        "seconds": {"before": first, "step": step, "total": first + step * (steps - 1)},
        "peak_memory": _peak_memory(),
        "file": bytes_in_file,
    }


def measure_training(
    train: Callable[..., Any], n_runs: int, steps: int, least: int, n_jobs: int | None
) -> dict[str, Any]:
    """Train the first chunk of a population for a few steps, then for more, and say what the whole of it would take.

    ``train(steps=..., n_jobs=1, progress=...)`` trains the population, whose runs have so many steps, and at least
    `least`. The first training is not counted, as it loads what is needed. The seconds of a step are those by which the
    longest of the others exceeds the shortest; chunks that are trained side by side are taken to be as fast as one
    alone.
    """
    from joblib import effective_n_jobs

    few = count = min(steps, max(LEAST, least))
    size, first = _first_chunk(train, n_runs, count)
    _, start = _, end = _first_chunk(train, n_runs, count)
    while count < steps and end - start < LONGER:
        count = min(steps, 4 * count)
        _, end = _first_chunk(train, n_runs, count)
    step = max(0.0, end - start) / (count - few) if count > few else end / count
    before = max(0.0, first - few * step)
    chunks = -(-n_runs // size)
    processes = min(effective_n_jobs(n_jobs), chunks)
    return {
        "steps": steps,
        "chunks": chunks,
        "processes": processes,
        "seconds": {"before": before, "step": step, "total": before + -(-chunks // processes) * steps * step},
        "peak_memory": _peak_memory(),
    }


def _first_chunk(train: Callable[..., Any], n_runs: int, steps: int) -> tuple[int, float]:
    """Train the first chunk for so many steps, and return its runs and the seconds that it took."""
    size = 0

    def progress(done: int, total: int) -> None:
        nonlocal size
        # an epoch of the chunk
        size = size or done
        if done >= size * total // n_runs:
            raise _Enough

    start = time.perf_counter()
    with contextlib.suppress(_Enough):
        train(steps=steps, n_jobs=1, progress=progress)
    return size, time.perf_counter() - start


def _peak_memory() -> int:
    """Return the most bytes that this process has had so far."""
    import resource

    return KIB * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
