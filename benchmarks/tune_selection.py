#!/usr/bin/env python3
"""Simulate how honest the figure of a study's winner is: the bias and the coverage of its 95 % interval.

    python benchmarks/tune_selection.py [--studies 200]

Each study has candidates whose true accuracies are 80 % plus a normal spread, and n validation images. In which images
are hard, candidates are alike to some degree (a probit model). Printed for the plain accuracy of the winner and for the
corrected one: the mean error in points, and how often the interval holds the winner's true accuracy.
"""

import argparse
import itertools

import numpy as np
from scipy.stats import norm

from onsight.metrics.intervals import wilson
from onsight.metrics.selection import choose


def simulate(rng: np.random.Generator, candidates: int, n: int, spread: float, alike: float) -> list[float]:
    """Return for one study: the error of the plain and the corrected accuracy, and whether each interval covers."""
    skills = 0.8 + spread * rng.standard_normal(candidates)
    hard = np.sqrt(alike) * rng.standard_normal(n) + np.sqrt(1 - alike) * rng.standard_normal((candidates, n))
    found = choose(hard < norm.ppf(skills)[:, None], seed=int(rng.integers(2**32)))
    true, (low, high) = skills[found.best], wilson(round(found.measured * n), n)
    return [found.measured - true, found.accuracy - true, low <= true <= high, found.low <= true <= found.high]


def main() -> None:
    """Print one row per kind of study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200)
    studies = parser.parse_args().studies
    rng = np.random.default_rng(0)
    print("candidates  images  spread  alike  plain: error, coverage  corrected: error, coverage")
    for candidates, n, spread, alike in itertools.product((5, 20), (300, 2000), (0.0, 0.02), (0.0, 0.6, 0.9)):
        plain, own, plain_covers, covers = np.mean(
            [simulate(rng, candidates, n, spread, alike) for _ in range(studies)], axis=0
        )
        print(
            f"{candidates:10}  {n:6}  {spread:6.2f}  {alike:5.1f}  {100 * plain:+12.2f}  {plain_covers:8.0%}  "
            f"{100 * own:+16.2f}  {covers:8.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
