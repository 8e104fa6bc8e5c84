"""Devices: what names them, and tables that are moved to one once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# of each table, its copies by device
_copies: Any = None


def resolved_device(device: Any, owner: str) -> torch.device:
    """Return the device of a parameter, "auto" or a name of torch's such as "cuda:1"; "auto" is the CPU.

    Raises
    ------
    ValueError
        If nothing can be computed there; it says what the `owner` of the parameter can be given.
    """
    import torch

    try:
        found = torch.device("cpu" if device == "auto" else device)
        torch.zeros(1, device=found).add(1).tolist()
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        there = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        raise ValueError(
            f"The 'device' of {owner} is {device!r}, where nothing can be computed on this machine, or with "
            f"this build of torch. What is here: {there}."
        ) from error
    return found


def placed(table: Tensor, device: torch.device) -> Tensor:
    """Return a tensor that never changes, such as an index, on a device, to which it is copied once."""
    if table.device == device:
        return table
    global _copies
    if _copies is None:
        from torch.utils.weak import WeakTensorKeyDictionary

        _copies = WeakTensorKeyDictionary()
    own = _copies.setdefault(table, {})
    if device not in own:
        own[device] = table.to(device)
    return own[device]
