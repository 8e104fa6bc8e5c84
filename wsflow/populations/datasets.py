"""The table of tasks: scikit-learn's bundled data and MNIST by name, and the user's own files by path.

The split is that of Erdogan 2025: 80% for training, 10% for validation, 10% for the test, by two calls of
``train_test_split``; inputs (and the targets of a regression) are standardized with the statistics of the training
part only. MNIST and Fashion-MNIST keep their own test part, and have pixels between 0 and 1. This file imports
neither torch nor scikit-learn before a task is loaded: it feeds the CLI's choices.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from wsflow.exceptions import InvalidInputError
from wsflow.losses import LOSSES
from wsflow.populations.file_kinds import other_than
from wsflow.populations.images import Digit, Photograph
from wsflow.populations.readers import READERS, Examples, read_idx
from wsflow.targets import TARGETS, check_finite
from wsflow.task import Task

MINIMUM = 10
FOLDER_VARIABLE = "WSFLOW_DATA"
N_VALIDATION = 5000


@dataclass(frozen=True)
class Dataset:
    """A row of the table: a data set that comes with scikit-learn."""

    loader: str  # the function of sklearn.datasets
    loss: str
    image: tuple[int, ...] | None = None  # channels, height and width, where rows are pixels

    def load(self) -> Examples:
        """Load inputs and targets."""
        import sklearn.datasets

        return getattr(sklearn.datasets, self.loader)(return_X_y=True)

    def task(self, name: str, seed: int, loss: str | None = None) -> Task:
        """Load the task, split and standardized, with its own loss or another one."""
        source = {"name": name, "seed": seed} | ({} if loss is None else {"loss": loss})
        return split_task(*self.load(), loss or self.loss, seed=seed, source=source)


@dataclass(frozen=True)
class ImageDataset:
    """A row of the table: images with a test part of their own, from ``$WSFLOW_DATA/subfolder`` or else from OpenML."""

    subfolder: str
    openml: int  # the number of the data set, whose rows are those of the training part, then those of the test
    loss: str = "cross_entropy"
    n_training: int = 60000
    image: tuple[int, ...] = (1, 28, 28)

    def task(self, name: str, seed: int) -> Task:
        """Load the task, with 5,000 random images of the training part (or a sixth, if it is small) for validation."""
        folder = os.environ.get(FOLDER_VARIABLE)
        if folder:
            (X, y), test = (_idx_pair(Path(folder) / self.subfolder, part) for part in ("train", "t10k"))
        else:
            (X, y), test = self._download()
        order = np.random.default_rng(seed).permutation(len(X))
        n_validation = min(N_VALIDATION, len(X) // 6)
        held_out, kept = order[:n_validation], order[n_validation:]
        validation = _images(X[held_out], y[held_out]) if n_validation else None
        first = _images(X[kept], y[kept])
        source = {"name": name, "seed": seed}
        return Task(first.X, first.y, validation=validation, test=_images(*test), source=source)

    def folder(self) -> Path | None:
        """Where the four files are; None where they are not, and would be downloaded."""
        path = Path(os.environ.get(FOLDER_VARIABLE, ""), self.subfolder)
        files = [file for part in ("train", "t10k") for _, file in _idx_files(path, part)]
        return path if FOLDER_VARIABLE in os.environ and all(files) else None

    def _download(self) -> tuple[Examples, Examples]:
        from sklearn.datasets import fetch_openml

        try:
            X, y = fetch_openml(data_id=self.openml, as_frame=False, parser="liac-arff", return_X_y=True)
        except OSError as error:
            raise InvalidInputError(
                f"OpenML cannot be reached ({error}). Set the environment variable {FOLDER_VARIABLE} to a folder with "
                f"the subfolder {self.subfolder!r} that has the four idx files."
            ) from error
        y = np.asarray(y).astype(np.int64)
        n = self.n_training
        return (X[:n], y[:n]), (X[n:], y[n:])


def _idx_files(folder: Path, part: str) -> list[tuple[Path, Path | None]]:
    """The paths of the images and the labels of one part, and the files there, which may be zipped, or None."""
    paths = [folder / f"{part}-{kind}-idx{axes}-ubyte" for kind, axes in (("images", 3), ("labels", 1))]
    return [(p, next((q for q in (p, p.with_name(f"{p.name}.gz")) if q.is_file()), None)) for p in paths]


def _idx_pair(folder: Path, part: str) -> Examples:
    """Read the images and labels of one part from files with their original names."""
    found = _idx_files(folder, part)
    for path, file in found:
        if file is None:
            raise InvalidInputError(
                f"{path}: there is no such file, nor {path.name}.gz. Put the four idx files there, or unset "
                f"{FOLDER_VARIABLE} to download them."
            )
    images, labels = (read_idx(file, axes) for (_, file), axes in zip(found, (3, 1), strict=True) if file is not None)
    if len(images) != len(labels) or not len(images):
        raise InvalidInputError(
            f"{folder}: {len(images)} images and {len(labels)} labels of {part!r} do not go together."
        )
    if not images.size:
        raise InvalidInputError(
            f"{folder}: the images of {part!r} have the shape {images.shape[1:]}, without pixels. Download them again."
        )
    return images, labels


def _images(X: np.ndarray, y: np.ndarray) -> Task:
    pixels = X.reshape(len(X), -1).astype(np.float32) / 255
    return Task(pixels, y.astype(np.int64))


DATASETS: dict[str, Dataset | ImageDataset | Photograph | Digit] = {
    "breast_cancer": Dataset("load_breast_cancer", "cross_entropy"),
    "china": Photograph("china.jpg"),
    "diabetes": Dataset("load_diabetes", "mse"),
    "digit": Digit(),
    "digits": Dataset("load_digits", "cross_entropy", (1, 8, 8)),
    "fashion_mnist": ImageDataset("fashion", 40996),
    "flower": Photograph("flower.jpg"),
    "iris": Dataset("load_iris", "cross_entropy"),
    "linnerud": Dataset("load_linnerud", "mse"),
    "mnist": ImageDataset("mnist", 554),
    "wine": Dataset("load_wine", "cross_entropy"),
}
TASKS: tuple[str, ...] = tuple(DATASETS)


def _row(name: str) -> Dataset | ImageDataset | Photograph | Digit | None:
    """Return the row of a name, which has a number behind a colon if the row has numbers."""
    base, colon, _ = name.partition(":")
    row = DATASETS.get(base)
    return row if not colon or getattr(row, "numbered", False) else None


def load_task(
    name_or_path: str | Path,
    *,
    seed: int = 42,
    target: str | int | None = None,
    loss: str | None = None,
    class_weight: Any = None,
) -> Task:
    """Load a task by its name, or from a file of one's own.

    Parameters
    ----------
    name_or_path : str or Path
        One of `TASKS`, such as ``"iris"``, the photograph ``"china"`` or the handwritten ``"digit:17"`` (images as
        tasks of their own, see `image_task`); or a file: ``.csv`` (one row an example, with or without a header) or
        ``.npz`` (arrays ``X`` and ``y``). The targets of a csv file are its last column.
    seed : int
        Random state of the split.
    target : str or int, optional
        Another column of a csv file: its name in the header, or its index.
    loss : str, optional
        A key of `wsflow.losses.LOSSES`, for files and the data sets of scikit-learn. By default numbers of a file with
        many different values are a regression, everything else are classes.
    class_weight : "balanced" or dict, optional
        Of the training part, as in `Task`.

    Returns
    -------
    Task
        The training part, with ``validation`` and ``test`` (an image has neither); float32.

    Raises
    ------
    InvalidInputError
        If there is no such task, or the file is not what it should be.
    ValueError
        If `target` or `loss` do not go with the task.

    References
    ----------
    Erdogan 2025, "Geometric Flow Models over Neural Network Weights", for the split.

    Examples
    --------
    >>> from wsflow.populations import load_task
    >>> task = load_task("breast_cancer")
    >>> task.X.shape, len(task.validation.X), len(task.test.X), task.n_outputs
    ((455, 30), 57, 57, 2)
    """
    if loss is not None and loss not in LOSSES:
        raise ValueError(f"The 'loss' of a task is one of {', '.join(LOSSES)}, got {loss!r}.")
    name = str(name_or_path)
    task = _named(name, seed, target, loss) if _row(name) is not None else _from_file(Path(name), seed, target, loss)
    if class_weight is None:
        return task
    plain = class_weight if isinstance(class_weight, str) else list(map(list, class_weight.items()))
    return replace(task, class_weight=class_weight, source={**task.source, "class_weight": plain})


def _named(name: str, seed: int, target: str | int | None, loss: str | None) -> Task:
    row = _row(name)
    if isinstance(row, Dataset) and target is None:
        return row.task(name, seed, loss)
    if target is not None or loss is not None or row is None:
        raise ValueError(f"'target' is for files, 'loss' for files and scikit-learn's tables; {name!r} has its own.")
    return row.task(name, seed)


def _from_file(path: Path, seed: int, target: str | int | None, loss: str | None) -> Task:
    name = str(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None and path.exists():
        raise InvalidInputError(
            f"{path}: {other_than(path, 'table of data')}. Tasks are read from files ending in {' or '.join(READERS)}."
        )
    if reader is None:
        near = get_close_matches(name.partition(":")[0].lower(), TASKS)
        meant = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise InvalidInputError(
            f"There is no task {name!r}.{meant} Choose one of {', '.join(TASKS)}, or give a file ending in "
            f"{' or '.join(READERS)}."
        )
    X, y = reader(path, target)
    try:
        y, loss = _targets(y, loss)
        source = {"path": str(path.absolute()), "seed": seed, "target": target, "loss": loss}
        return split_task(X, y, loss, seed=seed, source=source)
    except ValueError as error:
        raise InvalidInputError(f"{path}: {error}") from error


def image_shape(task: Task) -> tuple[int, ...] | None:
    """Return the channels, height and width of the images that the rows of a task by name are; None of others."""
    name = task.source.get("name")
    row = _row(name) if isinstance(name, str) else None
    shape = getattr(row, "image", None)
    return shape if shape is not None and task.X.shape[1:] == (int(np.prod(shape)),) else None


def easily_mistaken(name: str) -> str:
    """Return a sentence on the task that is easily meant by a name that is another's; "" where there is none."""
    row = DATASETS.get(name)
    return f"{name!r} is {row.description}" if isinstance(row, Digit) else ""


def task_from_source(source: Mapping[str, Any], checksum: str | None = None) -> Task:
    """Load the task of a source again, whose data must still have the checksum."""
    name = source.get("path", source.get("name"))
    keywords = {key: source[key] for key in ("seed", "target", "loss", "class_weight") if key in source}
    if isinstance(keywords.get("class_weight"), list):
        keywords["class_weight"] = dict(map(tuple, keywords["class_weight"]))
    if not isinstance(name, str) or ("name" in source and _row(name) is None):
        raise InvalidInputError(f"The task {name!r} is not one that wsflow can load: give the task itself.")
    task = load_task(name, **keywords)
    if checksum is not None and task.checksum != checksum:
        raise InvalidInputError(
            f"The data of the task {name!r} are not what they were: the checksum differs. "
            "Restore the data, or give the task itself."
        )
    return task


def is_reproducible(task: Task) -> bool:
    """Return whether a task's source says how to load all of it again: its data, its loss and its weights."""
    source = task.source
    row = _row(source["name"]) if isinstance(source.get("name"), str) else None
    if row is None and "path" not in source:
        return "name" in source
    weighted = source.get("class_weight")
    known = dict(map(tuple, weighted)) if isinstance(weighted, list) else weighted
    parts = [part for part in (task.validation, task.test) if part is not None]
    plain = all(part.sample_weight is None for part in (task, *parts)) and all(p.class_weight is None for p in parts)
    return plain and task.class_weight == known and task.loss == source.get("loss", getattr(row, "loss", "mse"))


def split_task(X: Any, y: Any, loss: str, *, seed: int = 42, source: Mapping[str, Any] | None = None) -> Task:
    """Split examples 80/10/10, and standardize them with the statistics of the training part."""
    from sklearn.model_selection import train_test_split

    X, y = np.asarray(X, dtype=np.float64), np.asarray(y)
    if len(X) < MINIMUM:
        raise InvalidInputError(f"A task needs at least {MINIMUM} examples for its three parts, got {len(X)}.")
    check_finite(X, "X")
    check_finite(y, "y")
    training, rest = train_test_split(np.arange(len(X)), test_size=0.2, random_state=seed)
    validation, test = train_test_split(rest, test_size=0.5, random_state=seed)
    X = _standardized(X, training)
    target = LOSSES[loss].targets
    y = _standardized(y.astype(np.float64), training) if target == "numbers" else y
    # numbers that are no integers may be classes, if all of them are named
    classes = np.unique(y) if target == "classes" else None
    held_out: dict[str, Any] = {
        name: Task(X[rows], y[rows], loss, classes=classes)
        for name, rows in (("validation", validation), ("test", test))
    }
    return Task(X[training], y[training], loss, source=dict(source or {}), classes=classes, **held_out)


def _standardized(values: np.ndarray, training: np.ndarray) -> np.ndarray:
    rows = values[training]
    constant = rows.max(axis=0) == rows.min(axis=0)
    deviation = np.where(constant, 1.0, rows.std(axis=0))
    # a column that never varies in training has no scale, so whatever it does later is not passed on
    return np.where(constant, 0.0, (values - rows.mean(axis=0)) / deviation).astype(np.float32)


def _targets(y: np.ndarray, loss: str | None) -> tuple[np.ndarray, str]:
    y = y[:, 0] if y.shape[1:] == (1,) else y
    numeric = y.dtype.kind in "fiub"
    if loss is not None and not TARGETS[LOSSES[loss].targets].labelled and not numeric:
        raise InvalidInputError(
            f"the targets are labels such as {str(y.flat[0])!r}, and loss={loss!r} needs numbers. "
            "Choose another target, or loss='cross_entropy'."
        )
    check_finite(y, "y")
    values = np.unique(y)
    if loss is None:
        few = len(values) <= 20 and 2 * len(values) <= len(y)
        loss = "cross_entropy" if y.ndim == 1 and (few or not numeric) else "mse"
    if loss == "cross_entropy" and (y.ndim != 1 or len(values) < 2):
        raise InvalidInputError(
            f"a classification needs one column of targets with at least two classes, got shape {y.shape} "
            f"with {len(values)}. Choose another target, or loss='mse'."
        )
    return y, loss
