"""Display objects: a report, a path between networks or a matrix of barriers, as a figure to look at."""

from wsflow.plotting.evaluation import EvaluationDisplay
from wsflow.plotting.matrices import BarrierMatrixDisplay, plot_barrier_matrix
from wsflow.plotting.paths import PathDisplay, plot_path
from wsflow.plotting.predictive import PredictiveDisplay
from wsflow.plotting.report import ReportDisplay

__all__ = [
    "BarrierMatrixDisplay",
    "EvaluationDisplay",
    "PathDisplay",
    "PredictiveDisplay",
    "ReportDisplay",
    "plot_barrier_matrix",
    "plot_path",
]
