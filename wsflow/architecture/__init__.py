"""What the numbers of a network are: spaces, wires, blocks, parameters, and the table of them."""

from wsflow.architecture.architecture import Architecture
from wsflow.architecture.parameters import ActivationSite, Block, Parameter, Shear
from wsflow.architecture.sequential import Layer
from wsflow.architecture.spaces import DirectSum, Fixed, NeuronGroup, Space, Wire

__all__ = [
    "ActivationSite",
    "Architecture",
    "Block",
    "DirectSum",
    "Fixed",
    "Layer",
    "NeuronGroup",
    "Parameter",
    "Shear",
    "Space",
    "Wire",
]
