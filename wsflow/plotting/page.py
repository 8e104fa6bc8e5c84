"""A report as one page of HTML that needs nothing else: no network, no script, no files beside it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from io import StringIO
from typing import Any

from wsflow.evaluation.measures import DISTRIBUTION, MEASURES, Measure
from wsflow.evaluation.pareto import Row
from wsflow.evaluation.report import Report
from wsflow.plotting.panels import (
    draw_barriers,
    draw_frontiers,
    draw_iou,
    draw_levels,
    draw_nearest,
    draw_reliability,
    draw_training,
    reliability_of,
)
from wsflow.plotting.style import hide_spines, new_axes

# a phone shows a figure of this width at about one pixel for a point
SIZE = (4.8, 3.9)
SETS = {"training": "training networks", "held_out": "networks of held-out runs", "samples": "samples"}
# without sources, the browser asks for nothing, whatever stands in the page
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
# of the SVG that matplotlib writes
OUTER = re.compile(r"^.*?<svg[^>]*?viewBox=\"([^\"]+)\"[^>]*>", re.DOTALL)
APART = re.compile(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", re.DOTALL)
NAMES = re.compile(r'(\bid="|href="#|url\(#)')
COLOURS = {"#000000": "currentColor", "#ffffff": "var(--background)"}
STYLE = """
:root { color-scheme: light dark; --background: #ffffff; --text: #1b1f24; --faint: #59636e; --line: #d0d7de;
  --mark: #eef4fb; }
@media (prefers-color-scheme: dark) {
  :root { --background: #14181d; --text: #e6e9ed; --faint: #a3adb8; --line: #3a434d; --mark: #1d2a38; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--background); color: var(--text); overflow-wrap: anywhere;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.25rem clamp(0.8rem, 4vw, 2.5rem) 3rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.4em 0; }
h2 { font-size: 1.2rem; margin: 2.2em 0 0.6em; padding-bottom: 0.2em; border-bottom: 1px solid var(--line); }
p, li { max-width: 46rem; }
.faint, caption { color: var(--faint); font-size: 0.9rem; }
.verdict { background: var(--mark); border-left: 4px solid #0072b2; margin: 0; padding: 0.6rem 1rem 0.6rem 2rem; }
.verdict li { margin: 0.35em 0; }
table { border-collapse: collapse; width: 100%; max-width: 60rem; font-size: 0.92rem; }
caption { text-align: left; padding: 0 0 0.5em; }
th, td { padding: 0.3em 0.5em; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top;
  font-variant-numeric: tabular-nums; }
th { font-weight: 600; }
td { white-space: nowrap; }
thead th { overflow-wrap: normal; vertical-align: bottom; }
tbody th, th:first-child { text-align: left; }
tbody th { font-weight: 400; }
tbody th[scope=rowgroup] { color: var(--faint); padding-top: 1em; }
tr.own th, tr.own td { background: var(--mark); font-weight: 600; }
table.facts th, table.facts td { text-align: left; white-space: normal; }
table.facts th { width: 32%; }
.figures { display: grid; gap: 1.6rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); }
figure { margin: 0; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; fill: currentColor; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
@media (max-width: 34rem) { th, td { padding: 0.25em 0.3em; } table { font-size: 0.82rem; } }
@media (max-width: 23rem) { th, td { padding: 0.2em 0.15em; } table { font-size: 0.72rem; } }
@media print { figure, tr { break-inside: avoid; } }
"""


def report_page(report: Report, about: Mapping[str, Any] | None = None, curve: Mapping[str, Any] | None = None) -> str:
    """Return the page of a report, with further facts about it, by name, and the training curve of the flow."""
    counts, now = report.counts, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    title = f"Report on {counts['samples']} networks"
    lead = (
        f"{counts['samples']} samples beside {counts['training']} training networks of {counts['training_runs']} runs, "
        f"{counts['held_out']} networks of {counts['held_out_runs']} held-out runs and {len(report.nulls)} nulls."
    )
    sections = [
        _section("Verdict", _list(report.verdict)),
        _section("The numbers", "".join(_headline(report))),
        _section("Figures", f'<div class="figures">{"".join(_figures(report, curve))}</div>'),
        _section("All measures", _measures(report)),
        *([_section("As sets of points", _distribution(report))] if report.distribution else []),
        _section("Where it comes from", _facts({**report.provenance, "written": now, **(about or {})})),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n<p>{escape(lead)}</p>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>\n"


def _list(sentences: Iterable[str]) -> str:
    return f'<ul class="verdict">{"".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)}</ul>'


def _number(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.3f}"


def _table(caption: str, header: Sequence[str], groups: Mapping[str, Sequence[Sequence[str]]], kind: str = "") -> str:
    """Return a table whose rows begin with their heading; groups with a name have a heading of their own."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    bodies = []
    for name, rows in groups.items():
        group = f'<tr><th scope="rowgroup" colspan="{len(header)}">{escape(name)}</th></tr>' if name else ""
        bodies.append(f"<tbody>{group}{''.join(_row(*row) for row in rows)}</tbody>")
    thead = f"<thead><tr>{head}</tr></thead>" if any(header) else ""
    style = f' class="{kind}"' if kind else ""
    return f"<table{style}><caption>{escape(caption)}</caption>{thead}{''.join(bodies)}</table>\n"


def _row(name: str, *cells: str) -> str:
    style = ' class="own"' if name == SETS["samples"] else ""
    return f'<tr{style}><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(c)}</td>" for c in cells)}</tr>'


def _label(measure: Measure) -> str:
    return measure.label.replace("^2", "²")


def _headline(report: Report) -> Iterator[str]:
    """Yield the table of what matters first, and how to read it."""
    keys = report.headline
    rows = [[text, *_values(getattr(report, name), keys)] for name, text in SETS.items()]
    nulls = [[name.replace("_", " "), *_values(row, keys)] for name, row in report.nulls.items()]
    groups = {"": rows} | ({"nulls: trivial generators that samples have to beat": nulls} if nulls else {})
    yield _table("Means over networks, on held-out data.", ["networks", *(_label(MEASURES[k]) for k in keys)], groups)
    reading = "; ".join(f"{MEASURES[key].label}: {MEASURES[key].reading}" for key in keys if MEASURES[key].reading)
    before, after = (report.barrier[key] for key in ("before", "after"))
    yield (
        f'<p class="faint">{escape(reading)}. Mean midpoint loss barrier between training runs: '
        f"{_number(before)} before alignment, {_number(after)} after it.</p>"
    )


def _values(row: Row, keys: Iterable[str]) -> list[str]:
    return [_number(row.get(key)) for key in keys]


def _measures(report: Report) -> str:
    names = [key for key in MEASURES if key in report.samples and key not in report.headline]
    rows = [[_label(MEASURES[key]), *(_number(getattr(report, name).get(key)) for name in SETS)] for key in names]
    return _table(
        "Of networks, and of their model average.", ["measure", "training", "held-out", "samples"], {"": rows}
    )


def _distribution(report: Report) -> str:
    """Return the table of samples, and of training networks for comparison, beside held-out runs, in each space."""
    sets = report.distribution
    groups = {
        f"in {space}": [
            [_label(row), *(_number(sets[name][space].get(key)) for name in ("samples", "training"))]
            for key, row in DISTRIBUTION.items()
        ]
        for space in sets["samples"]
    }
    caption = "Samples, and as many training networks for comparison, beside one network of each held-out run."
    return _table(caption, ["measure", "samples", "training"], groups)


def _facts(facts: Mapping[str, Any]) -> str:
    rows = [[name, _plain(value)] for name, value in facts.items() if value is not None]
    return _table("Versions, settings and files.", ["fact", "value"], {"": rows}, "facts")


def _plain(value: Any) -> str:
    return ", ".join(f"{k} {_plain(v)}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)


def _figures(report: Report, curve: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield the figures that there is something for, with what they show in words."""
    score, samples = _label(MEASURES[report.score]), report.samples
    for y, x in ((report.score, "novelty"), (report.score, "dispersion"), ("loss", "novelty")):
        name = _label(MEASURES[y])
        words = f"{name[0].upper()}{name[1:]} against {x}"
        alt = (
            f"{words}: samples at {_number(samples[y])} and {_number(samples[x])}, networks of held-out runs at "
            f"{_number(report.held_out[y])} and {_number(report.held_out[x])}, nulls as curves."
        )
        yield _figure(lambda ax, x=x, y=y: draw_frontiers(ax, report, x, y, legend=True), words, alt)
    if "samples" in report.frontiers:
        levels = report.frontiers["samples"].names
        alt = f"{score}, novelty and dispersion of samples at {', '.join(levels)}."
        yield _figure(lambda ax: draw_levels(ax, report), "Samples at several levels", alt)
    alt = (
        f"Histograms of distances to the nearest training network: of {report.counts['samples']} samples, of which "
        f"{samples['copies']:.0%} are likely copies, and of {report.counts['held_out']} networks of held-out runs."
    )
    yield _figure(lambda ax: draw_nearest(ax, report), "Distances to the nearest training network", alt)
    alt = "Histograms of the barriers of pairs of training runs, mean {} before alignment and {} after it."
    alt = alt.format(*(_number(report.barrier[key]) for key in ("before", "after")))
    yield _figure(lambda ax: draw_barriers(ax, report), "Loss barriers between training runs", alt)
    if report.score == "accuracy":
        alt = f"Overlap of mistakes: samples {_number(samples['iou'])}, held-out {_number(report.held_out['iou'])}."
        yield _figure(lambda ax: draw_iou(ax, report), "Mistakes shared with a training network", alt)
    if curves := reliability_of(report):
        errors = (_number(getattr(report, name)["averaged_ece"]) for name in ("samples", "training"))
        alt = "Accuracy by confidence of the model average; calibration error {} of samples, {} of training networks."
        yield _figure(lambda ax: draw_reliability(ax, curves), "Calibration of the model average", alt.format(*errors))
    if curve is not None and len(curve.get("step", ())):
        alt = f"Flow-matching loss on training and held-out runs over {max(curve['step'])} optimisation steps."
        yield _figure(lambda ax: draw_training(ax, curve), "Training of the flow", alt)


def _figure(draw: Any, title: str, alt: str) -> str:
    ax = new_axes(SIZE)
    draw(ax)
    ax.set_title(title)
    hide_spines(ax)
    return f"<figure>{inline_svg(ax.figure, alt)}</figure>\n"


def inline_svg(figure: Any, alt: str) -> str:
    """Return a figure of matplotlib as an element of a page of HTML, with these words for who does not see it.

    What is black has the colour of the text around it, and what is white that of the page, ``--background``, so that
    one figure is for light and dark pages.
    """
    from matplotlib import rc_context

    stream = StringIO()
    # letters as outlines look the same everywhere; what is drawn decides all names
    with rc_context({"svg.fonttype": "path", "svg.hashsalt": "wsflow"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    outer = OUTER.match(text)
    body = APART.sub("", text[outer.end() :] if outer else text)
    # several figures of a page must not share names
    prefix = f"f{hashlib.sha256(text.encode()).hexdigest()[:8]}-"
    body = NAMES.sub(rf"\g<1>{prefix}", body)
    for colour, of_page in COLOURS.items():
        body = body.replace(colour, of_page)
    box = outer.group(1) if outer else ""
    return (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="{box}" xmlns:xlink="http://www.w3.org/1999/xlink">{body}'
    )
