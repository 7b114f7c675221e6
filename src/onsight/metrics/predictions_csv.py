"""predictions.csv: the file from which all scores are computed, written and read back exactly."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from onsight.core.errors import DataError
from onsight.core.files import write_file

# A spreadsheet runs a cell that starts with one of these (OWASP, "CSV Injection"; the full-width forms count too).
# The apostrophe itself is included, so that reading removes exactly one.
GUARDED = tuple("=+-@\t\r\n＝＋－＠'")


class Predictions(NamedTuple):
    """The content of `predictions.csv` for n images and C classes."""

    names: list[str]  # n paths
    labels: np.ndarray  # (n,) int64: indices into classes
    probabilities: np.ndarray  # (n, C) float32
    classes: list[str]  # C names


def write_predictions(
    path: Path, names: Sequence[str], labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> None:
    """Write `predictions.csv` atomically: path, label, predicted, then one probability column per class.

    `names` holds n paths, `labels` is (n,) int, `probabilities` is (n, C). Probabilities are written as float32 with
    nine digits, which read back exactly. Text that a spreadsheet would run gets a leading apostrophe, which
    `read_predictions` removes. Raises ValueError if the lengths do not match.
    """
    labels = np.asarray(labels)
    rows = np.asarray(probabilities, np.float32)
    if rows.shape != (len(names), len(classes)) or labels.shape != (len(names),):
        raise ValueError(
            f"the lengths do not match: {len(names)} names, labels {labels.shape}, probabilities {rows.shape}, "
            f"{len(classes)} classes"
        )
    cells = [csv_cell(name) for name in classes]
    numbers = ",".join(["%.9g"] * len(classes))
    predicted = rows.argmax(axis=1) if len(names) else labels

    def lines() -> Iterator[str]:
        yield ",".join(["path", "label", "predicted", *cells])
        for name, label, guess, row in zip(names, labels.tolist(), predicted.tolist(), rows, strict=True):
            yield f"{csv_cell(name)},{cells[label]},{cells[guess]},{numbers % tuple(row.tolist())}"

    # File names that are not Unicode reach Python as lone surrogates, which must survive a round trip.
    coded = (f"{line}\n".encode("utf-8", "surrogatepass") for line in lines())
    write_file(path, lambda file: file.writelines(coded))


def read_predictions(path: Path) -> Predictions:
    """Return exactly what `write_predictions` wrote.

    Raises DataError if the file is missing, damaged or something else.
    """
    try:
        with open(path, encoding="utf-8-sig", errors="surrogatepass", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, [])
            if header[:3] != ["path", "label", "predicted"] or len(header) == 3:
                raise ValueError("its first line must be path, label, predicted and the classes")
            classes = [uncelled(cell) for cell in header[3:]]
            index = {name: i for i, name in enumerate(classes)}
            if len(index) != len(classes):
                raise ValueError("a class occurs twice in its first line")
            names, labels, shares = [], [], bytearray()
            for row in rows:
                names.append(uncelled(row[0]))
                labels.append(index[uncelled(row[1])])
                # Nine digits are so close to the float32 that rounding twice, via float64, changes nothing.
                numbers = np.array([*map(float, row[3:])], np.float32)
                if len(numbers) != len(classes):
                    raise ValueError(f"a line has {len(numbers)} probabilities instead of {len(classes)}")
                shares += numbers.tobytes()
            probabilities = np.frombuffer(shares, np.float32).reshape(-1, len(classes))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Create it with: onsight evaluate RUN") from None
    except (ValueError, KeyError, IndexError, csv.Error) as error:
        raise DataError(
            f"{path} is not a complete predictions file ({error}). Create it again with: onsight evaluate RUN"
        ) from error
    return Predictions(names, np.array(labels, np.int64), probabilities, classes)


def csv_cell(text: str) -> str:
    """Return `text` as a quoted CSV cell that no spreadsheet runs."""
    guard = "'" if text.startswith(GUARDED) else ""
    return f'"{guard}{text}"' if '"' not in text else '"' + guard + text.replace('"', '""') + '"'


def uncelled(text: str) -> str:
    """Remove the apostrophe that `csv_cell` added. The csv module has already removed the quotes."""
    return text.removeprefix("'")
