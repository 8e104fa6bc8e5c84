"""wsflow check: are the symmetries of a network what they are taken to be?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from wsflow.cli import options
from wsflow.cli.files import Command
from wsflow.cli.inputs import InputFile, OwnCode
from wsflow.cli.networks import fitting_module
from wsflow.cli.own_code import load_module
from wsflow.cli.rendering import Reporter, echo_table

# seconds before a bar is shown
PATIENCE = 2.0
# names of a line
SHOWN = 4


@click.command(cls=Command)
@click.argument("source")
@click.option(
    "--input",
    "shapes",
    multiple=True,
    help="Shape of an example input, such as 2,3,32,32; i:2,16 for integers. Once for each argument of forward.",
)
@options.frozen
@click.option("--output", metavar="NAME", help="What counts of several outputs: a field, a key or a position.")
@click.option(
    "--architecture",
    type=InputFile(),
    help="Check this description (JSON of Architecture.to_json) instead of tracing.",
)
@click.option("--module", type=OwnCode(), metavar="FILE.py:NAME", help="What runs the networks of a population.")
@click.option("-n", "--trials", default=3, type=click.IntRange(1), help="Random networks to try.")
@options.common
def check(
    source: str,
    shapes: tuple[str, ...],
    frozen: tuple[str, ...],
    output: str | None,
    architecture: Path | None,
    module: str | None,
    trials: int,
    seed: int,
    reporter: Reporter,
) -> None:
    """Find the symmetries of SOURCE, and prove them with random weights and random group elements.

    SOURCE is FILE.py:NAME, a function or class of yours that returns a torch module, or a population that wsflow
    wrote (with --module, where its networks do not run themselves). Outputs are compared in float64; a deviation
    above 1e-10 is an error. What canonical forms and alignment bring only near one point is named, and so are layers
    that could change places with all their weights. Where constants tell neurons apart, as in asymmetric layers, it
    says which symmetries remain: none, if that is proven.

    \b
    Example:
      wsflow check model.py:build --input 2,3,32,32
      wsflow check zoo.safetensors
    """
    inputs = _example(shapes, seed)
    with reporter.stage("Reading the module", after=PATIENCE) as progress:
        network, table = _network(source, inputs, (frozen, output, progress), architecture, module)
    from wsflow.exceptions import NumericalError
    from wsflow.tracing import certify, certify_orbits, exchangeable_layers
    from wsflow.tracing.certificate import TOLERANCE

    certificate = certify(table, network, inputs, trials, seed)
    alike = exchangeable_layers(table, network, inputs, trials, seed)
    result = _result(table, certificate, certify_orbits(table, trials, seed), alike)
    result["constants"] = _remaining(table, network, inputs, (frozen, output))
    reporter.show(result, lambda: _print(result))
    if not certificate.deviation <= TOLERANCE:
        raise NumericalError(
            f"outputs change by {certificate.deviation:.2g} of the largest: these symmetries are wrong at "
            f"{', '.join(certificate.wrong) or 'some combination of generators'}. Correct the description, or let "
            "wsflow find the symmetries: leave out --architecture."
        )


def _network(
    source: str, example: Any, reading: tuple[Any, ...], description: Path | None, runs: str | None
) -> tuple[Any, Any]:
    """Return a module (None for networks that run themselves) and an architecture, by further arguments of reading."""
    from wsflow.architecture import Architecture
    from wsflow.architecture.modules import is_sequential

    if ":" not in Path(source).name and Path(source).suffix != ".py" and not Path(f"{source}.py").is_file():
        from wsflow.persistence import load_population

        if description is not None or reading[0]:
            raise click.UsageError("--architecture and --frozen go with FILE.py:NAME: a population has its own.")
        table = load_population(source).architecture
        if not table.is_runnable and (runs is None or example is None):
            raise ValueError(
                f"The networks of {source} do not run themselves: say what runs them, with --module FILE.py:NAME, and "
                "the shape of its input, such as --input 2,3,32,32."
            )
        return fitting_module(runs, table, Path(source)) if runs else None, table
    module = load_module(source)
    if description is not None:
        return module, _read_description(description)
    if example is None and not is_sequential(module):
        raise ValueError(
            f"{source} is a {type(module).__name__}: say the shape of its input, such as --input 2,3,32,32."
        )
    table = Architecture.from_module(module, example, *reading)
    # what was read returns what counts of the output
    return table.module or module, table


def _read_description(path: Path) -> Any:
    from wsflow.architecture import Architecture
    from wsflow.exceptions import InvalidInputError
    from wsflow.populations.file_kinds import JSON, head_of, kind_of

    what, _ = kind_of(head_of(path), path.suffix) or ("a file of another kind", "")
    if what != JSON:
        raise InvalidInputError(f"{path}: this is {what}, and no description of an architecture in JSON.")
    try:
        return Architecture.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path}: {error}") from error


def _example(shapes: tuple[str, ...], seed: int) -> Any:
    """Draw random inputs of the given shapes, one for each argument of the module."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for text in shapes:
        kind, _, rest = text.rpartition(":")
        try:
            sizes = [int(part) for part in rest.split(",")]
        except ValueError as error:
            raise ValueError(f"The --input {text!r} is no shape such as 2,3,32,32 or i:2,16.") from error
        if kind not in ("", "i") or min(sizes) < 1:
            raise ValueError(f"The --input {text!r} is no shape such as 2,3,32,32 or i:2,16.")
        if kind == "i":
            tensors.append(torch.randint(2, sizes, generator=generator))
        else:
            tensors.append(torch.randn(sizes, generator=generator))
    return tuple(tensors) if tensors else None


def _remaining(table: Any, module: Any, example: Any, reading: tuple[Any, ...]) -> str | None:
    """Say which symmetries the networks' constants leave, or nothing where they have none."""
    import torch

    from wsflow.exceptions import InvalidInputError
    from wsflow.tracing import remaining_of_module

    program = table.program
    module = module or table.executable
    if module is None or not (table.constants or (program is not None and program.constants)):
        return None
    if example is None:
        if program is None or any(known.dtype != "weights" for known in program.inputs):
            return None
        generator = torch.Generator().manual_seed(0)
        example = tuple(torch.randn(known.shape, generator=generator) for known in program.inputs)
    try:
        found = remaining_of_module(module, example, *reading)
    except InvalidInputError:
        # it could be read before, and does without what this would say
        return None
    return None if found is None else str(found[0])


def _result(table: Any, certificate: Any, orbits: Any, alike: Sequence[Sequence[str]]) -> dict[str, Any]:
    groups = [{"name": g.name, "size": g.size, "parent": g.parent.name if g.parent else None} for g in table.groups]
    wires = [{"name": w.name, "size": w.space.total, "scalings": sorted(w.scalings)} for w in table.wires if w.scalings]
    return {
        "weights": table.n_weights,
        "groups": groups,
        "wires": wires,
        "deviation": certificate.deviation,
        "wrong": certificate.wrong,
        "idle": list(certificate.idle),
        "orbit_deviation": orbits.deviation,
        "approximations": list(orbits.approximations),
        "exchangeable": [list(layers) for layers in alike],
    }


def _print(result: dict[str, Any]) -> None:
    rows = [
        [g["name"], str(g["size"]), "permutations" + (f" in {g['parent']}" if g["parent"] else "")]
        for g in result["groups"]
    ]
    rows += [[w["name"], str(w["size"]), ", ".join(w["scalings"])] for w in result["wires"]]
    footer = [f"Random elements of this group change outputs by at most {result['deviation']:.1e} of the largest."]
    footer += [f"Only nearly aligned: {sentence}" for sentence in result["approximations"]] or [
        f"In canonical form and aligned, members of an orbit are {result['orbit_deviation']:.1e} apart."
    ]
    footer += [
        f"Not aligned: {_listed(layers)} could exchange their weights, but permutations act within parameters alone."
        for layers in result["exchangeable"]
    ]
    footer += [f"Constants tell neurons apart: {result['constants']}."] if result["constants"] else []
    echo_table(f"Symmetries of {result['weights']:,} weights", ["neurons", "number", "acts by"], rows, footer)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= SHOWN else f"{names[0]}, ..., {names[-1]}"
