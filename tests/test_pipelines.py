"""Pipelines drawn at random, over networks drawn at random: what they promise together, or a sentence that refuses.

WSFLOW_EXAMPLES=1000 draws this many.
"""

from __future__ import annotations

import os
import re
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import read, rows, task_of
from second_device import NAME, SecondDevice
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

import wsflow
from wsflow import MetaRegressor, PermutationAligner, ScaleCanonicalizer, Task, WeightArray, WeightFlow
from wsflow.exceptions import NumericalError
from wsflow.flow.adaptive import DormandPrince
from wsflow.flow.divergence import TraceEstimator
from wsflow.flow.solvers import RungeKutta
from wsflow.models import metanetworks, options
from wsflow.running.example_inputs import example_inputs
from wsflow.symmetry.matching import methods
from wsflow.testing import architectures, assert_function_preserved

EXAMPLES = int(os.environ.get("WSFLOW_EXAMPLES", "20"))
N = 12
SENTENCE = re.compile(r"^\S+( \S+){4,}\.$")
TOLERANCE = 1e-4  # of points that are in single precision, as in the check of WeightFlow


@st.composite
def populations(draw: Any) -> tuple[WeightArray, Task]:
    """Twelve small networks of one architecture, of six runs, and a task that they fit."""
    kind = draw(st.sampled_from([None, None, "CNN", "SIREN", "transformer"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    if kind is None:
        architecture = draw(architectures(max_width=4, max_depth=2))
        values = 0.7 * rng.standard_normal((N, architecture.n_weights))
        (inputs,) = example_inputs(architecture, 16, torch.Generator().manual_seed(0))
        outputs = architecture.layers[-1].outputs
        task = Task(inputs.numpy(), rng.standard_normal((16, outputs)).astype(np.float32), loss="mse")
    else:
        architecture, values, task = read(kind), rows(kind, N).numpy(), task_of(kind, 16)
        values = values + 0.05 * rng.standard_normal(values.shape)
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return WeightArray(values.astype(dtype), architecture, runs=np.arange(N) // 2), task


NEURON = {"width": 8, "depth": 1, "heads": 2}
METHODS = ["auto", "activation", methods.WeightMatching(3), methods.ChainMatching(1)]
METHODS += [methods.SinkhornMatching(steps=2), methods.StraightThroughMatching(steps=2)]
CANONICALIZERS = st.builds(
    ScaleCanonicalizer,
    form=st.sampled_from(["unit", "unit", "balanced"]),
    bias=st.sampled_from(["inside", "inside", "outside"]),
    last_layer=st.sampled_from(["keep", "keep", "unit"]),
)
VELOCITIES = [
    options.NeuronTransformer(**NEURON),
    options.NeuronTransformer(**NEURON, identity=None),
    options.RelationalTransformer(**NEURON),
    options.MLP(8, 1),
]
GEOMETRIES = ["auto", "auto", "euclidean", "normalized", "geometric"]
GEOMETRIES += [
    options.NetworkGeometry("geometric", "polar"),
    options.NetworkGeometry("geometric", bias="outside"),
    options.NetworkGeometry("euclidean", latent=3),
]
SOLVERS = [RungeKutta(method, 2) for method in ("euler", "midpoint", "rk4")] + [DormandPrince(rtol=1e-2, atol=1e-2)]


@st.composite
def flows(draw: Any, task: Task) -> WeightFlow:
    """A flow of any parameters, some of which do not go together."""
    return WeightFlow(
        draw(st.sampled_from(GEOMETRIES)),
        velocity=draw(st.sampled_from(VELOCITIES)),
        source=draw(st.sampled_from(["auto", "auto", "gaussian", "exchangeable", "isotropic", "initialisation"])),
        coupling=draw(st.sampled_from(["independent", "ot", "orbit"])),
        task=draw(st.sampled_from([task, task, task, None])),
        metric=draw(st.sampled_from(["auto", "euclidean", "function"])),
        hints=draw(st.sampled_from(["auto", None, "gradient"])),
        solver=draw(st.sampled_from(SOLVERS)),
        density=draw(st.sampled_from(["auto", "exact", TraceEstimator(n_probes=2)])),
        training=options.AdamW(batch_size=8),
        device=draw(st.sampled_from(["cpu", "cpu", "cpu", NAME])),
        max_iter=2,
        random_state=draw(st.integers(0, 9)),
    )


@st.composite
def pipelines(draw: Any, task: Task) -> Any:
    """An aligner and a canonicalizer, in any order or left out, before a flow."""
    aligner = PermutationAligner(
        draw(st.sampled_from(METHODS)),
        task=draw(st.sampled_from([task, task, None])),
        reference=draw(st.sampled_from(["auto", "first", "mean", "medoid", "universe", 3])),
        form=draw(st.sampled_from(["auto", "unit", "balanced", "raw"])),
        by=draw(st.sampled_from(["run", "network"])),
        random_state=0,
    )
    canonicalizer, chosen = draw(CANONICALIZERS), draw(st.sampled_from(["c", "ca", "ac", "c", "ca", "ac", "a", ""]))
    steps = [{"a": aligner, "c": canonicalizer}[letter] for letter in chosen]
    return make_pipeline(*steps, draw(flows(task)))


def refusal(error: Exception) -> str:
    """The message of an error of wsflow, which is a sentence; anything else fails."""
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    own = isinstance(error, wsflow.exceptions.WsflowError) or type(error) is ValueError
    assert own and "wsflow" in Path(frames[-1]).parts, f"{error!r} of {frames[-1]}"
    assert SENTENCE.match(str(error)), str(error)
    return str(error)


def check_steps(model: Any, X: WeightArray, task: Task) -> None:
    """The steps before the flow keep every function, one after the other."""
    inputs = torch.from_numpy(np.asarray(task.X))
    for _, step in model.steps[:-1]:
        moved = step.transform(X)
        # "unit" keeps the function up to the scale of its outputs
        if getattr(step, "last_layer", "keep") == "keep":
            assert_function_preserved(X, moved, inputs=inputs)
        X = moved


def check_samples(model: Any, X: WeightArray) -> WeightArray:
    """Samples are finite networks on the manifold, the same for a seed and others for another."""
    flow = model[-1]
    drawn = flow.sample(3, 1)
    assert type(drawn) is WeightArray and drawn.dtype == X.dtype and np.isfinite(drawn).all()
    flow.geometry_.check(torch.from_numpy(np.array(drawn, dtype=np.float64)), TOLERANCE)
    found = wsflow.sample(model, 3, 1)
    assert found.architecture == X.architecture and np.isfinite(found).all()
    np.testing.assert_array_equal(found, wsflow.sample(model, 3, 1))
    assert (np.asarray(found) != np.asarray(wsflow.sample(model, 3, 2))).any()
    return found


def check_scores(model: Any, X: WeightArray) -> np.ndarray | None:
    """Scores are finite, or minus infinity off the span of the training networks, and those of single runs."""
    try:
        scores = model.score_samples(X)
    except ValueError as error:
        assert "density" in refusal(error)
        return None
    assert scores.shape == (len(X),) and not np.isnan(scores).any() and (scores < np.inf).all()
    if not isinstance(model[-1].solver, DormandPrince):
        # the rows of a run are aligned together
        np.testing.assert_allclose(model.score_samples(X[:2]), scores[:2], rtol=1e-5, atol=1e-4)
    return scores


def check_device(model: Any, X: WeightArray, found: WeightArray) -> None:
    """Samples of the second device are those of the CPU, up to rounding."""
    with SecondDevice():
        there = clone(model).set_params(weightflow__device=NAME).fit(X)
        assert there[-1].velocity_.device.type == NAME
        np.testing.assert_allclose(wsflow.sample(there, 3, 1), found, rtol=1e-3, atol=1e-3)


def outcome(model: Any, X: WeightArray, task: Task, folder: Path) -> str:
    """Check a pipeline; return "fitted", or what refused it."""
    device = model[-1].device
    try:
        model.set_params(weightflow__device="cpu").fit(X)
    except (ValueError, NumericalError) as error:
        return refusal(error)
    check_steps(model, X, task)
    found, scores = check_samples(model, X), check_scores(model, X[:4])
    wsflow.save_model(model, folder / "model.st")
    loaded = wsflow.load_model(folder / "model.st")
    for again in (loaded, clone(model).fit(X)):
        np.testing.assert_array_equal(wsflow.sample(again, 3, 1), found)
        if scores is not None:
            np.testing.assert_array_equal(again.score_samples(X[:4]), scores)
    # an error estimate of the adaptive solver may fall on the other side of its tolerance; the second device's tensors
    # have no forward derivatives, and no convolutions of many networks at once
    is_fixed = model[-1].model_.settings.metric == "euclidean" and not isinstance(model[-1].solver, DormandPrince)
    if device == NAME and is_fixed and X.architecture.layers:
        check_device(model, X, found)
    return "fitted"


def test_pipelines_keep_their_promises_or_refuse_in_a_sentence(tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()

    @settings(max_examples=EXAMPLES)
    @given(st.data())
    def check(data: Any) -> None:
        X, task = data.draw(populations())
        model = data.draw(pipelines(task))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found = outcome(model, X, task, tmp_path)
        outcomes[found] += 1
        hypothesis.event(found[:60])

    check()
    # it is about a half: far from all is refused, whatever examples are drawn
    assert 5 * outcomes["fitted"] >= outcomes.total(), outcomes


ENCODERS = [
    options.NeuronTransformer(**NEURON, identity=None),
    metanetworks.DeepSets(width=8, depth=1),
    metanetworks.Statistics(width=8, depth=1),
    metanetworks.ScaleEquivariant(width=8, depth=1),
    metanetworks.Probe(width=8, depth=1, n_probes=3),
    options.MLP(8, 1),
]


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: type(encoder).__name__)
def test_predictors_keep_their_promises_or_refuse_in_a_sentence(encoder: Any, tmp_path: Path) -> None:
    fitted = []

    @settings(max_examples=max(EXAMPLES // 5, 1))
    @given(populations(), st.sampled_from(["auto", None]), st.integers(0, 9))
    def check(population: tuple[WeightArray, Task], canonicalize: Any, seed: int) -> None:
        X, _ = population
        model = MetaRegressor(encoder, canonicalize=canonicalize, max_iter=2, random_state=seed)
        y = np.random.default_rng(seed).normal(size=len(X))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                model.fit(X, y)
        except (ValueError, NumericalError) as error:
            refusal(error)
            return
        found = model.predict(X)
        assert found.shape == (len(X),) and np.isfinite(found).all()
        wsflow.save_model(model, tmp_path / "model.st")
        for again in (wsflow.load_model(tmp_path / "model.st"), clone(model).fit(X, y)):
            np.testing.assert_array_equal(again.predict(X), found)
        np.testing.assert_allclose(model.predict(X[1:2]), found[1:2], rtol=1e-4, atol=1e-5)
        fitted.append(X.architecture)

    check()
    assert fitted
