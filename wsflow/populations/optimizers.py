"""The optimizer table: one update rule and row for each; it imports nothing heavy, as it also feeds the CLI's choices.

Every rule moves each weight by itself and takes its rates as columns, one value for each network, so that all networks
of a population are moved by a few operations on one tensor, and each may have hyperparameters of its own.

The two samplers move by the gradient of the mean loss L of N examples, and leave weights w behind with density
exp(-N (L(w) + weight_decay |w|^2 / 2) / temperature): at a temperature of one the posterior of a classification (the
cross-entropy is minus a log-likelihood) with the prior N(0, 1 / (N weight_decay)). For k targets, the mean squared
error is the likelihood of Gaussian noise with variance k temperature / 2.

References
----------
Kingma and Ba 2015, "Adam: a method for stochastic optimization", arXiv:1412.6980; Welling and Teh 2011, "Bayesian
learning via stochastic gradient Langevin dynamics" (ICML); Chen, Fox and Guestrin 2014, "Stochastic gradient
Hamiltonian Monte Carlo", arXiv:1402.4102.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BETAS = (0.9, 0.999)
EPSILON = 1e-8


@dataclass(frozen=True)
class Rates:
    """What one step of each network is ruled by.

    Parameters
    ----------
    step : int
        Its number, from 1 on.
    learning_rate, momentum : Tensor of shape (n, 1)
    temperature : Tensor of shape (n, 1)
        Over the number of training examples.
    noise : callable
        Draws a tensor of shape (n, d), standard normal, each row from its network's own stream.
    """

    step: int
    learning_rate: Tensor
    momentum: Tensor
    temperature: Tensor
    noise: Callable[[], Tensor]


Update = Callable[["Tensor", "Tensor", "Sequence[Tensor]", Rates], None]


@dataclass(frozen=True)
class Optimizer:
    """One row of the table.

    Parameters
    ----------
    update : callable
        Of weights (n, d), their gradient, memory and `Rates`: changes weights and memory in place, and may use the
        gradient's memory for itself.
    memory : int
        How many tensors of the weights' shape it keeps between steps; zeros at first.
    momentum : bool
        Whether it takes a momentum.
    sampler : bool
        Whether it takes noise and a temperature.

    Examples
    --------
    >>> from wsflow.populations.optimizers import OPTIMIZERS
    >>> [name for name, row in OPTIMIZERS.items() if row.sampler]
    ['sghmc', 'sgld']
    """

    update: Update
    memory: int
    momentum: bool = False
    sampler: bool = False


def adam(weights: Tensor, gradient: Tensor, memory: Sequence[Tensor], rates: Rates) -> None:
    """Kingma and Ba 2015, arXiv:1412.6980, algorithm 1.

    Parameters
    ----------
    weights, gradient : Tensor of shape (n, d)
    memory : sequence of two Tensor
        Running means of the gradient and of its square.
    rates : Rates
    """
    import torch

    first, second = memory
    one, two = BETAS
    first.lerp_(gradient, 1 - one)
    second.mul_(two).addcmul_(gradient, gradient, value=1 - two)
    # the whole denominator, rate and corrections included, in the gradient's memory: nothing is allocated
    denominator = torch.sqrt(second, out=gradient).mul_((1 - two**rates.step) ** -0.5).add_(EPSILON)
    denominator.mul_((1 - one**rates.step) / rates.learning_rate)
    weights.addcdiv_(first, denominator, value=-1)


def sgd(weights: Tensor, gradient: Tensor, memory: Sequence[Tensor], rates: Rates) -> None:
    """Gradient descent with momentum, as torch has it: the memory is the discounted sum of gradients.

    Parameters
    ----------
    weights, gradient : Tensor of shape (n, d)
    memory : sequence of one Tensor
    rates : Rates
    """
    total = memory[0].mul_(rates.momentum).add_(gradient)
    weights.addcmul_(total, rates.learning_rate, value=-1)


def sgld(weights: Tensor, gradient: Tensor, memory: Sequence[Tensor], rates: Rates) -> None:
    """Langevin dynamics: w - e g + sqrt(2 e T / N) z (Welling and Teh 2011, equation 4, e N = their step over two).

    Parameters
    ----------
    weights, gradient : Tensor of shape (n, d)
    memory : sequence
        Empty.
    rates : Rates
    """
    spread = (2 * rates.learning_rate * rates.temperature).sqrt()
    weights.addcmul_(gradient, rates.learning_rate, value=-1).addcmul_(rates.noise(), spread)


def sghmc(weights: Tensor, gradient: Tensor, memory: Sequence[Tensor], rates: Rates) -> None:
    """Hamiltonian dynamics with friction a = 1 - momentum: v (1 - a) - e g + sqrt(2 a e T / N) z, then w + v.

    Parameters
    ----------
    weights, gradient : Tensor of shape (n, d)
    memory : sequence of one Tensor
        The velocity v.
    rates : Rates

    References
    ----------
    Chen, Fox and Guestrin 2014, arXiv:1402.4102, equation 15.
    """
    spread = (2 * (1 - rates.momentum) * rates.learning_rate * rates.temperature).sqrt()
    velocity = memory[0].mul_(rates.momentum).addcmul_(gradient, rates.learning_rate, value=-1)
    weights.add_(velocity.addcmul_(rates.noise(), spread))


OPTIMIZERS: dict[str, Optimizer] = {
    "adam": Optimizer(adam, memory=2),
    "sgd": Optimizer(sgd, memory=1, momentum=True),
    "sghmc": Optimizer(sghmc, memory=1, momentum=True, sampler=True),
    "sgld": Optimizer(sgld, memory=0, sampler=True),
}
