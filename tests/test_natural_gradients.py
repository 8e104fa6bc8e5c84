"""Natural gradients by K-FAC, and standardizing, for every kind of network that runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kinds import KINDS, read, rows, task_of
from torch import Tensor, nn

from wsflow import Architecture, Task
from wsflow.geometry import GEOMETRIES
from wsflow.objectives.functionals import TaskLoss
from wsflow.objectives.kfac import NaturalGradient
from wsflow.objectives.lsuv import standardized
from wsflow.running import forward, unflatten
from wsflow.running.affine import Affine
from wsflow.running.affine_layers import AffineLayers, Compute

GENERATOR_SEED = 0


def generator(seed: int = GENERATOR_SEED) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def natural(architecture: Architecture, task: Task, damping: float) -> NaturalGradient:
    geometry = GEOMETRIES["euclidean"](architecture)
    return NaturalGradient(TaskLoss(task), architecture, geometry, damping, generator())


def gauss_newton(row: Tensor, architecture: Architecture, task: Task) -> Tensor:
    """1/b sum_n J_n^T H_n J_n (d, d) of one network (d,), from its Jacobian."""
    inputs = torch.from_numpy(task.X)
    inputs = inputs.double() if inputs.is_floating_point() else inputs

    def outputs(w: Tensor) -> Tensor:
        return forward(w[None], architecture, inputs)[0]

    jacobian = torch.func.jacrev(outputs)(row)
    root = torch.stack(task.criterion.curvature_root(outputs(row)[None]), -1)[0]
    return torch.einsum("bkd,bkc,blc,ble->de", jacobian, root, root, jacobian) / len(inputs)


CONVOLUTIONS = {
    "1d": nn.Conv1d(2, 3, 3, stride=2, padding=1),
    "2d": nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(2, 0), dilation=(2, 1), groups=2),
    "2d same": nn.Conv2d(2, 3, (3, 4), padding="same", dilation=2, bias=False),
    "3d": nn.Conv3d(2, 3, 2, padding="valid"),
    "depthwise": nn.Conv2d(2, 6, 3, groups=2),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_a_matrix_on_patches(name: str) -> None:
    layer = CONVOLUTIONS[name]
    settings = {key: getattr(layer, key) for key in ("stride", "padding", "dilation", "groups")}
    affine = Affine("w", "b", len(layer.kernel_size), settings)
    x = torch.randn(2, 5, 2, *[7] * affine.spatial, generator=generator())
    patches = affine.input_rows(x, layer.weight.shape)
    weight = layer.weight.reshape(1, affine.groups, -1, patches.shape[-1])
    with torch.no_grad():
        outputs = torch.stack([layer(each) for each in x])
        found = patches @ weight.transpose(-2, -1)
        if layer.bias is not None:
            found = found + layer.bias.reshape(1, affine.groups, 1, -1)
    torch.testing.assert_close(found, affine.output_rows(outputs), rtol=1e-5, atol=1e-5)


class OneConvolution(nn.Module):
    """Outputs of a convolution, one for each channel and pixel."""

    def __init__(self, channels: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, 2, 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images to their flattened channels."""
        return self.layer(x).flatten(1)


class TestExactness:
    def test_the_step_of_one_convolution_is_newtons(self) -> None:
        """Pixels of a convolution's output are independent outputs under squared errors: the expansion is exact."""
        x = torch.randn(20, 1, 4, 4, generator=generator(), dtype=torch.float64)
        architecture = Architecture.from_module(OneConvolution(), x[:2].float())
        task = Task(x.numpy(), torch.randn(20, 18, generator=generator(1)).numpy(), loss="mse")
        w = torch.randn(3, architecture.n_weights, generator=generator(2), dtype=torch.float64)
        found = natural(architecture, task, 1e-20)(w)
        gradient = torch.func.grad(lambda v: TaskLoss(task).bind(architecture, generator())(v).sum())(w)
        expected = [
            torch.linalg.solve(gauss_newton(r, architecture, task), g) for r, g in zip(w, gradient, strict=True)
        ]
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-7, atol=1e-8)

    @pytest.mark.parametrize("name", ["SIREN", "CNN", "linear"])
    def test_with_one_example_linear_layers_have_their_blocks_of_the_gauss_newton_matrix(self, name: str) -> None:
        if name == "linear":
            net = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Linear(4, 3))
            architecture = Architecture.from_module(net, KINDS["CNN"].inputs(2))
            w = torch.randn(1, architecture.n_weights, generator=generator(3), dtype=torch.float64) / 4
        else:
            architecture, w = read(name), rows(name)[:1]
        full = task_of("CNN" if name == "linear" else name)
        task = Task(full.X[:1], full.y[:1], loss=full.loss, **({} if full.loss == "mse" else {"classes": [0, 1, 2]}))
        slope = natural(architecture, task, 0.1)
        slope(w)
        exact = gauss_newton(w[0], architecture, task)
        checked = 0
        for weight, factors in slope.factors.items():
            if factors.layer.spatial:
                continue
            checked += 1
            columns = np.arange(architecture.n_weights)[architecture.slices[weight]].reshape(factors.back.shape[2], -1)
            bias = np.arange(architecture.n_weights)[architecture.slices[factors.layer.bias]]
            columns = np.concatenate([columns, bias[:, None]], 1).ravel()
            into = factors.into
            if into is None:
                values, vectors = factors.spectrum
                into = (vectors * values.unsqueeze(-2)) @ vectors.transpose(-2, -1)
            block = torch.kron(factors.back[0, 0], into[0, 0])
            torch.testing.assert_close(block, exact[np.ix_(columns, columns)], rtol=1e-6, atol=1e-9)
        assert checked == {"SIREN": 3, "CNN": 1, "linear": 2}[name]

    def test_with_one_example_other_parameters_have_their_diagonal(self) -> None:
        architecture, full = read("transformer"), task_of("transformer")
        task = Task(full.X[:1], full.y[:1], classes=[0, 1, 2])
        w = rows("transformer")[:1]
        slope = natural(architecture, task, 0.1)
        found = unflatten(slope(w), architecture)
        gradient = unflatten(
            torch.func.grad(lambda v: TaskLoss(task).bind(architecture, generator())(v).sum())(w), architecture
        )
        exact = unflatten(gauss_newton(w[0], architecture, task).diagonal()[None], architecture)
        others = [name for name in architecture.names if "norm" in name or name in ("token.weight", "position")]
        assert len(others) == 8
        for name in others:
            torch.testing.assert_close(found[name], gradient[name] / (exact[name] + 0.1), rtol=1e-8, atol=1e-10)

    def test_diagonals_are_unbiased_with_weights_of_examples(self) -> None:
        """Their mean over random signs is the exact diagonal."""
        net = nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 2))
        x = torch.randn(6, 3, generator=generator())
        architecture = Architecture.from_module(net, x[:2])
        share = np.array([1.0, 2, 3, 1, 2, 3])
        task = Task(x.numpy(), np.arange(6) % 2, sample_weight=share)
        w = torch.randn(1, architecture.n_weights, generator=generator(1), dtype=torch.float64)
        slope, seen = natural(architecture, task, 0.1), []
        for _ in range(300):
            slope.diagonal = None
            slope(w)
            seen.append(unflatten(slope.diagonal, architecture)["0.weight"][0])
        seen = torch.stack(seen)
        each = [gauss_newton(w[0], architecture, Task(task.X[[i]], task.y[[i]], classes=[0, 1])) for i in range(6)]
        exact = sum(s * g for s, g in zip(share / share.mean() / 6, each, strict=True)).diagonal()
        error = seen.std(0) / len(seen) ** 0.5
        assert ((seen.mean(0) - exact[architecture.slices["0.weight"]]).abs() < 4 * error).all()


class Functional(nn.Module):
    """A plain MLP that is no nn.Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Features to logits."""
        return self.b(torch.tanh(self.a(x)))


class TestSteps:
    def test_a_program_takes_the_steps_of_the_list_of_layers(self) -> None:
        x = torch.randn(30, 4, generator=generator())
        task = Task(x.numpy(), np.arange(30) % 2)
        w = torch.randn(3, 23, generator=generator(1), dtype=torch.float64)
        program = Architecture.from_module(Functional(), x[:2])
        assert not program.layers
        found = [natural(a, task, 0.1)(w) for a in (program, Architecture.mlp([4, 3, 2], "tanh"))]
        torch.testing.assert_close(*found, rtol=1e-8, atol=1e-10)
        new = [standardized(w, a, x.double()) for a in (program, Architecture.mlp([4, 3, 2], "tanh"))]
        torch.testing.assert_close(*new, rtol=1e-10, atol=1e-12)

    def test_a_convolutions_step_does_not_see_a_linear_change_of_its_input_channels(self) -> None:
        x = torch.randn(30, 2, 3, 3, generator=generator(), dtype=torch.float64)
        y = torch.randn(30, 8, generator=generator(1)).numpy()
        architecture = Architecture.from_module(OneConvolution(2, bias=False), x[:2].float())
        change = torch.tensor([[5.0, 1.0], [0.3, 0.2]], dtype=torch.float64)
        w = torch.randn(2, architecture.n_weights, generator=generator(2), dtype=torch.float64)
        other = torch.einsum("nqchw,cd->nqdhw", w.reshape(2, 2, 2, 2, 2), torch.linalg.inv(change)).reshape(2, -1)
        moved = []
        for inputs, weights in ((x, w), (torch.einsum("dc,bchw->bdhw", change, x), other)):
            slope = natural(architecture, Task(inputs.numpy(), y, loss="mse"), 1e-24)
            moved.append(forward(weights - slope(weights), architecture, inputs))
        torch.testing.assert_close(moved[0], moved[1], rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("name", KINDS)
    def test_each_network_descends_by_itself_and_steeper_than_by_its_gradient(self, name: str) -> None:
        architecture, task, w = read(name), task_of(name), rows(name)
        direction = natural(architecture, task, 0.01)(w)
        alone = natural(architecture, task, 0.01)(w[1:2])
        torch.testing.assert_close(direction[1:2], alone, rtol=1e-7, atol=1e-9)
        loss = TaskLoss(task).bind(architecture, generator())
        gradient = torch.func.grad(lambda v: loss(v).sum())(w)
        # what both win per change of the outputs, as a share of the loss, to first order
        gains = []
        for step in (direction, gradient):
            curvature = torch.stack([s @ gauss_newton(r, architecture, task) @ s for r, s in zip(w, step, strict=True)])
            gains.append((gradient * step).sum(1) / curvature.sqrt())
        assert (gains[0] > 0).all() and gains[0].mean() > gains[1].mean()
        assert (loss(w - 0.05 * direction) < loss(w)).all()


class TestStandardizing:
    @pytest.mark.parametrize("name", KINDS)
    def test_layers_put_out_what_was_asked_for_in_the_order_of_execution(self, name: str) -> None:
        architecture, inputs = read(name), KINDS[name].inputs(50)
        inputs = inputs.double() if inputs.is_floating_point() else inputs
        new = standardized(3 * rows(name), architecture, inputs, 0.3)
        layers, kept = AffineLayers(architecture, inputs[:2]), {}

        def keep(i: int, affine: Affine, x: Tensor, weight: Tensor, bias: Tensor | None, compute: Compute) -> Tensor:
            # a layer that is used twice has the scale of its first use
            return (
                kept.setdefault(affine.weight, compute(weight, bias))
                if affine.weight not in kept
                else compute(weight, bias)
            )

        layers.run(new, inputs, keep)
        assert set(architecture.outputs) & kept.keys()
        for use in layers.uses:
            found = kept[use.affine.weight]
            var, mean = torch.var_mean(found, use.affine.sample_axes(found), correction=0)
            if use.affine.weight in architecture.outputs:
                torch.testing.assert_close(var.mean(1).sqrt(), torch.full((3,), 0.3).double())
            else:
                torch.testing.assert_close(var, torch.ones_like(var), rtol=1e-8, atol=1e-8)
            if use.affine.bias:
                torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-9)

    def test_transposed_convolutions_are_rescaled_by_their_output_channels(self) -> None:
        layers = (nn.ConvTranspose2d(2, 4, 2, 2, groups=2), nn.Tanh(), nn.Conv2d(4, 1, 1), nn.Flatten())
        x = torch.randn(9, 2, 3, 3, generator=generator(), dtype=torch.float64)
        architecture = Architecture.from_module(nn.Sequential(*layers), x[:2].float())
        w = torch.randn(2, architecture.n_weights, generator=generator(1), dtype=torch.float64)
        state = unflatten(standardized(w, architecture, x), architecture)
        for weight, bias in zip(state["0.weight"], state["0.bias"], strict=True):
            var, mean = torch.var_mean(
                nn.functional.conv_transpose2d(x, weight, bias, 2, groups=2), (0, 2, 3), correction=0
            )
            torch.testing.assert_close(var, torch.ones_like(var))
            torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-9)

    def test_weights_that_are_an_embedding_too_stay(self) -> None:
        class Tied(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.token, self.inner = nn.Embedding(5, 4), nn.Linear(4, 4)

            def forward(self, tokens: Tensor) -> Tensor:
                return nn.functional.linear(torch.tanh(self.inner(self.token(tokens))), self.token.weight).mean(1)

        tokens = torch.randint(5, (8, 3), generator=generator())
        architecture = Architecture.from_module(Tied(), tokens[:2])
        w = torch.randn(2, architecture.n_weights, generator=generator(1), dtype=torch.float64)
        before, after = (unflatten(v, architecture) for v in (w, standardized(w, architecture, tokens)))
        assert torch.equal(before["token.weight"], after["token.weight"])
        assert not torch.equal(before["inner.weight"], after["inner.weight"])


def test_networks_that_do_not_run_are_refused() -> None:
    state = {"conv.weight": torch.zeros(2, 1, 3, 3), "fc.weight": torch.zeros(3, 2)}
    architecture = Architecture.from_state_dict(state, "relu")
    task, geometry = task_of("CNN"), GEOMETRIES["euclidean"](architecture)
    with pytest.raises(ValueError, match="natural=False"):
        NaturalGradient(TaskLoss(task), architecture, geometry, 0.1, generator())
    with pytest.raises(ValueError, match="could not be kept as a program"):
        standardized(torch.zeros(1, 24), architecture, torch.zeros(2, 1, 6, 6))
