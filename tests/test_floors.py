"""Imports only go down the floors, run in no circle, and heavy libraries have one home each."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import floors
import pytest

import wsflow

ROOT = Path(wsflow.__file__).parent
IMPORTS = floors.imports_of(ROOT)

HOMES = {
    "sklearn.base": {"estimators"},
    "click": {"cli"},
    "rich": {"cli"},
    "geomstats": {"manifolds"},
    "ot": {"flow"},
    "matplotlib": {"plotting"},
    # its own files, and those of other tools
    "safetensors": {"persistence", "populations", "training"},
    "huggingface_hub": {"persistence"},
    "onnx": {"populations"},
    "torch_geometric": {"metanetworks"},
}
ESTIMATORS = re.compile(r"\b(WeightFlow|PermutationAligner|ScaleCanonicalizer|BaseEstimator|Pipeline)\b")
FORBIDDEN = {
    "flow": {"weights", "architecture", "symmetry", "running", "estimators", "metanetworks"},
    "training": {"weights", "architecture", "symmetry", "running", "flow", "metanetworks"},
    "symmetry": {"flow"},
    "tracing": {"flow"},
    "models": {"estimators"},
}


def test_every_room_has_a_floor():
    assert {floors.room(name) for name in IMPORTS} <= set(floors.FLOORS)


def test_the_imports_are_found():
    assert "wsflow.architecture.architecture" in IMPORTS["wsflow.architecture"]
    assert "wsflow.running.modules" in IMPORTS["wsflow.weights"], "an import inside a function"
    assert "wsflow.architecture.serialization" in IMPORTS["wsflow.architecture.architecture"], (
        "a submodule of a package"
    )
    assert "wsflow.weights" in IMPORTS["wsflow"], "an import for types"


def test_no_import_goes_up():
    assert not floors.upward(IMPORTS)


def test_modules_import_in_no_circle():
    assert not floors.circle(floors.inside(IMPORTS))


def test_rooms_import_in_no_circle():
    assert not floors.circle(floors.rooms(IMPORTS))


@pytest.mark.parametrize("library", HOMES)
def test_heavy_libraries_have_one_home(library):
    assert floors.importers(IMPORTS, library) <= HOMES[library]


def test_optimal_transport_is_at_home_in_couplings():
    users = {name for name, targets in IMPORTS.items() if any(t == "ot" or t.startswith("ot.") for t in targets)}
    assert users <= {"wsflow.flow.couplings"}


@pytest.mark.parametrize("room", FORBIDDEN)
def test_rooms_that_do_not_know_each_other(room):
    known = set(floors.rooms(IMPORTS).get(room, []))
    assert not known & FORBIDDEN[room]


def test_only_estimators_and_what_stands_on_them_take_an_estimator():
    """By the annotations of parameters; files and pictures of estimators, and commands, are above them."""
    takers = {}
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                said = " ".join(ast.unparse(a.annotation) for a in arguments if a.annotation)
                if ESTIMATORS.search(said):
                    takers[f"{path.relative_to(ROOT)}:{node.name}"] = said
    assert {name for name in takers if not name.startswith("estimators/")} == set()


def plant(folder: Path, **sources: str) -> floors.Imports:
    """A little package named wsflow with these modules; a double underscore is a folder."""
    root = folder / "wsflow"
    for name, source in {"__init__": "", **sources}.items():
        path = root / f"{name if name == '__init__' else name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        if path.parent != root:
            (path.parent / "__init__.py").touch()
    return floors.imports_of(root)


@pytest.mark.parametrize(
    "source",
    [
        "import wsflow.weights",
        "from wsflow.weights import WeightArray",
        "from wsflow import weights",
        "from . import weights",
        "from .weights import WeightArray",
        "def f():\n    from wsflow.weights import WeightArray",
        "class A:\n    def f(self):\n        if self:\n            import wsflow.weights",
        "from wsflow import WeightArray",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import wsflow.weights",
        "import typing\nif typing.TYPE_CHECKING:\n    from wsflow.weights import WeightArray",
    ],
)
def test_a_planted_upward_import_is_caught(tmp_path, source):
    assert floors.upward(plant(tmp_path, task=source, weights="WeightArray = 1"))


def test_an_upward_import_from_a_deeper_folder_is_caught(tmp_path):
    planted = plant(tmp_path, architecture__architecture="from ..weights import WeightArray", weights="")
    assert floors.upward(planted) == ["wsflow.architecture.architecture (floor 1) imports wsflow.weights (floor 2)"]


@pytest.mark.parametrize(
    "source",
    [
        "from wsflow import __version__",
        "from wsflow.exceptions import WsflowError",
        '"""from wsflow import weights"""',
    ],
)
def test_what_is_allowed_is_not_caught(tmp_path, source):
    planted = plant(tmp_path, task=source, weights="", exceptions="")
    assert not floors.upward(planted)


def test_a_planted_circle_is_caught(tmp_path):
    planted = plant(tmp_path, running="from wsflow import weights", weights="def f():\n    from . import running")
    assert floors.circle(floors.inside(planted)) == ["wsflow.running", "wsflow.weights", "wsflow.running"]


def test_a_planted_circle_of_rooms_is_caught(tmp_path):
    planted = plant(
        tmp_path,
        flow__paths="import wsflow.metanetworks.flat",
        flow__solvers="",
        metanetworks__flat="",
        metanetworks__pna="from wsflow.flow import solvers",
    )
    assert not floors.circle(floors.inside(planted))
    assert floors.circle(floors.rooms(planted))


def test_a_planted_library_is_found(tmp_path):
    planted = plant(tmp_path, task="def f():\n    from sklearn import base\n    import matplotlib.pyplot as plt")
    assert floors.importers(planted, "sklearn.base") == {"task"}
    assert floors.importers(planted, "matplotlib") == {"task"}


def test_only_the_upper_floors_import_by_a_computed_name():
    """An import of a text would hide from the test of floors."""
    by_name = {"importlib", "importlib.import_module", "builtins"}
    users = {floors.room(name) for name, targets in IMPORTS.items() if by_name & set(targets)}
    assert users <= {"", "cli", "persistence"}
