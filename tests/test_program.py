"""Programs: what a network computes as data, run without the module that was read."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
import zoo_named
from test_tracing import IMAGES, THEORY
from torch import Tensor, nn

from wsflow import (
    Architecture,
    PermutationAligner,
    Task,
    WeightArray,
    load_population,
    loss_barrier,
    merge,
    save_population,
)
from wsflow.activations import ACTIVATIONS
from wsflow.architecture.operations import OPERATIONS
from wsflow.architecture.program import Constant, ConstantValue, Input, Operation, Program, Value
from wsflow.exceptions import InvalidInputError
from wsflow.populations.population import Population
from wsflow.running import forward, train_forward, unflatten
from wsflow.running.execution import run_module
from wsflow.running.program import ProgramModule
from wsflow.running.sequential import program_of_layers
from wsflow.running.steps import function_of
from wsflow.tracing.rules import RULES

FAMILIES = {name: (theory.module, theory.inputs) for name, theory in THEORY.items() if name != "MLP"}
FAMILIES["GIN"] = (zoo.gin, zoo.graph())
FAMILIES |= {
    "DenseNet": (zoo_named.densenet, IMAGES),
    "MobileNet": (zoo_named.mobilenet, IMAGES),
    "ShuffleNet": (zoo_named.shufflenet, IMAGES),
    "EfficientNet": (zoo_named.efficientnet, IMAGES),
    "Swin": (zoo_named.Swin, IMAGES),
    "BERT": (zoo_named.BERT, torch.randint(11, (2, 5))),
}
# their inputs are one graph
GRAPHS = ("GIN",)


def _inputs(example: Any, generator: torch.Generator, examples: int | None = None) -> tuple[Tensor, ...]:
    """Return random inputs like an example, for another number of examples."""
    result = []
    for x in example if isinstance(example, tuple) else (example,):
        x = x if examples is None else x[:1].expand(examples, *x.shape[1:])
        result.append(torch.randn(x.shape, generator=generator, dtype=torch.float64) if x.is_floating_point() else x)
    return tuple(result)


def _without_dropout(network: nn.Module) -> nn.Module:
    """Let training mode be deterministic."""
    for layer in network.modules():
        for name in ("p", "dropout"):
            if isinstance(getattr(layer, name, None), float):
                setattr(layer, name, 0.0)
    return network


@cache
def _read(name: str) -> tuple[Architecture, Architecture, list[nn.Module], Tensor]:
    """Return the architecture of a family as read and as parsed, three networks of it, and their weights."""
    torch.manual_seed(0)
    build, example = FAMILIES[name]
    networks = [_without_dropout(build().double().eval()) for _ in range(3)]
    architecture = Architecture.from_module(networks[0], example)
    rows = torch.from_numpy(np.asarray(WeightArray.from_modules(networks, architecture)))
    return architecture, Architecture.from_json(architecture.to_json()), networks, rows


@pytest.mark.parametrize("name", FAMILIES)
def test_a_parsed_program_gives_the_outputs_and_gradients_of_the_modules(name: str, generator: torch.Generator) -> None:
    read, parsed, networks, rows = _read(name)
    assert parsed == read
    assert parsed.module is None
    # another number of examples than the program was read with
    for examples in (5,) if name not in GRAPHS else (None,):
        x = _inputs(FAMILIES[name][1], generator, examples)
        rows = rows.detach().requires_grad_()
        learned = {p.name for p in parsed.parameters if p.role == "weight"}
        outputs = forward(rows, parsed, x)
        expected = torch.stack([network(*x) for network in networks])
        torch.testing.assert_close(outputs, expected, rtol=1e-10, atol=1e-10)
        (gradient,) = torch.autograd.grad(outputs.square().sum(), rows)
        for row, network, output in zip(gradient, networks, expected, strict=True):
            own = {k: p for k, p in network.named_parameters() if k in learned}
            theirs = torch.autograd.grad(output.square().sum(), list(own.values()), allow_unused=True)
            for key, each in zip(own, theirs, strict=True):
                ours = row[parsed.slices[key]].reshape(own[key].shape)
                torch.testing.assert_close(ours, torch.zeros_like(ours) if each is None else each, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_parsed_program_runs_in_training_mode(name: str, generator: torch.Generator) -> None:
    """On a batch of its own for each network, with the statistics that torch keeps."""
    _, parsed, networks, rows = _read(name)
    assert parsed.program is not None
    assert parsed.program.evaluation_only == ""
    batches = [_inputs(FAMILIES[name][1], generator, None if name in GRAPHS else 5) for _ in networks]
    inputs = tuple(torch.stack(own) for own in zip(*batches, strict=True))
    trained = [copy.deepcopy(network).train() for network in networks]
    with torch.no_grad():
        outputs, statistics = train_forward(rows.detach(), parsed, inputs)
        expected = torch.stack([network(*own) for network, own in zip(trained, batches, strict=True)])
    torch.testing.assert_close(outputs, expected, rtol=1e-9, atol=1e-9)
    theirs = torch.from_numpy(np.asarray(WeightArray.from_modules(trained, parsed)))[:, parsed.statistic_columns]
    torch.testing.assert_close(statistics, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "dtype"), [("GPT", "float64"), ("ResNet-20", "float64"), ("VGG", "float32")])
def test_second_derivatives_and_directional_ones_are_those_of_the_module(
    name: str, dtype: str, generator: torch.Generator
) -> None:
    _, parsed, networks, rows = _read(name)
    kind = getattr(torch, dtype)
    inputs = [x.to(kind) if x.is_floating_point() else x for x in _inputs(FAMILIES[name][1], generator)]
    weight_columns = np.setdiff1d(np.arange(parsed.n_weights), parsed.statistic_columns)
    row, module = rows[0].detach().to(kind), copy.deepcopy(networks[0]).to(kind)
    directions = torch.zeros(2, parsed.n_weights, dtype=kind)
    directions[:, weight_columns] = torch.randn(2, len(weight_columns), generator=generator, dtype=kind)

    def ours(weights: Tensor) -> Tensor:
        return forward(weights[None], parsed, tuple(inputs)).square().mean()

    def theirs(weights: Tensor) -> Tensor:
        # torch differentiates by no running statistics
        given = {p.name: weights if p.role == "weight" else row for p in parsed.parameters}
        state = {name: unflatten(given[name][None], parsed)[name][0] for name in given}
        result: Tensor = torch.func.functional_call(module, state, tuple(inputs))
        return result.square().mean()

    found = []
    for function in (ours, theirs):
        # directional derivatives of the gradient, along both directions at once
        curvature = torch.func.vmap(lambda v, f=function: torch.func.jvp(torch.func.grad(f), (row,), (v,))[1])
        found.append(curvature(directions)[:, weight_columns])
    tolerance = 1e-9 if dtype == "float64" else 1e-3 * float(found[1].abs().max())
    torch.testing.assert_close(found[0], found[1], rtol=tolerance, atol=tolerance)


def test_batch_norms_follow_the_batch_in_training_mode() -> None:
    _, parsed, networks, rows = _read("ResNet-20")
    x = torch.randn(6, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    theirs, ours = copy.deepcopy(networks[0]).train(), WeightArray(rows.numpy(), parsed).to_modules()[0].train()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-10)
    state = ours.state_dict()
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(state[name], buffer, rtol=1e-10, atol=1e-10)


def test_modules_of_a_saved_population_need_no_class(tmp_path: Path) -> None:
    read, _, networks, rows = _read("VGG")
    save_population(Population(WeightArray(rows.numpy(), read)), tmp_path / "zoo.safetensors")
    loaded = load_population(tmp_path / "zoo.safetensors")
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for module, network in zip(loaded.weights.to_modules(), networks, strict=True):
        torch.testing.assert_close(module.double()(x), network(x), rtol=1e-5, atol=1e-6)


def test_a_fresh_process_runs_an_architecture_from_its_json(tmp_path: Path) -> None:
    read, _, networks, rows = _read("ViT")
    (tmp_path / "architecture.json").write_text(read.to_json())
    np.savez(tmp_path / "data.npz", rows=rows.numpy(), x=np.ones((2, 3, 8, 8)))
    script = (
        "import sys, numpy as np, torch\nfrom wsflow import Architecture\nfrom wsflow.running import forward\n"
        "data = np.load('data.npz')\narchitecture = Architecture.from_json(open('architecture.json').read())\n"
        "y = forward(torch.from_numpy(data['rows']), architecture, torch.from_numpy(data['x']))\nnp.save('y.npy', y)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    with torch.no_grad():
        expected = torch.stack([network(torch.ones(2, 3, 8, 8, dtype=torch.float64)) for network in networks])
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected.numpy(), rtol=1e-10, atol=1e-10)


def _small_cnn() -> nn.Module:
    layers = (nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3, 2, 1), nn.ReLU())
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(5 * 4, 3))


def test_commands_of_a_fresh_process_run_networks_without_their_code(tmp_path: Path) -> None:
    torch.manual_seed(0)
    networks = [_small_cnn().eval() for _ in range(3)]
    generator = torch.Generator().manual_seed(0)
    task = Task(torch.randn(60, 1, 8, 8, generator=generator).numpy(), np.arange(60) % 3)
    weights = WeightArray.from_modules(networks, example_input=torch.zeros(2, 1, 8, 8))
    save_population(Population(weights, task), tmp_path / "zoo.st")

    def run(*arguments: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "wsflow", *arguments, "-q", "--json"], cwd=tmp_path, check=True, capture_output=True
        )
        return json.loads(done.stdout)

    barrier = run("barrier", "zoo.st", "--n-points", "3")["mean"]
    # the same, by the modules that were read
    expected = [
        loss_barrier(weights[i : i + 1], weights[j : j + 1], task, n_points=3) for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert barrier == pytest.approx(np.mean(expected), rel=1e-5)
    run("align", "zoo.st", "--method", "activation", "--reference", "first", "-o", "aligned.st")
    aligner = PermutationAligner(method="activation", task=task, reference="first", random_state=0)
    aligned = load_population(tmp_path / "aligned.st").weights
    np.testing.assert_allclose(aligned, aligner.fit_transform(weights), rtol=1e-5, atol=1e-6)
    run("merge", "aligned.st", "-o", "merged.st")
    merged = load_population(tmp_path / "merged.st").weights
    np.testing.assert_allclose(merged, merge(aligner.transform(weights), task), rtol=1e-4, atol=1e-5)


class Constants(nn.Module):
    """Buffers that are saved and that are not, a plain tensor, a number, and writing in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 2)
        self.register_buffer("scale", torch.linspace(0.5, 1, 5))
        self.register_buffer("shift", torch.linspace(-1, 1, 5), persistent=False)
        self.plain = torch.tensor([[1.0, 2.0, 3.0, 4.0]])

    def forward(self, x: Tensor) -> Tensor:
        """Features to logits."""
        x = x * self.plain
        x[:, 0] = 3
        z = self.first(x)
        z += self.shift
        return self.last(z.relu_() * self.scale)


def test_constants_and_writing_in_place_are_part_of_a_program() -> None:
    torch.manual_seed(0)
    module = Constants()
    architecture = Architecture.from_module(module, torch.randn(2, 4))
    assert architecture.program is not None
    parsed = Architecture.from_json(architecture.to_json())
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    row = WeightArray.from_modules([module], architecture)
    before = x.clone()
    with torch.no_grad():
        outputs = run_module(unflatten(torch.from_numpy(np.asarray(row)), parsed), parsed.executable, x)
        torch.testing.assert_close(x, before, rtol=0, atol=0)
        torch.testing.assert_close(outputs[0], module(x.clone()), rtol=1e-5, atol=1e-6)


def test_hooks_see_the_outputs_of_the_layers() -> None:
    _, parsed, networks, rows = _read("ResNet-18")
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen: list[dict[str, Tensor]] = []
    for module in (networks[0], WeightArray(rows.numpy(), parsed).to_modules()[0]):
        outputs: dict[str, Tensor] = {}
        for name in ("conv1", "bn1", "layer1.0.relu", "layer2.0.downsample.0", "fc"):
            layer = module.get_submodule(name)
            layer.register_forward_hook(lambda _, __, y, name=name, kept=outputs: kept.__setitem__(name, y.clone()))
        module(x)
        seen.append(outputs)
    assert seen[0].keys() == seen[1].keys()
    for name, output in seen[0].items():
        torch.testing.assert_close(seen[1][name], output, rtol=1e-10, atol=1e-10)


def test_a_module_runner_survives_pickling_and_copying() -> None:
    _, parsed, networks, rows = _read("VGG")
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for other in (pickle.loads(pickle.dumps(parsed)), copy.deepcopy(parsed)):
        torch.testing.assert_close(run_module(unflatten(rows, other), other.executable, x)[1], networks[1](x))


@pytest.mark.parametrize(
    "function", ["eval.default", "set_.source_Tensor", "multinomial.default", "add_.Tensor", "save", ""]
)
def test_operations_outside_the_set_are_refused(function: str) -> None:
    with pytest.raises(ValueError, match="is not one that wsflow runs"):
        Program((Input("x", "weights", (2, 3)),), (Operation("y", function, (Value("x"),)),), Value("y"))


@pytest.mark.parametrize(
    "operation",
    [
        Operation("y", "relu.default", (Value("z"),)),
        Operation("y", "add.Tensor", (Value("x"), (ConstantValue("c"),))),
        Operation("y", "add.Tensor", (Value("x"),), (("alpha", Value("y")),)),
    ],
)
def test_operands_are_computed_before_they_are_used(operation: Operation) -> None:
    with pytest.raises(ValueError, match="before it is computed"):
        Program((Input("x", "weights", (2, 3)),), (operation,), Value("y"))


def test_overloads_that_write_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no operation 'add\.out'"):
        function_of("add.out")


def test_every_operation_of_the_set_exists_in_torch() -> None:
    special = {"getitem", "sym_size"}
    missing = [
        n for n in OPERATIONS if n not in special and not n.startswith("int_") and not hasattr(torch.ops.aten, n)
    ]
    assert missing == []
    read = {name for name in RULES if not name.endswith("_") and hasattr(torch.ops.aten, name)}
    assert read - OPERATIONS <= REPLACED


# where a program is recorded: views by reshapes, copies by nothing, dropouts by one that is identity in evaluation
# mode, one batch norm
REPLACED = frozenset(
    ["view", "_unsafe_view", "clone", "contiguous", "_to_copy", "alias", "positive", "lift_fresh_copy"]
    + ["feature_dropout", "native_dropout", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit"]
    # draws whose mean is not what stands for them in evaluation mode, or has no meaning
    + ["normal", "exponential", "cauchy", "geometric", "log_normal"]
)


def test_a_program_that_does_not_fit_its_parameters_is_refused() -> None:
    read, *_ = _read("sigmoid")
    data = json.loads(read.to_json())
    text = json.dumps(data).replace('{"parameter": "b.weight"}', '{"parameter": "d.weight"}')
    with pytest.raises(ValueError, match=r"uses 'd\.weight', which is no parameter"):
        Architecture.from_json(text)


def test_a_constant_has_as_many_bytes_as_its_shape_says() -> None:
    with pytest.raises(ValueError, match="12 bytes"):
        Constant("c", "float32", (2,), b"0" * 12)


def test_architectures_that_compute_otherwise_are_not_equal() -> None:
    example = torch.zeros(2, 3, 8, 8)
    one, two = (
        Architecture.from_module(
            nn.Sequential(nn.Conv2d(3, 4, 3, stride=s, padding=1), nn.AdaptiveAvgPool2d(1)), example
        )
        for s in (1, 2)
    )
    assert one != two
    assert dataclasses.replace(one, program=None) == dataclasses.replace(two, program=None)


def _with_program(operations: list[Operation], shape: tuple[int, ...] = (2, 3)) -> Architecture:
    program = Program((Input("x", "weights", shape),), tuple(operations), Value(operations[-1].name))
    return dataclasses.replace(Architecture.mlp([3, 2]), layers=(), program=program)


def test_sizes_beyond_memory_are_refused_before_anything_is_allocated() -> None:
    huge = _with_program([Operation("y", "repeat.default", (Value("x"), (10**7, 10**7)))])
    with pytest.raises(InvalidInputError, match=r"repeat\.default.*memory"):
        ProgramModule(huge)


@pytest.mark.parametrize(
    "arguments",
    [(Value("x"), (5, 7)), (Value("x"), "sum"), (), (Value("x"), (2, 3), 4)],
)
def test_operands_that_do_not_fit_are_refused_by_name(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidInputError, match=r"'y'.*reshape\.default"):
        ProgramModule(_with_program([Operation("y", "reshape.default", arguments)]))


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_the_first_run_of_a_perceptron_may_be_inside_a_transform(name: str) -> None:
    """What a transform wraps must not get into a program, which is kept for all runs to come."""
    architecture = Architecture.mlp([3, 4, 2], name)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    row = torch.randn(architecture.n_weights, generator=generator, dtype=torch.float64)

    def total(w: Tensor) -> Tensor:
        return forward(w.unsqueeze(0), architecture, x).square().sum()

    program_of_layers.cache_clear()
    inside = torch.func.grad(total)(row)
    torch.func.vmap(torch.func.grad(total))(row.expand(2, -1))
    program_of_layers.cache_clear()
    start = row.clone().requires_grad_()
    (outside,) = torch.autograd.grad(total(start), start)
    torch.testing.assert_close(inside, outside, rtol=1e-12, atol=1e-12)
