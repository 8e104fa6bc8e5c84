"""What would take more memory than there is is refused, with what was asked and what there is, before it is tried."""

from __future__ import annotations

import re
import tracemalloc
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from saved import make_population
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import wsflow
from wsflow import Architecture, Task, WeightArray, WeightFlow
from wsflow.cli import main
from wsflow.exceptions import InvalidInputError, MemoryLimitError
from wsflow.flow.divergence import TraceEstimator
from wsflow.flow.solvers import RungeKutta
from wsflow.geometry import GEOMETRIES
from wsflow.memory import check_memory, physical_memory
from wsflow.metanetworks.velocity import velocity_network
from wsflow.models.memory import bytes_in_file, n_parameters
from wsflow.models.options import DEFAULTS, MLP, AdamW, NeuronTransformer, RelationalTransformer
from wsflow.models.settings import settings_of
from wsflow.populations import load_task
from wsflow.populations.training import train_population
from wsflow.running.gradient_memory import kept_for_gradients

SENTENCE = r"take [\d.,e+]+ GiB, and this machine has [\d,.]+ GiB of memory\. [A-Z]"
X = np.random.default_rng(0).normal(size=(20, 3))

REQUESTS = {
    "depth": lambda: WeightFlow(velocity=MLP(depth=10**8)).fit(X),
    "width": lambda: WeightFlow(velocity=MLP(width=10**7)).fit(X),
    "transformer": lambda: WeightFlow(velocity=NeuronTransformer(depth=10**8)).fit(_networks()),
    "states": lambda: WeightFlow(velocity=RelationalTransformer(width=10**7)).fit(_networks()),
    "batch_size": lambda: WeightFlow("euclidean", training=AdamW(batch_size=10**12)).fit(X),
    "max_iter": lambda: WeightFlow("euclidean", max_iter=10**15).fit(X),
    "n_steps": lambda: WeightFlow("euclidean", solver=RungeKutta(n_steps=10**14)).fit(X),
    "n_probes": lambda: WeightFlow("euclidean", density=TraceEstimator("hutchinson", 10**13)).fit(X),
    "n_samples": lambda: _flow().sample(10**12),
    "n_runs": lambda: train_population(load_task("iris"), [4], 10**12),
    "snapshots": lambda: train_population(load_task("iris"), [4], 1, epochs=10**13, snapshots=10**12),
    "epochs": lambda: train_population(load_task("iris"), [4], 1, epochs=10**14),
    "hidden": lambda: train_population(load_task("iris"), [10**7, 10**7], 1),
    "architecture": lambda: Architecture.mlp([10**9, 10**9, 10**9]),
    "metric": lambda: WeightFlow("euclidean", task=_images(), metric="function").fit(_convolutions()),
    "json": lambda: Architecture.from_json(Architecture.mlp([2, 3, 2]).to_json().replace("3", str(10**12))),
}


def _networks() -> WeightArray:
    return wsflow.ScaleCanonicalizer().fit_transform(make_population(8).weights)


def _images() -> Task:
    return Task(np.zeros((64, 1, 256, 256), np.float32), np.arange(64) % 3)


@cache
def _convolutions() -> WeightArray:
    """Networks with seventeen million activations by each image."""
    module = nn.Sequential(nn.Conv2d(1, 256, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 3))
    architecture = Architecture.from_module(module, torch.zeros(2, 1, 64, 64))
    return WeightArray(np.random.default_rng(0).normal(size=(200, architecture.n_weights)), architecture)


@cache
def _flow() -> WeightFlow:
    return WeightFlow("euclidean", velocity=MLP(8, 1), max_iter=1, random_state=0).fit(X)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REQUESTS)
def test_requests_beyond_memory_are_refused_before_they_are_tried(name):
    _flow(), _convolutions()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInputError, match=SENTENCE) as caught:
            REQUESTS[name]()
        assert tracemalloc.get_traced_memory()[1] < 2**27
    finally:
        tracemalloc.stop()
    assert name == "json" or caught.value.exit_code == 2


@pytest.mark.parametrize(
    "options",
    [
        ["-p", "velocity=mlp", "-p", "velocity.depth=100000000"],
        ["-p", "training.batch_size=1000000000000"],
        ["--iterations", "1000000000000000"],
    ],
)
def test_the_command_line_refuses_what_does_not_fit(tmp_path, options):
    wsflow.save_population(make_population(8), tmp_path / "zoo.st")
    arguments = ["fit", str(tmp_path / "zoo.st"), "-o", str(tmp_path / "model.st"), *options]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and re.search(SENTENCE, result.stderr), (result.stderr, result.exception)


def test_a_share_of_the_memory_is_the_limit():
    memory = physical_memory()
    check_memory("half", memory / 2, "Ask for less.")
    with pytest.raises(MemoryLimitError, match=r"^More take .* GiB of memory\. Ask for less\.$"):
        check_memory("More", memory * 0.6, "Ask for less.")


def test_the_limit_of_a_process_is_its_memory():
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**37, before[1]))
    try:
        assert physical_memory() <= 2**37
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("kind", [NeuronTransformer, RelationalTransformer, MLP])
@pytest.mark.parametrize("width", [64, 128])
def test_the_estimate_of_a_velocity_is_at_most_the_growth_by_its_layers(kind, width):
    geometry = GEOMETRIES["geometric"](Architecture.mlp([5, 6, 3]), "euclidean", "inside")
    options = [kind(width, depth) for depth in (2, 4)]
    counts = [
        sum(p.numel() for p in velocity_network(o.encoder, geometry.layout, geometry.n_extra, **o.sizes()).parameters())
        for o in options
    ]
    (growth,) = (b - a for a, b in pairwise(counts))
    estimated = n_parameters(options[1]) - n_parameters(options[0])
    assert estimated <= growth < 1.3 * estimated


MODULES = {
    "convolutions": (
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)),
        (1, 6, 6),
        # what the rectifier and tanh return, of which the next layers take views; and the copies in which the input has
        # its channels last, and what is flattened has them first again
        4 * (3 * 4 * 4 + 4 * 2 * 2) + 4 * (6 * 6 + 4 * 2 * 2),
    ),
    "attention": (
        nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), nn.Flatten()),
        (5, 8),
        None,
    ),
}


@pytest.mark.parametrize("name", ["perceptron", *MODULES])
def test_what_gradients_keep_grows_by_networks_and_inputs(name):
    if name == "perceptron":
        architecture, shape, known = Architecture.mlp([20, 30, 10, 3]), (20,), 4 * (30 + 10)
    else:
        module, shape, known = MODULES[name]
        architecture = Architecture.from_module(module.eval(), torch.randn(2, *shape))
    task = Task(np.random.default_rng(0).normal(size=(9, *shape)).astype(np.float32), np.arange(9) % 3)
    estimated = kept_for_gradients(architecture, torch.from_numpy(task.X))
    assert estimated == (known or estimated) > 0
    kept = []
    for inputs in (torch.from_numpy(task.X[:4]), torch.from_numpy(task.X[:9])):
        sizes = {inputs.untyped_storage().data_ptr(): 0}
        rows = torch.zeros(3, architecture.n_weights, requires_grad=True)

        def keep(tensor, sizes=sizes):
            storage = tensor.untyped_storage()
            sizes.setdefault(storage.data_ptr(), storage.nbytes())
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            outputs = wsflow.running.forward(rows, architecture, inputs)
        kept.append(sum(sizes.values()))
        del outputs
    # attention keeps a copy of its inputs, once for all networks
    copied = 3 * 5 * 4 * np.prod(shape) if name == "attention" else 0
    assert 3 * 5 * estimated - copied <= kept[1] - kept[0] <= 3 * 5 * estimated


@pytest.mark.parametrize("n", [20, 120])
@pytest.mark.parametrize("source", ["gaussian", "exchangeable", "standard"])
@pytest.mark.parametrize("widths", [[4, 3, 3], [40, 12, 3]])
def test_the_estimate_of_a_file_is_about_its_size(tmp_path, n, source, widths):
    architecture, rng = Architecture.mlp(widths), np.random.default_rng(0)
    weights = WeightArray(rng.normal(size=(n, architecture.n_weights)), architecture)
    task = Task(rng.normal(size=(60, widths[0])).astype(np.float32), np.arange(60) % 3)
    identity = None if source == "exchangeable" else "learned"
    velocity = NeuronTransformer(64, 2, 2, identity)
    given = {"velocity": velocity, "source": source, "task": task}
    flow = WeightFlow("euclidean", **given, max_iter=1, random_state=0).fit(weights)
    wsflow.save_model(flow, tmp_path / "model.st")
    settings = settings_of(architecture, **{name: getattr(flow, name) for name in DEFAULTS})
    estimated = bytes_in_file(settings, n, architecture.n_weights)
    # beside it are the first and last layers, the task, and descriptions
    assert 0.4 < estimated / (tmp_path / "model.st").stat().st_size < 1.1
