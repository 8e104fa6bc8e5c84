"""The page of a report: it needs nothing else, says what the report says, escapes everything, and fits a phone."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from click.testing import CliRunner
from test_plotting import CURVE, REPORT, a_report

import wsflow
from wsflow.cli import main
from wsflow.evaluation.pareto import Frontier
from wsflow.evaluation.report import Report
from wsflow.plotting.page import inline_svg
from wsflow.populations import Population
from wsflow.task import Task

HOSTILE = """</table><script>document.title="hacked"</script><img src=x onerror='hacked()'>&amp;"quoted" """
PHONE = 420


def with_levels(report: Report) -> Report:
    """The report of a generator with a knob."""
    names = ("temperature 0.5", "temperature 1")
    own = Frontier("samples", names, (report.samples, report.held_out), report.score)
    return replace(report, frontiers={**report.frontiers, "samples": own})


PAGE = with_levels(REPORT).to_html({"written": "today"}, CURVE)


class Outline(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


OUTLINE = Outline(PAGE)


def test_it_needs_nothing_else():
    assert not OUTLINE.all("script", "iframe", "object", "embed", "base", "form", "img")
    addresses = {value for _, found in OUTLINE.elements for name, value in found.items() if name in ("src", "href")}
    assert addresses == {"data:,"}
    assert all(found["xlink:href"].startswith("#") for found in OUTLINE.all("use"))
    assert "@import" not in PAGE and set(re.findall(r"url\((.)", PAGE)) == {"#"}
    policies = [found["content"] for found in OUTLINE.all("meta") if found.get("http-equiv")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_the_verdict_comes_first_and_whole():
    titles = re.findall(r"<h2>(.*?)</h2>", PAGE)
    assert titles[0] == "Verdict" and titles[-1] == "Where it comes from"
    assert all(sentence in OUTLINE.text for sentence in REPORT.verdict)


def rows_of(page: str) -> dict[str, list[str]]:
    found = re.findall(r"<tr[^>]*><th scope=\"row\">(.*?)</th>(.*?)</tr>", page)
    return {name: re.findall(r"<td>(.*?)</td>", cells) for name, cells in found}


def test_the_tables_have_the_numbers_of_the_report():
    rows = rows_of(PAGE)
    named = {"training networks": REPORT.training, "networks of held-out runs": REPORT.held_out}
    named |= {"samples": REPORT.samples}
    named |= {name.replace("_", " "): row for name, row in REPORT.nulls.items()}
    for name, row in named.items():
        assert rows[name] == [f"{row[key]:.3f}" for key in REPORT.headline], name
    copies = [f"{row['copies']:.3f}" for row in (REPORT.training, REPORT.held_out, REPORT.samples)]
    assert rows["share of likely copies"] == copies
    assert f"{REPORT.barrier['before']:.3f} before alignment" in OUTLINE.text
    for part in re.findall(r"<tbody>.*?in (weights|function)</th></tr>(.*?)</tbody>", PAGE):
        space, body = part
        values = [f"{REPORT.distribution[name][space]['density']:.3f}" for name in ("samples", "training")]
        assert rows_of(body)["density"] == values
    assert rows["seed"] == ["0"] and "torch" in rows["versions"][0] and rows["written"] == ["today"]
    assert "30 examples, 4 inputs, 3 outputs, cross_entropy" in rows["task"][0]


def test_headings_of_tables_say_what_they_head():
    headings = OUTLINE.all("th")
    assert headings and all(found.get("scope") in ("col", "row", "rowgroup") for found in headings)
    assert len(OUTLINE.all("caption")) == len(OUTLINE.all("table")) == 4


def test_figures_are_described_and_follow_the_colours_of_the_page():
    figures = [found for found in OUTLINE.all("svg") if "aria-label" in found]
    assert len(figures) == len(OUTLINE.all("figure")) == 9
    assert all(found["role"] == "img" and len(found["aria-label"]) > 40 for found in figures)
    assert f"samples at {REPORT.samples['accuracy']:.3f}" in figures[0]["aria-label"]
    names = [found["id"] for _, found in OUTLINE.elements if "id" in found]
    assert len(names) == len(set(names))
    used = {found["xlink:href"][1:] for found in OUTLINE.all("use")} | set(re.findall(r"url\(#(.*?)\)", PAGE))
    assert used <= set(names)
    drawn = "".join(re.findall(r"<figure>.*?</figure>", PAGE, flags=re.DOTALL))
    assert "#000000" not in drawn and "#ffffff" not in drawn and "currentColor" in drawn
    for figure in re.findall(r"<svg .*?</svg>", drawn, flags=re.DOTALL):
        ElementTree.fromstring(figure)


def test_equal_figures_have_equal_names_and_others_have_not():
    from matplotlib.figure import Figure

    def names(*points: float) -> set[str]:
        figure = Figure()
        figure.subplots().plot(points, marker="o")
        return set(re.findall(r'id="(.*?)"', inline_svg(figure, "a line")))

    assert names(1, 2) == names(1, 2) and not names(1, 2) & names(1, 3)


def test_the_same_report_gives_the_same_page():
    assert with_levels(REPORT).to_html({"written": "today"}, CURVE) == PAGE


@pytest.mark.parametrize("options", [{"loss": "mse"}, {"nulls": False}])
def test_regressions_and_reports_without_nulls_have_pages(options: dict[str, Any]):
    report = a_report(**options)
    page = Outline(report.to_html())
    assert all(sentence in page.text for sentence in report.verdict)
    assert len(page.all("figure")) == (5 if options.get("loss") else 7)


def test_numbers_that_do_not_exist_are_dashes():
    report = replace(REPORT, samples={**REPORT.samples, "jsd": float("nan")})
    page = report.to_html()
    assert rows_of(page)["Jensen-Shannon divergence"][-1] == "–" and "nan" not in Outline(page).text.lower().split()


def hostile() -> Report:
    """A report in which every name is an attack."""
    rng = np.random.default_rng(0)
    architecture = wsflow.Architecture.mlp([4, 5, 3])
    train, held_out, samples = (
        wsflow.WeightArray(rng.standard_normal((n, architecture.n_weights)), architecture, runs=np.arange(n) + first)
        for n, first in ((12, 0), (6, 12), (4, 18))
    )
    task = Task(rng.standard_normal((20, 4)), rng.integers(3, size=20), source={"name": HOSTILE})
    report = wsflow.evaluate(samples, train, held_out, task, nulls=False)
    assert HOSTILE in report.provenance["task"]
    return replace(report, verdict=[*report.verdict, HOSTILE], nulls={HOSTILE: report.samples})


def test_everything_is_escaped():
    page = hostile().to_html({HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE]}})
    outline = Outline(page)
    assert not outline.all("script", "img") and not any("onerror" in found for _, found in outline.elements)
    # in the verdict, as a null, as the task and as facts
    assert outline.text.count(HOSTILE) >= 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples, training networks and networks of held-out runs."""
    folder = tmp_path_factory.mktemp("page")
    task = wsflow.load_task("iris")
    weights = wsflow.train_population(task, (4,), 24, epochs=2).weights
    for name, rows in (("zoo", weights[:12]), ("held_out", weights[12:18]), ("new", weights[18:])):
        wsflow.save_population(Population(rows, task), folder / f"{name}.st")
    return folder


class TestCommand:
    def test_it_writes_the_page_with_the_checksums_of_its_files(self, folder: Path, tmp_path: Path):
        files = [folder / name for name in ("new.st", "zoo.st", "held_out.st")]
        words = [str(files[0]), "--train", str(files[1]), "--held-out", str(files[2])]
        result = CliRunner().invoke(main, ["evaluate", *words, "-o", str(tmp_path / "report.html"), "--seed", "3"])
        assert result.exit_code == 0 and "novelty" in result.stdout, result.output
        rows = rows_of((tmp_path / "report.html").read_text(encoding="utf-8"))
        for name, path in zip(("file of samples", "file of training", "file of held-out runs"), files, strict=True):
            assert rows[name] == [f"{path}, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}"]
        assert rows["seed"] == ["3"] and rows["written"][0].endswith(" UTC")

    def test_it_writes_the_data_that_are_read_again(self, folder: Path, tmp_path: Path):
        words = [str(folder / "new.st"), "--train", str(folder / "zoo.st"), "-o", str(tmp_path / "report.json")]
        result = CliRunner().invoke(main, ["evaluate", *words, "--json", "-q"])
        assert result.exit_code == 0, result.output
        assert json.loads((tmp_path / "report.json").read_text()) == json.loads(result.stdout)
        assert wsflow.load_report(tmp_path / "report.json").verdict == json.loads(result.stdout)["verdict"]

    def test_another_kind_of_file_is_refused_before_work(self, folder: Path, tmp_path: Path):
        words = ["evaluate", str(folder / "new.st"), "--train", str(folder / "zoo.st")]
        result = CliRunner().invoke(main, [*words, "-o", str(tmp_path / "report.txt")])
        assert result.exit_code == 5 and "a report ends in .html" in result.stderr
        assert not list(tmp_path.iterdir())


# elements that reach beyond a width; a phone would make its window wider, and letters smaller
OVERFLOWING = """[...document.querySelectorAll("main *")].map(e => [e.tagName, e.getBoundingClientRect().right])
  .filter(([name, right]) => right > %d + 0.5).map(([name, right]) => name).join()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for all tests that look at the page."""
    with Browser() as browser:
        yield browser


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
class TestInABrowser:
    @pytest.mark.parametrize("dark", [False, True])
    @pytest.mark.parametrize("width", [320, PHONE, 1280])
    def test_it_is_shown_offline_without_a_complaint_and_fits(
        self, browser: Browser, tmp_path: Path, width: int, dark: bool
    ):
        (tmp_path / "report.html").write_text(PAGE, encoding="utf-8")
        browser.open(tmp_path / "report.html", width, dark=dark)
        assert browser.requests == [(tmp_path / "report.html").as_uri()] and browser.complaints == []
        assert browser.value("document.documentElement.scrollWidth") == browser.value("innerWidth") == width
        assert browser.value(OVERFLOWING % width) == ""
        colours = [
            browser.value(f"getComputedStyle(document.querySelector('{element}')).{colour}")
            for element, colour in (("body", "backgroundColor"), ("body", "color"), ("figure svg", "fill"))
        ]
        background, text, figures = (sum(map(int, re.findall(r"\d+", c)[:3])) for c in colours)
        assert text == figures and (background < 150 < 500 < text if dark else text < 150 < 500 < background)

    def test_attacks_are_shown_as_text(self, browser: Browser, tmp_path: Path):
        (tmp_path / "report.html").write_text(hostile().to_html({HOSTILE: HOSTILE}), encoding="utf-8")
        browser.open(tmp_path / "report.html", PHONE)
        assert browser.value("document.title") == "Report on 4 networks" and browser.complaints == []
        assert browser.requests == [(tmp_path / "report.html").as_uri()]
        assert HOSTILE.strip() in browser.value("document.querySelector('.verdict').innerText")
        assert (
            browser.value(OVERFLOWING % PHONE) == "" and browser.value("document.documentElement.scrollWidth") == PHONE
        )

    def test_what_is_wrong_would_be_seen(self, browser: Browser, tmp_path: Path):
        wrong = PAGE.replace("<main>", '<main><p style="width: 900px">wide</p><img src="https://example.org/x.png">')
        (tmp_path / "wrong.html").write_text(wrong, encoding="utf-8")
        browser.open(tmp_path / "wrong.html", PHONE)
        assert (
            "P" in browser.value(OVERFLOWING % PHONE) and browser.value("document.documentElement.scrollWidth") > PHONE
        )
        assert any("Content Security Policy" in complaint for complaint in browser.complaints)
