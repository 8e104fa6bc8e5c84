"""Layers without symmetries, as torch modules: constants tell the neurons apart.

References
----------
Lim, Putterman, Walters, Maron and Jegelka 2024, "The empirical impact of neural parameter symmetries, or lack thereof",
arXiv:2405.20231.
"""

from wsflow.layers.asymmetric import AsymmetricConv1d, AsymmetricConv2d, AsymmetricLinear
from wsflow.layers.conversion import asymmetrize
from wsflow.layers.figlu import FiGLU

__all__ = ["AsymmetricConv1d", "AsymmetricConv2d", "AsymmetricLinear", "FiGLU", "asymmetrize"]
