"""A CSV of paths and labels: train on it, and report the accuracy by a column of your own.

    python examples/table.py                  # writes scikit-learn's digits as files with such a table, and takes these
    python examples/table.py labels.csv       # yours: path,label and any other columns; paths relative to the CSV

The digits: 99.7 % of 292 (95 %: 98.1 to 99.9) in 48 s of processor time, half a minute on two cores.
"""

import csv
import sys
from pathlib import Path

from PIL import Image

import onsight


def write_digits(folder: Path) -> Path:
    """Write a PNG file a digit, and the table: its label, and which quarter of the collection it is from."""
    digits = onsight.load_dataset("digits")
    folder.mkdir(exist_ok=True)
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "quarter"])
        for number, (image, label) in enumerate(zip(digits.images, digits.labels, strict=True)):
            Image.fromarray(image).save(folder / f"{number}.png")
            table.writerow([f"{number}.png", digits.classes[label], 1 + 4 * number // len(digits)])
    return folder / "labels.csv"


if __name__ == "__main__":
    labels = Path(sys.argv[1]) if len(sys.argv) > 1 else write_digits(Path("scans"))
    run = onsight.train(onsight.TrainSpec(data=labels, preset="quick", augmentation="none"))
    evaluation = onsight.evaluate(run, slices_file=labels)
    print(evaluation)
    for row in evaluation.slices["slices"][:6]:  # the weakest first
        print(f"{row['by']} {row['value']}: {row['accuracy']:.1%} of {row['n']}", "(worse)" if row["worse"] else "")
