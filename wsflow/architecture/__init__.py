"""What the numbers of a network are: spaces, wires, blocks, parameters, and the table of them."""

from wsflow.architecture.layers import Layer
from wsflow.architecture.parameters import Block, Parameter, Shear, Tap
from wsflow.architecture.spaces import DirectSum, Fixed, NeuronGroup, Space, Wire
from wsflow.architecture.table import Architecture

__all__ = [
    "Architecture",
    "Block",
    "DirectSum",
    "Fixed",
    "Layer",
    "NeuronGroup",
    "Parameter",
    "Shear",
    "Space",
    "Tap",
    "Wire",
]
