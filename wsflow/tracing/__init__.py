"""Reading any torch module: its neuron groups, wires and blocks, found from its operations and certified."""

from wsflow.tracing.certificate import Certificate, certify
from wsflow.tracing.modules import architecture_of_module

__all__ = ["Certificate", "architecture_of_module", "certify"]
