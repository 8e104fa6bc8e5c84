"""Geometries: on which manifold the networks of an architecture lie.

Each row of the table `GEOMETRIES` makes, from an architecture, a manifold and the charts between weights and its
points. Every row of weights stays a runnable network; charts live only inside the flow.
"""

from wsflow.geometry.charts import Chart, Phases, Polar
from wsflow.geometry.geometries import GEOMETRIES, euclidean, geometric, normalized, vectors
from wsflow.geometry.geometry import Geometry

__all__ = [
    "GEOMETRIES",
    "Chart",
    "Geometry",
    "Phases",
    "Polar",
    "euclidean",
    "geometric",
    "normalized",
    "vectors",
]
