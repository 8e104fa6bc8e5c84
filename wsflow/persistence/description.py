"""Describing a file by its header alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsflow.architecture import Architecture
from wsflow.persistence.format import Shapes, decoding, read_header, to_json
from wsflow.persistence.populations import RUN, checked_architecture
from wsflow.persistence.schemas import MODEL, POPULATION


def describe(path: str | Path) -> dict[str, Any]:
    """Return what a file holds as JSON data, from its header alone: neither weights nor data are loaded."""
    header = read_header(path)
    data = header.data
    common = {
        "path": str(path),
        "kind": data["kind"],
        "format": data["format"],
        "bytes": Path(path).stat().st_size,
        "tensors": {name: list(shape) for name, shape in sorted(header.shapes.items())},
        "versions": data.get("versions", {}),
    }
    population = data["kind"] == "population"
    with decoding(Path(path), data["kind"]):
        (POPULATION if population else MODEL)(data, "")
        return {**common, **(_population(data, header.shapes) if population else _model(data))}


def _population(data: dict[str, Any], shapes: Shapes) -> dict[str, Any]:
    task = data["task"]
    return {
        "architecture": str(checked_architecture(data, shapes)),
        "networks": shapes[RUN][0],
        "runs": data["runs"],
        "aligned": data["aligned"],
        "task": None if task is None else {"loss": task["loss"], **task["source"]},
        "provenance": data["provenance"],
    }


def _model(data: dict[str, Any]) -> dict[str, Any]:
    steps = [{"name": s["name"], "class": s["class"], "params": _readable(s["params"])} for s in data["steps"]]
    fitted = [s["data"].get("architecture") for s in data["steps"]]
    texts = [text for text in fitted if isinstance(text, str)]
    return {"architecture": str(Architecture.from_json(texts[0])) if texts else None, "steps": steps}


def _readable(data: Any) -> Any:
    if isinstance(data, list):
        return [_readable(item) for item in data]
    if not isinstance(data, dict):
        return data
    if "$architecture" in data:
        return str(Architecture.from_json(to_json(data["$architecture"])))
    if "$task" in data:
        return {"loss": data["$task"]["loss"], **data["$task"]["source"]}
    if "$object" in data:
        return {"class": data["$object"]["class"], **_readable(data["$object"]["params"])}
    tagged = next((item for key, item in data.items() if key.startswith("$")), None)
    return {key: _readable(item) for key, item in data.items()} if tagged is None else _readable(tagged)
