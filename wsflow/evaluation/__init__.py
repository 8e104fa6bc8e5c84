"""Evidence on held-out data and networks of held-out runs: barriers, predictions, novelty, nulls, the report."""

from wsflow.evaluation.barrier import BarrierMatrix, barrier_matrix, fixed_pairs, loss_barrier, midpoint_barrier
from wsflow.evaluation.calibration import Reliability, reliability
from wsflow.evaluation.connectivity import LossPath, interpolate, loss_path
from wsflow.evaluation.detection import Detection, detect, duplicates, foreign
from wsflow.evaluation.energy_score import energy_score
from wsflow.evaluation.evaluator import Evaluator, frontier
from wsflow.evaluation.iou import intersection_over_union, max_iou
from wsflow.evaluation.measures import MEASURES
from wsflow.evaluation.merging import merge
from wsflow.evaluation.mmd import TwoSampleTest, mmd_test
from wsflow.evaluation.model_averaging import PredictiveCurve, predictive_curve
from wsflow.evaluation.novelty import Dispersion, Novelty
from wsflow.evaluation.nulls import NULLS
from wsflow.evaluation.ood_detection import ood_auroc
from wsflow.evaluation.pareto import Frontier, compare_frontiers, dominates
from wsflow.evaluation.prdc import PRDC, compute_prdc
from wsflow.evaluation.prediction import (
    HyperparameterBaseline,
    OrbitScore,
    hyperparameter_baseline,
    kendall_tau,
    orbit_score,
    tau_ceiling,
)
from wsflow.evaluation.predictive import Predictive, predict
from wsflow.evaluation.projection import NetworkMap, network_map
from wsflow.evaluation.repair import STATISTICS_INPUTS, recompute_batch_norm, repair_channels
from wsflow.evaluation.report import Report, evaluate
from wsflow.evaluation.verdict import null_wins

__all__ = [
    "MEASURES",
    "NULLS",
    "PRDC",
    "STATISTICS_INPUTS",
    "BarrierMatrix",
    "Detection",
    "Dispersion",
    "Evaluator",
    "Frontier",
    "HyperparameterBaseline",
    "LossPath",
    "NetworkMap",
    "Novelty",
    "OrbitScore",
    "Predictive",
    "PredictiveCurve",
    "Reliability",
    "Report",
    "TwoSampleTest",
    "barrier_matrix",
    "compare_frontiers",
    "compute_prdc",
    "detect",
    "dominates",
    "duplicates",
    "energy_score",
    "evaluate",
    "fixed_pairs",
    "foreign",
    "frontier",
    "hyperparameter_baseline",
    "interpolate",
    "intersection_over_union",
    "kendall_tau",
    "loss_barrier",
    "loss_path",
    "max_iou",
    "merge",
    "midpoint_barrier",
    "mmd_test",
    "network_map",
    "null_wins",
    "ood_auroc",
    "orbit_score",
    "predict",
    "predictive_curve",
    "recompute_batch_norm",
    "reliability",
    "repair_channels",
    "tau_ceiling",
]
