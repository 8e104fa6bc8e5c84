"""How readers of files end on mutated and drawn files: refused with a sentence, or used; and how many a second.

The files, their mutations and their structures are those of the tests (``tests/readers.py``, ``tests/structures.py``).
Writes ``docs/results/mutations.json`` after every round of all readers, and goes on where it was stopped, with other
mutations. A file that ends in any other way is a fault: it is listed with its number, and the script ends with 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demo_seeds import RESULTS
from measure import hardware
from results_file import ResultsFile, plain

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

KINDS = ("mutated", "drawn")


def outcomes(name: str, kind: str, folder: Path, first: int, n: int) -> Iterator[tuple[int, str, str]]:
    """Attempt n files of a reader; yield the number, the outcome and the problem of each."""
    from readers import READERS, attempt, attempts, prepared
    from structures import STRUCTURES, examples

    if kind == "mutated":
        yield from attempts(READERS[name], folder, range(first, first + n))
        return
    path, _ = prepared(READERS[name], folder)
    for number, content in enumerate(examples(STRUCTURES[name], n, seed=first), first):
        path.write_bytes(content)
        yield number, *attempt(READERS[name], path)


def measured(row: dict[str, Any], name: str, kind: str, folder: Path, n: int) -> dict[str, Any]:
    """A row with n more files of a reader."""
    start, first = time.process_time(), row.get("files", 0)
    found = list(outcomes(name, kind, folder, first, n))
    ended = Counter(outcome for _, outcome, _ in found)
    faults = [f"{number}: {problem}" for number, _, problem in found if problem]
    return {
        "files": first + len(found),
        "refused": row.get("refused", 0) + ended["refused"],
        "used": row.get("used", 0) + ended["used"],
        "faults": row.get("faults", []) + faults,
        "seconds": row.get("seconds", 0.0) + time.process_time() - start,
    }


def main() -> int:
    """Go round and round the readers, until each has had its files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=100_000, help="of each reader, mutated and drawn each")
    parser.add_argument("--round", type=int, default=1000, help="files of a reader before it is another's turn")
    parser.add_argument("--readers", nargs="+", help="only these")
    parser.add_argument("--out", type=Path, default=RESULTS / "mutations.json")
    chosen = parser.parse_args()
    out = chosen.out.absolute()
    from readers import READERS
    from structures import STRUCTURES

    found = ResultsFile(out, {})
    names = chosen.readers or list(READERS)
    turns = [(name, kind) for kind in KINDS for name in names if kind == "mutated" or name in STRUCTURES]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["WSFLOW_DATA"] = folder
        for _ in range(0, chosen.files, chosen.round):
            for name, kind in turns:
                row = found.rows.get(f"{name}, {kind}", {})
                if (left := min(chosen.files - row.get("files", 0), chosen.round)) > 0:
                    row = measured(row, name, kind, Path(folder), left)
                    found.rows[f"{name}, {kind}"] = plain(row) | {"hardware": hardware()}
                    found.write()
                    print(f"{name}, {kind}", row["files"], *row["faults"], flush=True)
        os.chdir(out.parent)
    return int(any(row["faults"] for row in found.rows.values()))


if __name__ == "__main__":
    sys.exit(main())
