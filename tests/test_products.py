"""Convolutions that cut an image into patches are products, and are what torch's convolutions are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wsflow import Architecture, WeightArray
from wsflow.running import forward
from wsflow.running.products import is_sliding

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def networks(layer, n, sizes):
    """The architecture and weights (n, d) of n networks of one layer."""
    image = torch.zeros(2, layer.in_channels, *sizes)
    architecture = Architecture.from_module(nn.Sequential(layer), image)
    weights = WeightArray(torch.randn(n, architecture.n_weights, dtype=torch.float64).numpy(), architecture)
    return architecture, weights


def sliding(layer, sizes):
    """Whether the convolution of a network of one layer has to slide over images."""
    architecture, _ = networks(layer, 3, sizes)
    tensors = {p.name: torch.zeros(3, *p.shape) for p in architecture.parameters}
    return any(is_sliding(operation, tensors) for operation in architecture.program.operations)


@pytest.mark.parametrize("own", [False, True], ids=["shared inputs", "own inputs"])
@pytest.mark.parametrize(
    ("axes", "kernel", "left", "channels", "bias"),
    [(1, 3, 2, (2, 3), True), (2, 2, 1, (1, 4), False), (2, 1, 0, (3, 1), True), (3, 2, 1, (2, 2), True)],
)
def test_patches_are_what_modules_make_of_them(axes, kernel, left, channels, bias, own):
    sizes = [2 * kernel + left] * axes
    layer = CONVOLUTIONS[axes - 1](*channels, kernel, kernel, bias=bias)
    architecture, weights = networks(layer, 3, sizes)
    inputs = torch.randn(*(3,) * own, 2, channels[0], *sizes, dtype=torch.float64)
    rows = torch.from_numpy(weights).clone().requires_grad_()
    outputs = forward(rows, architecture, inputs)
    (gradient,) = torch.autograd.grad(outputs.pow(3).sum(), rows)
    for i, module in enumerate(weights.to_modules(nn.Sequential(layer.double()))):
        expected = module(inputs[i] if own else inputs)
        torch.testing.assert_close(outputs[i], expected, rtol=1e-10, atol=1e-10)
        expected.pow(3).sum().backward()
        theirs = torch.cat([p.grad.flatten() for p in module.parameters()])
        torch.testing.assert_close(gradient[i], theirs, rtol=1e-8, atol=1e-8)


def test_patches_are_differentiated_twice_and_forwards():
    layer = nn.Conv2d(2, 3, 2, 2)
    architecture, weights = networks(layer, 2, [4, 5])
    inputs = torch.randn(3, 2, 4, 5, dtype=torch.float64)

    def loss(rows):
        return forward(rows, architecture, inputs).tanh()

    rows = torch.from_numpy(weights).clone().requires_grad_()
    assert torch.autograd.gradgradcheck(loss, rows)
    tangent = torch.randn_like(rows)
    forwards = torch.func.jvp(loss, (rows.detach(),), (tangent,))[1]
    step = 1e-5
    expected = (loss(rows + step * tangent) - loss(rows - step * tangent)) / (2 * step)
    torch.testing.assert_close(forwards, expected.detach(), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("layer", "slides"),
    [
        (nn.Conv2d(2, 4, 3, 3), False),
        (nn.Conv2d(2, 4, 1), False),
        (nn.Conv2d(2, 4, (2, 3), (2, 3)), False),
        (nn.Conv2d(2, 4, 3), True),
        (nn.Conv2d(2, 4, 3, 3, padding=1), True),
        (nn.Conv2d(2, 4, 3, 3, padding="valid"), False),
        (nn.Conv2d(2, 4, 3, padding="same"), True),
        (nn.Conv2d(2, 4, 2, 2, dilation=2), True),
        (nn.Conv2d(2, 4, 2, 2, groups=2), True),
        (nn.ConvTranspose2d(2, 4, 2, 2), True),
    ],
    ids=str,
)
def test_convolutions_slide_unless_they_cut(layer, slides):
    assert sliding(layer, [9, 9]) == slides
