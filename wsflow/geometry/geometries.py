"""The geometries by name: each makes, for an architecture, a manifold and its charts.

References
----------
Erdogan 2025, "Geometric Flow Models over Neural Network Weights" (Euclidean, Normalized, Geometric).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from wsflow.activations import POSITIVE
from wsflow.architecture import Architecture
from wsflow.geometry.charts import Chart, Factor, phases_of, polar_of, product_of
from wsflow.geometry.geometry import Geometry
from wsflow.manifolds import Euclidean, Product, Sphere
from wsflow.symmetry.canonical import Bias, incoming_columns

LastLayer = Literal["euclidean", "polar"]


def euclidean(architecture: Architecture, last_layer: LastLayer = "euclidean", bias: Bias = "inside") -> Geometry:
    """Put all weights in a vector space; `bias` is not used."""
    charts = polar_of(architecture, last_layer)
    manifold = product_of(architecture.n_weights, [], charts)
    return Geometry("euclidean", manifold, manifold, tuple(charts), architecture, architecture)


def geometric(architecture: Architecture, last_layer: LastLayer = "euclidean", bias: Bias = "inside") -> Geometry:
    """Put each neuron's incoming weights on a sphere where it has positive scalings, and biases with phases on circles.

    All other weights are in a vector space.

    Parameters
    ----------
    last_layer : {"euclidean", "polar"}
        Polar: the output layer is a direction and a log-norm.
    bias : {"inside", "outside"}
        Whether a neuron's sphere includes its bias.

    Examples
    --------
    >>> from wsflow import Architecture
    >>> from wsflow.geometry import geometric
    >>> geometry = geometric(Architecture.mlp([30, 16, 16, 2]))
    >>> [(type(factor).__name__, factor.size, len(copies)) for factor, copies in geometry.manifold.factors]
    [('Sphere', 31, 16), ('Sphere', 17, 16), ('Euclidean', 34, 1)]
    """
    phases, layout = phases_of(architecture)
    charts: tuple[Chart, ...] = (*phases, *polar_of(architecture, last_layer))
    scaled = [wire for wire in architecture.wires if POSITIVE in wire.scalings]
    incoming = [incoming_columns(architecture, wire, bias) for wire in scaled]
    # a neuron with a single incoming weight has S^0, two points: no flow moves on it
    spheres: list[Factor] = [(Sphere(columns.shape[1]), columns) for columns in incoming if columns.shape[1] > 1]
    manifold = product_of(architecture.n_weights, spheres, charts)
    other = {"inside": "outside", "outside": "inside"}[bias]
    remedy = (
        f"each hidden neuron needs incoming weights of unit norm, bias {bias}. Put ScaleCanonicalizer(bias={bias!r}) "
        f"before WeightFlow (or say bias={other!r} in both), or use geometry='euclidean'."
    )
    return Geometry("geometric", manifold, manifold, charts, layout, architecture, remedy)


def normalized(architecture: Architecture, last_layer: LastLayer = "euclidean", bias: Bias = "inside") -> Geometry:
    """Put networks in the vector space around the spheres of `geometric`; samples are projected to the spheres."""
    curved = geometric(architecture, last_layer, bias)
    flat = _vector_space(curved.target.size)
    return Geometry("normalized", flat, curved.target, curved.charts, curved.layout, architecture, curved.remedy)


GEOMETRIES: dict[str, Callable[..., Geometry]] = {
    "euclidean": euclidean,
    "normalized": normalized,
    "geometric": geometric,
}


def vectors(n_features: int) -> Geometry:
    """Make a vector space without symmetries, for rows that have no architecture."""
    manifold = _vector_space(n_features)
    return Geometry("euclidean", manifold, manifold)


def _vector_space(size: int) -> Product:
    return Product([(Euclidean(size), torch.arange(size).unsqueeze(0))])
