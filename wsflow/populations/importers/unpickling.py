"""Reading pickles inertly: what a pickle says is recorded, and nothing that it names is imported or called.

A pickle is a program for a stack machine. This machine has the instructions that build numbers, strings, dictionaries
and lists. Where a pickle names a class or a function there is a `Global`, and where it calls one there is an `Opaque`
that holds the arguments, but for the calls in a table that the caller gives, whose functions are the caller's own.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

MAXIMUM_INSTRUCTIONS = 5_000_000
# what runs commands or takes memory when it is called; nothing is called here, but no checkpoint has use for these
_HARMFUL = """
    os posix nt subprocess commands pty sys shutil socket importlib imp runpy webbrowser ctypes marshal code codeop
    pickle _pickle multiprocessing urllib.request http.client timeit pdb bdb cProfile profile
    """
HARMFUL_MODULES = frozenset(_HARMFUL.split())
HARMFUL_NAMES = frozenset(
    f"{module}.{name}"
    for modules, names in (
        ("builtins __builtin__", "eval exec compile execfile open __import__ input breakpoint setattr delattr globals"),
        ("io _io", "open open_code FileIO"),
        ("torch", "load"),
        ("numpy", "load fromfile memmap"),
    )
    for module in modules.split()
    for name in names.split()
)

Function = Callable[..., Any]


@dataclass(frozen=True)
class Global:
    """A class or function that a pickle names, such as ``pathlib.PosixPath``."""

    module: str
    name: str

    def __str__(self) -> str:
        return self.name if self.module in ("builtins", "__builtin__") else f"{self.module}.{self.name}"


@dataclass(eq=False)
class Opaque:
    """An object that was not made: what would have been called with what, and the state and items it would have."""

    called: Any
    arguments: Any = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)

    def __str__(self) -> str:
        return str(self.called) if isinstance(self.called, Global) else "of a call"


class HarmfulError(ValueError):
    """A pickle that would call what runs commands or takes memory."""


def unpickle(file: IO[bytes], functions: Mapping[str, Function], persistent: Function | None = None) -> Any:
    """Return what a pickle describes, reading the file to its end; whatever is wrong with it is a ValueError.

    The `functions` are called with the arguments where a pickle calls what has the name; `persistent` is called with
    persistent ids. An object with a method ``build`` gets the state that a pickle gives it.
    """
    machine = _Machine(functions, persistent)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count > MAXIMUM_INSTRUCTIONS:
            raise ValueError(f"its pickle has more than {MAXIMUM_INSTRUCTIONS} instructions")
        if opcode.name not in INSTRUCTIONS:
            raise ValueError(f"its pickle has the instruction {opcode.name}, which is not read")
        try:
            INSTRUCTIONS[opcode.name](machine, argument)
        except (IndexError, KeyError, TypeError) as error:
            raise ValueError(f"its pickle goes wrong at the instruction {opcode.name}") from error
    return machine.result


class _Machine:
    """The stack, the marks on it, and the memo."""

    def __init__(self, functions: Mapping[str, Function], persistent: Function | None) -> None:
        self.functions, self.persistent = functions, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.result: Any = None

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise IndexError
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def pop_tuple(self, size: int) -> tuple[Any, ...]:
        return tuple(reversed([self.pop() for _ in range(size)]))

    def put(self, index: Any) -> None:
        self.memo[int(index)] = self.stack[-1]

    def get(self, index: Any) -> None:
        self.push(self.memo[int(index)])

    def stop(self, _: Any) -> None:
        self.result = self.pop()

    def persist(self, identity: Any) -> None:
        if self.persistent is None:
            raise ValueError("its pickle has persistent ids, which only files of torch have")
        self.push(self.persistent(identity))

    def call(self, called: Any, arguments: Any, keywords: Any = None) -> None:
        """Call one of the functions, or record what would have been called."""
        name = f"{called.module}.{called.name}" if isinstance(called, Global) else ""
        if name in self.functions and isinstance(arguments, tuple) and not keywords:
            self.push(self.functions[name](*arguments))
            return
        if isinstance(called, Global) and is_harmful(called, arguments):
            raise HarmfulError(str(called))
        self.push(Opaque(called, arguments))

    def build(self, _: Any) -> None:
        state = self.pop()
        target = self.stack[-1]
        if hasattr(target, "build"):
            target.build(state)
        elif isinstance(target, Opaque):
            target.state = state

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Opaque):
            target.elements.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise TypeError

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        target = target.items if isinstance(target, Opaque) else target
        if not isinstance(target, dict):
            raise TypeError
        target.update(_dictionary(values))

    def add(self, _: Any) -> None:
        values = self.pop_mark()
        target = self.stack[-1]
        if isinstance(target, Opaque):
            target.elements.extend(values)
        elif isinstance(target, set):
            target.update(map(_key, values))
        else:
            raise TypeError

    def new(self, with_keywords: bool) -> None:
        keywords = self.pop() if with_keywords else None
        arguments, called = self.pop(), self.pop()
        self.call(called, arguments, keywords)

    def inst(self, text: str) -> None:
        module, _, name = text.partition(" ")
        self.call(Global(module, name), tuple(self.pop_mark()))

    def obj(self, _: Any) -> None:
        called, *arguments = self.pop_mark()
        self.call(called, tuple(arguments))

    def name(self, text: str) -> None:
        module, _, name = text.partition(" ")
        self.push(Global(module, name))

    def stack_name(self, _: Any) -> None:
        module, name = self.pop_tuple(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError
        self.push(Global(module, name))


def is_harmful(called: Global, arguments: Any) -> bool:
    """Return whether calling this would run commands, or take memory of any size."""
    name = f"{called.module}.{called.name}"
    if name in ("builtins.bytearray", "__builtin__.bytearray", "builtins.bytes"):
        return isinstance(arguments, tuple) and any(isinstance(value, int) for value in arguments)
    return called.module in HARMFUL_MODULES or name in HARMFUL_NAMES


def _key(value: Any) -> Any:
    """Return a key that has a hash: what is no number or string, nor a tuple of these, has none but its identity."""
    plain = (str, int, float, bytes, type(None), Global, Opaque)
    if isinstance(value, plain) or (isinstance(value, tuple) and all(isinstance(v, plain) for v in value)):
        return value
    return Opaque(Global("builtins", type(value).__name__), (value,))


def _dictionary(values: list[Any]) -> dict[Any, Any]:
    if len(values) % 2:
        raise TypeError
    return {_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)}


_VALUES = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
)

INSTRUCTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    **dict.fromkeys(_VALUES.split(), _Machine.push),
    # they only describe the file
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, _: None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.push(machine.pop_tuple(1)),
    "TUPLE2": lambda machine, _: machine.push(machine.pop_tuple(2)),
    "TUPLE3": lambda machine, _: machine.push(machine.pop_tuple(3)),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": lambda machine, _: machine.pop() if machine.marks[-1:] != [len(machine.stack)] else machine.marks.pop(),
    "POP_MARK": lambda machine, _: machine.pop_mark(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "DICT": lambda machine, _: machine.push(_dictionary(machine.pop_mark())),
    "FROZENSET": lambda machine, _: machine.push(frozenset(map(_key, machine.pop_mark()))),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.set_items(list(machine.pop_tuple(2))),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    "ADDITEMS": _Machine.add,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stack_name,
    "REDUCE": lambda machine, _: machine.new(False),
    "NEWOBJ": lambda machine, _: machine.new(False),
    "NEWOBJ_EX": lambda machine, _: machine.new(True),
    "INST": _Machine.inst,
    "OBJ": _Machine.obj,
    "BUILD": _Machine.build,
    "PERSID": _Machine.persist,
    "BINPERSID": lambda machine, _: machine.persist(machine.pop()),
    "STOP": _Machine.stop,
}
