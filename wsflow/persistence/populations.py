"""Populations as files: safetensors, in one file or in shards with an index."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.mapped import chunks
from wsflow.persistence.format import decoding
from wsflow.persistence.population_files import encode_population, read_in_place, read_population
from wsflow.persistence.shards import SHARD_SIZE, Shard, is_index, read_index, write_shards
from wsflow.populations.population import Population, check_finite, check_on_invalid, not_finite
from wsflow.writing import check_target, write_bytes


def save_population(population: Population, path: str | Path, shard_size: int = SHARD_SIZE) -> None:
    """Write a population to a safetensors file, or to shards with an index, whole or not at all.

    There is one tensor for each parameter, under its state-dict name and stacked over networks, besides
    ``wsflow.run`` and ``wsflow.step``; everything else is JSON in the metadata. The same population gives the
    same bytes.

    A path that ends in ``.index.json``, such as ``zoo.safetensors.index.json``, is that of an index. Beside it the
    networks lie in shards ``zoo-00001-of-00005-CHECKSUM.safetensors``, each of which is a population of its own; the
    first has the task and the provenance. The index is written last: until then what was there before opens.

    Parameters
    ----------
    population : Population
    path : path
    shard_size : int
        Bytes of weights in a shard. Writing takes about four times as much memory.

    Raises
    ------
    InvalidInputError
        If there is no network, or something in the provenance is not JSON data: what could not be loaded again.
    NumericalError
        If a weight is not finite; the network and the parameter are named.
    OutputError
        If the path is a directory, a link or read-only, or the disk is full; what was there is intact.
    ValueError
        If `shard_size` is not positive.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.persistence import load_population, save_population
    >>> from wsflow.populations import Population
    >>> from wsflow.weights import WeightArray
    >>> population = Population(WeightArray(np.ones((5, 23)), Architecture.mlp([4, 3, 2])))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_population(population, pathlib.Path(folder, "zoo.safetensors"))
    ...     print(load_population(pathlib.Path(folder, "zoo.safetensors")))
    5 networks 4-3-2 relu (23 weights) of 5 runs
    """
    if not isinstance(population, Population):
        raise InvalidInputError(
            f"save_population takes a Population, got {type(population).__name__}. Make one of a WeightArray with "
            "Population(weights, task)."
        )
    weights = population.weights
    if not len(weights):
        raise InvalidInputError("This population has no networks: at least one is needed to save it.")
    if problem := not_finite(weights):
        raise NumericalError(f"{path}: nothing was written: {problem}. Leave such networks out, or train them again.")
    if not is_index(path):
        check_target(path)
        write_bytes(path, encode_population(population, path)[0])
        return
    if not shard_size > 0:
        raise ValueError(f"The 'shard_size' of save_population is a number of bytes, at least 1, got {shard_size!r}.")
    rows = list(chunks(len(weights), weights[:1].nbytes, int(shard_size)))
    parts = (population[part] if part.start == 0 else Population(weights[part]) for part in rows)
    encoded = ((*encode_population(part, path), len(part)) for part in parts)
    write_shards(Path(path), encoded, len(rows), {"networks": len(weights), "runs": population.n_runs})


def load_population(
    path: str | Path, on_invalid: Literal["error", "drop"] = "error", mmap: bool | None = None
) -> Population:
    """Read a population that `save_population` wrote, bit by bit, from one file or from the index of its shards.

    Parameters
    ----------
    on_invalid : {"error", "drop"}
        What to do with networks that have weights which are not finite.
    mmap : bool, optional
        Whether the weights need not fit into memory: they are then copied, and checked, to a file without a name
        beside `path` (or, where nothing can be written there, among temporary files) that is mapped into memory, and
        goes when they are no longer used. By default shards are, and a single file is not.

    Returns
    -------
    Population
        Its task is None, with a warning, if the task's data are not where they were or not what they were.

    Raises
    ------
    InvalidInputError
        If the file, or a shard, is damaged or something else, or has weights that are not finite.
    OutputError
        If the disk has no room for the weights to be mapped.
    ValueError
        If `on_invalid` is neither of the two.

    See Also
    --------
    save_population : with an example.
    """
    check_on_invalid(on_invalid, "load_population")
    path = Path(path)
    if not is_index(path) and not mmap:
        population = read_population(path)
    else:
        shards = read_index(path) if is_index(path) else [Shard(path)]
        population = read_in_place(path, shards, mmap is not False)
    with decoding(path, "population"):
        return replace(population, weights=check_finite(population.weights, on_invalid, str(path)))
