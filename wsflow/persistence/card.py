"""Cards: what is known of a model or of a population, as Markdown with the head that the Hugging Face Hub reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsflow.evaluation.report import Report
from wsflow.evaluation.verdict import RUNS_PER_WEIGHT
from wsflow.exceptions import InvalidInputError, OutputError
from wsflow.persistence.summary import summary, title
from wsflow.populations.datasets import is_reproducible
from wsflow.populations.population import Population
from wsflow.writing import check_target

TAGS = ("wsflow", "weight-space-learning", "neural-network-weights")
# class of the last step -> what its model does, and how that is called
USES: dict[str, tuple[str, str]] = {
    "WeightFlow": ("It draws new networks.", "networks = wsflow.sample(model, 100)"),
    "MetaAutoencoder": ("It encodes networks as latents.", "latents = model.transform(weights)"),
    "MetaClassifier": ("It reads the class of a network from its weights.", "classes = model.predict(weights)"),
    "MetaRegressor": ("It reads a number of a network from its weights.", "numbers = model.predict(weights)"),
    "VariationalNetwork": ("It predicts by the average of networks.", "predictions = model.predict(X)"),
}
SUFFIXES = (".st", ".safetensors")
TRANSFORMS = ("It brings networks to a common form.", "weights = model.transform(weights)")
CHECKSUM = re.compile(r"^\| checksum \| ([0-9a-f]{64}) \|$", re.MULTILINE)


def card_of(
    data: Mapping[str, Any],
    caveats: Iterable[str],
    place: str,
    report: Report | None = None,
    license: str | None = None,
) -> str:
    """Return the card of a file by its description; `place` is where the file is loaded from."""
    kind = data["kind"]
    does, call = USES.get(data["steps"][-1]["class"], TRANSFORMS) if kind == "model" else ("", "population.weights")
    lead = title(data)
    code = f"import wsflow\n\n{kind} = wsflow.load_{kind}({json.dumps(place)})\n{call}"
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    file = {"format": str(data["format"]), "written by": versions, "checksum": data["checksum"]}
    sections = {
        "": f"{does}\n\n```python\n{code}\n```".strip(),
        "Data and settings": _facts(summary(data)),
        "Evidence": _evidence(report, kind),
        "Caveats": _list(caveats) or "None was found by what is known of it.",
        "File": _facts(file),
    }
    body = "\n\n".join(f"## {name}\n\n{text}" if name else text for name, text in sections.items())
    return f"{_head(license)}\n# {_text(lead[0].upper() + lead[1:])}\n\n{body}\n"


def checksum_in(text: str) -> str | None:
    """Return the checksum of the file whose card this is; None where this is no card of wsflow."""
    found = CHECKSUM.search(text)
    return found.group(1) if found else None


def card_beside(path: str | Path) -> Path:
    """Return the path of the card of a file: model.md beside model.st."""
    path = Path(path)
    name = path.name.removesuffix(".index.json")
    return path.with_name(f"{Path(name).stem if Path(name).suffix in SUFFIXES else name}.md")


def check_beside(path: str | Path) -> Path:
    """Return the path of the card of a file, where nothing else may be."""
    beside = check_target(card_beside(path))
    if beside.exists() and checksum_in(beside.read_text(encoding="utf-8", errors="replace")) is None:
        raise OutputError(
            f"{beside}: this file is no card of wsflow, and would be lost. Move it, or give another path."
        )
    return beside


def caveats_of(thing: Any) -> Iterator[str]:
    """Yield what a user of a fitted model, or of a population, should know, as far as it was measured."""
    if isinstance(thing, Population):
        yield from _of_population(thing)
        return
    last = thing[-1] if hasattr(thing, "steps") else thing
    architecture, n_runs = (getattr(last, name, None) for name in ("architecture_", "n_runs_"))
    if architecture is not None and n_runs is not None:
        needed = round(RUNS_PER_WEIGHT * architecture.n_weights)
        if n_runs < needed:
            yield (
                f"Few runs: it was fitted to {n_runs} of networks with {architecture.n_weights} weights. With fewer "
                f"than about {needed}, samples tend towards copies of training networks."
            )
    if type(last).__name__ == "WeightFlow":
        yield from _of_flow(last)
    yield from _of_task(getattr(last, "task", None))


def _of_flow(flow: Any) -> Iterator[str]:
    model, architecture = flow.model_, flow.architecture_
    if architecture is not None and len(architecture.statistic_columns):
        yield (
            "Running statistics of batch norms are not modelled: they are computed for each sample, on inputs of the "
            "task, or of `sample(task=...)`."
        )
    if model.no_density:
        yield f"Samples have no log-density. {model.no_density}"
        return
    size, estimator = model.geometry.manifold.size, model.settings.density
    if not estimator.divergence(size).is_exact:
        yield (
            f"Log-densities are estimated, with {estimator.n_probes} probes in {size} dimensions: take their standard "
            "errors from `score_samples(X, return_std=True)`."
        )
    yield "Log-densities compare with those of flows of the same geometry behind the same steps alone."


def _of_population(population: Population) -> Iterator[str]:
    if population.n_runs < len(population):
        yield "Networks of one run resemble each other: hold out whole runs, by `population.weights.runs`."
    if not population.architecture.is_runnable:
        yield "The networks do not run by themselves: their module is needed."
    yield from _of_task(population.task)


def _of_task(task: Any) -> Iterator[str]:
    if task is None:
        return
    if is_reproducible(task):
        yield "The data of the task are not in the file: where they cannot be loaded, the task is None."
    else:
        yield "The data of the task are in the file, for everybody who has it."


def _head(license: str | None) -> str:
    if license is not None and (not isinstance(license, str) or not re.fullmatch(r"[\w.+-]+", license)):
        raise InvalidInputError(
            f"The 'license' of a card is an identifier such as 'mit' or 'cc-by-4.0', got {license!r}."
        )
    known = [] if license is None else [f"license: {license}"]
    return "\n".join(["---", "library_name: wsflow", *known, "tags:", *(f"- {tag}" for tag in TAGS), "---", ""])


def _evidence(report: Report | None, kind: str) -> str:
    if report is None:
        remedy = "Measure it with `wsflow evaluate -o report.json`, and write the card with the report."
        return (
            "Nothing was measured, but for what the table above says."
            if kind == "population"
            else (f"How good and how new what comes of it is was not measured. {remedy}")
        )
    counts = report.counts
    measured = (
        f"{counts['samples']} samples beside {counts['training']} training networks of {counts['training_runs']} runs, "
        f"{counts['held_out']} networks of {counts['held_out_runs']} held-out runs, and {len(report.nulls)} trivial "
        "generators (nulls)"
    )
    judged = ", ".join(str(report.provenance[name]) for name in ("task", "judged on") if name in report.provenance)
    return "\n\n".join(
        [_list(report.verdict), _table(report.table()), _text(f"{measured}; {judged or 'task unknown'}.")]
    )


def _list(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {_text(sentence)}" for sentence in sentences)


def _facts(facts: Mapping[str, str]) -> str:
    return _table([["fact", "value"], *([name, value] for name, value in facts.items())])


def _table(rows: Sequence[Sequence[str]]) -> str:
    header, *body = [f"| {' | '.join(map(_text, row))} |" for row in rows]
    return "\n".join([header, f"|{' --- |' * len(rows[0])}", *body])


def _text(text: str) -> str:
    """Return a text that neither ends a cell or a line nor begins a tag, whatever a file says."""
    return " ".join(str(text).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
