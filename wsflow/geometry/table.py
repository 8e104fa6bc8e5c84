"""The table of geometries: name -> how to make one for an architecture.

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
from wsflow.geometry.charts import Chart, phases_of
from wsflow.geometry.products import Factor, polar_of, product_of
from wsflow.geometry.space import Geometry
from wsflow.manifolds import Euclidean, Product, Sphere
from wsflow.symmetry.canonical import Bias, incoming_columns

LastLayer = Literal["euclidean", "polar"]


def euclidean(architecture: Architecture, last_layer: LastLayer = "euclidean", bias: Bias = "inside") -> Geometry:
    """All weights in a vector space.

    Parameters
    ----------
    architecture : Architecture
    last_layer : {"euclidean", "polar"}
    bias : {"inside", "outside"}
        Not used.

    Returns
    -------
    Geometry
    """
    charts = polar_of(architecture, last_layer)
    manifold = product_of(architecture.n_weights, [], charts)
    return Geometry("euclidean", manifold, manifold, tuple(charts), architecture, architecture)


def geometric(architecture: Architecture, last_layer: LastLayer = "euclidean", bias: Bias = "inside") -> Geometry:
    """A sphere for the incoming weights of each neuron that has positive scalings, a circle for each bias that phases
    shift, and a vector space for the rest.

    Parameters
    ----------
    architecture : Architecture
    last_layer : {"euclidean", "polar"}
    bias : {"inside", "outside"}
        Whether a neuron's sphere includes its bias.

    Returns
    -------
    Geometry
    """
    phases, layout = phases_of(architecture)
    charts: tuple[Chart, ...] = (*phases, *polar_of(architecture, last_layer))
    manifold = product_of(architecture.n_weights, _spheres(architecture, bias), charts)
    return Geometry("geometric", manifold, manifold, charts, layout, architecture, _remedy(bias))


def normalized(architecture: Architecture, last_layer: LastLayer = "euclidean", bias: Bias = "inside") -> Geometry:
    """A vector space around the spheres of the geometric geometry; samples are projected to them.

    Parameters
    ----------
    architecture : Architecture
    last_layer : {"euclidean", "polar"}
    bias : {"inside", "outside"}

    Returns
    -------
    Geometry
    """
    curved = geometric(architecture, last_layer, bias)
    flat = _vector_space(curved.target.size)
    return Geometry("normalized", flat, curved.target, curved.charts, curved.layout, architecture, curved.remedy)


GEOMETRIES: dict[str, Callable[..., Geometry]] = {
    "euclidean": euclidean,
    "normalized": normalized,
    "geometric": geometric,
}


def vectors(n_features: int) -> Geometry:
    """Plain vectors without an architecture: a vector space without symmetries.

    Parameters
    ----------
    n_features : int

    Returns
    -------
    Geometry
    """
    manifold = _vector_space(n_features)
    return Geometry("euclidean", manifold, manifold)


def _vector_space(size: int) -> Product:
    return Product([(Euclidean(size), torch.arange(size).unsqueeze(0))])


def _spheres(architecture: Architecture, bias: Bias) -> list[Factor]:
    spheres: list[Factor] = []
    for wire in architecture.wires:
        if POSITIVE in wire.scalings:
            columns = incoming_columns(architecture, wire, bias)
            # a neuron with a single incoming weight has S^0, two points: no flow moves on it
            if columns.shape[1] > 1:
                spheres.append((Sphere(columns.shape[1]), columns))
    return spheres


def _remedy(bias: Bias) -> str:
    other = {"inside": "outside", "outside": "inside"}[bias]
    return (
        f"each hidden neuron needs incoming weights of unit norm, bias {bias}. Put ScaleCanonicalizer(bias={bias!r}) "
        f"before WeightFlow (or say bias={other!r} in both), or use geometry='euclidean'."
    )
