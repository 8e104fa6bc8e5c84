"""Flows over networks with batch norms: statistics are not modelled, and those of samples are computed on inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from handwritten import BatchNormed
from sklearn.pipeline import make_pipeline
from torch import nn

import wsflow
from wsflow import Architecture, Task, WeightArray, WeightFlow, load_model, save_model
from wsflow.evaluation import STATISTICS_INPUTS, evaluate, predict, recompute_batch_norm
from wsflow.evaluation.embedding import embed, mean_reference
from wsflow.exceptions import InvalidInputError
from wsflow.flow.solvers import RungeKutta
from wsflow.geometry.geometries import GEOMETRIES
from wsflow.models.options import AdamW, EnergyMatching, NeuronTransformer
from wsflow.objectives.consensus import fit_consensus
from wsflow.objectives.function_metric import function_metric
from wsflow.running import forward, unflatten
from wsflow.running.without_statistics import without_statistics

# few evaluations, each of which runs all networks one by one
TINY = {
    "velocity": NeuronTransformer(8, 1, 2),
    "training": AdamW(batch_size=8),
    "solver": RungeKutta("euler", 1),
    "random_state": 0,
    "max_iter": 2,
}


class Residual(nn.Module):
    """x + BN(conv(relu(BN(conv(x))))), behind a stem and in front of a pooled head."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        convolution = lambda: nn.Conv2d(channels, channels, 3, padding=1, bias=False)  # noqa: E731
        norms = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.block = nn.Sequential(convolution(), norms[0], nn.ReLU(), convolution(), norms[1])
        self.head = nn.Linear(channels, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.stem(x)
        return self.head((h + self.block(h)).relu().mean((2, 3)))


def dense() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))


def without_gains() -> nn.Module:
    norm = nn.BatchNorm2d(4, affine=False, momentum=None)
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2), norm, nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


def instance_norm() -> nn.Module:
    norm = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
    return nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


def spectral() -> nn.Module:
    normed = nn.utils.parametrizations.spectral_norm(nn.Linear(36, 3))
    return nn.Sequential(nn.Flatten(), normed, nn.ReLU(), nn.Linear(3, 2)).eval()


MODULES: dict[str, Callable[[], nn.Module]] = {
    "residual": Residual,
    "dense": dense,
    "without gains": without_gains,
}


def images(n: int = 60) -> Task:
    """Three patterns with noise."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    X = (rng.standard_normal((3, 1, 6, 6))[y] + 0.3 * rng.standard_normal((n, 1, 6, 6))).astype(np.float32)
    return Task(X, y, test=Task(X, y))


@cache
def architecture_of(build: Callable[[], nn.Module], program: bool = True) -> Architecture:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        architecture = Architecture.from_module(build(), torch.zeros(2, 1, 6, 6))
    return Architecture.from_json(architecture.to_json()) if program else architecture


@cache
def networks(build: Callable[[], nn.Module], n: int = 24, seed: int = 0) -> WeightArray:
    """Networks around a trained one, with the statistics of the task's inputs, in float64."""
    task = images()
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        teacher = build().train()
        optimizer = torch.optim.Adam(teacher.parameters(), 0.03)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(teacher(torch.from_numpy(task.X)), torch.from_numpy(task.y)).backward()
            optimizer.step()
    architecture = architecture_of(build)
    row = np.asarray(WeightArray.from_modules([teacher], architecture), dtype=np.float64)
    noise = np.random.default_rng(seed).standard_normal((n, architecture.n_weights))
    return recompute_batch_norm(WeightArray(row + 0.05 * noise, architecture), task)


def at_random(weights: WeightArray, seed: int = 1) -> WeightArray:
    """The networks with other statistics."""
    other = np.array(weights)
    columns = weights.architecture.statistic_columns
    other[:, columns] = np.random.default_rng(seed).uniform(0.5, 3, (len(other), len(columns)))
    return weights.like(other)


def loaded(build: Callable[[], nn.Module], row: np.ndarray, architecture: Architecture) -> nn.Module:
    """A module with the weights of one network, and fresh statistics that become the mean of all batches."""
    module = build().double()
    tensors = unflatten(torch.from_numpy(np.array(row, dtype=np.float64))[None], architecture)
    module.load_state_dict({name: tensor[0] for name, tensor in tensors.items()}, strict=False)
    for layer in module.modules():
        if hasattr(layer, "running_mean"):
            layer.reset_running_stats()
            layer.momentum = None
    return module.train()


def weights_alone(weights: WeightArray) -> torch.Tensor:
    return torch.from_numpy(np.delete(np.asarray(weights), weights.architecture.statistic_columns, axis=1))


@pytest.fixture(scope="module", params=MODULES)
def build(request: pytest.FixtureRequest) -> Callable[[], nn.Module]:
    return MODULES[request.param]


class TestWithoutStatistics:
    @pytest.mark.parametrize("program", [True, False])
    def test_networks_are_those_of_the_module_in_training_mode(
        self, build: Callable[[], nn.Module], program: bool
    ) -> None:
        architecture = architecture_of(build, program)
        # where no program is known, the module runs them
        weights = without_statistics(architecture if program else replace(architecture, program=None))
        rng = np.random.default_rng(0)
        rows = rng.standard_normal((2, architecture.n_weights))
        x = torch.from_numpy(images().X).double()
        alone = torch.from_numpy(np.delete(rows, architecture.statistic_columns, axis=1)).requires_grad_()
        found = forward(alone, weights, x)
        tangent = torch.from_numpy(rng.standard_normal(alone.shape))
        change = torch.func.jvp(lambda w: forward(w, weights, x), (alone.detach(),), (tangent,))[1]
        for row, output, t, d in zip(rows, found, tangent, change, strict=True):
            module = loaded(build, row, architecture)
            expected = module(x)
            torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-10)
            # <c, J t> = <J^T c, t>
            c = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
            gradients = torch.autograd.grad((expected * c).sum(), list(module.parameters()))
            order = [name for name, _ in module.named_parameters()]
            assert order == list(weights.names)
            product = torch.cat([g.flatten() for g in gradients]) @ t
            torch.testing.assert_close((d * c).sum(), product, rtol=1e-8, atol=1e-8)

    def test_networks_without_any_are_as_they_were(self) -> None:
        architecture = Architecture.mlp([4, 3, 2])
        assert without_statistics(architecture) is architecture

    @pytest.mark.parametrize(
        ("build", "name"),
        [(spectral, r"1\.parametrizations\.weight\.0\._."), (instance_norm, r"1\.running_mean")],
    )
    def test_what_no_pass_computes_is_refused_by_name(self, build: Callable[[], nn.Module], name: str) -> None:
        architecture = architecture_of(build, program=False)
        assert len(architecture.statistic_columns)
        with pytest.raises(InvalidInputError, match=f"statistic '{name}' is none of a batch norm"):
            without_statistics(architecture)

    def test_networks_that_nothing_runs_are_refused(self) -> None:
        with pytest.raises(InvalidInputError, match=r"does not say how they run\. Read them from a module"):
            without_statistics(BatchNormed.architecture(compensated=True))


def test_hints_and_metric_normalise_by_their_inputs() -> None:
    weights, task = networks(Residual), images()
    own = without_statistics(weights.architecture)
    geometry = GEOMETRIES["euclidean"](own)
    points = weights_alone(weights)
    consensus = fit_consensus(task, own, geometry, points, 60, torch.Generator().manual_seed(0))
    found = consensus(points[:2])
    metric = function_metric(task, own, geometry, 60)
    v = torch.ones_like(points[:2])
    change = metric(points[:2], v, torch.Generator().manual_seed(0))
    rows = torch.randint(60, (60,), generator=torch.Generator().manual_seed(0))
    for i in range(2):
        module = loaded(Residual, weights[i], weights.architecture)
        logits = module(consensus.inputs.double()).log_softmax(-1)
        torch.testing.assert_close(found[i], -(consensus.targets.double() * logits).sum(-1).mean())
        before, after = (
            loaded(Residual, np.asarray(weights[i]) + step, weights.architecture)(
                torch.from_numpy(task.X)[rows].double()
            )
            for step in (-1e-6, 1e-6)
        )
        expected = (after - before) / 2e-6
        expected = (expected - expected.mean(-1, keepdim=True)).flatten()
        # a ReLU may have its kink between both
        assert ((change[i] - expected).abs() < 1e-4 * expected.abs().max()).double().mean() > 0.98


@pytest.mark.parametrize("geometry", ["euclidean", "geometric"])
def test_statistics_of_training_networks_do_not_change_the_flow(geometry: str) -> None:
    weights, task = networks(Residual), images()
    if geometry == "geometric":
        weights = wsflow.ScaleCanonicalizer().fit_transform(weights)
    options = {**TINY, "geometry": geometry, "task": task}
    one, other = (WeightFlow(**options).fit(rows) for rows in (weights, at_random(weights)))
    np.testing.assert_array_equal(one.sample(3, random_state=1), other.sample(3, random_state=1))
    assert one.geometry_.manifold.size == weights_alone(weights).shape[1]
    assert one.to_manifold(weights[:2]).shape == (2, weights_alone(weights).shape[1])


@pytest.mark.parametrize("energy", [None, EnergyMatching(n_steps=2)])
def test_samples_have_the_statistics_of_a_fresh_pass(
    build: Callable[[], nn.Module], tmp_path: Path, energy: EnergyMatching | None
) -> None:
    weights, task = networks(build), images()
    flow = WeightFlow("euclidean", energy=energy, task=task, **TINY).fit(weights)
    samples = flow.sample(4, random_state=1)
    assert samples.dtype == np.float64
    for row in samples:
        module = loaded(build, row, samples.architecture)
        module(torch.from_numpy(task.X).double())
        fresh = {name: buffer for name, buffer in module.named_buffers() if "running" in name}
        own = unflatten(torch.from_numpy(np.array(row))[None], samples.architecture)
        for name, buffer in fresh.items():
            torch.testing.assert_close(own[name][0], buffer, rtol=1e-9, atol=1e-9)
    # noise in the weights hardly changes the function, and neither does sampling
    assert predict(weights, task).scores.mean() > 0.9
    assert predict(samples, task).scores.mean() > 0.8
    save_model(flow, tmp_path / "flow.st")
    again = load_model(tmp_path / "flow.st")
    np.testing.assert_array_equal(again.sample(4, random_state=1), samples)


def test_statistics_are_those_of_evenly_spaced_inputs_where_there_are_many() -> None:
    weights = networks(dense, 12)
    rng = np.random.default_rng(0)
    X = (
        rng.standard_normal((3 * STATISTICS_INPUTS, 1, 6, 6))
        + np.linspace(0, 1, 3 * STATISTICS_INPUTS)[:, None, None, None]
    )
    task = Task(X.astype(np.float32), np.arange(len(X)) % 3)
    flow = WeightFlow("euclidean", **TINY).fit(weights)
    samples = flow.sample(2, random_state=0, task=task)
    rows = np.linspace(0, len(X) - 1, STATISTICS_INPUTS).astype(int)
    np.testing.assert_allclose(samples, recompute_batch_norm(samples, task.subset(rows)), atol=1e-10)
    mean = weights.architecture.slices["2.running_mean"]
    all_of_them = recompute_batch_norm(samples, task)
    assert np.abs(samples - all_of_them)[:, mean].max() < 0.1 * np.abs(samples[:, mean]).max()


def test_the_density_is_that_of_the_weights() -> None:
    weights = networks(Residual)
    flow = WeightFlow("euclidean", density="exact", **TINY).fit(weights)
    density = flow.score_samples(weights[:3])
    np.testing.assert_array_equal(flow.score_samples(at_random(weights[:3])), density)
    assert np.isfinite(density).all() and density.std() > 0
    _, of_samples = flow.sample(3, random_state=0, task=images(), return_log_prob=True)
    assert np.isfinite(of_samples).all()


@cache
def flow_without_task() -> WeightFlow:
    return WeightFlow("euclidean", **TINY).fit(networks(Residual))


class TestTask:
    def test_without_one_sampling_is_refused_before_it_begins(self) -> None:
        with pytest.raises(InvalidInputError, match=r"this flow has no task. Pass sample\(task=Task\(X, y\)\)"):
            flow_without_task().sample(2)

    def test_it_may_be_another_one(self) -> None:
        task = images()
        moved = Task(task.X + 1, task.y)
        flow = flow_without_task()
        first, second = (flow.sample(2, random_state=0, task=t) for t in (task, moved))
        np.testing.assert_array_equal(weights_alone(first), weights_alone(second))
        np.testing.assert_allclose(second, recompute_batch_norm(second, moved), atol=1e-10)
        assert np.abs(first - second).max() > 0.1

    def test_it_is_that_of_a_guidance(self) -> None:
        moved = Task(images().X + 1, images().y)
        guided = flow_without_task().sample(2, random_state=0, guidance=moved)
        np.testing.assert_allclose(guided, recompute_batch_norm(guided, moved), atol=1e-10)

    def test_a_pipeline_passes_it_on(self) -> None:
        weights, task = networks(Residual), images()
        pipe = make_pipeline(
            wsflow.PermutationAligner(reference="first"),
            wsflow.ScaleCanonicalizer(),
            WeightFlow(**TINY),
        ).fit(weights)
        samples = wsflow.sample(pipe, 3, 0, task=task)
        np.testing.assert_allclose(samples, recompute_batch_norm(samples, task), atol=1e-6)


def test_guidance_descends_the_loss_by_batch_statistics() -> None:
    weights, task = networks(Residual), images()
    flow = WeightFlow("euclidean", task=task, **TINY).fit(weights)
    plain, guided = (flow.sample(8, random_state=0, guidance=g) for g in (None, wsflow.Guidance(task, 2.0)))
    assert predict(guided, task).losses.mean() < predict(plain, task).losses.mean()


class TestEvaluation:
    def test_nulls_have_recomputed_statistics(self) -> None:
        weights, task = networks(Residual, 12), images()
        report = evaluate(weights[:4], weights[:8], weights[8:], task, nulls=weights[:8])
        mean = weights[:1].like(np.asarray(weights[:8]).mean(0, keepdims=True))
        expected = predict(recompute_batch_norm(mean, task), task).losses[0]
        assert report.nulls["mean"]["loss"] == pytest.approx(expected, rel=1e-4)
        # statistics of training networks have no part in it
        other = evaluate(weights[:4], weights[:8], weights[8:], task, nulls=at_random(weights[:8]))
        for name, row in report.nulls.items():
            assert other.nulls[name]["loss"] == pytest.approx(row["loss"], rel=1e-4), name

    def test_distances_in_weights_leave_statistics_out(self) -> None:
        weights, task = networks(Residual, 6), images()
        reference = mean_reference(weights)
        one, other = (embed(rows, task, reference).weights for rows in (weights, at_random(weights)))
        assert torch.equal(one, other)


def test_the_command_line_takes_a_task_where_the_model_has_none(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from wsflow.cli.main import main

    weights, task = networks(Residual).astype(np.float32), images()
    wsflow.save_population(wsflow.Population(weights), tmp_path / "zoo.safetensors")
    data = tmp_path / "data.npz"
    np.savez(data, X=task.X, y=task.y)
    run = lambda *arguments: CliRunner().invoke(main, [str(a) for a in arguments])  # noqa: E731
    model, out = tmp_path / "model.st", tmp_path / "new.safetensors"
    small = ("-p", "velocity.width=8", "-p", "velocity.depth=1", "--iterations", 2, "-q")
    assert run("fit", tmp_path / "zoo.safetensors", "-o", model, *small).exit_code == 0
    refused = run("sample", model, "-n", 3, "-o", out, "-q")
    assert refused.exit_code == 3 and "--task" in refused.output
    done = run("sample", model, "-n", 3, "-o", out, "--task", data, "-q")
    assert done.exit_code == 0, done.output
    samples = wsflow.load_population(out).weights
    np.testing.assert_allclose(samples, recompute_batch_norm(samples, wsflow.load_task(str(data))), atol=1e-5)
