"""What a WeightFlow has learned, as arrays and plain values, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from wsflow.architecture import Architecture
from wsflow.estimators.validation import description, tensor
from wsflow.models.flow_training import FlowHistory
from wsflow.models.settings import FlowSettings
from wsflow.models.weight_flow import WeightFlowModel, restored_weight_flow


def state_of(flow: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the values of a fitted flow."""
    arrays = {name: array.cpu().numpy() for name, array in flow.model_.state_dict().items()}
    history = {name: getattr(flow.history_, name) for name in ("step", "train", "validation", "energy")}
    data = {"history": history, "best_step": flow.history_.best_step, "dtype": str(flow._dtype)}
    data["prediction"] = flow.model_.settings.prediction
    if flow.n_networks_ is not None:
        data["fitted_to"] = [flow.n_networks_, flow.n_runs_]
    if flow.model_.consensus is not None:
        data["loss"] = flow.model_.consensus.loss
    if hasattr(flow, "labels_"):
        data["labels"] = flow.labels_.tolist()
    return arrays, {**data, **description(flow)}


def restored(
    settings: FlowSettings, architecture: Architecture | None, arrays: dict[str, np.ndarray], data: dict[str, Any]
) -> tuple[WeightFlowModel, FlowHistory]:
    """The model that was fitted, and its history, from what `state_of` returned."""
    n_features = data["n_features"] if architecture is None else architecture.n_weights
    geometry = settings.geometry_for(architecture, n_features)
    state = {name: tensor(array) for name, array in arrays.items()}
    # files of 0.1 say whether it was a classification
    loss = data.get("loss", "cross_entropy" if data.get("is_classification", True) else "mse")
    model = restored_weight_flow(settings, geometry, state, loss, len(data.get("labels", ())))
    return model, FlowHistory(**data["history"], best_step=data["best_step"])
