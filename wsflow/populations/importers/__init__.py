"""Networks of other tools as populations: one file for each format, and the table of them."""

from wsflow.populations.importers.formats import FORMATS
from wsflow.populations.importers.loading import load_networks

__all__ = ["FORMATS", "load_networks"]
