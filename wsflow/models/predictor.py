"""Predictors: numbers or classes of networks from their weights, by an ensemble of invariant networks.

References
----------
Unterthiner et al. 2020, "Predicting neural network accuracy from weights", arXiv:2002.11448; Lakshminarayanan et al.
2017, "Simple and scalable predictive uncertainty estimation using deep ensembles", arXiv:1612.01474.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wsflow.activations import FLIP, PHASE, POSITIVE, SIGN
from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError
from wsflow.metanetworks.encoders import ENCODERS
from wsflow.metanetworks.invariant import InvariantNetwork, invariant_network
from wsflow.models.options import AdamW
from wsflow.progress import Progress, stages
from wsflow.symmetry.canonical import Form, canonical_action
from wsflow.training.loop import Loss, TrainingInterrupted, seeded, train
from wsflow.training.state import History, Schedule

# networks that are predicted at once
ROWS = 256


@dataclass(frozen=True)
class PredictorSettings:
    """How a `WeightPredictor` is built and trained.

    Parameters
    ----------
    metanetwork : Options
        One of the objects of `wsflow.models.metanetworks`.
    architecture : Architecture or None
        None for plain vectors.
    n_features : int
        Columns of a row.
    n_classes : int or None
        None for numbers.
    canonical : {"unit", "balanced", None}
        The form to which networks are brought before they are read.
    n_members : int
        Networks of the ensemble.
    training : AdamW
    max_iter : int
        Training steps of each member.
    """

    metanetwork: Any
    architecture: Architecture | None
    n_features: int
    n_classes: int | None = None
    canonical: Form | None = None
    n_members: int = 1
    training: AdamW = field(default_factory=AdamW)
    max_iter: int = 600


def canonical_form(architecture: Architecture | None, encoder: str, wanted: str | None = "auto") -> Form | None:
    """Return the form to which networks are brought for an encoder: "balanced" for "auto" where it knows less.

    That is where wires have scalings, signs, flips or phases that the encoder does not respect by itself. Balanced
    layers share the scale of a network, which tells of its training; units leave all of it to the last layer.
    """
    if architecture is None:
        return None
    if wanted != "auto":
        return wanted  # type: ignore[return-value]
    known = {"function": (POSITIVE, SIGN, FLIP, PHASE), "positive": (POSITIVE,), "sign": (SIGN,)}
    respected = {scaling for name in ENCODERS[encoder].group for scaling in known.get(name, ())}
    return "balanced" if any(wire.scalings - respected for wire in architecture.wires) else None


class WeightPredictor(nn.Module):
    """An ensemble of invariant networks that predicts a number, or the probability of each class, from weights.

    `build_predictor` makes one, and `train_predictor` trains it in place.

    Parameters
    ----------
    settings : PredictorSettings
    members : list of InvariantNetwork

    Examples
    --------
    >>> import torch
    >>> from wsflow import Architecture
    >>> from wsflow.models.metanetworks import DeepSets
    >>> from wsflow.models.predictor import PredictorSettings, build_predictor, train_predictor
    >>> architecture, generator = Architecture.mlp([4, 3, 2]), torch.Generator().manual_seed(0)
    >>> settings = PredictorSettings(DeepSets(width=8), architecture, 23, max_iter=5)
    >>> predictor = build_predictor(settings, generator)
    >>> x = torch.randn(30, 23)
    >>> history = train_predictor(predictor, x[:20], x[:20].mean(1), x[20:], x[20:].mean(1), generator)
    >>> predictor.predict(x).shape
    torch.Size([1, 30, 1])
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, settings: PredictorSettings, members: list[InvariantNetwork]) -> None:
        super().__init__()
        self.settings = settings
        self.members: Any = nn.ModuleList(members)
        # of numbers that are predicted
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))

    def prepare(self, x: Tensor) -> Tensor:
        """Return the same functions as canonical networks (n, d), as members take them."""
        architecture, form = self.settings.architecture, self.settings.canonical
        if architecture is not None and form is not None:
            x = canonical_action(x, architecture, form=form)(x)
        return self.members[0].prepare(x)

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Return what each member predicts for networks (n, d).

        Returns
        -------
        Tensor of shape (members, n, 1)
            Numbers; or of shape (members, n, classes), probabilities.
        """
        self.eval()
        prepared = (self.prepare(rows).to(self.mean.device) for rows in x.split(ROWS))
        outputs = torch.cat([torch.stack([m.of_prepared(rows) for m in self.members]) for rows in prepared], 1)
        found = outputs * self.deviation + self.mean if self.settings.n_classes is None else outputs.softmax(-1)
        return found.cpu()


def build_predictor(settings: PredictorSettings, generator: torch.Generator) -> WeightPredictor:
    """Build a predictor with first weights from a generator.

    Raises
    ------
    InvalidInputError
        If the encoder does not read such networks.
    """
    known = settings.architecture or settings.n_features
    outputs = settings.n_classes or 1
    with seeded(generator):
        members = [build_member(settings.metanetwork, known, outputs) for _ in range(settings.n_members)]
    return WeightPredictor(settings, members)


def build_member(metanetwork: Any, known: Architecture | int, n_outputs: int) -> InvariantNetwork:
    """Build an invariant network of an encoder for an architecture, or for so many columns."""
    try:
        return invariant_network(metanetwork.encoder, known, n_outputs, **metanetwork.sizes())
    except InvalidInputError:
        raise
    except ValueError as error:
        # such as a relational transformer and kernels of convolutions
        raise InvalidInputError(f"{error}".replace("velocity=", "metanetwork=")) from error


def train_predictor(
    predictor: WeightPredictor,
    x: Tensor,
    y: Tensor,
    x_validation: Tensor,
    y_validation: Tensor,
    generator: torch.Generator,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> list[History]:
    """Train each member of a predictor in place, by the squared error or the cross-entropy.

    Parameters
    ----------
    predictor : WeightPredictor
    x, x_validation : Tensor of shape (n, d) and (m, d)
        Networks; there may be none for validation, by which the best weights are chosen.
    y, y_validation : Tensor of shape (n,) and (m,)
        Numbers, or the positions of classes.
    generator : torch.Generator
    progress : callable, optional
        Called with the steps done and their number.
    device : torch.device or str
        Where it is trained, and where it is then. Networks stay where they are, and batches of them are moved.

    Returns
    -------
    list of History

    Raises
    ------
    NumericalError
        If the loss is not finite before anything was learned.
    TrainingInterrupted
        At Ctrl-C, with the members so far; the last one has its best weights so far.
    """
    settings, options = predictor.settings, predictor.settings.training
    x, x_validation = predictor.prepare(x), predictor.prepare(x_validation)
    if settings.n_classes is None:
        y = y.to(x)
        predictor.mean.copy_(y.mean())
        # numbers that are all equal are predicted as they are
        predictor.deviation.copy_(y.std(correction=0))
        unit = torch.where(predictor.deviation > 0, predictor.deviation, 1.0)
        y, y_validation = ((v.to(x) - predictor.mean) / unit for v in (y, y_validation))
    x, x_validation = x.float(), x_validation.float()
    y, y_validation = (v.float() if settings.n_classes is None else v for v in (y, y_validation))
    schedule = Schedule(settings.max_iter, options.learning_rate, patience=options.patience)
    validate = None
    if len(x_validation):
        validate = lambda network: float(_mean_loss(network, x_validation, y_validation, device))  # noqa: E731
    loss = _on_batches(x, y, options.batch_size, settings.metanetwork.dropout > 0, device)
    histories: list[History] = []
    parts = stages(progress, *len(predictor.members) * (settings.max_iter,))
    try:
        for member, part in zip(list(predictor.members), parts, strict=True):
            member.fit_scale(x)
            member.to(device)
            what = "The loss of the predictor"
            found = train(member, loss, schedule, generator, validate=validate, progress=part, what=what)
            histories.append(found)
    except TrainingInterrupted:
        predictor.members = predictor.members[: len(histories) + 1]
        raise
    finally:
        predictor.to(device).eval().requires_grad_(False)
    return histories


def _on_batches(x: Tensor, y: Tensor, size: int, is_random: bool, device: torch.device | str) -> Loss:
    """Return the loss of batches of networks."""
    draw = batches_of(len(x), size)

    def loss(network: Any, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = draw(generator)
        with seeded(generator, is_random):
            value = _loss(network.of_prepared(x[chosen].to(device)), y[chosen].to(device)).mean()
        return value, value.detach()

    return loss


def batches_of(n: int, size: int) -> Callable[[torch.Generator], Tensor]:
    """Return what draws batches of n networks, each of which comes once before any comes again."""
    waiting: list[Tensor] = []

    def draw(generator: torch.Generator) -> Tensor:
        if not waiting:
            # a short batch at the end would weigh its networks more
            waiting.extend(torch.randperm(n, generator=generator).split(size)[: max(1, n // size)])
        return waiting.pop()

    return draw


def _mean_loss(network: Any, x: Tensor, y: Tensor, device: torch.device | str) -> Tensor:
    parts = [
        _loss(network.of_prepared(rows.to(device)), values.to(device))
        for rows, values in zip(x.split(ROWS), y.split(ROWS), strict=True)
    ]
    return torch.cat(parts).mean()


def _loss(outputs: Tensor, y: Tensor) -> Tensor:
    """Return the squared errors (n,) of numbers, or the cross-entropies of classes."""
    if y.is_floating_point():
        return (outputs[:, 0] - y).square()
    return nn.functional.cross_entropy(outputs, y, reduction="none")
