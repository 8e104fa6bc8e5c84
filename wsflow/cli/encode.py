"""wsflow encode: networks as latents, and the networks that are decoded from them."""

from __future__ import annotations

from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsflow.cli import options
from wsflow.cli.files import RESULTS, Command, OutputFile
from wsflow.cli.inputs import InputFile
from wsflow.cli.networks import load_with_task, save_measured
from wsflow.cli.parameters import Parameters, parameter_option
from wsflow.cli.predict import set_metanetwork_parameters
from wsflow.cli.rendering import Reporter
from wsflow.exceptions import InvalidInputError

if TYPE_CHECKING:
    from wsflow.weights import WeightArray

TABLES = (".csv", ".npz")


@click.command(cls=Command)
@click.argument("population", type=InputFile())
@click.option("--model", type=InputFile(), help="An autoencoder that was fitted before, to encode with.")
@click.option(
    "-o",
    "--out",
    required=True,
    type=OutputFile("what is encoded or decoded", (*TABLES, *RESULTS)),
    help="File for latents (.csv, .npz) or decoded networks; without --model, for the fitted autoencoder.",
)
@click.option("--components", default=64, type=click.IntRange(1), help="Numbers of a latent.")
@click.option("--metanetwork", default="probe", type=options.Choice(options.METANETWORKS[1:]))
@options.task_and_module
@parameter_option("Any further parameter of MetaAutoencoder, such as -p noise=0.2 or -p decoder.width=512.")
@options.common
def encode(
    population: Path,
    model: Path | None,
    out: Path,
    components: int,
    metanetwork: str,
    task_name: str | None,
    module: str | None,
    parameters: Parameters,
    seed: int,
    reporter: Reporter,
) -> None:
    """Latents of the networks of POPULATION by an autoencoder, or the networks that it decodes; or fit one to them.

    No symmetry changes a latent. What is decoded is the same network for all networks that are the same function.

    \b
    Example:
      wsflow encode zoo.safetensors -o autoencoder.st
      wsflow encode new.safetensors --model autoencoder.st -o latents.csv
      wsflow encode new.safetensors --model autoencoder.st -o decoded.safetensors
    """
    import wsflow

    if model is None and out.suffix.lower() in TABLES:
        raise click.UsageError("Pass --model FILE to encode networks, or a name in .st to fit an autoencoder to them.")
    loaded, task = load_with_task(population, module, task_name)
    if model is None:
        estimator = wsflow.MetaAutoencoder(components, metanetwork=metanetwork, task=task, random_state=seed)
        set_metanetwork_parameters(estimator, parameters)
        with reporter.stage("Fitting the autoencoder", "steps") as progress:
            estimator.set_params(progress=progress).fit(loaded.weights)
        wsflow.save_model(estimator, out)
    else:
        estimator = load_autoencoder(model)
        if out.suffix.lower() in TABLES:
            _write(out, estimator, loaded.weights)
        else:
            decoded = estimator.reconstruct(loaded.weights)
            save_measured(wsflow.Population(decoded, task, {**loaded.provenance, "decoded": str(model)}), task, out)
    loss = float(estimator.reconstruction_loss(loaded.weights).mean())
    result = {"path": str(out), "networks": len(loaded), "components": estimator.n_components, "loss": loss}
    numbers = f"{len(loaded)} networks as {estimator.n_components} numbers each"
    reporter.show(result, f"{out}: {numbers}; mean loss of what is decoded {loss:.4g}.")


def load_autoencoder(path: Path) -> Any:
    """Load a fitted autoencoder, or the one with which a pipeline begins."""
    import wsflow

    model = wsflow.load_model(path)
    first = model[0] if hasattr(model, "steps") else model
    if not isinstance(first, wsflow.MetaAutoencoder):
        raise InvalidInputError(f"{path}: this model encodes no networks. Fit one that does with wsflow encode.")
    return first


def _write(path: Path, estimator: Any, weights: WeightArray) -> None:
    """Write latents, with the run and the step of each network, as a table or as arrays."""
    import numpy as np

    from wsflow.writing import write_bytes

    latents = estimator.transform(weights)
    if path.suffix.lower() == ".npz":
        file = BytesIO()
        np.savez(file, latents=latents, runs=weights.runs, steps=weights.steps)
        write_bytes(path, file.getvalue())
        return
    text = StringIO()
    text.write(",".join(["run", "step", *estimator.get_feature_names_out()]) + "\n")
    for run, step, row in zip(weights.runs, weights.steps, latents.tolist(), strict=True):
        text.write(",".join([str(run), str(step), *map(repr, row)]) + "\n")
    write_bytes(path, text.getvalue().encode())
