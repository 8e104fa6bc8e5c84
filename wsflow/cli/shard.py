"""wsflow shard: split a population into shards, or join them."""

from __future__ import annotations

from pathlib import Path

import click

from wsflow.cli import options
from wsflow.cli.files import Command, check_room
from wsflow.cli.inputs import INDEX, InputFile
from wsflow.cli.rendering import Reporter
from wsflow.memory import check_memory

COPIES = 4  # of the weights of a file while it is written


@click.command(cls=Command)
@click.argument("file", type=InputFile())
@options.networks_out
@click.option("--size", default=128, type=click.IntRange(1), help="MiB of weights in a shard, at least a network.")
@options.common
def shard(file: Path, out: Path, size: int, seed: int, reporter: Reporter) -> None:
    """Write the population of FILE to shards, if OUT ends in .index.json, or else to one file.

    An index and its shards are one population to every command: give the path of the index. The weights of shards
    need not fit into memory. Nothing here is random: --seed changes nothing.

    \b
    Example:
      wsflow shard zoo.safetensors -o zoo.safetensors.index.json --size 64
      wsflow shard zoo.safetensors.index.json -o zoo.safetensors
    """
    import wsflow
    from wsflow.persistence.shards import index_metadata

    with reporter.stage("Writing networks"):
        population = wsflow.load_population(file, mmap=True)
        is_split = out.name.endswith(INDEX)
        check_room(out, population.weights.nbytes)
        if not is_split:
            check_memory(
                f"The copies of {len(population)} networks that are made while one file is written",
                COPIES * population.weights.nbytes,
                "Leave them in shards.",
                share=1.0,
            )
        wsflow.save_population(population, out, shard_size=size * 2**20)
    shards = index_metadata(out)["shards"] if is_split else None
    where = "one file" if shards is None else f"{shards} shard{'s' * (shards != 1)}"
    reporter.show(
        {"path": str(out), "networks": len(population), "shards": shards}, f"{out}: {population}, in {where}."
    )
