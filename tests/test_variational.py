"""Variational networks: scikit-learn's checks, closed forms, the exact posterior of linear regression, files."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal, kl_divergence

import wsflow
from wsflow import Architecture, Task, VariationalNetwork
from wsflow.evaluation.calibration import expected_calibration_error
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.models.variational import LowRankGaussian, VariationalSettings, prior_of, train_posterior
from wsflow.populations.asymmetry import Asymmetry
from wsflow.running import forward, unflatten
from wsflow.training.loop import TrainingInterrupted

CHECKED = {"max_iter": 60, "learning_rate": 0.01, "random_state": 0, "n_networks": 10}
QUICK = {"max_iter": 5, "random_state": 0, "n_networks": 4}
MLP = Architecture.mlp([4, 3, 2])
X, Y = load_iris(return_X_y=True)


@parametrize_with_checks([VariationalNetwork(loss=loss, **CHECKED) for loss in ("cross_entropy", "mse")])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def gaussian(rank=2, architecture=MLP, seed=0, scale=0.1, **settings):
    """A Gaussian whose parameters are away from where they begin."""
    generator = torch.Generator().manual_seed(seed)
    initial = torch.randn(architecture.n_weights, generator=generator)
    posterior = LowRankGaussian(VariationalSettings(architecture, rank, **settings), initial, generator)
    with torch.no_grad():
        for parameter in posterior.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return posterior


class TestGaussian:
    @pytest.mark.parametrize("rank", [0, 1, 4])
    def test_the_divergence_and_its_gradient_are_those_of_torch(self, rank):
        posterior = gaussian(max(rank, 1), prior_scale=0.7).double()
        if not rank:
            posterior.loadings = nn.Parameter(posterior.loadings[:0])
        prior = MultivariateNormal(posterior.prior_mean, posterior.prior_std.square().diag())
        factor = posterior.factor.mT if rank else torch.zeros(23, 1).double()
        own = LowRankMultivariateNormal(posterior.mean, factor, posterior.std.square())
        expected = kl_divergence(MultivariateNormal(own.mean, own.covariance_matrix), prior)
        parameters = [posterior.mean, posterior.log_ratio, *([posterior.loadings] if rank else [])]
        assert posterior.kl().item() == pytest.approx(expected.item(), rel=1e-9)
        for found, known in zip(
            torch.autograd.grad(posterior.kl(), parameters), torch.autograd.grad(expected, parameters), strict=True
        ):
            assert torch.allclose(found, known, rtol=1e-7, atol=1e-9)

    def test_samples_have_its_moments(self):
        posterior = gaussian(3).requires_grad_(False)
        drawn = posterior.sample(200_000, torch.Generator().manual_seed(1)).double()
        covariance = posterior.std.square().diag() + posterior.factor.T @ posterior.factor
        scales = covariance.diag().sqrt()
        assert ((drawn.mean(0) - posterior.mean) / scales).abs().max() < 5 / math.sqrt(200_000)
        assert ((drawn.T.cov() - covariance) / scales.outer(scales)).abs().max() < 8 / math.sqrt(200_000)

    def test_samples_are_differentiable_by_all_parameters(self):
        posterior = gaussian(2)
        posterior.sample(3, torch.Generator()).sum().backward()
        assert all(parameter.grad.abs().min() > 0 for parameter in posterior.parameters())

    def test_the_prior_is_as_wide_as_he_weights(self):
        mean, std = prior_of(
            Architecture.from_module(nn.Sequential(nn.Linear(8, 5), nn.LayerNorm(5)), torch.zeros(2, 8))
        )
        assert torch.equal(std, torch.cat([torch.full((40,), 0.5), torch.ones(15)]))
        assert torch.equal(mean, torch.cat([torch.zeros(45), torch.ones(5), torch.zeros(5)]))


class TestLinearRegression:
    """The mean squared error of one target is the likelihood of noise of variance 1/2: the posterior is known."""

    @pytest.fixture(scope="class")
    @staticmethod
    def data():
        random = np.random.default_rng(0)
        inputs = random.normal(size=(40, 3)) @ np.array([[1, 0.8, 0], [0, 0.6, 0.5], [0, 0, 0.9]])
        y = inputs @ [1.0, -2.0, 0.5] + 0.3 + 0.7 * random.normal(size=40)
        design = np.c_[inputs, np.ones(40)]
        precision = 2 * design.T @ design + np.diag(1 / prior_of(Architecture.mlp([3, 1]))[1].numpy() ** 2)
        mean = np.linalg.solve(precision, 2 * design.T @ y)
        exact = MultivariateNormal(torch.from_numpy(mean), precision_matrix=torch.from_numpy(precision))
        return Task(inputs, y, "mse"), exact

    def fitted(self, task, rank, **settings):
        generator = torch.Generator().manual_seed(0)
        known = {"batch_size": 160, "max_iter": 1000, "learning_rate": 0.01, **settings}
        posterior = LowRankGaussian(
            VariationalSettings(Architecture.mlp([3, 1]), rank, **known), torch.zeros(4), generator
        )
        train_posterior(posterior, task, generator)
        return posterior

    def test_mean_field_has_the_diagonal_of_the_precision(self, data):
        """So the diagonal is learned: it begins at 400 / prior variance."""
        posterior, exact = self.fitted(data[0], 0), data[1]
        expected = exact.precision_matrix.diag()
        assert torch.allclose(posterior.std.double() ** -2, expected, rtol=0.15)
        assert torch.allclose(posterior.mean.double(), exact.mean, atol=0.02)
        known = MultivariateNormal(exact.mean, precision_matrix=expected.diag())
        assert divergence(posterior, exact) == pytest.approx(kl_divergence(known, exact).item(), abs=0.02)

    def test_a_full_rank_is_the_exact_posterior(self, data):
        posterior, exact = self.fitted(data[0], 4), data[1]
        assert divergence(posterior, exact) < 0.03

    def test_the_weight_of_the_divergence_is_a_temperature(self, data):
        """Noise of variance v is kl_weight = 2 v."""
        task, exact = data
        cold = self.fitted(task, 0, kl_weight=0.25)
        prior = prior_of(Architecture.mlp([3, 1]))[1].double() ** -2
        expected = (exact.precision_matrix.diag() - prior) / 0.25 + prior
        assert torch.allclose(cold.std.double() ** -2, expected, rtol=0.15)


def divergence(posterior, exact):
    covariance = posterior.std.square().diag() + posterior.factor.T @ posterior.factor
    return kl_divergence(MultivariateNormal(posterior.mean.double(), covariance.double()), exact).item()


def residual():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
            self.second, self.drop, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Dropout(0.1), nn.Linear(4, 10)

        def forward(self, x):
            x = torch.relu(self.norm(self.first(x)))
            return self.last(self.drop(torch.relu(x + self.second(x)).mean((2, 3))))

    return Net()


class TestAnyArchitecture:
    def test_images_and_statistics(self):
        images, labels = load_digits(return_X_y=True)
        images = images.reshape(-1, 1, 8, 8)[:200] / 8 - 1
        architecture = Architecture.from_module(residual().eval(), torch.zeros(2, 1, 8, 8))
        model = VariationalNetwork(architecture=architecture, max_iter=30, random_state=0).fit(images, labels[:200])
        drawn = model.sample(3, random_state=0)
        statistics = np.asarray(drawn)[:, architecture.statistic_columns]
        assert (statistics == statistics[:1]).all() and statistics[0, :4].any(), "of the training, and not random"
        assert len(np.unique(np.delete(drawn, architecture.statistic_columns, 1)[:, 0])) == 3
        assert model.predict_proba(images[:5]).shape == (5, 10)

    def test_fixed_entries_stay(self):
        constants = Asymmetry(n_fixed=2, kappa=0.5)
        model = VariationalNetwork((6, 6), asymmetry=constants, **QUICK).fit(X, Y)
        fixed = model.architecture_.fixed_columns
        assert len(fixed) == 2 * 15 and len(model.model_.mean) == model.architecture_.n_weights - len(fixed)
        assert (np.asarray(model.sample(5))[:, fixed] == model.architecture_.fixed_values.astype(np.float32)).all()

    def test_names_and_several_labels(self):
        several = (X[:, :2] > X[:, :2].mean(0)).astype(int)
        model = VariationalNetwork(architecture="mlp:5", loss="binary_cross_entropy", **QUICK).fit(X, several)
        assert model.predict_proba(X).shape == model.predict(X).shape == (150, 2)
        assert set(model.evaluate(X, several)) >= {"ece", "nll"}


class TestEstimator:
    @pytest.fixture(scope="class")
    @staticmethod
    def fitted():
        return VariationalNetwork((16,), max_iter=400, learning_rate=0.01, random_state=0).fit(
            X, np.array(list("abc"))[Y]
        )

    def test_it_learns_and_is_calibrated(self, fitted):
        labels = np.array(list("abc"))[Y]
        measures, probabilities = fitted.evaluate(X, labels), fitted.predict_proba(X)
        assert measures["accuracy"] == fitted.score(X, labels) > 0.9
        assert measures["ece"] == pytest.approx(expected_calibration_error(probabilities, Y), abs=1e-3)
        assert measures["nll"] == pytest.approx(-np.log(probabilities[np.arange(150), Y]).mean(), rel=1e-3)

    def test_predictions_are_the_average_of_samples(self, fitted):
        many = forward(
            torch.from_numpy(fitted.sample(2000, random_state=1)), fitted.architecture_, torch.from_numpy(X).float()
        )
        each = many.softmax(-1)
        error = each.std(0) / math.sqrt(fitted.n_networks)
        assert ((torch.from_numpy(fitted.predict_proba(X)) - each.mean(0)).abs() < 6 * error + 1e-3).all()

    def test_random_states(self, fitted):
        again = clone(fitted).fit(X, np.array(list("abc"))[Y])
        assert np.array_equal(again.predict_proba(X), fitted.predict_proba(X))
        assert np.array_equal(fitted.sample(3, random_state=1), fitted.sample(3, random_state=1))
        assert not np.array_equal(fitted.sample(3, random_state=1), fitted.sample(3, random_state=2))
        other = clone(fitted).set_params(random_state=1, max_iter=5).fit(X, Y)
        assert not np.array_equal(other.model_.mean, fitted.model_.mean)

    def test_the_global_random_state_is_left_alone(self):
        before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
        VariationalNetwork((4,), **QUICK).fit(X, Y).sample(2)
        assert torch.equal(torch.random.get_rng_state(), before[0])

    @pytest.mark.parametrize("loss", ["mse", "gaussian_nll", "poisson"])
    def test_regressions(self, loss):
        inputs, y = load_diabetes(return_X_y=True)
        inputs, y = inputs / inputs.std(0), y / y.std() - (0 if loss == "poisson" else y.mean() / y.std())
        model = VariationalNetwork((8,), loss=loss, max_iter=400, learning_rate=0.01, random_state=0).fit(inputs, y)
        assert is_regressor(model) and not is_classifier(model) and not hasattr(model, "predict_proba")
        assert model.score(inputs, y) > 0.3 and model.evaluate(inputs, y)["r2"] == pytest.approx(
            model.score(inputs, y), abs=1e-3
        )

    def test_the_default_begins_at_he_weights(self):
        deep = VariationalNetwork((64,) * 16, **QUICK | {"max_iter": 1, "learning_rate": 1e-9}).fit(X, Y)
        first = unflatten(deep.model_.mean.unsqueeze(0), deep.architecture_)["2.weight"]
        assert first.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.05)
        spread = [
            forward(torch.from_numpy(m.sample(20, 0)), m.architecture_, torch.from_numpy(X).float()).std(1).mean()
            for m in (deep, clone(deep).set_params(initialisation="torch").fit(X, Y))
        ]
        assert spread[0] > 100 * spread[1], "behind 16 layers torch's own first weights leave nothing of the inputs"

    @pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
    def test_files_and_pickles_predict_the_same(self, loss, tmp_path):
        model = VariationalNetwork((4,), loss=loss, asymmetry=Asymmetry(n_fixed=1), **QUICK).fit(X, Y)
        wsflow.save_model(model, tmp_path / "model.st")
        for other in (wsflow.load_model(tmp_path / "model.st"), pickle.loads(pickle.dumps(model))):
            assert np.array_equal(other.predict(X), model.predict(X))
            assert np.array_equal(other.sample(4, random_state=3), model.sample(4, random_state=3))
            assert other.evaluate(X, Y) == model.evaluate(X, Y)
            assert other.architecture_ == model.architecture_ and other.get_params() == model.get_params()

    def test_files_of_another_rank_are_refused(self, tmp_path):
        model = VariationalNetwork((4,), **QUICK).fit(X, Y).set_params(rank=2)
        with pytest.raises(InvalidInputError, match=r"(?s)not of its network.*loadings"):
            wsflow.save_model(model, tmp_path / "model.st")

    def test_an_interrupted_fit_predicts(self):
        def stop(done, total):
            if done == 3:
                raise KeyboardInterrupt

        model = VariationalNetwork((4,), max_iter=10, progress=stop)
        with pytest.raises(TrainingInterrupted):
            model.fit(X, Y)
        assert model.predict(X).shape == (150,)

    def test_samples_compare_with_other_sources(self):
        task = Task(X, Y, test=Task(X, Y))
        model = VariationalNetwork((16, 16), **QUICK).fit(X, Y)
        ensemble = wsflow.train_population(task, n_runs=4, epochs=1).weights
        curves = wsflow.predictive_curve({"variational": model.sample(5), "deep ensemble": ensemble}, task, (1, 4))
        assert list(curves) == ["variational", "deep ensemble"] and curves["variational"].sizes == (1, 4)
        alone = wsflow.predictive_curve(ensemble, task, (1, 4))
        assert np.array_equal(curves["deep ensemble"].mean["ece"], alone.mean["ece"])
        with pytest.raises(InvalidInputError, match="'weights' of predictive_curve are networks"):
            wsflow.predictive_curve({"rows": np.zeros((2, 23))}, task)


@pytest.mark.parametrize(
    ("params", "data", "message"),
    [
        ({"rank": -1}, (X, Y), "'rank' parameter of VariationalNetwork"),
        ({"initialisation": "xavier"}, (X, Y), "'initialisation' parameter of VariationalNetwork"),
        ({"hidden": "abc"}, (X, Y), "'hidden' parameter of VariationalNetwork"),
        ({"anchor": True}, (X, Y), "'anchor' goes with 'asymmetry'"),
        ({"kl_weight": -0.1}, (X, Y), "'kl_weight' parameter"),
        ({"loss": "hinge"}, (X, Y), "'loss' parameter"),
        ({}, (X, np.zeros(150)), "two classes or more.*one class, 0.0"),
        ({}, (X, X[:, 0]), "Unknown label type"),
        ({}, (X[:, None], Y), "dim 3"),
        ({"architecture": MLP}, (X, Y), "2 outputs, but the task has 4 inputs and 3 classes"),
        ({"hidden": (3,), "architecture": MLP}, (X, Y), "'hidden' and 'architecture'"),
        ({"loss": "poisson"}, (X, Y - 1.0), "not negative"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_a_sentence(params, data, message):
    with pytest.raises(ValueError, match=message):
        VariationalNetwork(**params, **QUICK).fit(*data)


@pytest.mark.parametrize("asymmetry", [None, "weights"])
def test_a_fitted_state_of_other_inputs_is_refused(asymmetry):
    model = VariationalNetwork((4,), asymmetry=asymmetry, **QUICK)
    arrays, data = model.fit(X, Y)._get_fitted()
    clone(model)._set_fitted(arrays, data)
    with pytest.raises(InvalidInputError, match="take 4 inputs, and its fitted state is of 9"):
        clone(model)._set_fitted(arrays, {**data, "n_features": 9})


def test_a_bound_that_is_not_finite_is_an_error():
    with pytest.raises(NumericalError, match="The ELBO was not finite"):
        VariationalNetwork(loss="mse", **QUICK).fit(X * 1e20, Y * 1e18)
