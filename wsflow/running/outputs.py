"""Which part of what a module returns counts as its output: logits, where there are any, and no caches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor, nn

from wsflow.exceptions import InvalidInputError


@dataclass(frozen=True)
class ChosenOutput:
    """A forward hook that returns one part of a module's output, or by default what counts of it.

    `path` is a field, a key or a position, or several of them joined by dots; an empty one is all of the output.
    """

    path: str | int | None = None

    def __call__(self, module: nn.Module, inputs: Any, result: Any) -> Any:
        """Return the chosen part of a result."""
        if self.path is None:
            return output_of(result)
        for key in str(self.path).split(".") if self.path != "" else ():
            known = _parts(result)
            if key not in known and not (key.removeprefix("-").isdigit() and isinstance(result, list | tuple)):
                raise InvalidInputError(
                    f"The 'output' of Architecture.from_module is {self.path!r}, but this {type(module).__name__} "
                    f"returns {_described(result)}. Choose one of them."
                )
            result = known[key] if key in known else result[int(key)]
        return result


def output_of(result: Any) -> Any:
    """Return what counts of a module's result: its logits, its only tensor of reals, or all that it has.

    What lies deeper than another tensor of reals, as caches and hidden states do, does not count.

    Examples
    --------
    >>> import torch
    >>> from wsflow.running.outputs import output_of
    >>> output_of({"loss": None, "logits": torch.ones(2), "past": (torch.zeros(3), torch.zeros(3))})
    tensor([1., 1.])
    """
    if isinstance(result, Tensor):
        return result
    parts = _parts(result)
    if _is_real(parts.get("logits")):
        return parts["logits"]
    own = {name: part for name, part in parts.items() if _is_real(part)}
    if len(own) == 1:
        return next(iter(own.values()))
    if type(result) in (list, tuple, dict) and len(own) in (0, len(parts)):
        return result
    if own:
        return own
    raise InvalidInputError(
        f"The module returns {_described(result)}: no tensor of real numbers. Return one, or choose with output='...' "
        "where it lies."
    )


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _parts(result: Any) -> dict[str, Any]:
    """Return the fields, items or attributes of an object by name; those of a sequence by position."""
    if isinstance(result, Mapping):
        return {str(key): value for key, value in result.items()}
    if hasattr(result, "_fields"):
        return {name: getattr(result, name) for name in result._fields}
    if isinstance(result, list | tuple):
        return {str(i): value for i, value in enumerate(result)}
    if is_dataclass(result):
        return {field.name: getattr(result, field.name) for field in fields(result)}
    return dict(getattr(result, "__dict__", {}))


def _described(result: Any) -> str:
    parts = _parts(result)
    kinds = {name: "Tensor" if isinstance(part, Tensor) else type(part).__name__ for name, part in parts.items()}
    what = ", ".join(f"{name!r} ({kind})" for name, kind in list(kinds.items())[:8] if kind != "NoneType")
    return f"a {type(result).__name__}" + (f" of {what}" if what else ", which has no parts")
