"""What a model has answered, and whether it answers other things than it did on validation images.

Three shares are compared: of the classes, of the confidence, and of the distance where the model knows one. The test
may be looked at after every image: it is an e-value, the odds that an observer gains who bets against "the images are
like the validation images". Under that hypothesis the odds ever exceed 1 / a with probability a at most (Ville's
inequality), however often they are looked at. The three odds are averaged, which is an e-value, too.
"""

from __future__ import annotations

import contextlib
import math
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onsight.core.errors import RunError
from onsight.runs.run import read_object

FILE = "validation_answers.json"  # in the run; written by `serving.reference`
ALARM = 20.0  # odds: at most 5 % of the servers that see only images like the validation images ever reach it
SHOWN = 3  # classes whose share has changed most, as named in a summary


class Watch:
    """Counts what one model has answered.

    Attributes:
        classes: images by class.
        unsure: images by the reason why the answer is unsure.
        reference: the content of validation_answers.json, or None if it is not known.
        counts: images by the bins of the reference: "classes", "confidence" and "distance".
    """

    def __init__(self, names: Sequence[str], reference: dict[str, Any] | None = None) -> None:
        self.names = names
        self.classes = [0] * len(names)
        self.unsure = {"close": 0, "far": 0}
        self.distances = 0.0  # their sum
        self.reference = reference
        self.counts = {key: [0] * len(counts) for key, counts in (reference or {}).get("counts", {}).items()}

    @property
    def images(self) -> int:
        """The number of images that were answered."""
        return sum(self.classes)

    def record(self, answer: dict[str, Any]) -> None:
        """Count an answer of a worker. One that is an error does not count."""
        if "error" in answer:
            return
        index, confidence = answer["top"][0]
        self.classes[index] += 1
        if answer["reason"]:
            self.unsure[answer["reason"]] += 1
        if answer["distance"] is not None:
            self.distances += answer["distance"]
        if self.reference is None:
            return
        self.counts["classes"][index] += 1
        for key, value in (("confidence", confidence), ("distance", answer["distance"])):
            if key in self.counts and value is not None:
                self.counts[key][bisect_right(self.reference["edges"][key], value)] += 1

    def summary(self) -> dict[str, Any]:
        """Return what was counted and, where validation's answers are known, how unlike them it is."""
        n = self.images
        found: dict[str, Any] = {
            "images": n,
            "answered": self.classes,
            "unsure": dict(self.unsure),
            "drift": None,
        }
        if self.reference is None:
            return found
        expected = self.reference["counts"]
        logs = {key: log_odds(counts, expected[key]) for key, counts in self.counts.items()}
        odds = log_mean(list(logs.values()))
        shares = [
            (seen / max(n, 1), known / self.reference["n"], name)
            for name, seen, known in zip(self.names, self.counts["classes"], expected["classes"], strict=True)
        ]
        shares.sort(key=lambda share: -abs(share[0] - share[1]))
        found["drift"] = {
            "alarm": odds >= math.log(ALARM),
            "odds": rounded(odds),
            "alarm_from": ALARM,
            "by": {key: rounded(value) for key, value in logs.items()},
            "validation_images": self.reference["n"],
            "validation": [round(count / self.reference["n"], 4) for count in expected["classes"]],
            "most_changed": [
                {"class": name, "share": round(seen, 4), "validation": round(known, 4)}
                for seen, known, name in shares[:SHOWN]
            ],
        }
        return found


def log_odds(seen: Sequence[int], reference: Sequence[int]) -> float:
    """Return the logarithm of the e-value against "both counts come from the same shares".

    It is the ratio of two predictions of `seen`: by somebody who knows nothing, and by somebody who has learned the
    shares from `reference`, both with a uniform prior (Gunel and Dickey 1974). So it allows for a small reference.

    >>> log_odds([5, 5], [500, 500]) < 0 < log_odds([50, 0], [500, 500])
    True
    """
    return _log_chance(seen, [1.0] * len(seen)) - _log_chance(seen, [1.0 + count for count in reference])


def _log_chance(counts: Sequence[int], prior: Sequence[float]) -> float:
    """Return the logarithm of the probability of a sequence with these counts under a Dirichlet prior."""
    total = math.fsum(prior)
    parts = (math.lgamma(a + n) - math.lgamma(a) for a, n in zip(prior, counts, strict=True) if n)
    return math.lgamma(total) - math.lgamma(total + sum(counts)) + math.fsum(parts)


def log_mean(logs: Sequence[float]) -> float:
    """Return the logarithm of the mean of numbers whose logarithms are given."""
    most = max(logs)
    return most + math.log(math.fsum(math.exp(each - most) for each in logs) / len(logs))


def rounded(log: float) -> float:
    """Return odds from their logarithm, with three digits, at most 1e12: JSON has no infinity."""
    return float(f"{math.exp(min(log, math.log(1e12))):.3g}")


def read_reference(run: Path, weights_sha256: str) -> dict[str, Any] | None:
    """Return the validation_answers.json of a run, or None if it is missing, damaged or of other weights."""
    with contextlib.suppress(RunError, KeyError, TypeError):
        found = read_object(run / FILE, dict[str, Any])
        if found and found["weights_sha256"] == weights_sha256 and found["n"] == sum(found["counts"]["classes"]):
            return found
    return None
