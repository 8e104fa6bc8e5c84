"""Reading any torch module: its neuron groups, wires and blocks, found from its operations and certified."""

from wsflow.tracing.certificate import Certificate, certify
from wsflow.tracing.exchange import exchangeable_layers
from wsflow.tracing.modules import architecture_of_module, remaining_of_module
from wsflow.tracing.orbits import OrbitCertificate, certify_orbits
from wsflow.tracing.remaining import RemainingSymmetries, remaining_symmetries

__all__ = [
    "Certificate",
    "OrbitCertificate",
    "RemainingSymmetries",
    "architecture_of_module",
    "certify",
    "certify_orbits",
    "exchangeable_layers",
    "remaining_of_module",
    "remaining_symmetries",
]
