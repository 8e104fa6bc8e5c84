"""How much memory this machine has, and refusing what would take more of it before it is tried."""

from __future__ import annotations

import os
from contextlib import suppress

from wsflow.exceptions import MemoryLimitError

SHARE = 0.5  # of the memory that a result may take, beside what it is made of


def physical_memory() -> float:
    """Return the bytes of memory that this process may take; infinity where the system does not say."""
    limits = [float("inf")]
    with suppress(AttributeError, ValueError, OSError):
        limits.append(float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES"))
    with suppress(ImportError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        limits.append(float("inf") if limit == resource.RLIM_INFINITY else float(limit))
    return min(limits)


def check_memory(what: str, n_bytes: float, remedy: str, share: float = SHARE) -> None:
    """Raise a MemoryLimitError that names what would take this many bytes, if that is more than a share of memory."""
    memory = physical_memory()
    if n_bytes > share * memory:
        raise MemoryLimitError(f"{what} take {_gib(n_bytes)}, and this machine has {_gib(memory)} of memory. {remedy}")


def _gib(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB" if n_bytes < 2**60 else f"{n_bytes / 2**30:.1e} GiB"
