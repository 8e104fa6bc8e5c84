"""Merging: means, batch-norm statistics as torch would gather them, and REPAIR, which meets its goals exactly."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from handwritten import BatchNormed, Convolutional, Residual, Separable, convolution, linear, randomised
from torch import Tensor, nn

from wsflow import Architecture, PermutationAligner, Task, WeightArray, merge
from wsflow.architecture import Block, Fixed, NeuronGroup, Parameter
from wsflow.architecture.parameters import fixed_parameter
from wsflow.architecture.sequential import Layer
from wsflow.evaluation.repair import foldable, recompute_batch_norm
from wsflow.exceptions import InvalidInputError
from wsflow.running import forward
from wsflow.running.batch_statistics import ModuleRunner
from wsflow.symmetry.actions import Action


class Normed(nn.Module):
    """Two convolutions with batch norms, the mean over pixels, dropout, and a linear layer."""

    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, stride=2, bias=False), nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images (b, 1, h, w) to logits (b, 10)."""
        x = self.norm1(self.conv1(x)).relu()
        return self.head(self.dropout(self.norm2(self.conv2(x)).relu().mean((2, 3))))

    @staticmethod
    def architecture(width: int = 5) -> Architecture:
        """Each batch norm's numbers move with its channels; no scales are named."""
        groups = [NeuronGroup(f"channels{i}", width) for i in (1, 2)]
        rows: list[Parameter] = []
        for i, (outputs, inputs) in enumerate(zip(groups, (Fixed(1), groups[0]), strict=True), 1):
            rows.append(convolution(f"conv{i}", outputs, inputs, 3, (), ())[0])
            for name in ("weight", "bias", "running_mean", "running_var"):
                role = "statistic" if name.startswith("running") else "weight"
                rows.append(Parameter(f"norm{i}.{name}", (width,), (Block((outputs,)),), role))
        rows += linear("head", Fixed(10), groups[1])
        return Architecture(rows, outputs=("head.weight", "head.bias"), module=Normed(width).double().eval())


class Twice(nn.Module):
    """A layer that is used twice, one that shares its weight with the output layer, and one that is neither."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.free, self.tied = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.head = nn.Linear(4, 4, bias=False)
        self.head.weight = self.tied.weight

    def forward(self, x: Tensor) -> Tensor:
        """(b, 4) to (b, 4)."""
        return self.head(self.tied(self.free(self.twice(self.twice(x).relu()).relu()).relu()).relu())


def of(module: nn.Module, table: Architecture, n: int, generator: torch.Generator) -> WeightArray:
    """Random networks of a hand-written table, which the module runs."""
    architecture = Architecture(table.parameters, table.wires, outputs=table.outputs, module=module.double().eval())
    states = [copy.deepcopy(randomised(module, generator).state_dict()) for _ in range(n)]
    states = [{name: state[name] for name in architecture.names} for state in states]
    return WeightArray.from_state_dicts(states, architecture=architecture)


def table(module: nn.Module, outputs: tuple[str, ...] = (), aliases: dict[str, str] | None = None) -> Architecture:
    """The parameters of a module, without symmetries."""
    rows = [fixed_parameter(name, tuple(p.shape)) for name, p in module.named_parameters()]
    rows = [
        Parameter(r.name, r.shape, r.blocks, aliases=((aliases or {}).get(r.name) or ()) and (aliases[r.name],))
        for r in rows
    ]
    return Architecture(rows, outputs=outputs)


def images(n: int = 40, size: int = 6, channels: int = 1, seed: int = 0, classes: int = 3) -> Task:
    rng = np.random.default_rng(seed)
    return Task(rng.standard_normal((n, channels, size, size)) + 0.5, rng.integers(classes, size=n))


def vectors(n: int = 60, p: int = 4) -> Task:
    rng = np.random.default_rng(0)
    return Task(rng.standard_normal((n, p)) + 0.3, rng.integers(2, size=n))


def layer_statistics(weights: WeightArray, task: Task, training: bool = False) -> dict[str, np.ndarray]:
    """Mean and standard deviation of the channels of each layer, one network after the other, by hooks of its own."""
    runner, rows = ModuleRunner.of(weights.architecture), []
    for i in range(len(weights)):
        module = runner.training_copy() if training else copy.deepcopy(runner.module).eval().double()
        tensors = {
            name: tensor[0]
            for name, tensor in runner.unflatten(torch.from_numpy(np.array(weights[[i]], dtype=np.float64))).items()
        }
        module.load_state_dict(tensors, strict=False)
        seen: dict[str, np.ndarray] = {}

        def hook(name, axis, seen=seen):
            def keep(layer, inputs, output):
                values = output.detach().movedim(axis, 0).flatten(1)
                seen[name] = torch.stack([values.mean(1), values.std(1, correction=0)]).numpy()

            return keep

        for name, (_, axis) in foldable(runner).items():
            module.get_submodule(name).register_forward_hook(hook(name, axis))
        with torch.no_grad():
            module.double()(torch.from_numpy(task.X))
        rows.append(seen)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


class TestMean:
    def test_it_is_the_mean_of_each_group(self, rng):
        architecture = Architecture.mlp([4, 3, 2])
        weights = WeightArray(rng.standard_normal((6, 23)), architecture, runs=[7, 7, 8, 8, 9, 9], steps=range(6))
        merged = merge(weights, groups=["x", "y", "x", "x", "z", "y"])
        expected = [np.asarray(weights)[rows].mean(0) for rows in ([0, 2, 3], [1, 5], [4])]
        np.testing.assert_allclose(merged, expected, atol=1e-15)
        assert merged.runs.tolist() == [7, 7, 9] and merged.steps.tolist() == [0, 1, 4]
        np.testing.assert_allclose(merge(weights), np.asarray(weights).mean(0, keepdims=True), atol=1e-15)

    def test_it_keeps_the_dtype(self, rng):
        weights = WeightArray(rng.standard_normal((6, 23)).astype(np.float32), Architecture.mlp([4, 3, 2]))
        assert merge(weights).dtype == merge(weights, vectors(), repair=True).dtype == np.float32

    @pytest.mark.parametrize("activation", ["relu", "tanh"])
    def test_aligned_members_of_an_orbit_merge_into_its_function(self, activation, generator):
        architecture = Architecture.mlp([4, 6, 5, 2], activation)
        one = torch.randn(1, architecture.n_weights, generator=generator, dtype=torch.float64)
        action = Action.random(architecture, 5, generator, log_scale=0.0)
        orbit = WeightArray(action(one.expand(5, -1)).numpy(), architecture)
        merged = merge(PermutationAligner().fit_transform(orbit), vectors(), repair=True)
        inputs = torch.randn(9, 4, generator=generator, dtype=torch.float64)
        outputs = [forward(torch.from_numpy(np.array(w)), architecture, inputs) for w in (merged, orbit[:1])]
        torch.testing.assert_close(*outputs, rtol=0, atol=1e-10)

    def test_the_statistics_are_the_choice(self, generator):
        weights = of(Normed(), Normed.architecture(), 3, generator)
        columns = weights.architecture.statistic_columns
        rows = np.asarray(weights)
        for choice, expected in (("average", rows.mean(0)), ("keep", rows[0])):
            np.testing.assert_allclose(merge(weights, statistics=choice)[0, columns], expected[columns], atol=1e-15)
        others = np.setdiff1d(np.arange(weights.shape[1]), columns)
        np.testing.assert_allclose(merge(weights, images())[0, others], rows.mean(0)[others], atol=1e-15)

    def test_errors_are_sentences(self, rng, generator):
        weights = of(Normed(), Normed.architecture(), 2, generator)
        bare = WeightArray(weights, Architecture(weights.architecture.parameters))
        with pytest.raises(ValueError, match="'statistics' of merge"):
            merge(weights, statistics="reset")
        with pytest.raises(InvalidInputError, match="statistics='average'"):
            merge(weights)
        with pytest.raises(InvalidInputError, match="Pass module="):
            merge(bare, images())
        with pytest.raises(InvalidInputError, match="2 labels"):
            merge(weights, images(), groups=[0])
        with pytest.raises(InvalidInputError, match="nothing to merge"):
            merge(weights[:0], images())
        with pytest.raises(ValueError, match="'batch_size'"):
            merge(weights, images(), batch_size=1)


class TestStatistics:
    @pytest.mark.parametrize("batch_size", [40, 13])
    def test_they_are_what_torch_gathers_with_a_cumulative_average(self, batch_size, generator):
        weights, task = of(Normed(), Normed.architecture(), 3, generator), images()
        found = recompute_batch_norm(weights, task, batch_size=batch_size)
        count = -(-40 // batch_size)
        for row, expected in zip(found.state_dicts(), weights.state_dicts(), strict=True):
            module = Normed().double()
            module.load_state_dict(expected, strict=False)
            for norm in (module.norm1, module.norm2):
                norm.reset_running_stats()
                norm.momentum = None
            module.train()
            module.dropout.eval()
            with torch.no_grad():
                for i in range(count):
                    module(torch.from_numpy(task.X)[i::count])
            for name, value in module.state_dict().items():
                if name in row:
                    torch.testing.assert_close(row[name], value, rtol=0, atol=1e-12)

    def test_they_make_up_for_wrong_ones(self, generator):
        weights, task = of(Normed(), Normed.architecture(), 2, generator), images()
        right = recompute_batch_norm(weights, task)
        wrong = np.array(right)
        wrong[:, weights.architecture.statistic_columns] *= 3
        np.testing.assert_allclose(recompute_batch_norm(right.like(wrong), task), right, atol=1e-12)

    def test_the_module_is_left_as_it_was(self, generator):
        weights = of(Normed(), Normed.architecture(), 2, generator)
        module = weights.architecture.module
        before = copy.deepcopy(module.state_dict())
        merge(weights, images(), repair=True)
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
        assert not module.training and module.norm1.momentum == 0.1 and not module.conv1._forward_hooks

    def test_what_cannot_be_batched_over_networks_is_run_one_by_one(self, generator):
        class Choosing(Normed):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x) if float(self.head.bias.sum()) < np.inf else x

        batched = of(Normed(), Normed.architecture(), 3, generator)
        table = batched.architecture
        single = WeightArray(
            batched, Architecture(table.parameters, outputs=table.outputs, module=Choosing().double().eval())
        )
        for options in ({}, {"repair": True}):
            one, other = merge(batched, images(), **options), merge(single, images(), **options)
            np.testing.assert_allclose(one, other, atol=1e-12)

    def test_sorted_data_do_no_harm(self, generator):
        weights, task = of(Normed(), Normed.architecture(), 1, generator), images(64)
        brightness = task.X.mean((1, 2, 3)).argsort()
        ordered = Task(task.X[brightness] + 3 * np.linspace(-1, 1, 64)[:, None, None, None], task.y)
        whole, parts = (recompute_batch_norm(weights, ordered, batch_size=size) for size in (64, 16))
        np.testing.assert_allclose(parts, whole, rtol=0.2, atol=0.3)

    def test_more_networks_than_one_chunk(self, generator):
        weights, task = of(Normed(), Normed.architecture(), 11, generator), images()
        found = recompute_batch_norm(weights, task)
        np.testing.assert_allclose(found[[10]], recompute_batch_norm(weights[[10]], task), atol=1e-12)

    def test_networks_without_statistics_stay(self, rng):
        weights = WeightArray(rng.standard_normal((2, 23)), Architecture.mlp([4, 3, 2]))
        assert recompute_batch_norm(weights, vectors()) is weights


class TestRepair:
    @pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
    def test_hidden_layers_of_an_mlp_have_the_mean_statistics(self, activation, rng):
        architecture = Architecture.mlp([4, 6, 5, 7, 2], activation)
        weights = WeightArray(rng.standard_normal((5, architecture.n_weights)), architecture)
        groups = np.array([0, 1, 0, 1, 1])
        self.holds(weights, vectors(), groups)

    @pytest.mark.parametrize(
        ("kind", "task"),
        [
            (Convolutional, images(size=5, channels=2)),
            (Separable, images(size=5, channels=3, classes=2)),
            (Residual, vectors(p=3)),
        ],
    )
    def test_so_do_layers_that_a_module_runs(self, kind, task, generator):
        self.holds(of(kind(), kind.architecture(), 4, generator), task, np.array([0, 1, 1, 0]))

    def test_so_do_transposed_and_grouped_convolutions(self, generator):
        module = nn.Sequential(
            nn.Conv2d(4, 6, 3, groups=2),
            nn.Tanh(),
            nn.ConvTranspose2d(6, 4, 2, groups=2),
            nn.Tanh(),
            nn.ConvTranspose2d(4, 3, 2),
            nn.Flatten(),
            nn.Linear(3 * 36, 2),
        )
        weights = of(module, table(module, ("6.weight", "6.bias")), 3, generator)
        self.holds(weights, images(channels=4, classes=2), np.zeros(3, dtype=int))

    def holds(self, weights: WeightArray, task: Task, groups: np.ndarray) -> None:
        """After REPAIR each layer's statistics are the average, and before they were not."""
        naive, repaired = merge(weights, groups=groups), merge(weights, task, groups=groups, repair=True)
        ends, wrong, right = (layer_statistics(w, task) for w in (weights, naive, repaired))
        assert len(ends) >= 1
        for name, values in ends.items():
            goal = np.stack([values[groups == g].mean(0) for g in np.unique(groups)])
            np.testing.assert_allclose(right[name], goal, rtol=0, atol=1e-10)
            assert np.abs(wrong[name] - goal).max() > 1e-2
        outputs = weights.architecture.output_columns
        np.testing.assert_array_equal(np.asarray(repaired)[:, outputs], np.asarray(naive)[:, outputs])

    def test_batch_norms_have_the_mean_statistics_with_their_own_ones(self, generator):
        task = images()
        weights = recompute_batch_norm(of(Normed(), Normed.architecture(), 3, generator), task)
        repaired = merge(weights, task, repair=True)
        ends, right = layer_statistics(weights, task), layer_statistics(repaired, task, training=True)
        for name in ends:
            # convolutions in front of a batch norm have no bias, and so keep their mean
            rows = [0, 1] if name.startswith("norm") else [1]
            np.testing.assert_allclose(right[name][0, rows], ends[name].mean(0)[rows], rtol=0, atol=1e-10)

    def test_equal_networks_stay(self, generator):
        weights = of(Normed(), Normed.architecture(), 1, generator)
        twins = weights[[0, 0, 0]]
        np.testing.assert_allclose(merge(twins, statistics="keep"), weights, atol=1e-14)
        plain_net = of(Convolutional(), Convolutional.architecture(), 1, generator)[[0, 0]]
        repaired = merge(plain_net, images(size=5, channels=2), repair=True)
        np.testing.assert_allclose(repaired, plain_net[:1], atol=1e-10)

    def test_layers_without_bias_are_only_scaled(self, rng):
        architecture = Architecture.mlp([4, 6, 5, 2], bias=False)
        weights = WeightArray(rng.standard_normal((2, architecture.n_weights)), architecture)
        ends, right = (layer_statistics(w, vectors()) for w in (weights, merge(weights, vectors(), repair=True)))
        for name, values in ends.items():
            np.testing.assert_allclose(right[name][:, 1], values[:, 1].mean(0, keepdims=True), rtol=0, atol=1e-10)
            assert np.abs(right[name][:, 0] - values[:, 0].mean(0)).max() > 1e-3

    def test_named_layers_are_found(self, rng):
        layers = [Layer("linear", "in", 4, 5), Layer("relu", "act"), Layer("linear", "deep.out", 5, 2)]
        architecture = Architecture.sequential(layers)
        weights = WeightArray(rng.standard_normal((3, architecture.n_weights)), architecture)
        self.holds(weights, vectors(), np.zeros(3, dtype=int))

    def test_a_channel_that_dies_in_the_mean_is_shifted_but_not_blown_up(self):
        architecture = Architecture.mlp([1, 1, 1])
        weights = WeightArray([[1.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 1.0, 0.0]], architecture)
        task = Task(np.array([[1.0], [2.0], [3.0]]), [0.0, 0.0, 0.0], loss="mse")
        np.testing.assert_allclose(merge(weights, task, repair=True), [[0.0, 0.0, 1.0, 0.0]], atol=1e-15)

    def test_layers_that_are_shared_stay(self, generator):
        module = Twice()
        rows = table(module, (), {"tied.weight": "head.weight"})
        weights = of(module, rows, 2, generator)
        naive, repaired = merge(weights), merge(weights, vectors(), repair=True)
        same = {
            p.name: np.array_equal(naive[:, s], repaired[:, s])
            for p, s in zip(weights.architecture.parameters, weights.architecture.slices.values(), strict=True)
        }
        assert same == {
            "twice.weight": True,
            "twice.bias": True,
            "tied.weight": True,
            "free.weight": False,
            "free.bias": False,
        }

    def test_the_task_must_be_that_of_the_networks(self, rng):
        weights = WeightArray(rng.standard_normal((2, 23)), Architecture.mlp([4, 3, 2]))
        with pytest.raises(InvalidInputError, match="4 inputs"):
            merge(weights, vectors(p=5), repair=True)


def test_a_batch_norm_table_of_a_linear_network_is_repaired_too(generator):
    table = BatchNormed.architecture(compensated=False)
    weights, task = of(BatchNormed(1e-5), table, 4, generator), vectors()
    merged = merge(weights, task, repair=True)
    assert merged.shape == (1, weights.shape[1]) and np.isfinite(np.asarray(merged)).all()
    np.testing.assert_allclose(recompute_batch_norm(merged, task), merged, atol=1e-10)


@pytest.mark.slow
def test_merging_batch_norm_networks_takes_alignment_and_statistics(generator):
    """Two convolutional networks, trained on scikit-learn's digits from different seeds, become one that works."""
    from sklearn.datasets import load_digits

    from wsflow.evaluation.predictive import predict
    from wsflow.symmetry.matching import orbit_matching

    X, y = load_digits(return_X_y=True)
    X = ((X - X.mean()) / X.std()).reshape(-1, 1, 8, 8).astype(np.float32)
    task, test = Task(X[:1400], y[:1400]), Task(X[1400:], y[1400:])
    architecture = Normed.architecture(64)
    modules = []
    for seed in (0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            module = Normed(64)
            optimizer = torch.optim.Adam(module.parameters(), 3e-3)
            for _ in range(12):
                for batch in torch.randperm(1400).split(100):
                    inputs, targets = torch.from_numpy(task.X[batch]), torch.from_numpy(task.y[batch])
                    loss = nn.functional.cross_entropy(module(inputs), targets)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
        modules.append(module)
    architecture = Architecture(architecture.parameters, outputs=architecture.outputs, module=Normed(64).eval())
    states = [{name: m.state_dict()[name] for name in architecture.names} for m in modules]
    weights = WeightArray.from_state_dicts(states, architecture=architecture)
    rows = torch.from_numpy(np.array(weights)).double()
    statistics = architecture.statistic_columns
    comparable = rows.clone()
    comparable[:, statistics] = 0
    aligned = weights.like(orbit_matching(comparable, comparable[0], architecture)(rows).float().numpy())
    ends = predict(aligned, test).scores
    naive = predict(merge(weights, statistics="average"), test).scores[0]
    merged = predict(merge(aligned, task), test).scores[0]
    assert ends.min() > 0.9 and naive < 0.3 and merged > 0.95 * ends.mean()
