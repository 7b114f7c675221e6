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


def show(words: str, rows: list[list[float]]) -> None:
    """Print the means over the studies of one kind."""
    plain, own, plain_covers, covers = np.mean(rows, axis=0)
    print(f"{words}  {100 * plain:+12.2f}  {plain_covers:8.0%}  {100 * own:+16.2f}  {covers:8.0%}", flush=True)


def simulate(rng: np.random.Generator, candidates: int, n: int, spread: float, alike: float) -> list[float]:
    """Return for one study: the error of the plain and the corrected accuracy, and whether each interval covers."""
    skills = 0.8 + spread * rng.standard_normal(candidates)
    hard = np.sqrt(alike) * rng.standard_normal(n) + np.sqrt(1 - alike) * rng.standard_normal((candidates, n))
    found = choose(hard < norm.ppf(skills)[:, None], seed=int(rng.integers(2**32)))
    true, (low, high) = skills[found.best], wilson(round(found.measured * n), n)
    return [found.measured - true, found.accuracy - true, low <= true <= high, found.low <= true <= found.high]


def simulate_halving(rng: np.random.Generator, n: int, spread: float, kept: float) -> list[float]:
    """Do what `simulate` does for 27 candidates that climb three rungs, judged on the same images each time.

    `kept` is the share of a candidate's luck on an image that it keeps from rung to rung; 60 % is common to all.
    """
    skills = 0.8 + spread * rng.standard_normal(27)
    hard, luck = np.sqrt(0.6) * rng.standard_normal(n), np.sqrt(kept) * rng.standard_normal((27, n))
    left = np.arange(27)
    for stay in (9, 3, 3):
        drawn = hard + luck[left] + np.sqrt(0.4 - kept) * rng.standard_normal((len(left), n))
        right = drawn < norm.ppf(skills[left])[:, None]
        best = np.argsort(-right.mean(axis=1), kind="stable")[:stay]
        left, right = left[best], right[best]
    found = choose(right, seed=int(rng.integers(2**32)))
    true, (low, high) = skills[left[found.best]], wilson(round(found.measured * n), n)
    return [found.measured - true, found.accuracy - true, low <= true <= high, found.low <= true <= found.high]


def main() -> None:
    """Print one row per kind of study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200)
    studies = parser.parse_args().studies
    rng = np.random.default_rng(0)
    print("candidates  images  spread  alike  plain: error, coverage  corrected: error, coverage")
    for candidates, n, spread, alike in itertools.product((5, 20), (300, 2000), (0.0, 0.02), (0.0, 0.6, 0.9)):
        show(f"{candidates:10}  {n:6}  {spread:6.2f}  {alike:5.1f}",
             [simulate(rng, candidates, n, spread, alike) for _ in range(studies)])  # fmt: skip
    rng = np.random.default_rng(1)
    print("halving   images  spread   kept  plain: error, coverage  corrected: error, coverage")
    for n, spread, kept in itertools.product((300, 2000), (0.0, 0.02), (0.0, 0.1, 0.2)):
        show(f"27, 9, 3    {n:6}  {spread:6.2f}  {kept:5.1f}",
             [simulate_halving(rng, n, spread, kept) for _ in range(studies)])  # fmt: skip


if __name__ == "__main__":
    main()
