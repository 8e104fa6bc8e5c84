"""What people hold numbers in beside arrays and lists: tensors and masked arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from wsflow.exceptions import InvalidInputError


def dense(values: Any, what: str) -> Any:
    """Return tensors, lists of them and masked arrays as arrays, with None where a value is masked; all else as it is.

    An InvalidInputError about `what` says that a tensor has no numbers, such as one on the meta device.
    """
    if hasattr(values, "to_dense"):
        return _of_tensor(values, what)
    if isinstance(values, (list, tuple)) and values and all(hasattr(value, "to_dense") for value in values):
        return [_of_tensor(value, what) for value in values]
    return np.where(values.mask, np.array(None), values.data) if np.ma.is_masked(values) else values


def _of_tensor(tensor: Any, what: str) -> Any:
    try:
        whole = tensor.detach().to_dense().cpu()
        return whole.float().numpy() if str(whole.dtype) == "torch.bfloat16" else whole.numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise InvalidInputError(f"{what} is a tensor without numbers: {error} Pass an array.") from error
