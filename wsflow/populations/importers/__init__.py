"""Networks of other tools as populations: one file for each format, and the table of them."""

from wsflow.populations.importers.loading import load_networks
from wsflow.populations.importers.table import FORMATS

__all__ = ["FORMATS", "load_networks"]
