"""Laplace approximations of the last layer: the Hessian of every loss, the evidence of linear regression, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from wsflow import Architecture, Task, WeightArray, train_population
from wsflow.exceptions import InvalidInputError
from wsflow.populations.laplace import last_layer_laplace
from wsflow.running import forward, losses

RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(40, 3))
MLP = Architecture.mlp([3, 4, 3])
NETWORK = WeightArray(RANDOM.normal(size=(1, MLP.n_weights)), MLP)


def of_last_layer(architecture, network, task, prior_precision=1.0):
    """The precision of the last layer's weights and biases by automatic differentiation of the loss."""
    row = torch.from_numpy(np.array(network))[0]
    columns = np.arange(len(row))[-15:]
    inputs, targets = torch.from_numpy(task.X), torch.from_numpy(task.targets)

    def total(own):
        outputs = forward(torch.cat([row[:-15], own]).unsqueeze(0), architecture, inputs)
        return task.size * losses(outputs, targets, task.loss)[0]

    # the outputs are linear in these, so that the Hessian is the Gauss-Newton matrix
    return columns, torch.autograd.functional.hessian(total, row[-15:]) + prior_precision * torch.eye(15)


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        ("cross_entropy", np.arange(40) % 3),
        ("binary_cross_entropy", RANDOM.integers(2, size=(40, 3))),
        ("mse", RANDOM.normal(size=(40, 3))),
        ("poisson", RANDOM.poisson(2, size=(40, 3))),
    ],
)
def test_samples_are_normal_with_the_hessian_of_the_loss(loss, y):
    task = Task(INPUTS, y, loss)
    columns, precision = of_last_layer(MLP, NETWORK, task)
    samples = last_layer_laplace(NETWORK, task, 40_000, prior_precision=1.0)
    assert np.array_equal(np.delete(samples, columns, 1), np.delete(np.repeat(NETWORK, 40_000, 0), columns, 1))
    change = torch.from_numpy(np.asarray(samples - NETWORK)[:, columns])
    # whitened, they are standard normal
    white = change @ torch.linalg.cholesky(precision)
    assert white.mean(0).abs().max() < 5 / 200
    assert (white.T.cov() - torch.eye(15)).abs().max() < 8 / 200


def test_weights_of_examples_are_how_often_they_count():
    twice = np.r_[np.arange(40), np.arange(10)]
    y, weights = np.arange(40) % 3, np.r_[np.full(10, 2.0), np.ones(29), 0.0]
    copies = Task(INPUTS[twice], y[twice]).subset(np.r_[0:39, 40:50])
    by_weight, by_copies = (
        np.asarray(last_layer_laplace(NETWORK, task, 20_000) - NETWORK)[:, -15:]
        for task in (Task(INPUTS, y, sample_weight=weights), copies)
    )
    # eigenvectors have signs of their own, and with them the draws
    assert np.abs(np.cov(by_weight.T) - np.cov(by_copies.T)).max() < 0.06 * np.cov(by_copies.T).diagonal().max()


def test_the_precision_of_the_prior_has_the_largest_evidence():
    """Of a Bayesian linear regression, where the evidence is known; noise has the variance 1/2."""
    linear, y = Architecture.mlp([3, 1]), INPUTS @ [0.3, -0.2, 0.1] + 0.7 * RANDOM.normal(size=40)
    design = np.c_[INPUTS, np.ones(40)]

    def log_evidence(precision):
        covariance = 0.5 * np.eye(40) + design @ design.T / precision
        return -0.5 * (np.linalg.slogdet(covariance)[1] + y @ np.linalg.solve(covariance, y))

    best = max(np.geomspace(0.1, 1000, 4001), key=log_evidence)
    network = WeightArray(np.linalg.solve(2 * design.T @ design + best * np.eye(4), 2 * design.T @ y)[None], linear)
    # at the mode of that prior the fixed point is where the evidence is largest
    drawn, known = (last_layer_laplace(network, Task(INPUTS, y, "mse"), 9, prior_precision=p) for p in (None, best))
    assert np.allclose(drawn, known, rtol=1e-3, atol=1e-4)


def test_convolutions_in_front_and_random_states():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 16, 3, bias=False))
    task = Task(RANDOM.normal(size=(30, 1, 6, 6)).astype(np.float32), np.arange(30) % 3)
    network = train_population(task, module=net, n_runs=1, epochs=1).weights
    first, again, other = (last_layer_laplace(network, task, 4, random_state=seed) for seed in (0, 0, 1))
    assert first.dtype == np.float32 and np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.array_equal(first[:, :20], np.repeat(network[:, :20], 4, 0))


def test_what_has_no_last_linear_layer_is_refused():
    tail = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.Softplus())
    architecture = Architecture.from_module(tail, torch.zeros(2, 3))
    network = WeightArray.from_modules([tail], architecture)
    with pytest.raises(InvalidInputError, match="not those of a linear layer"):
        last_layer_laplace(network, Task(INPUTS, np.arange(40) % 3))
    with pytest.raises(InvalidInputError, match="around one network, got 2"):
        last_layer_laplace(NETWORK[[0, 0]], Task(INPUTS, np.arange(40) % 3))
