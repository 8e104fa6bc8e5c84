"""A file that was read: its tensors by name, and what its format says of the network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wsflow.architecture import Architecture
from wsflow.architecture.state_names import misfits
from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.choice import restricted
from wsflow.populations.importers.damaged import ARRAY, SAVE
from wsflow.populations.importers.layouts import torch_layout
from wsflow.populations.importers.leaves import Checkpoint, Leaf, is_tensor, leaves_of
from wsflow.populations.importers.nnet import fold_normalization

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
