"""Whether flows fitted to populations of known density are calibrated, beside controls that must be rejected.

Fresh networks x of the known law p are compared with a flow's samples y and scores log q:

- *ranks*: the rank of a statistic of each x among nine samples of its own is uniform (Talts et al. 2018,
  arXiv:1804.06788), for every coordinate and for log p, by a chi-squared test;
- *classifier*: a classifier that is trained to tell x from y is right on others of them as often as a coin (Lopez-Paz
  and Oquab 2017, arXiv:1610.06545), by the binomial law;
- *coverage*: the region of the highest scores that holds 50% or 90% of the samples holds as many fresh networks, by the
  beta-binomial law of counts above an order statistic;
- *mass*: the integral of exp(score) over the region that holds 50% or 90% of p is the share of the samples in it, by
  the normal law of their difference. It holds for scores of any flow that are those of its samples.

Each p-value is the smallest of its tests by Bonferroni's correction. The controls take samples at temperature 0.7, or
scores that are shuffled among the networks. Writes ``docs/results/calibration.json``, row by row.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from demo_seeds import RESULTS
from results_file import Clock, ResultsFile
from scipy.special import logsumexp
from scipy.stats import betabinom, binomtest, chisquare, multivariate_normal, norm, vonmises_fisher
from sklearn.ensemble import HistGradientBoostingClassifier

from wsflow import Architecture, WeightArray, WeightFlow

SAMPLES = 9  # that each rank is among
LEVELS = (0.5, 0.9)
NETWORK = Architecture.mlp([2, 2, 1], "relu")
COLUMNS = np.array([[0, 1, 4], [2, 3, 5]])  # of the weights and the bias of each hidden neuron
DIRECTIONS = np.array([[0.6, 0.0, 0.8], [0.0, -0.8, 0.6]])
CONCENTRATION = 6.0


@dataclass(frozen=True)
class Law:
    """A law of known density: how n rows are drawn, and the log-density of rows (n,)."""

    draw: Callable[[int, np.random.Generator], np.ndarray]
    logpdf: Callable[[np.ndarray], np.ndarray]
    architecture: Architecture | None = None

    def networks(self, rows: np.ndarray) -> Any:
        """Rows as a flow takes them."""
        return rows if self.architecture is None else WeightArray(rows, self.architecture)


def gaussian() -> Law:
    """Correlated, in four dimensions."""
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(4, 4))
    law = multivariate_normal(rng.normal(size=4), factor @ factor.T + 0.1 * np.eye(4))
    return Law(lambda n, rng: law.rvs(n, random_state=rng), law.logpdf)


def mixture() -> Law:
    """Three Gaussians in the plane, of different weights and widths, two of which overlap."""
    shares, sizes = np.array([0.5, 0.3, 0.2]), np.array([0.5, 0.3, 0.4])
    means = np.array([[-1.5, 0.0], [1.0, 1.0], [1.2, -0.4]])

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        chosen = rng.choice(3, size=n, p=shares)
        return means[chosen] + sizes[chosen, None] * rng.normal(size=(n, 2))

    def logpdf(rows: np.ndarray) -> np.ndarray:
        each = norm(means, sizes[:, None]).logpdf(rows[:, None]).sum(2)
        return logsumexp(each, axis=1, b=shares)

    return Law(draw, logpdf)


def spheres() -> Law:
    """Networks whose hidden neurons are on spheres, by von Mises and Fisher, with output weights that follow them."""
    laws = [vonmises_fisher(direction, CONCENTRATION) for direction in DIRECTIONS]

    def following(rows: np.ndarray) -> Any:
        cosines = np.einsum("nki,ki->nk", rows[:, COLUMNS], DIRECTIONS)
        return norm(np.concatenate([2 * cosines, cosines.sum(1, keepdims=True) - 1], 1), 0.5)

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        rows = np.zeros((n, NETWORK.n_weights))
        for columns, law in zip(COLUMNS, laws, strict=True):
            rows[:, columns] = law.rvs(n, random_state=rng)
        rows[:, 6:] = following(rows).rvs(random_state=rng)
        return rows

    def logpdf(rows: np.ndarray) -> np.ndarray:
        neurons = sum(law.logpdf(rows[:, columns]) for columns, law in zip(COLUMNS, laws, strict=True))
        return neurons + following(rows).logpdf(rows[:, 6:]).sum(1)

    return Law(draw, logpdf, NETWORK)


LAWS: dict[str, Callable[[], Law]] = {"Gaussian": gaussian, "mixture": mixture, "von Mises-Fisher": spheres}


def smallest(p_values: Any) -> float:
    """The smallest p-value by Bonferroni's correction."""
    return float(min(1.0, np.min(p_values) * np.size(p_values)))


def rank_test(law: Law, x: np.ndarray, y: np.ndarray) -> float:
    """Ranks of each row of x (n, d) among its own rows of y (n, SAMPLES, d), for all coordinates and log p."""
    n, own, d = y.shape
    of_x = np.column_stack([x, law.logpdf(x)])
    of_y = np.column_stack([y.reshape(-1, d), law.logpdf(y.reshape(-1, d))]).reshape(n, own, -1)
    ranks = (of_y < of_x[:, None]).sum(1)
    return smallest([chisquare(np.bincount(column, minlength=own + 1)).pvalue for column in ranks.T])


def classifier_test(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[float, float]:
    """The p-value and the accuracy of a classifier of rows (n, d) of either law, on the half it was not trained on."""
    half = len(x) // 2
    rows, labels = (np.concatenate([a[:half], b[:half]]) for a, b in ((x, y), (np.zeros(len(x)), np.ones(len(y)))))
    fitted = HistGradientBoostingClassifier(max_iter=60, learning_rate=0.1, random_state=seed).fit(rows, labels)
    right = int((fitted.predict(x[half:]) == 0).sum() + (fitted.predict(y[half:]) == 1).sum())
    n = len(x) + len(y) - 2 * half
    return float(binomtest(right, n, 0.5, alternative="greater").pvalue), right / n


def coverage_test(of_x: np.ndarray, of_y: np.ndarray) -> tuple[float, list[float]]:
    """Shares of scores of x (n,) above the score that a share of those of y (m,) is above."""
    n, m, p_values, shares = len(of_x), len(of_y), [], []
    for level in LEVELS:
        above = round(level * m)
        count = int((of_x > np.sort(of_y)[m - above]).sum())
        # above the order statistic that `above` - 1 of m are above
        null = betabinom(n, above, m + 1 - above)
        p_values.append(min(1.0, 2 * min(null.cdf(count), null.sf(count - 1))))
        shares.append(count / n)
    return smallest(p_values), shares


def mass_test(law: Law, x: np.ndarray, y: np.ndarray, of_x: np.ndarray, threshold: np.ndarray) -> float:
    """The integral of exp(score) over regions of high p, by fresh networks x, and the share of samples y in them."""
    log_p, p_values = law.logpdf(x), []
    for level in threshold:
        mass = np.where(log_p >= level, np.exp(of_x - log_p), 0.0)
        share = (law.logpdf(y) >= level).astype(float)
        error = np.sqrt(mass.var() / len(x) + share.var() / len(y))
        p_values.append(2 * norm.sf(abs(mass.mean() - share.mean()) / error))
    return smallest(p_values)


def judged(law: Law, x: np.ndarray, y: np.ndarray, of_x: np.ndarray, of_y: np.ndarray, seed: int) -> dict[str, Any]:
    """All tests of fresh networks x (n, d) and their scores (n,), samples y (n, SAMPLES, d) and scores of the first."""
    regions = np.quantile(law.logpdf(law.draw(100_000, np.random.default_rng(seed + 1000))), 1 - np.array(LEVELS))
    classifier, accuracy = classifier_test(x, y[:, 0], seed)
    coverage, shares = coverage_test(of_x, of_y)
    off = of_x - law.logpdf(x)
    return {
        "p": {
            "ranks": rank_test(law, x, y),
            "classifier": classifier,
            "coverage": coverage,
            "mass": mass_test(law, x, y[:, 0], of_x, regions),
        },
        "accuracy": accuracy,
        "coverage": shares,
        "kl": float(-off.mean()),
        "rms": float(np.sqrt(np.mean(off**2))),
    }


def run(name: str, seed: int, n_train: int, n_test: int, **flow: Any) -> dict[str, Any]:
    """Fit a flow to one law, and judge it and its controls."""
    law, rng, clock = LAWS[name](), np.random.default_rng(seed), Clock()
    with clock("fit"):
        geometry = "euclidean" if law.architecture is None else "geometric"
        fitted = WeightFlow(geometry, random_state=seed, **flow).fit(law.networks(law.draw(n_train, rng)))
    x = law.draw(n_test, rng)
    with clock("sample"):
        drawn = [
            np.asarray(fitted.sample(n_test * SAMPLES, seed, temperature=temperature)).reshape(n_test, SAMPLES, -1)
            for temperature in (1.0, 0.7)
        ]
    with clock("score"):
        of_x, of_y, of_cold = (fitted.score_samples(law.networks(rows)) for rows in (x, *(y[:, 0] for y in drawn)))
    # of x with x and of y with y, so that both sets of scores are as they were
    mixed = rng.permutation(of_x), rng.permutation(of_y)
    return {
        "flow": judged(law, x, drawn[0], of_x, of_y, seed),
        "temperature 0.7": judged(law, x, drawn[1], of_x, of_cold, seed),
        "shuffled scores": judged(law, x, drawn[0], *mixed, seed),
        "seconds": clock.seconds,
    }


def main() -> None:
    """Run what is missing, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--laws", nargs="+", choices=LAWS, default=list(LAWS))
    parser.add_argument("--steps", type=int, nargs="+", default=[600], help="training steps; 600 are the default")
    parser.add_argument("--train", type=int, default=4000, help="networks that a flow is fitted to")
    parser.add_argument("--test", type=int, default=1000, help="fresh networks")
    parser.add_argument("--out", type=Path, default=RESULTS / "calibration.json")
    parser.add_argument("--again", action="store_true", help="measure rows that are there once more")
    chosen = parser.parse_args()
    settings = {"train": chosen.train, "test": chosen.test, "samples": SAMPLES, "levels": LEVELS}
    found = ResultsFile(chosen.out, settings, chosen.again)
    for seed in chosen.seeds:
        for steps in chosen.steps:
            for name in chosen.laws:
                row = found.measure(
                    f"{seed}/{name}, {steps} steps",
                    lambda name=name, seed=seed, steps=steps: run(
                        name, seed, chosen.train, chosen.test, max_iter=steps
                    ),
                )
                print(f"{seed}/{name}, {steps} steps", f"{row['seconds']['all']:.0f} s")
                for arm in ("flow", "temperature 0.7", "shuffled scores"):
                    print(f"  {arm:16}", {k: f"{p:.2g}" for k, p in row[arm]["p"].items()}, flush=True)


if __name__ == "__main__":
    main()
