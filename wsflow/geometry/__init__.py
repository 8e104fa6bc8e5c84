"""Geometries: on which manifold the networks of an architecture lie.

Each row of the table `GEOMETRIES` makes, from an architecture, a manifold and the charts between weights and its
points. Every row of weights stays a runnable network; charts live only inside the flow.
"""

from wsflow.geometry.charts import Chart, Phases, Polar
from wsflow.geometry.coordinates import Coordinates, PrincipalCoordinates
from wsflow.geometry.fitting import fit_coordinates, with_coordinates, with_coordinates_of
from wsflow.geometry.geometries import GEOMETRIES, euclidean, geometric, normalized, vectors
from wsflow.geometry.geometry import Geometry
from wsflow.geometry.principal import fit_principal, with_arrays

__all__ = [
    "GEOMETRIES",
    "Chart",
    "Coordinates",
    "Geometry",
    "Phases",
    "Polar",
    "PrincipalCoordinates",
    "euclidean",
    "fit_coordinates",
    "fit_principal",
    "geometric",
    "normalized",
    "vectors",
    "with_arrays",
    "with_coordinates",
    "with_coordinates_of",
]
