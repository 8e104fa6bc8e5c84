"""wsflow doctor: whether this machine has what wsflow needs."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import click

from wsflow import __version__
from wsflow.cli import options
from wsflow.cli.errors import CommandError
from wsflow.cli.files import Command
from wsflow.cli.rendering import Reporter
from wsflow.exceptions import InvalidInputError

# distribution -> what is imported of it, where the names differ
MODULES = {"scikit-learn": "sklearn", "POT": "ot", "torch-geometric": "torch_geometric"}
NO_EXTRAS = ("test", "docs", "dev")
GIB = 2**30


@click.command(cls=Command)
@options.common
def doctor(seed: int, reporter: Reporter) -> None:
    """Whether this machine has what wsflow needs: versions, devices, memory and data.

    It ends with exit code 3 where a library is missing, does not fit or cannot be imported, and says what to install.
    Nothing here is random: --seed and -q are taken as by every command, and change nothing.

    \b
    Example:
      wsflow doctor
      wsflow doctor --json
    """
    libraries = list(_libraries())
    found: dict[str, Any] = {
        "wsflow": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "libraries": libraries,
        **_machine(),
        "data": _data(),
    }
    reporter.show(found, "\n".join(_lines(found)))
    wrong = [row for row in libraries if row["problem"] and row["extra"] is None]
    if wrong:
        said = "; ".join(f"{row['name']}: {row['problem']}" for row in wrong)
        needed = " ".join(f"'{row['name']}{row['required']}'" for row in wrong)
        raise CommandError(f"{said}. Install with pip install {needed}.", InvalidInputError.exit_code)


def _libraries() -> Iterator[dict[str, Any]]:
    """Each library that wsflow requires, or that an extra does, and what is wrong with it."""
    from packaging.requirements import Requirement

    for text in requires("wsflow") or []:
        requirement = Requirement(text)
        extra = _extra(str(requirement.marker)) if requirement.marker else None
        if extra in NO_EXTRAS:
            continue
        row = {"name": requirement.name, "required": str(requirement.specifier), "extra": extra}
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            yield {**row, "version": None, "problem": "is not installed"}
            continue
        problem = None if requirement.specifier.contains(installed, prereleases=True) else f"is {installed}"
        yield {**row, "version": installed, "problem": problem or _import_problem(requirement.name)}


def _extra(marker: str) -> str:
    return marker.partition("==")[2].strip(" \"'")


def _import_problem(name: str) -> str | None:
    """Why a library that is there cannot be imported, if so: two that do not go together say so then only."""
    try:
        importlib.import_module(MODULES.get(name, name))
    except Exception as error:
        return f"cannot be imported ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
    return None


def _machine() -> dict[str, Any]:
    import torch

    from wsflow.memory import physical_memory

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = ["cpu"]
    devices += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    return {
        "cores": cores,
        "threads": torch.get_num_threads(),
        "devices": devices,
        "memory_gib": round(physical_memory() / GIB, 1),
        "disk_free_gib": round(shutil.disk_usage(Path.cwd()).free / GIB, 1),
    }


def _data() -> dict[str, str]:
    """Each data set that is no part of a library, and where it is read from."""
    from wsflow.populations.datasets import DATASETS, ImageDataset

    rows = {name: row for name, row in DATASETS.items() if isinstance(row, ImageDataset)}
    return {name: str(row.folder() or "") for name, row in rows.items()}


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"wsflow {found['wsflow']}, Python {found['python']}, {found['system']}"
    yield f"cores: {found['cores']}, threads: {found['threads']}, devices: {', '.join(found['devices'])}"
    yield f"{found['memory_gib']:,} GiB of memory, {found['disk_free_gib']:,} GiB free in this folder"
    for row in found["libraries"]:
        use = "" if row["extra"] is None else f", for wsflow[{row['extra']}]"
        mark = "ok" if not row["problem"] else ("--" if row["extra"] is not None else "NO")
        state = row["version"] if row["problem"] is None else row["problem"]
        yield f"  {mark}  {row['name']}{row['required']}: {state}{use}"
    for name, folder in found["data"].items():
        yield f"  {'ok' if folder else '--'}  {name}: {folder or 'not in WSFLOW_DATA, downloaded when asked for'}"
