"""wsflow score: log-densities of networks under a fitted model."""

from __future__ import annotations

from pathlib import Path

import click

from wsflow.cli import options
from wsflow.cli.rendering import Bars, echo_json, echo_table


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("population", type=click.Path(path_type=Path))
@options.seed
@options.as_json
@options.quiet
def score(model: Path, population: Path, seed: int, as_json: bool, quiet: bool) -> None:
    """Log-density, in nats, of each network of POPULATION under MODEL.

    The density is with respect to the Riemannian volume of the canonical networks, after the model has aligned
    them (samples too, which may move by it); it compares networks under one model, not models, and is higher for
    networks that the model was fitted to. For more than 64 weights it is Hutchinson's estimate, along
    directions of the seed that all networks share.

    \b
    Example:
      wsflow score model.st new.safetensors --json
    """
    import numpy as np

    import wsflow

    loaded = wsflow.load_model(model)
    (loaded[-1] if hasattr(loaded, "steps") else loaded).set_params(random_state=seed)
    networks = wsflow.load_population(population).weights
    with Bars(quiet).stage("Scoring networks"):
        densities = loaded.score_samples(networks)
    if as_json:
        echo_json({"path": str(population), "mean": float(densities.mean()), "log_density": densities.tolist()})
        return
    levels = (0, 0.05, 0.5, 0.95, 1)
    quantiles = np.quantile(densities, levels)
    names = ["mean", "lowest", "5%", "median", "95%", "highest"]
    rows = [[name, f"{value:.1f}"] for name, value in zip(names, [densities.mean(), *quantiles], strict=True)]
    lowest = ", ".join(str(i) for i in np.argsort(densities)[:5])
    echo_table(
        f"{population}: log-density of {len(densities)} networks",
        ["", "nats"],
        rows,
        [f"Least likely networks: {lowest}. All of them: --json."],
    )
