#!/usr/bin/env python3
"""Compare suspected wrong labels among CIFAR-10's test images with what people said about these images.

    python benchmarks/label_errors.py PEOPLE RUN [RUN ...]

PEOPLE is `mturk/cifar10_mturk.json` of github.com/cleanlab/label-errors (Northcutt, Athalye, Mueller 2021): five people
each answered whether an image shows its label, another class, both or neither. They were asked about 275 images only,
so more suspects than those may be wrong. Each RUN was trained on official CIFAR-10 and evaluated. The lines are for the
first run at several temperatures, relative to its own, and at one fitted again, as reports do it, and for the average
of all runs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from onsight.evaluation.label_errors import calibrated, find_suspects
from onsight.metrics.predictions_csv import read_predictions
from onsight.metrics.scores import with_temperature
from onsight.runs.run import open_run

MAJORITY = 3  # of five people
RELATIVE = (0.5, 0.7, 1.0, 1.5)  # temperatures; 1 is the run's own


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    people, *runs = sys.argv[1:]
    tables = [read_predictions(open_run(Path(run)).evaluation_folder() / "predictions.csv") for run in runs]
    asked = {}
    for answer in json.loads(Path(people).read_text()):
        if tables[0].labels[answer["id"]] != answer["given_original_label"]:
            sys.exit(f"test image {answer['id']} has another label in {runs[0]} than in {people}")
        asked[answer["id"]] = answer["mturk"]
    print(judged(asked, set(asked)))
    again = [calibrated(table).probabilities for table in tables]
    rows = {f"temperature {each:g}": with_temperature(tables[0].probabilities, each) for each in RELATIVE}
    rows |= {"fitted again": again[0], f"average of {len(runs)}": np.mean(again, axis=0)}
    labels = tables[0].labels
    for name, probabilities in rows.items():
        right = 100 * (probabilities.argmax(axis=1) == labels).mean()
        found = set(find_suspects(labels, probabilities).images.tolist())
        print(f"{name}: {right:.1f} % right, {len(found)} suspects; {judged(asked, found)}")


def judged(asked: dict[int, dict[str, int]], images: set[int]) -> str:
    """Return how many of the images people were asked about, did not confirm, and rejected, in words."""
    votes = [asked[number] for number in images & set(asked)]
    unconfirmed = sum(vote["given"] < MAJORITY for vote in votes)
    rejected = sum(vote["guessed"] + vote["neither"] >= MAJORITY for vote in votes)
    return f"people were asked about {len(votes)}, did not confirm {unconfirmed}, rejected {rejected}"


if __name__ == "__main__":
    main()
