"""All members of one network's orbit are one point, under aligner and canonicalizer, in both orders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline
from test_tracing import THEORY

from wsflow import Architecture, PermutationAligner, ScaleCanonicalizer, Task, WeightArray
from wsflow.activations import ACTIVATIONS
from wsflow.symmetry.actions import Action
from wsflow.symmetry.matching.methods import ChainMatching
from wsflow.tracing.certificate import random_weights

MEMBERS = 12
FORMS = ("unit", "balanced")
# those of the quick run: signs, flips, phases, nested heads, direct sums, norms, grouped channels
QUICK = ("MLP", "GPT", "SIREN", "sigmoid", "grouped", "concatenation", "tied tanh", "U-Net")


def orbit(architecture: Architecture, log_scale: float = 1.0) -> WeightArray:
    """One network, its neurons permuted, scaled, flipped and shifted at random."""
    generator = torch.Generator().manual_seed(0)
    row = random_weights(architecture, 1, generator).double()
    action = Action.random(architecture, MEMBERS, generator, log_scale)
    return WeightArray(action(row.expand(MEMBERS, -1)).numpy(), architecture)


def spread(members: WeightArray, *steps: BaseEstimator) -> float:
    """The largest distance between two networks after some steps."""
    done = torch.from_numpy(np.array(make_pipeline(*steps, "passthrough").fit_transform(members)))
    return float(torch.cdist(done, done, compute_mode="donot_use_mm_for_euclid_dist").max())


def assert_one_point(members: WeightArray, form: str = "unit", **keywords: Any) -> None:
    """Networks that lie apart are one after aligning and canonicalizing, in both orders."""
    assert spread(members) > 0.1
    aligner, canonicalizer = PermutationAligner(**keywords), ScaleCanonicalizer(form)
    assert spread(members, aligner, canonicalizer) < 1e-10
    assert spread(members, canonicalizer, aligner) < 1e-10


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_mlp_with_every_activation(name: str) -> None:
    assert_one_point(orbit(Architecture.mlp([5, 8, 7, 3], name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("width", [2, 64])
def test_narrow_and_wide_mlps_in_every_form(name: str, width: int) -> None:
    members = orbit(Architecture.mlp([20, width, width, 10], name))
    for form in FORMS:
        assert_one_point(members, form)


@pytest.mark.parametrize("name", QUICK)
def test_traced_networks(name: str) -> None:
    assert_one_point(orbit(traced(name)))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", THEORY)
def test_all_traced_networks_in_every_form(name: str, form: str) -> None:
    assert_one_point(orbit(traced(name)), form)


@pytest.mark.parametrize("reference", ["mean", "medoid", "first", "universe"])
def test_any_reference(reference: str) -> None:
    assert_one_point(orbit(Architecture.mlp([5, 8, 7, 3], "tanh")), reference=reference)


@pytest.mark.parametrize("method", ["activation", ChainMatching(steps=3)])
def test_with_a_task(method: Any) -> None:
    X = np.random.default_rng(0).normal(size=(60, 5))
    task = Task(X, (X[:, 0] > 0).astype(int))
    members = orbit(Architecture.mlp([5, 8, 7, 3]))
    assert_one_point(members, method=method, task=task, random_state=0)


def traced(name: str) -> Architecture:
    """The architecture of a network of the tests of tracing."""
    torch.manual_seed(0)
    return Architecture.from_module(THEORY[name].module(), THEORY[name].inputs)
