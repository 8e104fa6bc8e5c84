"""Files that are by their names or weights of one training run, though each file counts as a run of its own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

# numbers behind these words count steps of one run
STEP = re.compile(
    r"(?P<word>(?:^|(?<=[^a-z0-9]))(?:global_?step|step|epoch|ep|e|iter|iteration|ckpt|checkpoint|snapshot))"
    r"[-_=. ]?\d+",
    re.IGNORECASE,
)
# a loss or another measure changes with the step: behind its name, or a fraction behind the step
MEASURE = re.compile(
    r"(?P<name>(?:loss|acc|accuracy|score|auc|f1|mse|mae|error|err|ppl|miou|map)[-_=]?)\d+(?:\.\d+)?|"
    r"(?<=#)[-_]\d+\.\d+",
    re.IGNORECASE,
)
# networks of one run, at different steps
ROLE = re.compile(
    r"(?:^|(?<=[^a-z]))(best|last|final|latest|init|initial|swa|ema|averaged?)(?=[^a-z]|$)", re.IGNORECASE
)
REMEDY = "Splits by run would leak: pass runs= (--runs) with the run of each network, or leave files out."


def leaks(names: Sequence[str], rows: np.ndarray, runs: np.ndarray) -> list[str]:
    """Return warnings about networks that count as different runs, and are of one by their names or their weights."""
    return [*_equal(names, rows, runs), *_snapshots(names, runs)]


def _equal(names: Sequence[str], rows: np.ndarray, runs: np.ndarray) -> list[str]:
    first: dict[bytes, int] = {}
    pairs = []
    for i, row in enumerate(rows):
        j = first.setdefault(hashlib.sha256(row.tobytes()).digest(), i)
        if runs[i] != runs[j]:
            pairs.append((names[j], names[i]))
    if not pairs:
        return []
    a, b = pairs[0]
    more = f", and {len(pairs) - 1} more files repeat a network" if len(pairs) > 1 else ""
    return [f"{a} and {b} hold the same network{more}, and count as runs of their own. {REMEDY}"]


def _snapshots(names: Sequence[str], runs: np.ndarray) -> list[str]:
    families: dict[tuple[str, str], list[int]] = {}
    for i, name in enumerate(names):
        families.setdefault(family(name), []).append(i)
    found = [group for group in families.values() if len({int(runs[i]) for i in group}) > 1]
    if not found:
        return []
    listed = ", ".join(names[i] for i in found[0][:3]) + (", ..." if len(found[0]) > 3 else "")
    return [f"{listed} are snapshots of one run by their names, and count as runs of their own. {REMEDY}"]


def family(name: str) -> tuple[str, str]:
    """Return what names of snapshots of one run have in common: the folder, and the name without steps and metrics.

    Examples
    --------
    >>> from wsflow.populations.importers.runs import family
    >>> family("a/net_epoch_1.pt") == family("a/net_epoch_20.pt"), family("a/best.pt") == family("a/last.pt")
    (True, True)
    >>> family("a/net_1.pt") == family("a/net_2.pt"), family("run_1/epoch_3.pt") == family("run_2/epoch_3.pt")
    (False, False)
    """
    path = Path(name)
    text = path.as_posix()
    steps = STEP.sub(r"\g<word>#", text)
    if steps != text:
        return MEASURE.sub(lambda match: f"{match['name'] or ''}#", steps), "steps"
    roles = ROLE.sub("role", text)
    if roles != text:
        return roles, "roles"
    return text, "own"
