"""Tasks and losses: every row of the table agrees with torch and scikit-learn, with weights and without."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.sparse import csr_array
from scipy.special import logsumexp
from scipy.stats import norm, poisson
from sklearn import metrics
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import LabelEncoder
from torch import Tensor
from torch.nn import functional as F

import wsflow
from wsflow import Architecture, Task, WeightArray, WeightFlow
from wsflow.cli import main
from wsflow.evaluation import loss_path, predict
from wsflow.evaluation.importance_sampling import log_likelihoods
from wsflow.evaluation.iou import intersection_over_union
from wsflow.evaluation.predictive import score_key
from wsflow.exceptions import InvalidInputError
from wsflow.geometry import GEOMETRIES
from wsflow.losses import LOSSES, loss_of
from wsflow.models.options import EnergyMatching, NeuronTransformer
from wsflow.objectives.functionals import Fairness, TaskLoss
from wsflow.objectives.kfac import NaturalGradient
from wsflow.persistence.tasks import pack_task, task_tensors, unpack_task
from wsflow.running import losses, predictions, scores
from wsflow.symmetry.matching.examples import Examples
from wsflow.symmetry.matching.methods import Context

B, P = 12, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, P))
SIGNAL = X @ [1.0, -2.0, 0.5]
WEIGHTS = np.array([2, 0, 1, 3, 0, 1, 1, 2, 1, 1, 2, 1], dtype=np.float64)


@dataclass(frozen=True)
class Case:
    """Targets for X, what torch and scikit-learn say of outputs, and the predictive distribution of outputs (k,)."""

    loss: str
    y: np.ndarray
    oracle: Callable[[Tensor, Tensor], Tensor]
    nodes: Callable[[Tensor], Iterator[tuple[Tensor, Tensor]]]


def classes(z: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Probabilities and targets of softmax(z)."""
    yield from zip(z.softmax(-1), torch.arange(len(z)).unsqueeze(-1), strict=True)


def labels(z: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Probabilities and targets of independent labels."""
    for number in range(2 ** len(z)):
        y = torch.tensor([float(number >> i & 1) for i in range(len(z))], dtype=z.dtype)
        yield torch.where(y > 0, z.sigmoid(), (-z).sigmoid()).prod(), y.unsqueeze(0)


def two_points(z: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Two points with the mean and the variance of a Gaussian, which is all that its loss reads."""
    mean, s = z.chunk(2)
    yield from ((torch.tensor(0.5, dtype=z.dtype), (mean + sign * (s / 2).exp()).unsqueeze(0)) for sign in (1, -1))


def at(link: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Iterator[tuple[Tensor, Tensor]]]:
    """The mean, where the loss is linear in the target but for a term without outputs."""

    def nodes(z: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        yield torch.tensor(1.0, dtype=z.dtype), link(z).unsqueeze(0)

    return nodes


def gaussian(z: Tensor, y: Tensor) -> Tensor:
    mean, s = z.chunk(2, -1)
    return F.gaussian_nll_loss(mean, y, s.exp(), full=True, eps=0, reduction="none")


CASES = {
    "cross_entropy": Case(
        "cross_entropy", np.arange(B) % 3, lambda z, y: F.cross_entropy(z, y, reduction="none"), classes
    ),
    "two classes": Case(
        "binary_cross_entropy",
        (SIGNAL > 0).astype(int),
        lambda z, y: F.binary_cross_entropy_with_logits(z, y, reduction="none"),
        labels,
    ),
    "three labels": Case(
        "binary_cross_entropy",
        (X > 0).astype(int),
        lambda z, y: F.binary_cross_entropy_with_logits(z, y, reduction="none"),
        labels,
    ),
    "mse": Case("mse", X[:, :2] * 2, lambda z, y: F.mse_loss(z, y, reduction="none"), at(lambda z: z)),
    "gaussian_nll": Case("gaussian_nll", X[:, :2] * 2, gaussian, two_points),
    "poisson": Case(
        "poisson",
        RNG.poisson(3.0, size=(B, 2)),
        lambda z, y: F.poisson_nll_loss(z, y, reduction="none") + torch.lgamma(y + 1),
        at(torch.exp),
    ),
}


def test_every_loss_has_a_case():
    assert {case.loss for case in CASES.values()} == set(LOSSES)


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]


def task_of(case: Case, **more) -> Task:
    return Task(X, case.y, case.loss, **more)


def outputs_for(task: Task, n: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, len(task.X), task.n_outputs, generator=generator, dtype=torch.float64)


def networks(task: Task, n: int = 5, seed: int = 0) -> WeightArray:
    architecture = Architecture.mlp([task.n_inputs, 4, task.n_outputs], "tanh")
    rows = np.random.default_rng(seed).normal(size=(n, architecture.n_weights)) / 2
    return WeightArray(rows, architecture, runs=np.arange(n))


def duplicated(case: Case) -> Task:
    """The examples as often as they have weight."""
    rows = np.arange(B).repeat(WEIGHTS.astype(int))
    return Task(X[rows], case.y[rows], case.loss)


def weighted(case: Case) -> Task:
    """The same by weights; inputs without weight are absurd."""
    absurd = np.where(WEIGHTS[:, None] > 0, X, 1e35)
    return Task(absurd, case.y, case.loss, sample_weight=WEIGHTS)


class TestTheTable:
    def test_losses_are_those_of_torch(self, case):
        task = task_of(case)
        z, y = outputs_for(task), torch.from_numpy(task.targets)
        expected = torch.stack([case.oracle(each, y) for each in z])
        torch.testing.assert_close(losses(z, y, case.loss), expected.flatten(1).mean(1), rtol=1e-12, atol=1e-12)
        share = torch.from_numpy(WEIGHTS / WEIGHTS.mean())
        by_example = expected.reshape(len(z), B, -1).mean(2)
        average = torch.from_numpy(np.average(by_example, 1, WEIGHTS))
        torch.testing.assert_close(losses(z, y, case.loss, share), average, rtol=1e-12, atol=1e-12)

    def test_extreme_outputs_have_finite_losses_and_gradients(self, case):
        task = task_of(case)
        z = torch.full((1, B, task.n_outputs), 30.0, dtype=torch.float64, requires_grad=True)
        for sign in (1, -1):
            value = losses(sign * z, torch.from_numpy(task.targets), case.loss).sum()
            assert value.isfinite() and torch.autograd.grad(value, z)[0].isfinite().all()

    @pytest.mark.parametrize("share", [None, torch.from_numpy(WEIGHTS / WEIGHTS.mean())])
    def test_gradients(self, case, share):
        task = task_of(case)
        z, y = outputs_for(task, 2).requires_grad_(), torch.from_numpy(task.targets)
        assert torch.autograd.gradcheck(lambda z: losses(z, y, case.loss, share), z)

    def test_the_curvature_is_the_expected_hessian(self, case):
        row, z = LOSSES[case.loss], outputs_for(task_of(case), 1)[0, :3]
        root = torch.stack([column[0] for column in row.curvature_root(z.unsqueeze(0))], -1)
        for found, each in zip(root, z, strict=True):
            expected = sum(
                probability
                * torch.func.hessian(lambda o, y=y: row.examples(o[None, None], y[:, 0] if y.dim() > 2 else y).mean())(
                    each
                )
                for probability, y in case.nodes(each)
            )
            torch.testing.assert_close(found @ found.T, expected, rtol=1e-12, atol=1e-12)

    def test_the_metric_of_changes(self, case):
        """What a change of logits means is Euclidean, of other parameters it is the Fisher metric."""
        row, (z, v) = LOSSES[case.loss], outputs_for(task_of(case), 2)
        k = z.shape[-1]
        root = torch.stack([column[0] for column in row.curvature_root(z.unsqueeze(0))], -1)
        fisher = root @ root.transpose(1, 2) * (k / row.outputs)
        metric = {
            "cross_entropy": (torch.eye(k, dtype=torch.float64) - 1 / k).expand_as(fisher),
            "binary_cross_entropy": torch.eye(k).double().expand_as(fisher),
            "mse": fisher / 2,
        }.get(case.loss, fisher)
        length = row.change(z, v).square().sum(-1)
        torch.testing.assert_close(length, torch.einsum("bi,bij,bj->b", v, metric, v), rtol=1e-12, atol=1e-12)

    def test_the_expected_loss_is_that_under_a_mixture(self, case):
        """Of two networks' predictions; constants are those of no output."""
        row, (a, b, c, d) = LOSSES[case.loss], outputs_for(task_of(case))[:, :1]
        moments = (row.moments(a) + row.moments(b)) / 2
        found = row.expected(c[None], moments) - row.expected(d[None], moments)
        expected = sum(
            0.5 * p * (row.examples(c[None], y) - row.examples(d[None], y)).mean()
            for component in (a, b)
            for p, y in case.nodes(component[0])
        )
        torch.testing.assert_close(found.mean(), expected, rtol=1e-12, atol=1e-12)

    def test_the_loss_is_smallest_at_the_targets_own_distribution(self, case):
        """A proper score: the mixture's expected loss has its minimum, by a line search, at the mixture of one."""
        row, (a, v) = LOSSES[case.loss], outputs_for(task_of(case), 2)[:, :1]
        moments = row.moments(a)
        values = [float(row.expected((a + t * v)[None], moments).mean()) for t in (-1e-2, 0.0, 1e-2)]
        assert values[1] < min(values[0], values[2])

    def test_a_likelihood_is_one(self, case):
        """exp(-loss) sums or integrates to one."""
        row, z = LOSSES[case.loss], outputs_for(task_of(case), 1)[:, :1]
        if "likelihood" not in row.kinds:
            pytest.skip("squared errors are no likelihood")
        if case.loss == "gaussian_nll":
            mean, s = z.chunk(2, -1)
            y = torch.linspace(-30, 30, 20001, dtype=torch.float64)[:, None, None]
            mass = (-row.examples(z, y * (s / 2).exp() + mean)).exp().sum(0) * (60 / 20000) * (s / 2).exp()
        elif case.loss == "poisson":
            mass = (-row.examples(z, torch.arange(200.0, dtype=torch.float64)[:, None, None])).exp().sum(0)
        else:
            mass = row.log_probabilities(z).exp().sum(-1)
        torch.testing.assert_close(mass, torch.ones_like(mass), rtol=1e-9, atol=0)

    def test_distances_of_predictions(self):
        z = torch.tensor([[[0.3, -0.7]], [[-1.0, 0.4]]], dtype=torch.float64)
        p, q = z.softmax(-1).squeeze(1)
        hellinger = (p.sqrt() - q.sqrt()).norm()
        (pm, ps), (qm, qs) = z.squeeze(1)
        wasserstein = ((pm - qm) ** 2 + ((ps / 2).exp() - (qs / 2).exp()) ** 2).sqrt()
        fisher = 2 * ((z / 2).exp()[0] - (z / 2).exp()[1]).norm()
        one = z[..., :1] - z[..., 1:]
        for loss, outputs, expected in (
            ("cross_entropy", z, hellinger),
            ("binary_cross_entropy", one, hellinger),
            ("gaussian_nll", z, wasserstein),
            ("poisson", z, fisher),
            ("mse", z, (z[0] - z[1]).norm()),
        ):
            a, b = LOSSES[loss].coordinates(outputs)
            torch.testing.assert_close((a - b).norm(), expected, rtol=1e-12, atol=0)

    def test_the_scale_is_the_loss_of_the_best_constant(self, case):
        """By numerical minimization over constant outputs; a variance's loss may be negative and has a unit instead."""
        task, row = task_of(case), LOSSES[case.loss]
        y, share = torch.from_numpy(task.targets), torch.from_numpy(WEIGHTS)
        if case.loss == "gaussian_nll":
            assert row.scale(y, share) == 0.5
            return
        z = torch.zeros(1, 1, task.n_outputs, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([z], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = losses(z.expand(1, B, -1), y, case.loss, share / share.mean()).sum()
            value.backward()
            return value

        optimizer.step(closure)
        assert row.scale(y, share) == pytest.approx(closure().item(), abs=1e-9)


class TestOtherLibraries:
    def test_log_loss(self):
        task = task_of(CASES["two classes"])
        z = outputs_for(task, 1)
        share = torch.from_numpy(WEIGHTS / WEIGHTS.mean())
        y = torch.from_numpy(task.targets)
        p = predictions(z, task.loss)[0]
        for sample_weight, weights in ((None, None), (WEIGHTS, share)):
            expected = metrics.log_loss(task.y, p, sample_weight=sample_weight)
            assert float(losses(z, y, task.loss, weights)) == pytest.approx(expected, rel=1e-12)

    def test_poisson_deviance(self):
        """The deviance is twice the loss, less the loss of a rate that is the target itself."""
        task = task_of(CASES["poisson"])
        z, y = outputs_for(task, 1), torch.from_numpy(task.targets)
        best = (y - torch.xlogy(y, y) + torch.lgamma(y + 1)).mean()
        expected = metrics.mean_poisson_deviance(task.targets.ravel(), z[0].exp().ravel())
        assert float(2 * (losses(z, y, "poisson") - best)) == pytest.approx(expected, rel=1e-12)
        assert float(losses(z, y, "poisson")) == pytest.approx(-poisson.logpmf(y, z[0].exp()).mean(), rel=1e-12)

    @pytest.mark.parametrize("weights", [None, WEIGHTS])
    def test_scores(self, case, weights):
        task = task_of(case)
        z, y = outputs_for(task, 1), torch.from_numpy(task.targets)
        share = None if weights is None else torch.from_numpy(weights / weights.mean())
        found = float(scores(z, y, case.loss, share))
        if task.n_labels > 1:
            rows = None if weights is None else weights.repeat(task.n_labels)
            expected = metrics.accuracy_score(task.y.ravel(), (z[0] > 0).long().ravel(), sample_weight=rows)
        elif task.is_classification:
            chosen = predictions(z, case.loss)[0].argmax(-1)
            expected = metrics.accuracy_score(task.y, chosen, sample_weight=weights)
        else:
            options = {"sample_weight": weights, "multioutput": "variance_weighted"}
            expected = metrics.r2_score(task.targets, predictions(z, case.loss)[0], **options)
        assert found == pytest.approx(expected, rel=1e-12)

    def test_one_logit_is_two_classes(self):
        """Logits (0, z) with cross-entropy are the logit z with binary cross-entropy, in every measure."""
        single = task_of(CASES["two classes"])
        double = replace(single, loss="cross_entropy")
        line = WeightArray(RNG.normal(size=(6, 4)), Architecture.mlp([P, 1]))
        zeros = np.zeros((6, P))
        pair = WeightArray(np.hstack([zeros, line[:, :P], zeros[:, :1], line[:, P:]]), Architecture.mlp([P, 2]))
        one, two = predict(line, single), predict(pair, double)
        for name in ("scores", "losses", "average", "jsd", "wrong"):
            np.testing.assert_allclose(getattr(one, name), getattr(two, name), atol=1e-6)
        numbers = [wsflow.posterior_predictive(w, t).numbers for w, t in ((line, single), (pair, double))]
        assert numbers[0] == pytest.approx(numbers[1], abs=1e-6)
        curves = [
            wsflow.predictive_curve(w, t, (1, 3), ood=10 * X, random_state=0)
            for w, t in ((line, single), (pair, double))
        ]
        for key, value in curves[0].mean.items():
            np.testing.assert_allclose(value, curves[1].mean[key], atol=1e-6)
        np.testing.assert_allclose(log_likelihoods(line, single), log_likelihoods(pair, double), rtol=1e-5)

    def test_several_labels(self):
        task = task_of(CASES["three labels"])
        weights = networks(task)
        p = wsflow.posterior_predictive(weights, task)
        hamming = metrics.hamming_loss(task.y, p.average > 0.5)
        assert p.numbers["accuracy"] == pytest.approx(1 - hamming)
        nll = np.mean([metrics.log_loss(task.y[:, i], p.average[:, i], labels=[0, 1]) for i in range(3)])
        brier = np.mean([2 * metrics.brier_score_loss(task.y[:, i], p.average[:, i]) for i in range(3)])
        assert p.numbers["nll"] == pytest.approx(nll) and p.numbers["brier"] == pytest.approx(brier)
        assert np.array_equal(p.labels, p.average > 0.5)
        # foreign inputs: of independent labels entropies add, and probabilities of sets of labels multiply
        found = predict(weights, task)
        assert found.wrong.shape == (5, B * 3) and found.jsd >= 0
        curve = wsflow.predictive_curve(weights, task, (5,), ood=0 * X, draws=1)
        entropy = [
            norm_entropy(wsflow.posterior_predictive(weights, Task(x, task.y, task.loss)).average) for x in (X, 0 * X)
        ]
        expected = metrics.roc_auc_score(np.repeat([0, 1], B), np.concatenate(entropy))
        assert curve.mean["ood_auroc"][0] == pytest.approx(expected)

    def test_an_average_of_gaussians_is_a_mixture(self):
        task = task_of(CASES["gaussian_nll"])
        weights = networks(task)
        share = np.array([1.0, 2, 0, 3, 4])
        found = wsflow.posterior_predictive(weights, task, weights=share)
        z = outputs_of(weights, task)
        mean, sd = z[..., :2], np.exp(z[..., 2:] / 2)
        share = share[:, None, None] / share.sum()
        with np.errstate(divide="ignore"):
            nll = -logsumexp(norm.logpdf(task.y, mean, sd) + np.log(share), axis=0)
        centre = (share * mean).sum(0)
        np.testing.assert_allclose(found.average, centre, atol=1e-6)
        np.testing.assert_allclose(found.variance, (share * (sd**2 + (mean - centre) ** 2)).sum(0), rtol=1e-5)
        assert found.numbers["nll"] == pytest.approx(nll.mean(), rel=1e-5)
        assert found.numbers["r2"] == pytest.approx(
            metrics.r2_score(task.y, centre, multioutput="variance_weighted"), rel=1e-5
        )
        curve = wsflow.predictive_curve(weights, task, (5,), draws=2)
        whole = wsflow.posterior_predictive(weights, task).numbers
        assert {key: value[0] for key, value in curve.mean.items()} == pytest.approx(whole, rel=1e-5)
        assert predict(weights, task).losses.mean() > whole["nll"]  # Jensen

    def test_an_average_of_rates_is_a_mixture(self):
        task = task_of(CASES["poisson"])
        weights = networks(task)
        rates = np.exp(outputs_of(weights, task))
        nll = -logsumexp(poisson.logpmf(task.y, rates), axis=0) + np.log(5)
        found = wsflow.posterior_predictive(weights, task)
        assert found.numbers["nll"] == pytest.approx(nll.mean(), rel=1e-5)
        np.testing.assert_allclose(found.variance, rates.mean(0) + rates.var(0), rtol=1e-5)
        np.testing.assert_allclose(log_likelihoods(weights, task), poisson.logpmf(task.y, rates).sum((1, 2)), rtol=1e-5)


def norm_entropy(p: np.ndarray) -> np.ndarray:
    """The entropy (b,) of independent labels."""
    return -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(1)


def outputs_of(weights: WeightArray, task: Task) -> np.ndarray:
    from wsflow.running import forward

    return forward(torch.from_numpy(np.array(weights)), weights.architecture, torch.from_numpy(task.X)).numpy()


class TestWeights:
    """An example of weight 2 is there twice, and one of weight 0 is not there."""

    def test_losses_and_gradients(self, case):
        weights = networks(task_of(case))
        found = []
        for task in (weighted(case), duplicated(case)):
            leaf = torch.from_numpy(np.array(weights)).requires_grad_()
            value = TaskLoss(task).bind(weights.architecture, torch.Generator())(leaf)
            found.append((value.detach(), *torch.autograd.grad(value.sum(), leaf)))
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)

    def test_natural_gradients(self, case):
        weights = networks(task_of(case))
        geometry = GEOMETRIES["euclidean"](weights.architecture)
        points = torch.from_numpy(np.array(weights))
        a, b = (
            NaturalGradient(TaskLoss(task), weights.architecture, geometry, 0.1, torch.Generator())(points.clone())
            for task in (weighted(case), duplicated(case))
        )
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
        slope = torch.autograd.functional.jacobian(
            lambda w: TaskLoss(duplicated(case)).bind(weights.architecture, torch.Generator())(w).sum(), points
        )
        assert ((a * slope).sum(1) > 0).all()

    def test_evaluation(self, case):
        weights = networks(task_of(case))
        kept = weighted(case)
        one, two = (predict(weights, task) for task in (kept, duplicated(case)))
        np.testing.assert_allclose(one.scores, two.scores, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(one.losses, two.losses, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(one.jsd, two.jsd, atol=1e-6)
        numbers = [wsflow.posterior_predictive(weights, task).numbers for task in (kept, duplicated(case))]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-5, abs=1e-6)
        np.testing.assert_allclose(
            log_likelihoods(weights, kept), log_likelihoods(weights, duplicated(case)), rtol=1e-5
        )
        paths = [loss_path(weights[:2], weights[2:4], task, 3) for task in (kept, duplicated(case))]
        np.testing.assert_allclose(paths[0].losses, paths[1].losses, atol=1e-6)
        np.testing.assert_allclose(paths[0].scores, paths[1].scores, atol=1e-6)

    def test_overlap_of_mistakes(self):
        wrong = RNG.integers(2, size=(4, B)).astype(bool)
        rows = np.arange(B).repeat(WEIGHTS.astype(int))
        found = intersection_over_union(wrong, wrong[::-1], WEIGHTS)
        np.testing.assert_allclose(found, intersection_over_union(wrong[:, rows], wrong[::-1][:, rows]), atol=1e-6)

    @pytest.mark.parametrize("optimizer", ["sgd", "sgld"])
    def test_training_on_whole_batches(self, case, optimizer):
        """Without a ratio of gradients, which amplifies rounding; the noise of samplers falls with the weights."""
        settings = {"hidden": [4], "n_runs": 2, "epochs": 5, "batch_size": 100, "activation": "tanh"}
        settings |= {"optimizer": optimizer, "learning_rate": 0.05}
        a, b = (wsflow.train_population(task, **settings).weights for task in (weighted(case), duplicated(case)))
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)

    def test_alignment(self, case):
        weights = networks(task_of(case))
        rows, found = torch.from_numpy(np.array(weights)), []
        for task in (weighted(case), duplicated(case)):
            examples = Examples.of(weights.architecture, *Context(task).data())
            found.append((examples.losses(rows), examples.evaluate(rows), torch.tensor(examples.constant_loss)))
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)

    def test_training_with_targets_of_each_run(self):
        case = CASES["mse"]
        settings = {"hidden": [4], "epochs": 3, "batch_size": 5, "activation": "tanh"}
        y = np.stack([case.y, -case.y])
        together = wsflow.train_population(weighted(case), n_runs=2, targets=y, **settings).weights
        for run, own in enumerate(y):
            alone = wsflow.train_population(replace(weighted(case), y=own), n_runs=1, first_run=run, **settings).weights
            np.testing.assert_allclose(together[run], alone[0], rtol=1e-9, atol=1e-11)

    def test_minibatches_are_unbiased(self):
        """The mean gradient of all minibatches of an epoch is that of the whole data."""
        task = Task(X, CASES["mse"].y, "mse", sample_weight=WEIGHTS)
        share = torch.from_numpy(WEIGHTS / WEIGHTS.mean())
        z, y = outputs_for(task, 1), torch.from_numpy(task.targets)
        parts = [losses(z[:, rows], y[rows], "mse", share[rows]) for rows in torch.arange(B).split(4)]
        torch.testing.assert_close(torch.stack(parts).mean(0), losses(z, y, "mse", share), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
    def test_balanced_classes(self, loss):
        from sklearn.utils.class_weight import compute_sample_weight

        y = np.array(["no"] * 9 + ["yes"] * 3)
        task = Task(X, y, loss, class_weight="balanced")
        np.testing.assert_allclose(task.weights, compute_sample_weight("balanced", y))
        found = Task(X, y, loss, class_weight={"yes": 5}, sample_weight=WEIGHTS)
        np.testing.assert_allclose(found.weights, compute_sample_weight({"yes": 5}, y) * WEIGHTS)
        assert task.size == pytest.approx(B) and found.size == found.weights.sum()

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"sample_weight": np.ones(3)}, r"shape \(12,\).*got \(3,\)"),
            ({"sample_weight": -np.ones(B)}, "not negative and not all zero, but in rows 0, 1, 2, 3, 4, ... they are"),
            ({"sample_weight": np.zeros(B)}, "all are zero"),
            ({"sample_weight": np.where(np.arange(B) == 7, np.nan, 1)}, "in rows 7 they"),
            ({"sample_weight": np.ma.masked_array(np.ones(B), np.arange(B) == 3)}, "in rows 3 they"),
            ({"sample_weight": np.full(B, 1e308)}, r"from 1e-12 to 1e\+12, got 1e\+308: divide them by their mean"),
            ({"sample_weight": np.full(B, 1e-320)}, "from 1e-12 .*: divide them by their mean"),
            ({"sample_weight": ["a"] * B}, "'sample_weight' of a Task are numbers: could not convert"),
            ({"sample_weight": 2.0}, "a row for each example, got float"),
            ({"class_weight": {0: "x"}}, "'class_weight' of a Task are numbers: could not convert"),
            ({"class_weight": {"x": 1}}, "label 'x', which is none"),
            ({"class_weight": "even"}, "'balanced' or a dictionary by label, got 'even'"),
            ({"class_weight": "balanced", "loss": "mse"}, "has no classes: leave out 'class_weight'"),
        ],
    )
    def test_wrong_weights_are_refused(self, more, message):
        with pytest.raises(ValueError, match=message):
            Task(X, np.arange(B) % 2, **more)


class TestLabels:
    @pytest.mark.parametrize(
        "y",
        [
            ["cat", "dog", "ant"] * 4,
            np.array([1, 2, 3] * 4),
            np.array([1.0, 2.0, 3.0] * 4),
            np.array([-1, 1] * 6),
            np.array([True, False] * 6),
            np.array(["b", "a"] * 6, dtype=object),
            np.array([7, 4, 900] * 4, dtype=np.uint16),
            np.array(["north", "süd"] * 6),
            torch.tensor([3, 1] * 6),
            np.ma.masked_array(["b", "a"] * 6),
        ],
        ids=str,
    )
    def test_they_are_encoded_as_scikit_learn_does(self, y, tmp_path):
        task = Task(X, y)
        encoder = LabelEncoder().fit(list(np.asarray(y)))
        assert task.targets.tolist() == encoder.transform(list(np.asarray(y))).tolist()
        assert task.classes_.tolist() == encoder.classes_.tolist() and task.n_outputs == len(encoder.classes_)
        population = wsflow.train_population(task, [4], 3, epochs=1)
        said = wsflow.posterior_predictive(population.weights, task)
        assert set(said.labels.tolist()) <= set(encoder.classes_.tolist())
        assert said.numbers["accuracy"] == np.mean(said.labels == np.asarray(y))
        wsflow.save_population(population, tmp_path / "zoo.safetensors")
        again = wsflow.load_population(tmp_path / "zoo.safetensors").task
        assert [type(label) for label in again.classes_.tolist()] == [type(label) for label in task.classes_.tolist()]
        assert again.classes_.tolist() == task.classes_.tolist() and again.y.tolist() == task.y.tolist()
        assert again.checksum == task.checksum

    def test_classes_of_held_out_data_count(self):
        test = Task(X[:3], ["d", "b", "b"])
        task = Task(X, ["a", "b", "c"] * 4, test=test)
        assert task.classes_.tolist() == ["a", "b", "c", "d"] and task.test.targets.tolist() == [3, 1, 1]
        assert test.targets.tolist() == [1, 0, 0]

    def test_labels_in_bytes_are_text(self):
        assert Task(X, [b"b", b"a"] * 6).classes_.tolist() == ["a", "b"]

    def test_labels_of_tables_are_their_values(self):
        pandas = pytest.importorskip("pandas")
        categories = pandas.Categorical(["low", "high"] * 6, ["low", "middle", "high"], ordered=True)
        for y in (categories, pandas.Series(["low", "high"] * 6, dtype="string"), pandas.DataFrame({"y": categories})):
            assert Task(X, y).classes_.tolist() == ["high", "low"] and Task(X, y).targets.tolist() == [1, 0] * 6
        assert Task(X, pandas.Series([True, False] * 6, dtype="boolean")).classes_.tolist() == [False, True]
        with pytest.raises(InvalidInputError, match="no label in rows 1, 3"):
            Task(X, pandas.Series(["low", None] * 6, dtype="string"))

    def test_named_classes_of_a_part_count(self):
        part = Task(X, ["b"] * B, classes=["b", "z"])
        assert Task(X, ["a", "b"] * 6, test=part).classes_.tolist() == ["a", "b", "z"]

    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_classifiers_of_scikit_learn_are_evaluated_as_they_are(self, n_classes):
        y = np.array(["ant", "bee", "cow"])[np.digitize(SIGNAL, [0.0, 1.0][: n_classes - 1])]
        estimator = MLPClassifier((4,), random_state=0, max_iter=2000, tol=0.5).fit(X, y)
        weights = wsflow.load_networks(estimator).weights
        task = Task(X, y, "binary_cross_entropy" if n_classes == 2 else "cross_entropy")
        found = wsflow.posterior_predictive(weights, task)
        assert found.labels.tolist() == estimator.predict(X).tolist()
        np.testing.assert_allclose(found.average, estimator.predict_proba(X), atol=1e-6)
        assert predict(weights, task).scores[0] == pytest.approx(estimator.score(X, y))

    def test_a_part_keeps_all_classes(self):
        part = Task(X, ["a", "b", "c"] * 4).subset([1, 2, 4])
        assert part.targets.tolist() == [1, 2, 1] and part.n_outputs == 3

    def test_the_order_of_the_outputs_may_be_given(self):
        task = Task(X, ["a", "b"] * 6, classes=["b", "c", "a"])
        assert task.n_outputs == 3 and task.targets.tolist() == [2, 0] * 6

    def test_networks_of_more_classes_ask_for_them(self):
        trained = wsflow.train_population(Task(X, ["a", "b", "c"] * 4), [3], 2, epochs=1)
        few = Task(X[:2], ["b", "c"])
        with pytest.raises(InvalidInputError, match=r"2 classes \('b', 'c'\). Name all classes"):
            predict(trained.weights, few)
        assert predict(trained.weights, replace(few, classes=["a", "b", "c"])).average.shape == (2, 3)

    def test_one_class_of_two_in_a_part(self):
        assert Task(X, np.ones(B, dtype=int), "binary_cross_entropy").targets.ravel().tolist() == [1] * B
        assert Task(X, np.ones(B, dtype=bool), "binary_cross_entropy").classes_.tolist() == [False, True]

    @pytest.mark.parametrize(
        ("y", "loss", "message"),
        [
            ([0.5] * B, "cross_entropy", "0.5 are no classes. Pass loss='mse'"),
            ([["a"], ["a", "b"]] * 6, "binary_cross_entropy", "MultiLabelBinarizer"),
            ([[0, 2]] * B, "binary_cross_entropy", "0 where a label is not there"),
            ([0, 1, 2] * 4, "binary_cross_entropy", "got 3 classes. Pass loss='cross_entropy'"),
            (np.eye(B), "cross_entropy", "one class for each example"),
            (["a", None] * 6, "cross_entropy", "no label in rows 1, 3, 5, 7, 9, ..."),
            (np.array([1, np.nan] * 6, dtype=object), "cross_entropy", "no label in rows 1, 3, 5, 7, 9, ..."),
            ([1, np.nan] * 6, "cross_entropy", "'y'.*NaN in row 1; NaN in row 3"),
            (["a", 1] * 3 + [2.5] * 6, "cross_entropy", None),
            (np.array(["a", 1] * 6, dtype=object), "cross_entropy", "of one type.* Got int, str: turn them into text"),
            (["a", np.nan] * 6, "cross_entropy", "no label in rows 1, 3, 5, 7, 9, ..."),
            (np.ma.masked_array([0, 1] * 6, np.arange(B) == 4), "cross_entropy", "no label in rows 4"),
            ([{"a"}, {"a", "b"}] * 6, "binary_cross_entropy", "MultiLabelBinarizer"),
            ([frozenset("a"), frozenset()] * 6, "cross_entropy", "MultiLabelBinarizer"),
            ([date(2000, 1, 1), date(2000, 1, 2)] * 6, "cross_entropy", "Got date: turn them into text"),
            ([2**64 - 1, 1] * 6, "cross_entropy", "smaller than 2.63: turn these into text"),
            ([1e300, 1.0] * 6, "cross_entropy", "has 1e.300, .*: rescale it"),
            ((i for i in range(B)), "mse", "a row for each example, got generator"),
            (None, "cross_entropy", "a row for each example, got NoneType"),
            (csr_array(np.eye(B)), "binary_cross_entropy", "by its method toarray"),
            ([1j] * B, "mse", "are numbers: got complex128"),
            (
                ["a"] * B,
                "mse",
                "are numbers: could not convert string to float: 'a'. Encode them, or pass loss='cross_entropy'",
            ),
            ([1, -1] * 6, "poisson", "not negative, but are so in rows 1, 3"),
            (
                [0, 1] * 6,
                "hinge",
                "one of cross_entropy, binary_cross_entropy, mse, gaussian_nll, poisson, or a function",
            ),
        ],
    )
    def test_targets_that_do_not_fit_the_loss_are_refused(self, y, loss, message):
        if message is None:  # NumPy turns a list of both into text
            assert Task(X, y).n_outputs == 3
            return
        with pytest.raises(ValueError, match=message):
            Task(X, y, loss)


def with_values(array: np.ndarray, **values: tuple[int, ...]) -> np.ndarray:
    array = np.array(array, dtype=float)
    for value, place in values.items():
        array[place] = float(value)
    return array


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (
            with_values(X, nan=(3, 0), inf=(7, 2)),
            np.zeros(B),
            "'X'.*NaN in row 3, column 0; infinity in row 7, column 2",
        ),
        (
            with_values(X, nan=(slice(2, 9), 1)),
            np.zeros(B),
            "row 6, column 1 and 2 more.*rows 2, 3, 4, 5, 6, ..., or c",
        ),
        (with_values(np.ones((B, 1, 2, 2)), nan=(5, 0, 1, 0)), np.zeros(B), "row 5, column 0, 1, 0"),
        (X, with_values(X[:, 0], nan=(4,)), "'y'.*NaN in row 4. .*rows 4"),
        (X, with_values(X, inf=(4, 2)), "'y'.*infinity in row 4, column 2"),
        (X.astype(object) + np.where(X[2, 1] == X, np.nan, 0.0), np.zeros(B), "NaN in row 2, column 1"),
        (np.ma.masked_array(X, X[2, 1] == X), np.zeros(B), "'X'.*NaN in row 2, column 1"),
        (X, np.ma.masked_array(X[:, 0], np.arange(B) == 5), "'y'.*NaN in row 5"),
        (X * 1e40, np.zeros(B), "'X'.* single precision.*: rescale it"),
        (X.astype(np.float32), np.full(B, 1e39), "'y'.* has 1e.39, .*: rescale it"),
    ],
)
def test_values_that_are_not_finite_are_named(inputs, targets, message):
    with pytest.raises(InvalidInputError, match=message):
        Task(inputs, targets, "mse")


def test_columns_of_a_table_have_names():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(with_values(X, nan=(3, 1)), columns=["age", "height", "dose"])
    with pytest.raises(InvalidInputError, match="NaN in row 3, column 'height'"):
        Task(table, np.zeros(B))


def test_missing_values_of_a_table_are_named():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"age": pandas.array([1, 2, None, *range(9)], dtype="Int64"), "dose": X[:, 0]})
    with pytest.raises(InvalidInputError, match="NaN in row 2, column 'age'"):
        Task(table, np.zeros(B))


@pytest.mark.parametrize(
    "convert",
    [
        lambda a: torch.tensor(a, requires_grad=True),
        lambda a: torch.tensor(a).bfloat16(),
        lambda a: torch.tensor(a).to_sparse(),
        lambda a: [torch.tensor(row) for row in a],
        lambda a: np.ma.masked_array(a),
        lambda a: a.astype(object),
        lambda a: a.astype(str),
        lambda a: np.asfortranarray(a.astype(">f8")),
    ],
    ids=["gradient", "bfloat16", "sparse tensor", "tensors", "nothing masked", "objects", "text", "byte order"],
)
def test_numbers_are_read_however_they_are_held(convert):
    whole = np.round(4 * X)
    task = Task(convert(whole), convert(whole), "mse")
    np.testing.assert_array_equal(task.X, whole)
    np.testing.assert_array_equal(task.targets, whole)


@pytest.mark.parametrize(
    ("task", "test"),
    [
        (Task(X, np.arange(B) % 2), Task(X[:, :2], np.arange(B) % 2)),
        (Task(X, X, "mse"), Task(X, X[:, :2], "mse")),
        (Task(X, X > 0, "binary_cross_entropy"), Task(X, X[:, :2] > 0, "binary_cross_entropy")),
        (Task(X, np.arange(B) % 2), Task(X[:, None, :, None], np.arange(B) % 2)),
    ],
    ids=["features", "targets", "labels", "dimensions"],
)
def test_held_out_data_are_of_the_same_features_and_targets(task, test):
    for name in ("validation", "test"):
        with pytest.raises(InvalidInputError, match=f"of its '{name}' data .* Prepare both alike"):
            replace(task, **{name: test})


def test_rows_of_an_npz_file_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", X=with_values(X, nan=(3, 1)), y=np.arange(B) % 2)
    with pytest.raises(InvalidInputError, match=r"a.npz: .*NaN in row 3, column 1"):
        wsflow.load_task(tmp_path / "a.npz")


def huber(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.huber_loss(outputs, targets)


def smoothed(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, label_smoothing=0.1)


class TestFunctionsOfOnesOwn:
    @pytest.mark.parametrize(("loss", "y"), [(huber, X[:, :2] * 2), (smoothed, np.arange(B) % 3)])
    def test_it_is_the_mean_of_what_the_function_gives(self, loss, y):
        task = Task(X, y, loss)
        z, targets = outputs_for(task), torch.from_numpy(task.targets)
        expected = torch.stack([loss(each, targets) for each in z])
        torch.testing.assert_close(losses(z, targets, loss), expected, rtol=1e-12, atol=1e-12)
        own = torch.stack([targets, targets.roll(1, 0)])
        expected = torch.stack([loss(each, y) for each, y in zip(z[:2], own, strict=True)])
        torch.testing.assert_close(losses(z[:2], own, loss), expected, rtol=1e-12, atol=1e-12)
        weights = networks(task)
        kept = Task(X, y, loss, sample_weight=WEIGHTS)
        rows = np.arange(B).repeat(WEIGHTS.astype(int))
        np.testing.assert_allclose(
            predict(weights, kept).losses, predict(weights, Task(X[rows], y[rows], loss)).losses, rtol=1e-5
        )

    def test_what_is_measured_is_the_loss(self):
        task = Task(X, X[:, :1], huber)
        weights = networks(task, 14)
        assert score_key(task) == "minus_loss"
        found = predict(weights, task)
        np.testing.assert_array_equal(found.scores, -found.losses)
        assert wsflow.posterior_predictive(weights, task).numbers == {}
        with pytest.raises(InvalidInputError, match="no measure of a model average is known"):
            wsflow.predictive_curve(weights, task)
        with pytest.raises(InvalidInputError, match="no likelihood is known"):
            log_likelihoods(weights, task)
        report = wsflow.evaluate(weights[:4], weights[4:9].like(np.array(weights[4:9])), weights[9:], task)
        assert report.score == "minus_loss" and "minus the loss" in " ".join(report.verdict)
        assert report.samples["minus_loss"] == -report.samples["loss"]

    def test_natural_gradients_need_a_curvature(self):
        task = Task(X, X[:, :1], huber)
        weights = networks(task)
        geometry = GEOMETRIES["euclidean"](weights.architecture)
        slope = NaturalGradient(TaskLoss(task), weights.architecture, geometry, 0.1, torch.Generator())
        with pytest.raises(ValueError, match="curvature of the loss, and that of 'huber' is not known"):
            slope(torch.from_numpy(np.array(weights)))

    def test_it_is_not_saved(self, tmp_path):
        population = wsflow.train_population(Task(X, X[:, :1], huber), [3], 2, epochs=2)
        with pytest.raises(InvalidInputError, match="'huber', is not saved: files hold data and no code"):
            wsflow.save_population(population, tmp_path / "zoo.safetensors")
        with pytest.raises(InvalidInputError, match="'huber', is not saved"):
            wsflow.train_population(population.task, [3], 2, epochs=2, checkpoint=tmp_path / "done")
        wsflow.save_population(replace(population, task=None), tmp_path / "zoo.safetensors")
        assert len(wsflow.load_population(tmp_path / "zoo.safetensors")) == 2

    @pytest.mark.parametrize(
        "loss", [lambda z, y: z.sum() if z.sum() > 0 else y.sum(), lambda z, y: z.sum().item(), lambda z, y: z @ y]
    )
    def test_a_function_that_cannot_be_mapped_is_named(self, loss):
        task = Task(X, X[:, :2], loss)
        with pytest.raises(ValueError, match=r"lambda>' fails on one example, outputs of shape \(1, 2\)"):
            predict(networks(task), task)


class TestFiles:
    def test_every_loss_and_its_weights_are_kept(self, case, tmp_path):
        held_out = task_of(case, sample_weight=WEIGHTS[::-1])
        by_class = {"class_weight": {1: 3.0}} if task_of(case).is_classification and case.y.ndim == 1 else {}
        task = task_of(case, sample_weight=WEIGHTS, test=held_out, validation=task_of(case), **by_class)
        population = wsflow.train_population(task, [3], 2, epochs=1)
        wsflow.save_population(population, tmp_path / "zoo.safetensors")
        again = wsflow.load_population(tmp_path / "zoo.safetensors").task
        assert again.loss == task.loss and again.checksum == task.checksum
        assert again.class_weight == task.class_weight and again.validation.weights is None
        for found, expected in ((again, task), (again.test, task.test)):
            np.testing.assert_array_equal(found.weights, expected.weights)
            np.testing.assert_array_equal(found.targets, expected.targets)
            np.testing.assert_array_equal(found.y, expected.y)

    @pytest.mark.parametrize(
        ("name", "keywords"),
        [
            ("breast_cancer", {"loss": "binary_cross_entropy", "class_weight": "balanced"}),
            ("breast_cancer", {"class_weight": {0: 2.0}}),
            ("diabetes", {"loss": "gaussian_nll"}),
            ("linnerud", {"loss": "poisson"}),
        ],
    )
    def test_a_data_set_with_another_loss_is_loaded_again(self, name, keywords, tmp_path):
        task = wsflow.load_task(name, **keywords)
        assert task.test.loss == task.loss == keywords.get("loss", "cross_entropy") and task.test.weights is None
        population = wsflow.train_population(task, [3], 2, epochs=1)
        wsflow.save_population(population, tmp_path / "zoo.safetensors")
        again = wsflow.load_population(tmp_path / "zoo.safetensors").task
        assert again.checksum == task.checksum and again.source == task.source
        np.testing.assert_array_equal(again.weights, task.weights)
        assert (tmp_path / "zoo.safetensors").stat().st_size < 20_000  # without the data

    @pytest.mark.parametrize("more", [{"loss": "gaussian_nll"}, {"sample_weight": np.arange(353.0)}])
    def test_what_a_source_does_not_say_is_saved_with_the_data(self, more, tmp_path):
        task = replace(wsflow.load_task("diabetes"), **more)
        wsflow.save_population(wsflow.train_population(task, [3], 2, epochs=1), tmp_path / "zoo.safetensors")
        again = wsflow.load_population(tmp_path / "zoo.safetensors").task
        assert again.checksum == task.checksum and again.loss == task.loss

    def test_labels_of_a_csv_file(self, tmp_path):
        lines = [f"{i % 7},{'ham' if i % 3 else 'eggs'}" for i in range(40)]
        (tmp_path / "own.csv").write_text("\n".join(["a,label", *lines]))
        task = wsflow.load_task(tmp_path / "own.csv", class_weight={"eggs": 2.0})
        assert task.classes_.tolist() == ["eggs", "ham"] == task.test.classes_.tolist()
        wsflow.save_population(wsflow.train_population(task, [3], 2, epochs=1), tmp_path / "zoo.safetensors")
        again = wsflow.load_population(tmp_path / "zoo.safetensors").task
        assert again.class_weight == {"eggs": 2.0} and again.y.tolist() == task.y.tolist()


def test_a_task_of_0_1_with_a_gap_in_its_classes_has_the_outputs_it_had():
    """Its labels were indices, so that 0 and 2 were of three outputs, and there is no word of classes."""
    y = np.array([0, 2] * 6)
    digest = hashlib.sha256(b"cross_entropy" + X.round(6).tobytes() + y.astype(np.float64).tobytes())
    data = {"source": {}, "checksum": digest.hexdigest(), "loss": "cross_entropy", "parts": ["training"]}
    tensors = {"t.training.X": X, "t.training.y": y}
    found = unpack_task(data, "t", tensors, Path("old"))
    assert found.n_outputs == 3 and found.targets.tolist() == y.tolist() and task_tensors(data, "t") == list(tensors)
    # and such a task is written as it was
    written: dict = {}
    assert pack_task(Task(X, np.arange(B) % 3), "t", written).keys() == data.keys() and written.keys() == tensors.keys()


CONSTANT = {"binary_cross_entropy": 0.2, "cross_entropy": 0.3, "mse": 0.3, "gaussian_nll": 0.3, "poisson": 0.2}


def learnable(loss: str, n: int = 300) -> Task:
    """Inputs that say nearly all about the targets: the best prediction is far better than the best constant."""
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(n, 2))
    signal = inputs @ [1.0, 1.5]
    y = {
        "cross_entropy": np.digitize(signal, [-0.7, 0.7]),
        "binary_cross_entropy": np.stack([signal > 0, inputs[:, 0] > 0], 1),
        "mse": signal,
        "gaussian_nll": signal + np.exp(inputs[:, 0] - 2) * rng.normal(size=n),
        "poisson": rng.poisson(np.exp(signal)),
    }[loss]
    return Task(inputs[:200], y[:200], loss, test=Task(inputs[200:], y[200:], loss))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_population_beats_the_constant_prediction(loss):
    task = learnable(loss)
    weights = wsflow.train_population(task, [8], 3, epochs=60, learning_rate=0.02, activation="tanh").weights
    test = task.test
    y, known = torch.from_numpy(test.targets), torch.from_numpy(task.targets)
    if loss == "gaussian_nll":
        constant = -norm.logpdf(y, known.mean(), known.std()).mean()
    elif loss == "poisson":
        constant = -poisson.logpmf(y, known.mean(0)).mean()
    else:
        constant = LOSSES[loss].scale(y, torch.ones(len(y), dtype=torch.float64))
    assert (predict(weights, test).losses < constant - CONSTANT[loss]).all()
    if loss == "gaussian_nll":  # the spread is learned where it is large and where it is small
        s = outputs_of(weights, test)[..., 1].mean(0)
        assert np.corrcoef(s, test.X[:, 0])[0, 1] > 0.7


@pytest.mark.parametrize("loss", [*LOSSES, huber])
def test_flows_and_all_that_they_use_take_the_loss(loss, tmp_path):
    """Function metric, hints, energy matching, guidance, alignment, evaluation, in one small run."""
    task = replace(learnable("mse"), loss=loss) if loss is huber else learnable(loss)
    weights = wsflow.train_population(task, [4], 14, epochs=8, learning_rate=0.02, activation="tanh").weights
    aligned = wsflow.PermutationAligner(task=task).fit(weights).transform(weights)
    flow = WeightFlow(
        "euclidean", task=task, velocity=NeuronTransformer(8, 1, 2), max_iter=4, energy=EnergyMatching(n_steps=2),
        metric="function", hints="gradient", random_state=0,
    ).fit(aligned)  # fmt: skip
    descent = wsflow.Guidance(task, descent=wsflow.Descent(64, 4))
    plain, guided = (flow.sample(6, random_state=1, guidance=g) for g in (None, descent))
    bound = TaskLoss(task).bind(weights.architecture, torch.Generator())
    before, after = (bound(torch.from_numpy(np.array(w, dtype=np.float64))).mean() for w in (plain, guided))
    assert after < before
    gaps = Fairness(task, task.X[:, 0] > 0).bind(weights.architecture, torch.Generator())
    assert (gaps(torch.from_numpy(np.array(weights, dtype=np.float64))) >= 0).all()
    report = wsflow.evaluate(plain, aligned[:8], aligned[8:], task, nulls=False)
    assert np.isfinite([report.samples[key] for key in report.headline]).all()
    assert (
        report.score
        == {"classification": "accuracy", "regression": "r2", "custom": "minus_loss"}[loss_of(loss).kinds[0]]
    )
    if loss is huber:
        with pytest.raises(InvalidInputError, match="not saved"):
            wsflow.save_model(flow, tmp_path / "flow.st")
        flow.set_params(task=None)
        wsflow.save_model(flow, tmp_path / "flow.st")
    else:
        wsflow.save_model(flow, tmp_path / "flow.st")
    again = wsflow.load_model(tmp_path / "flow.st")
    np.testing.assert_array_equal(again.sample(2, random_state=1), flow.sample(2, random_state=1))
    assert again.model_.consensus.loss == (loss if isinstance(loss, str) else "mse")


def test_fairness_of_labels_and_of_weights():
    task = task_of(CASES["three labels"])
    group = np.arange(B) < 5
    weights = networks(task)
    p = 1 / (1 + np.exp(-outputs_of(weights, task)))
    rows = torch.from_numpy(np.array(weights))
    found = Fairness(task, group).bind(weights.architecture, torch.Generator())(rows)
    np.testing.assert_allclose(found, np.abs(p[:, group].mean(1) - p[:, ~group].mean(1)).mean(1), rtol=1e-10)
    found = Fairness(replace(task, sample_weight=WEIGHTS), group).bind(weights.architecture, torch.Generator())(rows)
    means = [np.average(p[:, g], 1, WEIGHTS[g]) for g in (group, ~group)]
    np.testing.assert_allclose(found, np.abs(means[0] - means[1]).mean(1), rtol=1e-10)
    with pytest.raises(ValueError, match="neither all nor none"):
        Fairness(replace(task, sample_weight=(~group).astype(float)), group)


@pytest.mark.parametrize(
    ("name", "loss"),
    [("breast_cancer", "binary_cross_entropy"), ("diabetes", "gaussian_nll"), ("linnerud", "poisson"), ("own", None)],
)
def test_the_command_line_trains_and_evaluates(name, loss, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"{i % 7},{'ham' if i % 9 else 'eggs'},{i % 2}" for i in range(60)]
    (tmp_path / "own.csv").write_text("\n".join(["a,kind,b", *rows]))
    chosen = ["--loss", loss] if loss else ["--target", "kind", "--class-weight", "balanced"]
    where = "own.csv" if name == "own" else name
    runner = CliRunner()
    train = ["populate", where, "-n", "10", "--epochs", "3", "--hidden", "4", "-o", "zoo.safetensors", "--json", "-q"]
    done = runner.invoke(main, [*train, *chosen])
    assert done.exit_code == 0, done.output
    task = wsflow.load_population("zoo.safetensors").task
    assert task.loss == (loss or "cross_entropy") and (task.weights is None) == (name != "own")
    result = json.loads(done.stdout)
    assert result[score_key(task)] == pytest.approx(
        predict(wsflow.load_population("zoo.safetensors").weights, task.test).scores.mean()
    )
    done = runner.invoke(main, ["evaluate", "zoo.safetensors", "--train", "zoo.safetensors", "--json", "-q"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["samples"]
    assert ("averaged_nll" in found) and ("accuracy" in found) == task.is_classification


def test_a_loss_of_another_kind_of_targets_is_a_sentence(tmp_path):
    done = CliRunner().invoke(
        main, ["populate", "iris", "--loss", "binary_cross_entropy", "-o", str(tmp_path / "a.st")]
    )
    assert done.exit_code in (2, 3) and "got 3 classes" in done.output
