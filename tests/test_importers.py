"""Files of other tools become the same functions: against torch, scikit-learn and NumPy."""

from __future__ import annotations

import json
import os
import tarfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.neural_network import MLPClassifier, MLPRegressor
from torch import nn

import wsflow
from wsflow.exceptions import InvalidInputError
from wsflow.persistence import load_population, save_population
from wsflow.populations.importers import FORMATS, load_networks
from wsflow.populations.importers.paths import natural_key
from wsflow.running import forward

NETWORKS = Path(os.environ.get("WSFLOW_NETWORKS", "."))
needs_networks = pytest.mark.skipif("WSFLOW_NETWORKS" not in os.environ, reason="WSFLOW_NETWORKS is not set")


def make_modules(n: int = 3) -> list[nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [
            nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 2)) for _ in range(n)
        ]


def outputs(population: wsflow.Population, inputs: torch.Tensor) -> torch.Tensor:
    weights = torch.from_numpy(np.array(population.weights))
    return forward(weights, population.architecture, inputs.to(weights))


@pytest.fixture
def modules() -> list[nn.Module]:
    return make_modules()


@pytest.fixture
def inputs(generator) -> torch.Tensor:
    return torch.randn(6, 4, generator=generator)


def save_npz(state: dict[str, torch.Tensor], path: Path) -> None:
    np.savez_compressed(path, **{name: tensor.numpy() for name, tensor in state.items()})


SAVERS = {
    ".pt": torch.save,
    ".pth": lambda state, path: torch.save({"epoch": 3, "state_dict": state}, path),
    ".th": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    ".ckpt": lambda state, path: torch.save({"optimizer": {"lr": 0.1}, "model": {"net": state}}, path),
    ".bin": lambda state, path: torch.save({"model_state_dict": OrderedDict(state)}, path),
    ".tar": lambda state, path: torch.save({"arch": "mlp", "state_dict": state, "best_acc1": 0.9}, path),
    ".safetensors": safetensors.torch.save_file,
    ".npz": save_npz,
}


@pytest.mark.parametrize("suffix", SAVERS)
def test_state_dicts_become_the_same_functions(tmp_path, modules, inputs, suffix):
    for i, module in enumerate(modules):
        SAVERS[suffix](module.state_dict(), tmp_path / f"net_{i}{suffix}")
    (tmp_path / "README.md").write_text("not a network")
    population = load_networks(tmp_path, activation="tanh")
    assert str(population) == "3 networks 4-5-5-2 tanh (67 weights) of 3 runs"
    assert population.provenance["networks"] == [f"net_{i}{suffix}" for i in range(3)]
    expected = torch.stack([module(inputs) for module in modules]).detach()
    torch.testing.assert_close(outputs(population, inputs), expected)


def test_every_format_has_a_test():
    others = {".nnet", ".onnx", ".h5", ".hdf5", ".keras", ".msgpack", ".pkl", ".pickle"}
    assert set(SAVERS) | others == set(FORMATS)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_taken_off(tmp_path, modules, prefix):
    torch.save({prefix + name: t for name, t in modules[0].state_dict().items()}, tmp_path / "a.pt")
    torch.save(modules[1].state_dict(), tmp_path / "b.pt")
    population = load_networks(tmp_path, activation="tanh")
    assert population.architecture.names == tuple(modules[0].state_dict())
    assert population.provenance["prefixes"] == {"a.pt": prefix}


def test_a_prefix_that_the_architecture_has_stays(tmp_path, modules):
    wrapped = nn.Sequential(OrderedDict(model=modules[0]))
    torch.save(wrapped.state_dict(), tmp_path / "a.pt")
    assert load_networks(tmp_path, module=wrapped).architecture.names[0] == "model.0.weight"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_half_precision_becomes_single_and_is_said(tmp_path, modules, dtype, suffix):
    state = {name: t.to(dtype) for name, t in modules[0].state_dict().items()}
    SAVERS[suffix](state, tmp_path / f"a{suffix}")
    population = load_networks(tmp_path, activation="tanh")
    assert population.weights.dtype == np.float32
    assert population.provenance["cast_to_float32"] == {f"a{suffix}": [str(dtype).removeprefix("torch.")]}
    expected = torch.cat([t.float().reshape(-1) for t in state.values()]).numpy()
    np.testing.assert_array_equal(np.asarray(population.weights)[0], expected)


def test_double_precision_stays(tmp_path, modules):
    torch.save(modules[0].double().state_dict(), tmp_path / "a.pt")
    assert load_networks(tmp_path / "a.pt", activation="tanh").weights.dtype == np.float64


def test_files_are_sorted_as_people_count():
    names = ["net_10", "net_2", "a/net_3", "net_2b", "net_1.5", "net_1.10"]
    counted = sorted(map(Path, names), key=natural_key)
    assert [str(path) for path in counted] == ["a/net_3", "net_1.5", "net_1.10", "net_2", "net_2b", "net_10"]


def test_patterns_lists_and_the_order_of_a_list(tmp_path, modules):
    for i, module in zip((10, 2, 1), modules, strict=True):
        (tmp_path / f"run_{i}").mkdir()
        torch.save(module.state_dict(), tmp_path / f"run_{i}" / "last.pt")
    population = load_networks(str(tmp_path / "run_*" / "*.pt"), activation="tanh", runs=[7, 7, 8], steps=[1, 2, 3])
    assert population.provenance["networks"] == [f"run_{i}/last.pt" for i in (1, 2, 10)]
    assert (population.weights.runs.tolist(), population.weights.steps.tolist()) == ([7, 7, 8], [1, 2, 3])
    listed = load_networks([tmp_path / f"run_{i}" / "last.pt" for i in (10, 1)], activation="tanh")
    assert listed.provenance["networks"] == ["run_10/last.pt", "run_1/last.pt"]


def test_networks_of_one_file_are_of_one_run(tmp_path, modules):
    torch.save([module.state_dict() for module in modules[:2]], tmp_path / "a.pt")
    torch.save(modules[2].state_dict(), tmp_path / "b.pt")
    population = load_networks(tmp_path, activation="tanh")
    assert population.weights.runs.tolist() == [0, 0, 1]
    assert population.provenance["networks"] == ["a.pt[0]", "a.pt[1]", "b.pt"]


def test_an_imported_population_is_saved_and_loaded(tmp_path, modules):
    torch.save({"state_dict": modules[0].half().state_dict()}, tmp_path / "a.pt")
    population = load_networks(tmp_path, activation="tanh")
    save_population(population, tmp_path / "zoo.safetensors")
    again = load_population(tmp_path / "zoo.safetensors")
    assert again.architecture == population.architecture and again.provenance == population.provenance
    with pytest.raises(InvalidInputError, match=r"zoo.safetensors: this is a file of wsflow. Load it with wsflow"):
        load_networks(tmp_path / "zoo.safetensors", activation="tanh")


def write_nnet(path: Path, layers: list[tuple[np.ndarray, np.ndarray]], scaling: np.ndarray) -> None:
    widths = [layers[0][0].shape[1], *(len(bias) for _, bias in layers)]
    rows = [[len(layers), widths[0], widths[-1], max(widths)], widths, [0]]
    rows += [scaling[0, :-1], scaling[1, :-1], scaling[2], scaling[3]]
    for weight, bias in layers:
        rows += [*weight, *bias[:, None]]
    lines = ["// a comment, with 1, 2 numbers", *(",".join(repr(float(v)) for v in row) + "," for row in rows)]
    path.write_text("\n".join(lines).replace(".0,", ","))


@pytest.fixture
def nnet(tmp_path, rng) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    layers = [(rng.normal(size=(b, a)), rng.normal(size=b)) for a, b in ((3, 4), (4, 4), (4, 2))]
    scaling = np.array([[-9.0, -8, -7, 0], [9, 8, 7, 0], [1, -2, 3, 0.5], [2, 3, 4, 5]])
    write_nnet(tmp_path / "net.nnet", layers, scaling)
    return layers, scaling


def by_hand(layers: list[tuple[np.ndarray, np.ndarray]], x: np.ndarray) -> np.ndarray:
    for weight, bias in layers[:-1]:
        x = np.maximum(x @ weight.T + bias, 0)
    return x @ layers[-1][0].T + layers[-1][1]


def test_nnet_files_agree_with_numpy(tmp_path, nnet, rng):
    layers, scaling = nnet
    x = rng.normal(size=(7, 3))
    population = load_networks(tmp_path)
    assert str(population.architecture) == "3-4-4-2 relu (46 weights)"
    np.testing.assert_allclose(outputs(population, torch.from_numpy(x))[0], by_hand(layers, x), rtol=1e-13)
    assert population.provenance["normalization"]["net.nnet"]["ranges"] == scaling[3].tolist()
    assert population.provenance["normalization_is"] == "kept apart"


def test_the_scaling_of_nnet_files_folds_into_the_layers(tmp_path, nnet, rng):
    layers, scaling = nnet
    x = rng.normal(size=(7, 3)) * 5
    expected = by_hand(layers, (x - scaling[2, :-1]) / scaling[3, :-1]) * scaling[3, -1] + scaling[2, -1]
    population = load_networks(tmp_path, fold=True)
    np.testing.assert_allclose(outputs(population, torch.from_numpy(x))[0], expected, rtol=1e-12, atol=1e-12)
    assert population.provenance["normalization_is"].startswith("folded")


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_regressors_agree_with_scikit_learn(rng, activation):
    X, y = rng.normal(size=(30, 3)), rng.normal(size=(30, 2))
    estimators = [
        MLPRegressor(hidden_layer_sizes=(5, 4), activation=activation, random_state=i, max_iter=2000, tol=0.5)
        for i in range(2)
    ]
    population = load_networks([estimator.fit(X, y) for estimator in estimators])
    expected = np.stack([estimator.predict(X) for estimator in estimators])
    np.testing.assert_allclose(outputs(population, torch.from_numpy(X)), expected, rtol=1e-12)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_classifiers_agree_with_scikit_learn(rng, n_classes):
    X, y = rng.normal(size=(30, 3)), np.arange(30) % n_classes
    estimator = MLPClassifier(hidden_layer_sizes=(4,), random_state=0, max_iter=2000, tol=0.5).fit(X, y)
    population = load_networks(estimator)
    logits = outputs(population, torch.from_numpy(X))[0]
    expected = torch.from_numpy(estimator.predict_proba(X))
    if n_classes == 2:
        torch.testing.assert_close(logits.sigmoid()[:, 0], expected[:, 1])
        assert "that of class 1" in population.provenance["notes"]["estimator 0"]["outputs"]
    else:
        torch.testing.assert_close(logits.softmax(-1), expected)


def test_estimators_are_fitted():
    with pytest.raises(InvalidInputError, match=r"estimator 1: This MLPRegressor is not fitted: call its fit"):
        fitted = MLPRegressor(hidden_layer_sizes=(2,), max_iter=2000, tol=10.0).fit([[0.0], [1.0]], [0, 1])
        load_networks([fitted, MLPRegressor()])


class Skip(nn.Module):
    """By its shapes a plain MLP, which it is not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Inputs (b, 3) to outputs (b, 2)."""
        x = self.first(x)
        return self.head(x + self.second(x).relu())


def test_a_module_says_the_architecture_and_runs_the_networks(tmp_path, generator):
    with torch.random.fork_rng():
        module = Skip().eval()
    x = torch.randn(5, 3, generator=generator)
    torch.save(module.state_dict(), tmp_path / "a.pt")
    population = load_networks(tmp_path, module=module, example_input=x)
    torch.testing.assert_close(outputs(population, x)[0], module(x).detach())
    with pytest.raises(InvalidInputError, match=r"a.pt: the module is no plain MLP or CNN"):
        load_networks(tmp_path, module=module, example_input=x, activation="relu")


@needs_networks
def test_the_acas_xu_networks(tmp_path, rng):
    with tarfile.open(NETWORKS / "acasxu_45.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    population = load_networks(str(tmp_path / "**" / "*.nnet"))
    assert str(population) == "45 networks 5-50-50-50-50-50-50-5 relu (13305 weights) of 45 runs"
    x = rng.uniform(-0.5, 0.5, size=(20, 5))
    said = outputs(population, torch.from_numpy(x)).numpy()
    files = {path.name: path for path in tmp_path.rglob("*.nnet")}
    for name, output in zip(population.provenance["networks"], said, strict=True):
        lines = [line for line in files[name].read_text().splitlines() if not line.startswith("//")]
        numbers = [np.array(line.rstrip().rstrip(",").split(","), dtype=float) for line in lines[7:]]
        layers = []
        for size in map(int, lines[1].rstrip(",").split(",")[1:]):
            layers.append((np.stack(numbers[:size]), np.concatenate(numbers[size : 2 * size])))
            numbers = numbers[2 * size :]
        assert not numbers
        np.testing.assert_allclose(output, by_hand(layers, x), rtol=1e-12, atol=1e-13)


@needs_networks
def test_foreign_convolutional_networks():
    population = load_networks(NETWORKS / "mnist_cnn_convex_adversarial", activation="relu")
    assert [group.size for group in population.architecture.groups] == [16, 32, 100]
    assert len(population) == 3 and population.architecture.module is None
    with pytest.raises(InvalidInputError, match=r"resnet20.*'layer1.0.conv1' speaks of a block"):
        load_networks(NETWORKS / "cifar_resnets_akamaster", activation="relu")
    json.dumps(population.provenance)
