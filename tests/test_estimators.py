"""Estimators as scikit-learn estimators, on plain arrays and on WeightArrays."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import wsflow
from wsflow import (
    Architecture,
    EnergyScorer,
    Guidance,
    PermutationAligner,
    ProcrustesAligner,
    ScaleCanonicalizer,
    Task,
    WeightArray,
    WeightFlow,
)
from wsflow.estimators.validation import held_out_rows, runs_of
from wsflow.exceptions import InvalidInputError
from wsflow.flow.solvers import RungeKutta
from wsflow.models import options
from wsflow.models.options import GaussianSource, NetworkGeometry, NeuronTransformer, RelationalTransformer
from wsflow.running import forward, losses
from wsflow.symmetry.actions import Action

FAST = {"max_iter": 3, "velocity": NeuronTransformer(8, 1, 2), "solver": RungeKutta(n_steps=2), "random_state": 0}
MLP = Architecture.mlp([4, 3, 3, 2])


def networks(n=24, architecture=MLP, seed=0, **keywords):
    values = np.random.default_rng(seed).normal(size=(n, architecture.n_weights))
    return WeightArray(values, architecture, **keywords)


PLAIN = WeightFlow(**FAST | {"velocity": options.MLP(32, 1)})
VECTORS = WeightFlow("euclidean", **FAST | {"velocity": options.MLP(32, 1)})


@pytest.mark.filterwarnings("ignore::wsflow.exceptions.MissingArchitectureWarning")
@parametrize_with_checks([PermutationAligner(), ProcrustesAligner(), ScaleCanonicalizer(), PLAIN, VECTORS])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


NAMELESS = {"neuron": NeuronTransformer(8, 1, 2, None), "relational": RelationalTransformer(8, 1, 2, None)}
FLOWS = {
    f"{kind}-{last_layer}-{name}": {"geometry": NetworkGeometry(kind, last_layer), "velocity": velocity}
    for kind in ("euclidean", "normalized", "geometric")
    for last_layer in ("euclidean", "polar")
    for name, velocity in (("neuron", FAST["velocity"]), ("mlp", options.MLP(32, 1)))
} | {
    "relational": {"velocity": RelationalTransformer(8, 1, 2)},
    "nameless": {"velocity": NAMELESS["neuron"]},
    "isotropic-ot": {"source": "isotropic", "coupling": "ot"},
    "initialisation": {"source": "initialisation"},
    "outside": {"geometry": NetworkGeometry(bias="outside")},
}


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(40, 4)).astype(np.float32)
    return Task(X, (X[:, 0] > 0).astype(int))


def pipeline(**settings):
    bias = getattr(settings.get("geometry"), "bias", "inside")
    return make_pipeline(PermutationAligner(), ScaleCanonicalizer(bias=bias), WeightFlow(**FAST | settings))


@pytest.mark.parametrize("settings", FLOWS.values(), ids=FLOWS)
class TestEveryFlow:
    def test_samples_are_networks_on_the_manifold(self, settings):
        model = pipeline(**settings).fit(networks())
        new = wsflow.sample(model, 5, random_state=0)
        assert isinstance(new, WeightArray) and new.shape == (5, MLP.n_weights)
        model[-1].geometry_.check(torch.from_numpy(np.array(new)), atol=1e-12)
        assert np.array_equal(new, wsflow.sample(model, 5, random_state=0))
        assert not np.array_equal(new, wsflow.sample(model, 5, random_state=1))

    def test_a_row_scores_as_in_its_batch_and_in_any_order(self, settings):
        model = pipeline(**settings).fit(networks())
        geometry = settings.get("geometry", NetworkGeometry())
        if geometry.kind == "normalized" or settings.get("source") == "initialisation":
            with pytest.raises(ValueError, match="density"):
                model.score_samples(networks())
            return
        scores = model.score_samples(networks())
        assert np.isfinite(scores).all()
        assert np.allclose([model.score_samples(networks()[i : i + 1])[0] for i in (0, 7)], scores[[0, 7]], rtol=1e-10)
        order = np.random.default_rng(0).permutation(24)
        assert np.allclose(model.score_samples(networks()[order]), scores[order], rtol=1e-10)

    def test_clone_and_pickle_give_the_same_samples(self, settings):
        model = pipeline(**settings).fit(networks())
        expected = wsflow.sample(model, 3, random_state=0)
        assert np.array_equal(wsflow.sample(pickle.loads(pickle.dumps(model)), 3, random_state=0), expected)
        assert np.array_equal(wsflow.sample(clone(model).fit(networks()), 3, random_state=0), expected)

    def test_nothing_global_is_touched(self, settings):
        torch.manual_seed(3)
        np.random.seed(3)
        before = (
            torch.get_rng_state(),
            np.random.get_state()[1].copy(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
        )
        wsflow.sample(pipeline(**settings).fit(networks()), 2)
        # sampling without a random_state draws from numpy's global state, as scikit-learn does; torch's stays
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[2:] == (torch.get_default_dtype(), torch.get_num_threads())
        np.random.seed(3)
        wsflow.sample(pipeline(**settings).fit(networks()), 2, random_state=0)
        assert np.array_equal(before[1], np.random.get_state()[1])


def test_the_orbit_collapses_in_both_orders():
    architecture = Architecture.mlp([30, 16, 16, 2])
    generator = torch.Generator().manual_seed(0)
    row = torch.randn(1, 802, generator=generator, dtype=torch.float64).expand(30, -1)
    orbit = WeightArray(Action.random(architecture, 30, generator, log_scale=1.5)(row).numpy(), architecture)
    assert orbit.std(axis=0).max() > 1
    one = make_pipeline(PermutationAligner(), ScaleCanonicalizer()).fit_transform(orbit)
    two = make_pipeline(ScaleCanonicalizer(), PermutationAligner()).fit_transform(orbit)
    for collapsed in (one, two):
        assert np.abs(collapsed - collapsed[0]).max() < 1e-10
    assert np.allclose(one, two, atol=1e-10)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "identity", "gelu"])
@pytest.mark.parametrize("reference", ["mean", "medoid", "first"])
def test_both_orders_agree_on_independent_networks(activation, reference):
    X = networks(16, Architecture.mlp([4, 5, 5, 2], activation))
    aligner, canonicalizer = PermutationAligner(reference=reference), ScaleCanonicalizer()
    one = make_pipeline(aligner, canonicalizer).fit_transform(X)
    two = make_pipeline(clone(canonicalizer), clone(aligner)).fit_transform(X)
    assert np.allclose(one, two, atol=1e-10)


@pytest.mark.parametrize("activation", ["relu", "tanh", "identity"])
@pytest.mark.parametrize("step", [PermutationAligner(), ScaleCanonicalizer(), ScaleCanonicalizer(bias="outside")])
def test_transformers_keep_the_function_and_return_what_undoes_them(activation, step):
    X = networks(8, Architecture.mlp([4, 5, 5, 2], activation))
    moved, action = step.fit(X).transform(X, return_action=True)
    inputs = torch.randn(10, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    outputs = [forward(torch.from_numpy(np.array(w)), X.architecture, inputs) for w in (X, moved)]
    assert torch.allclose(*outputs, atol=1e-12)
    assert step.output_change_ < 1e-12
    assert np.allclose(action.inverse()(moved), X, atol=1e-12)
    assert np.array_equal(step.inverse_transform(moved), moved)
    assert np.array_equal(moved.runs, X.runs)


def test_the_unit_output_layer_keeps_labels_and_its_inverse_restores_the_median_norm():
    X = networks(21)
    step = ScaleCanonicalizer(last_layer="unit").fit(X)
    canonical = step.transform(X)
    columns = MLP.output_columns
    assert np.allclose(np.linalg.norm(canonical[:, columns], axis=1), 1)
    restored = step.inverse_transform(canonical)
    assert np.allclose(np.linalg.norm(restored[:, columns], axis=1), step.output_norm_)
    assert step.output_change_ > 1e-3
    inputs = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = [forward(torch.from_numpy(np.array(w)), MLP, inputs).argmax(-1) for w in (X, restored)]
    assert torch.equal(*labels)


def test_dead_and_duplicate_neurons_stay_finite_and_keep_the_function():
    X = networks(6)
    values = np.array(X)
    values[0, :4] = values[0, 12] = 0.0  # neuron 0 of network 0 is dead
    values[1, 4:8], values[1, 13] = values[1, 0:4], values[1, 12]  # two equal neurons
    values[2] = 0.0
    X = X.like(values)
    for step in (PermutationAligner(), ScaleCanonicalizer()):
        once, again = (clone(step).fit_transform(X) for _ in range(2))
        assert np.isfinite(once).all() and np.array_equal(once, again)
        assert step.fit(X).output_change_ < 1e-12


def test_snapshots_of_a_run_move_together():
    X = networks(6)
    steps = WeightArray(np.concatenate([X - 0.05, X]), MLP, runs=np.tile(np.arange(6), 2), steps=[0] * 6 + [4] * 6)
    together = PermutationAligner().fit(steps)
    _, action = together.transform(steps, return_action=True)
    for p in action.permutations.values():
        assert torch.equal(p[:6], p[6:])
    alone, action = PermutationAligner(by="network").fit(steps).transform(steps, return_action=True)
    assert isinstance(alone, WeightArray)


def test_validation_holds_out_whole_runs():
    X = networks(40, runs=np.repeat(np.arange(10), 4))
    held = held_out_rows(runs_of(X, None, 40), 0.3, torch.Generator().manual_seed(0)).numpy()
    assert held.sum() == 12 and all(len(set(held[X.runs == run])) == 1 for run in range(10))
    plain = held_out_rows(runs_of(np.array(X), X.runs, 40), 0.3, torch.Generator().manual_seed(0)).numpy()
    assert np.array_equal(held, plain)


def test_grid_search_slices_populations_by_run():
    X = networks(60, runs=np.repeat(np.arange(20), 3))
    search = GridSearchCV(
        pipeline(geometry="geometric", source=GaussianSource()),
        {"weightflow__geometry": ["euclidean", "geometric"], "weightflow__source__shrinkage": [0.1, 0.5]},
        scoring=EnergyScorer(n_samples=20),
        cv=GroupKFold(2),
        n_jobs=2,
    )
    search.fit(X, groups=X.runs)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all() and len(set(scores)) == 4
    train, test = train_test_split(X, test_size=0.25, random_state=0)
    assert isinstance(test, WeightArray) and len(test.runs) == 15 and len(train) == 45


def test_guidance_descends_the_loss(task):
    model = pipeline(geometry="geometric", solver=RungeKutta(n_steps=16)).fit(networks())
    inputs, targets = torch.from_numpy(task.X).double(), torch.from_numpy(task.y)

    def mean_loss(rows):
        return losses(forward(torch.from_numpy(np.array(rows)), MLP, inputs), targets, task.loss).mean()

    plain = model[-1].sample(20, random_state=0)
    guided = model[-1].sample(20, random_state=0, guidance=Guidance(task, strength=2.0))
    assert mean_loss(guided) < 0.9 * mean_loss(plain)
    model[-1].geometry_.check(torch.from_numpy(np.array(guided)), atol=1e-12)


def test_a_lower_temperature_draws_nearer_to_the_centre():
    model = pipeline(geometry="geometric").fit(networks())
    spread = [wsflow.sample(model, 50, 0, temperature=t).std(axis=0).mean() for t in (0.3, 0.7, 1.0)]
    assert spread[0] < spread[1] < spread[2]


def test_stochastic_sampling_stays_on_the_manifold():
    flow = pipeline(geometry="geometric").fit(networks())[-1]
    new = flow.sample(5, random_state=0, noise=0.1)
    flow.geometry_.check(torch.from_numpy(np.array(new)), atol=1e-12)
    assert not np.allclose(new, flow.sample(5, random_state=0))


@pytest.mark.parametrize("source", ["isotropic", "initialisation"])
@pytest.mark.parametrize("velocity", NAMELESS.values(), ids=NAMELESS)
def test_without_names_a_flow_samples_other_widths(source, velocity):
    wide = Architecture.mlp([4, 7, 5, 2])
    model = pipeline(geometry="geometric", source=source, velocity=velocity).fit(networks())
    new = wsflow.sample(model, 3, 0, architecture=wide)
    assert new.shape == (3, wide.n_weights) and new.architecture == wide
    with pytest.raises(ValueError, match="same layers"):
        wsflow.sample(model, 3, 0, architecture=Architecture.mlp([4, 7, 5, 2], "tanh"))


@pytest.mark.parametrize("geometry", ["euclidean", "normalized", "geometric"])
def test_with_names_a_wide_network_is_made_of_several(geometry):
    """With one hidden layer, the mean of the networks' outputs."""
    narrow, wide = Architecture.mlp([4, 3, 2]), Architecture.mlp([4, 6, 2])
    rows = np.random.default_rng(0).normal(size=(40, narrow.n_weights))
    model = pipeline(geometry=geometry).fit(WeightArray(rows, narrow))
    new = wsflow.sample(model, 3, 0, architecture=wide)
    parts = wsflow.sample(model, 6, 0)
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    outputs = forward(torch.from_numpy(np.array(parts)).double(), narrow, x).reshape(3, 2, 9, 2).mean(1)
    torch.testing.assert_close(
        forward(torch.from_numpy(np.array(new)).double(), wide, x), outputs, atol=1e-5, rtol=1e-5
    )
    with pytest.raises(ValueError, match="identity=None"):
        wsflow.sample(model, 3, 0, architecture=Architecture.mlp([4, 2, 2]))
    message = "normalized geometry has no density" if geometry == "normalized" else "log-density"
    with pytest.raises(ValueError, match=message):
        wsflow.sample(model, 3, 0, architecture=wide, return_log_prob=True)


def test_the_manifold_is_handed_to_the_user():
    flow = pipeline(geometry="geometric").fit(networks())[-1]
    canonical = make_pipeline(PermutationAligner(), ScaleCanonicalizer()).fit_transform(networks())
    points = flow.to_manifold(canonical)
    assert flow.manifold_.belongs(points, atol=1e-6).all()
    assert flow.manifold_.dim == MLP.n_weights - 6


def test_geometric_says_where_it_is_euclidean():
    X = networks(architecture=Architecture.mlp([4, 3, 3, 2], "tanh"))
    with pytest.warns(UserWarning, match="geometric geometry is Euclidean"):
        WeightFlow(geometry="geometric", **FAST).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        WeightFlow(**FAST).fit(X)


def test_a_dead_neuron_is_named_where_it_has_no_direction():
    values = np.array(networks())
    values[5, :4] = values[5, 12] = 0.0
    with pytest.raises(InvalidInputError, match="Network 5 has a dead neuron"):
        pipeline(geometry="geometric").fit(networks().like(values))
    pipeline(geometry="euclidean").fit(networks().like(values))


def test_guidance_takes_a_task_that_fits(task):
    flow = pipeline(geometry="euclidean").fit(networks())[-1]
    assert np.array_equal(flow.sample(3, 0, guidance=task), flow.sample(3, 0, guidance=Guidance(task)))
    with pytest.raises(InvalidInputError):
        flow.sample(3, 0, guidance=Task(np.eye(5), np.arange(5) % 2))


@pytest.mark.parametrize(
    ("estimator", "X", "message"),
    [
        (WeightFlow(geometry="geometric", **FAST), networks(), "Put ScaleCanonicalizer"),
        (WeightFlow(geometry="geometric", **FAST), np.zeros((5, 35)), "needs to know"),
        (WeightFlow(architecture=MLP, **FAST), np.zeros((5, 8)), "describes 35 weights, but X has 8 columns"),
        (WeightFlow(geometry="hyperbolic"), networks(), "'geometry' parameter of WeightFlow"),
        (WeightFlow(max_iter=0), networks(), "'max_iter' parameter of WeightFlow"),
        (
            WeightFlow("euclidean", velocity=NeuronTransformer(identity=None), source="gaussian"),
            networks(),
            "knows each neuron by name",
        ),
        (WeightFlow(geometry="euclidean", metric="function", max_iter=1), networks(), "needs task="),
        (PermutationAligner(reference="median"), networks(), "'reference' parameter"),
        (ScaleCanonicalizer(last_layer="drop"), networks(), "'last_layer' parameter"),
        (PermutationAligner(architecture=Architecture.mlp([4, 3, 2])), networks(), "Leave architecture=None"),
    ],
)
def test_errors_are_sentences_with_the_remedy(estimator, X, message):
    with pytest.raises(ValueError, match=message):
        estimator.fit(X)


def test_a_nan_is_named_by_network_and_parameter():
    values = np.array(networks())
    values[3, 13] = np.nan
    with pytest.raises(InvalidInputError, match=r"network 3 has it in parameter '0.bias' at \(1,\)"):
        PermutationAligner().fit(networks().like(values))
    fitted = PermutationAligner().fit(networks())
    with pytest.raises(InvalidInputError, match="4-3-3-2 relu"):
        fitted.transform(networks(architecture=Architecture.mlp([4, 3, 2])))
    with pytest.raises(ValueError, match="n_samples == 0, must be >= 1"):
        pipeline(geometry="euclidean").fit(networks())[-1].sample(0)


def test_the_function_metric_is_the_change_of_the_outputs(task):
    from wsflow.geometry import GEOMETRIES
    from wsflow.objectives.function_metric import function_metric

    geometry = GEOMETRIES["euclidean"](MLP, "polar")
    weights = torch.from_numpy(np.array(networks(5)))
    x = geometry.to_points(weights)
    v = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    metric = function_metric(task, MLP, geometry, n_inputs=8)
    change = metric(x, v, torch.Generator().manual_seed(5))
    inputs = torch.from_numpy(task.X)[torch.randint(40, (8,), generator=torch.Generator().manual_seed(5))].double()
    h = 1e-6
    ahead, behind = (forward(geometry.to_weights(x + s * h * v), MLP, inputs) for s in (1, -1))
    expected = (ahead - behind) / (2 * h)
    expected = (expected - expected.mean(-1, keepdim=True)).flatten(1)
    assert torch.allclose(change, expected, rtol=1e-5, atol=1e-6)


def test_a_task_gives_no_metric_where_nothing_says_how_to_run_the_networks(task):
    by_hand = Architecture(MLP.parameters, MLP.wires, outputs=MLP.outputs)
    weights = networks(architecture=by_hand)
    WeightFlow(geometry="euclidean", task=task, **FAST).fit(weights)
    with pytest.raises(ValueError, match="run by themselves"):
        WeightFlow(geometry="euclidean", task=task, metric="function", **FAST).fit(weights)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_an_orbit_far_from_the_reference_collapses_too(activation):
    architecture = Architecture.mlp([6, 16, 16, 3], activation=activation)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(40, architecture.n_weights, generator=generator, dtype=torch.float64)
    moved = Action.random(architecture, 40, generator, log_scale=1.5)(rows)
    pipe = make_pipeline(PermutationAligner(), ScaleCanonicalizer()).fit(WeightArray(rows.numpy(), architecture))
    one, two = (pipe.transform(WeightArray(w.numpy(), architecture)) for w in (rows, moved))
    assert np.abs(one - two).max() < 1e-10
