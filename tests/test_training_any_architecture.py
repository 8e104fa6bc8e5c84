"""Populations of any architecture are what a plain loop of torch trains, and runs know nothing of each other."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
import torch
from torch import nn

from wsflow import Architecture, Task
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.persistence import load_population, save_population
from wsflow.populations import load_task
from wsflow.populations.training import train_population
from wsflow.running import forward, scores

BATCH, SIDE = 8, 6


def cnn(norm: bool = True) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, SIDE, SIDE)),
        # a bias before a batch norm has a gradient of zero, whose rounding Adam would make steps of
        nn.Conv2d(1, 3, 3, stride=2, padding=1, bias=not norm),
        nn.BatchNorm2d(3) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


class Residual(nn.Module):
    """A residual stream with a layer norm, and a batch norm over features."""

    def __init__(self):
        super().__init__()
        self.embed, self.inner, self.head = nn.Linear(SIDE * SIDE, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.norm, self.batch = nn.LayerNorm(5), nn.BatchNorm1d(5)

    def forward(self, x):
        h = self.embed(x)
        return self.head(self.batch(h + self.inner(self.norm(h)).tanh()))


class Tokens(nn.Module):
    """Attention over tokens, which are integers."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.attention = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.attention(self.embed(x)).mean(1))


class Recurrent(nn.Module):
    """A GRU over the rows of an image."""

    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(SIDE, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.gru(x.unflatten(1, (SIDE, SIDE)))[0][:, -1])


def pixels(dtype=np.float32, n: int = 36) -> Task:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, SIDE * SIDE)).astype(dtype)
    return Task(X, (X[:, :3] + X[:, 3:6]).argmax(1))


def tokens(dtype=np.float32) -> Task:
    X = np.random.default_rng(1).integers(7, size=(36, 5))
    return Task(X, X[:, 0] % 3)


KINDS = {"cnn": (cnn, pixels), "residual": (Residual, pixels), "tokens": (Tokens, tokens), "gru": (Recurrent, pixels)}


@functools.cache
def architecture(kind: str) -> Architecture:
    """Read a module of a kind, once for all tests."""
    build, data = KINDS[kind]
    return Architecture.from_module(build(), torch.from_numpy(data().X[:3]))


def rows(population) -> np.ndarray:
    return np.asarray(population.weights)


def order_of(run: int, n: int, epochs: int, random_state: int) -> list[np.ndarray]:
    """The batches of a run, by the streams that the documentation names."""
    stream = np.random.default_rng((random_state, run))
    stream.integers(2**63)
    orders = [stream.permutation(n) for _ in range(epochs)]
    return [order[i : i + BATCH] for order in orders for i in range(0, n, BATCH)]


def trained_by_torch(module: nn.Module, task: Task, batches, optimizer) -> dict[str, np.ndarray]:
    module.train()
    X, y = torch.from_numpy(np.array(task.X)), torch.from_numpy(task.targets)
    for batch in batches:
        loss = nn.functional.cross_entropy(module(X[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: x.detach().numpy() for name, x in module.state_dict().items()}


OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.01),
}


# keys of attention have biases without a gradient, whose rounding Adam would make steps of
@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [("cnn", "adam"), ("cnn", "sgd"), ("residual", "adam"), ("residual", "sgd"), ("tokens", "sgd"), ("gru", "adam")],
)
def test_it_is_a_plain_loop_of_torch(kind, optimizer):
    """Weights and statistics are equal but for rounding after 20 steps, four of them in batches of 4."""
    build, data = KINDS[kind]
    task = data(np.float64)
    settings = {"architecture": architecture(kind), "epochs": 4, "batch_size": BATCH, "optimizer": optimizer}
    settings |= {"learning_rate": 0.01, "random_state": 3} | ({"weight_decay": 0.01} if optimizer == "sgd" else {})
    start = train_population(task, n_runs=2, **{**settings, "learning_rate": 0.0, "epochs": 1})
    end = train_population(task, n_runs=2, **settings)
    double = task.X.dtype == np.float64
    tolerance = {"rtol": 1e-10, "atol": 1e-11} if double else {"rtol": 2e-4, "atol": 2e-5}
    for run in range(2):
        # a step of size zero leaves the first weights, but not the first statistics
        module = build().to(torch.float64 if double else torch.float32)
        state = {k: v for k, v in start.weights.state_dicts()[run].items() if "running" not in k and "num_b" not in k}
        module.load_state_dict(state, strict=False)
        batches = order_of(run, len(task.X), 4, 3)
        expected = trained_by_torch(module, task, batches, OPTIMIZERS[optimizer](module.parameters()))
        found = end.weights.state_dicts()[run]
        assert found.keys() == expected.keys()
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], **tolerance, err_msg=name)
            if "num_batches" in name:
                assert found[name] == 20


SETTINGS = {"epochs": 3, "batch_size": BATCH, "learning_rate": (1e-3, 1e-2), "snapshots": 2, "random_state": 5}


@pytest.fixture(scope="module")
def whole():
    return train_population(pixels(), n_runs=5, architecture=architecture("cnn"), chunk_size=2, **SETTINGS)


def test_a_run_does_not_depend_on_others(whole):
    """Whatever is trained beside it, and how many at a time."""
    assert whole.weights.steps.tolist() == [11, 15] * 5
    settings = {**SETTINGS, "architecture": architecture("cnn")}
    other = train_population(pixels(), n_runs=5, chunk_size=5, **settings)
    np.testing.assert_allclose(rows(other), rows(whole), atol=1e-6)
    later = train_population(pixels(), n_runs=2, first_run=3, **settings)
    np.testing.assert_allclose(rows(later), rows(whole)[6:], atol=1e-6)
    drawn = later.hyperparameters["learning_rate"]
    np.testing.assert_array_equal(drawn, whole.hyperparameters["learning_rate"][6:])


class Killed(Exception):
    """What a test interrupts a training with."""


def test_a_checkpoint_changes_nothing(whole, tmp_path):
    def progress(done, total):
        if done >= 7:
            raise Killed

    settings = {**SETTINGS, "n_runs": 5, "chunk_size": 2, "checkpoint": tmp_path}
    with pytest.raises(Killed):
        train_population(pixels(), architecture=architecture("cnn"), progress=progress, **settings)
    assert (tmp_path / "chunk-000000.safetensors").exists()
    resumed = train_population(pixels(), architecture=architecture("cnn"), resume=True, **settings)
    np.testing.assert_array_equal(rows(resumed), rows(whole))
    with pytest.raises(InvalidInputError, match=r"another training: .*'networks' was"):
        train_population(pixels(), architecture=architecture("gru"), resume=True, **settings)
    module = {"module": cnn(), "initialisation": "module"}
    with pytest.raises(InvalidInputError, match="another training: 'initial' was"):
        train_population(pixels(), resume=True, **module, **settings)


@pytest.mark.slow
def test_processes_change_nothing(whole):
    settings = {**SETTINGS, "architecture": architecture("cnn"), "chunk_size": 2}
    np.testing.assert_array_equal(rows(train_population(pixels(), n_runs=5, n_jobs=2, **settings)), rows(whole))


def test_files_run_without_the_module(whole, tmp_path):
    save_population(whole, tmp_path / "zoo.safetensors")
    loaded = load_population(tmp_path / "zoo.safetensors")
    assert loaded.architecture.module is None and loaded.architecture == whole.architecture
    X = torch.from_numpy(pixels().X)
    expected = forward(torch.from_numpy(rows(whole)), whole.architecture, X)
    found = forward(torch.from_numpy(rows(loaded)), loaded.architecture, X)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    module = cnn()
    module.load_state_dict(whole.weights.state_dicts()[3])
    np.testing.assert_allclose(module.eval()(X).detach(), expected[3], atol=1e-5)


def test_an_architecture_of_a_file_is_trained_again(whole):
    """From the program alone, with the first weights of its types of layers."""
    known = Architecture.from_json(whole.architecture.to_json())
    again = train_population(pixels(), n_runs=5, architecture=known, chunk_size=2, **SETTINGS)
    np.testing.assert_array_equal(rows(again), rows(whole))
    assert again.provenance["initialisation"] == "torch"


def test_networks_learn():
    task = load_task("digits")
    population = train_population(
        task, n_runs=3, architecture="cnn:8,8", steps=150, batch_size=32, learning_rate=0.01, random_state=1
    )
    assert set(population.weights.steps) == {150}
    outputs = forward(torch.from_numpy(rows(population)), population.architecture, torch.from_numpy(task.test.X))
    assert scores(outputs, torch.from_numpy(task.test.targets), task.loss).min() > 0.8


def test_targets_of_each_run_are_those_of_a_task_of_its_own():
    task = pixels()
    targets = np.random.default_rng(2).integers(3, size=(3, len(task.X)))
    settings = {"architecture": architecture("cnn"), "epochs": 2, "batch_size": BATCH, "optimizer": "sgd"}
    own = train_population(task, n_runs=3, first_run=2, targets=targets, chunk_size=2, **settings)
    for i, y in enumerate(targets):
        alone = train_population(Task(task.X, y, classes=[0, 1, 2]), n_runs=1, first_run=2 + i, **settings)
        np.testing.assert_allclose(rows(own)[i], rows(alone)[0], atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgld", "sghmc"])
def test_samplers_leave_statistics_to_the_batches(optimizer):
    """The count of batches is whole, and statistics are those that a norm alone would have: noise moves weights."""
    settings = {"architecture": architecture("cnn"), "epochs": 3, "batch_size": BATCH, "n_runs": 2}
    sampled = train_population(pixels(), optimizer=optimizer, weight_decay=0.5, learning_rate=1e-9, **settings)
    still = train_population(pixels(), optimizer="sgd", learning_rate=0.0, **settings)
    statistics = still.architecture.statistic_columns
    np.testing.assert_allclose(rows(sampled)[:, statistics], rows(still)[:, statistics], atol=1e-3)
    assert set(rows(sampled)[:, still.architecture.slices["2.num_batches_tracked"]].ravel()) == {15.0}
    learned = np.setdiff1d(np.arange(rows(still).shape[1]), statistics)
    assert (rows(sampled)[:, learned] != rows(still)[:, learned]).mean() > 0.9


# by name: on images of 8 x 8 pixels and 10 classes, with sizes counted by hand
NAMED = [("cnn:16,16,16", 4970, 0), ("resnet:4,8", 1382, 78), ("vit:8,1,2", 874, 0), ("mlp:8", 610, 0)]


@pytest.mark.parametrize(("name", "learned", "statistics"), NAMED)
def test_named_architectures_have_their_sizes_and_train(name, learned, statistics):
    task = load_task("digits")
    population = train_population(task, n_runs=2, architecture=name, steps=2, snapshots=2, snapshot_every=1)
    known = population.architecture
    assert len(known.statistic_columns) == statistics and known.n_weights == learned + statistics
    moved = rows(population)[1::2] != rows(population)[::2]
    weights = np.setdiff1d(np.arange(known.n_weights), known.statistic_columns)
    # but for pixels and units that are dark in all examples
    assert moved[:, weights].mean() > 0.7
    outputs = forward(torch.from_numpy(rows(population)), known, torch.from_numpy(task.X[:5]))
    assert outputs.shape == (4, 5, 10) and outputs.isfinite().all()


# what is trained, and what is refused


def test_a_module_begins_each_run_at_its_own_weights():
    """Where weights are those of a module, a rate of zero leaves them."""
    module = cnn(norm=False)
    settings = {"n_runs": 3, "learning_rate": 0.0, "epochs": 1}
    same = rows(train_population(pixels(), module=module, initialisation="module", **settings))
    state = module.state_dict()
    expected = np.concatenate([state[name].numpy().ravel() for name in state])
    np.testing.assert_array_equal(same, [expected] * 3)
    built = rows(train_population(pixels(), module=lambda: cnn(norm=False), **settings))
    assert len(np.unique(built[:, 0])) == 3
    again = rows(train_population(pixels(), module=lambda: cnn(norm=False), **{**settings, "first_run": 2}))
    np.testing.assert_array_equal(again[0], built[2])


def test_global_random_numbers_are_left_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    train_population(pixels(), n_runs=2, module=cnn, epochs=1)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


def growing():
    widths = iter(range(2, 9))

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(SIDE * SIDE, next(widths)), nn.Softmax(1))

    return build


def two_outputs() -> nn.Module:
    return nn.Sequential(nn.Linear(SIDE * SIDE, 2), nn.Softmax(1))


def pointwise() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (SIDE, SIDE)), nn.Linear(SIDE, 3))


REFUSED = [
    ({"hidden": [3], "module": cnn}, "one of 'hidden', 'architecture' and 'module', got 'hidden' and 'module'"),
    ({"architecture": "cnn:4", "module": cnn}, "got 'architecture' and 'module'"),
    ({"module": cnn, "activation": "relu"}, "'activation' .* does not go with 'module'"),
    ({"module": cnn, "image": (1, 6, 6)}, "'image' .* does not go with 'module'"),
    ({"hidden": [3], "image": (1, 6, 6)}, "'image' .* does not go with 'hidden'"),
    ({"architecture": "cnn:4", "activation_argument": 2.0}, "'activation_argument' .* does not go with 'architecture'"),
    ({"module": 3}, "a torch module, or a function"),
    ({"module": lambda: 3}, "builds a int, expected a torch.nn.Module"),
    ({"module": lambda x: x}, "cannot be called without arguments: TypeError"),
    ({"module": growing()}, r"two calls of 'module' build '0\.weight' of shapes \(2, 36\) and \(3, 36\)"),
    ({"module": two_outputs}, "3 classes"),
    ({"module": pointwise}, r"put out \(3, 6, 3\) for 3 examples"),
    ({"architecture": 3}, "an Architecture, or a name such as 'cnn:16,16,16'"),
    ({"architecture": Architecture.from_state_dict(cnn(norm=False).state_dict(), "relu")}, "how to run its networks"),
    ({"architecture": Architecture.mlp([5, 4, 3])}, "5 inputs"),
    ({"architecture": "cnn"}, "cnn:16,16,16"),
    ({"architecture": "cnn:"}, "sizes of 'cnn'"),
    ({"architecture": "cnn:4,,4"}, "sizes of 'cnn'"),
    ({"architecture": "cnn:4,-1"}, "sizes of 'cnn'"),
    ({"architecture": "cnn:4,0"}, "sizes of 'cnn'"),
    ({"architecture": "vit:8,2"}, "3 whole numbers"),
    ({"architecture": "gpt:8"}, "no named architecture 'gpt:8'"),
    ({"architecture": "cnn:4"}, "Say with 'image'"),
    ({"architecture": "cnn:4", "image": (1, 5, 6)}, "for 36 inputs of the task"),
    ({"architecture": "cnn:4", "image": (36,)}, "for 36 inputs of the task"),
    ({"architecture": "vit:8,1,2", "image": (1, 6, 6)}, "4 x 4 patches"),
    ({"architecture": "siren:4", "activation": "relu"}, "has sines"),
    ({"architecture": "mlp:4", "initialisation": "module"}, "pass module="),
    ({"architecture": "mlp:4", "initialisation": "siren_small"}, "'siren_small' is for linear layers with sines"),
    ({"architecture": "mlp:4", "steps": 0}, "'steps' .* whole number from 1 on"),
    ({"architecture": "mlp:4", "steps": (3, 4.5)}, "'steps' .* whole number from 1 on"),
    ({"architecture": "mlp:4", "data_fraction": (0, 1)}, "'data_fraction' .* above 0 and at most 1"),
    ({"architecture": "mlp:4", "dropout": (0, 1)}, r"'dropout' .* in \[0, 1\)"),
    ({"architecture": "mlp:4", "initialisation_scale": (0, 1)}, "'initialisation_scale'"),
    ({"architecture": "mlp:4", "activation": ["relu", "tanh"]}, "one population for each"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_what_cannot_be_trained_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        train_population(pixels(), n_runs=2, epochs=1, **settings)


def test_a_batch_of_one_example_has_no_variance():
    with pytest.raises(InvalidInputError, match="has one example: choose another 'batch_size'"):
        train_population(pixels(n=9), n_runs=1, architecture=architecture("residual"), epochs=1, batch_size=BATCH)


def test_a_run_that_diverges_is_named():
    task = Task(pixels().X, np.full((36, 3), 1e30), "mse")
    with pytest.raises(NumericalError, match=r"Run 4 \(and 1 more\) diverged in epoch 1"):
        train_population(task, n_runs=2, first_run=4, architecture=architecture("gru"), epochs=2)


def test_provenance_says_what_was_trained():
    task = load_task("digits")
    population = train_population(task, n_runs=1, architecture="cnn:4", steps=3)
    known = {name: population.provenance[name] for name in ("hidden", "architecture", "activation", "steps")}
    assert known == {"hidden": None, "architecture": "cnn:4", "activation": "relu", "steps": 3}
    json.dumps(population.provenance)
    assert population.architecture.module is None
