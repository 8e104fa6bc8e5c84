"""Implicit representations: a run for each image, labels that follow the rows, and refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import wsflow
from wsflow import MetaClassifier, Population
from wsflow.cli import main
from wsflow.exceptions import InvalidInputError
from wsflow.models.metanetworks import Probe
from wsflow.populations import image_task
from wsflow.populations.representations import train_representations
from wsflow.running import forward


def blobs(n=6, side=7):
    """Images of one smooth spot each, and in which half it is."""
    rng = np.random.default_rng(0)
    centres = rng.uniform(-0.8, 0.8, (n, 2))
    axis = np.linspace(-1, 1, side)
    rows, columns = np.meshgrid(axis, axis, indexing="ij")
    distance = (rows - centres[:, :1, None]) ** 2 + (columns - centres[:, 1:, None]) ** 2
    return np.exp(-4 * distance), np.where(centres[:, 0] > 0, "low", "high")


@pytest.fixture(scope="module")
def known():
    images, labels = blobs()
    return images, labels, train_representations(images, labels, architecture="siren:8,8", steps=150)


def errors(weights, images):
    inputs = torch.from_numpy(image_task(images[0]).X)
    outputs = forward(torch.from_numpy(np.asarray(weights)), weights.architecture, inputs)[..., 0]
    return (outputs.numpy() - images.reshape(len(images), -1)) ** 2


def test_each_run_holds_its_own_image(known):
    images, _, population = known
    own = errors(population.weights, images).mean(1)
    assert (own < 0.002).all()
    others = errors(population.weights, np.roll(images, 1, 0)).mean(1)
    assert (others > 5 * own).all()
    np.testing.assert_allclose(population.task.y[:, 0], images.mean(0).ravel(), atol=1e-6)


def test_the_default_networks_are_those_of_public_collections():
    population = train_representations(np.zeros((2, 4, 4)), steps=1, keep_initial=True, learning_rate=1e-9)
    assert [layer.kind for layer in population.architecture.layers] == ["linear", "sine"] * 2 + ["linear"]
    first = population.weights[population.weights.steps == 0]
    assert population.architecture.n_weights == 2 * 32 + 32 + 32 * 32 + 32 + 32 + 1
    np.testing.assert_array_equal(first[:, -1], 0.5)
    assert np.abs(first[:, :64]).max() <= 3**0.5 / 30 and population.labels is None


def test_images_of_integers_and_colours():
    images = np.random.default_rng(0).integers(256, size=(2, 5, 4, 3), dtype=np.uint8)
    population = train_representations(images, architecture="siren:4", steps=2)
    np.testing.assert_allclose(population.task.y, images.mean(0).reshape(20, 3) / 255, atol=1e-6)


def test_labels_follow_rows_files_and_joined_populations(known, tmp_path):
    _, labels, population = known
    np.testing.assert_array_equal(population.labels, labels)
    np.testing.assert_array_equal(population[[4, 1]].labels, labels[[4, 1]])
    joined = wsflow.concatenate([population, population[::-1]], runs="shared")
    np.testing.assert_array_equal(joined.labels, np.concatenate([labels, labels[::-1]]))
    wsflow.save_population(population, tmp_path / "images.st")
    np.testing.assert_array_equal(wsflow.load_population(tmp_path / "images.st").labels, labels)
    plain = Population(population.weights, provenance={"labels": {"run": [0], "label": [1]}})
    with pytest.raises(InvalidInputError, match="no labels of run 1"):
        _ = plain.labels


def test_snapshots_have_the_label_of_their_run():
    population = train_representations(np.zeros((2, 4, 4)), [3, 7], architecture="siren:4", steps=9, snapshots=2)
    np.testing.assert_array_equal(population.labels, [3, 3, 7, 7])


def test_a_classifier_reads_the_label(known, tmp_path):
    _, labels, population = known
    model = MetaClassifier(Probe(16, 1, n_probes=8), max_iter=60, random_state=0)
    assert (model.fit(population.weights, population.labels).predict(population.weights) == labels).all()
    wsflow.save_population(population, tmp_path / "images.st")
    arguments = ["predict", str(tmp_path / "images.st"), "--target", "label", "-o", str(tmp_path / "model.st")]
    settings = ["--metanetwork", "statistics", "-p", "max_iter=3", "--held-out", "0", "-q", "--json"]
    found = CliRunner().invoke(main, [*arguments, *settings, "--classes"])
    assert found.exit_code == 0 and json.loads(found.stdout)["networks"] == 6, found.output
    assert "Pass --classes" in CliRunner().invoke(main, [*arguments, *settings, "--force"]).output


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((3, 49)), None, r"got \(3, 49\). Rows of pixels"),
        (np.zeros((0, 4, 4)), None, "got"),
        (np.zeros((2, 4, 4)), ["a"], r"'labels' of 2 images are 2 of them, got shape \(1,\)"),
        (np.zeros((2, 4, 4), dtype=int), None, "reals or unsigned integers"),
    ],
)
def test_refusals(images, labels, message):
    with pytest.raises(InvalidInputError, match=message):
        train_representations(images, labels)
