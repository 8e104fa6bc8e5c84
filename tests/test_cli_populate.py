"""wsflow populate with modules and named architectures, and what commands do with the files afterwards."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from wsflow.cli import main
from wsflow.persistence import load_population
from wsflow.populations.named_architectures import NAMED_ARCHITECTURES

NETWORKS = """
from torch import nn

def make_network():
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10),
    )

def broken():
    raise RuntimeError("no network today")
"""
FEW = ["-n", "4", "--steps", "12", "--batch-size", "32", "-q"]


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "networks.py"
    path.write_text(NETWORKS)
    return path


@pytest.fixture(scope="module")
def zoo(networks):
    path = networks.parent / "zoo.safetensors"
    told = run(
        "populate", "digits", "--module", f"{networks}:make_network", "--dropout", "0:0.4", "--json", *FEW, "-o", path
    )
    result = json.loads(told.stdout)
    assert result["networks"] == 4 and set(result) >= {"accuracy", "loss", "seconds", "architecture"}
    return path


def test_files_need_no_module(zoo, networks):
    held_out = zoo.with_name("held_out.safetensors")
    run("populate", "digits", "--module", f"{networks}:make_network", "--first-run", 4, *FEW, "-o", held_out)
    networks.unlink()
    population = load_population(zoo)
    assert population.architecture.module is None and len(population.architecture.statistic_columns) == 9
    assert population.hyperparameters["dropout"].max() < 0.4
    told = json.loads(run("barrier", zoo, "--json", "-q").stdout)
    assert np.isfinite(told["mean"])
    told = run("evaluate", held_out, "--train", zoo, "-q").output
    assert "accuracy" in told


def test_ranges_are_read(tmp_path):
    path = tmp_path / "zoo.safetensors"
    ranges = ["--steps", "4:9", "--data-fraction", "0.1:0.5", "--initialisation-scale", "0.5:2"]
    options = ["--activation", "tanh", "--initialisation", "kaiming", "--optimizer", "sgd", "-q", "-o", path]
    run("populate", "digits", "-n", 3, "--architecture", "cnn:4", *ranges, *options)
    population = load_population(path)
    assert set(population.hyperparameters) == {"steps", "data_fraction", "initialisation_scale"}
    np.testing.assert_array_equal(population.weights.steps, population.hyperparameters["steps"])
    known = {name: population.provenance[name] for name in ("architecture", "activation", "initialisation")}
    assert known == {"architecture": "cnn:4", "activation": "tanh", "initialisation": "kaiming"}


def test_an_image_is_a_task_of_sirens(tmp_path):
    path = tmp_path / "sirens.safetensors"
    run("populate", "digit:7", "-n", 2, "--architecture", "siren:8,8", "--steps", 5, "-q", "-o", path)
    population = load_population(path)
    assert (
        str(population.architecture).startswith("2-8-8-1 sine") and population.provenance["initialisation"] == "siren"
    )


REFUSED = [
    (["--architecture", "cnn:a"], 2, "sizes of 'cnn'"),
    (["--architecture", "cnm:4"], 2, "no named architecture 'cnm:4'"),
    (["--architecture", "cnn:4", "--hidden", "4"], 2, "got 'hidden' and 'architecture'"),
    (["--architecture", "cnn:4", "--image", "8x8"], 2, "not of the form CHANNELSxHEIGHTxWIDTH"),
    (["--architecture", "cnn:4", "--image", "1x9x9"], 2, "for 64 inputs"),
    (["--architecture", "vit:8,1,3"], 2, "Choose multiples"),
    (["--hidden", "4", "--steps", "0"], 2, "'0' is neither"),
    (["--hidden", "4", "--dropout", "0:1"], 2, "'0:1' is neither"),
    (["--hidden", "4", "--data-fraction", "2"], 2, "'2' is neither"),
    (["--hidden", "4", "--initialisation", "zeros"], 2, "not one of"),
    (["--module", "nowhere.py:make"], 2, "nowhere.py"),
    (["--module", "FILE:broken"], 2, "RuntimeError: no network today"),
    (["--module", "FILE:other"], 2, "has no 'other'"),
]


@pytest.mark.parametrize(("options", "code", "message"), REFUSED)
def test_errors_are_sentences(tmp_path, options, code, message):
    path = tmp_path / "own.py"
    path.write_text(NETWORKS)
    options = [option.replace("FILE", str(path)) for option in options]
    result = run("populate", "digits", *FEW, *options, "-o", tmp_path / "zoo.safetensors", code=code)
    assert message in result.output.replace("\n", " ") and "Traceback" not in result.output
    assert not (tmp_path / "zoo.safetensors").exists()


def test_the_help_names_every_architecture():
    told = run("populate", "--help").output.replace("\n", " ")
    assert all(f"{name}:{row.example.split(',')[0]}" in told for name, row in NAMED_ARCHITECTURES.items())
