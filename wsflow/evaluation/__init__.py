"""Evidence on held-out data and networks of held-out runs: barriers, predictions, novelty, nulls, the report."""

from wsflow.evaluation.barrier import fixed_pairs, loss_barrier, midpoint_barrier
from wsflow.evaluation.novelty import Dispersion, Novelty
from wsflow.evaluation.nulls import NULLS
from wsflow.evaluation.predictive import Predictive, predict
from wsflow.evaluation.report import Report, evaluate
from wsflow.evaluation.verdict import null_wins

__all__ = [
    "NULLS",
    "Dispersion",
    "Novelty",
    "Predictive",
    "Report",
    "evaluate",
    "fixed_pairs",
    "loss_barrier",
    "midpoint_barrier",
    "null_wins",
    "predict",
]
