"""Invertible matrices between two linear maps: what they keep, their closed forms, and ProcrustesAligner."""

import json

import numpy as np
import pytest
import scipy.linalg
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.pipeline import make_pipeline
from torch import nn

import wsflow
from wsflow import Architecture, PermutationAligner, ProcrustesAligner, WeightArray, WeightFlow
from wsflow.cli import main
from wsflow.models.options import NeuronTransformer
from wsflow.running import forward
from wsflow.symmetry.invertible import InvertibleAction, LinearWire, balancing, nearest
from wsflow.tracing.linear_wires import linear_wires

SIZE = st.integers(1, 6)


class Attention(nn.Module):
    """A transformer layer and a head."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, nn.LayerNorm(8), enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.layers(x).mean(1))


class Gated(nn.Module):
    """Values that a gate multiplies: they have scales and signs, and no further matrices."""

    def __init__(self):
        super().__init__()
        self.gate, self.value, self.out = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.out(torch.sigmoid(self.gate(x)) * self.value(x))


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attention(n=12):
    torch.manual_seed(0)
    return WeightArray.from_modules([Attention() for _ in range(n)], example_input=torch.randn(2, 5, 8))


def assert_same_functions(weights, others, x):
    before, after = (forward(torch.from_numpy(np.asarray(w)), weights.architecture, x) for w in (weights, others))
    tolerance = 1e-8 if weights.dtype == np.float64 else 1e-4
    torch.testing.assert_close(after, before, rtol=tolerance, atol=tolerance)


def moved_in_orbits(weights):
    return weights.like(random_action(linear_wires(weights.architecture), len(weights))(np.asarray(weights)))


def random_action(wires, n, seed=0):
    """Well-conditioned matrices, a different one for each network."""
    matrices = {
        wire.name: numbers(n, *wire.shape, wire.shape[1], seed=seed + i) + 3 * torch.eye(wire.shape[1]).double()
        for i, wire in enumerate(wires)
    }
    return InvertibleAction(wires, matrices)


@settings(deadline=None, max_examples=50)
@given(k=SIZE, more=SIZE, seed=st.integers(0, 999))
def test_rotations_are_those_of_scipy(k, more, seed):
    m, n = numbers(k, k + more, seed=seed), numbers(k, k + more + 1, seed=seed + 1)
    r, t = numbers(k, k + more, seed=seed + 2), numbers(k, k + more + 1, seed=seed + 3)
    balance = balancing(m, n)
    own, other = balance @ m, torch.linalg.solve(balance.mT, n)
    rotation, _ = scipy.linalg.orthogonal_procrustes(torch.cat([own, other], 1).mT, torch.cat([r, t], 1).mT)
    torch.testing.assert_close(nearest(m, n, (r, t)), torch.from_numpy(rotation.T) @ balance, rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=50)
@given(k=SIZE, more=SIZE, seed=st.integers(0, 999))
def test_balanced_weights_have_the_smallest_sum_of_squares(k, more, seed):
    m, n = numbers(k, k + more, seed=seed), numbers(k, k + more, seed=seed + 1)

    def squares(a):
        return float((a @ m).square().sum() + torch.linalg.solve(a.mT, n).square().sum())

    best = balancing(m, n)
    # twice the nuclear norm of N^T M, which no factors are below
    assert squares(best) == pytest.approx(2 * float(torch.linalg.matrix_norm(n.mT @ m, ord="nuc")), rel=1e-9)
    assert all(squares(numbers(k, k, seed=s) + torch.eye(k)) >= squares(best) - 1e-9 for s in range(5))


def test_degenerate_factors_are_rotated_only():
    m, n = numbers(3, 5), numbers(3, 4, seed=1)
    m[2] = m[0] + m[1]
    for pair in ((m, n), (m[:, :2], n), (torch.zeros_like(m), n)):
        a = nearest(*pair, (numbers(3, pair[0].shape[1], seed=2), numbers(3, 4, seed=3)))
        torch.testing.assert_close(a @ a.mT, torch.eye(3).double())


def test_queries_with_keys_and_values_with_outputs_are_found():
    architecture = attention(1).architecture
    found = {wire.name: wire.shape for wire in linear_wires(architecture)}
    assert found == {"layers.layers.0.self_attn.0": (2, 4), "layers.layers.0.self_attn.1": (2, 4)}


def test_gated_values_and_activations_are_not():
    gated = WeightArray.from_modules([Gated()], example_input=torch.randn(3, 5)).architecture
    assert any(wire.scalings >= {"positive", "sign"} for wire in gated.wires)
    assert linear_wires(gated) == ()
    assert all(linear_wires(Architecture.mlp([4, 3, 2], activation)) == () for activation in ("relu", "tanh", "gelu"))


def test_orbits_collapse():
    weights = attention().astype(np.float64)
    moved = moved_in_orbits(weights)
    assert np.abs(np.asarray(moved) - np.asarray(weights)).max() > 0.1
    assert_same_functions(weights, moved, numbers(2, 5, 8))
    aligner = ProcrustesAligner().fit(weights)
    one, other = (np.asarray(aligner.transform(rows)) for rows in (weights, moved))
    np.testing.assert_allclose(other, one, atol=1e-8)
    assert aligner.output_change_ < 1e-10


def test_wires_that_share_weights_are_aligned_in_turn():
    weights = WeightArray(numbers(12, 47).numpy(), Architecture.mlp([4, 3, 3, 5], "identity"))
    moved = moved_in_orbits(weights)
    aligner = ProcrustesAligner().fit(weights)
    assert aligner.wires_ == ("hidden1", "hidden2")
    one, other = (aligner.transform(rows) for rows in (weights, moved))
    for aligned in (one, other):
        assert_same_functions(weights, aligned, numbers(7, 4))
    # what is left of an orbit: the turns may end in different minima
    gap = [np.linalg.norm(np.asarray(a) - np.asarray(b), axis=1) for a, b in ((weights, moved), (one, other))]
    assert np.median(gap[1]) < 0.1 * np.median(gap[0])


def test_networks_come_closer_and_stay_the_same_functions():
    weights = attention()
    aligner = ProcrustesAligner().fit(weights)
    aligned, action = aligner.transform(weights, return_action=True)
    assert aligned.dtype == weights.dtype
    assert aligned.std(0).sum() < 0.98 * weights.std(0).sum()
    assert_same_functions(weights, aligned, torch.randn(2, 5, 8))
    np.testing.assert_allclose(action.inverse()(np.asarray(aligned)), np.asarray(weights), atol=1e-5)
    np.testing.assert_allclose(action.rows([3])(np.asarray(weights[3:4])), np.asarray(aligned[3:4]), atol=1e-6)


def test_the_first_network_may_be_the_reference():
    weights = attention(4).astype(np.float64)
    aligned = ProcrustesAligner("first").fit_transform(weights)
    again = ProcrustesAligner("first").fit_transform(aligned)
    np.testing.assert_allclose(np.asarray(again), np.asarray(aligned), atol=1e-8)


def test_chunks_give_the_same_networks_and_actions(monkeypatch):
    weights = attention().astype(np.float64)
    aligner = ProcrustesAligner().fit(weights)
    whole = aligner.transform(weights)
    monkeypatch.setattr("wsflow.mapped.CHUNK_NUMBERS", 5 * weights.shape[1])
    parts, action = aligner.transform(weights, return_action=True)
    np.testing.assert_allclose(np.asarray(parts), np.asarray(whole), atol=1e-12)
    np.testing.assert_allclose(action(np.asarray(weights)), np.asarray(whole), atol=1e-12)


def test_what_is_equal_in_all_networks_stays():
    weights = attention()
    columns = weights.architecture.slices["layers.layers.0.self_attn.in_proj_weight"]
    frozen = np.asarray(weights).copy()
    # queries, of which the first third of the matrix are
    queries = slice(columns.start, columns.start + 64)
    frozen[:, queries] = frozen[0, queries]
    aligner = ProcrustesAligner()
    aligned = np.asarray(aligner.fit_transform(weights.like(frozen)))
    assert aligner.wires_ == ("layers.layers.0.self_attn.1",)
    assert np.array_equal(aligned[:, queries], frozen[:, queries])


def test_networks_without_such_wires_pass_through():
    weights = WeightArray(numbers(5, 23).numpy(), Architecture.mlp([4, 3, 2]))
    aligner = ProcrustesAligner()
    assert np.array_equal(aligner.fit_transform(weights), weights)
    assert aligner.wires_ == ()


def test_a_pipeline_is_saved_and_samples_networks(tmp_path):
    weights = attention(16)
    flow = WeightFlow("euclidean", velocity=NeuronTransformer(8, 1, 2), max_iter=2, random_state=0)
    model = make_pipeline(PermutationAligner(), ProcrustesAligner(), flow).fit(weights)
    wsflow.save_model(model, tmp_path / "model.st")
    opened = wsflow.load_model(tmp_path / "model.st")
    assert opened[1].wires_ == model[1].wires_
    assert np.array_equal(opened[:-1].transform(weights), model[:-1].transform(weights))
    samples = wsflow.sample(opened, 3, random_state=0)
    assert samples.shape == (3, weights.shape[1])
    assert np.isfinite(samples).all()


def test_a_wire_moves_no_other_weights():
    wire = LinearWire("w", "g", np.array([[[0, 1], [2, 3]]]), np.array([[[4], [5]]]))
    rows = numbers(2, 7)
    moved = wire.moved(rows, 2 * torch.eye(2).double().expand(2, 1, 2, 2))
    torch.testing.assert_close(moved[:, :4], 2 * rows[:, :4])
    torch.testing.assert_close(moved[:, 4:6], rows[:, 4:6] / 2)
    assert torch.equal(moved[:, 6], rows[:, 6])


def test_the_command_line_aligns_by_matrices(tmp_path):
    weights, paths = attention(), [str(tmp_path / name) for name in ("zoo.st", "plain.st", "aligned.st")]
    wsflow.save_population(wsflow.Population(weights), paths[0])
    runner = CliRunner()
    plain, found = (
        json.loads(runner.invoke(main, ["align", paths[0], "-o", out, "--json", *more]).stdout)
        for out, more in ((paths[1], []), (paths[2], ["--procrustes"]))
    )
    assert plain["wires"] == []
    assert len(found["wires"]) == 2
    assert found["output_change"] < 1e-4
    one, other = (wsflow.load_population(path).weights for path in paths[1:])
    assert other.std(0).sum() < one.std(0).sum()
