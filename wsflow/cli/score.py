"""wsflow score: log-densities of networks under a fitted model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from wsflow.cli import options
from wsflow.cli.files import Command
from wsflow.cli.inputs import InputFile
from wsflow.cli.networks import load_flow
from wsflow.cli.parameters import Parameters, check_known, parameter_option, set_flow_parameters
from wsflow.cli.rendering import Reporter, echo_table

PARAMETERS = ("solver", "density")


@click.command(cls=Command)
@click.argument("model", type=InputFile())
@click.argument("population", type=InputFile())
@parameter_option("How to integrate, such as -p density.n_probes=32, -p density=hutch++ or -p solver.n_steps=32.")
@options.jobs
@options.common
def score(model: Path, population: Path, parameters: Parameters, seed: int, reporter: Reporter) -> None:
    """Log-density, in nats, of each network of POPULATION under MODEL.

    The density is with respect to the Riemannian volume of the canonical networks, after the model has aligned
    them (samples too, which may move by it); it compares networks under one model, not models, and is higher for
    networks that the model was fitted to. For more than 64 weights it is Hutchinson's estimate, along
    directions of the seed that all networks share; its standard error says how far more directions would move it.

    \b
    Example:
      wsflow score model.st new.safetensors --json
      wsflow score model.st new.safetensors -p density.n_probes=32 -p solver.n_steps=32
    """
    import wsflow

    for path in parameters:
        check_known(path[0], PARAMETERS, "The integration")
    loaded, flow = load_flow(model)
    set_flow_parameters(flow.set_params(random_state=seed), parameters)
    networks: Any = wsflow.load_population(population).weights
    with reporter.stage("Scoring networks"):
        for _, step in getattr(loaded, "steps", [])[:-1]:
            networks = step.transform(networks)
        densities, errors = flow.score_samples(networks, return_std=True)
    result = {"path": str(population), "mean": float(densities.mean()), "log_density": densities.tolist()}
    reporter.show({**result, "standard_error": errors.tolist()}, lambda: _echo(population, densities, errors))


def _echo(population: Path, densities: Any, errors: Any) -> None:
    """Print quantiles, with the standard error of the network at each."""
    import numpy as np

    order = np.argsort(densities, kind="stable")
    ranked = [order[round(level * (len(order) - 1))] for level in (0, 0.05, 0.5, 0.95, 1)]
    names = ["lowest", "5%", "median", "95%", "highest"]
    rows = [[name, f"{densities[i]:.1f}", _error(errors[i])] for name, i in zip(names, ranked, strict=True)]
    # probes are shared, so that errors of networks go together, and their mean bounds that of the mean
    rows.insert(0, ["mean", f"{densities.mean():.1f}", _error(errors.mean())])
    lowest = ", ".join(str(i) for i in order[:5])
    echo_table(
        f"{population}: log-density of {len(densities)} networks",
        ["", "nats", "standard error"],
        rows,
        [f"Least likely networks: {lowest}. All of them: --json."],
    )


def _error(error: float) -> str:
    return "unknown" if math.isnan(error) else "exact" if error == 0 else f"{error:.2f}"
