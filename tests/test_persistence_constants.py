"""Constants of programs in files: tensors that the JSON data name."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch
from saved import assert_refused
from sklearn.pipeline import make_pipeline
from torch import Tensor, nn

import wsflow
from wsflow import Architecture, Population, WeightArray, WeightFlow
from wsflow.persistence import constants, describe
from wsflow.persistence.constants import LARGE, PREFIX
from wsflow.persistence.format import read, read_header, write
from wsflow.persistence.models import load_model, save_model
from wsflow.persistence.populations import load_population, save_population

SIZE = 24


class Masked(nn.Module):
    """A large mask of numbers and one of truth values, and a small one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, 2)
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("mixing", torch.randn(SIZE, SIZE, generator=generator), persistent=False)
        self.register_buffer("kept", torch.rand(64, SIZE, generator=generator) > 0.3, persistent=False)
        self.register_buffer("shift", torch.arange(2.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mix, leave some out, and shift."""
        x = torch.relu(self.first(x @ self.mixing)) * self.kept.float().mean(0)
        return self.last(x) + self.shift


@pytest.fixture(scope="module")
def population() -> Population:
    torch.manual_seed(0)
    modules = [Masked() for _ in range(6)]
    architecture = Architecture.from_module(modules[0], torch.zeros(2, SIZE))
    return Population(WeightArray.from_modules(modules, architecture))


def large_ones(architecture: Architecture) -> list:
    return [c for c in architecture.program.constants if len(c.data) >= LARGE]


def test_large_constants_are_tensors_and_come_back(population, tmp_path):
    architecture = population.architecture
    large = large_ones(architecture)
    assert large and len(large) < len(architecture.program.constants)
    save_population(population, tmp_path / "p.safetensors")
    header = read_header(tmp_path / "p.safetensors")
    shapes = [header.shapes[name] for name in header.shapes if name.startswith(PREFIX)]
    assert sorted(shapes) == sorted({c.shape for c in large})
    loaded = load_population(tmp_path / "p.safetensors")
    assert loaded.architecture == architecture
    assert loaded.architecture.to_json() == architecture.to_json()
    x = torch.randn(5, SIZE)
    for weights in (population.weights, loaded.weights):
        found = wsflow.running.forward(torch.from_numpy(np.array(weights)), weights.architecture, x)
        torch.testing.assert_close(found[0], population.weights.to_modules(Masked())[0](x), rtol=1e-5, atol=1e-5)


def test_the_text_of_a_file_has_no_large_constant(population, tmp_path):
    save_population(population, tmp_path / "p.safetensors")
    start = (tmp_path / "p.safetensors").read_bytes()
    text = start[8 : 8 + int.from_bytes(start[:8], "little")].decode()
    for constant in population.architecture.program.constants:
        encoded = base64.b64encode(constant.data).decode()
        assert (encoded in text) == (len(constant.data) < LARGE)


def test_files_that_have_constants_in_their_text_are_read(population, tmp_path, monkeypatch):
    with monkeypatch.context() as context:
        context.setattr(constants, "LARGE", 10**9)
        save_population(population, tmp_path / "before.safetensors")
    assert not [name for name in read_header(tmp_path / "before.safetensors").shapes if name.startswith(PREFIX)]
    assert load_population(tmp_path / "before.safetensors").architecture == population.architecture


def test_models_have_them_once(population, tmp_path):
    flow = WeightFlow("euclidean", architecture=population.architecture, max_iter=2, random_state=0)
    model = make_pipeline(wsflow.PermutationAligner(), flow).fit(population.weights)
    save_model(model, tmp_path / "m.st")
    header = read_header(tmp_path / "m.st")
    assert len([n for n in header.shapes if n.startswith(PREFIX)]) == len(large_ones(population.architecture))
    loaded = load_model(tmp_path / "m.st")
    assert loaded[-1].architecture_ == loaded[0].architecture_ == population.architecture
    np.testing.assert_array_equal(loaded[-1].sample(2, random_state=0), model[-1].sample(2, random_state=0))


def test_a_description_needs_none_of_them(population, tmp_path):
    save_population(population, tmp_path / "p.safetensors")
    found = describe(tmp_path / "p.safetensors")
    assert found["architecture"] == str(population.architecture) and found["runs_itself"]


@pytest.mark.parametrize("named", ["wsflow.constant.none", "wsflow.run", "first.weight", 3])
def test_names_of_other_tensors_are_refused(population, tmp_path, named):
    path = tmp_path / "p.safetensors"
    save_population(population, path)
    tensors, data = read(path, "population")
    row = next(row for row in data["architecture"]["program"]["constants"] if len(row[-1]) >= LARGE)
    row[-1] = {"tensor": named}
    with pytest.raises(wsflow.exceptions.InvalidInputError, match="there is no tensor"):
        write(path, "population", tensors, data)


def test_constants_beyond_memory_are_refused(population, tmp_path, monkeypatch):
    save_population(population, tmp_path / "p.safetensors")
    monkeypatch.setattr(constants, "physical_memory", lambda: LARGE)
    assert_refused(tmp_path / "p.safetensors", "more than this machine's memory")


def test_what_users_write_into_the_provenance_stays_as_it_is(population, tmp_path):
    mine = {"architecture": {"program": {"constants": [["a", "float32", [400], "A" * 2136]]}}}
    save_population(Population(population.weights, provenance=mine), tmp_path / "p.safetensors")
    assert load_population(tmp_path / "p.safetensors").provenance == mine
