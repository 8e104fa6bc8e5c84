"""wsflow encode and wsflow merge --method latent: fitting, latents as tables, decoded networks, and refusals."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.pipeline import make_pipeline

import wsflow
from wsflow.cli import main, options
from wsflow.evaluation.merging import METHODS

FAST = ["--components", "3", "-p", "max_iter=3", "-p", "metanetwork.width=8", "-p", "decoder.width=8", "-q"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A population, and an autoencoder that was fitted to it."""
    folder = tmp_path_factory.mktemp("encode")
    population = wsflow.train_population(wsflow.load_task("iris"), hidden=(4,), n_runs=12, epochs=4, snapshots=2)
    wsflow.save_population(population, folder / "zoo.st")
    result = run("encode", folder / "zoo.st", "-o", folder / "auto.st", *FAST, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["networks"] == 24 and found["components"] == 3 and found["loss"] > 0
    return folder


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def encoded(folder, out):
    result = run("encode", folder / "zoo.st", "--model", folder / "auto.st", "-o", out)
    assert result.exit_code == 0, result.output
    assert "24 networks as 3 numbers each" in result.stdout
    return out


def test_a_fit_is_that_of_python(folder):
    loaded = wsflow.load_model(folder / "auto.st")
    weights = wsflow.load_population(folder / "zoo.st").weights
    assert loaded.n_runs_ == 12 and loaded.task.source["name"] == "iris" and loaded.n_iter_ == 3
    assert loaded.metanetwork.width == loaded.decoder.width == 8
    assert np.array_equal(loaded.set_params(random_state=0).transform(weights), loaded.fit(weights).transform(weights))


def test_latents_as_tables(folder, tmp_path):
    weights = wsflow.load_population(folder / "zoo.st").weights
    latents = wsflow.load_model(folder / "auto.st").transform(weights)
    arrays = np.load(encoded(folder, tmp_path / "latents.npz"))
    assert np.array_equal(arrays["latents"], latents) and np.array_equal(arrays["runs"], weights.runs)
    rows = list(csv.DictReader(encoded(folder, tmp_path / "latents.csv").read_text().splitlines()))
    assert np.array_equal([int(row["step"]) for row in rows], weights.steps)
    assert np.array_equal([float(row["metaautoencoder1"]) for row in rows], latents[:, 1])


def test_decoded_networks(folder, tmp_path):
    before = wsflow.load_population(folder / "zoo.st")
    after = wsflow.load_population(encoded(folder, tmp_path / "decoded.st"))
    expected = wsflow.load_model(folder / "auto.st").reconstruct(before.weights)
    assert np.array_equal(after.weights, expected) and np.array_equal(after.weights.runs, before.weights.runs)
    assert after.provenance["quality"]["networks"] == 24


def test_merging(folder, tmp_path):
    out = tmp_path / "merged.st"
    found = run("merge", folder / "zoo.st", "--method", "latent", "--autoencoder", folder / "auto.st", "-o", out, "-q")
    assert found.exit_code == 0, found.output
    model, weights = wsflow.load_model(folder / "auto.st"), wsflow.load_population(folder / "zoo.st").weights
    assert np.array_equal(
        wsflow.load_population(out).weights, wsflow.merge(weights, method="latent", autoencoder=model)
    )


def test_a_pipeline_begins_with_one(folder, tmp_path):
    population = wsflow.load_population(folder / "zoo.st")
    auto = wsflow.load_model(folder / "auto.st")
    flow = wsflow.WeightFlow("euclidean", max_iter=3, random_state=0)
    wsflow.save_model(make_pipeline(auto, flow).fit(population.weights), tmp_path / "flow.st")
    drawn = run("sample", tmp_path / "flow.st", "-n", "2", "-o", tmp_path / "new.st", "-q")
    assert drawn.exit_code == 0, drawn.output
    assert wsflow.load_population(tmp_path / "new.st").architecture == population.architecture
    found = run("encode", tmp_path / "new.st", "--model", tmp_path / "flow.st", "-o", tmp_path / "latents.npz", "-q")
    assert found.exit_code == 0, found.output


def test_the_card_says_what_it_is(folder):
    card = run("info", folder / "auto.st").output
    assert "a network as 3 numbers" in card and "24 networks of 12 runs" in card and "3 steps" in card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "zoo.st", "-o", "latents.csv"], "Pass --model FILE to encode networks"),
        (["encode", "zoo.st", "-o", "new.txt"], "ends in .csv or .npz or .safetensors or .st"),
        (["encode", "zoo.st", "--model", "zoo.st", "-o", "new.csv"], "population"),
        (["encode", "zoo.st", "-o", "new.st", "-p", "size=3"], "size"),
        (["merge", "zoo.st", "-o", "new.st", "--method", "latent"], "go together"),
        (["merge", "zoo.st", "-o", "new.st", "--autoencoder", "auto.st", "--method", "mean"], "together"),
        (["merge", "zoo.st", "-o", "new.st", "--method", "latent", "--autoencoder", "auto.st", "--repair"], "together"),
    ],
)  # fmt: skip
def test_refusals(folder, tmp_path, arguments, message):
    found = run(*(folder / a if (folder / a).exists() else tmp_path / a if "new" in a else a for a in arguments))
    assert found.exit_code != 0 and message in found.output


def test_models_that_encode_nothing_are_refused(folder, tmp_path):
    population = wsflow.load_population(folder / "zoo.st")
    wsflow.save_model(wsflow.ScaleCanonicalizer().fit(population.weights), tmp_path / "other.st")
    found = run("encode", folder / "zoo.st", "--model", tmp_path / "other.st", "-o", tmp_path / "new.csv")
    assert found.exit_code == 3 and "this model encodes no networks" in found.output


def test_choices_are_those_of_the_table():
    assert options.MERGES == METHODS
