"""Networks of Keras and flax with convolutions compute the same function in torch, on images with channels first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import kernels
import numpy as np
import pytest
import torch
from torch import nn

from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers import load_networks


def convolutional() -> nn.Sequential:
    """Two convolutions, a norm, a dense layer on their pixels, and statistics that are not those of the start."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(2, 3, 3),
            nn.BatchNorm2d(3, eps=1e-3),
            nn.ReLU(),
            nn.Conv2d(3, 4, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * 9, 6),
            nn.ReLU(),
            nn.Linear(6, 6),
            nn.ReLU(),
            nn.Linear(6, 2),
        )
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape) + 0.1 if "running_var" in name else torch.randn(tensor.shape))
        return net.eval()


def channels_last_outputs(layers: Mapping[str, Mapping[str, np.ndarray]], x: np.ndarray) -> np.ndarray:
    """What Keras and flax compute of images (b, height, width, channels), in NumPy and double precision."""
    names = list(layers)
    for name in names:
        arrays = [a.astype(np.float64) for a in layers[name].values()]
        if arrays[0].ndim == 4:
            windows = np.lib.stride_tricks.sliding_window_view(x, arrays[0].shape[:2], axis=(1, 2))
            x = np.einsum("bijckl,klco->bijo", windows, arrays[0]) + arrays[1]
        elif len(arrays) == 4:
            scale, bias, mean, var = arrays
            x = (x - mean) / np.sqrt(var + 1e-3) * scale + bias
        else:
            x = x.reshape(len(x), -1) @ arrays[0] + arrays[1]
        follows_norm = name != names[-1] and len(layers[names[names.index(name) + 1]]) == 4
        x = x if name == names[-1] or follows_norm else np.maximum(x, 0)
    return x


def channels_last(net: nn.Sequential, names: Mapping[str, str]) -> dict[str, dict[str, np.ndarray]]:
    """The layers of the network as Keras or flax have them: the dense layer reads pixels times channels."""
    layers = kernels.layers_of(list(net), names)
    first = next(name for name in layers if name.lower().startswith("dense"))
    kernel = layers[first]["kernel"]
    layers[first]["kernel"] = kernel.reshape(4, 9, -1).swapaxes(0, 1).reshape(kernel.shape)
    return layers


def flax_file(path: Path, layers: kernels.Layers) -> None:
    kernels.write_flax(path, kernels.variables(layers))


def npz_file(path: Path, layers: kernels.Layers) -> None:
    np.savez(path, **kernels.flat(kernels.variables(layers)))


def positions(path: Path, layers: kernels.Layers) -> None:
    np.savez(path, *(array for arrays in layers.values() for array in arrays.values()))


FILES = {
    "net.keras": (kernels.write_keras, kernels.KERAS, ("h5py", "pyfive")),
    "net.h5": (kernels.write_keras_2, kernels.KERAS, ("h5py", "pyfive")),
    "net.weights.h5": (kernels.write_keras_3, kernels.KERAS, ("h5py", "pyfive")),
    "net.msgpack": (flax_file, kernels.FLAX, ("msgpack",)),
    "flax.npz": (npz_file, kernels.FLAX, ()),
    "keras.npz": (positions, kernels.KERAS, ()),
}


def stored(folder: Path, name: str) -> tuple[Path, dict[str, dict[str, np.ndarray]]]:
    """A file of the network, and its layers."""
    write, names, packages = FILES[name]
    for package in packages:
        pytest.importorskip(package)
    layers = channels_last(convolutional(), names)
    write(folder / name, layers)
    return folder / name, layers


@pytest.mark.parametrize("name", FILES)
def test_the_same_function(tmp_path, name, rng):
    path, layers = stored(tmp_path, name)
    images = rng.normal(size=(5, 6, 6, 2))
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    template = convolutional()
    population = load_networks(path, module=template, example_input=x.float())
    outputs = population.weights.to_modules(template)[0].double()(x).detach().numpy()
    np.testing.assert_allclose(outputs, channels_last_outputs(layers, images), rtol=1e-10)
    assert population.provenance["notes"][name]["layout"] == "kernels were transposed"


@pytest.mark.parametrize("name", FILES)
def test_an_inferred_network_has_the_same_weights(tmp_path, name):
    path, _ = stored(tmp_path, name)
    inferred = load_networks(path, activation="relu")
    assert [group.size for group in inferred.architecture.groups] == [3, 4, 6, 6]
    state = convolutional().state_dict()
    flat = np.concatenate([t.reshape(-1).numpy() for name, t in state.items() if "tracked" not in name])
    np.testing.assert_array_equal(np.asarray(inferred.weights)[0], flat)


def test_channels_that_are_first_in_keras_stay_there(tmp_path):
    pytest.importorskip("h5py"), pytest.importorskip("pyfive")
    net = convolutional()
    kernels.write_keras(tmp_path / "net.keras", kernels.layers_of(list(net), kernels.KERAS), "channels_first")
    population = load_networks(tmp_path / "net.keras", module=net, example_input=torch.zeros(2, 2, 6, 6))
    flat = np.concatenate([t.reshape(-1).numpy() for t in net.state_dict().values()])
    np.testing.assert_array_equal(np.asarray(population.weights)[0], flat)


@pytest.mark.parametrize("bias", [True, False])
def test_square_weights_without_names_are_refused(tmp_path, bias):
    arrays = [a for _ in range(2) for a in (np.ones((3, 3)), np.ones(3))[: 1 + bias]]
    np.savez(tmp_path / "net.npz", *arrays)
    with pytest.raises(InvalidInputError, match=r"net.npz: its arrays have no names, and by their shapes"):
        load_networks(tmp_path / "net.npz", activation="relu")


def test_square_weights_are_transposed_by_their_names(tmp_path):
    layers = {f"dense_{i}": {"kernel": np.arange(9.0).reshape(3, 3) + i, "bias": np.arange(3.0)} for i in range(3)}
    np.savez(tmp_path / "net.npz", **kernels.flat(layers))
    population = load_networks(tmp_path / "net.npz", activation="relu")
    row = [np.concatenate([layer["kernel"].T.reshape(-1), layer["bias"]]) for layer in layers.values()]
    np.testing.assert_array_equal(np.asarray(population.weights)[0], np.concatenate(row))


@pytest.mark.parametrize("first", ["outputs", "inputs"])
def test_arrays_without_names_in_either_order(tmp_path, first):
    weights = [np.arange(20.0).reshape(5, 4), np.arange(10.0).reshape(2, 5)]
    arrays = [a for w in weights for a in (w if first == "outputs" else w.T, np.arange(len(w)) + 0.5)]
    np.savez(tmp_path / "net.npz", *arrays)
    population = load_networks(tmp_path / "net.npz", activation="relu")
    row = np.concatenate([np.concatenate([w.reshape(-1), np.arange(len(w)) + 0.5]) for w in weights])
    np.testing.assert_array_equal(np.asarray(population.weights)[0], row)


def test_packages_that_are_missing_are_named(tmp_path, monkeypatch):
    import sys

    for package, name, extra in (("pyfive", "net.h5", "keras"), ("msgpack", "net.msgpack", "flax")):
        monkeypatch.setitem(sys.modules, package, None)
        (tmp_path / name).write_bytes(b"\x80")
        with pytest.raises(InvalidInputError, match=rf"need the {package} package: pip install wsflow\[{extra}\]"):
            load_networks(tmp_path / name, activation="relu")
