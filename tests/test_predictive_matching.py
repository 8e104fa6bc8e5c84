"""Energy matching: the distance against closed forms and scipy, and what it does to samples."""

import numpy as np
import pytest
import scipy.stats
import torch

import wsflow
from wsflow import Architecture, Task, WeightArray, WeightFlow
from wsflow.flow.energy import energy_distance
from wsflow.flow.loss import FlowMatchingLoss
from wsflow.flow.velocity import VelocityField
from wsflow.models.options import AdamW, EnergyMatching, NeuronTransformer
from wsflow.objectives.function_metric import predictions_of


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batches(n, m, inputs=1, k=1, shift=0.0):
    g = generator(3)
    f, other = (torch.randn(size, inputs, k, generator=g, dtype=torch.float64) for size in (n, m))
    return f, other + shift


def test_energy_distance_is_scipys_without_its_bias():
    f, g = batches(20, 30)
    distance, spread = energy_distance(f, g)
    # scipy's means run over pairs of a row with itself, too
    own = (f[:, 0] - f[:, 0].T).abs().sum() / (20 * 19)
    square = scipy.stats.energy_distance(f[:, 0, 0], g[:, 0, 0]) ** 2
    assert np.isclose(distance, square - own / 20 - spread / 30, atol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_energy_distance_of_two_normals(shift):
    f, g = batches(3000, 3000, shift=shift)

    def absolute(mean):
        # E |N(mean, 2)|
        return 2 * np.exp(-(mean**2) / 4) / np.sqrt(np.pi) + mean * (1 - 2 * scipy.stats.norm.cdf(-mean / 2**0.5))

    distance, spread = energy_distance(f, g)
    assert np.isclose(distance, 2 * absolute(shift) - 2 * absolute(0.0), atol=0.03)
    assert np.isclose(spread, absolute(0.0), atol=0.06)


def test_energy_distance_is_unbiased():
    g = generator(0)
    found = [float(energy_distance(*torch.randn(2, 4, 3, 2, generator=g))[0]) for _ in range(2000)]
    error = np.std(found) / len(found) ** 0.5
    assert abs(np.mean(found)) < 4 * error
    # fine enough to tell it from the mean over pairs of which some are a row with itself
    assert error < 0.01


def test_energy_distance_judges_each_input_by_itself_and_all_of_them_alike():
    f, g = batches(5, 6, inputs=4, k=3, shift=0.3)
    whole = energy_distance(f, g)
    parts = [energy_distance(f[:, [i]], g[:, [i]]) for i in range(4)]
    assert torch.allclose(torch.stack(whole), torch.stack([torch.stack(part) for part in parts]).mean(0))


def test_energy_distance_has_a_gradient_where_rows_coincide():
    f = torch.zeros(3, 2, 2, requires_grad=True)
    energy_distance(f, torch.zeros(4, 2, 2))[0].backward()
    assert torch.isfinite(f.grad).all()


@pytest.fixture(scope="module")
def population():
    task = wsflow.load_task("breast_cancer")
    weights = wsflow.train_population(task, (4,), 120, epochs=15, random_state=0).weights
    return wsflow.ScaleCanonicalizer().fit_transform(wsflow.PermutationAligner().fit_transform(weights)), task


def flow_of(task, **settings):
    return WeightFlow(
        task=task,
        random_state=0,
        max_iter=20,
        velocity=NeuronTransformer(width=16, depth=1),
        training=AdamW(batch_size=32),
        **settings,
    )


def energy(flow, weights, task):
    predict = predictions_of(task, flow.architecture_, flow.geometry_)(generator(1))
    points = [
        flow.geometry_.to_points(torch.from_numpy(np.array(rows)).double()) for rows in (flow.sample(80, 1), weights)
    ]
    return float(energy_distance(*(predict(some) for some in points))[0])


def test_predictions_come_to_the_law_of_the_population(population):
    weights, task = population
    before, after = (flow_of(task, energy=e).fit(weights[:80]) for e in (None, EnergyMatching(60)))
    assert energy(after, weights[80:], task) < 0.7 * energy(before, weights[80:], task)
    assert len(after.history_.energy) == 2 and not before.history_.energy
    assert after.history_.step == before.history_.step


def test_regression_networks_are_matched_too():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(64, 2)).astype(np.float32)
    task = Task(X, X[:, :1] * 2, loss="mse")
    weights = WeightArray(rng.normal(size=(40, 13)) + 1.0, Architecture.mlp([2, 3, 1]))
    flow = flow_of(task, energy=EnergyMatching(5), geometry="euclidean").fit(weights)
    assert np.isfinite(np.array(flow.sample(3, 0))).all() and len(flow.history_.energy) == 1


def test_conditions_go_along(population):
    weights, task = population
    flow = flow_of(task, energy=EnergyMatching(3), condition="scalar").fit(weights, np.linspace(0, 1, len(weights)))
    assert np.isfinite(np.array(flow.sample(3, 0, condition=0.5))).all()


def test_conditions_are_forgotten_while_predictions_are_matched_too(population, monkeypatch):
    weights, task = population
    shares = []

    def spy(self, condition, given=VelocityField.given):
        if self.training:
            shares.append(condition.isnan().double().mean().item())
        return given(self, condition)

    monkeypatch.setattr(VelocityField, "given", spy)
    flow = flow_of(task, energy=EnergyMatching(30), condition="scalar")
    flow.fit(weights, np.linspace(0, 1, len(weights)))
    assert len(shares) == 50 and 0.05 < np.mean(shares[-30:]) < 0.15


def test_both_stages_have_one_loss_whose_scale_is_measured_once(population, monkeypatch):
    weights, task = population
    scales = set()

    def spy(self, *arguments, normalization=FlowMatchingLoss._normalization):
        scales.add((id(self), found := normalization(self, *arguments)))
        return found

    monkeypatch.setattr(FlowMatchingLoss, "_normalization", spy)
    flow_of(task, energy=EnergyMatching(5)).fit(weights)
    assert len(scales) == 1


def test_a_matched_flow_is_reproducible_and_survives_its_file(population, tmp_path):
    weights, task = population
    one, two = (flow_of(task, energy=EnergyMatching(4)).fit(weights) for _ in range(2))
    assert np.array_equal(one.sample(3, 0), two.sample(3, 0))
    wsflow.save_model(one, tmp_path / "model.st")
    loaded = wsflow.load_model(tmp_path / "model.st")
    assert loaded.history_.energy == one.history_.energy
    assert np.array_equal(loaded.sample(3, 0), one.sample(3, 0))


def test_progress_counts_all_steps(population):
    weights, task = population
    seen = []
    flow_of(task, energy=EnergyMatching(3), progress=lambda done, total: seen.append((done, total))).fit(weights)
    assert seen == [(i, 23) for i in range(1, 24)]


def test_an_interruption_leaves_a_flow_that_samples(population):
    weights, task = population

    def stop(done, total):
        if done == 22:
            raise KeyboardInterrupt

    flow = flow_of(task, energy=EnergyMatching(5), progress=stop)
    with pytest.raises(KeyboardInterrupt):
        flow.fit(weights)
    assert flow.n_iter_ == 20 and np.isfinite(np.array(flow.sample(3, 0))).all()


def test_predictions_that_are_not_finite_end_matching_with_a_warning(population, monkeypatch):
    weights, task = population
    monkeypatch.setattr("wsflow.objectives.function_metric.forward", broken(wsflow.running.forward))
    flow = flow_of(task, energy=EnergyMatching(5), metric="euclidean", hints=None)
    with pytest.warns(RuntimeWarning, match="smaller"):
        flow.fit(weights)
    assert np.isfinite(np.array(flow.sample(3, 0))).all()


def broken(forward):
    return lambda *arguments: forward(*arguments) * float("nan")


def test_what_matching_needs_is_said(population):
    weights, task = population
    with pytest.raises(ValueError, match=r"Energy matching.*task"):
        flow_of(None, energy="predictions").fit(weights)
    for value in (-1, 0, 1.5):
        with pytest.raises(ValueError, match=r"'n_steps' parameter of EnergyMatching must be an int in .*\[1, inf\)"):
            flow_of(task, energy=EnergyMatching(value)).fit(weights)
    with pytest.raises(ValueError, match=r"'weight' parameter of EnergyMatching must be a float in .*\[0.0, inf\)"):
        flow_of(task, energy=EnergyMatching(1, weight=-1.0)).fit(weights)


def test_flow_matching_before_it_is_the_same(population):
    weights, task = population
    without, one = flow_of(task).fit(weights), flow_of(task, energy=EnergyMatching(1, weight=5.0)).fit(weights)
    assert without.history_.energy == [] and len(one.history_.energy) == 1
    for name in ("step", "train", "validation", "best_step"):
        assert getattr(without.history_, name) == getattr(one.history_, name)
    assert not np.array_equal(without.sample(3, 0), one.sample(3, 0))
