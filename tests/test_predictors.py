"""Predictors of networks: scikit-learn's checks, symmetries, runs, intervals, files and refusals."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

import wsflow
from wsflow import Architecture, MetaClassifier, MetaRegressor, WeightArray
from wsflow.cli import main
from wsflow.exceptions import InvalidInputError, MissingArchitectureWarning
from wsflow.models.metanetworks import METANETWORKS, Convolutional, DeepSets, NeuralGraph, Probe, ScaleEquivariant
from wsflow.models.metanetworks import Statistics as StatisticsNetwork
from wsflow.models.options import MLP, AdamW, NeuronTransformer, RelationalTransformer
from wsflow.models.predictor import canonical_form
from wsflow.symmetry.actions import Action
from wsflow.training.loop import TrainingInterrupted

TANH, RELU = Architecture.mlp([4, 6, 5, 2], "tanh"), Architecture.mlp([4, 6, 5, 2])
SMALL = {
    "neuron": NeuronTransformer(8, 1, 2, identity=None),
    "relational": RelationalTransformer(8, 1, 2, identity=None),
    "neural_graph": NeuralGraph(8, 1),
    "scale_equivariant": ScaleEquivariant(8, 1),
    "deep_sets": DeepSets(8, 1),
    "statistics": StatisticsNetwork(16, 1),
    "convolutional": Convolutional(8, 2),
    "mlp": MLP(32, 1),
    "probe": Probe(16, 1, n_probes=8),
}
FAST = {"max_iter": 3, "random_state": 0}


def networks(n=40, architecture=RELU, seed=0, **keywords):
    values = np.random.default_rng(seed).normal(size=(n, architecture.n_weights))
    return WeightArray(values, architecture, **keywords)


def numbers(X):
    return np.asarray(X[:, :24]).std(axis=1)


def moved(X, seed=0, log_scale=1.0):
    return Action.random(X.architecture, len(X), torch.Generator().manual_seed(seed), log_scale)(X)


PLAIN = MLP(64, 1)


@pytest.mark.filterwarnings("ignore::wsflow.exceptions.MissingArchitectureWarning")
@parametrize_with_checks(
    [MetaRegressor(PLAIN, max_iter=100, random_state=0), MetaClassifier(PLAIN, max_iter=100, random_state=0)]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_the_small_ones_are_all_of_them():
    assert set(SMALL) == set(METANETWORKS)


@pytest.mark.parametrize("name", METANETWORKS)
class TestEveryMetanetwork:
    @pytest.mark.parametrize("architecture", [RELU, TANH], ids=["relu", "tanh"])
    def test_fitted_models_do_not_see_symmetries(self, name, architecture):
        X = networks(architecture=architecture)
        model = MetaRegressor(SMALL[name], **FAST).fit(X, numbers(X))
        single = X.astype(np.float32)
        for rows, tolerance in ((X, 1e-9), (single, 1e-5)):
            before, after = model.predict(rows), model.predict(moved(rows))
            # the others know no order of neurons
            assert (np.abs(after - before).max() < tolerance) == (name not in ("mlp", "convolutional"))

    def test_files_pickles_and_clones_predict_the_same(self, name, tmp_path):
        X = networks()
        model = MetaRegressor(SMALL[name], n_estimators=2, calibration_fraction=0.4, **FAST).fit(X, numbers(X))
        expected = model.predict_interval(X, 0.8)
        wsflow.save_model(model, tmp_path / "model.st")
        loaded = wsflow.load_model(tmp_path / "model.st")
        for other in (loaded, pickle.loads(pickle.dumps(model)), clone(model).fit(X, numbers(X))):
            assert np.array_equal(other.predict_interval(X, 0.8), expected)
        assert loaded.architecture_ == RELU and loaded.n_runs_ == 40

    def test_a_network_is_predicted_alike_in_every_batch(self, name):
        X = networks()
        y = np.where(numbers(X) > 1, "wide", "narrow")
        model = MetaClassifier(SMALL[name], **FAST).fit(X, y)
        alone = np.concatenate([model.predict_proba(X[i : i + 1]) for i in range(3)])
        assert np.allclose(alone, model.predict_proba(X)[:3], rtol=1e-10)
        assert set(model.predict(X)) <= {"wide", "narrow"}


class TestLearning:
    def test_numbers_of_networks_of_new_runs(self):
        X, new = networks(400), networks(100, seed=1)
        model = MetaRegressor(
            StatisticsNetwork(64, 1), canonicalize=None, n_estimators=2, max_iter=300, random_state=0
        ).fit(X, numbers(X))
        predicted, std = model.predict(new, return_std=True)
        assert model.score(new, numbers(new)) > 0.9
        error = np.sqrt(np.mean((predicted - numbers(new)) ** 2))
        assert 0.5 < error / std.mean() < 2

    def test_intervals_cover_as_they_say(self):
        """Within four standard deviations of the coverage over draws of calibration and test runs."""
        X, new = networks(600), networks(400, seed=1)
        model = MetaRegressor(
            StatisticsNetwork(16, 1), canonicalize=None, calibration_fraction=0.5, max_iter=50, random_state=0
        ).fit(X, numbers(X))
        for coverage in (0.5, 0.9):
            low, high = model.predict_interval(new, coverage).T
            found = np.mean((low <= numbers(new)) & (numbers(new) <= high))
            spread = np.sqrt(coverage * (1 - coverage) * (1 / 300 + 1 / 400))
            assert abs(found - coverage) < 4 * spread

    def test_one_network_of_each_run_calibrates(self):
        runs = np.repeat(np.arange(20), 3)
        X = networks(60, runs=runs)
        model = MetaRegressor(SMALL["statistics"], calibration_fraction=0.5, **FAST).fit(X, numbers(X))
        assert len(model.calibration_scores_) == 10 and model.n_runs_ == 20

    def test_whole_runs_are_held_out(self):
        """Two runs, one of which is for calibration: what the other has is learned by heart."""
        runs = np.repeat([0, 1], 20)
        X = networks(40, runs=runs)
        y = np.where(runs == 0, 0.0, 100.0)
        model = MetaRegressor(
            SMALL["statistics"], calibration_fraction=0.5, training=AdamW(validation_fraction=0.0), **FAST
        ).fit(X, y)
        assert np.ptp(model.predict(X)) < 1e-6
        assert model.residual_std_ == pytest.approx(100) and model.calibration_scores_ == pytest.approx([1.0])

    def test_plain_arrays_with_groups(self):
        X = networks(40)
        first = MetaRegressor(SMALL["deep_sets"], **FAST).fit(X, numbers(X))
        plain = MetaRegressor(SMALL["deep_sets"], architecture=RELU, **FAST).fit(np.asarray(X), numbers(X), X.runs)
        assert np.array_equal(first.predict(X), plain.predict(np.asarray(X)))

    def test_a_search_over_metanetworks(self):
        X = networks(24)
        grid = {"metanetwork": [SMALL["statistics"], SMALL["deep_sets"]], "canonicalize": [None, "unit"]}
        search = GridSearchCV(MetaRegressor(**FAST), grid, cv=2).fit(X, numbers(X))
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()

    def test_nothing_global_is_touched(self):
        torch.manual_seed(3)
        before, dtype = torch.get_rng_state(), torch.get_default_dtype()
        X = networks()
        MetaRegressor(Probe(16, 1, dropout=0.5, n_probes=8), **FAST).fit(X, numbers(X)).predict(X)
        assert torch.equal(torch.get_rng_state(), before) and torch.get_default_dtype() == dtype

    def test_ctrl_c_keeps_what_was_learned(self, tmp_path):
        X = networks()

        def stop(done, total):
            if done == 5:
                raise KeyboardInterrupt

        model = MetaRegressor(SMALL["deep_sets"], n_estimators=3, max_iter=4, random_state=0, progress=stop)
        with pytest.raises(TrainingInterrupted):
            model.fit(X, numbers(X))
        assert len(model.model_.members) == 2 and np.isfinite(model.predict(X)).all()
        wsflow.save_model(model, tmp_path / "model.st")
        assert np.array_equal(wsflow.load_model(tmp_path / "model.st").predict(X), model.predict(X))


class TestForms:
    def test_auto_undoes_what_the_encoder_does_not_respect(self):
        siren = Architecture.mlp([2, 4, 1], "sine")
        gelu = Architecture.mlp([2, 4, 1], "gelu")
        forms = {
            (kind, name): canonical_form(architecture, kind)
            for kind in ("neuron", "scale_equivariant", "probe", "mlp")
            for name, architecture in (("relu", RELU), ("tanh", TANH), ("siren", siren), ("gelu", gelu))
        }
        balanced = {key for key, form in forms.items() if form == "balanced"}
        weights = {(kind, name) for kind in ("neuron", "mlp") for name in ("relu", "tanh", "siren")}
        assert balanced == weights | {("scale_equivariant", "siren")} and "unit" not in forms.values()
        assert canonical_form(RELU, "neuron", None) is None and canonical_form(None, "mlp") is None

    def test_without_a_form_symmetries_are_seen(self):
        X = networks()
        model = MetaRegressor(SMALL["deep_sets"], canonicalize=None, **FAST).fit(X, numbers(X))
        assert np.abs(model.predict(moved(X)) - model.predict(X)).max() > 1e-4

    @pytest.mark.parametrize("form", ["unit", "balanced"])
    def test_forms_undo_scalings(self, form):
        X = networks()
        model = MetaRegressor(SMALL["deep_sets"], canonicalize=form, **FAST).fit(X, numbers(X))
        assert np.abs(model.predict(moved(X)) - model.predict(X)).max() < 1e-9


class TestRefusals:
    @pytest.mark.parametrize(
        ("y", "error"),
        [
            (np.zeros(5), "takes one y for each network, got 5 for 40 networks"),
            (np.full(40, np.nan), "one finite number for each network"),
            (["a"] * 40, "one finite number for each network"),
            (np.zeros((40, 2)), "1d array"),
        ],
    )
    def test_targets(self, y, error):
        with pytest.raises(InvalidInputError, match=error):
            MetaRegressor(**FAST).fit(networks(), y)

    def test_classes(self):
        with pytest.raises(ValueError, match="two classes or more, and all of y is one class, 'one'"):
            MetaClassifier(**FAST).fit(networks(), ["one"] * 40)

    @pytest.mark.parametrize("name", [name for name in METANETWORKS if name != "mlp"])
    def test_plain_arrays(self, name):
        X = networks()
        with pytest.raises(
            ValueError, match=r"MetaRegressor\(.*needs to know what the columns are. Pass a WeightArray"
        ):
            MetaRegressor(name, **FAST).fit(np.asarray(X), numbers(X))

    def test_auto_warns_of_plain_arrays(self):
        X = networks()
        with pytest.warns(MissingArchitectureWarning, match="MetaRegressor reads plain vectors"):
            model = MetaRegressor(**FAST).fit(np.asarray(X), numbers(X))
        assert model.model_.settings.metanetwork == MLP()

    @pytest.mark.parametrize("value", ["transformer", 3, AdamW()])
    def test_other_metanetworks(self, value):
        with pytest.raises(ValueError, match=r"'metanetwork' parameter of MetaClassifier is one of \('auto', 'neuron'"):
            MetaClassifier(value, **FAST).fit(networks(), numbers(networks()) > 1)

    @pytest.mark.parametrize("parameters", [{"canonicalize": "sorted"}, {"n_estimators": 0}, {"max_iter": 0}])
    def test_parameters(self, parameters):
        with pytest.raises(ValueError, match=next(iter(parameters))):
            MetaRegressor(**FAST | parameters).fit(networks(), numbers(networks()))

    def test_kernels_and_the_relational_transformer(self):
        from test_metanetworks import two_convolutions

        X = networks(architecture=two_convolutions())
        with pytest.raises(InvalidInputError, match=r"matrices and vectors.*metanetwork='neuron'"):
            MetaRegressor("relational", **FAST).fit(X, numbers(X))

    def test_too_few_runs_for_an_interval(self):
        X = networks()
        model = MetaRegressor(SMALL["statistics"], **FAST).fit(X, numbers(X))
        assert len(model.calibration_scores_) == 4
        assert model.predict_interval(X, 0.8).shape == (40, 2)
        with pytest.raises(InvalidInputError, match=r"coverage 0.9 need 9 runs for calibration, and 4 were held out"):
            model.predict_interval(X)

    def test_networks_of_another_architecture(self):
        X = networks()
        model = MetaRegressor(SMALL["statistics"], **FAST).fit(X, numbers(X))
        with pytest.raises(InvalidInputError, match="was fitted to networks"):
            model.predict(networks(architecture=TANH))


class TestFiles:
    def saved(self, folder):
        X = networks()
        model = MetaClassifier(Probe(16, 1, inputs=np.ones((3, 4)), learned=False), **FAST)
        wsflow.save_model(model.fit(X, numbers(X) > 1), folder / "model.st")
        return model, X

    def test_classes_and_probes_come_back(self, tmp_path):
        model, X = self.saved(tmp_path)
        loaded = wsflow.load_model(tmp_path / "model.st")
        assert loaded.classes_.tolist() == [False, True]
        assert np.array_equal(loaded.predict_proba(X), model.predict_proba(X))

    def test_info_says_what_it_predicts(self, tmp_path):
        self.saved(tmp_path)
        card = CliRunner().invoke(main, ["info", str(tmp_path / "model.st")])
        assert card.exit_code == 0, card.output
        assert "one of [False, True]" in card.output and "40 networks of 40 runs" in card.output
        X = networks()
        wsflow.save_model(MetaRegressor(SMALL["mlp"], **FAST).fit(X, numbers(X)), tmp_path / "number.st")
        assert "a number" in CliRunner().invoke(main, ["info", str(tmp_path / "number.st")]).output

    def test_arrays_of_another_metanetwork_are_refused(self, tmp_path):
        X = networks()
        model = MetaRegressor(SMALL["deep_sets"], **FAST).fit(X, numbers(X))
        model.metanetwork = DeepSets(16, 1)
        with pytest.raises(InvalidInputError, match="are not those of its metanetwork"):
            wsflow.save_model(model, tmp_path / "model.st")
