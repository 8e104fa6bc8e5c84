"""Evidence on held-out data and networks of held-out runs: barriers, predictions, novelty, nulls, the report."""

from wsflow.evaluation.barrier import BarrierMatrix, barrier_matrix, fixed_pairs, loss_barrier, midpoint_barrier
from wsflow.evaluation.connectivity import LossPath, interpolate, loss_path
from wsflow.evaluation.merging import merge
from wsflow.evaluation.novelty import Dispersion, Novelty
from wsflow.evaluation.nulls import NULLS
from wsflow.evaluation.predictive import Predictive, predict
from wsflow.evaluation.renormalization import recompute_statistics, repair_channels
from wsflow.evaluation.report import Report, evaluate
from wsflow.evaluation.verdict import null_wins

__all__ = [
    "NULLS",
    "BarrierMatrix",
    "Dispersion",
    "LossPath",
    "Novelty",
    "Predictive",
    "Report",
    "barrier_matrix",
    "evaluate",
    "fixed_pairs",
    "interpolate",
    "loss_barrier",
    "loss_path",
    "merge",
    "midpoint_barrier",
    "null_wins",
    "predict",
    "recompute_statistics",
    "repair_channels",
]
