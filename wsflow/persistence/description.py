"""Describing a file by its header alone."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from wsflow.architecture import Architecture
from wsflow.persistence.classes import HOLDERS, STEPS, class_of
from wsflow.persistence.constants import without_constants
from wsflow.persistence.format import Header, Shapes, decoding, header_of, read_header, to_json
from wsflow.persistence.hub import local_file
from wsflow.persistence.population_files import RUN, TASK, checked_architecture
from wsflow.persistence.schemas import MODEL, POPULATION
from wsflow.persistence.shards import index_metadata, is_index, read_index
from wsflow.populations.file_kinds import check_path


def describe(path: str | Path) -> dict[str, Any]:
    """Return what a file holds as JSON data, from its header alone: neither weights nor data are loaded.

    ``"written"`` is when the file was changed last, by the file system: what is saved has no date in it, as the same
    content gives the same bytes. Of shards the index and the first one are read.
    """
    path = local_file(path)
    return _of_shards(path) if is_index(path) else _of_file(path)


def describe_content(content: bytes, path: str | Path) -> dict[str, Any]:
    """Return what the content of a file holds that was not written yet, but for what the file system says."""
    return _of_header(header_of(content, Path(path)), Path(path))


def _of_shards(path: Path) -> dict[str, Any]:
    shards, metadata = read_index(path), index_metadata(path)
    first = _of_file(shards[0].path)
    for shard in shards:
        check_path(shard.path)
    n = metadata["networks"]
    tensors = {
        name: [n, *shape[1:]] if shape[:1] == [first["networks"]] and not name.startswith(TASK) else shape
        for name, shape in first["tensors"].items()
    }
    n_bytes = sum(file.stat().st_size for file in (path, *(shard.path for shard in shards)))
    checksum = hashlib.sha256("".join(shard.checksum or "" for shard in shards).encode()).hexdigest()
    own = {
        "path": str(path),
        "checksum": checksum,
        "bytes": n_bytes,
        "networks": n,
        "runs": metadata["runs"],
        "shards": metadata["shards"],
    }
    return {**first, **own, "written": _written(path), "tensors": tensors}


def _of_file(path: Path) -> dict[str, Any]:
    found = _of_header(read_header(path), path)
    return {"path": str(path), **found, "bytes": path.stat().st_size, "written": _written(path)}


def _of_header(header: Header, path: Path) -> dict[str, Any]:
    data = header.data
    common = {
        "kind": data["kind"],
        "format": data["format"],
        "checksum": data.get("checksum"),
        "tensors": {name: list(shape) for name, shape in sorted(header.shapes.items())},
        "versions": data.get("versions", {}),
    }
    population = data["kind"] == "population"
    with decoding(path, data["kind"]):
        (POPULATION if population else MODEL)(data, "")
        return {**common, **(_population(data, without_constants(header.shapes)) if population else _model(data))}


def _written(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime).astimezone().isoformat(timespec="seconds")


def _population(data: dict[str, Any], shapes: Shapes) -> dict[str, Any]:
    task = data["task"]
    architecture = checked_architecture(data, shapes)
    return {
        "architecture": str(architecture),
        "networks": shapes[RUN][0],
        "runs": data["runs"],
        "aligned": data["aligned"],
        "runs_itself": architecture.is_runnable,
        "task": None if task is None else _task(task),
        "provenance": data["provenance"],
    }


def _task(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"loss": data["loss"], "checksum": data["checksum"], **data["source"]}


def _model(data: dict[str, Any]) -> dict[str, Any]:
    steps = [
        {
            "name": step["name"],
            "class": step["class"],
            "params": _readable(step["params"]),
            "changed": dict(_changed(step["class"], step["params"])),
        }
        for step in data["steps"]
    ]
    fitted = (step["data"].get("architecture") for step in data["steps"])
    # files of 0.1 have a text
    known = [x if isinstance(x, str) else to_json(x["$architecture"]) for x in fitted if x is not None]
    architecture = str(Architecture.from_json(known[0])) if known else None
    last = data["steps"][-1]
    fitted_to: dict[str, Any] = {}
    if last["class"] == "WeightFlow":
        fitted_to = _flow(last, steps[-1]["params"], bool(known))
    elif "histories" in last["data"]:
        fitted_to = _predictor(last["data"], steps[-1]["params"])
    return {"architecture": architecture, "steps": steps, **fitted_to}


def _predictor(data: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return to what a predictor was fitted, and how: losses are means over its metanetworks."""
    networks, runs = data["fitted_to"]
    histories = data["histories"]
    losses = {
        f"{name}_loss": sum(last) / len(last) if (last := [h[name][-1] for h in histories if h[name]]) else None
        for name in ("train", "validation")
    }
    return {
        "networks": networks,
        "runs": runs,
        "metanetwork": params["metanetwork"],
        "labels": data.get("labels"),
        "components": params.get("n_components"),
        "training": {
            "steps": max((h["step"] or [0])[-1] for h in histories),
            "best_step": max(h["best_step"] for h in histories),
            **losses,
        },
    }


def _flow(step: Mapping[str, Any], params: Mapping[str, Any], of_networks: bool) -> dict[str, Any]:
    """Return to what a flow was fitted, and how: of older files not all is known."""
    data = step["data"]
    networks, runs = data.get("fitted_to", (None, None))
    history, geometry = data["history"], params["geometry"]
    if geometry == "auto":
        geometry = "geometric" if of_networks else "euclidean"
    return {
        "networks": networks,
        "runs": runs,
        "geometry": geometry["kind"] if isinstance(geometry, dict) and "kind" in geometry else geometry,
        "task": params["task"],
        "training": {
            "steps": (history["step"] or [0])[-1],
            "best_step": data["best_step"],
            **{f"{name}_loss": (history[name] or [None])[-1] for name in ("train", "validation")},
        },
    }


def _changed(name: str, params: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the parameters of a class of wsflow that are not its defaults, by their names; a task is said elsewhere."""
    homes = STEPS if name in STEPS else HOLDERS
    signature = inspect.signature(class_of(name, homes)).parameters if name in homes else {}
    defaults = {key: parameter.default for key, parameter in signature.items()}
    for key, value in params.items():
        if isinstance(value, dict) and "$object" in value:
            inner = value["$object"]
            yield from _changed(inner["class"], inner["params"], f"{above}{key}.")
        elif key in defaults and key != "task" and defaults[key] != value:
            yield f"{above}{key}", _readable(value)


def _readable(data: Any) -> Any:
    if isinstance(data, list):
        return [_readable(item) for item in data]
    if not isinstance(data, dict):
        return data
    if "$architecture" in data:
        return str(Architecture.from_json(to_json(data["$architecture"])))
    if "$task" in data:
        return _task(data["$task"])
    if "$object" in data:
        return {"class": data["$object"]["class"], **_readable(data["$object"]["params"])}
    tagged = next((item for key, item in data.items() if key.startswith("$")), None)
    return {key: _readable(item) for key, item in data.items()} if tagged is None else _readable(tagged)
