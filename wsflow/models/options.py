"""The parameter objects of `WeightFlow`, and the strings that stand for them with their defaults.

What a table of another room lists (solvers, divergences, encoders, geometries) is chosen by name here as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wsflow.flow.adaptive import SOLVERS
from wsflow.flow.couplings import COUPLINGS
from wsflow.flow.divergence import DIVERGENCES, TraceEstimator
from wsflow.geometry import GEOMETRIES
from wsflow.options import Options, between, one_of, whole
from wsflow.running.initialisation import INITIALISATIONS


@dataclass
class NetworkGeometry(Options):
    """The manifold of the networks.

    Parameters
    ----------
    kind : {"geometric", "euclidean", "normalized"} or mapping
        A sphere for each neuron with positive scalings and a circle for each phase, times a vector space; a vector
        space; or a vector space whose samples are projected to unit neurons. A mapping names manifolds of one's own for
        some parameters, see `wsflow.geometry.Geometry.from_manifolds`.
    last_layer : {"euclidean", "polar"}
        Whether the output layer is a vector, or a direction and a log-norm.
    bias : {"inside", "outside"}
        Whether a neuron's sphere includes its bias; as in `ScaleCanonicalizer`.
    latent : int, optional
        For networks of very many weights: the flow is one over so many principal components of the training networks,
        or n - 1 where that is less, and its samples lie in their span. Needs ``kind="euclidean"`` and aligned networks.
    """

    kind: str | Mapping[str, Any] = "geometric"
    last_layer: str = "euclidean"
    bias: str = "inside"
    latent: int | None = None

    CONSTRAINTS = {
        "last_layer": one_of("euclidean", "polar"),
        "bias": one_of("inside", "outside"),
        "latent": whole(1, optional=True),
    }

    def check(self) -> None:
        """As `Options.check`; what is in a mapping is judged when the architecture is known."""
        super().check()
        if not isinstance(self.kind, Mapping) and self.kind not in GEOMETRIES:
            raise ValueError(
                f"The 'kind' of a NetworkGeometry is one of {tuple(GEOMETRIES)} or a mapping, got {self.kind!r}."
            )
        if self.latent is not None and (self.kind, self.last_layer) != ("euclidean", "euclidean"):
            raise ValueError(
                f"The 'latent' components of a NetworkGeometry are those of a vector space, got kind={self.kind!r} and "
                f"last_layer={self.last_layer!r}. Use NetworkGeometry('euclidean', latent={self.latent})."
            )


@dataclass
class Layered(Options):
    """What all networks that read networks have: the width and the number of their layers, and a dropout."""

    width: int = 256
    depth: int = 3
    dropout: float = 0.0

    CONSTRAINTS = {"width": whole(1), "depth": whole(1), "dropout": between(0, 0.9)}

    def sizes(self) -> dict[str, Any]:
        """What its builder takes."""
        return {"dim": self.width, "depth": self.depth, "dropout": self.dropout}


@dataclass
class NeuronTransformer(Options):
    """A velocity network with one token for each neuron, and messages along the weights between them.

    It reads every architecture: tokens are neurons, channels, heads and the channels within them, and residual streams;
    kernels are features of the weights between two of them, and what one neuron has alone, such as its gain in a norm,
    is a feature of its token.

    Parameters
    ----------
    width, depth, heads : int
        Width of the tokens, number of layers, attention heads; the width is a multiple of the heads.
    identity : {"learned", None}
        "learned" gives each aligned neuron a name, a learned vector: a sharper law, of one hidden width. None is
        equivariant to permutations: the law up to the order of neurons, of any hidden width; for few runs of small
        networks.
    dropout : float
        Probability for what each part of a layer adds to the tokens, in training.
    """

    width: int = 64
    depth: int = 3
    heads: int = 4
    identity: str | None = "learned"
    dropout: float = 0.0

    CONSTRAINTS = {
        "width": whole(1),
        "depth": whole(1),
        "heads": whole(1),
        "identity": one_of("learned", None),
        "dropout": between(0, 0.9),
    }
    encoder = "neuron"
    # of a layer of a network with one hidden layer, by the square of its width
    weights_per_square = 10

    def check(self) -> None:
        """As `Options.check`; heads share the width."""
        super().check()
        if self.width % self.heads:
            raise ValueError(
                f"The 'width' of {type(self).__name__} is a multiple of its 'heads', got {self.width} and {self.heads}."
            )

    def sizes(self) -> dict[str, Any]:
        """What its builder takes."""
        sizes = {"dim": self.width, "depth": self.depth, "heads": self.heads}
        return sizes | {"identity": self.identity, "dropout": self.dropout}


@dataclass
class RelationalTransformer(NeuronTransformer):
    """The velocity network of the thesis: tokens for neurons and states for the weights between them.

    Parameters are those of `NeuronTransformer`.
    """

    encoder = "relational"
    weights_per_square = 40


@dataclass
class MLP(Layered):
    """A velocity network that knows no symmetry: a residual multi-layer perceptron on the flat vector.

    Parameters
    ----------
    width, depth : int
        Width of the layers, number of residual blocks.
    dropout : float
        Probability for what each block adds, in training.
    """

    encoder = "mlp"
    weights_per_square = 2
    # it knows every column by its place
    identity = "learned"


@dataclass
class GaussianSource(Options):
    """A Gaussian fitted to the networks, wrapped on spheres.

    Parameters
    ----------
    shrinkage : float
        Share of the covariance that is replaced by its diagonal.
    """

    shrinkage: float = 0.1

    CONSTRAINTS = {"shrinkage": between(0, 1)}


@dataclass
class ExchangeableSource(GaussianSource):
    """A fitted Gaussian that does not tell neurons apart, see `wsflow.models.exchangeable`."""


@dataclass
class IsotropicSource(Options):
    """An isotropic Gaussian, uniform on spheres.

    Parameters
    ----------
    scale : {"fitted", "standard"}
        Standard deviations: the root mean square of each parameter, or 1.
    """

    scale: str = "fitted"

    CONSTRAINTS = {"scale": one_of("fitted", "standard")}


@dataclass
class InitialSource(Options):
    """Networks as they look before training.

    Parameters
    ----------
    scheme : {"normal", "uniform", "siren"}
        A key of `wsflow.running.initialisation.INITIALISATIONS`.
    """

    scheme: str = "normal"

    CONSTRAINTS = {"scheme": one_of(*INITIALISATIONS)}


@dataclass
class ConsensusHints(Options):
    """Gradients of networks' distance from the population's mean predictions, as inputs of the velocity network.

    Each network of a batch is run on all these inputs at each training step and each step of a sample, which is most of
    the time that a flow over networks other than small perceptrons takes. With 128 inputs samples are a little worse,
    and with more than 512 no better than another random state makes them (docs/results/ablation_*-short.json).

    Parameters
    ----------
    n_inputs : int
        So many inputs of the task, drawn once, or all it has.
    """

    n_inputs: int = 512

    CONSTRAINTS = {"n_inputs": whole(1)}


@dataclass
class EnergyMatching(Options):
    """Further training, so that the predictions of samples have the law of the training networks' predictions.

    For networks of many weights, whose samples are worse than training networks without it; a step takes three to four
    times as long as one of flow matching. See `wsflow.flow.energy`.

    Parameters
    ----------
    n_steps : int
        Training steps, after those of flow matching.
    weight : float
        Factor of the energy distance of predictions in the loss of these steps.
    """

    n_steps: int = 150
    weight: float = 1.0

    CONSTRAINTS = {"n_steps": whole(1), "weight": between(0, None)}


@dataclass
class ScalarCondition(Options):
    """The flow learns the law of networks given a number for each (a loss, a hyperparameter), and the law over all.

    Parameters
    ----------
    dropout : float
        Share of the conditions that are forgotten in training, from which the law over all is learned.
    """

    dropout: float = 0.1

    CONSTRAINTS = {"dropout": between(0, 1)}
    kind = "scalar"


@dataclass
class LabelCondition(ScalarCondition):
    """As `ScalarCondition`, with a label for each network, such as a data set."""

    kind = "label"


@dataclass
class AdamW(Options):
    """Training by AdamW with a warm-up and a cosine; what is kept is the moving average of the weights.

    Parameters
    ----------
    batch_size : int
        Networks in each step.
    learning_rate : float
        The highest one, after the warm-up.
    validation_fraction : float
        Share of the runs held out; the weights with the lowest loss on them are kept.
    patience : int, optional
        Stop early after so many evaluations (every 50 steps) without a better one.
    """

    batch_size: int = 64
    learning_rate: float = 2e-3
    validation_fraction: float = 0.1
    patience: int | None = None

    CONSTRAINTS = {
        "batch_size": whole(1),
        "learning_rate": between(0, None),
        "validation_fraction": between(0, 0.9),
        "patience": whole(1, optional=True),
    }


# parameter -> string -> the object that it stands for
CHOICES: dict[str, dict[str, Callable[[], Options]]] = {
    "geometry": {kind: functools.partial(NetworkGeometry, kind) for kind in GEOMETRIES},
    "velocity": {"neuron": NeuronTransformer, "relational": RelationalTransformer, "mlp": MLP},
    "source": {
        "gaussian": GaussianSource,
        "exchangeable": ExchangeableSource,
        "isotropic": IsotropicSource,
        "standard": functools.partial(IsotropicSource, "standard"),
        "initialisation": InitialSource,
    },
    "hints": {"gradient": ConsensusHints},
    "energy": {"predictions": EnergyMatching},
    "condition": {"scalar": ScalarCondition, "label": LabelCondition},
    "training": {"adamw": AdamW},
    "solver": dict(SOLVERS),
    "density": {method: functools.partial(TraceEstimator, method) for method in ("auto", *DIVERGENCES)},
}
# parameters that need no object
STRINGS: dict[str, tuple[str | None, ...]] = {
    "coupling": tuple(COUPLINGS),
    "metric": ("auto", "euclidean", "function"),
}
# parameter -> what else it may be: decided by the architecture and the task, or nothing
OTHERS: dict[str, tuple[str | None, ...]] = {
    "geometry": ("auto",),
    "velocity": ("auto",),
    "source": ("auto",),
    "hints": ("auto", None),
    "energy": (None,),
    "condition": (None,),
}
# of `WeightFlow`, but for what it is fitted to, where it runs, and who draws and watches
DEFAULTS: dict[str, Any] = {
    "geometry": "auto",
    "velocity": "auto",
    "source": "auto",
    "coupling": "independent",
    "task": None,
    "metric": "auto",
    "hints": "auto",
    "energy": None,
    "condition": None,
    "training": "adamw",
    "solver": "midpoint",
    "density": "auto",
    "max_iter": 600,
}
# what "auto" is for networks of a known architecture, named neurons and a task
AUTOMATIC: dict[str, Callable[[], Options]] = {
    "geometry": NetworkGeometry,
    "velocity": NeuronTransformer,
    "source": GaussianSource,
}


def classes_of(name: str) -> tuple[type[Options], ...]:
    """The classes of the objects that a parameter may be."""
    return tuple({type(make()): None for make in CHOICES[name].values()})


def resolved(name: str, value: Any, owner: str = "WeightFlow") -> Any:
    """The checked object that a parameter's value stands for; "auto" and the like stay as they are.

    Parameters
    ----------
    name : str
        A key of `CHOICES`.
    value : str, None or Options
    owner : str
        Whose parameter it is, for the message.

    Raises
    ------
    ValueError
        Naming the parameter, what is expected, and the value.
    """
    others = OTHERS.get(name, ())
    if value is None or isinstance(value, str):
        if value in others:
            return value
        if value in CHOICES[name]:
            return CHOICES[name][value]()
    elif isinstance(value, classes_of(name)):
        value.check()
        return value
    elif name == "geometry" and isinstance(value, Mapping):
        return NetworkGeometry(value)
    objects = " or ".join(kind.__name__ for kind in classes_of(name))
    raise ValueError(
        f"The {name!r} parameter of {owner} is one of {(*others, *CHOICES[name])}, or a {objects}, got {value!r}."
    )
