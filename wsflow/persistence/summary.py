"""What a description of a file says, as a title and rows of a name and a text: for cards and for ``wsflow info``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MENTIONED = 12
# of the provenance of a population, on one line
TRAINING = (
    "optimizer", "learning_rate", "momentum", "weight_decay", "temperature", "schedule", "epochs", "batch_size",
    "initialisation", "random_state",
)  # fmt: skip
SAID = (*TRAINING, "versions", "made_by")


def title(data: Mapping[str, Any]) -> str:
    """Return what a file holds, in a line."""
    if data["kind"] == "model":
        return f"a model of {data['architecture'] or 'vectors'}"
    return f"{data['networks']} networks {data['architecture']} of {data['runs']} runs"


def summary(data: Mapping[str, Any]) -> dict[str, str]:
    """Return the rows of a population or a model."""
    return dict(_population(data) if data["kind"] == "population" else _model(data))


def _population(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    provenance = data["provenance"]
    yield from _task(data["task"])
    each = data["networks"] / data["runs"]
    yield "runs", f"{data['runs']}, {each:.4g} network{'s' * (each != 1)} of each"
    yield "aligned", "yes" if data["aligned"] else "no"
    alone = "by themselves: their program is in the file"
    yield "run", alone if data["runs_itself"] else "by a module of yours: --module FILE.py:NAME"
    if known := {name: provenance[name] for name in TRAINING if provenance.get(name) is not None}:
        yield "trained", _settings(known)
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
            yield from _task(data["task"])
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
            yield "predicts", "a number" if data["labels"] is None else f"one of {short(data['labels'])}"
        yield "trained", _training(data["training"])
    yield "steps", ", then ".join(steps)
    changed = {(step["class"], name): value for step in data["steps"] for name, value in step["changed"].items()}
    several = len({kind for kind, _ in changed}) > 1
    named = {f"{kind}.{name}" if several else name: value for (kind, name), value in changed.items()}
    yield "not default", ", ".join(f"{name}={short(value)}" for name, value in named.items()) or "nothing"


def _training(training: Mapping[str, Any]) -> str:
    losses = {"training": training["train_loss"], "validation": training["validation_loss"]}
    known = ", ".join(f"{name} loss {loss:.4f}" for name, loss in losses.items() if loss is not None)
    best = f" (the best of them, {training['best_step']}, is kept)"
    steps = f"{training['steps']} steps{best if training['best_step'] != training['steps'] else ''}"
    return f"{steps}; {known}" if known else steps


def _task(task: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if task is None:
        yield "task", "not known"
        return
    name = task.get("name") or task.get("path") or "one whose data are in the file"
    yield "task", f"{name}, loss {task['loss']}"
    yield "task data", task["checksum"]


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {short(value)}" for name, value in values.items())


def short(value: Any) -> str:
    """Format a value, or the beginning of a long list."""
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {short(item)}" for key, item in value.items()) + ")"
    if not isinstance(value, list):
        return str(value)
    shown = list(map(short, value if len(value) <= MENTIONED else value[:3]))
    return f"[{', '.join(shown)}]" if len(value) <= MENTIONED else f"[{', '.join(shown)}, ... {len(value)} in all]"
