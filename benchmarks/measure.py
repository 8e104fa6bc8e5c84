"""What the benchmarks share: timing, the machine in words, a table on the screen and a JSON file."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any


def seconds(function: Callable[[], Any], repeats: int = 5) -> float:
    """The median time of some calls, after one that does not count."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def hardware() -> dict[str, Any]:
    """The machine on which this runs, and the versions that matter."""
    import torch

    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in ("torch", "numpy", "scipy", "scikit-learn")},
    }


def _cpu() -> str:
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def report(title: str, times: dict[str, float], unit: str, out: Path | None, **settings: Any) -> None:
    """Print a table of times, and of ratios to the first, and write both with the machine."""
    first = next(iter(times.values()))
    rows = {name: {"seconds": value, "ratio": value / first} for name, value in times.items()}
    width = max(len(name) for name in rows)
    print(f"{title} ({', '.join(f'{k} {v}' for k, v in settings.items())}; seconds {unit})")
    for name, row in rows.items():
        print(f"  {name:{width}}  {row['seconds']:10.5f} s  {row['ratio']:8.2f} x")
    if out is not None:
        data = {"title": title, "unit": unit, "settings": settings, "rows": rows, "hardware": hardware()}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
