"""Variational inference: a Gaussian over the weights of an architecture, with a diagonal and a low rank.

q(w) = N(m, diag(s^2) + F F^T) over the weights that are trained, for the prior N(m0, diag(s0^2)): the mean loss of
networks drawn from q plus KL(q || prior) / N is minimised, which is -ELBO / N where the loss is a negative
log-likelihood in nats.

References
----------
Tomczak, Swaroop and Turner 2020, "Efficient low rank Gaussian variational inference for neural networks" (NeurIPS);
Blundell et al. 2015, "Weight uncertainty in neural networks", arXiv:1505.05424; Neal 1996, "Bayesian learning for
neural networks" (priors by the number of inputs); Soenderby et al. 2016, arXiv:1602.02282 (warm-up of the KL).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from wsflow.architecture import Architecture
from wsflow.devices import placed
from wsflow.progress import Progress
from wsflow.running import losses, matched, tensors_of, train_forward
from wsflow.running.layer_types import layer_types
from wsflow.task import Task
from wsflow.training.loop import Loss, train
from wsflow.training.state import History, Schedule

# of the prior's standard deviation, at the start: noise that 16 layers pass on without drowning what they compute
START = 0.05
# Adam's steps are as long as the learning rate, which suits means, and is little on a logarithm or in such units
RATE = 10.0
# networks drawn in each step, which share out its batch: gradients vary less by the draw, and cost no more products
DRAWS = 4


@dataclass(frozen=True)
class VariationalSettings:
    """How a `LowRankGaussian` is built and trained.

    Parameters
    ----------
    architecture : Architecture
        One that runs.
    rank : int
        Columns of F; 0 is mean-field.
    prior_scale : float
        Of the prior's standard deviations, see `prior_of`.
    kl_weight : float
        Times the KL divergence: a temperature of the posterior, 1 for Bayes' rule.
    warm_up : float
        Share of the steps in which this weight rises from 0.
    learning_rate : float
    batch_size : int
    max_iter : int
        Training steps.
    """

    architecture: Architecture
    rank: int = 4
    prior_scale: float = 1.0
    kl_weight: float = 1.0
    warm_up: float = 0.5
    learning_rate: float = 2e-3
    batch_size: int = 128
    max_iter: int = 2000


def prior_of(architecture: Architecture, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return the means and standard deviations (d,) of the prior.

    The standard deviation of weights of linear layers and convolutions is that of He's initialisation, sqrt(2 / fan
    in), so that the prior's functions do not depend on the width (Neal 1996), and 1 for everything else; times `scale`.
    Means are 0, and 1 for the gains of norms.

    Examples
    --------
    >>> from wsflow import Architecture
    >>> from wsflow.models.variational import prior_of
    >>> prior_of(Architecture.mlp([8, 1]))[1]
    tensor([0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 1.0000])
    """
    types = layer_types(architecture)
    mean, std = torch.zeros(architecture.n_weights), torch.ones(architecture.n_weights)
    for name, columns in architecture.slices.items():
        kind = types.get(name)
        if kind is not None and kind.part == "weight":
            std[columns] = (2 / kind.fan_in) ** 0.5
        elif kind is not None and kind.part == "one":
            mean[columns] = 1.0
    return mean, scale * std


class LowRankGaussian(nn.Module):
    """A Gaussian over the weights of an architecture: q(w) = N(m, diag(s^2) + F F^T).

    Fixed entries of networks without symmetries and the statistics of batch norms are not random.

    Parameters
    ----------
    settings : VariationalSettings
    initial : Tensor of shape (d,)
        A network, at which the mean begins.
    generator : torch.Generator
        Of the first F.

    Examples
    --------
    >>> import torch
    >>> from wsflow import Architecture, Task
    >>> from wsflow.models.variational import LowRankGaussian, VariationalSettings, train_posterior
    >>> generator = torch.Generator().manual_seed(0)
    >>> settings = VariationalSettings(Architecture.mlp([4, 3, 2]), rank=2, max_iter=5)
    >>> posterior = LowRankGaussian(settings, torch.randn(23, generator=generator), generator)
    >>> history = train_posterior(posterior, Task(torch.eye(4).numpy(), [0, 1, 0, 1]), generator)
    >>> posterior.sample(10, generator).shape, posterior.factor.shape
    (torch.Size([10, 23]), torch.Size([2, 23]))
    """

    row: Tensor
    columns: Tensor
    prior_mean: Tensor
    prior_std: Tensor

    def __init__(self, settings: VariationalSettings, initial: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        self.settings = settings
        architecture, rank = settings.architecture, settings.rank
        fixed = architecture.fixed_columns
        constant = np.concatenate([fixed, architecture.statistic_columns])
        columns = torch.from_numpy(np.setdiff1d(np.arange(architecture.n_weights), constant))
        row = initial.float().clone()
        row[torch.from_numpy(fixed)] = torch.from_numpy(architecture.fixed_values).float()
        self.register_buffer("row", row)
        mean, std = prior_of(architecture, settings.prior_scale)
        for name, value in {"columns": columns, "prior_mean": mean[columns], "prior_std": std[columns]}.items():
            self.register_buffer(name, value, persistent=False)
        self.mean = nn.Parameter(row[columns])
        # of s over its start
        self.log_ratio = nn.Parameter(torch.zeros(len(columns)))
        drawn = torch.randn(rank, len(columns), generator=generator) / (RATE * max(rank, 1) ** 0.5)
        self.loadings = nn.Parameter(drawn)

    @property
    def std(self) -> Tensor:
        """The square root s (p,) of the diagonal."""
        return START * self.prior_std * self._ratio

    @property
    def factor(self) -> Tensor:
        """The columns of F, of shape (rank, p)."""
        return START * RATE * self.prior_std * self.loadings

    @property
    def _ratio(self) -> Tensor:
        return (RATE * self.log_ratio).exp()

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw networks (n, d), differentiable by the parameters of q."""
        device = self.mean.device
        noise = self._ratio * torch.randn(n, len(self.mean), generator=generator).to(device)
        if len(self.loadings):
            noise = noise + RATE * torch.randn(n, len(self.loadings), generator=generator).to(device) @ self.loadings
        drawn = torch.addcmul(self.mean, START * self.prior_std, noise)
        if len(self.columns) == len(self.row):
            return drawn
        return self.row.repeat(n, 1).index_copy(1, self.columns, drawn)

    def kl(self) -> Tensor:
        """Return KL(q || prior) in nats, by the matrix determinant lemma.

        In units of the prior's standard deviations, q is N(m, D + F F^T), and twice the divergence is tr D + |F|^2 +
        |m|^2 - p - log det D - log det(1 + F^T D^-1 F).
        """
        mean, logs = (self.mean - self.prior_mean) / self.prior_std, RATE * self.log_ratio
        trace = START**2 * ((2 * logs).exp().sum() + (RATE * self.loadings).square().sum())
        gram = RATE**2 * (self.loadings * (-2 * logs).exp()) @ self.loadings.T
        inner = torch.eye(len(gram), device=gram.device) + gram
        determinant = 2 * (logs.sum() + len(mean) * math.log(START)) + torch.linalg.slogdet(inner)[1]
        return 0.5 * (trace + mean.square().sum() - len(mean) - determinant)


def train_posterior(
    posterior: LowRankGaussian,
    task: Task,
    generator: torch.Generator,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> History:
    """Fit a Gaussian over weights to a task in place; the history has -ELBO / N, of the whole weight of the KL.

    Parameters
    ----------
    posterior : LowRankGaussian
    task : Task
        Its loss is read as a negative log-likelihood in nats. For k targets the mean squared error is that of Gaussian
        noise with variance k / 2; another variance v is ``kl_weight = 2 v / k``.
    generator : torch.Generator
    progress : callable, optional
        Called with the steps done and their number.
    device : torch.device or str
        Where it is trained; in the end it is on the CPU.

    Returns
    -------
    History

    Raises
    ------
    InvalidInputError
        If the networks have no training mode.
    NumericalError
        If the loss is not finite before anything was learned.
    TrainingInterrupted
        At Ctrl-C, with the best weights so far.
    """
    settings = posterior.settings
    schedule = Schedule(settings.max_iter, settings.learning_rate, weight_decay=0.0)
    posterior.to(device)
    try:
        return train(posterior, _negative_elbo(task, settings), schedule, generator, progress=progress, what="The ELBO")
    finally:
        posterior.cpu().eval().requires_grad_(False)


def _negative_elbo(task: Task, settings: VariationalSettings) -> Loss:
    inputs, targets, share = tensors_of(task)
    statistics = torch.from_numpy(settings.architecture.statistic_columns)
    batch, steps = _batches(len(inputs), settings.batch_size), itertools.count(1)
    rising = settings.warm_up * settings.max_iter

    def loss(posterior: LowRankGaussian, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows, chosen = posterior.sample(DRAWS, generator), batch(generator)
        x, y = (matched(values[chosen], rows) for values in (inputs, targets))
        outputs, updated = train_forward(rows, settings.architecture, x, generator)
        if len(statistics):
            posterior.row[placed(statistics, rows.device)] = updated.mean(0)
        weight = None if share is None else share[chosen].to(rows.device)
        expected = losses(outputs, y, task.loss, weight).mean()
        divergence = settings.kl_weight * posterior.kl() / task.size
        warm = min(1.0, next(steps) / rising) if rising else 1.0
        return expected + warm * divergence, (expected + divergence).detach()

    return loss


def _batches(n: int, size: int) -> Callable[[torch.Generator], Tensor]:
    """Return what draws examples (DRAWS, b) of n, each of which comes once before any comes again."""
    each, waiting = max(1, size // DRAWS), list[Tensor]()

    def draw(generator: torch.Generator) -> Tensor:
        if not waiting:
            rounds = -(-DRAWS * each // n)
            order = torch.cat([torch.randperm(n, generator=generator) for _ in range(rounds)])
            waiting.extend(order[: len(order) // (DRAWS * each) * DRAWS * each].view(-1, DRAWS, each))
        return waiting.pop()

    return draw
