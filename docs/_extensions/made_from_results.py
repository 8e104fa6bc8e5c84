"""Directives that make tables and a picture of what the benchmarks wrote; what is not measured yet, they say."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from wsflow.evaluation.measures import FORECASTS, OOD

Row = Mapping[str, Any]

STAGES = ("training runs", "held-out runs", "alignment", "flow", "samples", "evaluation")
AVERAGED = "averaged_50"
# of guided networks
GUIDED = ("accuracy", "loss", "average")
# by settings of the flow
CHANGED = ("accuracy", "loss", "novelty", "dispersion", "copies")
# of model averages: key -> title
SCORES = {key: row.label for key, row in (FORECASTS | OOD).items() if row.only == "classification"}
# of variational networks: their order, and key -> title
VARIATIONAL = ("standard", "He", "W", "anchor", "mask alone", "W on He")
VARIATIONAL += tuple(f"{arm}, norms" for arm in VARIATIONAL[:3])
FORECAST = {key: FORECASTS[key].label for key in ("accuracy", "nll", "ece")}
# of predictors: title -> key, and what stands beside them
MOVED = {
    "R2 or accuracy": "clean",
    "moved": "moved",
    "tau": "tau",
    "tau, moved": "tau_moved",
    "90% covered": "covered",
    "covered, moved": "covered_moved",
    "width": "width",
}
CONTROLS = {
    "statistics, raw": "statistics of raw weights have",
    "mlp, raw": "a perceptron on raw weights has",
    "ridge, raw": "a ridge on them has",
    "hyperparameters": "hyperparameters alone have",
}
# of calibration: tests, and what they are of
TESTS = ("ranks", "classifier", "coverage", "mass")
ARMS = ("flow", "temperature 0.7", "shuffled scores")
# the picture of runs: title -> label -> where in a row the number is
PANELS: dict[str, dict[str, tuple[str, str]]] = {
    "accuracy": {
        "flow": ("samples", "accuracy"),
        "best null there": ("beside", "null_accuracy"),
        "held-out networks": ("held_out", "accuracy"),
    },
    "loss": {
        "flow": ("samples", "loss"),
        "best null there": ("beside", "null_loss"),
        "held-out networks": ("held_out", "loss"),
    },
    "the flow's samples": {
        "novelty": ("samples", "novelty"),
        "dispersion": ("samples", "dispersion"),
        "likely copies": ("samples", "copies"),
    },
}


def list_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A list-table in reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (header, *rows):
        lines += [f"   {'* -' if not i else '  -'} {cell}".rstrip() for i, cell in enumerate(row)]
    return [*lines, ""]


def over_seeds(rows: Iterable[Row], key: str, digits: int = 3) -> str:
    """The mean of a number over seeds, with their standard deviation where there are several; "" if it is missing."""
    values = [row[key] for row in rows if row.get(key) is not None]
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def share(rows: Sequence[Row], key: str) -> str:
    """For how many seeds something is true."""
    return f"{sum(bool(row[key]) for row in rows)} of {len(rows)}"


def machines(rows: Iterable[Row]) -> str:
    """On what rows were measured, in words."""
    found = []
    for row in rows:
        machine = row["hardware"]
        threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
        text = f"{threads} of {machine['cpu']} ({machine['cores']} cores), torch {machine['versions']['torch']}"
        found += [text] if text not in found else []
    return "; ".join(found)


def headline(found: Row, *said: str) -> str:
    """Of which seeds a table is, what else is to be said of it, and on what it was measured."""
    seeds = sorted({key.partition("/")[0] for key in found["rows"]}, key=int)
    return f"Seeds {', '.join(seeds)}; {'; '.join((*said, machines(found['rows'].values())))}."


def options_of(recipe: Row) -> str:
    """Settings as they are written in Python."""
    return ", ".join(f"``{name}={value!r}``" for name, value in recipe.items()) or "defaults"


def quality_lines(found: Row) -> list[str]:
    """What ``benchmarks/quality.py`` wrote: what was done, three tables, and the verdict of each seed."""
    rows, seeds = found["rows"], list(found["rows"].values())
    temperatures = sorted(seeds[0]["samples"], key=lambda name: -float(name.split()[-1]))
    lines = [*quality_settings(found), ""]
    names = {"training networks": "training", "held-out networks": "held_out"}
    numbers = [quality_cells(name, [row[key] for row in seeds]) for name, key in names.items()]
    numbers += [quality_cells(name, [row["samples"][name] for row in seeds]) for name in temperatures]
    header = ["networks", "accuracy", "loss", "novelty", "weights, function", "dispersion", "weights, function"]
    lines += list_table([*header, "likely copies", "average of 50", "must", "aim"], numbers)
    lines += ["The flow and the best null that is about as new and as different, at each temperature:", ""]
    beside = [null_cells(name, [row["samples"][name] for row in seeds]) for name in temperatures]
    lines += list_table(["flow", "accuracy", "loss", "best null there", "accuracy", "loss", "flow ahead"], beside)
    lines += ["The nulls, as curves between these levels:", ""]
    nulls = [null_row(name, [row["nulls"][name] for row in seeds]) for name in seeds[0]["nulls"]]
    lines += list_table([*header, "likely copies", "average of all"], nulls)
    lines += [f"- Seed {seed}: {frontier_sentence(row)}" for seed, row in sorted(rows.items())]
    return [*lines, ""]


def quality_settings(found: Row) -> list[str]:
    """The recipe, the machine and the time in sentences."""
    settings, seeds = found["settings"], list(found["rows"].values())
    minutes = settings["minutes"]
    spent = [f"{stage} {over_seeds([row['seconds'] for row in seeds], stage, 0)}" for stage in STAGES]
    training = {**settings["training"], **settings["snapshots"]}
    return [
        headline(
            found,
            f"{settings['runs']:,} training runs ({options_of(training)}), {settings['held_out']} held-out runs",
            *([f"aligned ``form={settings['form']!r}``"] if "form" in settings else []),
            f"flow: {options_of(settings['flow'])}",
            f"{settings['samples']} samples at each temperature",
        ),
        f"All in {over_seeds([row['seconds'] for row in seeds], 'all', 0)} s, of {60 * minutes} s that the job may "
        f"take (kept by {share(seeds, 'in_time')} seeds): {', '.join(spent)}.",
    ]


def quality_cells(name: str, rows: Sequence[Row]) -> list[str]:
    """A row of the table of quality."""
    both = [
        ", ".join(over_seeds(rows, f"{key}_{space}", 2).split(" ± ")[0] for space in ("weights", "function"))
        for key in ("novelty", "dispersion")
    ]
    values = [over_seeds(rows, key) for key in ("accuracy", "loss")]
    values += [over_seeds(rows, "novelty", 2), both[0], over_seeds(rows, "dispersion", 2), both[1]]
    values += [over_seeds(rows, "copies", 2), over_seeds(rows, AVERAGED)]
    return [name.replace("_", "-"), *values, *(share(rows, key) if key in rows[0] else "" for key in ("must", "aim"))]


def null_row(name: str, rows: Sequence[Row]) -> list[str]:
    """A row of the table of nulls, which have averages of all of their networks instead of 50."""
    return [*quality_cells(name, rows)[:-3], over_seeds(rows, "averaged_accuracy")]


def null_cells(name: str, rows: Sequence[Row]) -> list[str]:
    """A row of the table of the flow beside the best null."""
    names = dict.fromkeys(str(row["null"] or "none").replace("_", "-") for row in rows)
    numbers = [over_seeds(rows, key) for key in ("accuracy", "loss")]
    other = [over_seeds(rows, f"null_{key}") for key in ("accuracy", "loss")]
    return [name, *numbers, "; ".join(names), *other, share(rows, "ahead")]


def frontier_sentence(row: Row) -> str:
    """What the verdict says of the curves."""
    said = [sentence for sentence in row["verdict"] if sentence.startswith("The frontier of")]
    return " ".join(said).replace("_", "-")


def width_lines(found: Row) -> list[str]:
    """What ``benchmarks/width.py`` wrote: a table over geometries."""
    settings = found["settings"]
    said = f"{settings['runs']:,} training runs, {settings['samples']} networks each"
    lines = [headline(found, said, f"must {settings['must']:g}, aim {settings['aim']:g}"), ""]
    cells = [
        [geometry, name, *width_cells([row["rows"][name] for row in group])]
        for geometry, group in by_geometry(found).items()
        for name in group[0]["rows"]
    ]
    header = ["flow", "networks", "accuracy", "sd over networks", "loss", "sd over networks", "average of 50"]
    return [*lines, *list_table([*header, "average of as many samples"], cells)]


def by_geometry(found: Row) -> dict[str, list[Row]]:
    """The rows of all seeds, by geometry, and of trained networks."""
    groups: dict[str, list[Row]] = {}
    for key, row in found["rows"].items():
        groups.setdefault(key.partition("/")[2], []).append(row)
    return groups


def width_cells(rows: Sequence[Row]) -> list[str]:
    """The numbers of a row of the table of widths."""
    keys = ("accuracy", "accuracy_sd", "loss", "loss_sd", AVERAGED, "averaged_as_many")
    return [over_seeds(rows, key) for key in keys]


def transfer_lines(found: Row) -> list[str]:
    """What ``benchmarks/transfer.py`` wrote: a table of guidance, and one of learning curves."""
    settings, seeds = found["settings"], list(found["rows"].values())
    said = (
        f"{settings['runs']:,} training runs on MNIST, {settings['networks']} networks each, batches of "
        f"{settings['batch_size']:,}, flow at temperature {settings['temperature']:g}"
    )
    lines = [headline(found, said), ""]
    numbers = ("accuracy", "error", "loss", "average")
    cells = [
        [name, *(over_seeds([row["guidance"][name] for row in seeds], key) for key in numbers)]
        for name in by_gradients(seeds[0]["guidance"])
    ]
    header = ["start, optimizer, gradients", "accuracy", "standard error", "loss", "model average"]
    lines += list_table(header, cells)
    learning = [row["learning"] for row in seeds]
    target = over_seeds(learning, "target")
    lines += [f"As initialisation: steps of SGD to the accuracy of random networks after one epoch, {target}:", ""]
    cells = [
        [
            name,
            steps_to([row["rows"][name] for row in learning]),
            over_seeds([row["rows"][name] for row in learning], "after one epoch"),
        ]
        for name in learning[0]["rows"]
    ]
    return [*lines, *list_table(["start", "steps", "accuracy after one epoch"], cells)]


def metanetworks_lines(found: Row) -> list[str]:
    """What ``benchmarks/zoo.py`` wrote: scores of networks as they are, and moved, and what the controls reached."""
    settings, by_name = found["settings"], {}
    for key, row in found["rows"].items():
        by_name.setdefault(key.partition("/")[2], []).append(row)
    said = f"{settings['train']:,} networks to learn from and {settings['test']:,} of other runs"
    rows = [
        [
            name,
            *(over_seeds(by_name[name], key) for key in MOVED.values()),
            over_seeds([row.get("seconds", {}) for row in by_name[name]], "fit", 0),
        ]
        for name in sorted(by_name, key=lambda name: (name in CONTROLS, name != "default", name))
    ]
    lines = [headline(found, said), ""]
    if "default" in by_name:
        lines += [_beside_controls(by_name), ""]
    return [*lines, *list_table(["predictor", *MOVED, "seconds"], rows)]


def _beside_controls(by_name: Mapping[str, Sequence[Row]]) -> str:
    """What the default predictor reached, and the controls, in one sentence."""

    def of(name: str, key: str) -> str:
        return over_seeds(by_name[name], key)

    controls = [
        f"{title} {of(name, 'clean')}" + (f" and {of(name, 'moved')} when moved" if of(name, "moved") else "")
        for name, title in CONTROLS.items()
        if name in by_name
    ]
    intervals = (
        f"its intervals for 90% hold {of('default', 'covered')} of the numbers, and {of('default', 'covered_moved')} "
        "of those of moved networks"
    )
    return (
        f"The default has a coefficient of determination of {of('default', 'clean')}, {of('default', 'moved')} after "
        f"random symmetries moved the test networks, and ranks with tau {of('default', 'tau')} where ties allow "
        f"{of('default', 'ceiling')}, while {', '.join(controls)}; {intervals}."
    )


def autoencoder_lines(found: Row) -> list[str]:
    """What ``benchmarks/autoencoder.py`` wrote: what is kept, what is merged, and what laws of latents draw."""
    rows, settings = found["rows"], found["settings"]
    kept, minutes = rows["reconstruction"], rows["fit"]["seconds"]["fit"] / 60
    components = "as many principal components of the functions"
    laws, winner = rows["latents"]["laws"], rows["latents"]["winner"]
    merged = {"two runs of one image": rows["runs"]}
    noise = {level: row for level, row in rows["noise"].items() if level != "hardware"}
    merged |= {f"a copy, moved, with noise {level}": row for level, row in noise.items()}
    numbers = ("mean", "aligned", "latent", "barrier", "functions")
    cells = [[name, *(f"{row[key]:.4f}" for key in numbers)] for name, row in merged.items()]
    header = ["squared error of", "mean", "aligned mean", "latent mean", "its barrier", "both functions"]
    drawn = [[name, f"{row['score']:.2f}", f"{row['novelty']:.2f}"] for name, row in laws.items()]
    return [
        f"Encoder ``{settings['encoder']!r}``, seed {settings['seed']}; {settings['train']:,} networks to learn from "
        f"and {settings['test']:,} of other images; {settings['steps']:,} steps in {minutes:.0f} minutes; "
        f"{machines(rows.values())}.",
        "",
        f"Reconstructions of new networks have a mean squared error of {kept['mse']:.4f} as functions, where "
        f"{components}, which are no networks, have {kept['mse_of_functions']:.4f} and the mean function "
        f"{kept['mse_of_mean']:.4f}. A classifier of images recognises {kept['judge']:.3f} of the digits that they "
        f"show, and {kept['judge_of_networks']:.3f} of those of the networks. Random symmetries of a network change "
        f"its latent by {kept['orbit']['latents']:.0e} of the largest number, and the weights of its reconstruction by "
        f"{kept['orbit']['reconstructions']:.0e}.",
        "",
        *list_table(header, cells),
        *list_table(["drawn", "score", "novelty"], drawn),
        f"Of what is drawn at a novelty of at least .85, the {winner} has the highest score.",
        "",
    ]


def by_gradients(names: Iterable[str]) -> list[str]:
    """Names that end with a number of gradients, those of one number together."""
    return sorted(names, key=lambda name: (int(name.rpartition(", ")[2]), name))


def steps_to(rows: Sequence[Row]) -> str:
    """Steps to a target over seeds, "not reached" where one of them never does."""
    return "not reached" if any(row["steps"] is None for row in rows) else over_seeds(rows, "steps", 0)


def runs_by_count(found: Row) -> dict[int, list[Row]]:
    """What ``benchmarks/runs.py`` wrote, by number of runs."""
    counts: dict[int, list[Row]] = {}
    for key, row in found["rows"].items():
        counts.setdefault(int(key.partition("/")[2]), []).append(row)
    return dict(sorted(counts.items()))


def runs_lines(found: Row) -> list[str]:
    """A table over the number of runs."""
    counts, settings = runs_by_count(found), found["settings"]
    lines = [headline(found, f"{settings['held_out']} held-out runs, {settings['samples']} samples"), ""]
    header = ["runs", "accuracy", "loss", "novelty", "dispersion", "likely copies", "best null there", "accuracy"]
    return [*lines, *list_table([*header, "loss", "flow ahead"], [runs_cells(n, rows) for n, rows in counts.items()])]


def runs_cells(count: int, rows: Sequence[Row]) -> list[str]:
    """A row of the table of runs."""
    samples, beside = [row["samples"] for row in rows], [row["beside"] for row in rows]
    numbers = [over_seeds(samples, key) for key in ("accuracy", "loss", "novelty", "dispersion")]
    names = dict.fromkeys(str(row["null"] or "none").replace("_", "-") for row in beside)
    other = [over_seeds(beside, f"null_{key}") for key in ("accuracy", "loss")]
    return [f"{count:,}", *numbers, over_seeds(samples, "copies"), "; ".join(names), *other, share(beside, "ahead")]


def posterior_lines(found: Row) -> list[str]:
    """What ``benchmarks/posterior.py`` wrote: model averages by their size, for every source of networks."""
    settings, seeds = found["settings"], list(found["rows"].values())
    cost = f"a flow with its population costs as much as {over_seeds(seeds, 'affordable', 0)} training runs"
    said = f"{settings['networks']} networks of each source, {settings['draws']} averages of each size"
    lines = [headline(found, said, cost), ""]
    cells = [
        [name, f"{size:,}", *posterior_cells([row["sources"][name] for row in seeds], size)]
        for name, source in seeds[0]["sources"].items()
        for size in source["sizes"]
        if size in (1, 10, source["sizes"][-1])
    ]
    return [*lines, *list_table(["networks", "averaged", *SCORES.values(), "seconds"], cells)]


def posterior_cells(rows: Sequence[Row], size: int) -> list[str]:
    """The scores of averages of one size, and the seconds that the networks of a source took."""
    at = [row["sizes"].index(size) for row in rows]
    scores = [
        {key: row["mean"][key][i] for key in SCORES if key in row["mean"]} for row, i in zip(rows, at, strict=True)
    ]
    return [*(over_seeds(scores, key) for key in SCORES), over_seeds(rows, "seconds", 1)]


def variational_lines(found: Row) -> list[str]:
    """What ``benchmarks/variational.py`` wrote: a row for each kind of network and rank, over seeds."""
    settings, rows = found["settings"], found["rows"]
    network = f"{settings['depth']} hidden layers of {settings['width']}, {settings['steps']} steps"
    kinds = {tuple(key.partition("/")[2].split(", rank ")) for key in rows}
    cells = []
    for arm, rank in sorted(kinds, key=lambda kind: (VARIATIONAL.index(kind[0]), int(kind[1]))):
        own = [row for key, row in rows.items() if key.partition("/")[2] == f"{arm}, rank {rank}"]
        cells.append([arm, rank, *(over_seeds(own, key) for key in FORECAST), over_seeds(own, "seconds", 0)])
    return [headline(found, network), "", *list_table(["networks", "rank", *FORECAST.values(), "seconds"], cells)]


def calibration_lines(found: Row) -> list[str]:
    """What ``benchmarks/calibration.py`` wrote: a row for each law and arm, with the smallest p-values over seeds."""
    settings, rows = found["settings"], found["rows"]
    size = f"{settings['train']:,} networks to fit, {settings['test']:,} fresh ones, midpoint solver"
    cells = []
    for name in dict.fromkeys(key.partition("/")[2] for key in rows):
        own = [row for key, row in rows.items() if key.partition("/")[2] == name]
        for arm in ARMS:
            arms = [row[arm] for row in own]
            # the smallest of as many p-values, by Bonferroni's correction
            values = [min(1.0, len(own) * min(row["p"][key] for row in arms)) for key in TESTS]
            kept = [statistics.fmean(shares) for shares in zip(*(row["coverage"] for row in arms), strict=True)]
            numbers = [*(f"{share:.3f}" for share in kept), over_seeds(arms, "accuracy"), over_seeds(arms, "kl")]
            cells.append([name if arm == "flow" else "", arm, *(f"{value:.2g}" for value in values), *numbers])
    header = ["population", "samples", *TESTS, *(f"in {level:.0%}" for level in settings["levels"])]
    return [headline(found, size), "", *list_table([*header, "accuracy", "KL, nats"], cells)]


def mutations_lines(found: Row) -> list[str]:
    """What ``benchmarks/mutations.py`` wrote: a row for each reader, and how its files ended."""
    rows = found["rows"]
    header = ["reader", "files", "", "refused", "used", "faults", "files a second"]
    cells = []
    for key, row in rows.items():
        name, _, kind = key.rpartition(", ")
        numbers = [f"{row[of]:,}" for of in ("refused", "used")]
        rate = f"{row['files'] / row['seconds']:,.0f}" if row["seconds"] else ""
        cells.append([name, f"{row['files']:,}", kind, *numbers, str(len(row["faults"])), rate])
    total = sum(row["files"] for row in rows.values())
    return [f"{total:,} files in all; {machines(rows.values())}.", "", *list_table(header, cells)]


def draw_runs(found: Row, path: Path) -> None:
    """The picture of quality against the number of runs: a point for each seed, lines through their means."""
    from matplotlib.figure import Figure

    counts = runs_by_count(found)
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    for axis, (title, lines) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for colour, (label, (part, key)) in enumerate(lines.items()):
            _line(axis, {n: [row[part].get(key) for row in rows] for n, rows in counts.items()}, label, f"C{colour}")
        axis.set(xscale="log", xlabel="training runs", title=title)
        axis.set_xticks(list(counts), [f"{count:,}" for count in counts], rotation=45, fontsize="small")
        axis.minorticks_off()
        axis.yaxis.set_major_formatter("{x:.2f}")
        axis.legend(fontsize="x-small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _line(axis: Any, values: Mapping[int, Sequence[float | None]], label: str, colour: str) -> None:
    points = [(n, value) for n, row in values.items() for value in row if value is not None]
    means = {n: statistics.fmean(of) for n in values if (of := [value for at, value in points if at == n])}
    axis.plot(list(means), list(means.values()), "-", label=label, color=colour)
    axis.plot([n for n, _ in points], [value for _, value in points], ".", color=colour)


def compared_lines(job: str, published: Row, found: Row | None) -> list[str]:
    """Published numbers, and ours where they are measured."""
    keys = ("networks", "accuracy", "loss", "averaged", "novelty", "dispersion", "time")
    unsaid = {"novelty": "not reported", "dispersion": "not reported"}
    rows = [[(unsaid | row).get(key, "") for key in keys] for row in published[job]]
    if found is not None:
        rows += OWN.get(job, own_cells)(found)
    header = ["networks", "accuracy", "loss", "model average", "novelty", "dispersion", "time and hardware"]
    return list_table(header, rows)


def own_cells(found: Row) -> list[list[str]]:
    """Rows of a job of ``benchmarks/quality.py``, beside published ones."""
    rows, keys = found["rows"].values(), ("accuracy", "loss", AVERAGED, "novelty", "dispersion")
    time = f"{over_seeds([row['seconds'] for row in rows], 'all', 0)} s, {machines(rows)}"
    return [
        [f"wsflow, {name}", *(over_seeds([row["samples"][name] for row in rows], key) for key in keys), time]
        for name in ("temperature 1", "temperature 0.7")
    ]


def wide_cells(found: Row) -> list[list[str]]:
    """Rows of ``benchmarks/width.py``, beside published ones; of its seconds, those of fitting and sampling."""
    cells = []
    for geometry, rows in by_geometry(found).items():
        for name in rows[0]["rows"]:
            if name.startswith("width 32"):
                numbers = width_cells([row["rows"][name] for row in rows])
                time = f"{over_seeds([row['seconds'] for row in rows], 'all', 0)} s, {machines(rows)}"
                cells.append([f"wsflow, {geometry}, {name}", numbers[0], numbers[2], numbers[4], "", "", time])
    return cells


def guided_cells(found: Row) -> list[list[str]]:
    """Rows of ``benchmarks/transfer.py``, beside published ones."""
    rows = [row["guidance"] for row in found["rows"].values()]
    return [
        [f"wsflow, {name} gradients", *(over_seeds([row[name] for row in rows], key) for key in GUIDED), "", "", ""]
        for name in by_gradients(rows[0])
        if name.startswith("flow")
    ]


def differences_lines(found: Row) -> list[str]:
    """What ``benchmarks/ablation.py`` wrote: the defaults, and what each setting changes beside them, seed by seed."""
    rows, settings = found["rows"], found["settings"]
    names = dict.fromkeys(key.partition("/")[2] for key in rows)
    seeds = {name: [key.partition("/")[0] for key in rows if key.partition("/")[2] == name] for name in names}
    of_defaults = [rows[f"{seed}/defaults"] for seed in seeds["defaults"]]
    first = [over_seeds(of_defaults, key) for key in CHANGED]
    cells = [["defaults", ", ".join(seeds.pop("defaults")), *first, f"{over_seeds(of_defaults, 'seconds', 0)} s"]]
    for name in sorted(seeds):
        pairs = [(rows[f"{seed}/{name}"], rows[f"{seed}/defaults"]) for seed in seeds[name]]
        changes = [{key: row[key] - default[key] for key in CHANGED} for row, default in pairs]
        ratios = [{"time": row["seconds"] / default["seconds"]} for row, default in pairs]
        numbers = [_signed(over_seeds(changes, key)) for key in CHANGED]
        cells.append([name, ", ".join(seeds[name]), *numbers, f"x {over_seeds(ratios, 'time', 2)}"])
    said = f"{settings['runs']:,} runs, {settings['flow'].get('max_iter', 600)} steps, {settings['samples']} samples"
    return [headline(found, said), "", *list_table(["setting", "seeds", *CHANGED, "time of fitting"], cells)]


def _signed(number: str) -> str:
    return number if number.startswith("-") else f"+{number}"


OWN = {"width": wide_cells, "transfer": guided_cells}
"""Jobs whose rows are not those of ``benchmarks/quality.py``, and what makes their cells."""


class Measured(SphinxDirective):
    """A table, or a picture, of a file of a benchmark; a sentence where there is no file yet."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """What `lines` makes of the file."""
        found = self.load(self.arguments[0])
        lines = (
            [f"Not measured yet: ``docs/{self.arguments[0]}`` is not there."] if found is None else self.lines(found)
        )
        return self.parse_text_to_nodes("\n".join(lines))

    def load(self, name: str) -> Row | None:
        """The file's rows, if it has any."""
        relative, path = self.env.relfn2path(name)
        self.env.note_dependency(relative)
        if not Path(path).exists():
            return None
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        return found if found.get("rows", True) else None

    def lines(self, found: Row) -> list[str]:
        """What the directive's row of `TABLES` makes of the file."""
        return TABLES[self.name](found)


class RunsFigure(Measured):
    """What ``benchmarks/runs.py`` wrote: a picture that is drawn now, and a table."""

    def lines(self, found: Row) -> list[str]:
        """The picture, and the table."""
        draw_runs(found, Path(self.env.srcdir) / "generated" / "runs.png")
        text = "Accuracy, loss, novelty, dispersion and the share of likely copies by the number of training runs"
        return [".. image:: /generated/runs.png", f"   :alt: {text}", "", *runs_lines(found)]


class ComparedTable(Measured):
    """Published numbers of a job beside ours: the file of the former, the job, and the file of the latter, if any."""

    required_arguments = 2
    optional_arguments = 1

    def lines(self, found: Row) -> list[str]:
        """A table."""
        ours = self.load(self.arguments[2]) if len(self.arguments) > 2 else None
        return compared_lines(self.arguments[1], found, ours)


TABLES: dict[str, Callable[[Row], list[str]]] = {
    "quality-table": quality_lines,
    "width-table": width_lines,
    "posterior-table": posterior_lines,
    "variational-table": variational_lines,
    "transfer-table": transfer_lines,
    "differences-table": differences_lines,
    "metanetworks-table": metanetworks_lines,
    "autoencoder-table": autoencoder_lines,
    "calibration-table": calibration_lines,
    "mutations-table": mutations_lines,
}
"""Directives, and what makes their text."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    for name in TABLES:
        app.add_directive(name, Measured)
    app.add_directive("runs-figure", RunsFigure)
    app.add_directive("compared-table", ComparedTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
