"""wsflow import: files of other tools to a population's file, and refusals with exit codes."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import wsflow
from wsflow.cli import main
from wsflow.cli.own_code import load_callable, load_module

CODE = """
from dataclasses import dataclass
import torch
from torch import nn
from beside import WIDTH

@dataclass
class Settings:
    width: "int" = WIDTH

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, Settings().width, 3, stride=2)
        self.norm = nn.BatchNorm2d(WIDTH)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))

number = 3

def needs(argument):
    return argument
"""


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["import", *(str(a) for a in arguments)])
    assert result.exit_code == code, result.output
    return result


def refused(*arguments, code, says):
    result = run(*arguments, code=code)
    assert says in result.stderr and result.stderr.count("\n") == 1 and not result.stdout


@pytest.fixture
def folder(tmp_path):
    """Three perceptrons for the iris data, in files."""
    generator = torch.Generator().manual_seed(0)
    (tmp_path / "nets").mkdir()
    for i in range(3):
        shapes = {"fc1.weight": (5, 4), "fc1.bias": (5,), "fc2.weight": (3, 5), "fc2.bias": (3,)}
        state = {f"module.{name}": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        torch.save({"state_dict": state}, tmp_path / "nets" / f"net_{i}.pt")
    return tmp_path


def test_import_then_everything_else(folder):
    out = folder / "zoo.safetensors"
    said = json.loads(
        run(folder / "nets", "--activation", "relu", "--task", "iris", "-o", out, "--json", "-q", "--seed", 1).stdout
    )
    assert (said["networks"], said["runs"], said["groups"]) == (3, 3, {"hidden1": 5})
    population = wsflow.load_population(out)
    assert population.provenance["networks"] == ["net_0.pt", "net_1.pt", "net_2.pt"]
    assert population.task.n_outputs == 3
    arguments = [folder / "nets" / "net_0.pt", folder / "nets" / "net_2.pt", "--activation", "tanh", "-o", out]
    output = run(*arguments, "--force").stdout
    assert output == f"{out}: 2 networks 4-5-3 tanh (43 weights) of 2 runs.\n"


def test_widths_say_the_architecture_where_the_order_is_not_kept(folder):
    names, widths = ("0.weight", "2.weight", "4.weight"), (4, 5, 5, 2)
    arrays = {name: np.ones((b, a)) for name, a, b in zip(names, widths, widths[1:], strict=False)}
    biases = {name.replace("weight", "bias"): np.ones(len(array)) for name, array in arrays.items()}
    np.savez(folder / "a.npz", **arrays, **biases)
    out = folder / "zoo.safetensors"
    run(folder / "a.npz", "--widths", "4,5,5,2", "--activation", "relu", "-o", out)
    assert str(wsflow.load_population(out).architecture).startswith("4-5-5-2 relu")
    refused(
        folder / "a.npz", "--widths", "4,5,5,2", "-o", out, "--force", code=2, says="--widths goes with --activation"
    )


def test_a_module_of_ones_own_code(folder, monkeypatch):
    (folder / "mine.py").write_text(CODE)
    (folder / "beside.py").write_text("WIDTH = 4\n")
    with torch.random.fork_rng():
        net = load_module(f"{folder}/mine.py:Net")
    torch.save(net.half().state_dict(), folder / "net.pt")
    out = folder / "zoo.safetensors"
    arguments = [folder / "net.pt", "--module", f"{folder}/mine.py:Net", "-o", out]
    with torch.random.fork_rng():
        said = json.loads(run(*arguments, "--input-shape", "1,9,9", "--json").stdout)
    assert list(said["groups"].values()) == [4] and said["dtype"] == "float32"
    assert said["provenance"]["cast_to_float32"] == {"net.pt": ["float16"]}
    refused(*arguments, "--force", code=2, says="--input-shape")


@pytest.mark.parametrize(
    ("frozen", "groups"), [([], [4, 5]), (["0"], [5]), (["2"], []), (["4"], [4]), (["0", "4"], [])]
)
def test_frozen_layers_have_no_symmetries(tmp_path, frozen, groups):
    """Nor have neurons in front of them, whose order their weights depend on."""
    (tmp_path / "mine.py").write_text(
        "from torch import nn\ndef build():\n"
        "    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))\n"
    )
    build, out = f"{tmp_path}/mine.py:build", tmp_path / "zoo.st"
    state = {name: torch.ones(shape) for name, shape in SHAPES.items()}
    torch.save(state, tmp_path / "net.pt")
    options = [word for layer in frozen for word in ("--frozen", layer)]
    said = json.loads(
        run(tmp_path / "net.pt", "--module", build, "--input-shape", "3", *options, "-o", out, "--json").stdout
    )
    assert list(said["groups"].values()) == groups
    assert [group.total for group in wsflow.load_population(out).architecture.groups] == groups


SHAPES = {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (5, 4), "2.bias": (5,), "4.weight": (2, 5), "4.bias": (2,)}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--activation", "relu", "--frozen", "0"], "--frozen goes with --module"),
        (["--module", "mine.py:build", "--activation", "relu", "--frozen", "0"], "and not with --activation"),
        (["--module", "mine.py:build", "--frozen", "0"], "--input-shape"),
        (["--module", "mine.py:build", "--frozen", "7", "--input-shape", "3"], "'7'"),
    ],
)
def test_what_cannot_be_frozen(tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("from torch import nn\ndef build():\n    return nn.Sequential(nn.Linear(3, 2))\n")
    torch.save({"0.weight": torch.ones(2, 3), "0.bias": torch.ones(2)}, "net.pt")
    refused("net.pt", *words, "-o", "zoo.st", code=2, says=says)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("mine.py", "is Python source code, and not of the form FILE.py:NAME"),
        ("nowhere.py:Net", "nowhere.py cannot be imported: FileNotFoundError"),
        ("mine.py:Nett", "has no 'Nett'. Its names are"),
        ("broken.py:x", "broken.py cannot be imported: ZeroDivisionError"),
    ],
)
def test_callables_that_are_not_there(tmp_path, monkeypatch, spec, says):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("x = 1\n")
    Path("broken.py").write_text("1 / 0\n")
    with pytest.raises(ValueError, match=says):
        load_callable(spec)


def test_what_makes_no_module(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\nnumber = 3\ndef needs(x): pass\nmade = torch.nn.Identity()\ndef make(): return made\n"
    )
    for name, says in (("number", "makes a int"), ("needs", "cannot be called without arguments")):
        with pytest.raises(ValueError, match=says):
            load_module(f"{tmp_path}/mine.py:{name}")
    assert all(isinstance(load_module(f"{tmp_path}/mine.py:{name}"), nn.Identity) for name in ("made", "make"))


def test_refusals_have_exit_codes(folder):
    out = folder / "zoo.safetensors"
    nets = folder / "nets"
    refused(nets, "-o", out, code=3, says="pass --activation relu")
    refused(folder / "none.pt", "--activation", "relu", "-o", out, code=3, says="there is no such file")
    refused(nets, "--activation", "relu", "--fold", "-o", out, code=3, says="no constants of normalization")
    refused(nets, "--activation", "relu", "--task", "wine", "-o", out, code=3, says="4 inputs")
    refused(nets, "--activation", "swoosh", "-o", out, code=2, says="swoosh")
    refused(nets, "--activation", "relu", "-o", folder, code=5, says="directory")
    refused(nets, "--activation", "relu", "--input-shape", "3", "-o", out, code=2, says="goes with --module")
    refused(nets / "net_0.pt", "--activation", "relu", "-o", nets / "net_0.pt", code=5, says="would be lost")
    assert not out.exists()
    (nets / "net_1.pt").write_bytes(b"PK\x03\x04")
    refused(nets, "--activation", "relu", "-o", out, code=3, says="net_1.pt")
    torch.save({"module.fc1.weight": torch.full((1, 1), torch.nan)}, nets / "net_1.pt")
    refused(nets / "net_1.pt", "--activation", "relu", "-o", out, code=3, says="not finite")


@pytest.mark.filterwarnings("default")
def test_networks_that_are_not_finite_are_dropped_by_choice(folder):
    state = torch.load(folder / "nets" / "net_1.pt", weights_only=True)["state_dict"]
    state["module.fc1.bias"][0] = torch.inf
    torch.save(state, folder / "nets" / "net_1.pt")
    out = folder / "zoo.safetensors"
    result = run(folder / "nets", "--activation", "relu", "--drop-invalid", "-o", out)
    assert "1 of 3 networks were dropped" in result.stderr and "2 networks" in result.stdout


@pytest.mark.skipif("WSFLOW_NETWORKS" not in os.environ, reason="WSFLOW_NETWORKS is not set")
def test_the_acas_xu_networks(tmp_path):
    with tarfile.open(Path(os.environ["WSFLOW_NETWORKS"], "acasxu_45.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    output = run(tmp_path / "**" / "*.nnet", "--fold", "-o", tmp_path / "zoo.safetensors").stdout
    assert "45 networks 5-50-50-50-50-50-50-5 relu (13305 weights) of 45 runs" in output


def test_an_archive_with_a_table(folder):
    (folder / "nets" / "table.csv").write_text("net,accuracy\nnet_2.pt,0.3\nnet_0.pt,0.1\nnet_1.pt,0.2\n")
    archive = shutil.make_archive(str(folder / "nets"), "gztar", folder / "nets")
    run(archive, "--activation", "relu", "-o", folder / "zoo.safetensors")
    assert wsflow.load_population(folder / "zoo.safetensors").properties["accuracy"].tolist() == [0.1, 0.2, 0.3]
