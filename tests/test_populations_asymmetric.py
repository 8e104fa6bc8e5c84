"""Populations of networks with common constants, and their controls: what all networks share, and what is trained."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import wsflow
from wsflow import Population, Task, WeightArray
from wsflow.cli.main import main
from wsflow.evaluation.identifiability import neuron_identifiability
from wsflow.layers import asymmetrize
from wsflow.populations.asymmetry import Asymmetry, asymmetry_of
from wsflow.running import forward
from wsflow.running.layer_types import layer_types

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(3, 6)) * 2
Y = np.arange(60) % 3
TASK = Task((CENTRES[Y] + RNG.normal(size=(60, 6))).astype(np.float32), Y)
SETTINGS: dict[str, Any] = {"n_runs": 3, "epochs": 2, "batch_size": 20, "learning_rate": 1e-2, "weight_decay": 0.1}


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


@cache
def trained(**settings: Any) -> Population:
    return wsflow.train_population(TASK, module=network, **SETTINGS, **settings)


def rows(population: Population) -> np.ndarray:
    return np.asarray(population.weights)


def test_constants_stay_where_they_are_and_the_rest_is_trained() -> None:
    population = trained(asymmetry="weights", keep_initial=True)
    table, values = population.architecture, rows(population)
    assert population.weights.steps.tolist() == [0, 6] * 3
    assert (values[:, table.fixed_columns] == table.fixed_values.astype(np.float32)).all()
    free = np.setdiff1d(np.arange(table.n_weights), table.fixed_columns)
    assert (values[0::2, free] != values[1::2, free]).mean() > 0.95
    assert table.groups == ()
    entries = table.fixed_entries
    assert set(entries) == {"0.weight", "3.weight", "5.weight"}
    assert population.provenance["asymmetry"] == {"kind": "weights", "n_fixed": None, "kappa": None, "seed": 0}


def test_first_weights_are_those_of_networks_without_constants() -> None:
    plain, asymmetric = trained(keep_initial=True), trained(asymmetry="weights", keep_initial=True)
    assert plain.architecture.names == asymmetric.architecture.names
    free = np.setdiff1d(np.arange(plain.architecture.n_weights), asymmetric.architecture.fixed_columns)
    assert np.array_equal(rows(plain)[0::2][:, free], rows(asymmetric)[0::2][:, free])


def test_a_row_with_constants_is_a_network_without_masks_too() -> None:
    population, plain = trained(asymmetry="weights"), trained()
    x = torch.from_numpy(TASK.X)
    values = torch.from_numpy(rows(population))
    assert torch.allclose(
        forward(values, population.architecture, x), forward(values, plain.architecture, x), atol=1e-5
    )


def test_the_anchor_begins_at_the_constants_and_trains_them() -> None:
    anchored, fixed = trained(asymmetry="weights", anchor=True, keep_initial=True), trained(asymmetry="weights")
    columns, values = fixed.architecture.fixed_columns, fixed.architecture.fixed_values.astype(np.float32)
    assert anchored.architecture == trained().architecture
    assert (rows(anchored)[0::2][:, columns] == values).all()
    assert (rows(anchored)[1::2][:, columns] != values).mean() > 0.95


def test_the_mask_alone_keeps_zeros() -> None:
    population = trained(asymmetry="mask")
    table = population.architecture
    assert len(table.fixed_columns)
    assert not rows(population)[:, table.fixed_columns].any()


def test_activations_become_gates_of_common_matrices() -> None:
    population = trained(asymmetry="activations", keep_initial=True)
    assert population.architecture.names == trained().architecture.names
    assert population.architecture != trained().architecture
    assert np.array_equal(rows(population)[0::2], rows(trained(keep_initial=True))[0::2])


def test_a_shared_initialisation_is_that_of_run_0() -> None:
    shared, own = trained(shared_initialisation=True, keep_initial=True), trained(keep_initial=True)
    first, last = rows(shared)[0::2], rows(shared)[1::2]
    assert (first == first[0]).all()
    assert np.array_equal(first[0], rows(own)[0])
    assert np.array_equal(last[0], rows(own)[1]), "run 0 is as it was"
    assert not (last[1] == last[0]).all()


def test_runs_do_not_depend_on_how_many_are_trained_at_once() -> None:
    settings = {**SETTINGS, "n_runs": 2, "first_run": 1, "chunk_size": 1}
    later = wsflow.train_population(TASK, module=network, **settings, asymmetry="weights", shared_initialisation=True)
    every = trained(asymmetry="weights", shared_initialisation=True)
    assert later.architecture == every.architecture
    assert np.allclose(rows(later), rows(every)[1:], atol=1e-5)


def test_modules_with_constants_are_trained_as_they_are() -> None:
    module = asymmetrize(network(), torch.from_numpy(TASK.X), seed=2)
    population = wsflow.train_population(TASK, module=module, **SETTINGS, keep_initial=True)
    table, values = population.architecture, rows(population)
    assert (values[:, table.fixed_columns] == table.fixed_values.astype(np.float32)).all()
    assert layer_types(table) == layer_types(trained().architecture)
    plain = wsflow.train_population(TASK, architecture=trained().architecture, **SETTINGS, keep_initial=True)
    free = np.setdiff1d(np.arange(table.n_weights), table.fixed_columns)
    assert np.array_equal(values[0::2][:, free], rows(plain)[0::2][:, free]), "the first values of torch's layers"


def test_attention_has_common_constants() -> None:
    images = Task(RNG.normal(size=(8, 1, 4, 4)).astype(np.float32), [0, 1] * 4)
    population = wsflow.train_population(
        images, architecture="vit:8,1,2", n_runs=2, epochs=1, asymmetry=Asymmetry(kappa=0.5, seed=3)
    )
    table, values = population.architecture, rows(population)
    assert (values[:, table.fixed_columns] == table.fixed_values.astype(np.float32)).all()
    assert any("in_proj_weight" in name for name in table.fixed_entries)
    assert np.isfinite(values).all()


def test_wrong_asymmetries_are_refused() -> None:
    with pytest.raises(ValueError, match="'asymmetry' of train_population is one of activations, mask, weights"):
        trained(asymmetry="both")
    with pytest.raises(ValueError, match="goes with 'asymmetry'"):
        trained(anchor=True)
    with pytest.raises(ValueError, match="choose the asymmetry 'weights'"):
        trained(asymmetry="activations", anchor=True)
    with pytest.raises(ValueError, match="neither an anchor nor fixed entries"):
        wsflow.train_population(TASK, module=network, **SETTINGS, asymmetry=Asymmetry("activations", n_fixed=2))
    with pytest.raises(ValueError, match="'seed' parameter of Asymmetry"):
        asymmetry_of(Asymmetry(seed=-1))


def test_asymmetric_populations_are_saved_with_their_constants(tmp_path: Any) -> None:
    population = trained(asymmetry="weights")
    wsflow.save_population(population, tmp_path / "p.safetensors")
    loaded = wsflow.load_population(tmp_path / "p.safetensors")
    assert loaded.architecture == population.architecture
    assert np.array_equal(loaded.architecture.fixed_values, population.architecture.fixed_values)
    other = wsflow.train_population(TASK, module=network, **SETTINGS, asymmetry=Asymmetry(seed=1))
    with pytest.raises(wsflow.exceptions.InvalidInputError, match="different constants in the layers '0', '3', '5'"):
        wsflow.concatenate([loaded, other])


def test_populate_asymmetric(tmp_path: Any) -> None:
    module, out = tmp_path / "net.py", tmp_path / "p.safetensors"
    module.write_text(
        "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))\n"
    )
    command = ["populate", "iris", "-n", "2", "--epochs", "1", "--module", f"{module}:build", "-o", str(out)]
    extra = ["--asymmetric", "weights", "--kappa", "0.5", "--constants-seed", "4", "--keep-initial"]
    done = CliRunner().invoke(main, [*command, *extra], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    population = wsflow.load_population(out)
    assert population.provenance["asymmetry"] == {"kind": "weights", "n_fixed": None, "kappa": 0.5, "seed": 4}
    assert population.weights.steps.tolist()[::2] == [0, 0]
    checked = CliRunner().invoke(main, ["check", str(out)], catch_exceptions=False)
    assert "no symmetries: proven" in checked.output
    barriers = CliRunner().invoke(main, ["barrier", str(out), "--identify", "--n-points", "1"], catch_exceptions=False)
    assert "have their best match in the neuron of the same place" in " ".join(barriers.output.split())
    refused = CliRunner().invoke(main, [*command[:-1], str(tmp_path / "q.safetensors"), "--kappa", "1"])
    assert refused.exit_code == 2
    assert "go with --asymmetric" in refused.output


def test_neurons_that_are_permuted_are_not_where_they_were() -> None:
    weights = trained().weights
    order = np.roll(np.arange(8), 1)
    table = weights.architecture
    moved = WeightArray(np.array(weights), table)
    for name, axis in (("0.weight", 0), ("0.bias", 0), ("1.weight", 0), ("1.bias", 0), ("3.weight", 1)):
        parameter = next(p for p in table.parameters if p.name == name)
        block = np.asarray(moved)[:, table.slices[name]].reshape(-1, *parameter.shape)
        np.asarray(moved)[:, table.slices[name]] = block.take(order, axis + 1).reshape(len(block), -1)
    assert (neuron_identifiability(weights, weights, TASK) == 1).all()
    # all neurons of one of two layers
    assert np.allclose(neuron_identifiability(trained().weights, moved, TASK), 0.5)
