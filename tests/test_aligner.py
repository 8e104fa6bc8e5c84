"""PermutationAligner: methods, references, fixed groups, and what it reports; and its commands."""

from __future__ import annotations

import json

import handwritten
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

import wsflow
from wsflow import Architecture, PermutationAligner, Population, ScaleCanonicalizer, Task, WeightArray
from wsflow.cli import main
from wsflow.cli.align import METHODS as CLI_METHODS
from wsflow.estimators.aligner import REFERENCES
from wsflow.evaluation.barrier import midpoint_barrier
from wsflow.exceptions import InvalidInputError
from wsflow.persistence.models import migrate
from wsflow.symmetry.actions import Action
from wsflow.symmetry.matching import orbit_matching
from wsflow.symmetry.matching.methods import (
    METHODS,
    ChainMatching,
    SinkhornMatching,
    StraightThroughMatching,
    WeightMatching,
    method_of,
)
from wsflow.testing import assert_function_preserved

MLP = Architecture.mlp([4, 5, 5, 2])
FORMS = ("unit", "balanced")
# short, so that every method can be tried
QUICK = {
    "sinkhorn": SinkhornMatching(steps=5),
    "straight-through": StraightThroughMatching(steps=5),
    "chain": ChainMatching(steps=5),
}


def networks(n=12, architecture=MLP, seed=0, **keywords):
    """Normal weights."""
    return WeightArray(np.random.default_rng(seed).normal(size=(n, architecture.n_weights)), architecture, **keywords)


def orbit(row, n=10, log_scale=1.0):
    """One network, its neurons permuted, scaled and flipped at random."""
    rows = torch.from_numpy(np.array(row)).expand(n, -1)
    action = Action.random(row.architecture, n, torch.Generator().manual_seed(0), log_scale)
    return WeightArray(action(rows).numpy(), row.architecture)


def orbits_of(X):
    """Each network, its neurons permuted and scaled at random."""
    action = Action.random(X.architecture, len(X), torch.Generator().manual_seed(1))
    return X.like(action(torch.from_numpy(np.array(X))).numpy())


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(60, 4)).astype(np.float32)
    return Task(X, (X[:, 0] > 0).astype(int))


@pytest.fixture(scope="module")
def trained():
    return wsflow.train_population(wsflow.load_task("iris"), hidden=(8, 8), n_runs=10, epochs=30, learning_rate=1e-2)


class TestMethods:
    @pytest.mark.parametrize("method", METHODS)
    def test_every_method_keeps_the_function_and_recovers_an_orbit(self, method, task):
        X = networks(1)
        members = orbit(X, 6)
        aligner = PermutationAligner(QUICK.get(method, method), task, X, random_state=0)
        aligned = aligner.fit_transform(members)
        assert_function_preserved(members, aligned)
        canonical = ScaleCanonicalizer().fit_transform(aligned)
        assert np.abs(canonical - canonical[0]).max() < 1e-10
        assert np.allclose(aligner.barrier_after_, 0, atol=1e-10)

    @pytest.mark.parametrize("method", METHODS)
    def test_the_same_seed_gives_the_same_networks(self, method, task):
        X = networks()
        aligner = PermutationAligner(QUICK.get(method, method), task, "first", random_state=3)
        once, again = (clone(aligner).fit_transform(X) for _ in range(2))
        assert np.array_equal(once, again)
        assert np.array_equal(aligner.fit(X).transform(X), once)

    def test_auto_takes_the_data_where_there_are_any(self, task):
        assert method_of("auto", None) == WeightMatching()
        assert method_of("auto", task) == ChainMatching()
        assert ("auto", *METHODS) == CLI_METHODS

    def test_data_lower_the_barrier(self, trained):
        aligners = [PermutationAligner(method, trained.task, "first", random_state=0) for method in ("weight", "auto")]
        barriers = [aligner.fit(trained.weights).barrier_after_.mean() for aligner in aligners]
        assert barriers[1] < barriers[0] < aligners[0].barrier_before_.mean()

    @pytest.mark.parametrize("method", ["activation", "straight-through", "chain"])
    def test_methods_that_need_data_say_so(self, method):
        with pytest.raises(ValueError, match=f"'{method}' of PermutationAligner compares networks on data"):
            PermutationAligner(method).fit(networks())

    def test_a_task_of_other_networks_is_refused(self):
        with pytest.raises(InvalidInputError, match="3 inputs"):
            PermutationAligner(task=Task(np.eye(3), [0, 1, 0])).fit(networks())

    def test_an_object_says_more_than_a_name(self):
        X = networks()
        aligner = PermutationAligner("weight", reference="first").fit(X)
        assert np.array_equal(
            PermutationAligner(WeightMatching(), reference="first").fit_transform(X), aligner.transform(X)
        )
        none = PermutationAligner(WeightMatching(max_sweeps=0), reference="first").fit(X)
        assert none.n_passes_.max() == 0 < aligner.n_passes_.max()
        assert np.array_equal(clone(none).set_params(method__max_sweeps=50).fit(X).n_passes_, aligner.n_passes_)
        with pytest.raises(ValueError, match="'max_sweeps' parameter of WeightMatching"):
            PermutationAligner(WeightMatching(max_sweeps=-1)).fit(X)

    def test_options_of_version_0_1_become_an_object(self):
        old = {"method": "auto", "task": None, "max_sweeps": 50, "max_iter": 10, "max_reference": 512, "options": None}
        assert migrate("PermutationAligner", old) == {"method": "auto", "task": None}
        assert migrate("PermutationAligner", old | {"max_sweeps": 7})["method"] == WeightMatching(max_sweeps=7)
        descent = migrate("PermutationAligner", old | {"method": "sinkhorn", "options": {"steps": 5}})
        assert PermutationAligner(**descent).method == SinkhornMatching(steps=5)


class TestReferences:
    @pytest.mark.parametrize("reference", [*REFERENCES, 3])
    def test_an_orbit_is_one_point_in_both_orders(self, reference):
        X = orbit(networks(1, Architecture.mlp([6, 16, 16, 3], "tanh")))
        steps = PermutationAligner(reference=reference), ScaleCanonicalizer()
        for order in (steps, steps[::-1]):
            collapsed = make_pipeline(*map(clone, order)).fit_transform(X)
            assert np.abs(collapsed - collapsed[0]).max() < 1e-10

    @pytest.mark.parametrize(
        "architecture", [handwritten.Attention.architecture(), handwritten.Residual.architecture()]
    )
    def test_orbits_of_other_architectures_are_one_point(self, architecture):
        X = orbit(networks(1, architecture))
        for steps in ([PermutationAligner(), ScaleCanonicalizer()], [ScaleCanonicalizer(), PermutationAligner()]):
            collapsed = make_pipeline(*steps).fit_transform(X)
            assert np.abs(collapsed - collapsed[0]).max() < 1e-10

    def test_a_row_and_the_network_of_that_row_are_one_reference(self):
        X = networks()
        by_row, by_network, by_array = (
            PermutationAligner(reference=reference).fit(X) for reference in (4, X[4:5], np.array(X[4]))
        )
        assert np.array_equal(by_row.reference_, by_network.reference_)
        assert np.array_equal(by_row.reference_, by_array.reference_)
        assert np.array_equal(np.array(by_row.transform(X))[4], np.array(X)[4])

    def test_the_medoid_is_the_network_nearest_to_all_others(self):
        X = networks(7, seed=1)
        near = networks(1)
        # the last one is what the others are variations of
        X = X.like(np.concatenate([near + 0.01 * np.array(X)[:6], near]))
        medoid = PermutationAligner(reference="medoid").fit(orbits_of(X))
        assert np.allclose(medoid.reference_, ScaleCanonicalizer().fit_transform(orbits_of(X))[6])

    def test_auto_is_a_mean_without_a_task_and_a_network_with_one(self, task):
        X = networks()
        for given, expected in ((None, "mean"), (task, "medoid")):
            auto, said = (PermutationAligner("weight", given, reference).fit(X) for reference in ("auto", expected))
            assert np.array_equal(auto.reference_, said.reference_)
            assert PermutationAligner(task=given).reference == "auto"

    def test_a_universe_brings_networks_closer_than_a_mean(self):
        X = networks(8, Architecture.mlp([6, 12, 12, 3]))
        spread = {}
        for reference in ("mean", "universe"):
            canonical = make_pipeline(PermutationAligner(reference=reference), ScaleCanonicalizer()).fit_transform(X)
            spread[reference] = canonical.var(axis=0).sum()
        assert spread["universe"] <= spread["mean"]

    @pytest.mark.parametrize(
        ("reference", "message"),
        [
            (12, "row 12 of X, but X has 12 rows. Choose one from 0 to 11"),
            (-1, "Choose one from 0 to 11"),
            (np.zeros(7), "is no network 4-5-5-2 relu"),
            (networks(1, Architecture.mlp([4, 3, 2])), "is no network 4-5-5-2 relu"),
            (np.full(MLP.n_weights, np.nan), "finite weights"),
            ("last", "'reference' parameter of PermutationAligner must be a str among"),
        ],
    )
    def test_a_wrong_reference_is_refused(self, reference, message):
        with pytest.raises(ValueError, match=message):
            PermutationAligner(reference=reference).fit(networks())


class TestForms:
    """In which scale-free representatives networks are compared."""

    @pytest.mark.parametrize("form", ["unit", "balanced"])
    @pytest.mark.parametrize("activation", ["relu", "tanh"])
    def test_an_orbit_is_one_point_in_every_form(self, form, activation):
        X = orbit(networks(1, Architecture.mlp([6, 16, 16, 3], activation)))
        for last in ("unit", "balanced"):
            collapsed = make_pipeline(PermutationAligner(form=form), ScaleCanonicalizer(last)).fit_transform(X)
            assert np.abs(collapsed - collapsed[0]).max() < 1e-9

    def test_the_reference_is_in_that_form(self):
        X = networks(1)
        for form in ("unit", "balanced"):
            found = PermutationAligner(reference="first", form=form).fit(X).reference_
            assert np.allclose(found, ScaleCanonicalizer(form).fit_transform(X)[0])

    def test_auto_is_the_form_of_the_method(self, task):
        X = networks()
        for method, form in (("weight", "unit"), ("activation", "balanced")):
            auto, named = (
                PermutationAligner(method, task, "first", choice).fit_transform(X) for choice in ("auto", form)
            )
            assert np.array_equal(auto, named)

    def test_each_form_is_the_best_one_for_its_own_representatives(self):
        X = networks(40, Architecture.mlp([4, 6, 2]))
        aligned = {form: PermutationAligner(reference="first", form=form).fit_transform(X) for form in FORMS}
        for form, other in (FORMS, FORMS[::-1]):
            own, others = (ScaleCanonicalizer(form).fit_transform(aligned[name]) for name in (form, other))
            far, farther = (np.linalg.norm(rows - rows[0], axis=1) for rows in (own, others))
            assert (far <= farther + 1e-12).all() and (far < farther).mean() > 0.2

    def test_raw_networks_are_compared_as_they_are(self):
        X = networks(20, Architecture.mlp([4, 6, 5, 2], "tanh"))
        aligner = PermutationAligner(reference="first", form="raw").fit(X)
        assert np.array_equal(aligner.reference_, X[0])
        rows = torch.from_numpy(np.array(X))
        assert np.array_equal(aligner.transform(X), orbit_matching(rows, rows[0], X.architecture)(rows))

    def test_raw_networks_that_differ_by_permutations_are_one_point(self):
        aligned = PermutationAligner(form="raw").fit_transform(orbit(networks(1), log_scale=0.0))
        assert np.abs(aligned - aligned[0]).max() < 1e-12

    @pytest.mark.parametrize("method", METHODS)
    def test_every_method_compares_raw_networks(self, method, task):
        X = networks(4)
        aligner = PermutationAligner(QUICK.get(method, method), task, "first", "raw", random_state=0)
        assert_function_preserved(X, aligner.fit_transform(X))

    def test_a_saved_aligner_keeps_its_form(self, tmp_path):
        aligner = PermutationAligner(form="balanced").fit(networks())
        wsflow.save_model(aligner, tmp_path / "aligner.st")
        again = wsflow.load_model(tmp_path / "aligner.st")
        assert np.array_equal(again.transform(networks(seed=1)), aligner.transform(networks(seed=1)))

    def test_a_wrong_form_is_refused(self):
        with pytest.raises(ValueError, match=r"'form'.*balanced"):
            PermutationAligner(form="square").fit(networks())


class TestFixedGroups:
    @staticmethod
    def fine_tuned(n=10):
        """Networks with one frozen first layer, and the rest from different seeds."""
        X = networks(n)
        values = np.array(X)
        columns = slice(MLP.slices["0.weight"].start, MLP.slices["0.bias"].stop)
        values[:, columns] = values[0, columns]
        return X.like(values), columns

    @pytest.mark.parametrize("method", ["weight", "activation", "chain"])
    def test_a_shared_layer_stays_shared(self, method, task):
        X, columns = self.fine_tuned()
        needed = task if METHODS[method].needs_task else None
        aligner = PermutationAligner(QUICK.get(method, method), needed, random_state=0)
        aligned = aligner.fit_transform(X)
        assert aligner.fixed_groups_ == ("hidden1",)
        assert np.array_equal(aligned[:, columns], X[:, columns])
        assert not np.array_equal(aligned, X)
        assert_function_preserved(X, aligned)

    def test_networks_that_do_not_share_it_are_aligned_freely(self):
        X, _ = self.fine_tuned()
        generator = torch.Generator().manual_seed(0)
        moved = X.like(Action.random(MLP, 10, generator, log_scale=0.0)(torch.from_numpy(np.array(X))).numpy())
        aligner = PermutationAligner(reference="first").fit(X)
        aligned, action = aligner.transform(moved, return_action=True)
        stay = torch.arange(5).expand(10, -1)
        assert (action.permutations["hidden1"] != stay).any(1).all()
        # the same rows that agree with those of fit stay
        assert torch.equal(aligner.transform(X, return_action=True)[1].permutations["hidden1"], stay)
        assert_function_preserved(moved, aligned)

    def test_a_reference_with_another_layer_sets_it_free(self):
        X, _ = self.fine_tuned()
        assert PermutationAligner(reference=networks(1, seed=5)).fit(X).fixed_groups_ == ()

    def test_a_network_alone_holds_nothing(self):
        X = networks(1)
        aligner = PermutationAligner().fit(X)
        assert aligner.fixed_groups_ == ()
        assert np.allclose(aligner.transform(orbit(X, log_scale=0.0)), X)


class TestReports:
    def test_one_number_for_each_network_of_fit(self, task):
        X = networks(12, runs=np.repeat(np.arange(4), 3), steps=np.tile(np.arange(3), 4))
        aligner = PermutationAligner("weight", task)
        aligned = aligner.fit_transform(X)
        assert {name: values.shape for name, values in aligner.report_.items()} == dict.fromkeys(
            ("objective", "n_passes", "barrier_before", "barrier_after"), (12,)
        )
        assert (aligner.n_passes_ >= 1).all()
        canonical = ScaleCanonicalizer().fit_transform(aligned)
        assert np.allclose(aligner.objective_, canonical @ aligner.reference_)
        goal = WeightArray(aligner.reference_[None], MLP)
        assert np.allclose(aligner.barrier_after_, midpoint_barrier(canonical, goal, task))
        assert np.allclose(aligner.distances_to_reference(aligned), np.linalg.norm(canonical - goal, axis=1))

    def test_barriers_are_unknown_without_a_task(self):
        report = PermutationAligner().fit(networks()).report_
        assert np.isnan(report["barrier_before"]).all() and np.isfinite(report["objective"]).all()

    def test_fit_transform_is_fit_and_transform(self):
        X = networks(12, runs=np.repeat(np.arange(4), 3))
        aligner = PermutationAligner()
        assert np.array_equal(clone(aligner).fit_transform(X), aligner.fit(X).transform(X))

    def test_a_saved_aligner_is_the_same(self, task, tmp_path):
        X, _ = TestFixedGroups.fine_tuned()
        aligner = PermutationAligner(QUICK["chain"], task, reference=np.array(X[2]), random_state=0).fit(X)
        wsflow.save_model(aligner, tmp_path / "aligner.st")
        loaded = wsflow.load_model(tmp_path / "aligner.st")
        assert loaded.fixed_groups_ == aligner.fixed_groups_ == ("hidden1",)
        assert np.array_equal(loaded.transform(X), aligner.transform(X))
        assert all(np.array_equal(loaded.report_[name], values) for name, values in aligner.report_.items())


@pytest.fixture(scope="module")
def zoo(tmp_path_factory, trained):
    path = tmp_path_factory.mktemp("align") / "zoo.safetensors"
    wsflow.save_population(trained, path)
    return path


def run(*arguments, code=0):
    """What a command prints."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


class TestCommands:
    @pytest.mark.parametrize("reference", ["mean", "universe", "2", "file"])
    def test_align(self, zoo, tmp_path, reference):
        out = tmp_path / "aligned.safetensors"
        given = zoo if reference == "file" else reference
        found = run("align", zoo, "-o", out, "--method", "weight", "--reference", given, "--json", "-q")
        result = json.loads(found.stdout)
        assert result["networks"] == 10 and result["barrier_after"] < result["barrier_before"]
        before, after = wsflow.load_population(zoo), wsflow.load_population(out)
        assert after.weights.aligned and not before.weights.aligned
        assert after.provenance["aligned"]["method"] == "weight"
        assert_function_preserved(before.weights, after.weights, rtol=1e-5)

    def test_align_in_words_and_pictures(self, zoo, tmp_path):
        plot = tmp_path / "barriers.png"
        output = run("align", zoo, "-o", tmp_path / "a.safetensors", "--method", "weight", "--plot", plot).stdout
        assert "barrier half-way, after" in output and plot.read_bytes().startswith(b"\x89PNG")

    def test_align_without_a_task(self, zoo, tmp_path):
        lonely, plot = tmp_path / "lonely.safetensors", tmp_path / "distances.svg"
        wsflow.save_population(Population(wsflow.load_population(zoo).weights), lonely)
        result = json.loads(
            run("align", lonely, "-o", tmp_path / "a.safetensors", "--plot", plot, "--json", "-q").stdout
        )
        assert result["barrier_before"] is None and result["passes"] >= 1 and plot.exists()
        run("align", lonely, "-o", tmp_path / "b.safetensors", "--method", "activation", "-q", code=2)

    @pytest.mark.parametrize("form", ["unit", "balanced"])
    def test_canonicalize(self, zoo, tmp_path, form):
        out = tmp_path / "canonical.safetensors"
        result = json.loads(run("canonicalize", zoo, "-o", out, "--form", form, "--json", "-q").stdout)
        assert result["output_change"] < 1e-6
        assert_function_preserved(wsflow.load_population(zoo).weights, wsflow.load_population(out).weights, rtol=1e-4)

    def test_refusals(self, zoo, tmp_path):
        out = tmp_path / "a.safetensors"
        assert "no file" in run("align", zoo, "-o", out, "--reference", "nearest", code=2).stderr
        assert (
            "there are 10 networks"
            in run("align", zoo, "-o", out, "--method", "weight", "--reference", "10", code=2).stderr
        )
        run("align", zoo, "-o", zoo, code=5)
        run("canonicalize", zoo, "-o", zoo, code=5)
        run("align", zoo, "-o", out, "--plot", tmp_path / "a.txt", code=5)
        assert not out.exists()
