"""What a fit would take, measured on its first steps."""

from __future__ import annotations

import sys
import time
from typing import Any

# of the training, of which the first one is longer
STEPS = 20
KIB = 1 if sys.platform == "darwin" else 2**10  # bytes in which the system counts


class _Enough(Exception):
    """Ends a fit whose steps have been timed."""


def measure_fit(model: Any, weights: Any, bytes_in_file: int) -> dict[str, Any]:
    """Begin to fit a pipeline that ends in a flow, stop after some steps, and say what the whole of it would take.

    Seconds are those before the first step, and for all others the median of the steps that were made; of a flow with
    energy matching, whose steps take longer, they are too few. Memory is the most that this process has had so far.
    """
    import resource

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
        "peak_memory": KIB * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "file": bytes_in_file,
    }
