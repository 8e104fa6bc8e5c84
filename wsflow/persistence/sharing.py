"""Sharing: cards, and models and populations in repositories of the Hugging Face Hub."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wsflow.evaluation.report import Report
from wsflow.exceptions import InvalidInputError
from wsflow.persistence import hub
from wsflow.persistence.card import card_beside, card_of, caveats_of, checksum_in
from wsflow.persistence.description import describe
from wsflow.persistence.models import load_model, save_model
from wsflow.persistence.populations import load_population, save_population
from wsflow.persistence.shards import SHARD_SIZE, is_index
from wsflow.populations.population import Population
from wsflow.writing import write_bytes


def model_card(thing: Any, report: Report | None = None, license: str | None = None) -> str:
    """Describe a model, or a population, as Markdown: data, settings, evidence and caveats.

    Its head is the one that the Hugging Face Hub reads. Caveats follow from what was measured: runs that are few for
    the number of weights, log-densities that are estimated or do not exist, statistics that are not modelled, and data
    that are in the file. The checksum in it says of which file it is the card.

    Parameters
    ----------
    thing : estimator, Pipeline, Population, str or Path
        A fitted model, a population, or the file, the folder or the address (``hf://owner/name``) of one.
    report : Report, optional
        Of `evaluate` or `load_report`: its verdict, and its table of samples and nulls.
    license : str, optional
        Its identifier, such as ``"mit"``.

    Raises
    ------
    InvalidInputError
        If the model is not fitted, the file is damaged, or the license is no identifier.

    References
    ----------
    Mitchell et al. 2019, "Model Cards for Model Reporting", arXiv:1810.03993.

    Examples
    --------
    >>> import numpy as np
    >>> import wsflow
    >>> X = np.random.default_rng(0).normal(size=(50, 2))
    >>> flow = wsflow.WeightFlow("euclidean", max_iter=5, random_state=0).fit(X)
    >>> print(wsflow.model_card(flow, license="mit")[:38])
    ---
    library_name: wsflow
    license: mit
    """
    if isinstance(thing, str | Path):
        data = describe(thing)
        file = hub.local_file(thing, data["kind"])
        place = str(thing) if hub.is_address(thing) else file.name
        return card_of(data, caveats_of(_load(file, data["kind"])), place, report, license)
    with TemporaryDirectory() as folder:
        file = _save(thing, Path(folder))
        return card_of(describe(file), caveats_of(thing), file.name, report, license)


def push_to_hub(
    thing: Any,
    repo_id: str,
    *,
    report: Report | None = None,
    license: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    message: str | None = None,
) -> str:
    """Put a model, or a population, and its card into a repository of the Hugging Face Hub, in one commit.

    Models are in repositories of models, as ``model.safetensors``, and populations in those of data sets, as
    ``population.safetensors`` or, where they are large, in shards; the card is ``README.md``. A file that has its card
    beside it (`save_model`) is sent with that card, which may have been written further by hand.

    It needs huggingface_hub: ``pip install 'wsflow[hub]'``.

    Parameters
    ----------
    thing : estimator, Pipeline, Population, str or Path
        A fitted model, a population, or the file of one.
    repo_id : str
        ``"owner/name"``; the repository is made if it is not there.
    report, license
        As those of `model_card`.
    private : bool, optional
        Whether a new repository is private; by default as the owner has it.
    revision : str, optional
        The branch (default: ``"main"``).
    token : str or bool, optional
        By default that of ``hf auth login``.
    message : str, optional
        Of the commit.

    Returns
    -------
    str
        The address that `load_model` or `load_population` takes.

    Raises
    ------
    InvalidInputError
        If it cannot be saved, the card beside a file is that of another, or huggingface_hub is not installed.
    OutputError
        If it could not be uploaded.

    Examples
    --------
    >>> import wsflow
    >>> address = wsflow.push_to_hub("model.st", "owner/iris-flow", license="mit")  # doctest: +SKIP
    >>> networks = wsflow.sample(wsflow.load_model(address), 100)  # doctest: +SKIP
    """
    hub.check_name(repo_id)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        file = _copy(Path(thing), folder) if isinstance(thing, str | Path) else _save(thing, folder)
        data = describe(file)
        kind = data["kind"]
        address = f"hf://{'datasets/' * (kind == 'population')}{repo_id}"
        written = _card_of(Path(thing), data["checksum"]) if isinstance(thing, str | Path) else None
        if written is None or report is not None:
            loaded = _load(file, kind) if isinstance(thing, str | Path) else thing
            written = card_of(data, caveats_of(loaded), address, report, license)
        write_bytes(folder / hub.CARD, written.encode())
        hub.upload(folder, repo_id, kind, revision=revision, token=token, private=private, message=message)
    return address


def from_pretrained(
    repo_id: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Any:
    """Load a model from a repository of the Hugging Face Hub, or from a folder with the same files.

    The file is checked as every file is (`load_model`): nothing in it is run. It needs huggingface_hub, except for a
    folder: ``pip install 'wsflow[hub]'``.

    Parameters
    ----------
    repo_id : str or Path
        ``"owner/name"``, with or without ``hf://`` before it, or a folder that has a ``model.safetensors``.
    revision : str, optional
        A branch, a tag or a commit.
    token : str or bool, optional
        By default that of ``hf auth login``.
    cache_dir : path, optional
        Where downloaded files are kept.
    local_files_only : bool
        Whether to take what was downloaded before, without a network.

    Returns
    -------
    estimator or Pipeline

    Raises
    ------
    InvalidInputError
        If it could not be downloaded, is damaged or something else, or huggingface_hub is not installed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import wsflow
    >>> X = np.random.default_rng(0).normal(size=(50, 2))
    >>> flow = wsflow.WeightFlow("euclidean", max_iter=5, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     wsflow.save_model(flow, pathlib.Path(folder, "model.safetensors"), card=True)
    ...     loaded = wsflow.from_pretrained(folder)
    >>> bool((loaded.sample(3, random_state=0) == flow.sample(3, random_state=0)).all())
    True
    """
    options: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    if revision is not None:
        options["revision"] = revision
    place = repo_id if Path(repo_id).exists() or hub.is_address(repo_id) else f"hf://{hub.check_name(str(repo_id))}"
    return load_model(hub.local_file(place, "model", **options))


def _load(file: Path, kind: str) -> Any:
    return load_model(file) if kind == "model" else load_population(file)


def _save(thing: Any, folder: Path) -> Path:
    """Save a model or a population under its name in a folder, and return its file."""
    if not isinstance(thing, Population):
        file = folder / hub.FILES["model"][0][0]
        save_model(thing, file)
        return file
    index, single = hub.FILES["population"][0]
    file = folder / (index if thing.weights.nbytes > SHARD_SIZE else single)
    save_population(thing, file)
    return file


def _copy(path: Path, folder: Path) -> Path:
    """Copy a file to a folder under the name that it has there, bit by bit, but for shards, which have their names."""
    kind = describe(path)["kind"]
    loaded = _load(path, kind)
    if is_index(path):
        file = folder / hub.FILES["population"][0][0]
        save_population(loaded, file)
        return file
    file = folder / hub.FILES[kind][0][-1]
    shutil.copyfile(path, file)
    return file


def _card_of(path: Path, checksum: str) -> str | None:
    """Return the card beside a file, which must be that of the file; None where there is none."""
    beside = card_beside(path)
    if not beside.is_file():
        return None
    text = beside.read_text(encoding="utf-8")
    if checksum_in(text) != checksum:
        raise InvalidInputError(
            f"{beside}: this is not the card of {path}: it does not have its checksum {checksum[:12]}... Write it "
            f"again with wsflow card {path} -o {beside} --force, or move it away."
        )
    return text
