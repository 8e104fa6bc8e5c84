"""What inputs and targets of a task may be: finite numbers, labels of any type, counts; errors name rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from wsflow.arrays import dense
from wsflow.exceptions import InvalidInputError

MENTIONED = 5
BINARIZE = "Sets of labels become an array by sklearn.preprocessing.MultiLabelBinarizer."
# networks run in single precision; so many weights have sums and squares there
LARGEST_VALUE = float(np.finfo(np.float32).max)
LARGEST = 1e12
# integers of 32 and 64 bits may be tokens; all other types become the first
INPUT_TYPES = [np.float64, np.float32, np.float16, np.int32, np.int64]


def checked_inputs(X: Any) -> np.ndarray:
    """Return inputs (b, p) or (b, ...) as an array of numbers that are all finite."""
    from sklearn.utils.validation import check_array

    array = numbers(X, "X")
    check_finite(array, "X", getattr(X, "columns", None))
    return check_array(array, dtype=INPUT_TYPES, allow_nd=True, input_name="X of this Task")


def numbers(values: Any, name: str) -> np.ndarray:
    """Return an array of numbers, of floats where it has Python objects, whose missing values are NaN."""
    array = _array(values, name)
    try:
        if array.dtype.kind in "OSU":
            array = np.where(_missing(array), np.nan, array.astype(object)).astype(np.float64)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"got {array.dtype}")
    except (TypeError, ValueError) as error:
        remedy = ", or pass loss='cross_entropy' for classes" if name == "y" else ""
        raise InvalidInputError(f"The {name!r} of a Task are numbers: {error}. Encode them{remedy}.") from error
    return array


def check_finite(values: np.ndarray, name: str, columns: Any = None) -> None:
    """Refuse values that are not finite, and name the first of their rows and columns, or beyond `LARGEST_VALUE`."""
    if values.dtype.kind != "f":
        return
    largest = np.abs(values).max(initial=0)
    if largest <= LARGEST_VALUE:
        return
    if np.isfinite(largest):
        raise InvalidInputError(
            f"The {name!r} of a Task has {largest:g}, and networks run in single precision, whose numbers end at "
            f"{LARGEST_VALUE:g}: rescale it."
        )
    places = np.argwhere(~np.isfinite(values))
    named = [_place(values, place, columns) for place in places[:MENTIONED]]
    more = f" and {len(places) - MENTIONED} more" if len(places) > MENTIONED else ""
    rows = _listed(np.unique(places[:, 0]))
    rest = (
        f", or columns {_listed(np.unique(places[:, 1]), columns)}" if values.ndim == 2 and values.shape[1] > 1 else ""
    )
    raise InvalidInputError(
        f"The {name!r} of a Task is not finite everywhere: {'; '.join(named)}{more}. Impute these values, or drop rows "
        f"{rows}{rest}."
    )


def _place(values: np.ndarray, place: np.ndarray, columns: Any) -> str:
    row, *rest = place.tolist()
    value = {True: "NaN"}.get(bool(np.isnan(values[tuple(place)])), "infinity")
    if not rest:
        return f"{value} in row {row}"
    return f"{value} in row {row}, column {_listed(rest, columns if len(rest) == 1 else None)}"


def _listed(indices: Iterable[int], columns: Any = None) -> str:
    every = [str(i) if columns is None else repr(columns[i]) for i in indices]
    return ", ".join(every[:MENTIONED]) + (", ..." if len(every) > MENTIONED else "")


def checked_labels(y: Any) -> np.ndarray:
    """Return labels (b,) or (b, m) of one type: integers, reals, truth values or text."""
    array = _array(y, "y")
    if array.dtype == object:
        array = _of_one_type(array)
    elif array.dtype.kind == "U" and isinstance(y, (list, tuple)):
        # NumPy writes the missing values of a list of text as text
        _check_none_missing(np.array(y, dtype=object))
    array = array.astype(str) if array.dtype.kind == "S" else array
    check_finite(array, "y")
    if array.dtype.kind not in "fiubU" or array.ndim not in (1, 2) or not array.size:
        raise InvalidInputError(
            "The 'y' of a Task are labels of shape (b,), or for several labels of shape (b, m): text, numbers or truth "
            f"values. Got {array.dtype} of shape {array.shape}."
        )
    if array.dtype.kind in "uf" and (np.abs(array) >= 2.0**63).any():
        raise InvalidInputError("Labels 'y' of a Task that are numbers are smaller than 2^63: turn these into text.")
    if array.dtype.kind in "iu" or (array.dtype.kind == "f" and (array == np.round(array)).all()):
        return array.astype(np.int64)
    return array


def _of_one_type(array: np.ndarray) -> np.ndarray:
    """Return labels that are Python objects as an array of their type."""
    _check_none_missing(array)
    if any(isinstance(label, (set, frozenset, list)) for label in array.flat):
        raise InvalidInputError(f"The 'y' of a Task has sets of labels. {BINARIZE}")
    kinds = {np.asarray(label).dtype.kind for label in array.flat}
    if len({"n" if kind in "fiu" else kind for kind in kinds}) > 1 or "O" in kinds:
        types = ", ".join(sorted({type(label).__name__ for label in array.flat}))
        raise InvalidInputError(
            "The labels 'y' of a Task are of one type: text, numbers or truth values. "
            f"Got {types}: turn them into text."
        )
    return np.asarray(array.tolist())


def _check_none_missing(labels: np.ndarray) -> None:
    rows = np.unique(np.argwhere(_missing(labels))[:, 0])
    if len(rows):
        raise InvalidInputError(f"The 'y' of a Task has no label in rows {_listed(rows)}. Fill them in or drop them.")


def _missing(array: np.ndarray) -> np.ndarray:
    """Return which Python objects stand for a missing value."""
    return np.array([_is_missing(value) for value in array.flat], dtype=bool).reshape(array.shape)


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType", "MaskedConstant") or bool(value != value)


def _array(values: Any, name: str) -> np.ndarray:
    """Return tensors, tables and lists as an array; it has Python objects where a value is masked."""
    try:
        array = np.asarray(dense(values, f"The {name!r} of a Task"))
    except ValueError as error:
        raise InvalidInputError(
            f"The {name!r} of a Task has rows of different lengths ({error}). {BINARIZE}"
        ) from error
    if not array.ndim or array.dtype.kind == "V":
        sparse = ", or a sparse one by its method toarray" if hasattr(values, "toarray") else ""
        raise InvalidInputError(
            f"The {name!r} of a Task is an array with a row for each example, got {type(values).__name__}: pass a "
            f"list or an array{sparse}."
        )
    # strings of any length
    return array.astype(object) if array.dtype.kind == "T" else array


def one_column(y: Any, dtype: Any) -> np.ndarray:
    """Return labels (b,) of classes."""
    labels = checked_labels(y)
    if labels.ndim == 2 and labels.shape[1] != 1:
        raise InvalidInputError(
            f"The 'y' of a Task with loss='cross_entropy' are labels of shape (b,), one class for each example, got "
            f"shape {labels.shape}. Pass loss='binary_cross_entropy' for several labels, or the argmax of one-hot rows."
        )
    return labels.ravel()


def one_or_several(y: Any, dtype: Any) -> np.ndarray:
    """Return labels (b,) of two classes, or an indicator (b, m) of several labels."""
    labels = checked_labels(y)
    if labels.ndim == 1 or labels.shape[1] == 1:
        return labels.ravel()
    if labels.dtype.kind not in "bi" or not np.isin(labels, (0, 1)).all():
        raise InvalidInputError(
            f"Several labels, the 'y' of shape {labels.shape} of a Task with loss='binary_cross_entropy', are 0 where "
            f"a label is not there and 1 where it is. {BINARIZE}"
        )
    return labels


def reals(y: Any, dtype: Any) -> np.ndarray:
    """Return numbers (b, m)."""
    array = numbers(y, "y")
    check_finite(array, "y")
    return array.astype(dtype).reshape(len(array), -1)


def counts(y: Any, dtype: Any) -> np.ndarray:
    """Return numbers (b, m) that are not negative."""
    array = reals(y, dtype)
    below = np.flatnonzero((array < 0).any(1))
    if len(below):
        raise InvalidInputError(
            f"The 'y' of a Task with loss='poisson' are not negative, but are so in rows {_listed(below)}."
        )
    return array


def numbers_or_indices(y: Any, dtype: Any) -> np.ndarray:
    """Return integers (b,) as they are, and other numbers as floats (b, m)."""
    array = numbers(y, "y")
    return array.astype(np.int64) if array.dtype.kind in "iub" and array.ndim == 1 else reals(array, dtype)


def codes_of(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the index (b,) of each label among the classes."""
    text = [values.dtype.kind == "U" for values in (labels, classes)]
    order = np.argsort(classes)
    if text[0] == text[1]:
        codes = order[np.searchsorted(classes, labels, sorter=order).clip(max=len(order) - 1)]
        unknown = np.flatnonzero(classes[codes] != labels)
    else:
        codes, unknown = labels, np.arange(len(labels))
    if len(unknown):
        raise InvalidInputError(
            f"The label {labels[unknown[0]].item()!r} of row {unknown[0]} is not among the classes of this Task, "
            f"{_listed(range(len(classes)), classes.tolist())}. Pass all of them as 'classes'."
        )
    return codes.astype(np.int64)


class Target(NamedTuple):
    """A row of the table of targets: how they are checked, and whether they are labels of classes."""

    check: Callable[[Any, Any], np.ndarray]
    labelled: bool = False


TARGETS: dict[str, Target] = {
    "classes": Target(one_column, labelled=True),
    "labels": Target(one_or_several, labelled=True),
    "numbers": Target(reals),
    "counts": Target(counts),
    "any": Target(numbers_or_indices),
}


def classes_of(labels: list[np.ndarray], target: str) -> np.ndarray:
    """Return the classes among the labels of a task and of its held-out data, sorted."""
    if labels[0].ndim == 2:
        return np.arange(labels[0].shape[1])
    if len({values.dtype.kind == "U" for values in labels}) > 1:
        raise InvalidInputError("The labels of a Task and of its held-out data are of one type: text, or numbers.")
    found = np.unique(np.concatenate(labels))
    if found.dtype.kind == "f":
        raise InvalidInputError(
            f"Targets such as {found[found != np.round(found)][0]} are no classes. Pass loss='mse' for a regression, "
            "or name the 'classes'."
        )
    if target == "labels" and found.dtype.kind in "bi" and np.isin(found, (0, 1)).all():
        return np.array([0, 1]).astype(found.dtype)  # both, even where only one occurs
    if target == "labels" and len(found) > 2:
        raise InvalidInputError(
            f"A Task with loss='binary_cross_entropy' has two classes, or labels of shape (b, m), got "
            f"{len(found)} classes. Pass loss='cross_entropy'."
        )
    return found


def class_weights(given: Any, classes: np.ndarray, codes: np.ndarray, sample_weight: np.ndarray) -> np.ndarray:
    """Return the weight of each example (b,) by its class: balanced, or a dictionary from labels to weights.

    Balanced ones are those of scikit-learn, examples / (classes * examples of the class), examples counted by weight.
    """
    if isinstance(given, str) and given == "balanced":
        total = np.bincount(codes, sample_weight, len(classes))
        present = total > 0
        weights = np.divide(total.sum(), present.sum() * total, out=np.zeros(len(classes)), where=present)
        return weights[codes]
    if not isinstance(given, dict):
        raise InvalidInputError(f"The 'class_weight' of a Task is 'balanced' or a dictionary by label, got {given!r}.")
    unknown = [label for label in given if label not in classes.tolist()]
    if unknown:
        raise InvalidInputError(
            f"The 'class_weight' of a Task has the label {unknown[0]!r}, which is none of its classes."
        )
    weights = [given.get(label, 1.0) for label in classes.tolist()]
    return checked_weights(weights, len(classes), "class_weight")[codes]


def checked_weights(values: Any, n: int, name: str) -> np.ndarray:
    """Return weights (n,) that are finite, not negative and not all zero."""
    weights = numbers(values, name).astype(np.float64)
    if weights.shape != (n,):
        raise InvalidInputError(f"The {name!r} of a Task has shape ({n},), one for each example, got {weights.shape}.")
    bad = np.flatnonzero(~(weights >= 0) | np.isinf(weights))
    if len(bad) or not weights.any():
        rows = f"in rows {_listed(bad)} they are not" if len(bad) else "all are zero"
        raise InvalidInputError(f"The {name!r} of a Task are finite, not negative and not all zero, but {rows}.")
    if not 1 / LARGEST <= weights.max() <= LARGEST:
        raise InvalidInputError(
            f"The largest {name!r} of a Task is from {1 / LARGEST:g} to {LARGEST:g}, got {weights.max():g}: divide "
            "them by their mean."
        )
    return weights
