"""A flow over the weights of networks: a geometry of their architecture, a continuous flow, and objectives.

References
----------
Erdogan 2025, "Geometric Flow Models over Neural Network Weights".
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError
from wsflow.flow.continuous import SCORED, ContinuousFlow, Guide, in_chunks
from wsflow.flow.hints import GradientHints
from wsflow.flow.solvers import TABLEAUX
from wsflow.flow.sources import Source
from wsflow.flow.velocity import VelocityField
from wsflow.geometry import Coordinates, Geometry, with_arrays, with_coordinates_of
from wsflow.mapped import chunks, thinned
from wsflow.metanetworks.conditions import CONDITIONS
from wsflow.metanetworks.velocity import velocity_network
from wsflow.models.settings import FlowSettings
from wsflow.models.sources import fit_source, restored_source, source_of_width
from wsflow.models.widths import check_width, combined, copies_needed
from wsflow.objectives.consensus import Consensus, fit_consensus
from wsflow.objectives.guidance import guided_transport
from wsflow.representation import in_a_line
from wsflow.symmetry.canonical import canonical_action
from wsflow.training.loop import seeded

TRIED = 3  # points, when a model is loaded


@in_a_line
@dataclass(frozen=True, eq=False)
class WeightFlowModel:
    """A flow over the networks of one architecture, in torch alone.

    `geometry` maps weights (n, d) to points (n, size), on which `flow` is defined. `build_weight_flow` makes a model,
    and `wsflow.models.flow_training.train_weight_flow` trains it in place.

    Parameters
    ----------
    settings : FlowSettings
    geometry : Geometry
    flow : ContinuousFlow
    consensus : Consensus or None
        The loss whose gradients are hints for the velocity network.
    wide : Architecture or None
        The wider networks that are made of several sampled ones, see `at_width`.
    seed : int
        Of the probes of estimated log-densities.
    """

    settings: FlowSettings
    geometry: Geometry
    flow: ContinuousFlow
    consensus: Consensus | None = None
    wide: Architecture | None = None
    seed: int = 0

    @property
    def velocity(self) -> VelocityField:
        """The trained velocity."""
        return self.flow.velocity

    @property
    def device(self) -> torch.device:
        """Where the velocity is; one that was put in its place, and does not say, is on the CPU."""
        return getattr(self.velocity, "device", torch.device("cpu"))

    def to(self, device: torch.device) -> WeightFlowModel:
        """Move the velocity, in place, and the source to a device: weights come from the CPU, and go back to it."""
        if device == self.device:
            return self
        self.velocity.move(device)
        flow = self.flow
        moved = ContinuousFlow(flow.manifold, self.velocity.source, flow.velocity, flow.solver, flow.divergence)
        return replace(self, flow=moved)

    @property
    def no_density(self) -> str:
        """Why samples have no density, as a sentence with the remedy; empty where they have one."""
        return self.geometry.no_density or self.flow.source.no_density

    def sample(
        self,
        n: int,
        generator: torch.Generator,
        *,
        temperature: float = 1.0,
        noise: float = 0.0,
        guidance: Any = None,
    ) -> Tensor:
        """Draw new networks.

        Parameters
        ----------
        n : int
        generator : torch.Generator
        temperature, noise : float
            As of `ContinuousFlow.sample`.
        guidance : Guidance, Task, functional or callable, optional

        Returns
        -------
        Tensor of shape (n, d)
            In float64.
        """
        if noise > 0 and self.settings.coupling != "independent":
            raise ValueError("Stochastic sampling needs the score of coupling='independent'. Use noise=0.")
        if min(temperature, noise) < 0:
            raise ValueError(f"'temperature' and 'noise' are not negative, got {temperature} and {noise}.")
        guide = None if guidance is None else self._guide(guidance, generator)
        copies = 1 if self.wide is None else copies_needed(self._architecture(), self.wide)
        points = self.flow.sample(n * copies, generator, temperature=temperature, noise=noise, guide=guide)
        weights = self._to_weights(points).cpu()
        return weights if self.wide is None else self._combined(weights, self.wide)

    def sample_with_log_prob(
        self, n: int, generator: torch.Generator, *, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Draw new networks (n, d) with their log-densities (n,), at another temperature with that of its source."""
        self._check_density()
        if temperature == 0:
            raise ValueError(
                "At temperature=0 all samples are one point, which has no density. Use a higher temperature."
            )
        points, log_prob = self.flow.sample_with_log_prob(n, generator, temperature=temperature, seed=self.seed)
        return self._to_weights(points).cpu(), log_prob.cpu() - self.geometry.log_det

    def log_prob(self, weights: Tensor) -> Tensor:
        """Compute the log-density of networks (n, d), with respect to the Riemannian volume of their geometry: (n,).

        What is equal in all networks that the flow was fitted to is no dimension of it; networks that are not so have
        the density zero.
        """
        return self.log_prob_and_error(weights)[0]

    def log_prob_and_error(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Log-densities (n,) of networks (n, d), and their standard errors (n,) over the probes."""
        self._check_density()
        self.geometry.check(weights, atol=1e-4)
        rows = chunks(len(weights), weights.shape[1], multiple=SCORED)
        parts = [self._log_prob_and_error(weights[part].double()) for part in rows]
        found, error = (torch.cat(values) for values in zip(*parts, strict=True))
        return found, error

    def _log_prob_and_error(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        points = self.geometry.to_points(weights).to(self.device)
        found, error = (values.cpu() for values in self.flow.log_prob_and_error(points, self.seed))
        if not isinstance(self.geometry.coordinates, Coordinates):
            return found, error
        inside = self.geometry.coordinates.has_constants(weights)
        return torch.where(inside, found - self.geometry.log_det, -math.inf), error

    def given(self, condition: float, scale: float = 1.0) -> WeightFlowModel:
        """Return the law of networks given a condition, a number or a label's index; scales above 1 exaggerate it."""
        return replace(self, flow=self.flow.given(torch.full((), float(condition), device=self.device), scale))

    def at_width(self, architecture: Architecture) -> WeightFlowModel:
        """Return the law of networks of other hidden widths.

        A flow without names of neurons works at any width itself. Where neurons have names, several sampled networks
        make a wide one, see `wsflow.models.widths`.
        """
        check_width(self._architecture(), architecture, self.settings.is_named)
        if self.settings.is_named:
            return replace(self, wide=architecture)
        geometry = with_coordinates_of(self.settings.geometry_for(architecture, architecture.n_weights), self.geometry)
        known = self.settings.source, self.flow.source.to(device=torch.device("cpu")), self.geometry
        source = source_of_width(*known, geometry, self.settings.space)
        consensus = self.consensus and self.consensus.of_width(architecture, geometry)
        network = self.velocity.network.at_width(geometry.layout, geometry.n_extra)
        velocity = VelocityField(
            network, geometry.manifold, source, self.settings.prediction, _hints(consensus, geometry, source)
        ).eval()
        velocity.ratio.copy_(self.velocity.ratio)
        if velocity.hints is not None and self.velocity.hints is not None:
            velocity.hints.scale.copy_(self.velocity.hints.scale)
        velocity.move(self.device)
        flow = ContinuousFlow(geometry.manifold, velocity.source, velocity, self.flow.solver, self.flow.divergence)
        return replace(self, geometry=geometry, flow=flow, consensus=consensus)

    def following(self, solver: Any, divergence: Any, seed: int) -> WeightFlowModel:
        """Return the same model with another solver, and another estimate of divergences from another seed."""
        flow = ContinuousFlow(self.flow.manifold, self.flow.source, self.flow.velocity, solver, divergence)
        return replace(self, flow=flow, seed=seed)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors that the model learned, by name, for `restored_weight_flow`."""
        state = {f"network.{k}": v for k, v in self.velocity.network.state_dict().items()}
        state |= {f"prior.{k}": v for k, v in self.flow.source.arrays().items()}
        state["ratio"] = self.velocity.ratio
        if self.geometry.coordinates is not None:
            state |= {f"coordinates.{k}": v for k, v in self.geometry.coordinates.arrays().items()}
        if self.consensus is not None and self.velocity.hints is not None:
            state |= {"consensus.inputs": self.consensus.inputs, "consensus.targets": self.consensus.targets}
            state["consensus.scale"] = self.velocity.hints.scale
        return state

    def _architecture(self) -> Architecture:
        if self.geometry.architecture is None:
            raise ValueError("Another width needs an architecture of the flow's own: fit a WeightArray.")
        return self.geometry.architecture

    def _check_density(self) -> None:
        if self.no_density:
            raise ValueError(self.no_density)
        if self.wide is not None:
            check_width(self._architecture(), self.wide, self.settings.is_named, rated=True)

    def _to_weights(self, points: Tensor) -> Tensor:
        # in chunks, as they were drawn: with each network in the same place, bits do not depend on how many follow
        return in_chunks(lambda p: self.geometry.to_weights(self.geometry.target.projection(p)), points.double())

    def _combined(self, weights: Tensor, wide: Architecture) -> Tensor:
        """Wide networks made of sampled ones, in their canonical form where the flow's networks have one."""
        made = combined(weights, self._architecture(), wide)
        if self.geometry.name == "euclidean":
            return made
        bias: Any = self.settings.space.bias
        return canonical_action(made, wide, bias)(made)

    def _guide(self, guidance: Any, generator: torch.Generator) -> Guide:
        """The guided flow, with the same minibatches for each block of samples."""
        seed = int(torch.randint(2**62, (1,), generator=generator))
        method = self.flow.solver.method if self.flow.solver.method in TABLEAUX else "midpoint"

        def guide(field: Any, solve: Any) -> Any:
            minibatches = torch.Generator().manual_seed(seed)
            return guided_transport(
                guidance, field, self.geometry.architecture, self.geometry, minibatches, solve, method
            )

        return guide


def build_weight_flow(
    settings: FlowSettings, geometry: Geometry, points: Tensor, generator: torch.Generator, n_labels: int = 0
) -> WeightFlowModel:
    """Build an untrained model, with a source and scales fitted to points of training networks.

    Parameters
    ----------
    settings : FlowSettings
    geometry : Geometry
        See `FlowSettings.geometry_for`.
    points : Tensor of shape (n, size)
        See `Geometry.to_points`.
    generator : torch.Generator
    n_labels : int
        Number of labels, where the condition is a label.
    """
    source = fit_source(settings.source, geometry, settings.space, points)
    consensus = None
    if settings.hints is not None and settings.task is not None and geometry.architecture is not None:
        n_inputs = settings.hints.n_inputs
        consensus = fit_consensus(settings.task, geometry.architecture, geometry, points, n_inputs, generator)
    velocity = _velocity(settings, geometry, source, consensus, generator, n_labels)
    velocity.fit_scale(thinned(points).float())
    flow = ContinuousFlow(geometry.manifold, source, velocity, settings.solver, settings.density)
    return WeightFlowModel(settings, geometry, flow, consensus)


def restored_weight_flow(
    settings: FlowSettings,
    geometry: Geometry,
    state: dict[str, Tensor],
    loss: str = "cross_entropy",
    n_labels: int = 0,
) -> WeightFlowModel:
    """Restore a trained model from its `state_dict`, without its task: only the loss of its consensus counts."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

    if coordinates := part("coordinates."):
        geometry = with_arrays(geometry, coordinates)
    source = restored_source(settings.source, geometry, settings.space, part("prior."))
    seen, consensus = part("consensus."), None
    scale = seen.pop("scale", None)
    if seen and geometry.architecture is not None:
        consensus = Consensus(geometry.architecture, geometry, **seen, loss=loss)
    velocity = _velocity(settings, geometry, source, consensus, torch.Generator(), n_labels)
    if scale is not None and velocity.hints is not None:
        velocity.hints.scale.copy_(scale)
    velocity.network.load_state_dict(part("network."))
    velocity.ratio.copy_(state["ratio"])
    velocity.eval().requires_grad_(False)
    flow = ContinuousFlow(geometry.manifold, source, velocity, settings.solver, settings.density)
    model = WeightFlowModel(settings, geometry, flow, consensus)
    _try(model)
    return model


def _try(model: WeightFlowModel) -> None:
    """Follow a few points by one evaluation: what does not fit together is noticed when a model is loaded."""
    points = model.flow.source.sample(TRIED, torch.Generator().manual_seed(0))
    with torch.no_grad():
        velocity = model.flow.velocity(points.float(), torch.full((TRIED,), 0.5))
    weights = model.geometry.to_weights(points)
    shapes = {tuple(points.shape), tuple(velocity.shape)}
    if shapes != {(TRIED, model.geometry.manifold.size)} or not (
        velocity.isfinite().all() and weights.isfinite().all()
    ):
        raise InvalidInputError("The velocity of this flow is not finite, or not one of its points. Fit it again.")


def _velocity(
    settings: FlowSettings,
    geometry: Geometry,
    source: Source,
    consensus: Consensus | None,
    generator: torch.Generator,
    n_labels: int,
) -> VelocityField:
    """An untrained velocity."""
    options, hints = settings.velocity.sizes(), _hints(consensus, geometry, source)
    if settings.condition is not None:
        options["condition"] = functools.partial(CONDITIONS[settings.condition.kind], n_labels=n_labels)
    if hints is not None:
        options["n_hints"] = hints.count
    with seeded(generator):
        columns = geometry.manifold.size if geometry.layout is None else geometry.layout
        network = velocity_network(settings.velocity.encoder, columns, geometry.n_extra, **options)
    return VelocityField(network, geometry.manifold, source, settings.prediction, hints).float()


def _hints(consensus: Consensus | None, geometry: Geometry, source: Source) -> GradientHints | None:
    """Gradients of a consensus as what the velocity network sees beside each point."""
    return None if consensus is None else GradientHints(consensus, geometry.manifold, source, consensus.rows())
