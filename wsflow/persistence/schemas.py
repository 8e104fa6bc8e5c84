"""What the JSON data of populations, models and tasks look like, and the fitted state of each step of a model."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from wsflow.architecture import Architecture
from wsflow.architecture.serialization import ARCHITECTURE
from wsflow.flow.paths import PREDICTIONS
from wsflow.losses import LOSSES
from wsflow.schema import (
    Check,
    anything,
    array,
    either,
    flag,
    label,
    list_of,
    mapping,
    nullable,
    number,
    one_of,
    real,
    record,
    row,
    tagged,
    text,
    whole,
)

SPLITS = ("training", "validation", "test")
CLASS_WEIGHT = either(text, list_of(row(label, number)))
SOURCE = record(
    {},
    {
        "name": text,
        "path": text,
        "seed": whole(0, 2**32 - 1),
        "target": nullable(either(text, whole(-(2**31)))),
        "loss": nullable(text),
        "class_weight": nullable(CLASS_WEIGHT),
    },
    further=True,
)
TASK = record(
    {"source": SOURCE, "checksum": text, "loss": one_of(*LOSSES)},
    {
        "parts": list_of(one_of(*SPLITS), 1),
        "classes": list_of(label, 1),
        "weighted": list_of(one_of(*SPLITS)),
        "class_weight": mapping(CLASS_WEIGHT),
    },
)
FILE = {"kind": text, "format": whole(1), "checksum": text, "versions": mapping(text)}
POPULATION = record(
    {
        **FILE,
        "architecture": ARCHITECTURE,
        "aligned": flag,
        "networks": whole(1),
        "runs": whole(1),
        "task": nullable(TASK),
        "provenance": mapping(anything),
    }
)


def value(data: Any, field: str) -> None:
    """Check what `wsflow.persistence.values.encode` made: plain values, and objects with a tag."""
    if isinstance(data, list):
        list_of(value)(data, field)
    elif isinstance(data, dict):
        (_TAGGED if any(key.startswith("$") for key in data) else mapping(value))(data, field)


_TAGGED = tagged(
    {
        "$tuple": record({"$tuple": list_of(value)}),
        "$float": record({"$float": one_of("nan", "inf", "-inf")}),
        "$array": record({"$array": text}),
        "$architecture": record({"$architecture": ARCHITECTURE}),
        "$task": record({"$task": TASK, "tensors": text}),
        "$object": record({"$object": record({"class": text, "params": mapping(value)})}),
    }
)
STEP = record(
    {"name": text, "class": text, "arrays": list_of(text), "params": mapping(value), "data": mapping(value)},
)
MODEL = record({**FILE, "pipeline": flag, "steps": list_of(STEP, 1)})


def known_architecture(data: Any, field: str) -> None:
    """Check an architecture, or the text that stands for it in files of 0.1."""
    if not isinstance(data, Architecture):
        text(data, field)


_FITTED: dict[str, Check] = {"n_features": whole(1), "architecture": nullable(known_architecture)}
_NAMED: dict[str, Check] = {"feature_names": list_of(text)}
_HISTORY = record({"step": list_of(whole()), **dict.fromkeys(("train", "validation", "energy"), list_of(real))})
_TRAINED: dict[str, Check] = {
    **_FITTED,
    "histories": list_of(
        record(
            {"step": list_of(whole()), "best_step": whole(), **dict.fromkeys(("train", "validation"), list_of(real))}
        ),
        1,
    ),
    "fitted_to": row(whole(1), whole(1)),
}
_PREDICTOR: dict[str, Check] = {**_TRAINED, "n_members": whole(1)}
# class of a step -> its fitted values, when they are decoded
FITTED: Mapping[str, Check] = MappingProxyType(
    {
        "WeightFlow": record(
            {
                **_FITTED,
                "history": _HISTORY,
                "best_step": whole(),
                "dtype": one_of("float32", "float64"),
                "prediction": one_of(*PREDICTIONS),
            },
            {
                **_NAMED,
                "loss": one_of(*LOSSES),
                "labels": list_of(label, 1),
                "is_classification": flag,
                "fitted_to": row(whole(1), whole(1)),
            },
        ),
        "MetaAutoencoder": record({**_TRAINED, "loss": one_of(*LOSSES), "dtype": one_of("float32", "float64")}, _NAMED),
        "MetaRegressor": record({**_PREDICTOR, "residual_std": number}, _NAMED),
        "MetaClassifier": record({**_PREDICTOR, "labels": list_of(label, 2)}, _NAMED),
        "VariationalNetwork": record(
            {
                "n_features": whole(1),
                "architecture": known_architecture,
                "history": record({"step": list_of(whole()), "train": list_of(real), "best_step": whole()}),
                "seed": whole(0, 2**31),
                "is_column": flag,
                "labels": nullable(list_of(label, 1)),
            },
            _NAMED,
        ),
        "PermutationAligner": record(
            {
                **_FITTED,
                "output_change": real,
                "seed": whole(0, 2**32 - 1),
                "held": list_of(row(text, list_of(whole()))),
            },
            _NAMED,
        ),
        "ProcrustesAligner": record({**_FITTED, "output_change": real, "wires": list_of(text)}, _NAMED),
        "ScaleCanonicalizer": record({**_FITTED, "output_norm": real, "output_change": real}, _NAMED),
    }
)
# class of a step -> its arrays
ARRAYS: Mapping[str, Check] = MappingProxyType(
    {
        **dict.fromkeys(
            ("WeightFlow", "MetaAutoencoder", "MetaRegressor", "MetaClassifier"), mapping(array("fib", *range(8)))
        ),
        "PermutationAligner": record(
            {
                "reference": array("f", 1),
                "distances": array("f", 1),
                "first": array("f", 1, 2),
                **dict.fromkeys(("objective", "n_passes", "barrier_before", "barrier_after"), array("fi", 0, 1)),
            }
        ),
        "ProcrustesAligner": record({"reference": array("f", 1)}),
        "ScaleCanonicalizer": record({}),
        "VariationalNetwork": record(
            {"row": array("f", 1), "mean": array("f", 1), "log_ratio": array("f", 1), "loadings": array("f", 2)}
        ),
    }
)
