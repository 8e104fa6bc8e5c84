"""How far a computation is: callables that take the steps done and their number, such as those of progress bars."""

from __future__ import annotations

import itertools
from collections.abc import Callable

Progress = Callable[[int, int], None]


def stages(progress: Progress | None, *lengths: int) -> list[Progress | None]:
    """Return what each of several stages calls with steps of its own, which together make its length.

    >>> first, second = stages(lambda done, total: print(f"{done} of {total}"), 10, 30)
    >>> first(1, 2)
    5 of 40
    >>> second(2, 3)
    30 of 40
    """
    if progress is None:
        return [None] * len(lengths)
    starts, whole = itertools.accumulate(lengths[:-1], initial=0), sum(lengths)
    return [
        lambda done, total, start=start, length=length: progress(start + length * done // max(total, 1), whole)  # type: ignore[misc]
        for start, length in zip(starts, lengths, strict=True)
    ]


def counter(progress: Progress | None, total: int) -> Callable[..., None]:
    """Return what is called with the number of steps that were made since the last call."""
    done = 0

    def count(steps: int = 1) -> None:
        nonlocal done
        done += steps
        if progress is not None:
            progress(min(done, total), total)

    return count
