"""What the tests of files share: a small population, and how a refusal looks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError
from wsflow.persistence import load_population
from wsflow.populations import Population
from wsflow.task import Task
from wsflow.weights import WeightArray

ARCHITECTURE = Architecture.mlp([4, 3, 3])


def make_population(n: int = 5, task: Task | None = None, **keywords: object) -> Population:
    rows = np.random.default_rng(0).normal(size=(n, ARCHITECTURE.n_weights)).astype(np.float32)
    weights = WeightArray(rows, ARCHITECTURE, runs=np.arange(n) // 2, steps=np.arange(n) * 4, **keywords)
    return Population(weights, task, {"made_by": "hand", "nested": {"b": [1, 2.5, None], "a": "ü"}})


def assert_refused(path: Path, message: str, load=load_population) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
