"""Autoencoders of networks: an invariant encoder, a decoder to weights, and a loss that compares functions.

For networks f_w on inputs x_1, ..., x_b of their task, an encoder E and a decoder D, training minimises

    L(w) = 1/b sum_i KL(f_w (x_i) || f_D(E(w)) (x_i)),

the divergence of the predictions of both, which is the squared error where predictions are numbers. No weight is
compared with another, so that what is decoded is one network for a whole orbit.

References
----------
Boufalis et al. 2025, arXiv:2511.12601 (autoencoders that respect symmetries); Vincent, Larochelle, Bengio and Manzagol
2008, "Extracting and composing robust features with denoising autoencoders".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError
from wsflow.losses import Loss as Criterion
from wsflow.losses import loss_of
from wsflow.metanetworks.decoder import WeightDecoder
from wsflow.metanetworks.invariant import InvariantNetwork
from wsflow.metanetworks.layers import ColumnScale
from wsflow.metanetworks.probe import ProbeEncoder
from wsflow.models.options import MLP, AdamW
from wsflow.models.predictor import ROWS, batches_of, build_member
from wsflow.objectives.function_metric import prediction_divergence
from wsflow.progress import Progress
from wsflow.running import forward, matched
from wsflow.running.example_inputs import example_inputs
from wsflow.symmetry.canonical import Form, canonical_action
from wsflow.task import Task
from wsflow.training.loop import seeded, train
from wsflow.training.state import History, Schedule

# inputs on which functions are compared in a step of training, and after it
TRAINED_ON, COMPARED_ON = 256, 512
# networks of which the validation loss is taken
VALIDATED = 512


@dataclass(frozen=True)
class AutoencoderSettings:
    """How a `WeightAutoencoder` is built and trained.

    Parameters
    ----------
    metanetwork : Options
        The encoder, one of the objects of `wsflow.models.metanetworks`.
    architecture : Architecture or None
        None for plain vectors, whose standardized columns are compared.
    n_features, n_latent : int
        Columns of a row, numbers of a latent.
    decoder : MLP
    canonical : {"unit", "balanced", None}
        The form to which networks are brought before they are read.
    noise : float
        Largest standard deviation of the noise on weights that are read in training, in units of each parameter's.
    loss : str or callable
        Of the networks' task, which says how predictions are compared.
    training : AdamW
    max_iter : int
    """

    metanetwork: Any
    architecture: Architecture | None
    n_features: int
    n_latent: int = 64
    decoder: MLP = field(default_factory=MLP)
    canonical: Form | None = None
    noise: float = 0.0
    loss: Any = "mse"
    training: AdamW = field(default_factory=AdamW)
    max_iter: int = 2000

    @property
    def criterion(self) -> Criterion:
        """The row of the table of losses."""
        return loss_of(self.loss)


class WeightAutoencoder(nn.Module):
    """From networks to latents that no symmetry changes, and back to networks of the same function.

    `build_autoencoder` makes one, and `train_autoencoder` trains it in place.

    Parameters
    ----------
    settings : AutoencoderSettings
    encoder : InvariantNetwork
    decoder : WeightDecoder
    inputs : Tensor of shape (b, ...), or None without an architecture
        On which functions are compared.

    Examples
    --------
    >>> import torch
    >>> from wsflow import Architecture
    >>> from wsflow.models.autoencoder import AutoencoderSettings, build_autoencoder, train_autoencoder
    >>> from wsflow.models.metanetworks import Probe
    >>> architecture, generator = Architecture.mlp([4, 3, 2]), torch.Generator().manual_seed(0)
    >>> settings = AutoencoderSettings(Probe(width=8), architecture, 23, n_latent=5, max_iter=5)
    >>> x, inputs = torch.randn(30, 23), torch.randn(50, 4)
    >>> model = build_autoencoder(settings, inputs, generator)
    >>> history = train_autoencoder(model, x[:20], x[20:], inputs, generator)
    >>> model.encode(x).shape, model.decode(model.encode(x)).shape, model.divergence(x).shape
    (torch.Size([30, 5]), torch.Size([30, 23]), torch.Size([30]))
    """

    def __init__(
        self, settings: AutoencoderSettings, encoder: InvariantNetwork, decoder: WeightDecoder, inputs: Tensor | None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.encoder, self.decoder = encoder, decoder
        # latents of the training networks have mean 0 and variance 1
        self.latent = ColumnScale(settings.n_latent)
        self.register_buffer("inputs", inputs)

    def prepare(self, x: Tensor) -> Tensor:
        """Return the same functions as canonical networks (n, d), as the encoder takes them."""
        architecture, form = self.settings.architecture, self.settings.canonical
        if architecture is not None and form is not None:
            x = canonical_action(x, architecture, form=form)(x)
        return self.encoder.prepare(x)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Return latents (n, k) of networks (n, d)."""
        self.eval()
        parts = (self.prepare(rows).to(self._device) for rows in x.split(ROWS))
        return torch.cat([self.latent(self.encoder.of_prepared(rows)).cpu() for rows in parts])

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Return networks (n, d) of latents (n, k)."""
        self.eval()
        return self.decoder(self.latent.mean + self.latent.inverse(z.to(self._device))).cpu()

    @torch.no_grad()
    def divergence(self, x: Tensor) -> Tensor:
        """Return the divergence (n,) of the predictions of networks (n, d) from those of their reconstructions."""
        self.eval()
        parts = (self.prepare(rows).to(self._device) for rows in x.split(ROWS))
        return torch.cat([self.compared(rows, rows, self.inputs).cpu() for rows in parts])

    @property
    def _device(self) -> torch.device:
        """Where it is; networks come from the CPU, and go back to it."""
        return self.latent.mean.device

    def compared(self, x: Tensor, seen: Tensor, inputs: Any) -> Tensor:
        """Return the divergence (n,) of prepared networks (n, d) from what is decoded where others are read."""
        decoded = self.decoder(self.encoder.of_prepared(seen))
        architecture = self.settings.architecture
        if architecture is None:
            return ((decoded - x) / self.decoder.scale.deviation).square().mean(1)
        inputs = matched(inputs, x)
        with torch.no_grad():
            outputs = forward(x, architecture, inputs)
        return prediction_divergence(outputs, forward(decoded, architecture, inputs), self.settings.criterion)

    def fit_scale(self, x: Tensor) -> None:
        """Take scales from prepared networks (n, d) of the population; decoding begins at the first of them."""
        self.encoder.fit_scale(x)
        scale, architecture = self.decoder.scale, self.settings.architecture
        scale.fit(x)
        if architecture is None:
            return
        # hidden neurons of the mean network are alike, and would learn alike
        scale.mean.copy_(x[0])
        for columns in architecture.slices.values():
            scale.deviation[columns] = x[:, columns].std(correction=0).clamp_min(1e-6)


def build_autoencoder(
    settings: AutoencoderSettings, inputs: Tensor | None, generator: torch.Generator
) -> WeightAutoencoder:
    """Build an autoencoder with first weights from a generator.

    Raises
    ------
    InvalidInputError
        If the encoder does not read such networks.
    """
    known = settings.architecture or settings.n_features
    with seeded(generator):
        encoder = build_member(settings.metanetwork, known, settings.n_latent)
        decoder = WeightDecoder(settings.n_latent, settings.n_features, **settings.decoder.sizes())
    if isinstance(encoder.encoder, ProbeEncoder) and settings.metanetwork.inputs is None and inputs is not None:
        encoder.encoder.begin_at(inputs, generator)
    return WeightAutoencoder(settings, encoder, decoder, inputs)


def inputs_of(task: Task | None, architecture: Architecture, generator: torch.Generator) -> Tensor:
    """Return inputs (b, ...) on which functions are compared: those of a task, evenly spaced, or else drawn ones.

    Raises
    ------
    InvalidInputError
        If networks do not run, or take several inputs.
    """
    if not architecture.is_runnable:
        raise InvalidInputError(
            "An autoencoder compares what networks do, and this architecture does not say how to run them. Read them "
            "from a module: Architecture.from_module(module, example_input)."
        )
    if task is not None:
        return torch.from_numpy(task.X[:: -(-len(task.X) // COMPARED_ON)].copy())
    drawn = example_inputs(architecture, COMPARED_ON, generator, torch.float32)
    if drawn is None or len(drawn) != 1:
        raise InvalidInputError("No inputs can be drawn for these networks. Pass task=Task(X, y), the task of theirs.")
    return drawn[0]


def train_autoencoder(
    model: WeightAutoencoder,
    x: Tensor,
    x_validation: Tensor,
    inputs: Tensor | None,
    generator: torch.Generator,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> History:
    """Train an autoencoder in place.

    Parameters
    ----------
    model : WeightAutoencoder
    x, x_validation : Tensor of shape (n, d) and (m, d)
        Networks; there may be none for validation, by which the best weights are chosen.
    inputs : Tensor of shape (b, ...), or None without an architecture
        All inputs for training, of which each step draws some.
    generator : torch.Generator
    progress : callable, optional
        Called with the steps done and their number.
    device : torch.device or str
        Where it is trained, and where it is then. Networks stay where they are, and batches of them are moved.

    Raises
    ------
    NumericalError
        If the loss is not finite before anything was learned.
    TrainingInterrupted
        At Ctrl-C, with the best weights so far.
    """
    options = model.settings.training
    x, x_validation = model.prepare(x).float(), model.prepare(x_validation[:VALIDATED]).float()
    model.fit_scale(x)
    spreads = model.decoder.scale.deviation.clone()
    model.to(device)
    schedule = Schedule(model.settings.max_iter, options.learning_rate, patience=options.patience)
    validate = (lambda network: float(network.divergence(x_validation).mean())) if len(x_validation) else None
    draw = batches_of(len(x), options.batch_size)
    is_random = max(model.settings.metanetwork.dropout, model.settings.decoder.dropout) > 0

    def loss(network: Any, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = x[draw(generator)]
        seen = _disturbed(network, rows, spreads, generator)
        some = inputs
        if inputs is not None and len(inputs) > TRAINED_ON:
            some = inputs[torch.randint(len(inputs), (TRAINED_ON,), generator=generator)]
        with seeded(generator, is_random):
            value = network.compared(rows.to(device), seen.to(device), some).mean()
        return value, value.detach()

    try:
        what = "The loss of the autoencoder"
        return train(model, loss, schedule, generator, validate=validate, progress=progress, what=what)
    finally:
        model.eval().requires_grad_(False)
        model.latent.fit(torch.cat([model.encoder.of_prepared(rows.to(device)) for rows in x.split(ROWS)]))


def _disturbed(model: WeightAutoencoder, x: Tensor, spreads: Tensor, generator: torch.Generator) -> Tensor:
    """Return prepared networks (n, d) with noise of a strength of its own for each, and prepared again.

    The noise is in units of the spreads (d,) of weights.
    """
    if model.settings.noise == 0:
        return x
    strength = model.settings.noise * torch.rand(len(x), 1, generator=generator, dtype=x.dtype)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype) * spreads
    return model.prepare(x + strength * noise)
