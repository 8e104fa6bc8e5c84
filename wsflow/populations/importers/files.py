"""A file that was read: its tensors by name, what its format says of the network, and what was done to it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsflow.architecture import Architecture
from wsflow.architecture.state_names import misfits
from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.choice import Choice, restricted
from wsflow.populations.importers.damaged import ARRAY, SAVE
from wsflow.populations.importers.layouts import torch_layout
from wsflow.populations.importers.leaves import Checkpoint, Leaf, is_tensor, leaves_of
from wsflow.populations.importers.perceptrons import fold_normalization
from wsflow.populations.population import versions

LISTED = 20
# names of what is not the weights of a network, and what to do with it
FOREIGN_WEIGHTS = {
    re.compile(
        r"(^|\.)(lora_|hada_w|oft_)"
    ): "adapters such as LoRA, which change another network. Merge them into that "
    "one (merge_and_unload of peft), and save the whole",
    re.compile(r"\.(SCB|qweight|qzeros|absmax|quant_map|quant_state|weight_format)\b"): "quantized weights. Pass the "
    "network from before, or dequantize it",
    re.compile(r"(^|\.)_?flat_param"): "parameters that FSDP has flattened and divided. Save the whole with "
    "torch.distributed.checkpoint.state_dict.get_model_state_dict and full_state_dict=True",
}
OPTIMIZER = ({"state", "param_groups"}, {"base_lrs", "last_epoch"}, {"_step_count", "last_epoch"})


@dataclass(frozen=True)
class File:
    """What a file holds, with its tensors by their names."""

    name: str
    content: Checkpoint
    leaves: Mapping[str, Leaf]
    objects: Mapping[str, str]  # what was not made, by where it is


def file_of(name: str, content: Checkpoint, fold: bool, key: str | None) -> File:
    """Return the tensors of what was read, those below a key only if there is one; errors name the file."""
    try:
        content = fold_normalization(content) if fold else content
        leaves, objects = leaves_of(content.tree)
        if not leaves or _is_optimizer(content.tree):
            raise InvalidInputError(_without_tensors(content.tree, objects))
        return File(name, content, restricted(leaves, key), objects)
    except InvalidInputError as error:
        raise error if str(error).startswith(name) else InvalidInputError(f"{name}: {error}") from error


def _is_optimizer(tree: Any) -> bool:
    return isinstance(tree, Mapping) and any(keys <= set(tree) for keys in OPTIMIZER)


def _without_tensors(tree: Any, objects: Mapping[str, str]) -> str:
    """Describe a file in which there are no tensors."""
    if objects:
        where, kind = next(iter(objects.items()))
        return f"it holds Python objects ({kind}{f' at {where!r}' if where else ''}) without tensors. {SAVE}"
    if _is_optimizer(tree):
        return f"this is the state of an optimizer or its schedule, and not of a network. {SAVE}"
    if isinstance(tree, Mapping) and tree:
        first, value = next(iter(tree.items()))
        return f"there is no state dict in this file: {first!r} is no tensor but {_what(value)}. {SAVE}"
    if is_tensor(tree):
        return f"this is {ARRAY}"
    return f"there is no state dict in this file, but {_what(tree)}. {SAVE}"


def _what(value: Any) -> str:
    if isinstance(value, Mapping) and not value:
        return "an empty dictionary"
    return f"a {type(value).__name__}"


def foreign_weights(names: Iterable[str]) -> str:
    """Describe names of what is not the weights of a network, or return nothing."""
    for name in names:
        for pattern, what in FOREIGN_WEIGHTS.items():
            if pattern.search(name):
                return f"{name!r} is one of {what}."
    return ""


def misfits_of(file: File, architecture: Architecture) -> list[str]:
    """Describe why no network of a file is of the architecture."""
    expected = set(architecture.names)
    unread = [
        f"{file.name} has {where!r} as {kind}, which is no dense tensor of numbers"
        for where, kind in file.objects.items()
        if any(where == name or where.endswith(f".{name}") for name in expected)
    ]
    shapes = {key: leaf.shape for key, leaf in torch_layout(file.leaves, file.content.channels_last).items()}
    return unread or [f"{file.name} {problem}" for problem in misfits(shapes, architecture)]


def provenance_of(files: Sequence[File], choices: Sequence[Choice], names: Sequence[str], fold: bool) -> dict[str, Any]:
    """Return what was read from which file and what was done to it, as JSON data."""
    short = _short([file.name for file in files])
    both = list(zip(short, files, choices, strict=True))
    done: dict[str, dict[str, Any]] = {
        "notes": {name: {**file.content.notes, **choice.notes} for name, file, choice in both},
        "normalization": {name: file.content.normalization for name, file, _ in both},
        "prefixes": {name: choice.prefix for name, _, choice in both},
        "not_taken": {name: list(choice.others) for name, _, choice in both},
        "left_out": {name: list(choice.left_out[:LISTED]) for name, _, choice in both},
        "cast_to_float32": {name: list(choice.cast) for name, _, choice in both},
    }
    kept = {key: {name: value for name, value in values.items() if value} for key, values in done.items()}
    return {
        "made_by": "load_networks",
        "networks": _short(names),
        **{key: values for key, values in kept.items() if values},
        **({"normalization_is": "folded, without clipping" if fold else "kept apart"} if kept["normalization"] else {}),
        "versions": versions("torch"),
    }


def _short(names: Sequence[str]) -> list[str]:
    """Return paths relative to the folder that all of them have in common, which others need not know."""
    folders = {str(Path(name).parent) for name in names}
    common = os.path.commonpath([os.path.abspath(folder) for folder in folders])
    return [Path(os.path.relpath(os.path.abspath(name), common)).as_posix() for name in names]
