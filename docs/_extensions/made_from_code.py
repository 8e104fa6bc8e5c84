"""Directives whose content is read from wsflow itself, so that it cannot go stale."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

import click
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

WIDTH = 100
# of benchmarks/asymmetric.py: its measures, and its columns in the order in which they are read
ASYMMETRIC = {"midpoint": "midpoint barrier", "midpoint_largest": "largest", "accuracy": "accuracy"}
ASYMMETRIC |= {"identified": "identifiable neurons"}
ASYMMETRIC_ROWS = ("standard", "weight matching", "default chain", "sigma", "W", "mask alone", "anchor")
ASYMMETRIC_ROWS += ("shared initialisation",)
MARKS = {"positive": "every s > 0", "sign": "s = -1", "flip": "flip", "phase": "phase"}


class ActivationTable(SphinxDirective):
    """The activations, and the scalings of a neuron that commute with each."""

    def run(self) -> list[nodes.Node]:
        """A list-table, one row for each activation."""
        from wsflow.activations import ACTIVATIONS

        lines = [".. list-table::", "   :header-rows: 1", "", "   * - activation", "     - what it computes"]
        lines += ["     - torch module", "     - what keeps the function", "     - remark"]
        for name, row in ACTIVATIONS.items():
            scalings = ", ".join(MARKS[s] for s in sorted(row.scalings)) or "none"
            degree = {None: ", degree k", 1: ""}.get(row.degree, f", degree {row.degree}")
            lines += [f"   * - ``{name}``", f"     - ``{row.formula}``"]
            lines += [f"     - ``nn.{row.module}``" if row.module else "     -"]
            lines += [f"     - {scalings}{degree}", f"     - {row.remark}".rstrip()]
        return self.parse_text_to_nodes("\n".join(lines))


class SymmetryTable(SphinxDirective):
    """The kinds of symmetry: how exact each is, and what it does not commute with."""

    def run(self) -> list[nodes.Node]:
        """A list-table, one row for each kind."""
        from wsflow.activations import SYMMETRIES

        lines = [".. list-table::", "   :header-rows: 1", "", "   * - symmetry", "     - what holds", "     - exact"]
        lines += ["     - does not commute with", "     - source"]
        for name, row in SYMMETRIES.items():
            exact = {"exact": "yes", "eps": "up to the norm's eps", "loss": "for the loss alone"}[row.exactness]
            lines += [f"   * - {name}", f"     - ``{row.formula}``", f"     - {exact}"]
            lines += [f"     - {', '.join(row.breaks_with)}".rstrip(), f"     - {row.source}"]
        return self.parse_text_to_nodes("\n".join(lines))


class NullTable(SphinxDirective):
    """The nulls: what each is, and the levels at which it is run."""

    def run(self) -> list[nodes.Node]:
        """A list-table, one row for each null."""
        from wsflow.evaluation.nulls import NULLS

        lines = [".. list-table::", "   :header-rows: 1", "", "   * - null", "     - what it gives", "     - levels"]
        for name, row in NULLS.items():
            levels = ", ".join(f"{level:g}" for level in row.levels if level is not None)
            says = inspect.getdoc(row.function).partition("\n")[0].rstrip(".").replace("`level`", "*level*")
            lines += [f"   * - ``{name}``", f"     - {says}", f"     - {levels}".rstrip()]
        return self.parse_text_to_nodes("\n".join(lines))


class EncoderTable(SphinxDirective):
    """The encoders: what each computes, the group that it respects, and what it costs."""

    def run(self) -> list[nodes.Node]:
        """A list-table, one row for each encoder."""
        from wsflow.metanetworks.encoders import ENCODERS

        lines = [".. list-table::", "   :header-rows: 1", "", "   * - ``metanetwork``", "     - what it computes"]
        lines += ["     - group", "     - a pass takes", "     - reference"]
        for name, row in ENCODERS.items():
            lines += [f"   * - ``{name}``", f"     - {row.formula}", f"     - {', '.join(row.group) or 'none'}"]
            lines += [f"     - {row.cost}", f"     - {row.reference}"]
        return self.parse_text_to_nodes("\n".join(lines))


class LossTable(SphinxDirective):
    """The losses: what their targets and outputs are, and the formula."""

    def run(self) -> list[nodes.Node]:
        """A list-table, one row for each loss."""
        from wsflow.losses import LOSSES

        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 22 45 33", "", "   * - ``loss``"]
        lines += ["     - targets and outputs", "     - of each example"]
        for name, row in LOSSES.items():
            lines += [f"   * - ``{name}``", f"     - {row.description}", f"     - {inspect.getdoc(type(row))}"]
        return self.parse_text_to_nodes("\n".join(lines))


class MeasureTable(SphinxDirective):
    """A table of measures: what each is, and how to read it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A list-table, one row for each measure of the table that the argument names."""
        from wsflow.evaluation import measures

        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 24 52 24", "", "   * - key", "     - what it is"]
        lines += ["     - how to read it"]
        for name, row in getattr(measures, self.arguments[0]).items():
            reading = row.reading or (f"{row.better} is better" if row.better else "")
            lines += [f"   * - ``{name}``", f"     - {row.description}", f"     - {reading}".rstrip()]
        return self.parse_text_to_nodes("\n".join(lines))


class OptionsTable(SphinxDirective):
    """The parameters of WeightFlow that take objects: the strings that stand for them, and the objects' defaults."""

    def run(self) -> list[nodes.Node]:
        """A list-table, one row for each parameter."""
        from wsflow.models.options import CHOICES, OTHERS, classes_of

        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 14 36 50", "", "   * - parameter"]
        lines += ["     - strings", "     - objects, with their defaults"]
        for name, row in CHOICES.items():
            values = ", ".join(f"``{value!r}``" for value in (*OTHERS.get(name, ()), *row)).replace("'", '"')
            lines += [f"   * - ``{name}``", f"     - {values}"]
            lines += ["     - " + "; ".join(f"``{kind()!r}``" for kind in classes_of(name))]
        return self.parse_text_to_nodes("\n".join(lines))


class MergingTable(SphinxDirective):
    """What ``benchmarks/merging.py`` wrote: the accuracies of merged pairs, with settings, machine and time."""

    required_arguments = 1
    option_spec = {"columns": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """A sentence, and a list-table with a row for each pair."""
        name, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(name)
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        columns = [column.strip() for column in self.options["columns"].split(";")]
        lines = [_setting(found), "", ".. list-table::", "   :header-rows: 1", "", "   * - seeds"]
        lines += [f"     - {column}" for column in columns]
        for pair, row in found["rows"].items():
            lines += [f"   * - {pair}", *(f"     - {row[column]:.3f}" for column in columns)]
        return self.parse_text_to_nodes("\n".join(lines))


def _setting(found: dict[str, Any]) -> str:
    settings, seconds, machine = found["settings"], found["seconds"], found["hardware"]
    return (
        f"``{settings['task']}``, {settings['examples']:,} examples, {settings['epochs']} epochs, aligned with "
        f'``method="{settings["method"]}"``; {seconds["training"]:.0f} s of training for {len(settings["seeds"])} '
        f"networks and {seconds['a pair']:.0f} s for each pair, on {machine['threads']} thread of "
        f"{machine['cpu']}, Python {machine['python']}, torch {machine['versions']['torch']}:"
    )


class BarrierTable(SphinxDirective):
    """What ``benchmarks/barriers.py`` wrote: barriers by method of alignment, with settings, machine and time."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A sentence, and a list-table with a row for each method."""
        name, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(name)
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        settings, machine = found["settings"], found["hardware"]
        widths = "-".join(str(width) for width in settings["widths"])
        examples = f"{settings['examples']:,} random" if settings["examples"] else "all"
        text = (
            f"``{settings['task']}``, hidden layers {widths} ({settings['activation']}), {settings['seeds']} runs of "
            f"{settings['epochs']} epochs (trained in {found['trained']:.0f} s), all pairs, {settings['points']} "
            f"points, {examples} training examples; {machine['threads']} thread of {machine['cpu']}, Python "
            f"{machine['python']}, torch {machine['versions']['torch']}, on a busy machine:"
        )
        columns = {"mean": "mean barrier", "largest": "largest", "ratio": "to weight matching", "seconds": "s a pair"}
        lines = [text, "", ".. list-table::", "   :header-rows: 1", "", "   * - method"]
        lines += [f"     - {title}" for title in columns.values()]
        for method, row in found["rows"].items():
            lines += [f"   * - {method}", *(f"     - {row[column]:.3g}" for column in columns)]
        return self.parse_text_to_nodes("\n".join(lines))


class AsymmetricTable(SphinxDirective):
    """What ``benchmarks/asymmetric.py`` wrote: barriers of networks with constants and of controls, with settings."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A sentence, and a list-table with a row for each column of the benchmark, means over seeds."""
        name, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(name)
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        settings, machine = found["settings"], found["hardware"]
        widths = "-".join([str(settings["width"])] * settings["depth"])
        images = f"{settings['images']:,}" if settings["images"] else "all"
        examples = f"{settings['examples']:,}" if settings["examples"] else "all"
        text = (
            f"``{settings['task']}``, hidden layers {widths} with layer norms and GELU, {settings['networks']} "
            f"networks a seed ({', '.join(map(str, settings['seeds']))}), {settings['epochs']} epochs on "
            f"{images} training examples, measured on {examples} test examples; Python {machine['python']}, torch "
            f"{machine['versions']['torch']}:"
        )
        lines = [text, "", ".. list-table::", "   :header-rows: 1", "", "   * - networks"]
        lines += [f"     - {title}" for title in ASYMMETRIC.values()]
        for column in ASYMMETRIC_ROWS:
            own = [rows[column] for rows in found["rows"].values()]
            lines += [f"   * - {column}"]
            lines += [f"     - {sum(row[key] for row in own) / len(own):.3f}" for key in ASYMMETRIC]
        return self.parse_text_to_nodes("\n".join(lines))


class CommandHelp(SphinxDirective):
    """What each command says with ``--help``."""

    def run(self) -> list[nodes.Node]:
        """A section for each command."""
        from wsflow.cli import main

        return [self._section(name, text) for name, text in _helps(main, "wsflow")]

    def _section(self, name: str, text: str) -> nodes.section:
        section = nodes.section(ids=[nodes.make_id(name)], names=[nodes.fully_normalize_name(name)])
        self.state.document.note_explicit_target(section)
        section += nodes.title(text=name)
        section += nodes.literal_block(text, text, language="text")
        return section


def _helps(command: Any, name: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    settings = {**command.context_settings, "terminal_width": WIDTH}
    context = click.Context(command, info_name=name.split()[-1], parent=parent, **settings)
    yield name, command.get_help(context)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None and not found.hidden:
                yield from _helps(found, f"{name} {child}", context)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("activation-table", ActivationTable)
    app.add_directive("symmetry-table", SymmetryTable)
    app.add_directive("null-table", NullTable)
    app.add_directive("encoder-table", EncoderTable)
    app.add_directive("loss-table", LossTable)
    app.add_directive("measure-table", MeasureTable)
    app.add_directive("options-table", OptionsTable)
    app.add_directive("merging-table", MergingTable)
    app.add_directive("barrier-table", BarrierTable)
    app.add_directive("asymmetric-table", AsymmetricTable)
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
