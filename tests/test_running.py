"""Running many networks at once gives what each module gives; losses and scores are scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, r2_score
from torch import nn

from wsflow.activations import ACTIVATIONS
from wsflow.architecture import Architecture
from wsflow.running import flatten, forward, losses, predictions, scores, unflatten
from wsflow.running.initialisation import INITIALISATIONS
from wsflow.weights import WeightArray


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=5),
    st.sampled_from(sorted(ACTIVATIONS)),
    st.booleans(),
    st.integers(0, 99),
)
def test_forward_is_that_of_the_modules(widths, activation, bias, seed):
    architecture = Architecture.mlp(widths, activation, bias=bias)
    weights = drawn(3, architecture.n_weights, seed=seed)
    inputs = drawn(5, widths[0], seed=seed + 1)
    outputs = forward(weights, architecture, inputs)
    modules = WeightArray(weights.numpy(), architecture).to_modules()
    expected = torch.stack([module(inputs) for module in modules])
    torch.testing.assert_close(outputs, expected, rtol=1e-12, atol=1e-12)
    vectorised = forward(weights, architecture, inputs, module=modules[0])
    torch.testing.assert_close(vectorised, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layer", [nn.LeakyReLU(0.3), nn.LeakyReLU(-0.5), nn.ELU(0.7)])
def test_parameters_of_activations_are_kept(layer):
    architecture = Architecture.from_module(nn.Sequential(nn.Linear(3, 4), layer, nn.Linear(4, 2)))
    weights, inputs = drawn(2, architecture.n_weights), drawn(5, 3, seed=1)
    modules = WeightArray(weights.numpy(), architecture).to_modules()
    expected = torch.stack([m[2](layer(m[0](inputs))) for m in modules])
    torch.testing.assert_close(forward(weights, architecture, inputs), expected, rtol=1e-12, atol=1e-12)


def test_inputs_of_its_own_for_each_network():
    architecture = Architecture.mlp([3, 4, 2])
    weights, inputs = drawn(6, architecture.n_weights), drawn(6, 5, 3, seed=1)
    each = torch.cat([forward(weights[i : i + 1], architecture, inputs[i]) for i in range(6)])
    torch.testing.assert_close(forward(weights, architecture, inputs), each, rtol=1e-12, atol=1e-12)


def test_an_architecture_without_layers_needs_a_module():
    architecture = Architecture(Architecture.mlp([3, 2]).parameters)
    with pytest.raises(ValueError, match="module="):
        forward(torch.zeros(1, 8), architecture, torch.zeros(1, 3))
    with pytest.raises(ValueError, match="template="):
        WeightArray(np.zeros((1, 8)), architecture).to_modules()


def test_flatten_undoes_unflatten():
    architecture = Architecture.mlp([3, 4, 2])
    weights = drawn(6, architecture.n_weights)
    tensors = unflatten(weights, architecture)
    assert tensors["0.weight"].shape == (6, 4, 3)
    assert torch.equal(flatten(tensors, architecture), weights)


def test_classification_losses_and_scores_are_scikit_learns(rng):
    outputs, targets = drawn(4, 50, 3), rng.integers(3, size=50)
    probabilities = predictions(outputs, "cross_entropy").numpy()
    expected = [log_loss(targets, p, labels=range(3)) for p in probabilities]
    np.testing.assert_allclose(losses(outputs, torch.from_numpy(targets), "cross_entropy"), expected, rtol=1e-12)
    expected = [accuracy_score(targets, p.argmax(1)) for p in probabilities]
    np.testing.assert_allclose(scores(outputs, torch.from_numpy(targets), "cross_entropy"), expected, rtol=1e-12)


def test_regression_losses_and_scores_are_scikit_learns():
    outputs, targets = drawn(4, 50, 2), drawn(50, 2, seed=1)
    expected = [mean_squared_error(targets, output) for output in outputs]
    np.testing.assert_allclose(losses(outputs, targets, "mse"), expected, rtol=1e-12)
    expected = [r2_score(targets, output, multioutput="variance_weighted") for output in outputs]
    np.testing.assert_allclose(scores(outputs, targets, "mse"), expected, rtol=1e-12)
    assert torch.equal(predictions(outputs, "mse"), outputs)


def test_targets_of_its_own_for_each_network(rng):
    outputs, targets = drawn(4, 50, 3), torch.from_numpy(rng.integers(3, size=(4, 50)))
    for loss, values in (("cross_entropy", targets), ("mse", drawn(4, 50, 3, seed=1))):
        for measure in (losses, scores):
            each = torch.cat([measure(outputs[i : i + 1], values[i], loss) for i in range(4)])
            torch.testing.assert_close(measure(outputs, values, loss), each, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["normal", "uniform"])
def test_initialisations_have_their_standard_deviations(name, generator):
    architecture = Architecture.mlp([16, 9, 2])
    weights = INITIALISATIONS[name](architecture, 2000, generator)
    expected = {"normal": (0.1**0.5, 0.1**0.5), "uniform": (1 / 4 / 3**0.5, 1 / 3 / 3**0.5)}[name]
    slices = architecture.slices
    for layer, value in zip(("0", "2"), expected, strict=True):
        for part in ("weight", "bias"):
            found = float(weights[:, slices[f"{layer}.{part}"]].std())
            assert found == pytest.approx(value, rel=0.03), f"{layer}.{part}"
