"""Display objects: a report, a path between networks, a map of them or a matrix of barriers, as a figure to look at."""

from wsflow.plotting.calibration import ReliabilityDisplay
from wsflow.plotting.connectivity import ConnectivityDisplay
from wsflow.plotting.evaluation import EvaluationDisplay
from wsflow.plotting.flows import TrainingCurveDisplay, TrajectoryDisplay
from wsflow.plotting.maps import MapDisplay
from wsflow.plotting.matrices import BarrierMatrixDisplay, plot_barrier_matrix
from wsflow.plotting.paths import PathDisplay, plot_path
from wsflow.plotting.predictive import PredictiveDisplay
from wsflow.plotting.report import FrontierDisplay, ReportDisplay

__all__ = [
    "BarrierMatrixDisplay",
    "ConnectivityDisplay",
    "EvaluationDisplay",
    "FrontierDisplay",
    "MapDisplay",
    "PathDisplay",
    "PredictiveDisplay",
    "ReliabilityDisplay",
    "ReportDisplay",
    "TrainingCurveDisplay",
    "TrajectoryDisplay",
    "plot_barrier_matrix",
    "plot_path",
]
