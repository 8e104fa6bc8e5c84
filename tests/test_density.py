"""WeightFlow's densities and samples: standard errors, log-densities along the way, solvers, and batches."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.integrate import solve_ivp
from scipy.stats import norm
from sklearn.pipeline import make_pipeline
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import wsflow
from wsflow import Architecture, Guidance, ScaleCanonicalizer, Task, WeightArray, WeightFlow
from wsflow.cli import main
from wsflow.estimators.validation import torch_generator
from wsflow.flow.adaptive import DormandPrince
from wsflow.flow.continuous import SAMPLED, ContinuousFlow
from wsflow.flow.divergence import DIVERGENCES, TraceEstimator
from wsflow.flow.solvers import RungeKutta
from wsflow.models import options
from wsflow.models.options import CHOICES, AdamW, NetworkGeometry, NeuronTransformer
from wsflow.testing import rounding_error

FAST = {"max_iter": 30, "velocity": NeuronTransformer(8, 1, 2), "solver": RungeKutta(n_steps=2), "random_state": 0}
# for rows that are no networks
PLAIN = FAST | {"geometry": "euclidean", "velocity": options.MLP(32, 1)}
MLP = Architecture.mlp([3, 2, 2])
RANDOM = [name for name, row in DIVERGENCES.items() if not row.is_exact]


@pytest.fixture(scope="module")
def canonical():
    """Networks with unit neurons."""
    values = np.random.default_rng(0).normal(size=(24, MLP.n_weights))
    return ScaleCanonicalizer().fit_transform(WeightArray(values, MLP))


@pytest.fixture(scope="module")
def flow(canonical):
    """A fitted geometric flow; tests change only how it is solved."""
    return WeightFlow(geometry="geometric", **FAST).fit(canonical)


def with_settings(flow, **settings):
    """The same fitted flow, solved otherwise."""
    return copy.copy(flow).set_params(**settings)


def precision(flow):
    """That of the velocity along which a flow scores: estimates are less precise than float32."""
    own = flow._model().flow
    return torch.float64 if own.divergence.divergence(own.manifold.size).is_exact else own.solver.dtype


def rounding_of_scores(flow, X):
    """How far apart ways to compute scores may be: as far as rounding the velocity's weights moves them."""
    flow = copy.deepcopy(flow)
    parameters = list(flow.velocity_.to(precision(flow)).parameters())

    def scores(rows):
        found = []
        for row in rows:
            vector_to_parameters(row, parameters)
            found.append(flow.score_samples(X))
        return torch.from_numpy(np.stack(found))

    return float(rounding_error(scores, parameters_to_vector(parameters).detach().unsqueeze(0)))


class TestStandardErrors:
    """score_samples(X, return_std=True)."""

    @pytest.mark.parametrize("name", RANDOM)
    @pytest.mark.parametrize("probes", ["shared", "row"])
    def test_the_exact_density_is_within_them(self, flow, canonical, name, probes):
        exact, none = flow.score_samples(canonical, return_std=True)
        assert not none.any()
        estimated = with_settings(flow, density=TraceEstimator(name, 8, probes))
        found, error = estimated.score_samples(canonical, return_std=True)
        assert (error > 0).all()
        # of seven degrees of freedom, one in 600 lies beyond five
        assert (np.abs(found - exact) < 5 * error).all()
        assert not np.array_equal(found, exact)

    def test_one_probe_tells_no_error(self, flow, canonical):
        found, error = with_settings(flow, density=TraceEstimator("hutchinson", 1)).score_samples(canonical, True)
        assert np.isfinite(found).all()
        assert np.isnan(error).all()

    def test_probes_of_rows_follow_their_content_and_the_seed(self, flow, canonical):
        own = with_settings(flow, density=TraceEstimator("hutchinson", 2, "row"))
        twice = np.concatenate([canonical, canonical[:3]])
        found = own.score_samples(twice)
        np.testing.assert_allclose(found[-3:], found[:3], rtol=0, atol=rounding_of_scores(own, twice))
        assert not np.allclose(with_settings(own, random_state=1).score_samples(twice), found)
        density = TraceEstimator("hutchinson", 2)
        shared = [with_settings(flow, density=density, random_state=s).score_samples(twice) for s in (0, 1)]
        assert not np.allclose(*shared)


SOLVED = {
    "exact": {},
    "hutch++": {"density": TraceEstimator("hutch++", 2)},
    "gaussian": {"density": TraceEstimator("gaussian", 2, "row")},
    "dopri5": {"solver": DormandPrince(1e-2, 1e-2)},
}


class TestBatches:
    """No network depends on those beside it: its score up to rounding, a sample to the bit."""

    @pytest.mark.parametrize("settings", SOLVED.values(), ids=SOLVED)
    def test_a_score_is_the_same_alone_and_in_any_order(self, flow, canonical, settings):
        flow = with_settings(flow, **settings)
        found = flow.score_samples(canonical)
        alone = np.concatenate([flow.score_samples(canonical[i : i + 1]) for i in (0, 7, 23)])
        order = np.random.default_rng(1).permutation(24)
        error = rounding_of_scores(flow, canonical)
        # far less than what batches of other rows, probes or steps would change
        assert error < (1e-9 if precision(flow) == torch.float64 else 0.01)
        np.testing.assert_allclose(alone, found[[0, 7, 23]], rtol=0, atol=error)
        np.testing.assert_allclose(flow.score_samples(canonical[order]), found[order], rtol=0, atol=error)

    @pytest.mark.parametrize("options", [{}, {"noise": 0.1}, {"temperature": 0.5}], ids=str)
    def test_a_larger_sample_begins_with_a_smaller_one(self, flow, options):
        large = flow.sample(SAMPLED + 20, random_state=3, **options)
        assert np.array_equal(flow.sample(SAMPLED + 3, random_state=3, **options), large[: SAMPLED + 3])
        assert np.array_equal(flow.sample(5, random_state=3, **options), large[:5])
        assert len(np.unique(large, axis=0)) == len(large)

    def test_so_do_guided_ones_and_their_densities(self, flow):
        rng = np.random.default_rng(1)
        task = Task(rng.normal(size=(40, 3)).astype(np.float32), rng.integers(2, size=40))
        guidance = Guidance(task, batch_size=16)
        assert np.array_equal(flow.sample(SAMPLED + 1, 0, guidance=guidance)[:3], flow.sample(3, 0, guidance=guidance))
        many, few = (flow.sample(n, 0, return_log_prob=True) for n in (SAMPLED + 1, 3))
        assert all(np.array_equal(a[:3], b) for a, b in zip(many, few, strict=True))


FLOWS = {
    "geometric": {"geometry": "geometric"},
    "polar": {"geometry": NetworkGeometry(last_layer="polar"), "source": "isotropic"},
    "euclidean": {"geometry": "euclidean"},
    "standard": {"geometry": "euclidean", "source": "standard", "velocity": options.MLP(32, 1)},
}


class TestLogProb:
    """sample(return_log_prob=True)."""

    @pytest.mark.parametrize("settings", FLOWS.values(), ids=FLOWS)
    @pytest.mark.parametrize("method", ["exact", "hutchinson"])
    def test_it_is_the_score_of_the_samples(self, canonical, settings, method):
        solved = {"solver": RungeKutta("rk4", 12), "density": TraceEstimator(method, 2)}
        flow = WeightFlow(**FAST | settings | solved).fit(canonical)
        new, log_prob = flow.sample(6, random_state=0, return_log_prob=True)
        np.testing.assert_allclose(log_prob, flow.score_samples(new), rtol=0, atol=5e-3)
        np.testing.assert_allclose(new, flow.sample(6, random_state=0), rtol=0, atol=1e-4)

    def test_an_adaptive_solver_agrees(self, flow):
        density = TraceEstimator("hutchinson", 1)
        one = with_settings(flow, solver=RungeKutta("rk4", 32), density=density).sample(6, 0, return_log_prob=True)
        two = with_settings(flow, solver="dopri5", density=density).sample(6, 0, return_log_prob=True)
        for a, b in zip(one, two, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-3)

    @pytest.mark.parametrize("source", ["gaussian", "standard"])
    @pytest.mark.parametrize("temperature", [0.5, 1.0])
    def test_at_a_temperature_it_is_that_of_the_scaled_source(self, source, temperature):
        """In one dimension the flow is monotonic: the mass between two samples is that between their sources."""
        X = np.random.default_rng(0).normal(2, 0.5, size=(200, 1))
        flow = WeightFlow(**PLAIN | {"source": source, "solver": RungeKutta("rk4", 16)}).fit(X)
        x, log_prob = flow.sample(400, 0, temperature=temperature, return_log_prob=True)
        order = np.argsort(x[:, 0])
        density = np.exp(log_prob[order])
        mass = np.cumsum(np.diff(x[order, 0]) * (density[1:] + density[:-1]) / 2)
        still = ContinuousFlow(flow.geometry_.manifold, flow.source_, lambda x, t: torch.zeros_like(x))
        points = still.sample(400, torch_generator(0), temperature=temperature)
        fitted = source == "gaussian"
        mean = float(flow.source_.mean) if fitted else 0.0
        one = torch.ones(1, 1, dtype=torch.float64)
        deviation = float(flow.source_.covariance.times(one)) ** 0.5 if fitted else 1.0
        expected = norm(mean, temperature * deviation).cdf(np.sort(points[:, 0].numpy()))
        np.testing.assert_allclose(mass, expected[1:] - expected[0], rtol=0, atol=0.01)

    def test_pipelines_return_it_too(self, canonical):
        model = make_pipeline(ScaleCanonicalizer(), WeightFlow(**FAST)).fit(canonical)
        new, log_prob = wsflow.sample(model, 3, 0, return_log_prob=True)
        assert isinstance(new, WeightArray)
        np.testing.assert_array_equal(log_prob, model[-1].sample(3, 0, return_log_prob=True)[1])

    def test_other_widths_have_one(self, canonical):
        flow = WeightFlow("geometric", **FAST | {"velocity": NeuronTransformer(8, 1, 2, None)}).fit(canonical)
        wide = Architecture.mlp([3, 4, 2])
        _, log_prob = flow.sample(3, 0, architecture=wide, return_log_prob=True)
        assert np.isfinite(log_prob).all()

    @pytest.mark.parametrize(
        ("settings", "options", "message"),
        [
            ({"geometry": "normalized"}, {}, "normalized geometry has no density"),
            ({"source": "initialisation"}, {}, "only drawn from has no density. Use source='gaussian' or"),
            ({}, {"noise": 0.1}, "Use noise=0"),
            ({}, {"temperature": 0}, "Use a higher temperature"),
            ({}, {"guidance": Task(np.eye(3), [0, 1, 0])}, "guidance=None"),
        ],
        ids=["normalized", "initialisation", "noise", "temperature", "guidance"],
    )
    def test_what_has_none_is_refused(self, canonical, settings, options, message):
        flow = WeightFlow(**FAST | {"max_iter": 1} | settings).fit(canonical)
        with pytest.raises(ValueError, match=message):
            flow.sample(2, 0, return_log_prob=True, **options)


def test_densities_are_those_of_an_independent_implementation():
    """A Euclidean flow, by scipy's solver on one point at a time, with a Jacobian by central differences."""
    X = np.random.default_rng(0).normal(size=(60, 3)) * [1, 0.5, 2] + [1, 0, -1]
    flow = WeightFlow(**PLAIN | {"solver": DormandPrince(1e-8, 1e-8)}).fit(X)
    velocity = copy.deepcopy(flow.velocity_).double()

    def field(t, x):
        points, times = torch.tensor(x).reshape(-1, 3), torch.tensor([t], dtype=torch.float64)
        return velocity(points, times.expand(len(points))).numpy()

    def right_hand_side(t, state):
        steps = 1e-5 * np.eye(3)
        ahead, behind = (field(t, state[:3] + sign * steps) for sign in (1, -1))
        return [*field(t, state[:3])[0], np.trace(ahead - behind) / 2e-5]

    mean, covariance = flow.source_.mean.numpy(), flow.source_.covariance.times(torch.eye(3, dtype=torch.float64))
    expected = []
    for row in X[:4]:
        point = (row - X.mean(0)) / X.std(0)
        state = solve_ivp(right_hand_side, (1, 0), [*point, 0], rtol=1e-8, atol=1e-9).y[:, -1]
        off = state[:3] - mean
        log_prior = -0.5 * (off @ np.linalg.solve(covariance, off) + np.linalg.slogdet(2 * np.pi * covariance)[1])
        expected.append(log_prior + state[3] - np.log(X.std(0)).sum())
    np.testing.assert_allclose(flow.score_samples(X[:4]), expected, atol=1e-5)


class TestStandardSource:
    """source="standard"."""

    def test_its_source_is_standard_normal_whatever_the_data(self):
        flow = WeightFlow(source="standard", **PLAIN).fit(100 + 7 * np.random.default_rng(0).normal(size=(30, 2)))
        assert flow.source_.scale.tolist() == [1, 1]
        np.testing.assert_allclose(flow.source_.log_prob(torch.zeros(1, 2)), 2 * norm.logpdf(0), rtol=1e-6)

    @pytest.mark.slow
    @pytest.mark.parametrize("noise", [0.0, 0.2], ids=["deterministic", "stochastic"])
    def test_it_reaches_another_gaussian(self, noise):
        """From N(0, I) to N(1, 0.7^2 I) in 12 dimensions: mean and pooled variance of the samples."""
        X = 1 + 0.7 * np.random.default_rng(0).normal(size=(4000, 12))
        settings = {"velocity": options.MLP(128), "training": AdamW(batch_size=256), "solver": RungeKutta(n_steps=64)}
        flow = WeightFlow(geometry="euclidean", source="standard", max_iter=400, random_state=0, **settings).fit(X)
        new = flow.sample(4000, 0, noise=noise)
        assert new.mean() == pytest.approx(1, rel=0.02)
        assert new.var(0).mean() == pytest.approx(0.49, rel=0.04)


class TestSettings:
    """What may be asked for."""

    def test_every_row_of_the_tables_is_a_choice(self):
        assert set(CHOICES["density"]) == {"auto", *DIVERGENCES}
        assert set(CHOICES["solver"]) == {"euler", "midpoint", "rk4", "dopri5"}

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"density": "stochastic"}, "'density' parameter of WeightFlow is one of"),
            ({"solver": "dopri8"}, "'solver' parameter of WeightFlow is one of"),
            ({"density": TraceEstimator(probes="each")}, "'probes' parameter of TraceEstimator must be a str among"),
            ({"solver": DormandPrince(rtol=0)}, "'rtol' parameter of DormandPrince must be a float in the range"),
        ],
    )
    def test_errors_are_sentences(self, settings, message):
        with pytest.raises(ValueError, match=message):
            WeightFlow(**PLAIN | settings).fit(np.zeros((4, 2)))


@pytest.fixture(scope="module")
def files(tmp_path_factory, canonical):
    """A population and a pipeline, without a task."""
    folder = tmp_path_factory.mktemp("density")
    wsflow.save_population(wsflow.Population(canonical), folder / "zoo.safetensors")
    model = make_pipeline(ScaleCanonicalizer(), WeightFlow(**FAST)).fit(canonical)
    wsflow.save_model(model, folder / "model.st")
    return folder


class TestCommands:
    """wsflow score and wsflow sample."""

    def run(self, *arguments, code=0):
        """What a command printed."""
        result = CliRunner().invoke(main, [*map(str, arguments), "-q"])
        assert result.exit_code == code, result.output
        return result.stdout if code == 0 else result.stderr

    def test_scores_come_with_their_errors(self, files, canonical):
        call = ("score", files / "model.st", files / "zoo.safetensors", "--json")
        exact = json.loads(self.run(*call))
        assert exact["standard_error"] == [0] * 24
        estimated = json.loads(self.run(*call, "-p", "density=hutchinson", "-p", "density.n_probes=4"))
        assert min(estimated["standard_error"]) > 0
        flow = wsflow.load_model(files / "model.st")[-1].set_params(density="hutchinson", random_state=0)
        np.testing.assert_allclose(estimated["log_density"], flow.score_samples(canonical), rtol=1e-9)
        single = json.loads(self.run(*call, "-p", "density.n_probes=1", "-p", "density=gaussian"))
        assert single["standard_error"] == [None] * 24

    def test_the_table_says_how_sure_they_are(self, files):
        call = ("score", files / "model.st", files / "zoo.safetensors")
        assert "exact" in self.run(*call)
        assert "unknown" in self.run(*call, "-p", "density=hutchinson", "-p", "density.n_probes=1")

    def test_what_does_not_belong_there_is_refused(self, files):
        call = ("score", files / "model.st", files / "zoo.safetensors", "-p")
        assert "Choose from solver" in self.run(*call, "width=3", code=2)
        assert "Choose from solver" in self.run(*call, "velocity.width=3", code=2)
        assert "Did you mean 'n_probes'" in self.run(*call, "density.n_probe=3", code=2)
        assert "Did you mean 'dopri5'?" in self.run(*call, "solver=dopri8", code=2)

    def test_samples_come_with_their_densities(self, files, tmp_path):
        call = ("sample", files / "model.st", "-n", 3, "-o", tmp_path / "new", "--force")
        assert "log_density" not in json.loads(self.run(*call, "--json"))
        found = json.loads(self.run(*call, "--json", "--log-prob"))["log_density"]
        flow = wsflow.load_model(files / "model.st")[-1]
        np.testing.assert_allclose(found, flow.sample(3, 0, return_log_prob=True)[1])
        assert "nats" in self.run(*call, "--log-prob")
        assert "--noise 0" in self.run(*call, "--log-prob", "--noise", 0.1, code=2)
