"""Data of files that are not what they should be are refused by file, field and what was expected; names by name."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from mutations import sealed, unsealed
from saved import ARCHITECTURE, make_population

import wsflow
from wsflow import Architecture, PermutationAligner
from wsflow.architecture import Block, Fixed, NeuronGroup, Parameter, Wire
from wsflow.architecture.parameters import Shear, fixed_parameter
from wsflow.architecture.program import Input, Operation, Program, Value
from wsflow.exceptions import InvalidInputError

POPULATION = [
    (("aligned",), 1, "'aligned' should be true or false, and is 1"),
    (("networks",), 0, "'networks' should be a whole number of at least 1, and is 0"),
    (("runs",), "2", "'runs' should be a whole number"),
    (("provenance",), [], "'provenance' should be an object"),
    (("versions",), {"wsflow": 1}, "'versions.wsflow' should be a string, and is 1"),
    (("task",), {"loss": "mse"}, "'task.source' is missing"),
    (("further",), 0, "'further' is unknown to this wsflow"),
    (("architecture", "parameters"), [], "'architecture.parameters' should be a list of at least 1"),
    (("architecture", "parameters", 0, "shape"), [2**70], "'architecture.parameters.0.shape.0' should be a whole"),
    (("architecture", "parameters", 1, "role"), "bias", "'architecture.parameters.1.role' should be one of weight"),
    (("architecture", "wires", 0, "scalings"), ["x"], "'architecture.wires.0.scalings.0' should be one of positive"),
    (("architecture", "groups", 0, "size"), True, "'architecture.groups.0.size' should be a whole number"),
    (("architecture", "layers", 0, "bias"), None, "'architecture.layers.0.bias' should be true or false"),
]
MODEL = [
    (("steps",), [], "'steps' should be a list of at least 1"),
    (("pipeline",), "no", "'pipeline' should be true or false"),
    (("steps", 0, "class"), None, "'steps.0.class' should be a string"),
    (("steps", 0, "params", "by"), {"$float": "1"}, r"'steps.0.params.by.\$float' should be one of nan"),
    (
        ("steps", 0, "params", "method"),
        {"$object": {"class": "X"}},
        r"'steps.0.params.method.\$object.params' is missing",
    ),
    (("steps", 0, "params", "by"), "epoch", "'by' parameter of PermutationAligner"),
    (("steps", 0, "data", "seed"), -1, "'permutationaligner.data.seed' should be a whole number"),
    (("steps", 0, "data", "held"), [[1, 2]], "'permutationaligner.data.held.0.0' should be a string"),
    (("steps", 0, "data", "n_features"), 26, "of 26 columns has an architecture of 27 weights"),
    (("steps", 0, "arrays"), ["reference"], "'permutationaligner.arrays.distances' is missing"),
]


def changed(content: bytes, place: tuple[object, ...], value: object) -> bytes:
    tensors, data = unsealed(content)
    parent = data
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    return sealed(tensors, data)


@pytest.mark.parametrize(("place", "value", "message"), POPULATION)
@pytest.mark.parametrize("load", [wsflow.load_population, wsflow.persistence.describe])
def test_fields_of_a_population(tmp_path, place, value, message, load):
    path = tmp_path / "zoo.st"
    wsflow.save_population(make_population(), path)
    path.write_bytes(changed(path.read_bytes(), place, value))
    with pytest.raises(InvalidInputError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(("place", "value", "message"), MODEL)
def test_fields_of_a_model(tmp_path, place, value, message):
    path = tmp_path / "model.st"
    wsflow.save_model(PermutationAligner(random_state=0).fit(make_population().weights), path)
    path.write_bytes(changed(path.read_bytes(), place, value))
    with pytest.raises(InvalidInputError, match=message) as caught:
        wsflow.load_model(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["layers"][0].update(inputs=7), r"layers need a parameter '0.weight' of shape \(3, 7\)"),
        (lambda data: data.update(outputs=["9.bias"]), "outputs uses '9.bias'"),
        (lambda data: data["parameters"][0]["blocks"][0].update(axes=[{"group": "x"}]), "group 'x' is not declared"),
        (lambda data: data["parameters"][0]["blocks"][0].update(wires=[["hidden1", 5, 1]]), "'hidden1' on axis 5"),
        (lambda data: data["parameters"][1]["blocks"][0].update(index=[[0, 0, 1]]), "overlap"),
        (lambda data: data["parameters"][1]["blocks"][0].update(index=[[0, 1, 9]]), "'0.bias': The block's index 9"),
        (lambda data: data.update(version=2), "version 2.*Install a newer wsflow"),
        (lambda data: data.pop("wires"), "'wires' is missing"),
        (lambda data: data.update(program={}), "'program.inputs' is missing"),
        (lambda data: data["layers"][1].update(argument=0.5), "'1', relu, takes no argument"),
    ],
)
def test_descriptions_that_describe_no_architecture(change, message):
    data = json.loads(ARCHITECTURE.to_json())
    change(data)
    with pytest.raises(InvalidInputError, match=f"^This is no description of an architecture: .*{message}"):
        Architecture.from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"version": "1"}', "[" * 10**5])
def test_other_texts_are_no_architecture(text):
    with pytest.raises(InvalidInputError, match="no description of an architecture"):
        Architecture.from_json(text)


NAMES = ["", "a\nb", "a\x00", "\x1b[31m", "a\u2028b", "\ud800", "a\x7f"]


def of_parameter(name: str) -> Architecture:
    return Architecture((fixed_parameter(name, (2,)),))


def of_alias(name: str) -> Architecture:
    return Architecture((Parameter("a", (2,), (), aliases=(name,)),))


def of_group(name: str) -> Architecture:
    return Architecture((Parameter("a", (2,), (Block((NeuronGroup(name, 2),)),)),))


def of_wire(name: str) -> Architecture:
    return Architecture((fixed_parameter("a", (2,)),), (Wire(name, Fixed(2)),))


def of_constant(name: str) -> Architecture:
    return Architecture((fixed_parameter("a", (2,)),), constants=(name,))


def of_value(name: str) -> Program:
    return Program((Input(name, "weights", (2,)),), (), Value(name))


@pytest.mark.parametrize("make", [of_parameter, of_alias, of_group, of_wire, of_constant, of_value])
@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_empty_or_cannot_be_printed_are_refused(make, name):
    with pytest.raises(ValueError, match=f"got {re.escape(repr(name))}"):
        make(name)
    assert make("größe 1.weight")


def test_names_that_are_repeated_are_refused():
    one = fixed_parameter("a", (2,))
    relu = Operation("x", "relu.default", (Value("x"),))
    for make in (
        lambda: Architecture((one, one)),
        lambda: Architecture((Parameter("a", (2,), (), aliases=("a",)),)),
        lambda: Architecture((one,), (Wire("a", Fixed(2)), Wire("a", Fixed(3)))),
        lambda: Architecture((one,), constants=("a", "a")),
        lambda: Program((Input("x", "weights", (2,)),), (relu,), Value("x")),
    ):
        with pytest.raises(ValueError, match=r"'[ax]' of a .* is repeated"):
            make()


def test_shears_name_wires_and_biases_that_are_there():
    hidden = NeuronGroup("h", 2)
    block = Block((hidden,), shears=(Shear("h", 0, "bias"),))
    with pytest.raises(ValueError, match="'bias', which is no parameter"):
        Architecture((Parameter("a", (2,), (block,)),), (Wire("h", hidden),))
    with pytest.raises(ValueError, match="names the wire 'h' on axis 0"):
        Architecture((Parameter("a", (2,), (block,)), fixed_parameter("bias", (2,))))


def test_what_is_whole_is_loaded(tmp_path):
    wsflow.save_population(make_population(), tmp_path / "zoo.st")
    tensors, data = unsealed((tmp_path / "zoo.st").read_bytes())
    (tmp_path / "zoo.st").write_bytes(sealed(tensors, data))
    loaded = wsflow.load_population(tmp_path / "zoo.st")
    np.testing.assert_array_equal(loaded.weights, make_population().weights)
