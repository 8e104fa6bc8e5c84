"""Run ``wsflow demo`` for some seeds, and write what it measured into the documentation.

Writes ``docs/results/demo.json`` (all that the demo printed, the time, and the machine) and
``docs/results/demo.inc`` (the tables of the results page). Nothing is selected: every seed that was run is in both.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measure import hardware

RESULTS = Path(__file__).parents[1] / "docs" / "results"
COLUMNS = ("accuracy", "loss", "novelty", "dispersion")


def run(seed: int, out: Path, arguments: list[str]) -> dict[str, Any]:
    """One demo in a process of its own, with its wall time, imports included."""
    command = ["demo", "--seed", str(seed), "--out", str(out / f"seed{seed}"), "--json", "--force", *arguments]
    start = time.perf_counter()
    code = f"import sys; from wsflow.cli import main; sys.argv[0] = 'wsflow'; main({command!r})"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return {"seed": seed, "wall_seconds": round(time.perf_counter() - start, 1), **json.loads(done.stdout)}


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """A list-table in reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (header, *rows):
        lines += [f"   {'* -' if not i else '  -'} {cell}" for i, cell in enumerate(row)]
    return [*lines, ""]


def number(value: Any) -> str:
    """Three digits behind the point, or the word itself."""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def rows_of(result: dict[str, Any]) -> list[list[str]]:
    """Training networks, held-out ones, samples, and every null."""
    found = {name: result[name] for name in ("training", "held_out", "samples") if name in result}
    found |= {f"null: {name}": row for name, row in result["nulls"].items()}
    return [
        [name.replace("_", "-"), *(number(row.get(column, "")) for column in COLUMNS)] for name, row in found.items()
    ]


def page(results: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    """The tables of all seeds."""
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items())
    lines = [f"Measured on {machine['cores']} cores of {machine['cpu']}, Python {machine['python']}, {versions}.", ""]
    summary = [
        [str(r["seed"]), *(number(r["samples"][c]) for c in COLUMNS)]
        + [f"{number(r['barrier']['before'])} → {number(r['barrier']['after'])}", f"{r['wall_seconds']:.0f} s"]
        for r in results
    ]
    lines += table(["seed", *COLUMNS, "barrier, before and after alignment", "time"], summary)
    for result in results:
        title = f"Seed {result['seed']}"
        lines += [title, "-" * len(title), "", *table(["networks", *COLUMNS], rows_of(result))]
        seconds = {name: value for name, value in result["seconds"].items() if isinstance(value, (int, float))}
        lines += ["Seconds by stage: " + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()) + ".", ""]
        lines += [f"- {sentence}" for sentence in result.get("verdict", [])] + [""]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("wsflow-demo"), help="where the demo's own files go")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the json and the tables go")
    parser.add_argument("arguments", nargs="*", help="further arguments of wsflow demo, after --")
    options = parser.parse_args()
    results = []
    for seed in options.seeds:
        results.append(run(seed, options.out, options.arguments))
        samples, wall = results[-1]["samples"], results[-1]["wall_seconds"]
        print(f"seed {seed}: {', '.join(f'{c} {number(samples[c])}' for c in COLUMNS)} in {wall:.0f} s", flush=True)
    machine = hardware()
    options.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"hardware": machine, "arguments": options.arguments, "runs": results}, indent=1, sort_keys=True)
    (options.results / "demo.json").write_text(text + "\n", encoding="utf-8")
    (options.results / "demo.inc").write_text(page(results, machine), encoding="utf-8")


if __name__ == "__main__":
    main()
