"""Measure what the order of `onsight label` brings against a random one, with simulated people who are always right.

    python benchmarks/label_order.py FOLDER [--seeds 3]

FOLDER holds class folders of photos. Their features are those of EfficientNet-Lite0, the head is the one of `train`,
and the order is that of `onsight.labelling.queue`. Each seed draws 30 % of the images as the test; it chooses nothing.

- wrong labels: 5 % of the labels of the other images become those of another class. N images are looked at and put
  right.
- pool: 10 images of each class have labels, the others have none. N of them get labels. `once` asks in the order of the
  first model, `in rounds` trains again after every 50.

It prints, for each N, the wrong labels that were found (or the labels that there are then), and the accuracy on the
test images: means over the seeds, with the standard deviations.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np

import onsight
from onsight.features.head import fit, fit_head
from onsight.inference.engines import Answers
from onsight.labelling.queue import order

MODEL = "efficientnet_lite0"
ASKED = (0, 50, 100, 200, 400)
TEST, WRONG, START, ROUND = 0.3, 0.05, 10, 50


class Head:
    """A head whose regularisation is chosen once, at the first fit, because choosing takes long."""

    def __init__(self, features: np.ndarray, classes: int) -> None:
        self.features, self.classes = features, classes
        self.strength = 0.0

    def logits(self, chosen: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the logits for all images of a head that was fitted to the chosen ones."""
        rows = self.features[chosen]
        mean, scale = rows.mean(axis=0), float(rows.std(axis=0).mean()) + 1e-6
        self.strength = self.strength or fit_head(rows, labels, self.classes).strength
        kernel, bias = fit((rows - mean) / scale, labels, self.classes, self.strength, None)
        return np.asarray((self.features - mean) / scale @ kernel + bias)


def asked_first(labels: np.ndarray, features: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Return the rows in our order."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    answers = Answers((shares / shares.sum(axis=1, keepdims=True)).astype(np.float32), None)
    return np.array([row for _, row in order(labels, features, answers, None)])


def wrong_labels(head: Head, truth: np.ndarray, train: np.ndarray, test: np.ndarray, rng: np.random.Generator) -> dict:
    """Return {order: [(found, accuracy) for each N]}."""
    planted = rng.choice(len(train), round(WRONG * len(train)), replace=False)
    labels = truth[train].copy()
    labels[planted] = (labels[planted] + rng.integers(1, head.classes, len(planted))) % head.classes
    ours = asked_first(labels, head.features[train], head.logits(train, labels)[train])
    found = {}
    for name, rows in (("ours", ours), ("random", rng.permutation(len(train)))):
        found[name] = []
        for n in ASKED:
            mended = labels.copy()
            mended[rows[:n]] = truth[train][rows[:n]]
            right = head.logits(train, mended)[test].argmax(axis=1) == truth[test]
            found[name].append((int(np.isin(planted, rows[:n]).sum()), float(right.mean())))
    return found


def pool(head: Head, truth: np.ndarray, train: np.ndarray, test: np.ndarray, rng: np.random.Generator) -> dict:
    """Return {order: [(labels, accuracy) for each N]}."""
    start = np.concatenate(
        [rng.permutation(np.flatnonzero(truth[train] == each))[:START] for each in range(head.classes)]
    )
    rest = np.setdiff1d(np.arange(len(train)), start)

    def ours(known: np.ndarray) -> np.ndarray:
        left = np.setdiff1d(rest, known)
        logits = head.logits(train[known], truth[train[known]])[train[left]]
        return left[asked_first(np.full(len(left), -1), head.features[train[left]], logits)]

    def measured(next_ones: Callable[[np.ndarray], np.ndarray], step: int) -> list[tuple[int, float]]:
        known, results = start, []
        for n in ASKED:
            while len(known) - len(start) < n:
                known = np.concatenate([known, next_ones(known)[: min(step, n + len(start) - len(known))]])
            right = head.logits(train[known], truth[train[known]])[test].argmax(axis=1) == truth[test]
            results.append((len(known), float(right.mean())))
        return results

    first, shuffled = ours(start), rng.permutation(rest)
    return {
        "once": measured(lambda known: first[~np.isin(first, known)], len(rest)),
        "in rounds": measured(ours, ROUND),
        "random": measured(lambda known: shuffled[~np.isin(shuffled, known)], len(rest)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    found = onsight.embed(MODEL, asked.folder)
    print(f"{len(found.names):,} images, {len(found.classes)} classes, {asked.seeds} seeds")
    for simulate, what in ((wrong_labels, "wrong labels found"), (pool, "labels")):
        results = []
        for seed in range(asked.seeds):
            rng = np.random.default_rng(seed)
            shuffled = rng.permutation(len(found.names))
            test, train = np.split(shuffled, [round(TEST * len(shuffled))])
            head = Head(found.features, len(found.classes))
            results.append(simulate(head, found.labels, np.sort(train), test, rng))
            print(f"seed {seed}: {len(train):,} images, {len(test):,} test images, C {head.strength:g}", flush=True)
        for name in results[0]:
            for n, each in zip(ASKED, zip(*(result[name] for result in results), strict=True), strict=True):
                counts, accuracies = zip(*each, strict=True)
                spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
                print(
                    f"{name:10} N {n:3}: {statistics.mean(counts):6.1f} {what}, accuracy "
                    f"{100 * statistics.mean(accuracies):.2f} % (sd {100 * spread:.2f})"
                )


if __name__ == "__main__":
    main()
