"""wsflow import: make a population of network files of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wsflow.activations import ACTIVATIONS
from wsflow.cli import options
from wsflow.cli.files import Command, check_room
from wsflow.cli.inputs import Networks, OwnCode, TaskName
from wsflow.cli.own_code import load_module
from wsflow.cli.rendering import Reporter


def _run_numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in (value or "").split(",") if part.strip())
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of numbers such as 0,0,1.") from error


@click.command("import", cls=Command)
@click.argument("paths", nargs=-1, required=True, type=Networks())
@options.networks_out
@click.option(
    "--activation", type=options.Choice(sorted(ACTIVATIONS)), help="What lies between the layers of an MLP or CNN."
)
@click.option("--widths", callback=options.integers, help="Inputs, hidden widths, outputs of an MLP.")
@click.option(
    "--module",
    type=OwnCode(),
    metavar="FILE.py:NAME",
    help="What makes the torch module that the networks belong to; it is run.",
)
@click.option("--input-shape", callback=options.integers, help="Of one input of the module, such as 3,32,32.")
@options.frozen
@click.option(
    "--task", type=TaskName(), metavar="TASK", help="The data set, or a .csv or .npz file, that the networks are for."
)
@click.option("--fold", is_flag=True, help="Put the scaling of .nnet files into the layers.")
@click.option("--key", help="Where the networks are in the files, such as ema_model.")
@click.option("--runs", callback=_run_numbers, help="The run of each network, such as 0,0,1.")
@click.option("--drop-invalid", is_flag=True, help="Leave networks out whose weights are not finite.")
@options.common
def import_(
    paths: tuple[str, ...],
    out: Path,
    activation: str | None,
    widths: tuple[int, ...],
    module: str | None,
    input_shape: tuple[int, ...],
    frozen: tuple[str, ...],
    task: str | None,
    fold: bool,
    key: str | None,
    runs: tuple[int, ...],
    drop_invalid: bool,
    seed: int,
    reporter: Reporter,
) -> None:
    """Make a population of network files: of torch, safetensors, NumPy, Keras, flax, .nnet and .onnx files.

    PATHS are files, folders or patterns; each file is a run of its own. A folder or an archive may be a published zoo,
    with tables of what is known of its networks. A state dict does not say what lies between
    its layers: give --activation for a plain MLP or CNN, else --module. Nothing that a file names is run; the code
    that --module names is. Nothing here is random: --seed and -q are taken as by every command.

    \b
    Example:
      wsflow import networks/ --activation relu -o zoo.safetensors
      wsflow import "runs/*/model.pt" --module networks.py:make_network -o runs.safetensors
    """
    import wsflow

    check_room(out, sum(file.stat().st_size for path in paths for file in Networks().files(path) if file.is_file()))
    loaded = None if task is None else wsflow.load_task(task)
    population = wsflow.load_networks(
        paths,
        activation=activation,
        **_network(widths, activation, module, input_shape, frozen),
        task=loaded,
        fold=fold,
        key=key,
        runs=runs or None,
        on_invalid="drop" if drop_invalid else "error",
    )
    wsflow.save_population(population, out)
    result = {
        "path": str(out),
        "networks": len(population),
        "runs": population.n_runs,
        "architecture": str(population.architecture),
        "groups": {group.name: group.total for group in population.architecture.groups},
        "dtype": str(population.weights.dtype),
        "provenance": population.provenance,
    }
    reporter.show(result, f"{out}: {population}.")


def _network(
    widths: tuple[int, ...],
    activation: str | None,
    module: str | None,
    input_shape: tuple[int, ...],
    frozen: tuple[str, ...],
) -> dict[str, Any]:
    """Return what says which networks are read, as arguments of `load_networks`."""
    if widths and (activation is None or module is not None):
        raise click.UsageError("--widths goes with --activation, and not with --module.")
    if input_shape and module is None:
        raise click.UsageError("--input-shape goes with --module.")
    if frozen and (module is None or activation is not None):
        raise click.UsageError("--frozen goes with --module, and not with --activation.")
    from wsflow.architecture import Architecture

    if module is None:
        return {"architecture": Architecture.mlp(widths, str(activation))} if widths else {}
    import torch

    network, example = load_module(module).eval(), torch.zeros(2, *input_shape) if input_shape else None
    if frozen:
        return {"architecture": Architecture.from_module(network, example, frozen)}
    return {"module": network, "example_input": example}
