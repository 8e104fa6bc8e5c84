"""Shards: files that hold the networks of one population together, and the index beside them that names them.

An index is JSON: what the shards hold together, and the name, the number of networks and the checksum of each. The
name of a shard has the beginning of its checksum in it, so that new shards never replace those of the index that is
there: until the new index is in its place, by one renaming, the old population opens.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsflow.exceptions import InvalidInputError, OutputError
from wsflow.persistence.format import FORMAT, MAXIMUM_HEADER, parse_json
from wsflow.populations.file_kinds import check_path
from wsflow.schema import list_of, one_of, record, text, whole
from wsflow.writing import check_target, locked_folder, write_bytes

INDEX = ".index.json"
SHARD_SIZE = 2**27  # bytes of weights
DIGITS = 12  # of the checksum, in names
SHARDS = record(
    {
        "metadata": record({"format": whole(1), "kind": one_of("population"), "networks": whole(1), "runs": whole(1)}),
        "shards": list_of(record({"file": text, "networks": whole(1), "checksum": text}), 1),
    }
)


@dataclass(frozen=True)
class Shard:
    """A file of networks, with what an index says of it; a file without an index is a shard too."""

    path: Path
    networks: int | None = None
    checksum: str | None = None

    def check(self, checksum: str, networks: int) -> None:
        """Refuse a file that is not the one that the index names."""
        if self.checksum not in (None, checksum) or self.networks not in (None, networks):
            raise InvalidInputError(
                f"{self.path}: this is not the file that the index names: it has {networks} networks and the checksum "
                f"{checksum[:DIGITS]}, expected {self.networks} and {str(self.checksum)[:DIGITS]}. Restore it from a "
                "copy."
            )


def is_index(path: str | Path) -> bool:
    """Whether a path is, by its name, that of an index."""
    return Path(path).name.endswith(INDEX)


def read_index(path: Path) -> list[Shard]:
    """Return the shards that an index names, which are files beside it."""
    content = _content(path)
    shards = [Shard(path.parent / row["file"], row["networks"], row["checksum"]) for row in content["shards"]]
    names = [row["file"] for row in content["shards"]]
    for name in names:
        if Path(name).name != name or name in ("", ".", "..") or "\0" in name or names.count(name) > 1:
            raise InvalidInputError(
                f"{path}: it names {name!r}, and only different files beside it are read. Restore it from a copy."
            )
    total = sum(row["networks"] for row in content["shards"])
    if total != content["metadata"]["networks"]:
        raise InvalidInputError(
            f"{path}: its shards have {total} networks, and it should have {content['metadata']['networks']}. Restore "
            "it from a copy."
        )
    return shards


def index_metadata(path: Path) -> dict[str, Any]:
    """Return what an index says of its shards together, and their number."""
    content = _content(path)
    return {**content["metadata"], "shards": len(content["shards"])}


def _content(path: Path) -> dict[str, Any]:
    check_path(path)
    try:
        size = path.stat().st_size
        if size > MAXIMUM_HEADER:
            raise ValueError(f"it has {size} bytes, more than the format allows")
        content = parse_json(path.read_bytes())
        if isinstance(content, dict) and "weight_map" in content:
            raise InvalidInputError(
                f"{path}: this is the index of the state dict of one network. Make a population of it with "
                "load_networks."
            )
        version = (content.get("metadata") or {}).get("format") if isinstance(content, dict) else None
        if type(version) is int and version > FORMAT:
            raise ValueError(f"it has format version {version}, and this wsflow reads versions up to {FORMAT}")
        SHARDS(content, "")
    except InvalidInputError:
        raise
    except (ValueError, RecursionError, AttributeError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InvalidInputError(
            f"{path}: this is no intact index of a population: {reason.removesuffix('.')}. Restore it from a copy."
        ) from error
    checked: dict[str, Any] = content
    return checked


def write_shards(
    path: Path, encoded: Iterable[tuple[bytes, str, int]], count: int, metadata: Mapping[str, Any]
) -> None:
    """Write shards, of which content, checksum and number of networks are given one after the other, and their index.

    What was there opens until the new index is there, and what it names alone is removed afterwards.
    """
    check_target(path)
    rows: list[dict[str, Any]] = []
    try:
        for number, (content, checksum, networks) in enumerate(encoded, 1):
            name = f"{_stem(path)}-{number:05d}-of-{count:05d}-{checksum[:DIGITS]}.safetensors"
            rows.append({"file": name, "networks": networks, "checksum": checksum})
            write_bytes(path.parent / name, content)
        _commit(path, {"metadata": {**metadata, "kind": "population", "format": FORMAT}, "shards": rows})
    except BaseException:
        with locked_folder(path.parent):
            _remove(path, {row["file"] for row in rows} - _named(path))
        raise


def _commit(path: Path, index: dict[str, Any]) -> None:
    new = {row["file"] for row in index["shards"]}
    # another writer's commit may have removed shards that both of them wrote, the same in every bit
    with locked_folder(path.parent):
        if lost := sorted(name for name in new if not (path.parent / name).exists()):
            raise OutputError(f"{path.parent / lost[0]}: another process removed it. Save the population again.")
        old = _named(path)
        write_bytes(path, json.dumps(index, indent=1).encode())
        _remove(path, old - new)


def _named(path: Path) -> set[str]:
    """Return the files that the index names which is there, if it is one."""
    with suppress(InvalidInputError):
        return {shard.path.name for shard in read_index(path)}
    return set()


def _stem(path: Path) -> str:
    return path.name.removesuffix(INDEX).removesuffix(".safetensors")


def _remove(path: Path, names: Iterable[str]) -> None:
    """Remove shards of an index, and no other files that an index may name."""
    own = re.compile(rf"{re.escape(_stem(path))}-\d+-of-\d+-[0-9a-f]{{{DIGITS}}}\.safetensors")
    for name in filter(own.fullmatch, names):
        with suppress(OSError):
            os.unlink(path.parent / name)
