"""A task and the networks of an architecture are compared wherever they meet, and the sentence names both numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import wsflow
from wsflow import Architecture, Guidance, PermutationAligner, Population, Task, WeightArray, WeightFlow
from wsflow.evaluation import predict
from wsflow.exceptions import InvalidInputError
from wsflow.models.options import NeuronTransformer
from wsflow.running.compatibility import check_task, warn_of_classes

MLP = Architecture.mlp([4, 3, 2])
CONVOLUTIONAL = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4))
SMALL = {"max_iter": 2, "velocity": NeuronTransformer(8, 1, 2), "random_state": 0}


def task(shape: tuple[int, ...], targets: object, loss: str = "cross_entropy") -> Task:
    y = np.resize(targets, (6, *np.shape(targets)[1:])) if np.ndim(targets) > 1 else np.resize(targets, 6)
    return Task(np.random.default_rng(0).normal(size=(6, *shape)), y, loss)


def networks(architecture: Architecture, n: int = 6, first_run: int = 0) -> WeightArray:
    rows = np.random.default_rng(1).normal(size=(n, architecture.n_weights))
    return WeightArray(rows, architecture, runs=np.arange(n) + first_run)


MISFITS = {
    "more inputs": (task((5,), [0, 1]), "4 inputs and 2 outputs, but the task has 5 inputs and 2 classes"),
    "fewer inputs": (task((3,), [0, 1]), "4 inputs and 2 outputs, but the task has 3 inputs and 2 classes"),
    "more classes": (task((4,), [0, 1, 2]), "4 inputs and 2 outputs, but the task has 4 inputs and 3 classes"),
    "a gap in the classes": (
        task((4,), [0, 7, 9]),
        r"2 outputs, but the task has 4 inputs and 3 classes \(0, 7, 9\)",
    ),
    "fewer targets": (task((4,), [0.5], "mse"), "2 outputs, but the task has 4 inputs and 1 outputs"),
    "more targets": (task((4,), np.ones((6, 3)), "mse"), "2 outputs, but the task has 4 inputs and 3 outputs"),
    "images": (task((1, 2, 2), [0, 1]), r"inputs of shape \(1, 2, 2\) and 2 classes. Flatten"),
    "sequences": (task((2, 4), [0, 1]), r"4 inputs and 2 outputs, but the task has inputs of shape \(2, 4\)"),
}
MEETINGS = {
    "flow": lambda t: WeightFlow("euclidean", task=t, **SMALL).fit(networks(MLP)),
    "aligner": lambda t: PermutationAligner(task=t).fit(networks(MLP)),
    "barrier": lambda t: wsflow.loss_barrier(networks(MLP, 1), networks(MLP, 1), t),
    "prediction": lambda t: predict(networks(MLP), t),
    "evaluation": lambda t: wsflow.evaluate(networks(MLP), networks(MLP), networks(MLP, first_run=6), t, nulls=False),
    "population": lambda t: Population(networks(MLP), t),
    "guidance": lambda t: (
        WeightFlow("euclidean", **SMALL).fit(networks(MLP)).sample(1, random_state=0, guidance=Guidance(t))
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_task_of_other_networks_is_refused(misfit):
    given, sentence = MISFITS[misfit]
    with pytest.raises(InvalidInputError, match=sentence):
        check_task(MLP, given)


@pytest.mark.parametrize("meeting", MEETINGS)
@pytest.mark.parametrize("misfit", ["more inputs", "more classes", "images"])
def test_it_is_refused_wherever_both_meet(meeting, misfit):
    given, sentence = MISFITS[misfit]
    with pytest.raises(InvalidInputError, match=sentence):
        MEETINGS[meeting](given)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (task((3, 5, 5), [0, 1]), r"'0.weight' of shape \(3, 2, 3, 3\), do not take .* the shape \(3, 5, 5\)"),
        (task((2, 6, 6), [0, 1]), r"the shape \(2, 6, 6\)"),
        (task((2, 5, 5), range(5)), r"4 outputs, but the task has inputs of shape \(2, 5, 5\) and 5 classes"),
        (
            task((2, 5, 5), [0, 3]),
            r"2 classes \(0, 3\). Name all classes of the networks, in the order of their outputs",
        ),
    ],
    ids=["channels", "size", "classes", "a part of the classes"],
)
def test_networks_that_a_module_runs_are_compared_too(given, sentence):
    architecture = Architecture.from_module(CONVOLUTIONAL, torch.zeros(1, 2, 5, 5))
    check_task(architecture, task((2, 5, 5), [0, 2, 1]))
    with pytest.raises(InvalidInputError, match=sentence):
        check_task(architecture, given)


@pytest.mark.parametrize("meeting", ["flow", "aligner", "evaluation", "barrier"])
def test_outputs_without_an_example_of_their_class_are_said(meeting):
    with pytest.warns(UserWarning, match="2 outputs, but the task has examples of 1 classes only"):
        MEETINGS[meeting](task((4,), [0, 0]))


def test_classes_of_validation_and_test_data_count():
    part = task((4,), [0, 0])
    warn_of_classes(MLP, Task(part.X, part.y, test=task((4,), [0, 1])))


def test_perceptrons_are_trained_on_images_as_rows_of_pixels():
    images = task((1, 2, 2), [0, 1])
    population = wsflow.train_population(Task(images.X, images.y, test=images), [3], n_runs=2, epochs=1)
    assert population.task.X.shape == population.task.test.X.shape == (6, 4)
    assert predict(population.weights, population.task).scores.shape == (2,)
