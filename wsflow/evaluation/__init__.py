"""Evidence on held-out data and networks of held-out runs: barriers, predictions, novelty, nulls, the report."""

from wsflow.evaluation.barrier import BarrierMatrix, barrier_matrix, fixed_pairs, loss_barrier, midpoint_barrier
from wsflow.evaluation.connectivity import LossPath, interpolate, loss_path
from wsflow.evaluation.detection import Flagged, detect, duplicates, foreign
from wsflow.evaluation.frontiers import Frontier, beats, compare
from wsflow.evaluation.merging import merge
from wsflow.evaluation.mmd import TwoSampleTest, mmd_test
from wsflow.evaluation.novelty import Dispersion, Novelty
from wsflow.evaluation.nulls import NULLS
from wsflow.evaluation.overlap import intersection_over_union, largest_overlap
from wsflow.evaluation.posterior import PredictiveCurve, ood_auroc, predictive_curve
from wsflow.evaluation.predictive import Predictive, Reliability, predict, reliability
from wsflow.evaluation.regions import Fidelity, fidelity
from wsflow.evaluation.renormalization import recompute_statistics, repair_channels
from wsflow.evaluation.report import Report, evaluate
from wsflow.evaluation.verdict import null_wins
from wsflow.evaluation.yardstick import Yardstick, frontier

__all__ = [
    "NULLS",
    "BarrierMatrix",
    "Dispersion",
    "Fidelity",
    "Flagged",
    "Frontier",
    "LossPath",
    "Novelty",
    "Predictive",
    "PredictiveCurve",
    "Reliability",
    "Report",
    "TwoSampleTest",
    "Yardstick",
    "barrier_matrix",
    "beats",
    "compare",
    "detect",
    "duplicates",
    "evaluate",
    "fidelity",
    "fixed_pairs",
    "foreign",
    "frontier",
    "interpolate",
    "intersection_over_union",
    "largest_overlap",
    "loss_barrier",
    "loss_path",
    "merge",
    "midpoint_barrier",
    "mmd_test",
    "null_wins",
    "ood_auroc",
    "predict",
    "predictive_curve",
    "recompute_statistics",
    "reliability",
    "repair_channels",
]
