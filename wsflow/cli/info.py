"""wsflow info: what is in a file."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from wsflow.cli import options
from wsflow.cli.files import Command
from wsflow.cli.inputs import InputFile
from wsflow.cli.rendering import Reporter

MENTIONED = 12
WIDTH = 100
# of the provenance of a population, on one line
TRAINING = (
    "optimizer", "learning_rate", "momentum", "weight_decay", "temperature", "schedule", "epochs", "batch_size",
    "initialisation", "random_state",
)  # fmt: skip
SAID = (*TRAINING, "versions", "made_by")


@click.command(cls=Command)
@click.argument("file", type=InputFile())
@click.option("--tensors", is_flag=True, help="List the tensors and their shapes too.")
@options.common
def info(file: Path, tensors: bool, seed: int, reporter: Reporter) -> None:
    """What FILE holds: networks and their task, or a model, to what it was fitted, and its settings.

    The date is that of the file; there is none in it. Nothing here is random and nothing takes long: --seed and -q are
    taken as by every command, and change nothing.

    \b
    Example:
      wsflow info zoo.safetensors
    """
    from wsflow.persistence import describe

    description = describe(file)
    rows = _population(description) if description["kind"] == "population" else _model(description)
    lines = [*_card(_title(description), {**dict(rows), **dict(_file(description))})]
    if tensors:
        lines += ["tensors:", *(f"  {name}: {_short(shape)}" for name, shape in description["tensors"].items())]
    reporter.show(description, "\n".join(lines))


def _title(data: Mapping[str, Any]) -> str:
    if data["kind"] == "model":
        return f"{data['path']}: a model of {data['architecture'] or 'vectors'}"
    return f"{data['path']}: {data['networks']} networks {data['architecture']} of {data['runs']} runs"


def _population(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    provenance = data["provenance"]
    yield "task", _task(data["task"])
    each = data["networks"] / data["runs"]
    yield "runs", f"{data['runs']}, {each:.4g} network{'s' * (each != 1)} of each"
    yield "aligned", "yes" if data["aligned"] else "no"
    alone = "by themselves: their program is in the file"
    yield "run", alone if data["runs_itself"] else "by a module of yours: --module FILE.py:NAME"
    if settings := {name: provenance[name] for name in TRAINING if provenance.get(name) is not None}:
        yield "trained", _settings(settings)
    if quality := _quality(provenance.get("quality")):
        yield "quality", quality
    said = (*SAID, "quality") if quality else SAID
    if further := {name: value for name, value in provenance.items() if name not in said and value is not None}:
        yield "provenance", _settings(further)


def _quality(data: Any) -> str:
    """Describe what `populate` and `merge` measured; nothing where there is something else."""
    if not isinstance(data, Mapping) or not {"networks", "data"} <= data.keys():
        return ""
    of = "measured" if data["networks"] == 1 else f"means of {data['networks']} networks"
    names = sorted(data.keys() - {"networks", "data"}, key=lambda name: (name == "loss", name))
    measured = {name: data[name] for name in names}
    return f"{_settings(measured)} ({of} on {data['data']} data)"


def _model(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    steps = [step["class"] for step in data["steps"]]
    if "training" in data:
        if "task" in data:
            yield "task", _task(data["task"])
        known = data["networks"] is not None
        yield (
            "fitted to",
            f"{data['networks']} networks of {data['runs']} runs" if known else "unknown, as in files of 0.1",
        )
        if "geometry" in data:
            yield "geometry", str(data["geometry"])
        elif data["components"] is not None:
            yield "encodes", f"a network as {data['components']} numbers"
        else:
            yield "predicts", "a number" if data["labels"] is None else f"one of {_short(data['labels'])}"
        yield "trained", _training(data["training"])
    yield "steps", ", then ".join(steps)
    changed = {(step["class"], name): value for step in data["steps"] for name, value in step["changed"].items()}
    several = len({kind for kind, _ in changed}) > 1
    named = {f"{kind}.{name}" if several else name: value for (kind, name), value in changed.items()}
    yield "not default", ", ".join(f"{name}={_short(value)}" for name, value in named.items()) or "nothing"


def _training(training: Mapping[str, Any]) -> str:
    losses = {"training": training["train_loss"], "validation": training["validation_loss"]}
    known = ", ".join(f"{name} loss {loss:.4f}" for name, loss in losses.items() if loss is not None)
    best = f" (the best of them, {training['best_step']}, is kept)"
    steps = f"{training['steps']} steps{best if training['best_step'] != training['steps'] else ''}"
    return f"{steps}; {known}" if known else steps


def _file(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    written = datetime.fromisoformat(data["written"])
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    shards = f" in {data['shards']} shard{'s' * (data['shards'] != 1)}" if "shards" in data else ""
    yield "file", f"{data['bytes']:,} bytes{shards}, {len(data['tensors'])} tensors (--tensors lists them)"
    yield "written", f"{written:%Y-%m-%d %H:%M} (by the file system), with {versions}"


def _task(task: Mapping[str, Any] | None) -> str:
    if task is None:
        return "not known"
    name = task.get("name") or task.get("path") or "one whose data are in the file"
    return f"{name}, loss {task['loss']}"


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in values.items())


def _card(title: str, rows: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of a card: a title, and below it the values of names."""
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    margin = max(map(len, rows)) + 4
    yield title
    for name, value in rows.items():
        lines = textwrap.wrap(value, width - margin, break_on_hyphens=False) or [""]
        yield f"  {name:<{margin - 2}}" + f"\n{' ' * margin}".join(lines)


def _short(value: Any) -> str:
    """Format a value, or the beginning of a long list."""
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_short(item)}" for key, item in value.items()) + ")"
    if not isinstance(value, list):
        return str(value)
    shown = list(map(_short, value if len(value) <= MENTIONED else value[:3]))
    return f"[{', '.join(shown)}]" if len(value) <= MENTIONED else f"[{', '.join(shown)}, ... {len(value)} in all]"
