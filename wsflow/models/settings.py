"""From the parameters of `WeightFlow` to settings that fit an architecture and a task: every "auto" decided."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.flow.adaptive import DormandPrince
from wsflow.flow.divergence import TraceEstimator
from wsflow.flow.solvers import RungeKutta
from wsflow.geometry import GEOMETRIES, Geometry, fit_coordinates, fit_principal, vectors
from wsflow.metanetworks.encoders import ENCODERS, READ_HINTS
from wsflow.models.options import (
    CHOICES,
    DEFAULTS,
    MLP,
    STRINGS,
    AdamW,
    ConsensusHints,
    EnergyMatching,
    GaussianSource,
    IsotropicSource,
    NetworkGeometry,
    NeuronTransformer,
    ScalarCondition,
    resolved,
)
from wsflow.options import Options
from wsflow.running.compatibility import check_task
from wsflow.task import Task


@dataclass(frozen=True)
class FlowSettings:
    """How a `WeightFlowModel` is built and trained.

    Parameters
    ----------
    geometry : NetworkGeometry or None
        None is a plain vector space, without an architecture.
    velocity : NeuronTransformer, RelationalTransformer or MLP
    source : Options
    coupling : str
        A key of `wsflow.flow.couplings.COUPLINGS`.
    task : Task or None
    metric : {"euclidean", "function"}
    hints, energy, condition : Options or None
    training : AdamW
    solver : RungeKutta or DormandPrince
    density : TraceEstimator
    max_iter : int
    prediction : str
        A key of `wsflow.flow.paths.PREDICTIONS`.
    """

    geometry: NetworkGeometry | None
    velocity: NeuronTransformer | MLP
    source: Options
    coupling: str
    task: Task | None
    metric: str
    hints: ConsensusHints | None
    energy: EnergyMatching | None
    condition: ScalarCondition | None
    training: AdamW
    solver: RungeKutta | DormandPrince
    density: TraceEstimator
    max_iter: int
    prediction: str

    @property
    def is_named(self) -> bool:
        """Whether the flow tells neurons apart by their names."""
        return knows_names(self.velocity)

    @property
    def space(self) -> NetworkGeometry:
        """The geometry's options, or their defaults where there is no architecture."""
        return self.geometry or NetworkGeometry()

    def geometry_for(
        self, architecture: Architecture | None, n_features: int, weights: Tensor | None = None
    ) -> Geometry:
        """The geometry of networks of an architecture, or of plain vectors, in coordinates fitted to weights (n, d).

        An InvalidInputError says that weights do not lie on the manifold, or are equal in all networks.
        """
        geometry = self._geometry(architecture, n_features)
        if weights is None:
            return geometry
        if self.space.latent is not None:
            return fit_principal(geometry, weights, self.space.latent)
        geometry.check(weights, atol=1e-4)
        return fit_coordinates(geometry, weights, self.is_named)

    def _geometry(self, architecture: Architecture | None, n_features: int) -> Geometry:
        if architecture is None or self.geometry is None:
            return vectors(n_features)
        space = self.geometry
        if isinstance(space.kind, Mapping):
            return Geometry.from_manifolds(architecture, space.kind, space.last_layer)
        return GEOMETRIES[space.kind](architecture, space.last_layer, space.bias)


def settings_of(
    architecture: Architecture | None = None, *, prediction: str | None = None, **parameters: Any
) -> FlowSettings:
    """Check the parameters of a `WeightFlow`, and decide every "auto".

    Parameters
    ----------
    architecture : Architecture or None
        Of the networks; None for plain vectors.
    prediction : str, optional
        That of a model that was fitted, whose task may be gone; a key of `wsflow.flow.paths.PREDICTIONS`. By default
        the drift between Gaussians is left to the hints, where there are some.
    **parameters
        Those of `WeightFlow` that are in `DEFAULTS`, which hold for the others.

    Raises
    ------
    ValueError
        Naming the parameter, what is expected, and the value.

    Examples
    --------
    >>> from wsflow import Architecture
    >>> from wsflow.models.settings import settings_of
    >>> settings_of(Architecture.mlp([4, 8, 3]), max_iter=100).velocity
    NeuronTransformer(width=64, depth=3, heads=4, identity='learned', dropout=0.0)
    """
    unknown = sorted(parameters.keys() - DEFAULTS.keys())
    if unknown:
        raise ValueError(f"A flow over networks has no parameter {unknown[0]!r}; it has {', '.join(DEFAULTS)}.")
    parameters = DEFAULTS | parameters
    values, task = check_parameters(parameters), parameters["task"]
    _check_architecture(values, architecture)
    if task is not None and architecture is not None:
        check_task(architecture, task)
    velocity, is_latent = values["velocity"], getattr(values["geometry"], "latent", None) is not None
    if velocity == "auto":
        velocity = MLP() if architecture is None or is_latent else NeuronTransformer()
    runs = (task is not None or prediction is not None) and architecture is not None and architecture.is_runnable
    hints = _hints(values["hints"], runs, velocity.encoder in READ_HINTS)
    # tokens are narrower than networks, so that without hints nothing else would carry each weight's own drift
    return FlowSettings(
        geometry=_geometry(values["geometry"], architecture),
        velocity=velocity,
        source=_source(values["source"], velocity),
        coupling=parameters["coupling"],
        task=task,
        metric=_metric(values["metric"], runs),
        hints=hints,
        energy=_energy(values["energy"], runs),
        condition=values["condition"],
        training=values["training"],
        solver=values["solver"],
        density=values["density"],
        max_iter=int(parameters["max_iter"]),
        prediction=prediction or ("preconditioned" if hints is None else "velocity"),
    )


def check_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Check all parameters but those that depend on the architecture or the task; return the objects they stand for."""
    values = {name: resolved(name, parameters[name]) for name in CHOICES}
    for name, expected in STRINGS.items():
        if parameters[name] not in expected:
            raise ValueError(f"The {name!r} parameter of WeightFlow is one of {expected}, got {parameters[name]!r}.")
    max_iter = parameters["max_iter"]
    if not isinstance(max_iter, Integral) or max_iter < 1:
        raise ValueError(f"The 'max_iter' parameter of WeightFlow is a whole number of at least 1, got {max_iter!r}.")
    if values["condition"] is not None and parameters["coupling"] != "independent":
        raise ValueError(
            "A condition needs coupling='independent': a plan over a batch would pair source points with conditions, "
            "and the source of each condition would be another."
        )
    if getattr(values["geometry"], "latent", None) is not None:
        velocity, coupling = values["velocity"], parameters["coupling"]
        if isinstance(velocity, NeuronTransformer) or coupling == "orbit":
            raise ValueError(
                "With NetworkGeometry(latent=...) a flow knows principal components and no neurons, got "
                f"velocity={velocity!r} and coupling={coupling!r}. Use velocity='mlp' and coupling='independent' or "
                "'ot', after a PermutationAligner."
            )
    return values | {name: parameters[name] for name in STRINGS}


def _check_architecture(values: Mapping[str, Any], architecture: Architecture | None) -> None:
    geometry, velocity = values["geometry"], values["velocity"]
    if architecture is None:
        is_vector_space = geometry == "auto" or (geometry.kind, geometry.last_layer) == ("euclidean", "euclidean")
        if not is_vector_space or isinstance(velocity, NeuronTransformer):
            raise ValueError(
                f"WeightFlow(geometry={geometry!r}, velocity={velocity!r}) needs to know what the columns are. Pass a "
                "WeightArray, or architecture=Architecture.mlp([...])."
            )
        return
    if len(architecture.statistic_columns):
        raise ValueError(
            "A flow models weights, and these networks hold running statistics. Leave them out with "
            "wsflow.running.without_statistics.without_statistics(architecture), as WeightFlow does."
        )
    kind = getattr(geometry, "kind", "auto")
    if kind in ("normalized", "geometric") and GEOMETRIES["geometric"](architecture).target.is_flat:
        warnings.warn(
            f"No activation of this architecture commutes with positive scalings, so its {kind} geometry is Euclidean.",
            UserWarning,
            stacklevel=5,
        )


def knows_names(velocity: NeuronTransformer | MLP) -> bool:
    """Whether a velocity network tells neurons apart: by learned names, or as every column has its own place."""
    return velocity.identity == "learned" or not ENCODERS[velocity.encoder].group


def _geometry(value: Any, architecture: Architecture | None) -> NetworkGeometry | None:
    if value == "auto":
        return None if architecture is None else NetworkGeometry()
    return value


def _source(value: Any, velocity: NeuronTransformer | MLP) -> Options:
    is_named = knows_names(velocity)
    if value == "auto":
        return GaussianSource() if is_named else IsotropicSource()
    if type(value) is GaussianSource and not is_named:
        raise ValueError(
            "source='gaussian' knows each neuron by name, velocity=NeuronTransformer(identity=None) none of them. Use "
            "source='isotropic', 'exchangeable' or 'initialisation', or NeuronTransformer(identity='learned')."
        )
    return value


def _metric(value: str, runs: bool) -> str:
    if value == "function" and not runs:
        raise ValueError(
            "metric='function' runs the networks: it needs task=Task(X, y) and networks that run by themselves."
        )
    if value == "auto":
        return "function" if runs else "euclidean"
    return value


def _hints(value: Any, runs: bool, reads: bool) -> ConsensusHints | None:
    if value == "auto":
        return ConsensusHints() if reads and runs else None
    if value is not None and not (reads and runs):
        raise ValueError(
            "hints='gradient' runs the networks: it needs task=Task(X, y), networks that run by themselves, "
            f"and a velocity network that reads hints ({' or '.join(map(repr, READ_HINTS))})."
        )
    return value


def _energy(value: Any, runs: bool) -> EnergyMatching | None:
    if value is not None and not runs:
        raise ValueError(
            "Energy matching runs the networks: it needs task=Task(X, y) and networks that run by themselves."
        )
    return value
