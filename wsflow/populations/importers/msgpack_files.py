"""Files of flax: nested dictionaries of arrays in msgpack.

References
----------
flax/serialization.py (the types of extensions).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.leaves import Checkpoint
from wsflow.populations.importers.stored import BFLOAT16, NUMBERS, StoredArray, StoredDtype

ARRAY, COMPLEX, SCALAR = 1, 2, 3


def read_msgpack(path: Path) -> Checkpoint:
    """Read what ``flax.serialization.to_bytes`` or ``msgpack_serialize`` made, whose dictionaries have no order."""
    try:
        import msgpack
    except ImportError as error:
        raise InvalidInputError(f"{path}: files of flax need the msgpack package: pip install wsflow[flax].") from error
    tree = msgpack.unpackb(path.read_bytes(), ext_hook=_extension, raw=False, strict_map_key=False)
    return Checkpoint(tree, what="file of flax", ordered=False)


def _extension(code: int, data: bytes) -> Any:
    if code not in (ARRAY, SCALAR):
        return None
    import msgpack

    content = msgpack.unpackb(data, raw=True)
    if not isinstance(content, (list, tuple)) or len(content) != 3 or not isinstance(content[1], (bytes, str)):
        raise ValueError("an array in it is damaged")
    shape, name, numbers = content
    array = StoredArray()
    array.set(tuple(shape), _dtype(name), False, numbers)
    return array


def _dtype(name: bytes | str) -> StoredDtype:
    import numpy as np

    text = name.decode("ascii") if isinstance(name, bytes) else name
    if text == BFLOAT16:
        return StoredDtype(BFLOAT16)
    code = np.dtype(text).str
    return StoredDtype(code if NUMBERS.match(code) else "object")
