"""Tensors that lie in a file and are read when they are needed, and what is understood of pickles that hold them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.unpickling import Global, Opaque

MAXIMUM_AXES = 64
MAXIMUM_ELEMENTS = 2**40
NUMBERS = re.compile(r"[<>|=]?([fiu](1|2|4|8)|b1)$")
BFLOAT16 = "bfloat16"
# the classes of storages, without "torch." before and "Storage" behind, and their dtypes
STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": BFLOAT16,
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "Untyped": "uint8",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
    "QInt8": "qint8",
    "QUInt8": "quint8",
    "QInt32": "qint32",
}
UNREAD = ("qint8", "quint8", "qint32")


@dataclass
class Storage:
    """Numbers that lie one after the other, of which the tensors of torch are views."""

    dtype: str
    n_bytes: int
    read: Callable[[], bytes]

    @cached_property
    def content(self) -> bytearray:
        """The bytes, which several tensors may share."""
        content = bytearray(self.read())
        if len(content) < self.n_bytes:
            raise ValueError(f"it ends within a tensor: {len(content)} bytes of {self.n_bytes} are there")
        return content


@dataclass
class StoredTensor:
    """A view of a storage, whose sizes and strides stay within it."""

    storage: Storage
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    def check_dense(self, key: str) -> None:
        """Refuse a tensor that repeats the numbers of its storage, which can have any size."""
        if math.prod(self.shape) * item_bytes(self.dtype) > self.storage.n_bytes:
            raise InvalidInputError(
                f"{key!r} of shape {self.shape} repeats a tensor of {self.storage.n_bytes} bytes: save what it is, "
                "with .contiguous()."
            )

    def load(self) -> Any:
        """Return the tensor."""
        import torch

        if self.dtype in UNREAD:
            raise ValueError(f"it has quantized tensors ({self.dtype}), and weights are read as floating-point numbers")
        dtype = getattr(torch, self.dtype)
        if not math.prod(self.shape):
            return torch.zeros(self.shape, dtype=dtype)
        content = self.storage.content
        flat = torch.frombuffer(content, dtype=dtype, count=len(content) // dtype.itemsize)
        return flat.as_strided(self.shape, self.strides, self.offset)

    def build(self, state: Any) -> None:
        """Take no notice of attributes that a pickle gives to a tensor."""


@dataclass
class StoredArray:
    """An array of NumPy that a pickle describes: its bytes come after it was made."""

    dtype: str = "object"
    shape: tuple[int, ...] = ()
    fortran: bool = False
    content: bytes | bytearray = b""

    def build(self, state: Any) -> StoredArray:
        """Take the state of an array: version, shape, dtype, order and bytes."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("an array of NumPy in its pickle is damaged")
        return self.set(state[1], state[2], bool(state[3]), state[4])

    def set(self, shape: Any, dtype: Any, fortran: bool, content: Any) -> StoredArray:
        """Take shape, dtype, order and bytes; an array of objects has the dtype ``object`` and no numbers."""
        self.dtype = dtype.name if isinstance(dtype, StoredDtype) else "object"
        self.shape, self.fortran = _sizes(shape), fortran
        if self.dtype == "object":
            return self
        if not isinstance(content, (bytes, bytearray)):
            raise ValueError("an array of NumPy in its pickle has no bytes")
        size = 2 if self.dtype == BFLOAT16 else np.dtype(self.dtype).itemsize
        if len(content) != math.prod(self.shape) * size:
            raise ValueError(f"an array of shape {self.shape} in its pickle has {len(content)} bytes")
        self.content = content
        return self

    def load(self) -> Any:
        """Return the array, or a tensor in a precision that NumPy does not have."""
        order: Any = "F" if self.fortran else "C"
        if self.dtype == BFLOAT16:
            return bfloat16_tensor(np.frombuffer(self.content, np.uint16).reshape(self.shape, order=order))
        return np.frombuffer(self.content, self.dtype).reshape(self.shape, order=order).copy()


@dataclass
class StoredDtype:
    """A dtype of NumPy in a pickle."""

    name: str

    def build(self, state: Any) -> None:
        """Take the byte order, and refuse dtypes with fields."""
        if isinstance(state, tuple) and len(state) > 3 and state[1] in ("<", ">") and self.name[-2:] != "b1":
            self.name = state[1] + self.name.lstrip("<>|=")
        if isinstance(state, tuple) and len(state) > 4 and state[4] is not None:
            self.name = "object"


def bfloat16_tensor(bits: np.ndarray) -> Any:
    """Return a tensor of bfloat16 with these bits, given as uint16."""
    import torch

    return torch.from_numpy(bits.astype(np.int16, order="C")).view(torch.bfloat16)


def _sizes(values: Any) -> tuple[int, ...]:
    values = tuple(values) if isinstance(values, (tuple, list)) else ()
    sizes = all(isinstance(value, int) and 0 <= value < 2**62 for value in values)
    if not sizes or len(values) > MAXIMUM_AXES or math.prod(values) > MAXIMUM_ELEMENTS:
        raise ValueError("it has a tensor whose shape or strides are no sizes, or too large")
    return values


def storage_dtype(kind: Any) -> str:
    """Return the dtype of a class of storages that a pickle names."""
    name = kind.name if isinstance(kind, Global) and kind.module.partition(".")[0] == "torch" else ""
    dtype = STORAGES.get(name.removesuffix("Storage"))
    if dtype is None or not name.endswith("Storage"):
        raise ValueError(f"it has a storage of an unknown kind ({name or 'no class of torch'})")
    return dtype


def item_bytes(dtype: str) -> int:
    """Return the bytes of a number of a dtype of torch."""
    import torch

    return int(getattr(torch, dtype).itemsize)


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any = False, hooks: Any = None, *more: Any
) -> StoredTensor:
    if not isinstance(storage, Storage):
        raise ValueError("it has a tensor without a storage")
    if any(isinstance(flags, dict) and flags for flags in more):
        raise ValueError("it has a tensor that is to be negated or conjugated when it is read")
    return _view(storage, storage.dtype, offset, size, stride)


def _tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *more: Any
) -> StoredTensor:
    import torch

    name = dtype.name if isinstance(dtype, Global) and dtype.module == "torch" else ""
    if not isinstance(storage, Storage) or not isinstance(getattr(torch, name or "nn"), torch.dtype):
        raise ValueError("it has a tensor without a storage or dtype")
    return _view(storage, name, offset, size, stride)


def _view(storage: Storage, dtype: str, offset: Any, size: Any, stride: Any) -> StoredTensor:
    shape, strides = _sizes(size), _sizes(stride)
    (start,) = _sizes((offset,))
    if len(shape) != len(strides):
        raise ValueError("it has a tensor whose shape and strides do not go together")
    last = start + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) if math.prod(shape) else -1
    needed = (last + 1) * item_bytes(dtype)
    if needed > storage.n_bytes:
        raise ValueError(
            f"it has a tensor of shape {shape} that needs {needed} bytes of a storage of {storage.n_bytes}"
        )
    return StoredTensor(storage, dtype, shape, strides, start)


def _first(value: Any = (), *more: Any) -> Any:
    return value


def _from_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """Return a tensor of a subclass, such as those of torchvision, as a plain one."""
    name = f"{function.module}.{function.name}" if isinstance(function, Global) else ""
    if name in FUNCTIONS and name != "torch._tensor._rebuild_from_type_v2" and isinstance(arguments, tuple):
        return FUNCTIONS[name](*arguments)
    return Opaque(kind, arguments, state)


def _dictionary(*arguments: Any) -> dict[Any, Any]:
    """Return an OrderedDict, which Python 2 gave its items as a list of pairs."""
    pairs = arguments[-1] if arguments and isinstance(arguments[-1], list) else []
    return {pair[0]: pair[1] for pair in pairs if isinstance(pair, (list, tuple)) and isinstance(pair[0], str)}


def _dtype(kind: Any, *more: Any) -> StoredDtype:
    if isinstance(kind, Global) and kind.name == BFLOAT16:
        return StoredDtype(BFLOAT16)
    return StoredDtype(kind if isinstance(kind, str) and NUMBERS.match(kind) else "object")


def _scalar(dtype: Any, content: Any = b"") -> Any:
    array = StoredArray().set((), dtype, False, content)
    return array.load().item() if array.dtype != "object" else Opaque(Global("numpy", "generic"), (content,))


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """Return bytes, which pickles of protocol 2 keep as text."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise ValueError("its pickle has bytes in an unknown encoding")
    return text.encode(encoding)


def _bytes(content: Any = b"", *more: Any) -> Any:
    if isinstance(content, str) and more == ("latin-1",):
        return content.encode("latin-1")
    return content if isinstance(content, bytes) else b""


def _set(values: Any = ()) -> set[Any]:
    return {value for value in values if isinstance(value, (str, int))} if isinstance(values, list) else set()


# what a pickle may call, and what is done for it
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_numpy": _first,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.Size": _first,
    "collections.OrderedDict": _dictionary,
    "collections.defaultdict": _dictionary,
    "builtins.dict": _dictionary,
    "builtins.set": _set,
    "__builtin__.set": _set,
    "numpy.dtype": _dtype,
    "numpy.ndarray": lambda *arguments: StoredArray(),
    **{
        f"numpy.{core}.{name}": function
        for core in ("core", "_core")
        for name, function in (
            ("multiarray._reconstruct", lambda *arguments: StoredArray()),
            ("multiarray.scalar", _scalar),
            (
                "numeric._frombuffer",
                lambda content, dtype, shape, order="C", *more: StoredArray().set(shape, dtype, order == "F", content),
            ),
        )
    },
    "jax._src.array._reconstruct_array": lambda function, arguments, state, *more: StoredArray().build(state),
    "_codecs.encode": _encoded,
    "builtins.bytes": _bytes,
    "__builtin__.bytes": _bytes,
}
