"""Geometries: on which manifold the networks of an architecture lie.

Each row of the table `GEOMETRIES` makes, from an architecture, a manifold and the charts between weights and its
points. Every row of weights stays a runnable network; charts live only inside the flow.
"""

from wsflow.geometry.charts import Chart, Phases, Polar
from wsflow.geometry.representatives import Representatives
from wsflow.geometry.space import Geometry
from wsflow.geometry.table import GEOMETRIES, euclidean, geometric, normalized, vectors

__all__ = [
    "GEOMETRIES",
    "Chart",
    "Geometry",
    "Phases",
    "Polar",
    "Representatives",
    "euclidean",
    "geometric",
    "normalized",
    "vectors",
]
