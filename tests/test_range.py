"""Weights at the edges of the range of numbers: canonical forms have unit norms, and functions are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline

import wsflow
from wsflow import Architecture, PermutationAligner, ScaleCanonicalizer, WeightArray, WeightFlow
from wsflow.exceptions import NumericalError
from wsflow.models.options import NeuronTransformer
from wsflow.symmetry.actions import Action

DEEP = Architecture.mlp([3, 4, 4, 2])
NEURON = (0, 1, 2, 12)  # the first neuron's incoming weights and bias


def networks(change, dtype, architecture=DEEP, n=6):
    rows = np.random.default_rng(0).normal(size=(n, architecture.n_weights))
    change(rows)
    return WeightArray(rows.astype(dtype), architecture)


def columns(names, factor):
    """Multiply the columns of parameters, or given ones."""

    def change(rows):
        for name in names:
            rows[:, DEEP.slices[name] if isinstance(name, str) else name] *= factor

    return change


def alternating(rows):
    for i, name in enumerate(DEEP.names):
        rows[:, DEEP.slices[name]] *= 1e15 if i // 2 % 2 else 1e-15


CASES = {
    "a neuron of 1e-23": (columns(NEURON, 1e-23), np.float32),
    "a neuron of 1e-30": (columns(NEURON, 1e-30), np.float32),
    "a neuron of 1e-38": (columns(NEURON, 1e-38), np.float32),
    "a neuron of 1e20": (columns(NEURON, 1e20), np.float32),
    "a neuron of 1e30": (columns(NEURON, 1e30), np.float32),
    "a layer of 1e-30": (columns(DEEP.names[:2], 1e-30), np.float32),
    "a hidden layer of 1e30": (columns(DEEP.names[2:4], 1e30), np.float32),
    "an output layer of 1e30": (columns(DEEP.names[4:], 1e30), np.float32),
    "an output layer of 1e-38": (columns(DEEP.names[4:], 1e-38), np.float32),
    "layers of 1e15 and 1e-15": (alternating, np.float32),
    "all of 1e-38": (columns(DEEP.names, 1e-38), np.float32),
    "all of 1e12": (columns(DEEP.names, 1e12), np.float32),
    "double, a neuron of 1e-200": (columns(NEURON, 1e-200), np.float64),
    "double, a layer of 1e200": (columns(DEEP.names[:2], 1e200), np.float64),
    "double, all of 1e-100": (columns(DEEP.names, 1e-100), np.float64),
    "double, all of 1e100": (columns(DEEP.names, 1e100), np.float64),
}


def incoming_norms(weights):
    rows = np.asarray(weights).astype(np.float64)
    parts = []
    for layer in ("0", "2"):
        matrix = rows[:, DEEP.slices[f"{layer}.weight"]].reshape(len(rows), 4, -1)
        vectors = np.concatenate([matrix, rows[:, DEEP.slices[f"{layer}.bias"], None]], axis=2)
        parts.append(np.linalg.norm(vectors, axis=2))
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("case", CASES)
def test_canonical_neurons_have_unit_norm_and_the_same_function(case):
    change, dtype = CASES[case]
    weights = networks(change, dtype)
    canonicalizer = ScaleCanonicalizer()
    canonical = canonicalizer.fit_transform(weights)
    assert canonical.dtype == dtype and np.isfinite(canonical).all()
    np.testing.assert_allclose(incoming_norms(canonical), 1, rtol=1e-5 if dtype == np.float32 else 1e-12)
    # denormal numbers of single precision have few digits
    tolerance = {"a neuron of 1e-38": 1e-2, "all of 1e-38": 1e-2}.get(case, 1e-5)
    assert canonicalizer.output_change_ < tolerance


@pytest.mark.parametrize("case", CASES)
def test_balanced_forms_are_finite_and_the_same_function(case):
    change, dtype = CASES[case]
    canonicalizer = ScaleCanonicalizer("balanced")
    balanced = np.asarray(canonicalizer.fit_transform(networks(change, dtype)))
    assert np.isfinite(balanced).all()
    assert canonicalizer.output_change_ < {"a neuron of 1e-38": 1e-2, "all of 1e-38": 1e-2}.get(case, 1e-5)


def test_balanced_scales_do_not_depend_on_the_unit_of_weights():
    weights = networks(lambda rows: None, np.float64)
    balanced = np.asarray(ScaleCanonicalizer("balanced", bias="outside").fit_transform(weights))
    for unit in (2.0**-100, 2.0**40, 2.0**150):
        scaled = WeightArray(np.asarray(weights) * unit, DEEP)
        found = np.asarray(ScaleCanonicalizer("balanced", bias="outside").fit_transform(scaled))
        matrices = [DEEP.slices[name] for name in DEEP.names if name.endswith("weight")]
        for part in matrices:
            np.testing.assert_allclose(found[:, part] / unit, balanced[:, part], rtol=1e-9)


@pytest.mark.parametrize("factor", [1e30, 1e15])
def test_what_a_precision_does_not_hold_is_an_error_that_names_it(factor):
    weights = networks(columns(DEEP.names, factor), np.float32)
    with pytest.raises(NumericalError, match=r"network 0 is beyond the range of float32 in the parameter '4.weight'"):
        ScaleCanonicalizer().fit(weights)
    np.testing.assert_allclose(
        incoming_norms(ScaleCanonicalizer().fit_transform(weights.astype(np.float64))), 1, rtol=1e-6
    )
    assert np.isfinite(ScaleCanonicalizer("balanced").fit_transform(weights)).all()


@pytest.mark.parametrize("factor", [1e-38, 1e-25, 1.0, 1e25, 1e37])
def test_an_output_layer_of_any_size_gets_unit_norm(factor):
    weights = networks(columns(DEEP.names[4:], factor), np.float32)
    canonical = np.asarray(ScaleCanonicalizer(last_layer="unit").fit_transform(weights)).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(canonical[:, DEEP.output_columns], axis=1), 1, rtol=1e-5)


# where all weights are tiny, biases are all that is left behind the first layer, and neurons are equal
DISTINCT = {name: case for name, case in CASES.items() if name not in ("all of 1e-38", "double, all of 1e-100")}
DISTINCT["all of 1e30"] = columns(DEEP.names, 1e30), np.float32


@pytest.mark.parametrize("case", DISTINCT)
def test_permuted_networks_are_aligned_to_the_same_ones(case):
    weights = networks(*DISTINCT[case])
    moved = Action.random(DEEP, len(weights), torch.Generator().manual_seed(1), log_scale=0.0)(weights)
    assert (np.asarray(moved) != np.asarray(weights)).any()
    aligner = PermutationAligner().fit(weights)
    np.testing.assert_array_equal(aligner.transform(moved), aligner.transform(weights))
    assert np.isfinite(aligner.reference_).all()


@pytest.mark.parametrize("form", ["raw", "balanced"])
@pytest.mark.parametrize("case", [*CASES, "all of 1e30"])
def test_other_forms_permute_them_and_nothing_else(case, form):
    weights = networks(*(CASES | DISTINCT)[case])
    aligner = PermutationAligner(form=form)
    aligned = np.asarray(aligner.fit_transform(weights))
    np.testing.assert_array_equal(np.sort(aligned, axis=1), np.sort(np.asarray(weights), axis=1))
    assert np.isfinite(aligner.reference_).all()


def test_representatives_beyond_double_precision_are_an_error_that_says_so():
    with pytest.raises(NumericalError, match=r"beyond the range of float64\. Align them with form='raw'"):
        PermutationAligner().fit(networks(columns(DEEP.names, 1e200), np.float64))


@pytest.mark.parametrize("case", ["a neuron of 1e-30", "an output layer of 1e30", "double, a layer of 1e200"])
def test_a_flow_takes_what_the_canonicalizer_gives(case, tmp_path):
    change, dtype = CASES[case]
    flow = WeightFlow("geometric", velocity=NeuronTransformer(8, 1, 2), max_iter=3, random_state=0)
    model = make_pipeline(PermutationAligner(), ScaleCanonicalizer(), flow).fit(networks(change, dtype, n=20))
    samples = np.asarray(wsflow.sample(model, 50, random_state=0))
    assert np.isfinite(samples).all()
    np.testing.assert_allclose(incoming_norms(samples), 1, rtol=1e-5)
    outputs = DEEP.slices["4.weight"]
    known = np.asarray(ScaleCanonicalizer().fit_transform(networks(change, dtype, n=20)))[:, outputs]
    ratio = np.median(np.abs(samples[:, outputs].astype(np.float64))) / np.median(np.abs(known.astype(np.float64)))
    assert 0.3 < ratio < 3


def test_dead_neurons_stay_dead():
    weights = networks(columns(NEURON, 0.0), np.float32)
    canonical = np.asarray(ScaleCanonicalizer().fit_transform(weights))
    assert (canonical[:, list(NEURON)] == 0).all() and np.isfinite(canonical).all()
