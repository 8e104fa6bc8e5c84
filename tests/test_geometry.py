"""Geometries: charts between networks and points, which rows lie on which manifold, and what errors advise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wsflow.activations import ACTIVATIONS, PHASE, POSITIVE
from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError
from wsflow.geometry import GEOMETRIES, Phases, vectors
from wsflow.manifolds import Euclidean, Sphere
from wsflow.symmetry.canonical import canonical_action
from wsflow.testing import architectures, weights

LAST_LAYERS, BIASES = ["euclidean", "polar"], ["inside", "outside"]
ARCHITECTURE = Architecture.mlp([4, 5, 3, 2])


def canonical(architecture: Architecture, bias: str, n: int = 20) -> torch.Tensor:
    """Canonical networks with random weights."""
    w = torch.randn(n, architecture.n_weights, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return canonical_action(w, architecture, bias)(w)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("last_layer", LAST_LAYERS)
@pytest.mark.parametrize("name", GEOMETRIES)
class TestCharts:
    """Each geometry with each treatment of the last layer and of biases."""

    def test_canonical_networks_lie_on_the_manifold(self, name, last_layer, bias):
        geometry = GEOMETRIES[name](ARCHITECTURE, last_layer, bias)
        w = canonical(ARCHITECTURE, bias)
        geometry.check(w, 1e-12)
        points = geometry.to_points(w)
        assert points.shape == (20, ARCHITECTURE.n_weights + (last_layer == "polar"))
        assert geometry.manifold.size == geometry.target.size == points.shape[1]
        assert geometry.target.belongs(points, 1e-12).all()
        torch.testing.assert_close(geometry.target.projection(points), points, rtol=1e-12, atol=1e-12)

    def test_charts_undo_each_other(self, name, last_layer, bias):
        geometry = GEOMETRIES[name](ARCHITECTURE, last_layer, bias)
        w = canonical(ARCHITECTURE, bias)
        torch.testing.assert_close(geometry.to_weights(geometry.to_points(w)), w, rtol=1e-12, atol=1e-12)
        points = geometry.target.projection(torch.randn(20, geometry.target.size, dtype=torch.float64))
        again = geometry.to_points(geometry.to_weights(points))
        torch.testing.assert_close(again, points, rtol=1e-12, atol=1e-12)

    @given(data=st.data())
    def test_charts_undo_each_other_on_any_architecture(self, name, last_layer, bias, data):
        architecture = data.draw(architectures(min_depth=0))
        geometry = GEOMETRIES[name](architecture, last_layer, bias)
        w = torch.from_numpy(np.array(data.draw(weights(architecture))))
        points = geometry.to_points(w)
        assert points.isfinite().all()
        found = geometry.to_weights(points)
        for chart in geometry.charts:
            if isinstance(chart, Phases):
                turns = (w - found)[:, chart.columns] / (2 * chart.unit)
                assert (found[:, chart.columns].abs() <= chart.unit).all()
                torch.testing.assert_close(turns, turns.round(), rtol=0, atol=1e-10)
                found[:, chart.columns] = w[:, chart.columns]
        torch.testing.assert_close(found, w, rtol=1e-12, atol=1e-12)

    def test_where_there_is_a_density(self, name, last_layer, bias):
        geometry = GEOMETRIES[name](ARCHITECTURE, last_layer, bias)
        assert geometry.has_density == (name != "normalized")
        assert geometry.manifold.is_flat == (name == "normalized" or (name, last_layer) == ("euclidean", "euclidean"))


@pytest.mark.parametrize(("bias", "other"), [BIASES, BIASES[::-1]])
@pytest.mark.parametrize("name", ["geometric", "normalized"])
def test_rows_that_are_not_canonical_are_refused_with_the_remedy(name, bias, other):
    geometry = GEOMETRIES[name](ARCHITECTURE, bias=bias)
    w = canonical(ARCHITECTURE, bias)
    w[[3, 7], :4] *= 2
    remedy = rf"2 of 20 rows, the first of them row 3.*{name} geom.*bias {bias}.*ScaleCanonicalizer\(bias='{bias}'\)"
    with pytest.raises(InvalidInputError, match=remedy):
        geometry.check(w, 1e-6)
    with pytest.raises(InvalidInputError, match=f"20 of 20.*bias='{other}' in both.*geometry='euclidean'"):
        geometry.check(canonical(ARCHITECTURE, other), 1e-6)


def test_the_euclidean_geometry_takes_any_row():
    w = torch.randn(3, ARCHITECTURE.n_weights)
    GEOMETRIES["euclidean"](ARCHITECTURE).check(100 * w, 1e-6)


@pytest.mark.parametrize("bias", BIASES)
def test_factors_of_the_geometric_geometry(bias):
    factors = GEOMETRIES["geometric"](ARCHITECTURE, "euclidean", bias).manifold.factors
    inside = bias == "inside"
    assert [(type(m), m.size, len(c)) for m, c in factors] == [
        (Sphere, 4 + inside, 5),
        (Sphere, 5 + inside, 3),
        (Euclidean, 8 if inside else 16, 1),
    ]
    neuron = [4, 5, 6, 7, *([21] if inside else [])]
    assert sorted(factors[0][1][1].tolist()) == neuron


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_spheres_are_where_the_activation_has_positive_scalings_and_circles_where_it_has_phases(activation):
    architecture, scalings = Architecture.mlp([4, 5, 3, 2], activation), ACTIVATIONS[activation].scalings
    manifold = GEOMETRIES["geometric"](architecture).manifold
    assert manifold.is_flat == (not scalings & {POSITIVE, PHASE})
    assert manifold.dimension == architecture.n_weights - (8 if POSITIVE in scalings else 0)
    assert manifold.size == architecture.n_weights + (8 if PHASE in scalings else 0)


def test_the_polar_output_layer_is_a_direction_and_a_log_norm():
    geometry = GEOMETRIES["geometric"](ARCHITECTURE, "polar")
    w = canonical(ARCHITECTURE, "inside")
    points, output = geometry.to_points(w), ARCHITECTURE.output_columns
    norms = w[:, output].norm(dim=1)
    torch.testing.assert_close(points[:, -1], norms.log(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(points[:, output] * norms.unsqueeze(1), w[:, output], rtol=1e-12, atol=1e-12)
    twice = w.clone()
    twice[:, output] *= 2
    expected = points.clone()
    expected[:, -1] += np.log(2)
    torch.testing.assert_close(geometry.to_points(twice), expected, rtol=1e-12, atol=1e-12)


def test_a_neuron_with_one_incoming_weight_is_on_no_sphere():
    architecture = Architecture.mlp([1, 3, 2], bias=False)
    geometry = GEOMETRIES["geometric"](architecture)
    assert geometry.manifold.is_flat
    geometry.check(canonical(architecture, "inside"), 1e-12)


def test_vectors_have_no_symmetries():
    geometry = vectors(7)
    x = torch.randn(3, 7)
    assert geometry.manifold.is_flat
    assert geometry.manifold.dimension == 7
    assert geometry.has_density
    assert torch.equal(geometry.to_points(x), x)
    assert torch.equal(geometry.to_weights(x), x)
    with pytest.raises(InvalidInputError, match="the first of them row 1"):
        geometry.check(torch.tensor([[0.0] * 7, [float("nan")] * 7]), 1e-6)
