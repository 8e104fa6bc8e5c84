"""The benchmark of calibration: its laws have their densities, its tests have their size and power, and flows pass."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, norm
from test_benchmarks import parse

ROOT = Path(__file__).parent.parent
LAWS = ("Gaussian", "mixture", "von Mises-Fisher")
LEVEL = 1e-3  # of the smallest p-value of a flow's tests, by Bonferroni's correction
COLUMNS = ([0, 1, 4], [2, 3, 5])  # of each sphere
POWER = 1e-4  # what controls are rejected at, at least


@pytest.fixture(scope="module")
def calibration() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("calibration")


def proposal(name: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows that cover a law, and their log-densities: normal, and uniform on spheres."""
    d = {"Gaussian": 4, "mixture": 2, "von Mises-Fisher": 9}[name]
    rows = 3.0 * rng.normal(size=(n, d))
    log_g = norm(0, 3).logpdf(rows)
    if d == 9:
        for columns in COLUMNS:
            rows[:, columns] /= np.linalg.norm(rows[:, columns], axis=1, keepdims=True)
            log_g[:, columns] = -np.log(4 * np.pi) / 3
    return rows, log_g.sum(1)


@pytest.mark.parametrize("name", LAWS)
def test_laws_have_their_densities(calibration: Any, name: str) -> None:
    """Importance weights of a wide proposal have mean 1, and give the means and variances of what is drawn."""
    law, rng = calibration.LAWS[name](), np.random.default_rng(1)
    x = law.draw(40_000, rng)
    rows, log_g = proposal(name, 400_000, rng)
    weights = np.exp(law.logpdf(rows) - log_g)
    for of in (np.ones_like, lambda r: r, np.square):
        found, drawn = weights[:, None] * of(rows), of(x)
        error = np.sqrt(found.var(0) / len(rows) + drawn.var(0) / len(x))
        assert (error < 0.2 * (1 + np.abs(drawn.mean(0)))).all()
        # 19 numbers at the most: one in 10,000 laws is that far off
        assert (np.abs(found.mean(0) - drawn.mean(0)) < 4.5 * error).all()


@pytest.mark.parametrize("name", LAWS)
def test_the_tests_have_their_size(calibration: Any, name: str) -> None:
    """Of samples of the law itself, no more than a share of 5% are rejected at 5%, up to the binomial law."""
    law, n, repeats = calibration.LAWS[name](), 100, 60
    regions = np.quantile(law.logpdf(law.draw(20_000, np.random.default_rng(9))), [0.5, 0.1])
    rejected = np.zeros(3)
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        x, y = law.draw(n, rng), law.draw(9 * n, rng).reshape(n, 9, -1)
        scores = law.logpdf(x), law.logpdf(y[:, 0])
        p_values = [
            calibration.rank_test(law, x, y),
            calibration.coverage_test(*scores)[0],
            calibration.mass_test(law, x, y[:, 0], scores[0], regions),
        ]
        rejected += np.array(p_values) < 0.05
    assert (rejected <= binom.isf(1e-4, repeats, 0.05)).all(), rejected


@pytest.mark.parametrize("name", LAWS)
def test_the_tests_have_power(calibration: Any, name: str) -> None:
    """Samples that are too narrow, and scores of other networks, are rejected, and the law itself is not."""
    law, rng, n = calibration.LAWS[name](), np.random.default_rng(2), 500
    x, y = law.draw(n, rng), law.draw(9 * n, rng).reshape(n, 9, -1)
    narrow = y.mean((0, 1)) + 0.7 * (y - y.mean((0, 1)))
    for columns in COLUMNS if name == "von Mises-Fisher" else ():
        narrow[..., columns] /= np.linalg.norm(narrow[..., columns], axis=-1, keepdims=True)
    of_x, of_y, of_narrow = (law.logpdf(rows) for rows in (x, y[:, 0], narrow[:, 0]))
    assert min(calibration.judged(law, x, y, of_x, of_y, 0)["p"].values()) > LEVEL / 4
    found = calibration.judged(law, x, narrow, of_x, of_narrow, 0)["p"]
    assert max(found[key] for key in ("ranks", "classifier")) < POWER
    found = calibration.judged(law, x, y, rng.permutation(of_x), rng.permutation(of_y), 0)["p"]
    assert found["mass"] < POWER


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_flows_are_calibrated(calibration: Any, name: str) -> None:
    """A flow passes what samples at temperature 0.7 and shuffled scores do not."""
    found = calibration.run(name, seed=0, n_train=4000, n_test=500)
    assert min(found["flow"]["p"].values()) > LEVEL / 4, found["flow"]
    cold = found["temperature 0.7"]["p"]
    assert max(cold[key] for key in ("ranks", "classifier")) < POWER, cold
    assert found["shuffled scores"]["p"]["mass"] < POWER


@pytest.mark.parametrize(("name", "of_a_key"), [("calibration", 3), ("mutations", 1)])
def test_measured_rows_have_a_table(name: str, of_a_key: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row for each law, or reader, and arm, which docutils reads."""
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_extensions"))
    found = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    lines = importlib.import_module("made_from_results").TABLES[f"{name}-table"](found)
    keys = {key.partition("/")[2] if name == "calibration" else key for key in found["rows"]}
    assert sum(line.startswith("   * -") for line in lines) == 1 + of_a_key * len(keys)
    parse(lines)
