"""Images as tasks, and networks of sines that fit them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits, load_sample_image

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError
from wsflow.populations import image_task, load_task
from wsflow.populations.datasets import task_from_source
from wsflow.populations.settings import architecture_of
from wsflow.populations.training import train_population
from wsflow.running import forward, unflatten
from wsflow.running.execution import evaluation_run
from wsflow.running.initialisation import OMEGA_0, siren


def quality(population, task, targets=None) -> np.ndarray:
    """Each network's peak signal-to-noise ratio, in dB, for a peak of one."""
    networks = population.weights
    found = forward(torch.from_numpy(np.array(networks)), networks.architecture, torch.from_numpy(task.X)).numpy()
    return -10 * np.log10(((found - (task.y if targets is None else targets)) ** 2).mean((1, 2)))


@given(st.integers(2, 6), st.integers(2, 6), st.sampled_from([None, 1, 3]))
def test_pixels_are_at_their_places(height, width, channels):
    rng = np.random.default_rng(height * width)
    image = rng.random((height, width) if channels is None else (height, width, channels))
    task = image_task(image)
    assert (task.n_inputs, task.n_outputs, task.loss, task.X.dtype) == (2, channels or 1, "mse", np.float32)
    rows, columns = ((task.X + 1) / 2 * [height - 1, width - 1]).round(4).T
    assert rows.min() == columns.min() == 0 and (rows.max(), columns.max()) == (height - 1, width - 1)
    values = image.reshape(height, width, -1)[rows.astype(int), columns.astype(int)]
    np.testing.assert_allclose(task.y, values, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_whole_numbers_are_shares_of_the_largest(dtype):
    image = np.array([[0, np.iinfo(dtype).max], [51, 1]], dtype=dtype)
    np.testing.assert_allclose(image_task(image).y, image_task(image / np.iinfo(dtype).max).y)


@pytest.mark.parametrize(
    "image",
    [np.zeros(4), np.zeros((1, 4)), np.zeros((3, 3, 0)), np.zeros((2, 2), dtype=int), np.array([["a", "b"]] * 2)],
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(InvalidInputError, match="An image has shape"):
        image_task(image)


@pytest.mark.parametrize("name", ["china", "flower"])
def test_photographs_are_averaged_over_blocks(name):
    task = load_task(name)
    assert task.X.shape == (53 * 80, 2) and task.y.shape == (53 * 80, 3)
    pixels = load_sample_image(f"{name}.jpg")
    np.testing.assert_allclose(task.y[81], pixels[8:16, 8:16].mean((0, 1)) / 255, atol=1e-6)
    assert task_from_source(task.source, task.checksum).checksum == task.checksum


def test_digits_have_numbers():
    images = load_digits().images
    for name, number in (("digit", 0), ("digit:0", 0), ("digit:1796", 1796)):
        task = load_task(name)
        np.testing.assert_allclose(task.y.reshape(8, 8), images[number] / 16)
        assert task_from_source(task.source, task.checksum).source["name"] == name
    for name in ("digit:1797", "digit:-1", "digit:x", "iris:3", ":"):
        with pytest.raises(InvalidInputError, match=r"no task|is none"):
            load_task(name)


@pytest.mark.parametrize("omega", [None, 30.0])
def test_siren_has_the_bounds_of_the_paper(omega, generator):
    architecture = architecture_of(image_task(np.zeros((2, 2))), (64, 32), "sine", omega)
    weights = siren(architecture, 300, generator)
    scale = OMEGA_0 / (omega or 1.0)
    expected = {
        "0.weight": scale / 2, "2.weight": (6 / 64) ** 0.5 / 30 * scale, "4.weight": (6 / 32) ** 0.5 / 30,
        "0.bias": scale / 2**0.5, "2.bias": scale / 8, "4.bias": 1 / 32**0.5,
    }  # fmt: skip
    for name, bound in expected.items():
        part = weights[:, architecture.slices[name]]
        assert 0.95 * bound < part.abs().max() <= bound * (1 + 1e-6)
        assert float(part.std()) == pytest.approx(bound / 3**0.5, rel=0.05)


def test_siren_begins_with_the_same_functions_for_every_frequency():
    task = image_task(np.zeros((4, 5)))
    outputs = []
    for omega in (1.0, 7.0, 30.0):
        architecture = architecture_of(task, (16, 16), "sine", omega)
        weights = siren(architecture, 6, torch.Generator().manual_seed(3)).double()
        outputs.append(forward(weights, architecture, torch.from_numpy(task.X).double()))
    torch.testing.assert_close(outputs[0], outputs[2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs[1], outputs[2], rtol=1e-4, atol=1e-5)


def test_values_spread_alike_in_all_layers(generator):
    """Weights make unit variance before each sine, however deep (theorem 1.8 of the paper); biases add 30^2 / 3n."""
    architecture = Architecture.mlp([2, *[128] * 4, 1], "sine")
    weights = siren(architecture, 8, generator)
    X = torch.rand(200, 2, generator=generator) * 2 - 1
    run = evaluation_run(unflatten(weights, architecture), architecture)
    hidden = [result.value for operation, _, result in run.operations(X) if operation.base == "linear"]
    for values in hidden[1:-1]:
        assert float(values.var()) == pytest.approx(1 + 300 / 128, rel=0.1)


def test_siren_is_for_sines():
    for architecture in (Architecture.mlp([2, 3, 1]), Architecture.mlp([2, 1], "sine")):
        with pytest.raises(ValueError, match="sines between them"):
            siren(architecture, 1, torch.Generator())


def waves(height: int = 16, width: int = 24) -> np.ndarray:
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    return 0.5 + 0.25 * np.sin(9 * x * x + 4 * y) + 0.2 * np.cos(12 * (x - y))


@pytest.mark.parametrize(("omega", "rate"), [(None, 1e-2), (30.0, 1e-3)])
def test_networks_of_sines_fit_an_image(omega, rate):
    task = image_task(waves())
    settings = {"activation": "sine", "activation_argument": omega, "initialisation": "siren", "schedule": "cosine"}
    population = train_population(task, [24, 24], 3, learning_rate=rate, epochs=120, batch_size=128, **settings)
    assert quality(population, task).min() > 25
    # they begin far from it
    assert quality(train_population(task, [24, 24], 3, learning_rate=0.0, epochs=1, **settings), task).max() < 15


def test_every_run_fits_a_digit_of_its_own():
    digits = load_digits().images[:6] / 16
    targets = np.stack([image_task(image).y for image in digits])
    task = image_task(digits[0])
    settings = {"activation": "sine", "initialisation": "siren", "learning_rate": 1e-2, "schedule": "cosine"}
    population = train_population(task, [16, 16], 6, targets=targets, epochs=150, batch_size=64, **settings)
    assert quality(population, task, targets).min() > 25
    assert quality(population, task, targets[::-1]).max() < 15
