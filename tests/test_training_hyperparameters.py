"""What runs draw from ranges beside their rates: dropout, first weights, examples and numbers of steps."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch
from torch import nn

from wsflow import Architecture, Task
from wsflow.exceptions import InvalidInputError
from wsflow.populations import load_task
from wsflow.populations.dropout import with_rate
from wsflow.populations.training import train_population
from wsflow.running import forward, train_forward
from wsflow.running.initialisation import INITIALISATIONS


@pytest.fixture(scope="module")
def iris() -> Task:
    return load_task("iris")


def rows(population) -> np.ndarray:
    return np.asarray(population.weights)


def generators(n: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(n)]


# dropout


class Dropping(nn.Module):
    """A linear layer behind dropout of 2 channels with 4 pixels each."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.linear = layer, nn.Linear(8, 8, bias=False)

    def forward(self, x):
        return self.linear(self.layer(x.unflatten(1, (2, 2, 2))).flatten(1))


@pytest.mark.parametrize(("layer", "together"), [(nn.Dropout(0.3), 1), (nn.Dropout2d(0.3), 4)])
def test_each_network_drops_at_its_own_rate(layer, together):
    """Identity matrices show the masks: ones with probability 1 - p, over that, and the mean in evaluation."""
    architecture = with_rate(Architecture.from_module(Dropping(layer), torch.ones(3, 8)))
    weights, b = torch.eye(8).reshape(1, 64).repeat(3, 1), 2000
    kept = torch.tensor([0.5, 0.9, 1.0])
    outputs, _ = train_forward(weights, architecture, (torch.ones(b, 8), kept), generators(3))
    groups = outputs.reshape(3, b, -1, together)
    assert (groups == groups[..., :1]).all()
    for own, share in zip(groups[..., 0], kept, strict=True):
        np.testing.assert_allclose(own[own > 0], 1 / share, rtol=1e-6)
        assert abs((own > 0).float().mean() - share) <= 4 * (share * (1 - share) / own.numel()) ** 0.5
    # masks of different networks have nothing to do with each other
    both = ((groups[0, ..., 0] > 0) & (groups[1, ..., 0] > 0)).float().mean()
    assert abs(both - 0.45) < 4 * (0.45 * 0.55 / groups[0, ..., 0].numel()) ** 0.5
    np.testing.assert_array_equal(forward(weights, architecture, (torch.ones(b, 8), kept)), torch.ones(3, b, 8))


def test_perceptrons_drop_behind_their_activations():
    architecture = Architecture.mlp([2, 3, 3, 1], "relu")
    kept, inputs = torch.tensor([0.6, 1.0]), torch.ones(4000, 2)
    weights = torch.full((2, architecture.n_weights), 1.0)
    weights[:, architecture.slices["4.bias"]] = 0
    plain = forward(weights, architecture, inputs)
    outputs, _ = train_forward(weights, with_rate(architecture), (inputs, kept), generators(2))
    np.testing.assert_array_equal(outputs[1], plain[1])
    # the second hidden layer has 3 * 3 + 1 units of one, of which dropout keeps the mean: 10 each, 30 behind
    assert set(plain.flatten().tolist()) == {30.0}
    assert abs(outputs[0].mean() - 30) < 4 * outputs[0].std() / 4000**0.5
    assert len(outputs[0].unique()) > 10


def test_dropout_is_ridge_regression():
    """Inputs that are dropped at a rate p are a penalty p / (1 - p) diag(X'X) (Srivastava et al. 2014, section 9)."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    task = Task(X, X @ [[1.0], [-2.0], [0.5]] + 0.1 * rng.normal(size=(40, 1)), "mse")
    module = nn.Sequential(nn.Dropout(0.1), nn.Linear(3, 1, bias=False))
    settings = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.3, "schedule": "cosine", "batch_size": 40}
    population = train_population(task, n_runs=60, module=module, dropout=(0.0, 0.6), epochs=1500, **settings)
    rates = population.hyperparameters["dropout"]
    assert rates.min() < 0.1 < 0.5 < rates.max()
    gram = X.T @ X
    penalty = (rates / (1 - rates))[:, None, None] * np.diag(gram.diagonal())
    expected = np.linalg.solve(gram + penalty, np.broadcast_to(X.T @ task.y, (60, 3, 1)))[..., 0]
    error = (rows(population) - expected) / rates[:, None] ** 0.5
    assert np.abs(error).max() < 0.2 and np.abs(error.mean(0)).max() < 0.02
    # a penalty of half the size, or none, is told apart
    for factor in (0.5, 0.0):
        other = np.linalg.solve(gram + factor * penalty, np.broadcast_to(X.T @ task.y, (60, 3, 1)))[..., 0]
        assert np.abs(((rows(population) - other) / rates[:, None] ** 0.5).mean(0)).max() > 0.05


def test_what_a_run_drops_is_its_own(iris):
    settings = {"hidden": [6, 5], "epochs": 3, "activation": "tanh", "dropout": (0.1, 0.6)}
    together = train_population(iris, n_runs=5, **settings)
    np.testing.assert_allclose(
        rows(train_population(iris, n_runs=5, chunk_size=2, **settings)), rows(together), atol=2e-5
    )
    later = train_population(iris, n_runs=2, first_run=3, **settings)
    np.testing.assert_allclose(rows(later), rows(together)[3:], atol=2e-5)
    assert together.architecture == Architecture.mlp([4, 6, 5, 3], "tanh")


def test_a_rate_of_zero_is_no_dropout_and_none_is_that_of_the_module(iris):
    settings = {"hidden": [6], "epochs": 3, "activation": "tanh"}
    np.testing.assert_allclose(
        rows(train_population(iris, n_runs=2, dropout=0.0, **settings)),
        rows(train_population(iris, n_runs=2, **settings)),
        atol=2e-5,
    )
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 3))
    settings = {"module": module, "initialisation": "module", "epochs": 20}
    own = rows(train_population(iris, n_runs=2, **settings))
    without = rows(train_population(iris, n_runs=2, dropout=0.0, **settings))
    assert not np.allclose(own[0], own[1], atol=1e-3) and not np.allclose(own, without, atol=1e-2)


def test_networks_without_dropout_have_no_rate(iris):
    with pytest.raises(InvalidInputError, match=r"no layer of dropout .*nn\.Dropout"):
        train_population(iris, n_runs=2, module=nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)), dropout=0.1, epochs=1)


# first weights


def test_the_scale_multiplies_first_weights_but_for_norms(iris):
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.slope, self.last = (
                nn.Linear(4, 3),
                nn.BatchNorm1d(3),
                nn.PReLU(),
                nn.Linear(3, 3),
            )

        def forward(self, x):
            return self.last(self.slope(self.norm(self.first(x))))

    settings = {"module": Normed, "learning_rate": 0.0, "epochs": 1, "n_runs": 3}
    for initialisation in ("module", "torch", "kaiming", "normal"):
        plain = train_population(iris, initialisation=initialisation, **settings)
        scaled = train_population(iris, initialisation=initialisation, initialisation_scale=(0.5, 2.0), **settings)
        scale = scaled.hyperparameters["initialisation_scale"]
        for name, columns in plain.architecture.slices.items():
            own = name.startswith(("first", "last"))
            factor = scale[:, None] if own else 1.0
            if "running" not in name:
                np.testing.assert_allclose(rows(scaled)[:, columns], factor * rows(plain)[:, columns], rtol=1e-5)
        assert (plain.weights[:, plain.architecture.slices["norm.weight"]] == 1).all()
    assert len(set(scale)) == 3


# examples


def test_a_fraction_of_the_data_is_a_task_of_these_examples():
    """Linear regression on the examples that a run has: the least squares of some fifth of them, as many steps."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 2))
    task = Task(X, rng.normal(size=(50, 1)), "mse")
    settings = {"hidden": [], "optimizer": "sgd", "learning_rate": 0.1, "schedule": "cosine", "batch_size": 50}
    population = train_population(task, n_runs=4, data_fraction=0.2, epochs=800, **settings)
    design = np.hstack([X, np.ones((50, 1))])
    for run, row in enumerate(rows(population)):
        own = np.random.default_rng((0, run, 3)).permutation(50)[:10]
        expected = np.linalg.lstsq(design[own], task.y[own], rcond=None)[0][:, 0]
        np.testing.assert_allclose(row, expected, atol=1e-6)
    assert len(np.unique(rows(population).round(4), axis=0)) == 4


def test_every_example_of_a_run_comes_equally_often():
    """A weight that all gradients of one move by its example's number counts them."""
    X = np.eye(12)
    task = Task(X, np.ones((12, 1)), "mse")
    settings = {"hidden": [], "optimizer": "sgd", "learning_rate": 1e-6, "momentum": 0.0, "batch_size": 4}
    before = train_population(task, n_runs=3, epochs=1, **{**settings, "learning_rate": 0.0})
    after = train_population(task, n_runs=3, data_fraction=(0.25, 1.0), epochs=4, **settings)
    assert set(after.weights.steps) == {12}
    fractions = after.hyperparameters["data_fraction"]
    moved = rows(after)[:, :12] - rows(before)[:, :12]
    for own, fraction in zip(moved, fractions, strict=True):
        seen = np.abs(own) > 0
        assert seen.sum() == np.ceil(fraction * 12)


# numbers of steps


def test_runs_end_after_their_own_number_of_steps(iris):
    """Each is the run with this number for all, and snapshots are the last ones of each."""
    settings = {"hidden": [4], "activation": "tanh", "batch_size": 32, "snapshots": 2, "schedule": "cosine"}
    population = train_population(iris, n_runs=6, steps=(8, 40), random_state=2, **settings)
    steps = population.hyperparameters["steps"][::2].astype(int)
    assert len(set(steps)) > 3
    np.testing.assert_array_equal(population.weights.steps, np.stack([steps - 4, steps], 1).ravel())
    for run, n in enumerate(steps):
        alone = train_population(iris, n_runs=1, first_run=run, steps=int(n), random_state=2, **settings)
        np.testing.assert_allclose(rows(alone), rows(population)[2 * run : 2 * run + 2], atol=2e-5)


def test_steps_are_those_of_epochs(iris):
    settings = {"hidden": [4], "n_runs": 2, "batch_size": 32, "optimizer": "sghmc"}
    epochs = train_population(iris, epochs=3, **settings)
    steps = train_population(iris, steps=12, **settings)
    np.testing.assert_array_equal(rows(steps), rows(epochs))
    assert steps.weights.steps.tolist() == [12, 12]


def test_less_than_an_epoch_is_trained(iris):
    settings = {"hidden": [4], "n_runs": 2, "batch_size": 32}
    short = train_population(iris, steps=2, **settings)
    longer = train_population(iris, steps=3, snapshots=2, snapshot_every=1, **settings)
    np.testing.assert_array_equal(rows(short), rows(longer)[::2])
    seen: list[tuple[int, int]] = []
    train_population(iris, steps=6, progress=lambda *done: seen.append(done), **settings)
    assert seen == [(2, 4), (4, 4)]


def test_everything_that_is_drawn_is_in_the_hyperparameters_and_changes_nothing_else(iris):
    ranges = {
        "learning_rate": (1e-3, 1e-2), "momentum": (0.1, 0.9), "weight_decay": (1e-5, 1e-3), "temperature": (0.1, 1.0),
        "initialisation_scale": (0.5, 2.0), "dropout": (0.0, 0.5), "data_fraction": (0.3, 1.0), "steps": (5, 20),
    }  # fmt: skip
    settings = {"hidden": [4], "optimizer": "sghmc", "activation": "tanh"}
    population = train_population(iris, n_runs=4, **ranges, **settings)
    known = population.hyperparameters
    assert list(known) == list(ranges)
    run = 2
    own = {name: int(values[run]) if name == "steps" else float(values[run]) for name, values in known.items()}
    alone = train_population(iris, n_runs=1, first_run=run, **own, **settings)
    np.testing.assert_allclose(rows(alone)[0], rows(population)[run], atol=2e-5)


# the first weights of torch's layers


class Sequence(nn.Module):
    """Embeddings with padding, positions, attention, a gain and a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8, padding_idx=1)
        self.positions = nn.Parameter(torch.randn(1, 5, 8) * 0.02)
        self.gain = nn.Parameter(torch.ones(8))
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.recurrent, self.head = nn.LSTM(8, 6, num_layers=2, batch_first=True), nn.Linear(6, 2)

    def forward(self, x):
        h = self.encoder(self.embed(x) + self.positions[:, : x.shape[1]]) * self.gain
        return self.head(self.recurrent(h)[0][:, -1])


class Images(nn.Module):
    """Convolutions of all kinds with norms."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.ConvTranspose2d(4, 6, 3), nn.GroupNorm(2, 6),
            nn.ReLU(), nn.Conv2d(6, 6, 3, groups=2), nn.InstanceNorm2d(6, affine=True), nn.Flatten(), nn.LayerNorm(96),
        )  # fmt: skip
        self.head = nn.Linear(96, 2)

    def forward(self, x):
        return self.head(self.layers(x))


class Products(nn.Module):
    """Linear layers by products of one's own, and a bilinear one."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.empty(5, 6).uniform_(-(5**-0.5), 5**-0.5))
        self.bilinear, self.head = nn.Bilinear(6, 3, 4), nn.Linear(4, 2)
        self.side = nn.Linear(5, 3, bias=False)

    def forward(self, x):
        return self.head(self.bilinear((x @ self.own).tanh(), self.side(x)))


BUILT = {
    "sequence": (Sequence, torch.arange(15).reshape(3, 5) % 7),
    "images": (Images, torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(0))),
    "products": (Products, torch.randn(3, 5, generator=torch.Generator().manual_seed(0))),
}


@functools.cache
def architecture(kind: str) -> Architecture:
    """Read a module of a kind, once for all tests."""
    build, example = BUILT[kind]
    return Architecture.from_module(build(), example)


def different(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import ks_2samp

    return float(ks_2samp(a, b).pvalue)


@pytest.mark.parametrize("kind", BUILT)
def test_torch_s_own_first_weights_have_the_same_law(kind):
    """The same bounds, the same constants, and no difference that Kolmogorov and Smirnov would see."""
    build, _ = BUILT[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        modules = [build() for _ in range(60)]
    known = architecture(kind)
    drawn = INITIALISATIONS["torch"](known, 60, torch.Generator().manual_seed(1)).numpy()
    for parameter in known.parameters:
        theirs = np.stack([module.state_dict()[parameter.name].numpy().ravel() for module in modules]).astype(
            np.float32
        )
        ours = drawn[:, known.slices[parameter.name]]
        constant = (theirs == theirs[0]).all(0)
        np.testing.assert_array_equal(ours[:, constant], theirs[:, constant], err_msg=parameter.name)
        if not constant.all():
            assert different(ours[:, ~constant].ravel(), theirs[:, ~constant].ravel()) > 1e-4, parameter.name
            if np.abs(theirs).max() < 0.9:
                np.testing.assert_allclose(np.abs(ours).max(), np.abs(theirs).max(), rtol=0.25, err_msg=parameter.name)


def test_kaiming_has_variance_two_over_fan_in():
    known = architecture("images")
    drawn = INITIALISATIONS["kaiming"](known, 400, torch.Generator().manual_seed(0)).numpy()
    expected = {"layers.0.weight": 2 / 9, "layers.6.weight": 2 / 27, "head.weight": 2 / 96, "layers.0.bias": 0.0}
    for name, variance in expected.items():
        values = drawn[:, known.slices[name]]
        assert abs(values.var() - variance) <= 4 * variance * (2 / values.size) ** 0.5
    for name, constant in (("layers.1.weight", 1), ("layers.4.bias", 0), ("layers.1.running_var", 1)):
        assert (drawn[:, known.slices[name]] == constant).all()


@pytest.mark.parametrize("scheme", ["kaiming", "normal", "torch", "uniform"])
def test_norms_begin_at_one_and_zero_in_every_scheme(scheme):
    known = architecture("images")
    drawn = INITIALISATIONS[scheme](known, 3, torch.Generator().manual_seed(0)).numpy()
    for layer in (1, 4, 7, 9):
        assert (drawn[:, known.slices[f"layers.{layer}.weight"]] == 1).all()
        assert (drawn[:, known.slices[f"layers.{layer}.bias"]] == 0).all()
    assert (drawn[:, known.slices["layers.1.running_mean"]] == 0).all()
    assert (drawn[:, known.slices["layers.1.running_var"]] == 1).all()


def test_small_sirens_begin_nearly_flat():
    """W1 ~ U(-.058, .058), biases of zero, and outputs around one half."""
    from wsflow.populations.builders import siren

    task = Task(np.zeros((3, 2)), np.zeros((3, 1)), "mse")
    architecture = siren((32, 32), task, "sine")
    drawn = INITIALISATIONS["siren_small"](architecture, 200, torch.Generator().manual_seed(0))
    first = drawn[:, architecture.slices["0.weight"]]
    assert 0.0575 < first.abs().max() <= 3**0.5 / 30
    assert (drawn[:, architecture.slices["0.bias"]] == 0).all() and (
        drawn[:, architecture.slices["4.bias"]] == 0.5
    ).all()
    outputs = forward(drawn, architecture, torch.rand(50, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1)
    assert abs(outputs.mean() - 0.5) < 0.02


def test_a_parameter_whose_use_says_nothing_is_named(iris):
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.odd, self.head = nn.Parameter(torch.ones(4)), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(torch.maximum(x, self.odd))

    with pytest.raises(ValueError, match="'odd' is used for does not say how it begins"):
        train_population(iris, n_runs=1, module=Odd(), epochs=1)
    population = train_population(iris, n_runs=2, module=Odd, epochs=1, learning_rate=0.0)
    assert (population.weights[:, population.architecture.slices["odd"]] == 1).all()
    assert dataclasses.replace(population.architecture, module=None).program is not None
