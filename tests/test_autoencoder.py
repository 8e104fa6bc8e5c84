"""Autoencoders of networks: scikit-learn's checks, orbits, losses in closed form, merging, files and refusals."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from scipy import special
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from test_predictors import RELU, SMALL, TANH, moved, networks
from torch import distributions, nn

import wsflow
from wsflow import Architecture, MetaAutoencoder, Task, WeightArray, WeightFlow
from wsflow.evaluation import predict
from wsflow.exceptions import InvalidInputError, MissingArchitectureWarning, NumericalError
from wsflow.losses import LOSSES
from wsflow.models.metanetworks import METANETWORKS, Probe
from wsflow.models.options import MLP, AdamW
from wsflow.objectives.function_metric import prediction_divergence
from wsflow.populations.representations import train_representations
from wsflow.running import forward
from wsflow.training.loop import TrainingInterrupted

FAST = {"decoder": MLP(16, 1), "max_iter": 3, "random_state": 0}
INPUTS = np.random.default_rng(5).normal(size=(40, 4)).astype(np.float32)
TASK = Task(INPUTS, np.arange(40) % 2)


def outputs(X, inputs=INPUTS):
    rows = torch.from_numpy(np.array(X, dtype=float))
    return forward(rows, X.architecture, torch.from_numpy(inputs).double()).numpy()


@pytest.fixture(scope="module")
def images():
    """Representations of images of one smooth spot each, in two training runs for each image."""
    rng = np.random.default_rng(0)
    axis = np.linspace(-1, 1, 7)
    centres = rng.uniform(-0.6, 0.6, (2, 120, 1, 1))
    values = np.exp(-3 * ((axis[:, None] - centres[0]) ** 2 + (axis - centres[1]) ** 2))
    settings = {"architecture": "siren:8,8", "steps": 120}
    first, second = (train_representations(values, random_state=seed, **settings) for seed in (0, 1))
    return first, second, values.reshape(120, -1)


@pytest.fixture(scope="module")
def fitted(images):
    """An autoencoder of the first 100 images."""
    settings = {"decoder": MLP(64, 2), "max_iter": 600, "random_state": 0}
    model = MetaAutoencoder(8, metanetwork=Probe(64, 1, n_probes=32), task=images[0].task, **settings)
    return model.fit(images[0].weights[:100])


@pytest.mark.filterwarnings("ignore::wsflow.exceptions.MissingArchitectureWarning")
@parametrize_with_checks([MetaAutoencoder(3, metanetwork=MLP(32, 1), decoder=MLP(32, 1), max_iter=30, random_state=0)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name", METANETWORKS)
class TestEveryMetanetwork:
    @pytest.mark.parametrize("architecture", [RELU, TANH], ids=["relu", "tanh"])
    def test_orbits_collapse(self, name, architecture):
        """Latents and reconstructions of moved networks are those of the networks."""
        X = networks(architecture=architecture)
        model = MetaAutoencoder(5, metanetwork=SMALL[name], task=TASK, **FAST).fit(X)
        for rows, tolerance in ((X, 1e-9), (X.astype(np.float32), 1e-5)):
            for before, after in (
                (model.transform(rows), model.transform(moved(rows))),
                (np.asarray(model.reconstruct(rows)), np.asarray(model.reconstruct(moved(rows)))),
            ):
                change = np.abs(after - before).max() / np.abs(before).max()
                # the others know no order of neurons
                assert (change < tolerance) == (name not in ("mlp", "convolutional"))

    def test_files_pickles_and_clones_are_the_same_to_the_bit(self, name, tmp_path):
        X = networks()
        model = MetaAutoencoder(5, metanetwork=SMALL[name], task=TASK, noise=0.1, **FAST).fit(X)
        latents, expected = model.transform(X), model.reconstruct(X)
        wsflow.save_model(model, tmp_path / "model.st")
        loaded = wsflow.load_model(tmp_path / "model.st")
        for other in (loaded, pickle.loads(pickle.dumps(model)), clone(model).fit(X)):
            assert np.array_equal(other.transform(X), latents)
            assert np.array_equal(other.reconstruct(X), expected)
            assert np.array_equal(other.reconstruction_loss(X), model.reconstruction_loss(X))
        assert loaded.architecture_ == RELU and loaded.n_networks_ == 40 and loaded.history_ == model.history_


class TestLosses:
    @pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy", "gaussian_nll", "poisson", "mse"])
    def test_divergences_are_those_of_the_distributions(self, name):
        first, second = torch.randn(2, 3, 7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        made = {
            "cross_entropy": lambda z: distributions.Categorical(logits=z),
            "binary_cross_entropy": lambda z: distributions.Bernoulli(logits=z),
            "gaussian_nll": lambda z: distributions.Normal(z[..., :2], (z[..., 2:] / 2).exp()),
            "poisson": lambda z: distributions.Poisson(z.exp()),
            # the divergence of normal distributions of variance 1/2
            "mse": lambda z: distributions.Normal(z, 0.5**0.5),
        }[name]
        expected = distributions.kl_divergence(made(first), made(second)).flatten(1).mean(1)
        found = prediction_divergence(first, second, LOSSES[name])
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        assert (prediction_divergence(first, first, LOSSES[name]) == 0).all()

    def test_of_classifiers_it_is_the_divergence_of_predictions(self):
        X = networks()
        model = MetaAutoencoder(5, metanetwork=SMALL["deep_sets"], task=TASK, **FAST).fit(X)
        p, q = (special.log_softmax(outputs(rows), -1) for rows in (X, model.reconstruct(X)))
        expected = (np.exp(p) * (p - q)).sum(-1).mean(1)
        np.testing.assert_allclose(model.reconstruction_loss(X), expected, rtol=1e-9)
        assert model.score(X) == pytest.approx(-expected.mean(), rel=1e-9)

    def test_of_numbers_it_is_the_squared_error(self):
        X, task = networks(), Task(INPUTS, np.zeros((40, 2)), "mse")
        model = MetaAutoencoder(5, metanetwork=SMALL["deep_sets"], task=task, **FAST).fit(X)
        expected = ((outputs(X) - outputs(model.reconstruct(X))) ** 2).mean((1, 2))
        np.testing.assert_allclose(model.reconstruction_loss(X), expected, rtol=1e-9)

    def test_targets_have_no_influence(self):
        X, other = networks(), Task(INPUTS, 1 - np.arange(40) % 2)
        first, second = (MetaAutoencoder(5, metanetwork=SMALL["probe"], task=t, **FAST).fit(X) for t in (TASK, other))
        assert np.array_equal(first.transform(X), second.transform(X))

    def test_inputs_are_drawn_without_a_task(self):
        X = networks()
        model = MetaAutoencoder(5, **FAST).fit(X)
        inputs = model.model_.inputs.numpy()
        assert inputs.shape == (512, 4) and abs(inputs.std() - 1) < 0.1
        expected = ((outputs(X, inputs) - outputs(model.reconstruct(X), inputs)) ** 2).mean((1, 2))
        np.testing.assert_allclose(model.reconstruction_loss(X), expected, rtol=1e-9)

    def test_plain_rows_are_compared_as_standardized_columns(self):
        X = np.random.default_rng(0).normal(size=(50, 3)) * [1, 10, 100]
        with pytest.warns(MissingArchitectureWarning, match="MetaAutoencoder compares weights"):
            model = MetaAutoencoder(2, training=AdamW(validation_fraction=0.0), **FAST).fit(X)
        expected = (((model.reconstruct(X) - X) / X.std(0)) ** 2).mean(1)
        np.testing.assert_allclose(model.reconstruction_loss(X), expected, rtol=1e-5)


class TestLearning:
    def test_images_are_kept(self, images, fitted):
        """Of new runs too: the images differ by 100 times as much."""
        first, _, values = images
        new = first.weights[100:]
        loss = fitted.history_.validation
        assert loss[-1] < 0.1 * loss[0]
        shown = outputs(fitted.reconstruct(new), first.task.X)[..., 0]
        error = ((shown - values[100:]) ** 2).mean()
        assert error < 0.15 * ((values[100:] - values.mean(0)) ** 2).mean()

    def test_latents_are_standardized(self, images, fitted):
        learned = [i for i in range(100)]
        latents = fitted.transform(images[0].weights[learned])
        assert latents.shape == (100, 8)
        # a tenth of the runs was held out
        np.testing.assert_allclose(latents.mean(0), 0, atol=0.2)
        np.testing.assert_allclose(latents.std(0), 1, atol=0.2)

    def test_noise_is_taken_away(self, images):
        first = images[0]
        rng = np.random.default_rng(1)
        new = first.weights[100:]
        noisy = new.like(new + rng.normal(size=new.shape) * 0.005)
        errors = []
        for noise in (0.0, 0.2):
            settings = {"decoder": MLP(64, 2), "max_iter": 400, "random_state": 0, "noise": noise}
            model = MetaAutoencoder(8, metanetwork=Probe(64, 1, n_probes=32), task=first.task, **settings)
            model.fit(first.weights[:100])
            found = outputs(model.reconstruct(noisy), first.task.X) - outputs(new, first.task.X)
            errors.append((found**2).mean())
        given = ((outputs(noisy, first.task.X) - outputs(new, first.task.X)) ** 2).mean()
        assert errors[1] < 0.6 * errors[0] and errors[1] < 0.4 * given

    def test_runs_that_are_held_out_are_whole(self):
        X = networks(40, runs=np.repeat(np.arange(10), 4))
        model = MetaAutoencoder(5, task=TASK, **FAST).fit(X)
        assert model.n_networks_ == 40 and model.n_runs_ == 10
        plain = MetaAutoencoder(5, task=TASK, architecture=RELU, **FAST).fit(np.asarray(X), groups=X.runs)
        assert np.array_equal(plain.transform(X), model.transform(X))

    def test_reconstructions_keep_runs_and_precision(self):
        X = networks(20, runs=np.arange(20) // 2, steps=np.arange(20)).astype(np.float32)
        found = MetaAutoencoder(5, task=TASK, **FAST).fit(X).reconstruct(X)
        assert found.dtype == np.float32 and found.aligned
        assert np.array_equal(found.runs, X.runs) and np.array_equal(found.steps, X.steps)

    def test_nothing_global_is_touched(self):
        torch.manual_seed(3)
        before, dtype = torch.get_rng_state(), torch.get_default_dtype()
        X = networks()
        metanetwork = Probe(16, 1, dropout=0.5, n_probes=8)
        MetaAutoencoder(5, metanetwork=metanetwork, noise=0.1, **FAST).fit(X).reconstruct(X)
        assert torch.equal(torch.get_rng_state(), before) and torch.get_default_dtype() == dtype

    def test_a_search(self):
        grid = {"n_components": [1, 4], "decoder__width": [8]}
        search = GridSearchCV(MetaAutoencoder(task=TASK, **FAST), grid, cv=2).fit(networks(24))
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()

    def test_ctrl_c_keeps_what_was_learned(self, tmp_path):
        def stop(done, total):
            if done == 2:
                raise KeyboardInterrupt

        X = networks()
        model = MetaAutoencoder(5, task=TASK, **FAST, progress=stop)
        with pytest.raises(TrainingInterrupted):
            model.fit(X)
        wsflow.save_model(model, tmp_path / "model.st")
        assert np.array_equal(wsflow.load_model(tmp_path / "model.st").reconstruct(X), model.reconstruct(X))

    def test_names_of_columns(self):
        model = MetaAutoencoder(3, task=TASK, **FAST).fit(networks())
        assert list(model.get_feature_names_out()) == [f"metaautoencoder{i}" for i in range(3)]


class TestMerging:
    def test_two_copies_of_an_orbit_are_one_network(self, images, fitted):
        X = images[0].weights[100:104].astype(np.float64)
        pairs = WeightArray.concatenate([X, moved(X, log_scale=0.0)])
        groups = np.tile(np.arange(4), 2)
        merged = wsflow.merge(pairs, method="latent", autoencoder=fitted, groups=groups)
        np.testing.assert_allclose(merged, fitted.reconstruct(X), rtol=1e-5, atol=1e-5)
        assert np.array_equal(merged.runs, X.runs)

    def test_it_is_the_mean_of_latents(self, images, fitted):
        X = images[0].weights[:6]
        merged = wsflow.merge(X, method="latent", autoencoder=fitted, groups=[0, 1, 0, 1, 1, 0])
        latents = fitted.transform(X)
        means = [latents[[0, 2, 5]].mean(0), latents[[1, 3, 4]].mean(0)]
        np.testing.assert_allclose(merged, fitted.inverse_transform(means), rtol=1e-6)
        assert merged.aligned

    def test_runs_of_one_image_have_no_barrier(self, images, fitted):
        """Where the mean of weights has one."""
        first, second, values = images
        pairs = WeightArray.concatenate([first.weights[:100], second.weights[:100]])
        groups = np.tile(np.arange(100), 2)

        def error(X):
            return ((outputs(X, first.task.X)[..., 0] - np.resize(values[:100], (len(X), 49))) ** 2).mean()

        merged = wsflow.merge(pairs, method="latent", autoencoder=fitted, groups=groups)
        assert error(merged) < 1.1 * error(fitted.reconstruct(pairs))
        assert error(merged) < 0.2 * error(wsflow.merge(pairs, groups=groups))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"method": "median"}, "'method' of merge is one of mean, latent, got 'median'"),
            ({"method": "latent"}, "needs an autoencoder"),
            ({"method": "latent", "autoencoder": WeightFlow()}, "needs an autoencoder"),
            ({"autoencoder": MetaAutoencoder()}, "goes with method='latent'"),
            ({"method": "latent", "autoencoder": MetaAutoencoder(), "repair": True}, "neurons of the networks"),
        ],
    )
    def test_refusals(self, options, message):
        with pytest.raises(ValueError, match=message):
            wsflow.merge(networks(4), TASK, **options)


class TestPipelines:
    def test_a_flow_over_latents(self, images, tmp_path):
        X = images[0].weights
        autoencoder = MetaAutoencoder(4, task=images[0].task, **FAST)
        pipeline = make_pipeline(autoencoder, WeightFlow("euclidean", max_iter=5, random_state=0)).fit(X)
        drawn = wsflow.sample(pipeline, 3, random_state=0)
        assert drawn.architecture == X.architecture and drawn.dtype == X.dtype
        assert np.isfinite(predict(drawn, images[0].task).losses).all()
        wsflow.save_model(pipeline, tmp_path / "model.st")
        assert np.array_equal(wsflow.sample(wsflow.load_model(tmp_path / "model.st"), 3, random_state=0), drawn)

    def test_running_statistics_are_computed(self):
        torch.manual_seed(0)
        modules = [
            nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)).eval() for _ in range(12)
        ]
        X = WeightArray.from_modules(modules, example_input=torch.zeros(2, 4))
        found = MetaAutoencoder(5, task=TASK, **FAST).fit(X).reconstruct(X)
        columns = X.architecture.slices["1.running_mean"]
        first = outputs(found, INPUTS)
        assert np.isfinite(first).all()
        weights, bias = (np.asarray(found[:, X.architecture.slices[f"0.{name}"]]) for name in ("weight", "bias"))
        expected = (INPUTS @ weights.reshape(12, 3, 4).swapaxes(1, 2)).mean(1) + bias
        np.testing.assert_allclose(found[:, columns], expected, atol=1e-4)
        with pytest.raises(InvalidInputError, match="running statistics"):
            MetaAutoencoder(5, **FAST).fit(X)


class TestRefusals:
    @pytest.mark.parametrize(
        "parameters",
        [{"n_components": 0}, {"noise": -1.0}, {"decoder": "cnn"}, {"canonicalize": "sorted"}, {"task": "mnist"}],
    )
    def test_parameters(self, parameters):
        with pytest.raises(ValueError, match=next(iter(parameters))):
            MetaAutoencoder(**FAST | parameters).fit(networks())

    @pytest.mark.parametrize("value", ["transformer", 3])
    def test_metanetworks(self, value):
        with pytest.raises(ValueError, match="'metanetwork' parameter of MetaAutoencoder is one of"):
            MetaAutoencoder(metanetwork=value, **FAST).fit(networks())

    def test_tasks_of_other_networks(self):
        with pytest.raises(InvalidInputError, match="with 4 inputs and 2 outputs, but the task has 3 inputs"):
            MetaAutoencoder(task=Task(np.zeros((5, 3)), [0, 1, 0, 1, 0]), **FAST).fit(networks())

    def test_networks_that_do_not_run(self):
        from test_metanetworks import two_convolutions

        with pytest.raises(InvalidInputError, match="does not say how to run"):
            MetaAutoencoder(metanetwork="neuron", **FAST).fit(networks(architecture=two_convolutions()))

    def test_latents(self):
        model = MetaAutoencoder(3, task=TASK, **FAST).fit(networks())
        with pytest.raises(InvalidInputError, match="have 3 columns, got 4"):
            model.inverse_transform(np.zeros((2, 4)))
        with pytest.raises(InvalidInputError, match="NaN"):
            model.inverse_transform(np.full((2, 3), np.nan))

    def test_latents_that_are_not_finite(self):
        model = MetaAutoencoder(2, **FAST).fit(networks())
        with torch.no_grad():
            for parameter in model.model_.parameters():
                parameter.fill_(1e300)
        with pytest.raises(NumericalError, match="Latents are not finite"):
            model.transform(networks())

    def test_networks_of_another_architecture(self):
        model = MetaAutoencoder(3, task=TASK, **FAST).fit(networks())
        with pytest.raises(InvalidInputError, match="was fitted to networks"):
            model.transform(networks(architecture=TANH))

    def test_arrays_of_another_decoder(self, tmp_path):
        model = MetaAutoencoder(3, task=TASK, **FAST).fit(networks())
        model.decoder = MLP(8, 1)
        with pytest.raises(InvalidInputError, match="are not those of its networks"):
            wsflow.save_model(model, tmp_path / "model.st")


def test_a_wider_probe_reads_any_architecture_that_runs():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    architecture = Architecture.from_module(module, torch.zeros(2, 1, 4, 4))
    X = networks(20, architecture)
    task = Task(np.random.default_rng(0).normal(size=(9, 1, 4, 4)), np.arange(9) % 2)
    model = MetaAutoencoder(3, task=task, **FAST).fit(X)
    change = np.abs(model.transform(moved(X)) - model.transform(X)).max()
    assert change < 1e-9 * np.abs(model.transform(X)).max()
