"""-p NAME=VALUE: parameters by dotted names, and errors that say what was meant."""

from __future__ import annotations

import click
import pytest
from sklearn.base import BaseEstimator

from wsflow.cli.parameters import check_known, parse, set_parameter


class Network(BaseEstimator):
    def __init__(self, width=16, depth=2, norm=None):
        self.width = width
        self.depth = depth
        self.norm = norm


class Norm(BaseEstimator):
    def __init__(self, epsilon=1e-5):
        self.epsilon = epsilon


class Flow(BaseEstimator):
    def __init__(self, velocity="neuron", max_iter=600, task=None):
        self.velocity = velocity
        self.max_iter = max_iter
        self.task = task


def resolve(path, text):
    return {(("velocity",), "neuron"): Network(), (("velocity", "norm"), "layer"): Norm()}.get((path, text), text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_iter=20", (("max_iter",), 20)),
        ("velocity.width=128", (("velocity", "width"), 128)),
        ("a.b.c=1e-3", (("a", "b", "c"), 1e-3)),
        ("a=x=y", (("a",), "x=y")),
        ("a=None", (("a",), None)),
        ("a=True", (("a",), True)),
        ("a=", (("a",), "")),
    ],
)
def test_pairs_are_paths_and_values(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize("text", ["width", "=3", "velocity.=3", ".width=3", "a..b=3", "a b=3"])
def test_other_texts_are_refused(text):
    with pytest.raises(click.BadParameter, match="not of the form NAME=VALUE"):
        parse(text)


def test_a_string_becomes_the_object_that_it_stands_for():
    flow = Flow()
    set_parameter(flow, ("velocity", "width"), 128, resolve)
    set_parameter(flow, ("velocity", "depth"), 3, resolve)
    assert type(flow.velocity) is Network and (flow.velocity.width, flow.velocity.depth) == (128, 3)
    set_parameter(flow, ("velocity", "norm"), "layer", resolve)
    set_parameter(flow, ("velocity", "norm", "epsilon"), 0.1, resolve)
    assert flow.velocity.norm.epsilon == 0.1 and flow.get_params()["velocity__norm__epsilon"] == 0.1
    set_parameter(flow, ("velocity",), "relational", resolve)
    assert flow.velocity == "relational"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("velocty",), "Flow has no parameter 'velocty' to set. Did you mean 'velocity'?"),
        (("velocity", "witdh"), "Network has no parameter 'witdh' to set. Did you mean 'width'?"),
        (("velocity", "colour"), "Network has no parameter 'colour' to set. Choose from depth, norm, width."),
        (
            ("max_iter", "width"),
            "The parameter 'max_iter' is 600, which has no parameters of its own, such as 'width'.",
        ),
        (("velocity", "depth", "x"), "The parameter 'velocity.depth' is 2, which has no parameters of its own"),
        (("task",), "Flow has no parameter 'task' to set. Choose from max_iter, velocity."),
    ],
)
def test_errors_name_what_was_meant(path, message):
    with pytest.raises(click.UsageError) as caught:
        set_parameter(Flow(), path, 1, resolve)
    assert caught.value.message.startswith(message)


def test_a_string_that_stands_for_nothing_has_no_parameters():
    with pytest.raises(
        click.UsageError, match=r"The parameter 'velocity' is 'other'.* Set it as a whole: -p velocity="
    ):
        set_parameter(Flow("other"), ("velocity", "width"), 1, resolve)
    with pytest.raises(click.UsageError, match="'neuron', which has no parameters of its own"):
        set_parameter(Flow(), ("velocity", "width"), 1)


def test_a_known_name_is_none_of_the_errors():
    check_known("a", ["a"], "Something")
