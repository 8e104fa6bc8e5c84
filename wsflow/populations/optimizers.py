"""The table of optimizers, with an update rule in each row; its import is light, as it feeds the CLI's choices.

The rules are our own, because each network of a population may have hyperparameters of its own: an optimizer of
``torch.optim`` has one learning rate for each parameter group, hence one group and loop for each network, while these
rules take columns of hyperparameters and update all networks by a few operations on one tensor.

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
    """The hyperparameters of one step, as columns of shape (n, 1)."""

    step: int  # from 1 on
    learning_rate: Tensor
    momentum: Tensor
    temperature: Tensor  # over the number of training examples
    noise: Callable[[], Tensor]  # draws (n, d) standard normal numbers, each row from the stream of its network


Update = Callable[["Tensor", "Tensor", "Sequence[Tensor]", Rates], None]


@dataclass(frozen=True)
class Optimizer:
    """One row of the table.

    `update` changes weights (n, d) and memory in place, and may use the gradient's memory for itself.
    """

    update: Update
    memory: int  # how many tensors (n, d) it keeps between steps, zeros at first
    momentum: bool = False  # whether it takes a momentum
    sampler: bool = False  # whether it takes noise and a temperature


def adam(weights: Tensor, gradient: Tensor, memory: Sequence[Tensor], rates: Rates) -> None:
    """Take a step of Adam (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1)."""
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
    """Take a step of gradient descent with momentum, as torch does: the memory is the discounted sum of gradients."""
    total = memory[0].mul_(rates.momentum).add_(gradient)
    weights.addcmul_(total, rates.learning_rate, value=-1)


def sgld(weights: Tensor, gradient: Tensor, memory: Sequence[Tensor], rates: Rates) -> None:
    """Take a Langevin step w - e g + sqrt(2 e T / N) z (Welling and Teh 2011, equation 4; e N is half their step)."""
    spread = (2 * rates.learning_rate * rates.temperature).sqrt()
    weights.addcmul_(gradient, rates.learning_rate, value=-1).addcmul_(rates.noise(), spread)


def sghmc(weights: Tensor, gradient: Tensor, memory: Sequence[Tensor], rates: Rates) -> None:
    """Take a Hamiltonian step with friction a = 1 - momentum: v' = v (1 - a) - e g + sqrt(2 a e T / N) z, w' = w + v'.

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
