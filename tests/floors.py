"""Reading a package's imports, without running them, and judging them by the floors of the house.

Relative imports, those inside functions and those under ``if TYPE_CHECKING:`` count.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

FLOORS = {
    "exceptions": 0,
    "hooks": 0,
    "mapped": 0,
    "memory": 0,
    "schema": 0,
    "options": 0,
    "progress": 0,
    "parallel": 0,
    "devices": 0,
    "representation": 0,
    "activations": 0,
    "array_functions": 0,
    "arrays": 0,
    "writing": 0,
    "architecture": 1,
    "manifolds": 1,
    "losses": 1,
    "targets": 1,
    "task": 1,
    "training": 1,
    "weights": 2,
    "running": 2,
    "flow": 2,
    "tracing": 3,
    "symmetry": 3,
    "geometry": 3,
    "layers": 3,
    "objectives": 3,
    "metanetworks": 3,
    "models": 4,
    "populations": 4,
    "evaluation": 5,
    "testing": 5,
    "estimators": 6,
    "persistence": 7,
    "plotting": 7,
    "cli": 8,
    # the public names, which the command line uses as any user would, and ``python -m wsflow``
    "": 8,
    "__main__": 9,
}
PLAIN_NAMES = {"__version__"}
Imports = dict[str, dict[str, int]]


def imports_of(root: Path) -> Imports:
    """Every import of every module of the package at `root`: module -> imported name -> line."""
    modules = {_name(path, root): path for path in sorted(root.rglob("*.py"))}
    found: Imports = {}
    for name, path in modules.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found[name] = {}
        for target, line in _targets(tree, package, modules):
            found[name].setdefault(target, line)
    return found


def _name(path: Path, root: Path) -> str:
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _targets(tree: ast.AST, package: str, modules: Mapping[str, Path]) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            for alias in node.names:
                # ``from package import x`` imports the submodule x where there is one
                target = f"{base}.{alias.name}"
                if target in modules or base not in modules:
                    yield target, node.lineno
                elif alias.name not in PLAIN_NAMES:
                    yield base, node.lineno


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    base = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def room(module: str, package: str = "wsflow") -> str:
    """The subject to which a module belongs: the first name below the package."""
    return module.removeprefix(package).lstrip(".").partition(".")[0]


def inside(imports: Imports) -> dict[str, list[str]]:
    """The imports of the package's own modules."""
    return {name: [target for target in targets if target in imports] for name, targets in imports.items()}


def upward(imports: Imports) -> list[str]:
    """Imports of a higher floor, in words."""
    return [
        f"{name} (floor {FLOORS[room(name)]}) imports {target} (floor {FLOORS[room(target)]})"
        for name, targets in inside(imports).items()
        for target in targets
        if FLOORS[room(target)] > FLOORS[room(name)]
    ]


def circle(graph: Mapping[str, list[str]]) -> list[str]:
    """Some circle of a graph, or an empty list."""
    done: set[str] = set()

    def search(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for target in graph.get(node, []):
            if found := search(target, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in graph if (found := search(node, []))), [])


def rooms(imports: Imports) -> dict[str, list[str]]:
    """The graph of rooms, without imports within one."""
    graph: dict[str, list[str]] = {}
    for name, targets in inside(imports).items():
        graph.setdefault(room(name), []).extend(room(target) for target in targets if room(target) != room(name))
    return graph


def importers(imports: Imports, library: str) -> set[str]:
    """The rooms that import a library, or a module of it, anywhere."""
    return {
        room(name)
        for name, targets in imports.items()
        if any(target == library or target.startswith(f"{library}.") for target in targets)
    }
