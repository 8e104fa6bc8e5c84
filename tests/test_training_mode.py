"""Programs in training mode: dropout in all its forms, batch statistics, and a batch of its own for each network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsflow import Architecture, WeightArray
from wsflow.exceptions import InvalidInputError
from wsflow.running import forward, train_forward

IMAGES = torch.zeros(2, 1, 4, 4)
N = 3000


class Elsewhere(nn.Module):
    """A function of its input that acts in training mode."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Numbers to numbers."""
        return self.function(x) if self.training else x


def stochastic_depth(x: Tensor) -> Tensor:
    """Leave out the whole of an example, as torchvision does."""
    noise = torch.empty((x.shape[0], 1, 1, 1), dtype=x.dtype, device=x.device).bernoulli_(0.7)
    return x * noise.div_(0.7)


def drop_path(x: Tensor) -> Tensor:
    """Leave out the whole of an example, as the first papers' code does."""
    mask = 0.7 + torch.rand((x.shape[0], 1, 1, 1), dtype=x.dtype, device=x.device)
    return x.div(0.7) * mask.floor_()


def compared(x: Tensor) -> Tensor:
    """Keep numbers where a uniform one is small."""
    return x * (torch.rand_like(x) < 0.7) / 0.7


class Functional(nn.Module):
    """Dropout without a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Numbers to numbers."""
        return F.dropout(x, 0.3, self.training)


class Attention(nn.Module):
    """Dropout of the weights of attention, over rows of pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """Images to images."""
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.3 if self.training else 0.0)


DROPOUTS: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: nn.Dropout(0.3),
    "in place": lambda: nn.Dropout(0.3, inplace=True),
    "channels": lambda: nn.Dropout2d(0.3),
    "alpha": lambda: nn.AlphaDropout(0.3),
    "alpha of channels": lambda: nn.FeatureAlphaDropout(0.3),
    "functional": Functional,
    "attention": Attention,
    "stochastic depth": lambda: Elsewhere(stochastic_depth),
    "drop path": lambda: Elsewhere(drop_path),
    "compared": lambda: Elsewhere(compared),
    "noise": lambda: Elsewhere(lambda x: x + 0.3 * torch.randn_like(x)),
    "probabilities": lambda: Elsewhere(lambda x: x * torch.bernoulli(torch.full_like(x, 0.7)) / 0.7),
    "random slopes": nn.RReLU,
}


@cache
def _read(name: str) -> tuple[nn.Module, Architecture, Tensor]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), DROPOUTS[name](), nn.Flatten()).double()
    architecture = Architecture.from_module(network, IMAGES)
    rows = torch.from_numpy(np.asarray(WeightArray.from_modules([network], architecture)))
    return network, Architecture.from_json(architecture.to_json()), rows


@pytest.mark.parametrize("name", DROPOUTS)
def test_what_is_drawn_has_the_moments_of_the_module(name: str) -> None:
    """Means and covariances over draws: n networks of the same weights, and n times the same example."""
    network, parsed, rows = _read(name)
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    outputs, statistics = train_forward(rows.expand(N, -1), parsed, x, torch.Generator().manual_seed(2))
    assert statistics.shape == (N, 0)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        theirs = copy.deepcopy(network).train()(x.expand(N, -1, -1, -1))
    ours = outputs[:, 0]
    # six standard errors of a difference
    error = 6 * (theirs.var(0) / N * 2).sqrt()
    assert bool(((ours.mean(0) - theirs.mean(0)).abs() <= error + 1e-12).all())
    torch.testing.assert_close(ours.T.cov(), theirs.T.cov(), rtol=0, atol=0.15 * float(theirs.var(0).max()))
    assert len(ours.unique(dim=0)) > (1 if "depth" in name or "path" in name else 4)


@pytest.mark.parametrize("name", DROPOUTS)
def test_evaluation_mode_is_that_of_the_module(name: str) -> None:
    network, parsed, rows = _read(name)
    x = torch.randn(5, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert parsed.program is not None
    assert parsed.program.evaluation_only == ""
    with torch.no_grad():
        expected = copy.deepcopy(network).eval()(x)
    torch.testing.assert_close(forward(rows, parsed, x)[0], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["dropout", "attention", "drop path", "noise"])
def test_draws_follow_the_generator_and_networks_have_their_own(name: str) -> None:
    _, parsed, rows = _read(name)
    x = torch.randn(24, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rows = rows.expand(5, -1)
    before = torch.get_rng_state()
    first, again, other = (
        forward(rows, parsed, x, training=True, generator=torch.Generator().manual_seed(seed)) for seed in (7, 7, 8)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(not torch.equal(first[0], network) for network in first[1:])
    # with a generator for each network, what it draws does not depend on the others
    together = forward(
        rows, parsed, x, training=True, generator=[torch.Generator().manual_seed(seed) for seed in range(5)]
    )
    alone = forward(rows[:1], parsed, x, training=True, generator=[torch.Generator().manual_seed(3)])
    torch.testing.assert_close(together[3:4], alone, rtol=1e-12, atol=1e-12)
    assert torch.equal(before, torch.get_rng_state())


class Normed(nn.Module):
    """Norms with running statistics, with a mean over all batches, and without; dropout of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.instance = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
        self.linear, self.cumulative = nn.Linear(4 * 9, 8), nn.BatchNorm1d(8, momentum=None)
        self.batch, self.dropout = nn.BatchNorm1d(8, affine=False, track_running_stats=False), nn.Dropout(0.0)
        self.frozen, self.out = nn.BatchNorm1d(8), nn.Linear(8, 3)

    def train(self, mode: bool = True) -> Normed:
        """Leave the frozen norm in evaluation mode."""
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        x = self.cumulative(self.linear(self.instance(self.norm(self.conv(x))).relu().flatten(1)))
        return self.out(self.dropout(self.frozen(self.batch(x))))


@cache
def _normed() -> tuple[list[nn.Module], Architecture, Tensor]:
    torch.manual_seed(0)
    networks: list[nn.Module] = [Normed().double() for _ in range(3)]
    architecture = Architecture.from_module(networks[0], torch.zeros(2, 3, 5, 5))
    rows = torch.from_numpy(np.asarray(WeightArray.from_modules(networks, architecture)))
    return networks, Architecture.from_json(architecture.to_json()), rows


def test_norms_follow_the_batch_and_update_their_statistics_as_torch_does() -> None:
    networks, parsed, rows = _normed()
    networks, rows = [copy.deepcopy(network).train() for network in networks], rows.clone()
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        # a batch of its own for each network
        x = torch.randn(3, 6, 3, 5, 5, dtype=torch.float64, generator=generator)
        outputs, statistics = train_forward(rows, parsed, x)
        expected = torch.stack([network(own) for network, own in zip(networks, x, strict=True)])
        torch.testing.assert_close(outputs, expected, rtol=1e-9, atol=1e-9)
        rows[:, parsed.statistic_columns] = statistics
    theirs = torch.from_numpy(np.asarray(WeightArray.from_modules(networks, parsed)))
    torch.testing.assert_close(rows, theirs, rtol=1e-9, atol=1e-9)


def test_gradients_in_training_mode_are_those_of_the_modules() -> None:
    networks, parsed, rows = _normed()
    networks, rows = [copy.deepcopy(network).train() for network in networks], rows.clone().requires_grad_()
    x = torch.randn(3, 6, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(train_forward(rows, parsed, x)[0].square().sum(), rows)
    for row, network, own in zip(gradient, networks, x, strict=True):
        network(own).square().sum().backward()
        for name, parameter in network.named_parameters():
            ours = row[parsed.slices[name]].reshape(parameter.shape)
            torch.testing.assert_close(ours, parameter.grad, rtol=1e-8, atol=1e-8)


def test_one_input_for_all_networks_is_that_input_for_each() -> None:
    _, parsed, rows = _normed()
    x = torch.randn(6, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for training in (False, True):
        shared = forward(rows, parsed, x, training=training)
        own = forward(rows, parsed, x.expand(3, *x.shape), training=training)
        torch.testing.assert_close(shared, own, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 5, 5), (2, 6, 3, 5, 5), (1, 3, 6, 3, 5, 5)])
def test_an_input_of_another_number_of_axes_is_refused(shape: tuple[int, ...]) -> None:
    _, parsed, rows = _normed()
    with pytest.raises(InvalidInputError, match=r"4 axes, as in \(2, 3, 5, 5\), or one more of 3"):
        forward(rows, parsed, torch.zeros(shape, dtype=torch.float64))


def test_draws_need_a_generator() -> None:
    _, parsed, rows = _read("dropout")
    with pytest.raises(InvalidInputError, match=r"the layer '1' draws random numbers \(dropout\).*generator"):
        train_forward(rows, parsed, IMAGES.double())


class Gumbel(nn.Module):
    """Noise whose mean is not what evaluation mode has."""

    def forward(self, x: Tensor) -> Tensor:
        """Numbers to numbers."""
        return F.gumbel_softmax(x) if self.training else x.softmax(-1)


class Loud(nn.Module):
    """What is no noise, and acts in training mode only."""

    def forward(self, x: Tensor) -> Tensor:
        """Numbers to numbers."""
        return 2 * x + torch.rand_like(x) if self.training else x


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (Gumbel, "exponential"),
        (Loud, "more than dropout and batch statistics; random numbers are drawn in '1'"),
        (lambda: Elsewhere(lambda x: 2 * x), "more than dropout and batch statistics"),
    ],
)
def test_what_has_no_training_mode_says_why(layer: Callable[[], nn.Module], why: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), layer(), nn.Linear(4, 2))
    architecture = Architecture.from_module(network, torch.zeros(2, 3))
    parsed = Architecture.from_json(architecture.to_json())
    rows = torch.from_numpy(np.array(WeightArray.from_modules([network], architecture)))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(forward(rows, parsed, x)[0], network.eval()(x))
    with pytest.raises(InvalidInputError, match=f"evaluation mode only: .*{why}"):
        train_forward(rows, parsed, x, torch.Generator())


def test_perceptrons_are_run_by_a_program_as_well() -> None:
    architecture = Architecture.mlp([4, 5, 2], "tanh")
    rows = torch.randn(3, architecture.n_weights, generator=torch.Generator().manual_seed(0))
    x = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(1))
    outputs, statistics = train_forward(rows, architecture, x)
    assert statistics.shape == (3, 0)
    for row, own, output in zip(rows, x, outputs, strict=True):
        module = WeightArray(row[None].numpy(), architecture).to_modules()[0]
        torch.testing.assert_close(output, module(own))


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(4), nn.InstanceNorm2d(4, affine=True), nn.BatchNorm2d(4, affine=False)]
)
def test_norms_of_batches_are_differentiable_twice_and_under_transforms(layer):
    """In training mode, against central differences."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), layer, nn.Tanh(), nn.Flatten(), nn.Linear(16, 2)).double()
    architecture = Architecture.from_module(module, IMAGES.double())
    weights = torch.from_numpy(np.array(WeightArray.from_modules([module, copy.deepcopy(module)], architecture)))
    weights[1] += 0.1 * torch.rand_like(weights[1])
    X, v = torch.randn(6, 1, 4, 4).double(), torch.randn_like(weights)

    def outputs(w: Tensor) -> Tensor:
        return forward(w, architecture, X, training=True)

    def gradient(w: Tensor) -> Tensor:
        return torch.func.grad(lambda w: outputs(w).square().sum())(w)

    for function in (outputs, gradient):
        _, found = torch.func.jvp(function, (weights,), (v,))
        expected = (function(weights + 1e-6 * v) - function(weights - 1e-6 * v)) / 2e-6
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    steps = torch.tensor([0.0, 0.1]).double()
    several = torch.func.vmap(lambda step: outputs(weights + step * v))(steps)
    torch.testing.assert_close(several, torch.stack([outputs(weights + step * v) for step in steps]))
