"""learning_curve(spec) -> Curve: accuracy against the number of training images, and whether more would pay.

Every size is trained as an ordinary run and judged on the same validation images; the test set is not touched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onsight.core.errors import SpecError
from onsight.core.files import make_folder, now, write_json
from onsight.core.progress import Reporter
from onsight.core.text import percent
from onsight.data.load import load_dataset
from onsight.display.reporters import make_reporter
from onsight.metrics.intervals import deviation, mean, wilson
from onsight.reporting import plot_style, plots
from onsight.runs.run import Run
from onsight.spec import TrainSpec
from onsight.training.train import same_start, train

SIZES = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # images a class
WORTH = 0.01  # of accuracy: what twice the images should bring to be worth collecting
DRAWS = 2000
UNJUDGED = "A learning curve is judged on validation images; take a --validation above 0."


class Curve(NamedTuple):
    """A learning curve: its folder, with curve.json and curve.png, and what the first holds."""

    folder: Path
    record: dict[str, Any]


def learning_curve(
    spec: TrainSpec,
    *,
    sizes: Sequence[int] | None = None,
    seeds: int = 3,
    out: Path | None = None,
    reporter: Reporter | None = None,
) -> Curve:
    """Train `spec` on some, more and all images of each class, several times, and fit how the errors fall.

    The error is fitted as a * shots ** -b (Hestness et al. 2017, "Deep Learning Scaling is Predictable, Empirically").
    It has no floor below which more images do not help, so what it promises is the best case.

    Args:
        spec: what to train, on what and how.
        sizes: images a class; by default 5, 10, 20, 50 and so on, as far as the classes reach, and all of them.
        seeds: trainings of each size, with other images each.
        out: folder for curve.json and curve.png; by default curves/ and the data set's name.
        reporter: where progress goes.

    Raises:
        SpecError: there are no validation images, or too few sizes, or `out` cannot be made.
        OnsightError: as `train` raises them; runs that have finished stay.
    """
    if seeds < 1:
        raise SpecError(f"seeds={seeds} trains nothing; expected 1 or more.")
    if spec.shots is not None:
        raise SpecError("A learning curve chooses the shots itself: leave --shots out, or give --sizes.")
    wanted = sorted(set(sizes or ()))
    if len(wanted) == 1:
        raise SpecError(f"A curve needs two sizes or more, and --sizes has {wanted[0]} alone.")
    if out:
        make_folder(out)
    show = reporter or make_reporter()
    if spec.validation == 0 and "validation" not in load_dataset(spec.data, spec.data_dir, show.work).parts:
        raise SpecError(UNJUDGED)
    asked = spec.model_dump(exclude_unset=True)
    first_seed, split_seed = spec.seed, spec.seed if spec.split_seed is None else spec.split_seed

    trained: list[Run] = []

    def measure(shots: int | None) -> dict[str, Any]:
        for each in range(seeds):
            show.note(f"curve            {shots or 'all'} images a class, {each + 1} of {seeds}")
            more = {"seed": first_seed + each, "split_seed": split_seed, "shots": shots}
            trained.append(train(same_start(TrainSpec(**{**asked, **more}), trained), reporter=show))
            n = sum(trained[-1].dataset["counts"]["validation"].values())
            if not n:
                raise SpecError(UNJUDGED)
        runs = trained[-seeds:]
        counts = runs[0].dataset["counts"]["train"]
        accuracies = [float((run.model_epoch() or {})["val_accuracy"]) for run in runs]
        low, high = interval(accuracies, n)
        return {
            "shots": round(sum(counts.values()) / len(counts)),  # fewer than asked for where a class has fewer
            "pictures": sum(counts.values()),
            "accuracies": accuracies,
            "accuracy": mean(accuracies),
            "low": low,
            "high": high,
            "n": n,
            "runs": [run.name for run in runs],
            "data": runs[0].dataset["name"],
        }

    everything = None
    if not wanted:  # all of them first: then it is known how many there are
        everything = measure(None)
        wanted = [size for size in SIZES if size < 0.75 * everything["shots"]]
    points: list[dict[str, Any]] = []
    for size in wanted:
        point = measure(size)
        if not points or point["shots"] > points[-1]["shots"]:
            points.append(point)
        most = max(trained[-1].dataset["counts"]["train"].values())
        if most < size:
            show.note(f"curve            no class has more than {most:,} images: there are no larger sizes")
            break
    points += [everything] if everything else []
    if len(points) < 2:
        raise SpecError(f"A curve needs two sizes or more, and there is {len(points)}. Give --sizes, or add images.")
    fit = fit_power(points)
    record = {
        "created": now(),
        "data": points[0]["data"],
        "asked": spec.model_dump(mode="json", exclude_unset=True),
        "points": points,
        "fit": fit,
        "verdict": verdict(points, fit),
    }
    folder = out or unused(Path("curves"), str(points[0]["data"]))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "curve.json", record)
    plot_style.save(plots.learning_curve(points, fit, record["verdict"]["headline"]), folder / "curve.png")
    return Curve(folder, record)


def interval(accuracies: Sequence[float], n: int) -> tuple[float, float]:
    """Return the 95 % interval of a mean accuracy: of Wilson for n images, widened where seeds differ by more."""
    middle = mean(accuracies)
    low, high = wilson(round(middle * n), n)
    if len(accuracies) > 1:
        from scipy.stats import t

        half = float(t.ppf(0.975, len(accuracies) - 1)) * (deviation(accuracies) or 0.0) / len(accuracies) ** 0.5
        low, high = min(low, middle - half), max(high, middle + half)
    return max(0.0, low), min(1.0, high)


def fit_power(points: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return a and b of error = a * shots ** -b, and the gain of twice the images with its 95 % interval.

    Least squares in logarithms. The interval is of fits to accuracies drawn anew: seeds with replacement, and the
    validation images as a binomial. None where fewer than three sizes were trained.
    """
    if len(points) < 3:
        return None
    shots = np.array([point["shots"] for point in points], float)
    n = points[0]["n"]

    def fitted(accuracy: np.ndarray) -> tuple[float, float]:
        error = np.maximum(1 - accuracy, 0.5 / n)  # none wrong is not never wrong
        slope, offset = np.polyfit(np.log(shots), np.log(error), 1)
        return float(np.exp(offset)), float(-slope)

    def gain(a: float, b: float) -> float:
        return float(a * shots[-1] ** -b * (1 - 2.0**-b))

    a, b = fitted(np.array([point["accuracy"] for point in points]))
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(DRAWS):
        drawn = [np.mean(rng.choice(point["accuracies"], len(point["accuracies"]))) for point in points]
        gains.append(gain(*fitted(rng.binomial(n, np.clip(drawn, 0, 1)) / n)))
    low, high = np.percentile(gains, [2.5, 97.5])
    return {"a": a, "b": b, "gain": gain(a, b), "gain_interval": [float(low), float(high)]}


def verdict(points: Sequence[dict[str, Any]], fit: dict[str, Any] | None) -> dict[str, Any]:
    """Return whether collecting more pays: `pays` (True, False, or None where it cannot be told), headline, text."""
    before, last = points[-2], points[-1]
    step = last["accuracy"] - before["accuracy"]
    facts = (
        f"From {before['shots']:,} to {last['shots']:,} images a class accuracy went from "
        f"{percent(before['accuracy'])} to {percent(last['accuracy'])} (mean of {len(last['accuracies'])} trainings, "
        f"n = {last['n']:,})"
    )
    if fit is None:
        return {
            "pays": None,
            "headline": f"The last step brought {100 * step:+.1f} points; too few sizes to look ahead",
            "text": f"{facts}. With fewer than three sizes nothing is said of more images: give more --sizes.",
        }
    low, high = fit["gain_interval"]
    ahead = (
        f"If the errors go on falling as they did, twice the images bring {100 * fit['gain']:+.1f} points "
        f"(95 %: {100 * low:+.1f} to {100 * high:+.1f}), at best: the fit knows no floor"
    )
    if low >= WORTH:
        pays, headline = True, f"Collecting more pays: twice as many bring about {100 * fit['gain']:.1f} points"
    elif high < WORTH:
        pays, headline = False, f"More images hardly pay: twice as many bring less than {100 * WORTH:g} point"
    else:
        pays, headline = None, "Whether more images pay cannot be told from these"
    return {"pays": pays, "headline": headline, "text": f"{headline}. {facts}. {ahead}."}


def lines(curve: Curve) -> list[str]:
    """Return what the command prints."""
    rows = [
        f"{point['shots']:>7,} a class   {percent(point['accuracy'])}   "
        f"(95 %: {100 * point['low']:.1f} to {100 * point['high']:.1f})"
        for point in curve.record["points"]
    ]
    return [*rows, curve.record["verdict"]["text"], f"Plot: {curve.folder / 'curve.png'}"]


def unused(root: Path, name: str) -> Path:
    """Return a folder below `root`, the name and the next free number."""
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "curve"
    number = 1
    while (root / f"{plain}-{number:04d}").exists():
        number += 1
    return root / f"{plain}-{number:04d}"
