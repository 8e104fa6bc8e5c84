"""Names of tasks: the summary names what networks were trained on, and near names are asked about."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

import wsflow
from wsflow.cli.main import main
from wsflow.exceptions import InvalidInputError
from wsflow.populations.datasets import TASKS, easily_mistaken


def populate(folder, task, *arguments, **keywords):
    options = ["-n", "2", "--epochs", "1", "--hidden", "2", "-o", str(folder / "zoo.safetensors")]
    return CliRunner().invoke(main, ["populate", task, *options, *arguments], **keywords)


@pytest.mark.parametrize(
    ("task", "summary"),
    [
        ("digit", "trained on digit (a regression, 64 examples)"),
        ("digit:3", "trained on digit:3 (a regression, 64 examples)"),
        ("digits", "trained on digits (a classification into 10 classes, 1437 examples)"),
        ("iris", "trained on iris (a classification into 3 classes, 120 examples)"),
        ("diabetes", "trained on diabetes (a regression, 353 examples)"),
    ],
)
def test_the_summary_names_the_task(tmp_path, task, summary):
    done = populate(tmp_path, task)
    assert done.exit_code == 0 and summary in done.stdout
    assert ("on its own data" in done.stdout) == (task in ("digit", "digit:3"))


def test_json_names_the_task(tmp_path):
    assert json.loads(populate(tmp_path, "iris", "--json").stdout)["task"] == "iris"


def test_an_image_is_not_taken_for_the_data_set_of_all_without_a_word(tmp_path):
    assert "'digits'" in populate(tmp_path, "digit").stderr
    (tmp_path / "zoo.safetensors").unlink()
    assert "digits" not in populate(tmp_path, "digit:0").stderr


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("\n", 1), ("y\n", 0)])
def test_on_a_terminal_it_is_asked_about(tmp_path, monkeypatch, answer, code):
    monkeypatch.setattr("wsflow.cli.populate.is_terminal", lambda: True)
    done = populate(tmp_path, "digit", input=answer)
    assert "Go on with the image?" in done.stderr and done.exit_code == code
    assert (tmp_path / "zoo.safetensors").exists() == (code == 0)


def test_other_names_are_not_asked_about():
    assert [name for name in TASKS if easily_mistaken(name)] == ["digit"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("digts", "'digits'"),
        ("Iris", "'iris'"),
        ("breast-cancer", "'breast_cancer'"),
        ("minst", "'mnist'"),
        ("fashion-mnist", "'fashion_mnist'"),
        ("wines", "'wine'"),
        ("flowers:2", "'flower'"),
    ],
)
def test_near_names_are_suggested(tmp_path, name, meant):
    with pytest.raises(InvalidInputError, match=f"There is no task '{name}'. Did you mean .*{meant}"):
        wsflow.load_task(name)
    done = populate(tmp_path, name)
    assert done.exit_code == 3 and meant in done.stderr


def test_far_names_are_not_guessed():
    with pytest.raises(InvalidInputError, match=r"There is no task 'imagenet'\. Choose one of"):
        wsflow.load_task("imagenet")
