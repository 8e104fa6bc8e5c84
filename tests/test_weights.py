"""WeightArray: what stays one, what becomes a plain array, and the way to torch and back."""

from __future__ import annotations

import copy
import pickle

import joblib
import numpy as np
import pytest
import torch
from sklearn.model_selection import GroupKFold, KFold, train_test_split
from torch import nn

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError
from wsflow.weights import WeightArray

ARCHITECTURE = Architecture.mlp([4, 3, 2])


@pytest.fixture
def weights(rng):
    """Six networks: two snapshots of each of three runs."""
    values = rng.normal(size=(6, 23))
    return WeightArray(values, ARCHITECTURE, runs=[7, 7, 8, 8, 9, 9], steps=[1, 2, 1, 2, 1, 2], aligned=True)


def check_rows(result, weights, rows):
    """A WeightArray of these rows, with their runs and steps."""
    assert type(result) is WeightArray
    assert result.architecture == ARCHITECTURE
    assert result.aligned == weights.aligned
    np.testing.assert_array_equal(np.asarray(result), np.asarray(weights)[rows])
    np.testing.assert_array_equal(result.runs, weights.runs[rows])
    np.testing.assert_array_equal(result.steps, weights.steps[rows])


def is_plain(value) -> bool:
    """Whether a result is an array, but none with an architecture."""
    return not isinstance(value, WeightArray)


@pytest.mark.parametrize(
    "rows",
    [
        slice(1, 5, 2),
        slice(None),
        [4, 0],
        np.array([5, 5, 1]),
        np.array([True, False] * 3),
        slice(0, 0),
        np.array([], dtype=int),
    ],
)
def test_rows_stay_networks(weights, rows):
    check_rows(weights[rows], weights, rows)
    check_rows(weights[rows, :], weights, rows)


def test_take_of_rows_stays_networks(weights):
    check_rows(weights.take([3, 1], axis=0), weights, [3, 1])
    assert is_plain(weights.take([3, 1], axis=1))


@pytest.mark.parametrize(
    "make",
    [
        lambda w: w[0],
        lambda w: w[:, :3],
        lambda w: w[:, [0, 1]],
        lambda w: w[1, 2],
        lambda w: w[1:3, 2],
        lambda w: w[None],
        lambda w: w > 0,
        lambda w: w[w > 0],
        lambda w: w.T,
        lambda w: w.mean(axis=0),
        lambda w: w.sum(),
        lambda w: w.reshape(-1),
        lambda w: w.ravel(),
        lambda w: w + 1,
        lambda w: 2 * w,
        lambda w: np.exp(w),
        lambda w: np.concatenate([w, w], axis=1),
        lambda w: np.vstack([w, np.asarray(w)]),
        lambda w: np.hstack([w, w]),
        lambda w: np.mean(w, axis=0),
        lambda w: np.linalg.norm(w, axis=1),
        lambda w: np.asarray(w),
        lambda w: w.astype(int),
        lambda w: w @ np.ones(23),
        lambda w: w.view(np.int64),
        lambda w: w.mT,
        lambda w: w.imag,
        lambda w: w.byteswap(),
        lambda w: w.getfield(np.float32),
    ],
)
def test_everything_else_is_plain(weights, make):
    assert is_plain(make(weights))


def test_values_are_those_of_the_plain_array(weights):
    plain = np.asarray(weights)
    np.testing.assert_array_equal(weights + weights, plain + plain)
    np.testing.assert_array_equal(np.concatenate([weights, weights]), np.concatenate([plain, plain]))
    np.testing.assert_array_equal(weights.std(axis=0), plain.std(axis=0))
    np.testing.assert_array_equal(weights.T, plain.T)


@pytest.mark.parametrize(
    "again",
    [
        lambda w: w.copy(),
        lambda w: w.view(),
        lambda w: np.copy(w),
        copy.copy,
        copy.deepcopy,
        lambda w: pickle.loads(pickle.dumps(w)),
        lambda w: w.astype(np.float64),
        lambda w: w.like(np.asarray(w)),
    ],
)
def test_copies_are_equal_and_know_as_much(weights, again):
    check_rows(again(weights), weights, slice(None))


def test_a_copy_is_independent(weights):
    other = weights.copy()
    other[0] = 0
    assert np.asarray(weights)[0].any()


def test_astype_keeps_the_networks_in_single_precision(weights):
    single = weights.astype(np.float32)
    assert type(single) is WeightArray
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single.runs, weights.runs)


def test_default_runs_and_steps():
    weights = WeightArray(np.zeros((3, 23)), ARCHITECTURE)
    assert weights.runs.tolist() == [0, 1, 2]
    assert weights.steps.tolist() == [0, 0, 0]
    assert not weights.aligned


def test_concatenate_keeps_runs(weights):
    both = WeightArray.concatenate([weights[:2], weights[4:]])
    check_rows(both, weights, [0, 1, 4, 5])
    other = WeightArray(np.zeros((1, Architecture.mlp([2, 2]).n_weights)), Architecture.mlp([2, 2]))
    with pytest.raises(InvalidInputError, match="one architecture"):
        WeightArray.concatenate([weights, other])


def test_scikit_learn_splits_give_networks(weights):
    train, test, runs, _ = train_test_split(weights, weights.runs, random_state=0)
    assert type(train) is WeightArray
    assert type(test) is WeightArray
    np.testing.assert_array_equal(train.runs, runs)
    for rows, _ in KFold(3).split(weights):
        check_rows(weights[rows], weights, rows)
    for rows, others in GroupKFold(3).split(weights, groups=weights.runs):
        assert not set(weights[rows].runs) & set(weights[others].runs)


def _what_arrives(part):
    return type(part).__name__, part.architecture.n_weights, part.runs.tolist()


def test_networks_arrive_in_other_processes(weights):
    arrived = joblib.Parallel(n_jobs=2)(joblib.delayed(_what_arrives)(weights[rows]) for rows in ([0, 1], [4]))
    assert arrived == [("WeightArray", 23, [7, 7]), ("WeightArray", 23, [9])]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeightArray(np.zeros((2, 22)), ARCHITECTURE), r"\(n, 23\)"),
        (lambda: WeightArray(np.zeros(23), ARCHITECTURE), r"\(n, 23\)"),
        (lambda: WeightArray(np.zeros((2, 23)), ARCHITECTURE, runs=[1]), "runs .* 2 numbers"),
        (lambda: WeightArray(np.zeros((2, 23)), ARCHITECTURE, steps=[[1, 2]]), "steps .* 2 numbers"),
        (lambda: WeightArray.from_modules([]), "list of modules is empty"),
        (lambda: WeightArray.from_state_dicts([]), "list of state dicts is empty"),
        (lambda: WeightArray.from_state_dicts([{"0.weight": torch.zeros(2, 2)}]), "activation='relu'"),
    ],
)
def test_refusals_say_what_is_expected(make, message):
    with pytest.raises(InvalidInputError, match=message):
        make()


@pytest.fixture
def modules(generator):
    """Five plain MLPs."""
    made = [nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU(0.2), nn.Linear(3, 2)) for _ in range(5)]
    for module in made:
        for parameter in module.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return made


def test_modules_round_trip(modules):
    weights = WeightArray.from_modules(modules, runs=[0, 0, 1, 1, 2])
    assert weights.dtype == np.float32
    assert weights.runs.tolist() == [0, 0, 1, 1, 2]
    inputs = torch.linspace(-1, 1, 12).reshape(3, 4)
    for before, after in zip(modules, weights.to_modules(), strict=True):
        assert torch.equal(before(inputs), after(inputs))
    templated = weights.to_modules(template=modules[0])
    assert torch.equal(templated[3](inputs), modules[3](inputs))


def test_state_dicts_round_trip(modules):
    states = [module.state_dict() for module in modules]
    weights = WeightArray.from_state_dicts(states, activation="leaky_relu")
    for before, after in zip(states, weights.state_dicts(), strict=True):
        assert list(before) == list(after)
        assert all(torch.equal(before[name], after[name]) for name in before)
    again = WeightArray.from_state_dicts(weights.state_dicts(), architecture=weights.architecture)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(weights))


def test_half_precision_networks_become_single(modules):
    states = [{name: t.to(torch.bfloat16) for name, t in m.state_dict().items()} for m in modules]
    assert WeightArray.from_state_dicts(states, activation="relu").dtype == np.float32


def test_the_first_mismatches_of_state_dicts_are_named(modules):
    states = [module.state_dict() for module in modules]
    states[1] = {name: t for name, t in states[1].items() if name != "2.bias"}
    states[2] = {**states[2], "0.weight": torch.zeros(4, 3)}
    states[3] = {**states[3], "9.weight": torch.zeros(1)}
    with pytest.raises(InvalidInputError, match=r"network 1 has no '2.bias'.*network 2.*\(4, 3\).*network 3.*further"):
        WeightArray.from_state_dicts(states, activation="relu")


def test_to_modules_draws_nothing_from_the_global_generator(modules):
    weights = WeightArray.from_modules(modules)
    before = torch.get_rng_state()
    weights.to_modules()
    assert torch.equal(torch.get_rng_state(), before)


def test_modules_that_differ_in_their_activations_are_named():
    networks = [nn.Sequential(nn.Linear(4, 3), act, nn.Linear(3, 2)) for act in (nn.ReLU(), nn.ReLU(), nn.Tanh())]
    with pytest.raises(InvalidInputError, match=r"network 2 is linear, tanh, linear"):
        WeightArray.from_modules(networks)
    slopes = [nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU(a), nn.Linear(3, 2)) for a in (0.1, 0.2)]
    with pytest.raises(InvalidInputError, match=r"leaky_relu\(0.2\)"):
        WeightArray.from_modules(slopes)


class Skip(nn.Module):
    """x + f(x) between two convolutions."""

    def __init__(self, stride=1, activation=None, dropout=0.5):
        super().__init__()
        self.stem, self.inner, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 3, stride)
        self.activation, self.dropout = activation or nn.ReLU(), nn.Dropout(dropout)

    def forward(self, x):
        x = self.activation(self.stem(x))
        return self.head(x + self.dropout(self.inner(x)))


def test_any_modules_are_read_with_an_example_input(generator):
    networks = [Skip(dropout=p).eval() for p in (0.1, 0.2, 0.3)]
    x = torch.randn(2, 1, 6, 6, generator=generator)
    weights = WeightArray.from_modules(networks, example_input=x, runs=[0, 0, 1])
    assert [(group.name, group.size) for group in weights.architecture.groups] == [("stem", 4)]
    assert weights.architecture == Architecture.from_module(networks[0], x)
    assert weights.runs.tolist() == [0, 0, 1]
    for before, after in zip(networks, weights.to_modules(Skip().eval()), strict=True):
        assert torch.equal(before(x), after(x))


def test_modules_without_an_example_input_say_that_one_is_needed():
    with pytest.raises(ValueError, match="example_input"):
        WeightArray.from_modules([Skip()])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            lambda: Skip(stride=2),
            r"network 0 is head Conv2d\(4, 2.*stride=\(1, 1\).*network 1 is head .*stride=\(2, 2\)",
        ),
        (lambda: Skip(activation=nn.GELU()), r"network 0 is activation ReLU\(\), but network 1 is activation GELU"),
        (lambda: Skip(activation=nn.Identity()), r"activation ReLU\(\), but network 1 is activation Identity"),
    ],
)
def test_modules_that_differ_where_their_state_dicts_do_not_are_named(other, message):
    with pytest.raises(InvalidInputError, match=message):
        WeightArray.from_modules([Skip(), other()], example_input=torch.zeros(2, 1, 6, 6))


def test_a_relu_in_place_is_a_relu():
    networks = [Skip(), Skip(activation=nn.ReLU(inplace=True))]
    assert len(WeightArray.from_modules(networks, example_input=torch.zeros(2, 1, 6, 6))) == 2


def test_a_single_network_is_no_list_of_them(modules):
    with pytest.raises(InvalidInputError, match="pass a list"):
        WeightArray.from_modules(modules[0])
    with pytest.raises(InvalidInputError, match="pass a list"):
        WeightArray.from_state_dicts(modules[0].state_dict(), activation="relu")


@pytest.mark.parametrize("runs", [[0.5], [np.nan], ["a"], [2**70], [2**63]])
def test_runs_are_whole_numbers(runs):
    with pytest.raises(InvalidInputError, match="whole numbers"):
        WeightArray(np.zeros((1, 23)), ARCHITECTURE, runs=runs)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((2, 23), 1j), "real numbers: got complex128"),
        (np.zeros((2, 23), "M8[s]"), "real numbers: got datetime64"),
        (np.full((2, 23), "a"), "real numbers: got <U1"),
        (torch.zeros(2, 23, device="meta"), "tensor without numbers"),
        ((row for row in np.zeros((2, 23))), "real numbers"),
    ],
)
def test_what_are_no_real_numbers_is_refused(values, message):
    with pytest.raises(InvalidInputError, match=message):
        WeightArray(values, Architecture.mlp([4, 3, 2]))


@pytest.mark.parametrize("dtype", [np.longdouble, ">f8", ">f4", object])
def test_numbers_that_torch_does_not_hold_become_doubles(dtype):
    rows = np.random.default_rng(0).normal(size=(2, 23)).astype(np.float32)
    weights = WeightArray(rows.astype(dtype), Architecture.mlp([4, 3, 2]))
    assert weights.dtype == np.float64 and (weights == rows).all()
    assert weights.state_dicts()[1]["2.bias"].tolist() == rows[1, -2:].tolist()


def test_masked_weights_are_missing():
    rows = np.ma.masked_array(np.zeros((2, 23)), np.arange(46).reshape(2, 23) == 25)
    assert np.argwhere(np.isnan(WeightArray(rows, Architecture.mlp([4, 3, 2])))).tolist() == [[1, 2]]
